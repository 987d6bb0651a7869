package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/spec"
)

// fuzzed feeds bodies to a codec: it never panics, refuses with a status that
// blames the client, and answers with JSON for as many rows as were computed.
func fuzzed(f *testing.F, c codec) {
	s := irisServer(f, nil)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(v.release)
	f.Fuzz(func(t *testing.T, body []byte) {
		b := new(buffers)
		b.body = body
		err := c(context.Background(), v, 100, b)
		if p := (*problem)(nil); errors.As(err, &p) && p.status < http.StatusInternalServerError {
			return
		}
		if err != nil {
			// The network only copies its inputs, so it cannot overflow.
			t.Fatalf("%q: %v", body, err)
		}
		if !json.Valid(b.answer) {
			t.Fatalf("%q: the answer is not JSON: %s", body, b.answer)
		}
		// A row of four numbers takes eight bytes at least.
		if len(b.x) > len(body)/2+1 {
			t.Fatalf("%q: %d numbers from %d bytes", body, len(b.x), len(body))
		}
	})
}

// FuzzBinaryTensors splits a body at any byte: the codec never panics, blames
// the client, and answers what its own head describes.
func FuzzBinaryTensors(f *testing.F) {
	s := irisServer(f, nil)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(v.release)
	add := func(head string, tail []byte) { f.Add(append([]byte(head), tail...), strconv.Itoa(len(head))) }
	add(binaryTensor("FP32", "[1,4]", 16, `{"binary_data_output":true}`), make([]byte, 16))
	add(binaryTensor("FP16", "[2,4]", 16, `{}`), bytes.Repeat([]byte{0x3c}, 16))
	add(binaryTensor("INT64", "[4]", 32, `{}`)[:20], make([]byte, 16))
	add(`{"outputs":[{"name":"label","parameters":{"binary_data":true}}],`+binaryTensor("BOOL", "[4]", 4, `{}`)[1:], []byte{0, 1, 0, 1})
	f.Add([]byte("{}"), "-1")
	f.Fuzz(func(t *testing.T, body []byte, header string) {
		b := new(buffers)
		b.body = body
		err := b.split(header)
		if err == nil {
			err = inferV2(context.Background(), v, 100, b)
		}
		if p := (*problem)(nil); errors.As(err, &p) && p.status < http.StatusInternalServerError {
			return
		}
		if err != nil {
			t.Fatalf("%q, %q: %v", body, header, err)
		}
		for _, x := range b.x {
			if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
				t.Fatalf("%q, %q: read %v", body, header, b.x)
			}
		}
		checkBinaryAnswer(t, b)
	})
}

// checkBinaryAnswer checks that the sizes in the answer's head add up to its
// tail.
func checkBinaryAnswer(t *testing.T, b *buffers) {
	t.Helper()
	head, tail := b.answer, []byte(nil)
	if b.answerHead > 0 {
		head, tail = b.answer[:b.answerHead], b.answer[b.answerHead:]
	}
	var response struct {
		Outputs []struct {
			Parameters struct {
				BinaryDataSize int `json:"binary_data_size"`
			}
		}
	}
	if err := json.Unmarshal(head, &response); err != nil {
		t.Fatalf("the answer is not JSON: %s: %v", head, err)
	}
	size := 0
	for _, o := range response.Outputs {
		size += o.Parameters.BinaryDataSize
	}
	if size != len(tail) {
		t.Fatalf("%s\nis followed by %d bytes", head, len(tail))
	}
}

// FuzzModelInfer reads any bytes as a message: the mapping never panics, blames
// the client, and answers in the form of the request, as much as it says.
func FuzzModelInfer(f *testing.F) {
	s := irisServer(f, nil)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(v.release)
	for _, r := range []*inferCall{
		one("FP32", &contents{Fp32Contents: []float32{1, 2, 3, 4}}, 1, 4),
		one("INT16", &contents{IntContents: []int32{1, 2, 3, 4, 5, 6, 7, 8}}, 2, 4),
		asking(one("BOOL", &contents{BoolContents: []bool{true, false, true, true}}, 4), "label", "outputs"),
		asking(asRaw(one("BF16", nil, 4), make([]byte, 8)), "label"),
		asRaw(one("UINT64", nil, -1, 4), make([]byte, 8), nil),
	} {
		seed, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		r := new(inferCall)
		if proto.Unmarshal(message, r) != nil {
			return
		}
		answer, err := inferGRPC(context.Background(), v, r, 100, new(buffers))
		if p := (*problem)(nil); errors.As(err, &p) && p.status < http.StatusInternalServerError {
			return
		}
		if err != nil {
			t.Fatalf("%v: %v", r, err)
		}
		if _, err := proto.Marshal(answer); err != nil {
			t.Fatalf("%v: %v", r, err)
		}
		for i, o := range answer.GetOutputs() {
			elements, rows := len(o.GetContents().GetFp32Contents())/3+len(o.GetContents().GetBytesContents()), o.GetShape()[0]
			if len(r.GetRawInputContents()) == 0 && int64(elements) != rows {
				t.Fatalf("%v: got %v", r, answer)
			}
			if len(r.GetRawInputContents()) != 0 && (elements != 0 || len(answer.GetRawOutputContents()[i]) < int(rows)) {
				t.Fatalf("%v: got %v", r, answer)
			}
		}
	})
}

