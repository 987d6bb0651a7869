package model

import (
	"os"
	"path/filepath"
	"testing"
)

// Whatever the bytes, Open gives a network that can predict, or an error. Give
// -fuzzminimizetime=10x with -fuzz: which code the protobuf decoder runs varies
// from run to run, so that minimizing takes all the time there is.
func FuzzOpenONNX(f *testing.F) {
	graphs, err := filepath.Glob("testdata/*/*/model.onnx")
	if err != nil || len(graphs) == 0 {
		f.Fatal(graphs, err)
	}
	for _, graph := range graphs {
		data, err := os.ReadFile(graph)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	weights, err := os.ReadFile("testdata/own/ReLU/model.safetensors")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, graph []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{graphFile: graph, weightsFile: weights, "weights.bin": weights} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m, err := Open(dir)
		if err != nil {
			return
		}
		defer m.Close()
		if m.Network.Inputs*m.Network.Outputs() < 1<<20 {
			predict(m, random(1, 2, m.Network.Inputs))
		}
	})
}

// Tensors that are accepted lie in the file, next to each other.
func FuzzSafetensors(f *testing.F) {
	f.Add(safetensorsFile(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8))
	f.Add(safetensorsFile(`{"__metadata__":{},"a":{"dtype":"F32","shape":[1,0],"data_offsets":[0,0]}}`, 0))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tensors, err := parseSafetensors(data)
		if err != nil {
			return
		}
		covered := int64(0)
		for name, p := range tensors {
			if p.begin < headerStart || p.end < p.begin || p.end > int64(len(data)) {
				t.Fatalf("%q lies at [%d, %d) of %d", name, p.begin, p.end, len(data))
			}
			covered += p.end - p.begin
		}
		if covered > int64(len(data)) {
			t.Fatalf("tensors cover %d of %d bytes", covered, len(data))
		}
	})
}
