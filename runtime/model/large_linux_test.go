package model

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
)

// largeNetwork has a tensor of more than 2 GiB and, in file order, one that
// begins beyond 4 GiB. It has no weights.
func largeNetwork() *nn.Network {
	layer := func(inputs, outputs int) *nn.Dense {
		return &nn.Dense{Weight: blas32.General{Rows: outputs, Cols: inputs, Stride: inputs}, Bias: make([]float32, outputs)}
	}
	return &nn.Network{Inputs: 16400, Layers: []nn.Layer{layer(16400, 33000), layer(33000, 16400), layer(16400, 2)}}
}

// writeSparse writes a model of zeros, but for some elements, in a file whose
// zeros take no disk.
func writeSparse(t *testing.T, dir string, n *nn.Network, values map[string]map[int64]float32) {
	t.Helper()
	tensors := inFileOrder(networkTensors(n))
	header := layOut(tensors)
	graph, err := encodeGraph(&Model{Network: n}, tensors)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(filepath.Join(dir, graphFile), graph); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, weightsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	end := int64(len(header))
	put := func(b []byte, offset int64) {
		if _, err := file.WriteAt(b, offset); err != nil {
			t.Fatal(err)
		}
	}
	put(header, 0)
	for _, tensor := range tensors {
		end = max(end, tensor.offset+tensor.bytes())
		for i, v := range values[tensor.name] {
			put(floatBytes([]float32{v}), tensor.offset+4*i)
		}
	}
	if err := file.Truncate(end); err != nil {
		t.Fatal(err)
	}
	if last := tensors[len(tensors)-1]; end < 4<<30 || last.offset < 4<<30 {
		t.Fatalf("the file has %d bytes, and the last tensor begins at %d", end, last.offset)
	}
}

// Models of more than 2 GiB, and single tensors of that size, are mapped at
// offsets of more than 4 GiB, and memory stays as it was.
func TestMoreThanFourGigabytes(t *testing.T) {
	dir, n := t.TempDir(), largeNetwork()
	const in, hidden = 16400, 33000
	writeSparse(t, dir, n, map[string]map[int64]float32{
		"layers.0.weight": {0: 1, hidden*in - 1: 2},  // first to first, last to last
		"layers.1.weight": {in*hidden - 1: 0.5},      // last to last
		"layers.2.weight": {in - 1: 4, 2*in - 1: 10}, // last to both
		"layers.0.bias":   {hidden - 1: 1},
		"layers.1.bias":   {in - 1: 0.25},
		"layers.2.bias":   {1: -1},
	})
	before := ownMemory(t)
	m := mustOpen(t, dir)
	x := blas32.General{Rows: 1, Cols: in, Stride: in, Data: make([]float32, in)}
	x.Data[0], x.Data[in-1] = 5, 3
	y := predict(m, x)
	// (3*2+1)*0.5 + 0.25 = 3.75
	if y.Data[0] != 15 || y.Data[1] != 36.5 {
		t.Errorf("got %v, want [15 36.5]", y.Data[:2])
	}
	if grown := ownMemory(t) - before; grown > 64<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
}

// ownMemory is what this process has in memory that is not a file's.
func ownMemory(t *testing.T) int64 {
	t.Helper()
	status := string(readFile(t, "/proc/self/status"))
	found := regexp.MustCompile(`RssAnon:\s*(\d+) kB`).FindStringSubmatch(status)
	if found == nil {
		t.Fatalf("no RssAnon in %s", status)
	}
	kilobytes, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}
