package model

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
)

// lastDense returns the last layer if it is dense.
func (b *builder) lastDense() *nn.Dense {
	if len(b.layers) == 0 {
		return nil
	}
	d, _ := b.layers[len(b.layers)-1].(*nn.Dense)
	return d
}

func activate(kind nn.ActivationKind, alpha float32) func(*builder, step) error {
	return func(b *builder, s step) error {
		a := nn.Activation{Kind: kind}
		if alpha != 0 {
			a.Alpha = s.float("alpha", alpha)
		}
		return b.activation(a)
	}
}

// activation gives the last layer an activation. Where that cannot have one, a
// layer that changes nothing else gets it.
func (b *builder) activation(a nn.Activation) error {
	d := b.lastDense()
	if d == nil || d.Activation.Kind != nn.Linear {
		weight, err := b.identity()
		if err != nil {
			return err
		}
		d = &nn.Dense{Weight: weight}
		b.append(d)
	}
	d.Activation = a
	return nil
}

func (b *builder) identity() (blas32.General, error) {
	if b.width == 0 || b.width > math.MaxInt32 {
		return blas32.General{}, errors.New("the number of columns is not known here; export the model with the shape of its input")
	}
	data, err := b.allocate(b.width * b.width)
	if err != nil {
		return blas32.General{}, err
	}
	for i := range b.width {
		data[i*b.width+i] = 1
	}
	return blas32.General{Rows: b.width, Cols: b.width, Stride: b.width, Data: data}, nil
}

func (b *builder) gelu(s step) error {
	switch approximation := string(s.attribute("approximate").GetS()); approximation {
	case "", "none":
		return b.activation(nn.Activation{Kind: nn.GELU})
	case "tanh":
		return b.activation(nn.Activation{Kind: nn.GELUTanh})
	default:
		return fmt.Errorf("approximation %.20q is not supported", approximation)
	}
}

func (b *builder) softmax(s step) error {
	// Before operator set 13 the default was 1. With rows and columns, both are
	// the columns.
	if axis := s.int("axis", -1); axis != -1 && axis != 1 {
		return fmt.Errorf("axis %d is not supported; it must be over the columns", axis)
	}
	return b.activation(nn.Activation{Kind: nn.Softmax})
}

// binaryClasses is [1-p, p] for p = sigmoid(x), which is softmax of [0, x].
func (b *builder) binaryClasses(step) error {
	if err := b.expect(1); err != nil {
		return err
	}
	weight := blas32.General{Rows: 2, Cols: 1, Stride: 1, Data: []float32{0, 1}}
	b.append(&nn.Dense{Weight: weight, Activation: nn.Activation{Kind: nn.Softmax}})
	return nil
}
