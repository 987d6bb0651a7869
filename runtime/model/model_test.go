package model

import (
	"encoding/json"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

var update = flag.Bool("update", false, "write testdata/own")

func random(seed uint64, rows, cols int) blas32.General {
	r := rand.New(rand.NewPCG(seed, 0))
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

func positive(v []float32) []float32 {
	for i := range v {
		v[i] = v[i]*v[i] + 0.1
	}
	return v
}

// testModel uses every layer, and an activation within and at the end.
func testModel(a nn.Activation) *Model {
	return &Model{
		Network: &nn.Network{Inputs: 4, Layers: []nn.Layer{
			&nn.Normalization{Mean: random(1, 1, 4).Data, Scale: random(2, 1, 4).Data},
			&nn.Dense{Weight: random(3, 5, 4), Bias: random(4, 1, 5).Data, Activation: a},
			&nn.Dropout{Rate: 0.5},
			&nn.BatchNormalization{
				Gamma: random(5, 1, 5).Data, Beta: random(6, 1, 5).Data,
				Mean: random(7, 1, 5).Data, Variance: positive(random(8, 1, 5).Data), Epsilon: 1e-3,
			},
			&nn.Dense{Weight: random(9, 3, 5), Activation: a},
		}},
		Metadata: Metadata{
			Name: "test-" + a.Kind.String(), Inputs: []string{"a", "b", "c", "d"}, Label: "species", Classes: []string{"x", "y", "<z>"},
			Metrics: map[string]float64{"Accuracy": 0.75, "Loss": 0.1}, DatasetDigest: "sha256:0", Seed: 7,
			Lineage: spec.Lineage{Namespace: "ns", Job: "job", UID: "uid"}, CodeVersion: "v1",
			Golden: &Golden{Inputs: [][]float32{{1, 2, 3, 4}}, Outputs: [][]float32{{1, 2, 3}}},
		},
	}
}

func activations() map[string]nn.Activation {
	all := map[string]nn.Activation{}
	for kind := nn.Linear; kind <= nn.GELUTanh; kind++ {
		a := nn.Activation{Kind: kind}
		switch kind {
		case nn.LeakyReLU:
			a.Alpha = 0.2
		case nn.ELU:
			a.Alpha = 1.5
		}
		all[kind.String()] = a
	}
	all["LeakyReLU of 0"] = nn.Activation{Kind: nn.LeakyReLU}
	return all
}

func mustOpen(t *testing.T, dir string) *Model {
	t.Helper()
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func predict(m *Model, x blas32.General) blas32.General {
	return m.Network.Predict(x, m.Network.NewWorkspace(x.Rows))
}

func TestWriteAndOpen(t *testing.T) {
	for name, a := range activations() {
		t.Run(name, func(t *testing.T) {
			dir, want := t.TempDir(), testModel(a)
			if err := Write(dir, want); err != nil {
				t.Fatal(err)
			}
			got := mustOpen(t, dir)
			if diff := cmp.Diff(want.Metadata, got.Metadata); diff != "" {
				t.Error(diff)
			}
			// Dropout is only for training.
			layers := slices.Concat(want.Network.Layers[:2], want.Network.Layers[3:])
			if diff := cmp.Diff(layers, got.Network.Layers); diff != "" {
				t.Error(diff)
			}
			x := random(10, 7, 4)
			if diff := cmp.Diff(predict(want, x), predict(got, x), cmpopts.EquateApprox(1e-5, 1e-6)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The bytes are part of the model's identity: they change only on purpose.
// The answers of onnxruntime, and of PyTorch, to these very bytes are recorded
// beside them.
func TestOwnModels(t *testing.T) {
	for name, a := range activations() {
		dir, recorded := t.TempDir(), filepath.Join("testdata", "own", strings.ReplaceAll(name, " ", "-"))
		if *update {
			dir = recorded
		}
		if err := Write(dir, testModel(a)); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{graphFile, weightsFile, metadataFile} {
			if diff := cmp.Diff(readFile(t, recorded, file), readFile(t, dir, file)); diff != "" {
				t.Errorf("%s: %s changed", name, file)
			}
		}
		if !*update {
			checkAnswers(t, recorded, "expected.json")
			checkAnswers(t, recorded, "pytorch.json")
		}
	}
}

func readFile(t *testing.T, elements ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkAnswers compares with what another program answered (see
// testdata/record), to 1e-5.
func checkAnswers(t *testing.T, dir, file string) {
	t.Helper()
	var expected Golden
	if err := json.Unmarshal(readFile(t, dir, file), &expected); err != nil {
		t.Fatal(err)
	}
	m := mustOpen(t, dir)
	x := blas32.General{Rows: len(expected.Inputs), Cols: len(expected.Inputs[0]), Stride: len(expected.Inputs[0])}
	for _, row := range expected.Inputs {
		x.Data = append(x.Data, row...)
	}
	y := predict(m, x)
	for i, want := range expected.Outputs {
		got := y.Data[i*y.Stride : i*y.Stride+y.Cols]
		if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-5, 1e-5)); diff != "" {
			t.Errorf("%s, row %d: %s", dir, i, diff)
		}
	}
}

func TestForeignModels(t *testing.T) {
	dirs, err := filepath.Glob("testdata/foreign/*")
	if err != nil || len(dirs) < 10 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { checkAnswers(t, dir, "expected.json") })
	}
}

func TestForeignModelHasDefaultMetadata(t *testing.T) {
	m := mustOpen(t, "testdata/foreign/keras")
	if diff := cmp.Diff(Metadata{Name: "exported"}, m.Metadata); diff != "" {
		t.Error(diff)
	}
}

// Weights are the file's memory, not a copy of it.
func TestWeightsAreMapped(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, testModel(nn.Activation{})); err != nil {
		t.Fatal(err)
	}
	m := mustOpen(t, dir)
	mapped := floats(m.files.mapped[weightsFile][:len(m.files.mapped[weightsFile])/4*4])
	weight := m.Network.Layers[1].(*nn.Dense).Weight.Data
	for i := range mapped {
		if &mapped[i] == &weight[0] {
			return
		}
	}
	t.Error("the weights are not in the mapped file")
}

func TestCloseTwice(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, testModel(nn.Activation{})); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := (&Model{}).Close(); err != nil {
		t.Error(err)
	}
}

// Weights may be a part of a larger matrix.
func TestWriteWithStride(t *testing.T) {
	wide := random(1, 3, 9)
	wide.Cols = 4
	dir := t.TempDir()
	m := &Model{Network: &nn.Network{Inputs: 4, Layers: []nn.Layer{&nn.Dense{Weight: wide}}}}
	if err := Write(dir, m); err != nil {
		t.Fatal(err)
	}
	x := random(2, 2, 4)
	if diff := cmp.Diff(predict(m, x), predict(mustOpen(t, dir), x), cmpopts.EquateApprox(1e-5, 1e-6)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteRefuses(t *testing.T) {
	for want, change := range map[string]func(*Model){
		"layers[1] (Dense): the bias has 1 elements":       func(m *Model) { m.Network.Layers[1].(*nn.Dense).Bias = []float32{1} },
		"inputs has 1 names, but the network has 4":        func(m *Model) { m.Metadata.Inputs = []string{"a"} },
		"classes has 2 labels, but the network has 3":      func(m *Model) { m.Metadata.Classes = []string{"a", "b"} },
		"golden row 0 has 1 inputs and 3 outputs":          func(m *Model) { m.Metadata.Golden.Inputs[0] = []float32{1} },
		"golden has 2 inputs and 1 outputs":                func(m *Model) { m.Metadata.Golden.Inputs = make([][]float32, 2) },
		"writing model.json: json: unsupported value: NaN": func(m *Model) { m.Metadata.Metrics["Loss"] = math.NaN() },
	} {
		m := testModel(nn.Activation{})
		change(m)
		if err := Write(t.TempDir(), m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
