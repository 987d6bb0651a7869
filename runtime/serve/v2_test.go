package serve

import (
	"strings"
	"testing"

	"trainyard.dev/trainyard/runtime/nn"
)

// v2 is a request with one input tensor.
func v2(datatype, shape, data string) string {
	return `{"inputs":[{"name":"inputs","datatype":"` + datatype + `","shape":` + shape + `,"data":` + data + `}]}`
}

// column is an input tensor named like a column.
func column(name, shape, data string) string {
	return `{"name":"` + name + `","datatype":"FP32","shape":` + shape + `,"data":` + data + `}`
}

func columns(inputs ...string) string { return `{"inputs":[` + strings.Join(inputs, ",") + `]}` }

func TestInferV2Answers(t *testing.T) {
	const head = `{"model_name":"iris","model_version":"aaaaaaaaaaaa",`
	two := head + `"outputs":[{"name":"outputs","datatype":"FP32","shape":[2,3],"data":[5.1,3.5,1.4,6,2,1]}]}`
	one := head + `"outputs":[{"name":"outputs","datatype":"FP32","shape":[1,3],"data":[5.1,3.5,1.4]}]}`
	row := column("sepal_length", "[1]", "[5.1]")
	checkCases(t, irisServer(t, nil).Handler(), "/v2/models/iris/infer", []inferCase{
		{"flat", v2("FP32", "[2,4]", "[5.1,3.5,1.4,0.2, 6,2,1,0]"), 200, two},
		{"nested", v2("FP64", "[2,4]", "[[5.1,3.5,1.4,0.2],\n [6,2,1,0]]"), 200, two},
		{"one row without rows", v2("FP32", "[4]", "[5.1,3.5,1.4,0.2]"), 200, one},
		{"integers", v2("INT64", "[1,4]", "[5,-3,1,0]"), 200, `"data":[5,-3,1]`},
		{"whole number with a point", v2("UINT8", "[1,4]", "[5.0,3e0,1,0]"), 200, `"data":[5,3,1]`},
		{"booleans", v2("BOOL", "[1,4]", "[true,false,1,0]"), 200, `"data":[1,0,1]`},
		{"members in another order", `{"inputs":[{"data":[5.1,3.5,1.4,0.2],"shape":[1,4],"datatype":"FP32","name":"x"}]}`, 200, one},
		{"id and parameters", `{"id":"é\"1","parameters":{"a":[1]},"inputs":[{"name":"x","parameters":{},"datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}`,
			200, head + `"id":"é\"1","outputs"`},
		{"labels alone", strings.Replace(v2("FP32", "[2,4]", "[5.1,3.5,1.4,0.2,0,2,3,0]"), "{", `{"outputs":[{"name":"label"}],`, 1),
			200, head + `"outputs":[{"name":"label","datatype":"BYTES","shape":[2],"data":["setosa","virginica"]}]}`},
		{"both outputs", strings.Replace(v2("FP32", "[4]", "[5.1,3.5,1.4,0.2]"), "{", `{"outputs":[{"name":"label"},{"name":"outputs"}],`, 1),
			200, `"data":["setosa"]},{"name":"outputs"`},
		{"columns in any order", columns(column("petal_width", "[2]", "[0,0]"), column("petal_length", "[2,1]", "[[1.4],[1]]"),
			column("sepal_width", "[2,1]", "[3.5,2]"), column("sepal_length", "[2]", "[5.1,6]")), 200, two},
		{"tiny and huge", v2("FP64", "[1,4]", "[1e-45,3e38,-0.0,0]"), 200, `"data":[1e-45,3e+38,`},
		{"underflow", v2("FP64", "[1,4]", "[1e-400,0,0,0]"), 200, `"data":[0,0,0]`},

		{"empty body", "", 400, "the body is empty"},
		{"not JSON", "{", 400, "the body is not JSON"},
		{"after the end", v2("FP32", "[4]", "[1,2,3,4]") + "x", 400, "the body is not JSON"},
		{"a list", "[]", 400, "the request's body is a list, expected an object"},
		{"NaN", v2("FP32", "[4]", "[1,2,NaN,4]"), 400, "inputs[0].data[2] is not a finite number"},
		{"infinity", v2("FP32", "[4]", "[1,-Infinity,2,4]"), 400, "inputs[0].data[1] is not a finite number"},
		{"too large a number", v2("FP32", "[4]", "[1,2,3,1e39]"), 400, `input \"inputs\": data[3] is 1e39, beyond what float32 can hold`},
		{"no inputs", "{}", 400, "the request has no inputs; send one tensor of shape [rows, 4]"},
		{"name is a number", `{"inputs":[{"name":1}]}`, 400, "inputs[0].name is a number, expected a string"},
		{"a fraction in the shape", v2("FP32", "[1.5,4]", "[]"), 400, "inputs[0].shape[0] is a number, expected a whole number"},
		{"shape is a string", v2("FP32", `"4"`, "[]"), 400, "inputs[0].shape is a string, expected a list"},
		{"name twice", `{"inputs":[],"inputs":[]}`, 400, "duplicate"},
		{"no shape", `{"inputs":[{"name":"x","datatype":"FP32","data":[1]}]}`, 400, `input \"x\" has shape [], expected [rows, 4]`},
		{"wrong features", v2("FP32", "[1,3]", "[1,2,3]"), 400, "has shape [1, 3], expected [rows, 4], or [4] for one row"},
		{"rank 3", v2("FP32", "[1,1,4]", "[1,2,3,4]"), 400, "has shape [1, 1, 4], expected [rows, 4]"},
		{"no rows", v2("FP32", "[0,4]", "[]"), 400, "there must be at least 1 row"},
		{"negative", v2("FP32", "[-1,4]", "[]"), 400, "there must be at least 1 row"},
		{"overflowing product", v2("FP32", "[4611686018427387904,4]", "[]"), 413, "the request has more than 10000 rows"},
		{"overflowing dimension", v2("FP32", "[99999999999999999999,4]", "[]"), 400, "inputs[0].shape[0] is a number, expected a whole number"},
		{"too many rows", v2("FP32", "[10001,4]", "[]"), 413, "the request has more than 10000 rows"},
		{"too few numbers", v2("FP32", "[2,4]", "[1,2,3,4]"), 400, "data holds 4 numbers, but the shape [2, 4] says 8"},
		{"too many numbers", v2("FP32", "[1,4]", "[1,2,3,4,5,6,7]"), 400, "data holds more than 4 numbers"},
		{"nested with too few rows", v2("FP32", "[2,4]", "[[1,2,3,4]]"), 400, "data holds 1 rows, but the shape is [2, 4]"},
		{"nested with too many rows", v2("FP32", "[1,4]", "[[1,2,3,4],[1,2,3,4]]"), 400, "data holds more than 1 rows"},
		{"ragged", v2("FP32", "[2,4]", "[[1,2,3,4],[1,2]]"), 400, "data[1] holds 2 numbers, but the shape is [2, 4]"},
		{"nested too deep", v2("FP32", "[1,4]", "[[[1,2,3,4]]]"), 400, "data[0][0] is a list, not a number"},
		{"nested beyond the shape", v2("FP32", "[4]", "[[1,2,3,4]]"), 400, "data[0] is a list, not a number"},
		{"very deep", v2("FP32", "[1,4]", strings.Repeat("[", 20000)), 400, "the body is not JSON"},
		{"deep elsewhere", `{"x":` + strings.Repeat(`{"a":`, 20000), 400, "the body is not JSON"},
		{"data is a number", v2("FP32", "[1,4]", "7"), 400, "data is a number, not a list of numbers"},
		{"data is null", v2("FP32", "[1,4]", "null"), 400, "data is null, not a list of numbers"},
		{"no data", `{"inputs":[{"name":"x","datatype":"FP32","shape":[4]}]}`, 400, "data is no value, not a list"},
		{"a string", v2("FP32", "[4]", `[1,"],2",3,4]`), 400, "data[1] is a string, not a number"},
		{"a boolean", v2("FP32", "[4]", "[1,true,3,4]"), 400, "data[1] is a boolean, not a number"},
		{"null", v2("FP32", "[4]", "[null,2,3,4]"), 400, "data[0] is null, not a number"},
		{"an object", v2("FP32", "[4]", `[1,{"a":[2]},3,4]`), 400, "data[1] is an object, not a number"},
		{"a fraction", v2("INT32", "[4]", "[1,2.5,3,4]"), 400, "data[1] is 2.5, not a value of INT32"},
		{"out of range", v2("UINT8", "[4]", "[1,2,256,4]"), 400, "data[2] is 256, not a value of UINT8"},
		{"negative unsigned", v2("UINT64", "[4]", "[1,-2,3,4]"), 400, "data[1] is -2, not a value of UINT64"},
		{"FP16", v2("FP16", "[4]", "[1,2,3,4]"), 400, "data of datatype FP16 has no form in JSON; send it as a binary tensor"},
		{"BYTES", v2("BYTES", "[4]", `["a"]`), 400, "has datatype BYTES, but the model computes with numbers"},
		{"unknown datatype", v2("float32", "[4]", "[1,2,3,4]"), 400, `has datatype \"float32\", which the protocol does not know`},
		{"no datatype", `{"inputs":[{"name":"x","shape":[4],"data":[1,2,3,4]}]}`, 400, `input \"x\" has no datatype`},
		{"unknown output", strings.Replace(v2("FP32", "[4]", "[1,2,3,4]"), "{", `{"outputs":[{"name":"y"}],`, 1), 400, `the model has no output \"y\"; it has outputs, label`},
		{"output twice", strings.Replace(v2("FP32", "[4]", "[1,2,3,4]"), "{", `{"outputs":[{"name":"label"},{"name":"label"}],`, 1), 400, `output \"label\" is asked for twice`},
		{"missing columns", columns(row, column("petal_width", "[1]", "[1]")), 400, "there is no input for column sepal_width, petal_length"},
		{"one column of four", columns(row), 400, "there is no input for column sepal_width, petal_length, petal_width"},
		{"unknown column", columns(row, column("petals", "[1]", "[1]")), 400, `input \"petals\" is not a column of the model; its columns are sepal_length,`},
		{"column twice", columns(row, row), 400, `input \"sepal_length\" is there twice`},
		{"columns of different length", columns(row, column("sepal_width", "[2]", "[1,2]"), column("petal_length", "[1]", "[1]"), column("petal_width", "[1]", "[1]")),
			400, `input \"sepal_width\" has 2 rows, but input \"sepal_length\" has 1`},
		{"a wide column", columns(row, column("sepal_width", "[1,2]", "[1,2]"), column("petal_length", "[1]", "[1]"), column("petal_width", "[1]", "[1]")),
			400, `input \"sepal_width\" is a column and has shape [1, 2], expected [rows] or [rows, 1]`},
	})
}

