package serve

import (
	"bytes"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestManySmallPartsTakeLittleMemory sends bodies of a few megabytes in which
// every two or three bytes are a tensor.
func TestManySmallPartsTakeLittleMemory(t *testing.T) {
	const n = 1 << 20
	h := irisServer(t, nil).Handler()
	var before, after runtime.MemStats
	for _, body := range []string{
		`{"inputs":[` + strings.Repeat("{},", n) + `{}]}`,
		`{"outputs":[` + strings.Repeat("{},", n) + `{}],"inputs":[]}`,
	} {
		runtime.ReadMemStats(&before)
		got := call(h, http.MethodPost, "/v2/models/iris/infer", body)
		runtime.ReadMemStats(&after)
		if got.code != http.StatusRequestEntityTooLarge || !strings.Contains(got.body, "more than 65536 tensors") {
			t.Errorf("got %d %s", got.code, got.body)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 32*uint64(len(body)) {
			t.Errorf("%d bytes of memory for a body of %d", took, len(body))
		}
	}
	for _, part := range [][]byte{{0x2a, 0}, {0x32, 0}, {0x3a, 0}, {0x22, 0}} {
		wire := bytes.Repeat(part, n)
		runtime.ReadMemStats(&before)
		err := newBounded().Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, new(inferCall))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "more than 65536 tensors") {
			t.Errorf("%v: got %v", part, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 32*uint64(len(wire)) {
			t.Errorf("%v: %d bytes of memory for %d", part, took, len(wire))
		}
	}
}

func TestPartsAreCountedAtAllDepths(t *testing.T) {
	r := asking(one("FP32", &contents{Fp32Contents: make([]float32, 1000), BytesContents: slices.Repeat([][]byte{{}}, 7)}, 4), "label")
	wire, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	// The request's model name, input and output; the input's name, datatype,
	// and contents with seven byte strings; the output's name.
	if got := partsOf(wire, r.ProtoReflect().Descriptor()); got != 3+3+7+1 {
		t.Errorf("got %d", got)
	}
}

func partsOf(wire []byte, d protoreflect.MessageDescriptor) int { return parts(wire, d, 1<<16) }

func FuzzParts(f *testing.F) {
	wire, err := proto.Marshal(asking(asRaw(one("FP32", nil, 4), make([]byte, 16)), "label"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Fuzz(func(t *testing.T, wire []byte) {
		d := new(inferCall).ProtoReflect().Descriptor()
		if n := partsOf(wire, d); n < 0 || n > len(wire) {
			t.Errorf("%d parts in %d bytes", n, len(wire))
		}
	})
}
