package serve

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

func TestSimpleRequests(t *testing.T) {
	row := v2("FP32", "[1,4]", "[5.1, 3.5,\n1.4,0.2]")
	with := func(members string) string { return strings.Replace(row, "{", "{"+members+",", 1) }
	for _, c := range []struct {
		name, text, tail string
		want             bool
	}{
		{"a row", row, "", true},
		{"one without rows", v2("FP32", "[4]", "[1,2,3,4]"), "", true},
		{"rows in rows", v2("FP32", "[2,4]", "[[1,2,3,4], [5,6,7,8]]"), "", true},
		{"rows in rows, indented", v2("FP32", "[2,4]", "[\n  [1,2,3,4],\n  [5,6,7,8]\n]"), "", true},
		{"numbers of all kinds", v2("FP32", "[8]", "[-0,0.5,-1e-3,2E+7,0.10000000149011612,123456789012345678901234567890,1e-45,1e-400]"), "", true},
		{"an id", with(`"id":"a"`), "", true},
		{"an output", with(`"outputs":[{"name":"label","parameters":{"binary_data":true}}]`), "", true},
		{"binary output", with(`"parameters":{"binary_data_output":true}`), "", true},
		{"binary", binaryTensor("INT8", "[4]", 4, "{}"), "\x01\x02\x03\x04", true},

		{"empty", "", "", false},
		{"only white", " \n", "", false},
		{"a zero byte behind", row + "\x00", "", false},
		{"no input", `{"inputs":[]}`, "", false},
		{"two inputs", columns(column("a", "[1]", "[1]"), column("b", "[1]", "[1]")), "", false},
		{"inputs twice", with(`"inputs":[]`), "", false},
		{"an unknown member", with(`"a":1`), "", false},
		{"an escape", with(`"id":"\n"`), "", false},
		{"not ASCII", with(`"id":"é"`), "", false},
		{"another type", v2("INT8", "[1]", "[1]"), "", false},
		{"data first", `{"inputs":[{"data":[1],"name":"a","shape":[1],"datatype":"FP32"}]}`, "", false},
		{"no data", `{"inputs":[{"name":"a","shape":[1],"datatype":"FP32"}]}`, "", false},
		{"too few", v2("FP32", "[4]", "[1,2,3]"), "", false},
		{"rows of other lengths", v2("FP32", "[2,2]", "[[1],[2,3,4]]"), "", false},
		{"rows that nothing ends", v2("FP32", "[1,4]", "[ [[1,2,3,4]]"), "", false},
		{"rows that nothing ends, close together", v2("FP32", "[1,4]", "[[[1,2,3,4]]"), "", false},
		{"deeper", v2("FP32", "[1,1]", "[[[1]]]"), "", false},
		{"rank 3", v2("FP32", "[1,1,1]", "[1]"), "", false},
		{"a leading zero", v2("FP32", "[1]", "[01]"), "", false},
		{"a point at the end", v2("FP32", "[1]", "[1.]"), "", false},
		{"an e at the end", v2("FP32", "[1]", "[1e]"), "", false},
		{"a plus", v2("FP32", "[1]", "[+1]"), "", false},
		{"hexadecimal", v2("FP32", "[1]", "[0x1]"), "", false},
		{"too large", v2("FP32", "[1]", "[1e39]"), "", false},
		{"NaN", v2("FP32", "[1]", "[NaN]"), "", false},
		{"null", v2("FP32", "[1]", "[null]"), "", false},
		{"a comma at the end", v2("FP32", "[1]", "[1,]"), "", false},
		{"no comma", v2("FP32", "[2]", "[1 2]"), "", false},
		{"not closed", strings.TrimSuffix(row, "}"), "", false},
		{"bytes that are nobody's", row, "\x01", false},
		{"binary, but fewer", binaryTensor("INT8", "[4]", 3, "{}"), "\x01\x02\x03\x04", false},
		{"binary without bytes", binaryTensor("INT8", "[4]", 4, "{}"), "", false},
		{"binary and not", `{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"data":[1],"parameters":{"binary_data_size":4}}]}`, "\x00\x00\x00\x00", false},
		{"many outputs", with(`"outputs":[` + strings.Repeat("{},", mostMembers) + `{}]`), "", false},
	} {
		var r inferRequest
		if _, ok := r.simple([]byte(c.text), []byte(c.tail), new(buffers)); ok != c.want {
			t.Errorf("%s: ok is %v: %s", c.name, ok, c.text)
		}
	}
}

// FuzzSimple compares with the decoder for all requests: what is read here is
// read there, and is the same.
func FuzzSimple(f *testing.F) {
	s := irisServer(f, nil)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(v.release)
	f.Add([]byte(v2("FP32", "[1,4]", "[5.1, 3.5,-1.4e0,0.10000000149011612]")), 0)
	f.Add([]byte(v2("FP32", "[2,4]", "[[1,2,3,4],[5,6,7,1E+2]]")), 0)
	f.Add([]byte(v2("FP32", "[1,4]", "[ [[1,2,3,4]]")), 0)
	f.Add([]byte(`{"id":"a","outputs":[{"name":"label","parameters":{"binary_data":true}}],"parameters":{"binary_data_output":false},`+v2("FP32", "[4]", "[1,2,3,4]")[1:]), 0)
	binary := binaryTensor("FP16", "[4]", 8, `{"binary_data_output":true}`)
	f.Add([]byte(binary+"12345678"), len(binary))
	f.Fuzz(func(t *testing.T, body []byte, head int) {
		quickly, slowly := new(buffers), new(buffers)
		for _, b := range []*buffers{quickly, slowly} {
			b.body = body
			if head != 0 && b.split(strconv.Itoa(head)) != nil {
				return
			}
		}
		var r, other inferRequest
		one, ok := r.simple(quickly.text(), quickly.tail(), quickly)
		if !ok {
			return
		}
		if err := decode(slowly.text(), &other); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		all, err := other.tensors(slowly.tail())
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		got, err := v.matrix([]tensor{one}, 100, quickly)
		want, wantErr := v.matrix(all, 100, slowly)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() || err == nil && !equalMatrices(got, want) {
			t.Fatalf("%q: got %v, %v, want %v, %v", body, got, err, want, wantErr)
		}
		outputs, err := r.outputs(&v.signature)
		wantOutputs, wantErr := other.outputs(&v.signature)
		if r.ID != other.ID || len(outputs) != len(wantOutputs) || (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: got %q, %v, %v, want %q, %v, %v", body, r.ID, outputs, err, other.ID, wantOutputs, wantErr)
		}
		for i := range outputs {
			if outputs[i] != wantOutputs[i] {
				t.Fatalf("%q: got %v, want %v", body, outputs, wantOutputs)
			}
		}
	})
}

func equalMatrices(a, b blas32.General) bool {
	if a.Rows != b.Rows || a.Cols != b.Cols || len(a.Data) != len(b.Data) {
		return false
	}
	for i := range a.Data {
		if math.Float32bits(a.Data[i]) != math.Float32bits(b.Data[i]) {
			return false
		}
	}
	return true
}
