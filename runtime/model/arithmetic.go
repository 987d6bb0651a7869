package model

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
)

// gemm is alpha*x*B + beta*C, with B transposed if transB.
func (b *builder) gemm(s step) error {
	if s.computed != 0 || s.int("transA", 0) != 0 {
		return errors.New("the data must be its first input, not transposed")
	}
	weight, err := b.weight(s.constant(1), s.int("transB", 0) != 0)
	if err != nil {
		return err
	}
	if weight.Data, err = b.scaled(weight.Data, s.float("alpha", 1)); err != nil {
		return err
	}
	var bias []float32
	if c := s.constant(2); c != "" {
		if bias, err = b.vector(c, weight.Rows); err != nil {
			return err
		}
		if bias, err = b.scaled(bias, s.float("beta", 1)); err != nil {
			return err
		}
	}
	return b.dense(weight, bias)
}

func (b *builder) matMul(s step) error {
	if s.computed != 0 {
		return errors.New("the data must be its first input")
	}
	weight, err := b.weight(s.constant(1), false)
	if err != nil {
		return err
	}
	return b.dense(weight, nil)
}

// weight returns a matrix as nn wants it: a row for each output.
func (b *builder) weight(value string, transposed bool) (blas32.General, error) {
	a, err := b.array(value)
	if err != nil {
		return blas32.General{}, err
	}
	m, err := a.matrix()
	if err != nil {
		return m, fmt.Errorf("%.80q %w", value, err)
	}
	if transposed {
		return m, nil
	}
	return b.transposed(m)
}

// vector returns a constant with an element for each of the columns.
func (b *builder) vector(value string, columns int) ([]float32, error) {
	a, err := b.array(value)
	if err != nil {
		return nil, err
	}
	switch n := a.length(); {
	case n == 1 && columns == 0:
		return nil, errors.New("the number of columns is not known here; export the model with the shape of its input")
	case n == columns || n > 1 && columns == 0:
		return a.data, nil
	case n == 1:
		return b.filled(columns, a.data[0])
	}
	return nil, fmt.Errorf("%.80q has shape %v; one number for each of the %d columns is needed", value, abridged(a.shape), columns)
}

// operand returns the constant of an operator of two inputs.
func (b *builder) operand(s step) ([]float32, error) {
	if len(s.Input) != 2 {
		return nil, fmt.Errorf("it has %d inputs instead of 2", len(s.Input))
	}
	v, err := b.vector(s.Input[1-s.computed], b.width)
	if err != nil {
		return nil, err
	}
	return v, b.expect(len(v))
}

// addition is a bias after a product, else a shift.
func (b *builder) addition(s step) error {
	v, err := b.operand(s)
	if err != nil {
		return err
	}
	if d := b.lastDense(); d != nil && d.Bias == nil && d.Activation.Kind == nn.Linear {
		d.Bias = v
		return nil
	}
	if v, err = b.scaled(v, -1); err != nil {
		return err
	}
	return b.shift(v)
}

func (b *builder) subtraction(s step) error {
	v, err := b.operand(s)
	if err != nil {
		return err
	}
	if s.computed == 0 {
		return b.shift(v)
	}
	minus, err := b.filled(len(v), -1)
	if err != nil {
		return err
	}
	return b.normalize(v, minus) // v - x = (x - v) * -1
}

// shift subtracts v, and leaves the layer open for a factor.
func (b *builder) shift(v []float32) error {
	if err := b.normalize(v, nil); err != nil {
		return err
	}
	b.open = b.layers[len(b.layers)-1].(*nn.Normalization)
	return nil
}

func (b *builder) multiplication(s step) error {
	v, err := b.operand(s)
	if err != nil {
		return err
	}
	return b.scale(v)
}

func (b *builder) division(s step) error {
	v, err := b.operand(s)
	if err != nil {
		return err
	}
	if s.computed != 0 {
		return errors.New("only a division by a constant can be read")
	}
	inverse, err := b.allocate(len(v))
	for i := range inverse {
		inverse[i] = 1 / v[i]
		if math.IsInf(float64(inverse[i]), 0) {
			return fmt.Errorf("it divides column %d by %g", i, v[i])
		}
	}
	if err != nil {
		return err
	}
	return b.scale(inverse)
}

// scale multiplies by v: in the layer that subtracts, if that was the last.
func (b *builder) scale(v []float32) error {
	if b.open != nil {
		b.open.Scale, b.open = v, nil
		return nil
	}
	return b.normalize(nil, v)
}

// normalize appends (x-mean)*scale. Nil: zeros, ones.
func (b *builder) normalize(mean, scale []float32) (err error) {
	if mean == nil {
		if mean, err = b.allocate(b.width); err != nil {
			return err
		}
	}
	if scale == nil {
		if scale, err = b.filled(b.width, 1); err != nil {
			return err
		}
	}
	b.append(&nn.Normalization{Mean: mean, Scale: scale})
	return nil
}

// scaler is scikit-learn's (x-offset)*scale.
func (b *builder) scaler(s step) error {
	vector := func(name string) ([]float32, error) {
		v := s.attribute(name).GetFloats()
		switch {
		case len(v) == 0:
			return nil, nil
		case len(v) == 1 && b.width > 0:
			return b.filled(b.width, v[0])
		}
		return v, b.expect(len(v))
	}
	offset, err := vector("offset")
	if err != nil {
		return err
	}
	scale, err := vector("scale")
	if err != nil {
		return err
	}
	return b.normalize(offset, scale)
}

func (b *builder) batchNormalization(s step) error {
	if s.computed != 0 || s.int("training_mode", 0) != 0 {
		return errors.New("only batch normalization of the data, as it is after training, can be read; export the model for inference")
	}
	l := &nn.BatchNormalization{Epsilon: s.float("epsilon", 1e-5)}
	for i, v := range []*[]float32{&l.Gamma, &l.Beta, &l.Mean, &l.Variance} {
		var err error
		if *v, err = b.vector(s.constant(i+1), b.width); err != nil {
			return err
		}
		if err := b.expect(len(*v)); err != nil {
			return err
		}
	}
	b.append(l)
	return nil
}
