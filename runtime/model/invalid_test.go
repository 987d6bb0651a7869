package model

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/model/internal/onnxpb"
	"trainyard.dev/trainyard/runtime/nn"
)

// written writes a small model and returns its folder.
func written(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	m := &Model{Network: &nn.Network{Inputs: 2, Layers: []nn.Layer{
		&nn.Dense{Weight: random(1, 3, 2), Bias: random(2, 1, 3).Data, Activation: nn.Activation{Kind: nn.ReLU}},
	}}}
	if err := Write(dir, m); err != nil {
		t.Fatal(err)
	}
	return dir
}

// changeGraph rewrites a model's graph.
func changeGraph(t testing.TB, dir string, change func(*onnxpb.Model)) {
	t.Helper()
	path := filepath.Join(dir, graphFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var m onnxpb.Model
	if err := proto.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	change(&m)
	if data, err = proto.Marshal(&m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func external(m *onnxpb.Model, key, value string) {
	for _, entry := range m.Graph.Initializer[0].ExternalData {
		if entry.Key == key {
			entry.Value = value
		}
	}
}

func inline(t *onnxpb.Tensor) {
	t.DataLocation, t.ExternalData = onnxpb.Tensor_DEFAULT, nil
}

func TestOpenSaysWhatIsWrongWithTheGraph(t *testing.T) {
	for want, change := range map[string]func(*onnxpb.Model){
		`node "layers.0" (LSTM): this operator`: func(m *onnxpb.Model) {
			n := m.Graph.Node[0]
			n.OpType, n.Output = "LSTM", []string{"state", n.Output[0]}
		},
		`node "layers.0.activation" (Relu): only its first output`: func(m *onnxpb.Model) {
			m.Graph.Node[1].Output = []string{"other", "outputs"}
		},
		"has no graph":    func(m *onnxpb.Model) { m.Graph = nil },
		"operator set 6;": func(m *onnxpb.Model) { m.OpsetImport[0].Version = 6 },
		`node "layers.0" (Conv): this operator is not supported`: func(m *onnxpb.Model) { m.Graph.Node[0].OpType = "Conv" },
		`node "layers.0" (com.example.Gemm): this operator`:      func(m *onnxpb.Model) { m.Graph.Node[0].Domain = "com.example" },
		`node "output outputs" (Selu): this operator`:            func(m *onnxpb.Model) { m.Graph.Node[1].OpType, m.Graph.Node[1].Name = "Selu", "" },
		`nothing in the graph computes "elsewhere"`:              func(m *onnxpb.Model) { m.Graph.Output[0].Name = "elsewhere" },
		`nothing in the graph computes "gone"`:                   func(m *onnxpb.Model) { m.Graph.Node[1].Input[0] = "gone" },
		"depends on its own result":                              func(m *onnxpb.Model) { m.Graph.Node[1].Input[0] = "outputs" },
		"computes from 2 computed values":                        func(m *onnxpb.Model) { m.Graph.Node[1].Input = []string{"inputs", "layers.0.out"} },
		"the graph has no input":                                 func(m *onnxpb.Model) { m.Graph.Input = nil },
		"has several inputs":                                     func(m *onnxpb.Model) { m.Graph.Input = append(m.Graph.Input, &onnxpb.Value{Name: "more"}) },
		"has 2 outputs, 2 of them float":                         func(m *onnxpb.Model) { m.Graph.Output = append(m.Graph.Output, m.Graph.Output[0]) },
		"is for 2 columns, but 1000000 come in":                  func(m *onnxpb.Model) { setColumns(m, 1_000_000) },
		"has a dimension of 1099511627776":                       func(m *onnxpb.Model) { setColumns(m, 1<<40) },
		"more than two dimensions here; flatten it first":        func(m *onnxpb.Model) { s := m.Graph.Input[0].Type.TensorType.Shape; s.Dim = append(s.Dim, s.Dim[1]) },
		"the data must be its first input, not transposed": func(m *onnxpb.Model) {
			m.Graph.Node[0].Attribute = append(m.Graph.Node[0].Attribute, intAttribute("transA", 1))
		},
		`tensor "layers.0.weight": has location "../model.onnx"`:     func(m *onnxpb.Model) { external(m, "location", "../model.onnx") },
		`tensor "layers.0.weight": has location "/etc/passwd"`:       func(m *onnxpb.Model) { external(m, "location", "/etc/passwd") },
		`tensor "layers.0.weight": openat gone: no such file`:        func(m *onnxpb.Model) { external(m, "location", "gone") },
		`tensor "layers.0.weight": has offset "-1"`:                  func(m *onnxpb.Model) { external(m, "offset", "-1") },
		`tensor "layers.0.weight": has offset "x"`:                   func(m *onnxpb.Model) { external(m, "offset", "x") },
		`tensor "layers.0.weight": of shape [3 2] needs 24 bytes`:    func(m *onnxpb.Model) { external(m, "length", "20") },
		`tensor "layers.0.weight": ends at offset 1000024 of`:        func(m *onnxpb.Model) { external(m, "offset", "1000000") },
		`is there of shape [3 2] at offset 192; do the files belong`: func(m *onnxpb.Model) { external(m, "offset", "196") },
		`tensor "else": is not in model.safetensors`:                 func(m *onnxpb.Model) { m.Graph.Initializer[0].Name = "else"; m.Graph.Node[0].Input[1] = "else" },
		`has element type 10; only float (1) and double (11)`:        func(m *onnxpb.Model) { m.Graph.Initializer[0].DataType = 10 },
		`of shape [3 2] needs 6 elements, but has 0`:                 func(m *onnxpb.Model) { inline(m.Graph.Initializer[0]) },
		`shape [1099511627776 1099511627776] has too many elements`:  func(m *onnxpb.Model) { m.Graph.Initializer[0].Dims = []int64{1 << 40, 1 << 40} },
		`shape [-3 2] cannot be`:                                     func(m *onnxpb.Model) { m.Graph.Initializer[0].Dims[0] = -3 },
		`has 5 bytes, which are no whole numbers`: func(m *onnxpb.Model) {
			inline(m.Graph.Initializer[0])
			m.Graph.Initializer[0].RawData = make([]byte, 5)
		},
	} {
		dir := written(t)
		changeGraph(t, dir, change)
		_, err := Open(dir)
		if err == nil {
			t.Errorf("opened, want %s", want)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func setColumns(m *onnxpb.Model, n int64) {
	m.Graph.Input[0].Type.TensorType.Shape.Dim[1].Value = &onnxpb.Dimension_DimValue{DimValue: n}
}

func TestOpenSaysWhatIsWrongWithTheFiles(t *testing.T) {
	for want, change := range map[string]func(dir string) error{
		"model.onnx: no such file":            func(dir string) error { return os.Remove(filepath.Join(dir, graphFile)) },
		"model.safetensors: no such file":     func(dir string) error { return os.Remove(filepath.Join(dir, weightsFile)) },
		"model.onnx: it is not an ONNX model": func(dir string) error { return os.WriteFile(filepath.Join(dir, graphFile), []byte("PK"), 0o600) },
		"model.json: byte 1:":                 func(dir string) error { return os.WriteFile(filepath.Join(dir, metadataFile), []byte("x"), 0o600) },
		"model.json: classes has 2 labels, but": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, metadataFile), []byte(`{"classes":["a","b"]}`), 0o600)
		},
		"ends at offset 228, but the file has":   func(dir string) error { return os.Truncate(filepath.Join(dir, weightsFile), 220) },
		"it has 0 bytes, too few for the length": func(dir string) error { return os.Truncate(filepath.Join(dir, weightsFile), 0) },
		"path escapes from parent": func(dir string) error {
			outside := filepath.Join(dir, "..", "outside.safetensors")
			if err := os.Rename(filepath.Join(dir, weightsFile), outside); err != nil {
				return err
			}
			return os.Symlink(outside, filepath.Join(dir, weightsFile))
		},
	} {
		dir := written(t)
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("opened a folder that is not there")
	}
}

// safetensorsFile has that header, and zeros.
func safetensorsFile(header string, size int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, size)...)
}

func TestParseSafetensors(t *testing.T) {
	for _, test := range []struct {
		header string
		size   int
		want   string // "" for no error
	}{
		{`{}`, 0, ""},
		{`{"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}   `, 8, ""},
		{`{"b": {"dtype": "F32", "shape": [], "data_offsets": [4, 8]}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}`, 8, ""},
		{`{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}`, 4, ""},
		{`[]`, 0, "offset 9: the header is not a JSON object"},
		{`{"a"`, 0, "offset 12: "},
		{`{} {}`, 0, "there is more after the header's end"},
		{`{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}`, 4, `tensor "a" has dtype "F16"; only F32 can be read`},
		{`{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}`, 4, `tensor "a" of shape [2] has 4 bytes (data_offsets [0, 4]); it needs 8`},
		{`{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}`, 8, `tensor "a" has data_offsets [8, 0], which is no range`},
		{`{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}`, 4, `tensor "a": shape [-1] cannot be`},
		{`{"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}`, 4, `tensor "a": json: cannot unmarshal`},
		{`{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}`, 12, `tensor "b" starts at offset`},
		{`{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}`, 8, `tensor "a" starts at offset`},
		{`{"a": {"dtype": "F32", "shape": [1000000], "data_offsets": [0, 4000000]}}`, 4, `but the file has`},
		{`{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}`, 8, `but the file has`},
		{`{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}`, 8, "names a tensor twice"},
	} {
		_, err := parseSafetensors(safetensorsFile(test.header, test.size))
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.header, err, test.want)
		}
	}
	long := binary.LittleEndian.AppendUint64(nil, 1<<63)
	if _, err := parseSafetensors(append(long, '{', '}')); err == nil || !strings.Contains(err.Error(), "offset 0: the header's length is 9223372036854775808") {
		t.Errorf("a long header: %v", err)
	}
}