func FuzzInferV2(f *testing.F) {
	f.Add([]byte(v2("FP32", "[2,4]", "[[5.1,3.5,1.4,0.2],[6,2,1,0]]")))
	f.Add([]byte(v2("INT8", "[4]", "[1,2,3,4]")))
	f.Add([]byte(columns(column("petal_width", "[1]", "[0]"), column("petal_length", "[1,1]", "[[1.4]]"),
		column("sepal_width", "[1]", "[3.5]"), column("sepal_length", "[1]", "[5.1]"))))
	f.Add([]byte(`{"id":"a","outputs":[{"name":"label"}],"inputs":[{"name":"x","shape":[-1,4],"datatype":"BOOL","data":[true]}]}`))
	f.Add([]byte(`{"inputs":[{"name":"x","shape":[4],"datatype":"FP32","data":[1,"\"]",{"a":[2,[3]]},4]}]}`))
	fuzzed(f, inferV2)
}

func FuzzPredictV1(f *testing.F) {
	f.Add([]byte(`{"instances":[[5.1,3.5,1.4,0.2],{"petal_width":0.2,"sepal_length":5.1,"sepal_width":3.5,"petal_length":1.4}]}`))
	f.Add([]byte(`{"parameters":{"labels":true},"inputs":{"x":[[5.1,3.5,1.4,0.2]]}}`))
	f.Add([]byte(`{"inputs":{"petal_width":[0],"sepal_length":[[5.1]],"sepal_width":[3.5],"petal_length":[1.4]}}`))
	f.Add([]byte(`{"instances":[{"petal\u005fwidth":[1],"a\\":"}"}]}`))
	f.Add([]byte(`{"inputs":[1,[2],{"a":3},"]"]}`))
	fuzzed(f, predictV1)
}

// FuzzLoad sends any body to the model repository: what it lets through is of the
// path's name and can be loaded, and the rest is the client's mistake.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"name":"one","repository":{"name":"registry.example/m"},"digest":"` + digest("a") + `"}`))
	f.Add([]byte(`{"repository":{"name":"registry.example/m","plainHTTP":true},"digest":"` + digest("a") + `","newContract":true,"weight":3}`))
	f.Add([]byte(`{"versions":[{"repository":{"name":"r/m"},"digest":"` + digest("a") + `","weight":90},{"repository":{"name":"r/m"},"digest":"` + digest("b") + `","weight":10}]}`))
	f.Add([]byte(`{"digest":"latest","versions":[{"weight":-1},{"name":"two"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		opened := map[string]bool{}
		s := newServer(testOptions(), func(_ context.Context, m spec.ServedModel) (*version, error) {
			if m.Name != "one" || check(m) != nil {
				t.Errorf("%q: loads %+v", body, m)
			}
			opened[m.Version()] = true
			n := constant(1)
			signature, err := newSignature(n.Inputs, n.Outputs(), nil, nil)
			return newVersion(m, signature, n, func() {}), err
		})
		defer s.Models().Close()
		got := call(s.Operations(), "POST", "/v2/repository/models/one/load", string(body))
		if got.code != http.StatusOK && (got.code < 400 || got.code >= 500 || len(opened) > 0) {
			t.Fatalf("%q: got %d %s, and %d were opened", body, got.code, got.body, len(opened))
		}
		if !json.Valid([]byte(got.body)) {
			t.Fatalf("%q: the answer is not JSON: %s", body, got.body)
		}
		for _, m := range s.Models().Index() {
			if m.Name != "one" || m.State != spec.StateReady || !opened[m.Version] {
				t.Fatalf("%q: got %d and %+v", body, got.code, m)
			}
		}
	})
}
