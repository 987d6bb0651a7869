package nn

import (
	"fmt"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// Dense is a fully connected layer: activation(x*Weight^T + Bias).
type Dense struct {
	// Weight is outputs x inputs, as in torch.nn.Linear.
	Weight blas32.General
	// Bias has one element an output. Nil: none.
	Bias       []float32
	Activation Activation
}

// NewDense returns a layer of zero weights. See [Initializer].
func NewDense(inputs, outputs int, a Activation) *Dense {
	return &Dense{
		Weight:     matrix(outputs, inputs, make([]float32, outputs*inputs)),
		Bias:       make([]float32, outputs),
		Activation: a,
	}
}

// Outputs returns the layer's number of units.
func (d *Dense) Outputs(int) int { return d.Weight.Rows }

func (d *Dense) validate(inputs int) error {
	w := d.Weight
	switch {
	case w.Rows < 1:
		return fmt.Errorf("the weight has %d rows; it needs one for each output", w.Rows)
	case w.Cols != inputs:
		return fmt.Errorf("the weight is for %d inputs, but %d come in", w.Cols, inputs)
	case w.Stride < w.Cols || len(w.Data) < w.Cols || (w.Rows-1) > (len(w.Data)-w.Cols)/w.Stride:
		return fmt.Errorf("the weight's %d numbers with stride %d do not hold %d x %d", len(w.Data), w.Stride, w.Rows, w.Cols)
	case d.Bias != nil && len(d.Bias) != w.Rows:
		return fmt.Errorf("the bias has %d elements for %d outputs", len(d.Bias), w.Rows)
	}
	return d.Activation.validate()
}

func (d *Dense) predict(x, y blas32.General) {
	d.sums(x, y)
	d.Activation.apply(y)
}

// sums writes x*Weight^T + Bias into z.
func (d *Dense) sums(x, z blas32.General) {
	if d.Bias == nil {
		multiply(blas.NoTrans, blas.Trans, x, d.Weight, 0, z)
		return
	}
	setRows(z, d.Bias)
	multiply(blas.NoTrans, blas.Trans, x, d.Weight, 1, z)
}

// setRows makes every row of m, which has no gaps, equal to v. What it has
// copied it copies further, twice as much every time.
func setRows(m blas32.General, v []float32) {
	data := m.Data[:m.Rows*m.Cols]
	for n := copy(data, v); n < len(data); n *= 2 {
		copy(data[n:], data[:n])
	}
}

type trainedDense struct {
	*Dense
	x                        blas32.General // of the last forward; not owned
	z, y, dx                 blas32.General // sums, outputs (in place of the sums, if those are not needed), gradient by the inputs
	weightGradient, gradient []float32
}

func (d *Dense) trained(rows, inputs int, _ *rand.Rand, _ *split) trained {
	t := &trainedDense{
		Dense:          d,
		z:              newMatrix(rows, d.Weight.Rows),
		dx:             newMatrix(rows, inputs),
		weightGradient: make([]float32, d.Weight.Rows*inputs),
		gradient:       make([]float32, len(d.Bias)),
	}
	t.y = t.z
	if d.Activation.needsSums() {
		t.y = newMatrix(rows, d.Weight.Rows)
	}
	return t
}

func (t *trainedDense) parameters() []Parameter {
	size := t.Weight.Rows * t.Weight.Cols
	p := []Parameter{{Name: "weight", Value: t.Weight.Data[:size], Gradient: t.weightGradient, Kernel: true}}
	if t.Bias != nil {
		p = append(p, Parameter{Name: "bias", Value: t.Bias, Gradient: t.gradient})
	}
	return p
}

func (t *trainedDense) forward(x blas32.General) blas32.General {
	t.x = x
	z, y := firstRows(t.z, x.Rows), firstRows(t.y, x.Rows)
	t.sums(x, z)
	if t.Activation.needsSums() {
		copy(y.Data, z.Data)
	}
	t.Activation.apply(y)
	return y
}

func (t *trainedDense) backward(dy blas32.General, further bool) blas32.General {
	t.Activation.back(t.z, t.y, dy)
	dw := matrix(t.Weight.Rows, t.Weight.Cols, t.weightGradient)
	multiply(blas.Trans, blas.NoTrans, dy, t.x, 0, dw)
	if t.Bias != nil {
		sumRows(dy, t.gradient)
	}
	if !further {
		return blas32.General{}
	}
	dx := firstRows(t.dx, dy.Rows)
	multiply(blas.NoTrans, blas.NoTrans, dy, t.Weight, 0, dx)
	return dx
}
