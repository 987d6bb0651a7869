package serve

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// binaryTensor is the head of a request with one binary input.
func binaryTensor(datatype, shape string, size int, parameters string) string {
	return fmt.Sprintf(`{"inputs":[{"name":"x","datatype":%q,"shape":%s,"parameters":{"binary_data_size":%d}}],"parameters":%s}`,
		datatype, shape, size, parameters)
}

// encoded is what encoding/binary makes of a slice of numbers.
func encoded(t testing.TB, values any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, values); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// callBinary sends head and tail. Header is the value of binaryHeader; empty:
// the head's length.
func callBinary(h http.Handler, path, head string, tail []byte, header string) answer {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(head+string(tail)))
	if header == "" {
		header = strconv.Itoa(len(head))
	}
	r.Header.Set(binaryHeader, header)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Body.String(), w.Header()}
}

func TestBinaryInputsOfEveryDatatype(t *testing.T) {
	h := irisServer(t, nil).Handler()
	for _, c := range []struct {
		datatype string
		tail     []byte
		want     string
	}{
		{"FP32", encoded(t, []float32{5.1, -3.5, 1e-45, 0}), "[5.1,-3.5,1e-45]"},
		{"FP64", encoded(t, []float64{5.1, -3.5, 1e-300, 0}), "[5.1,-3.5,0]"},
		{"FP16", encoded(t, []uint16{0x3c00, 0xc500, 0x0001, 0}), "[1,-5,5.9604645e-08]"},
		{"BF16", encoded(t, []uint16{0x3f80, 0xc0a0, 0x4049, 0}), "[1,-5,3.140625]"},
		{"BOOL", []byte{1, 0, 1, 0}, "[1,0,1]"},
		{"INT8", encoded(t, []int8{-128, 127, 3, 0}), "[-128,127,3]"},
		{"INT16", encoded(t, []int16{-32768, 2, 3, 0}), "[-32768,2,3]"},
		{"INT32", encoded(t, []int32{-65536, 2, 3, 0}), "[-65536,2,3]"},
		{"INT64", encoded(t, []int64{-1 << 40, 2, 3, 0}), "[-1.0995116e+12,2,3]"},
		{"UINT8", []byte{255, 2, 3, 0}, "[255,2,3]"},
		{"UINT16", encoded(t, []uint16{65535, 2, 3, 0}), "[65535,2,3]"},
		{"UINT32", encoded(t, []uint32{1 << 31, 2, 3, 0}), "[2.1474836e+09,2,3]"},
		{"UINT64", encoded(t, []uint64{1 << 63, 2, 3, 0}), "[9.223372e+18,2,3]"},
	} {
		got := callBinary(h, "/v2/models/iris/infer", binaryTensor(c.datatype, "[1,4]", len(c.tail), "{}"), c.tail, "")
		if got.code != http.StatusOK || !strings.Contains(got.body, `"data":`+c.want) {
			t.Errorf("%s: got %d %s, want %s", c.datatype, got.code, got.body, c.want)
		}
	}
}

func TestBinaryProblems(t *testing.T) {
	h := irisServer(t, nil).Handler()
	good := encoded(t, []float32{1, 2, 3, 4})
	four := binaryTensor("FP32", "[1,4]", 16, "{}")
	nan := encoded(t, []float32{1, 2, float32(math.NaN()), 4})
	for _, c := range []struct {
		name, head string
		tail       []byte
		header     string
		want       string
	}{
		{"header is a word", four, good, "ten", "Inference-Header-Content-Length is ten, but the body has"},
		{"header is zero", four, good, "0", "it must be the number of bytes of JSON"},
		{"header beyond the body", four, good, "9999", "is 9999, but the body has"},
		{"header cuts the JSON", four, good, "10", "the body is not JSON"},
		{"header counts the tensors", four, good, strconv.Itoa(len(four) + 16), "the body is not JSON"},
		{"tensor is cut", four, good[:12], "", `input \"x\" has parameters.binary_data_size 16, but 12 bytes are left`},
		{"bytes too many", four, append(slices.Clone(good), 0), "", "1 bytes after the JSON belong to no input"},
		{"negative size", binaryTensor("FP32", "[1,4]", -1, "{}"), good, "", "binary_data_size -1"},
		{"size is a fraction", strings.Replace(four, "16", "1.5", 1), good, "", "inputs[0].parameters.binary_data_size is a number, expected a whole number"},
		{"data as well", strings.Replace(four, `"name"`, `"data":[1,2,3,4],"name"`, 1), good, "", "both data and parameters.binary_data_size"},
		{"another shape", binaryTensor("FP32", "[2,4]", 16, "{}"), good, "", "data has 16 bytes, but 8 elements of FP32, as the shape [2, 4] says, have 32"},
		{"another type", binaryTensor("FP64", "[1,4]", 16, "{}"), good, "", "data has 16 bytes, but 4 elements of FP64"},
		{"bytes", binaryTensor("BYTES", "[1,4]", 16, "{}"), good, "", "has datatype BYTES, but the model computes with numbers"},
		{"not a number", four, nan, "", `data[0][2] is NaN, not a finite number`},
		{"infinity", binaryTensor("FP16", "[4]", 8, "{}"), encoded(t, []uint16{0, 0x7c00, 0, 0}), "", `data[1] is +Inf, not a finite number`},
		{"too large", binaryTensor("FP64", "[4]", 32, "{}"), encoded(t, []float64{0, 0, 0, 1e39}), "", "data[3] is 1e+39, beyond what float32 can hold"},
		{"no boolean", binaryTensor("BOOL", "[4]", 4, "{}"), []byte{0, 1, 2, 0}, "", "data[2] is 2, not a value of BOOL"},
		{"binary_data is a word", `{"outputs":[{"name":"outputs","parameters":{"binary_data":"yes"}}],` + four[1:], good, "", "outputs[0].parameters.binary_data is a string, expected true or false"},
	} {
		got := callBinary(h, "/v2/models/iris/infer", c.head, c.tail, c.header)
		if got.code != http.StatusBadRequest || !strings.Contains(got.body, c.want) {
			t.Errorf("%s: got %d %s, want %s", c.name, got.code, got.body, c.want)
		}
	}
	if got := call(h, http.MethodPost, "/v2/models/iris/infer", four); got.code != http.StatusBadRequest || !strings.Contains(got.body, "has no header Inference-Header-Content-Length") {
		t.Errorf("no header: got %d %s", got.code, got.body)
	}
	if got := callBinary(h, "/v1/models/iris:predict", `{"instances":[[1,2,3,4]]}`, nil, ""); got.code != http.StatusBadRequest || !strings.Contains(got.body, "V1 does not have") {
		t.Errorf("V1: got %d %s", got.code, got.body)
	}
}

