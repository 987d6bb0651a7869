package serve

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
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
		b.body.Write(body)
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
