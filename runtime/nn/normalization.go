package nn

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"
)

// Normalization is (x-Mean)*Scale for each column: the scaling of the inputs
// that was fitted on the training data. It is not trained.
type Normalization struct {
	Mean, Scale []float32
}

// Outputs returns inputs.
func (l *Normalization) Outputs(inputs int) int { return inputs }

func (l *Normalization) validate(inputs int) error {
	if err := length("mean", l.Mean, inputs); err != nil {
		return err
	}
	return length("scale", l.Scale, inputs)
}

func (l *Normalization) predict(x, y blas32.General) {
	for i := range x.Rows {
		to := row(y, i)
		for j, v := range row(x, i) {
			to[j] = (v - l.Mean[j]) * l.Scale[j]
		}
	}
}

type trainedNormalization struct {
	*Normalization
	y blas32.General
}

func (l *Normalization) trained(rows, inputs int, _ *rand.Rand, _ *split) trained {
	return &trainedNormalization{l, newMatrix(rows, inputs)}
}

func (t *trainedNormalization) parameters() []Parameter { return nil }

func (t *trainedNormalization) forward(x blas32.General) blas32.General {
	y := firstRows(t.y, x.Rows)
	t.predict(x, y)
	return y
}

func (t *trainedNormalization) backward(dy blas32.General, _ bool) blas32.General {
	for i := range dy.Rows {
		d := row(dy, i)
		for j := range d {
			d[j] *= t.Scale[j]
		}
	}
	return dy
}

func length(name string, v []float32, want int) error {
	if len(v) != want {
		return fmt.Errorf("%s has %d elements for %d inputs", name, len(v), want)
	}
	return nil
}

func root(x float32) float32 { return float32(math.Sqrt(float64(x))) }
