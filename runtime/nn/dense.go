package nn

import (
	"fmt"

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
	for i := range z.Rows {
		copy(row(z, i), d.Bias)
	}
	multiply(blas.NoTrans, blas.Trans, x, d.Weight, 1, z)
}