func TestInferV2ByVersion(t *testing.T) {
	h := irisServer(t, nil).Handler()
	body := v2("FP32", "[4]", "[1,2,3,4]")
	for version, code := range map[string]int{"aaaaaaaaaaaa": 200, digest("a"): 200, "bbbbbbbbbbbb": 404, "1": 404} {
		if got := call(h, "POST", "/v2/models/iris/versions/"+version+"/infer", body); got.code != code {
			t.Errorf("version %s: got %d %s, want %d", version, got.code, got.body, code)
		}
	}
}

func TestInferV2OfOneFeature(t *testing.T) {
	c := newCatalog()
	c.columns = []string{"x"}
	c.set(digest("a"), constant(7), nil)
	s := newServer(testOptions(), c.Open)
	t.Cleanup(s.Models().Close)
	if err := s.Models().Load(t.Context(), served("one", "a")); err != nil {
		t.Fatal(err)
	}
	checkCases(t, s.Handler(), "/v2/models/one/infer", []inferCase{
		{"column", columns(column("x", "[3]", "[1,2,3]")), 200, `"shape":[3,1],"data":[7,7,7]`},
		{"column of rows", columns(column("x", "[3,1]", "[[1],[2],[3]]")), 200, `"shape":[3,1]`},
		{"tensor", v2("FP32", "[2,1]", "[1,2]"), 200, `"shape":[2,1]`},
		{"one row", v2("FP32", "[1]", "[1]"), 200, `"shape":[1,1]`},
		{"no labels", strings.Replace(v2("FP32", "[1]", "[1]"), "{", `{"outputs":[{"name":"label"}],`, 1), 400, `it has outputs"`},
	})
}

func TestInferRefusesToAnswerWhatIsNotFinite(t *testing.T) {
	d := nn.NewDense(1, 2, nn.Activation{})
	d.Weight.Data[1] = 1e30
	c := newCatalog()
	c.set(digest("a"), &nn.Network{Inputs: 1, Layers: []nn.Layer{d}}, nil)
	s := newServer(testOptions(), c.Open)
	t.Cleanup(s.Models().Close)
	if err := s.Models().Load(t.Context(), served("big", "a")); err != nil {
		t.Fatal(err)
	}
	checkCases(t, s.Handler(), "/v2/models/big/infer", []inferCase{
		{"finite", v2("FP32", "[1,1]", "[1e5]"), 200, `"data":[0,1e+35]`},
		{"infinite", v2("FP32", "[2,1]", "[1, 1e20]"), 500, "the model computed +Inf for row 1, output 1"},
	})
}
