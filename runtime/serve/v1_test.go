package serve

import "testing"

func TestPredictV1Answers(t *testing.T) {
	const named = `{"petal_width":0.2,"sepal_length":5.1,"sepal_width":3.5,"petal_length":1.4}`
	const two = `{"predictions":[[5.1,3.5,1.4],[6,2,1]]}`
	checkCases(t, irisServer(t, nil).Handler(), "/v1/models/iris:predict", []inferCase{
		{"rows", `{"instances":[[5.1,3.5,1.4,0.2],[6,2,1,0]]}`, 200, two},
		{"named rows", `{"instances":[` + named + `, [6,2,1,0]]}`, 200, two},
		{"escaped name", `{"instances":[{"petal\u005fwidth":0.2,"sepal_length" : 5.1,"sepal_width":3.5,"petal_length":1.4}]}`, 200, `{"predictions":[[5.1,3.5,1.4]]}`},
		{"labels", `{"parameters":{"labels":true},"instances":[[5.1,3.5,1.4,0.2],[0,2,1,0]]}`, 200,
			`{"predictions":[[5.1,3.5,1.4],[0,2,1]],"labels":["setosa","versicolor"]}`},
		{"signature is ignored", `{"signature_name":"serving_default","instances":[[5.1,3.5,1.4,0.2]]}`, 200, `{"predictions":[[5.1,3.5,1.4]]}`},
		{"columns", `{"inputs":{"petal_width":[0,0],"sepal_length":[5.1,6],"sepal_width":[[3.5],[2]],"petal_length":[1.4,1]}}`, 200, two},
		{"tensor as columns", `{"inputs":{"x":[[5.1,3.5,1.4,0.2],[6,2,1,0]]}}`, 200, two},
		{"bare tensor", `{"inputs":[[5.1,3.5,1.4,0.2],[6,2,1,0]]}`, 200, two},

		{"nothing", `{}`, 400, `neither \"instances\" (rows) nor \"inputs\"`},
		{"null", `{"instances":null}`, 400, `neither \"instances\"`},
		{"both", `{"instances":[],"inputs":{}}`, 400, "send one of them"},
		{"no rows", `{"instances":[]}`, 400, "instances is empty"},
		{"not a list", `{"instances":{"a":1}}`, 400, "instances is an object, expected a list of rows"},
		{"a number for a row", `{"instances":[1]}`, 400, "instances[0] is a number, expected a list of 4 numbers"},
		{"a string for a row", `{"instances":[[1,2,3,4],"]"]}`, 400, "instances[1] is a string, expected a list"},
		{"short row", `{"instances":[[1,2,3,4],[1,2,3]]}`, 400, "instances[1] holds 3 numbers, but the model takes 4"},
		{"long row", `{"instances":[[1,2,3,4,5]]}`, 400, "instances[0] holds more than 4 numbers, but the model takes 4"},
		{"a string", `{"instances":[[1,2,3,4],[1,"x",3,4]]}`, 400, "instances[1][1] is a string, not a number"},
		{"a row in a row", `{"instances":[[[1],2,3,4]]}`, 400, "instances[0][0] is a list, not a number"},
		{"missing column", `{"instances":[[1,2,3,4],{"sepal_length":1,"sepal_width":2}]}`, 400, "instances[1] lacks column petal_length, petal_width"},
		{"unknown column", `{"instances":[{"sepal_length":1,"petals":2}]}`, 400, `instances[0] has the unknown column \"petals\"`},
		{"a named string", `{"instances":[{"sepal_length":"5"}]}`, 400, `instances[0] column \"sepal_length\" is a string, not a number`},
		{"a named list", `{"instances":[{"sepal_length":[5]}]}`, 400, `column \"sepal_length\" is a list, not a number`},
		{"named null", `{"instances":[{"sepal_length":null}]}`, 400, `column \"sepal_length\" is null, not a number`},
		{"name twice", `{"instances":[{"sepal_length":1,"sepal_length":2}]}`, 400, "duplicate"},
		{"no names", `{"instances":[{}]}`, 400, "instances[0] lacks column sepal_length, sepal_width"},
		{"labels is no boolean", `{"parameters":{"labels":"yes"},"instances":[[1,2,3,4]]}`, 400, "parameters.labels is a string, expected true or false"},
		{"NaN", `{"instances":[[1,2,NaN,4]]}`, 400, "instances[0][2] is not a finite number"},
		{"no columns", `{"inputs":{}}`, 400, "there is no input for column sepal_length"},
		{"missing columns", `{"inputs":{"sepal_length":[1],"sepal_width":[1]}}`, 400, "there is no input for column petal_length, petal_width"},
		{"unknown columns", `{"inputs":{"sepal_length":[1],"petals":[1]}}`, 400, `input \"petals\" is not a column`},
		{"ragged columns", `{"inputs":{"petal_width":[0],"sepal_length":[5.1,6],"sepal_width":[3.5],"petal_length":[1.4]}}`, 400,
			"inputs.sepal_length has 2 rows, but inputs.petal_width has 1"},
		{"empty columns", `{"inputs":{"petal_width":[],"sepal_length":[],"sepal_width":[],"petal_length":[]}}`, 400, "inputs.petal_width is empty"},
		{"a column of rows", `{"inputs":{"petal_width":[[1,2]],"sepal_length":[5.1],"sepal_width":[3.5],"petal_length":[1.4]}}`, 400,
			"inputs.petal_width[0] holds more than 1 numbers, expected 1"},
		{"a column of strings", `{"inputs":{"petal_width":[1,"a"],"sepal_length":[5.1],"sepal_width":[3.5],"petal_length":[1.4]}}`, 400,
			"inputs.petal_width[1] is a string, not a number"},
		{"a bare column", `{"inputs":{"petal_width":1,"sepal_length":[5.1],"sepal_width":[3.5],"petal_length":[1.4]}}`, 400,
			"inputs.petal_width is a number, expected a list of numbers"},
		{"a string for inputs", `{"inputs":"x"}`, 400, "inputs is a string, expected a list of rows"},
	})
}

func TestPredictV1WithoutNames(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(7), nil)
	s := newServer(testOptions(), c.Open)
	t.Cleanup(s.Models().Close)
	if err := s.Models().Load(t.Context(), served("one", "a")); err != nil {
		t.Fatal(err)
	}
	checkCases(t, s.Handler(), "/v1/models/one:predict", []inferCase{
		{"rows", `{"instances":[[1],[2]]}`, 200, `{"predictions":[[7],[7]]}`},
		{"bare numbers", `{"instances":[1,-2]}`, 200, `{"predictions":[[7],[7]]}`},
		{"objects", `{"instances":[{"x":1}]}`, 400, "instances[0] is an object, but the model's columns have no names"},
		{"columns", `{"inputs":{"x":[1],"y":[2]}}`, 400, "the request has 2 inputs, but the model takes one"},
		{"labels", `{"parameters":{"labels":true},"instances":[1]}`, 400, "the model predicts numbers and has no labels"},
	})
}