func TestBinaryColumnsAndListsTogether(t *testing.T) {
	head := columns(column("petal_width", "[2]", "[0,0]"),
		`{"name":"petal_length","datatype":"FP64","shape":[2,1],"parameters":{"binary_data_size":16}}`,
		column("sepal_width", "[2,1]", "[3.5,2]"),
		`{"name":"sepal_length","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}}`)
	tail := append(encoded(t, []float64{1.4, 1}), 5, 6)
	got := callBinary(irisServer(t, nil).Handler(), "/v2/models/iris/infer", head, tail, "")
	if got.code != http.StatusOK || !strings.Contains(got.body, `"shape":[2,3],"data":[5,3.5,1.4,6,2,1]`) {
		t.Errorf("got %d %s", got.code, got.body)
	}
}

func TestBinaryOutputs(t *testing.T) {
	const head = `{"model_name":"iris","model_version":"aaaaaaaaaaaa","outputs":[`
	numbers := string(encoded(t, []float32{5.5, 3.5, 1.5}))
	labels := "\x06\x00\x00\x00setosa"
	h := irisServer(t, nil).Handler()
	for _, c := range []struct {
		name, outputs, parameters string
		want, tail                string
	}{
		{"the request says so", ``, `{"binary_data_output":true}`,
			`{"name":"outputs","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}]}`, numbers},
		{"the output says so", `"outputs":[{"name":"label","parameters":{"binary_data":true}}],`, `{}`,
			`{"name":"label","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":10}}]}`, labels},
		{"the output knows better", `"outputs":[{"name":"outputs","parameters":{"binary_data":false}},{"name":"label"}],`, `{"binary_data_output":true}`,
			`{"name":"outputs","datatype":"FP32","shape":[1,3],"data":[5.5,3.5,1.5]},{"name":"label","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":10}}]}`, labels},
		{"both", `"outputs":[{"name":"label"},{"name":"outputs"}],`, `{"binary_data_output":true}`,
			`{"name":"label","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":10}},{"name":"outputs","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}]}`, labels + numbers},
	} {
		// A request in JSON may ask for an answer in binary form.
		body := "{" + c.outputs + `"parameters":` + c.parameters + `,` + v2("FP32", "[4]", "[5.5,3.5,1.5,0]")[1:]
		got := call(h, http.MethodPost, "/v2/models/iris/infer", body)
		if got.code != http.StatusOK || got.body != head+c.want+c.tail {
			t.Errorf("%s: got %d %q\nwant %q", c.name, got.code, got.body, head+c.want+c.tail)
		}
		if n := got.header.Get(binaryHeader); n != strconv.Itoa(len(head+c.want)) || got.header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: header %v", c.name, got.header)
		}
	}
}

// A number that is not finite is found wherever it is, and no other is taken for
// one: not the largest, nor the smallest.
func TestFiniteNumbers(t *testing.T) {
	for _, n := range []int{1, 2, 7, 8, 9, 33} {
		for at := range n {
			for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32} {
				values := slices.Repeat([]float32{-1.5}, n)
				values[at] = v
				var r raw
				for _, v := range values {
					r = little.AppendUint32(r, math.Float32bits(v))
				}
				got, err := r.appendTo([]float32{1}, float32s, []int{1, n})
				if odd := v-v != 0; odd != (err != nil) || !odd && !slices.Equal(got[1:], values) {
					t.Errorf("%v at %d of %d gives %v, %v", v, at, n, got, err)
				}
			}
		}
	}
}
