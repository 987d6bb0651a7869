package model

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unreadable are the exported models that no dense network can be made of, and
// what is said about them.
var unreadable = map[string]string{
	"dynamo-unsupported-convolution":                 `(Conv): this operator is not supported`,
	"dynamo-unsupported-log-softmax":                 `(LogSoftmax): this operator is not supported`,
	"dynamo-unsupported-relu6":                       `(Clip): this operator is not supported`,
	"dynamo-unsupported-silu":                        `(Mul) computes from 2 computed values`,
	"keras-several-inputs":                           `tf2onnx makes inputs of a Keras Normalization layer's constants`,
	"keras-unsupported-swish":                        `(Mul) computes from 2 computed values`,
	"skl2onnx-unsupported-one-vs-rest":               `(Div) computes from 2 computed values`,
	"skl2onnx-unsupported-mlp-regressor-two-targets": `(Reshape): reshaping to [-1 1] is not supported`, // a fault of skl2onnx
	"skl2onnx-unsupported-tree":                      `(ai.onnx.ml.TreeEnsembleClassifier): this operator is not supported`,
	"tf2onnx-unsupported-swish":                      `(Mul) computes from 2 computed values`,
	"torchscript-unsupported-convolution":            `(Conv): this operator is not supported`,
	"torchscript-unsupported-log-softmax":            `(LogSoftmax): this operator is not supported`,
	"torchscript-unsupported-relu6":                  `(Clip): this operator is not supported`,
	"torchscript-unsupported-silu":                   `(Mul) computes from 2 computed values`,
}

// What PyTorch, Keras and scikit-learn exported (see testdata/export.py) loads
// and answers as in onnxruntime, or is refused by the name of what is in the way.
func TestExportedModels(t *testing.T) {
	dirs, err := filepath.Glob("testdata/exported/*")
	if err != nil || len(dirs) < 50 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			want, unsupported := unreadable[name]
			if !unsupported {
				checkAnswers(t, dir, "expected.json")
				checkClasses(t, dir)
				return
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func checkClasses(t *testing.T, dir string) {
	t.Helper()
	var expected struct {
		Classes []string `json:"classes"`
	}
	if err := json.Unmarshal(readFile(t, dir, "expected.json"), &expected); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(expected.Classes, mustOpen(t, dir).Metadata.Classes); diff != "" {
		t.Error(diff)
	}
}
