package model

import (
	"errors"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
)

// The linear models of ONNX's operators for classical machine learning, as
// scikit-learn's exporter writes them.

const linearClassifier = "ai.onnx.ml.LinearClassifier"

// postTransforms are what is done with the sums.
var postTransforms = map[string]nn.ActivationKind{"": nn.Linear, "NONE": nn.Linear, "LOGISTIC": nn.Sigmoid, "SOFTMAX": nn.Softmax}

// linear is a layer with a row of coefficients for each output.
func (b *builder) linear(s step, outputs int) error {
	transform := string(s.attribute("post_transform").GetS())
	kind, known := postTransforms[transform]
	if !known {
		return fmt.Errorf("post_transform %.20q is not supported", transform)
	}
	weight, bias := s.attribute("coefficients").GetFloats(), s.attribute("intercepts").GetFloats()
	if outputs < 1 || len(weight) == 0 || len(weight)%outputs != 0 || bias != nil && len(bias) != outputs {
		return fmt.Errorf("%d coefficients and %d intercepts do not make %d outputs", len(weight), len(bias), outputs)
	}
	columns := len(weight) / outputs
	if err := b.dense(blas32.General{Rows: outputs, Cols: columns, Stride: columns, Data: weight}, bias); err != nil {
		return err
	}
	b.lastDense().Activation.Kind = kind
	return nil
}

func (b *builder) linearRegressor(s step) error {
	return b.linear(s, int(min(s.int("targets", 1), maxWidth)))
}

func (b *builder) linearClassifier(s step) error {
	return b.linear(s, len(s.attribute("classlabels_ints").GetInts())+len(s.attribute("classlabels_strings").GetStrings()))
}

// normalizer makes rows add up to 1. Those of a softmax do already.
func (b *builder) normalizer(s step) error {
	if norm := string(s.attribute("norm").GetS()); norm != "L1" {
		return fmt.Errorf("norm %.20q is not supported", norm)
	}
	if d := b.lastDense(); d == nil || d.Activation.Kind != nn.Softmax {
		return errors.New("only a softmax can be normalized; a classifier of one sigmoid for each of several classes is not supported")
	}
	return nil
}
