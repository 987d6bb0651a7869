package nn

import (
	"fmt"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"
)

// Dropout sets inputs to zero at random while it is trained, and scales the
// others up so that the expected sum stays. It changes nothing in Predict.
type Dropout struct {
	// Rate is the fraction to set to zero, at least 0 and below 1.
	Rate float32
}

// Outputs returns inputs.
func (l *Dropout) Outputs(inputs int) int { return inputs }

func (l *Dropout) validate(int) error {
	if !(l.Rate >= 0 && l.Rate < 1) {
		return fmt.Errorf("rate is %v; it must be at least 0 and below 1", l.Rate)
	}
	return nil
}

// predict is never called: see [Network.Predict].
func (l *Dropout) predict(x, y blas32.General) {
	for i := range x.Rows {
		copy(row(y, i), row(x, i))
	}
}

type trainedDropout struct {
	*Dropout
	random  *rand.Rand
	batch   *split
	factors blas32.General // 0, or what makes up for the zeros
	y       blas32.General
}

func (l *Dropout) trained(rows, inputs int, random *rand.Rand, batch *split) trained {
	return &trainedDropout{l, random, batch, newMatrix(rows, inputs), newMatrix(rows, inputs)}
}

func (t *trainedDropout) parameters() []Parameter { return nil }

// forward draws for all rows of the batch, so that each row gets what it would
// get if there were no peers.
func (t *trainedDropout) forward(x blas32.General) blas32.General {
	t.pass(t.batch.from * x.Cols)
	defer t.pass((t.batch.all - t.batch.to) * x.Cols)
	y, kept := firstRows(t.y, x.Rows), 1/(1-t.Rate)
	for i := range x.Rows {
		factors, to := row(t.factors, i), row(y, i)
		for j, v := range row(x, i) {
			factors[j] = kept
			if t.random.Float32() < t.Rate {
				factors[j] = 0
			}
			to[j] = v * factors[j]
		}
	}
	return y
}

// pass draws for inputs of other trainers.
func (t *trainedDropout) pass(inputs int) {
	for range inputs {
		t.random.Float32()
	}
}

func (t *trainedDropout) backward(dy blas32.General, _ bool) blas32.General {
	for i := range dy.Rows {
		d, factors := row(dy, i), row(t.factors, i)
		for j := range d {
			d[j] *= factors[j]
		}
	}
	return dy
}
