package nn

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"
)

// Loss is what training makes small: a [MeanSquaredError], [MeanAbsoluteError],
// [Huber], [LeastSquares], [BinaryCrossentropy] or [CategoricalCrossentropy].
type Loss interface {
	// row returns the loss of one row with the outputs z and the targets y, and
	// writes its gradient by z into d.
	row(z, y, d []float32) float64
	// targets is the number of targets of a row.
	targets(outputs int) int
	// activation of the last layer that row includes: z is what goes into it.
	activation() ActivationKind
	// penalty on all kernels that is part of the loss.
	penalty(rows int) Penalty
}

// sumLoss returns the sum of the rows' weighted losses, and writes scale times
// its gradient by z into d.
func sumLoss(l Loss, z blas32.General, y, weights []float32, d blas32.General, scale float32) float64 {
	var sum float64
	targets := l.targets(z.Cols)
	for i := range z.Rows {
		d, weight := row(d, i), float32(1)
		if weights != nil {
			weight = weights[i]
		}
		sum += float64(weight) * l.row(row(z, i), y[i*targets:(i+1)*targets], d)
		weight *= scale
		for j := range d {
			d[j] *= weight
		}
	}
	return sum
}

// numeric is what the losses of numbers have in common.
type numeric struct{}

func (numeric) targets(outputs int) int    { return outputs }
func (numeric) activation() ActivationKind { return Linear }
func (numeric) penalty(int) Penalty        { return Penalty{} }

// MeanSquaredError is the mean over the outputs of (z-y)^2.
type MeanSquaredError struct{ numeric }

func (MeanSquaredError) row(z, y, d []float32) float64 {
	var sum float64
	n := float32(len(z))
	for i, v := range z {
		e := v - y[i]
		sum += float64(e) * float64(e)
		d[i] = 2 * e / n
	}
	return sum / float64(n)
}

// MeanAbsoluteError is the mean over the outputs of |z-y|.
type MeanAbsoluteError struct{ numeric }

func (MeanAbsoluteError) row(z, y, d []float32) float64 {
	var sum float64
	n := float32(len(z))
	for i, v := range z {
		e := v - y[i]
		sum += math.Abs(float64(e))
		d[i] = sign(e) / n
	}
	return sum / float64(n)
}

// Huber is the mean over the outputs of e^2/2 where |e| = |z-y| is at most
// delta = 1, and delta*|e| - delta^2/2 beyond.
type Huber struct{ numeric }

func (Huber) row(z, y, d []float32) float64 {
	const delta = 1
	var sum float64
	n := float32(len(z))
	for i, v := range z {
		e := v - y[i]
		if a := math.Abs(float64(e)); a > delta {
			sum += delta*a - delta*delta/2.0
			d[i] = delta * sign(e) / n
			continue
		}
		sum += float64(e) * float64(e) / 2
		d[i] = e / n
	}
	return sum / float64(n)
}

// LeastSquares is regularized least squares over m rows with the network h:
//
//	J = 1/(2m) * sum_i (h(x_i)-y_i)^2 + lambda/(2m) * sum_j theta_j^2
//
// where theta are the weights of Dense layers; biases are not penalized.
type LeastSquares struct {
	numeric
	Lambda float32
	// Rows is the m of the penalty: the number of training rows, so that the
	// mean over an epoch's batches is J. 0 stands for the rows of the batch.
	Rows int
}

func (LeastSquares) row(z, y, d []float32) float64 {
	var sum float64
	for i, v := range z {
		e := v - y[i]
		sum += float64(e) * float64(e)
		d[i] = e
	}
	return sum / 2
}

func (l LeastSquares) penalty(rows int) Penalty {
	if l.Rows > 0 {
		rows = l.Rows
	}
	return Penalty{L2: l.Lambda / (2 * float32(max(1, rows)))}
}

// BinaryCrossentropy is the mean over the outputs p = sigmoid(z) of
// -y*log(p) - (1-y)*log(1-p), for targets y from 0 to 1. The last layer's
// activation is Sigmoid.
type BinaryCrossentropy struct{ numeric }

func (BinaryCrossentropy) activation() ActivationKind { return Sigmoid }

// row uses -y*log(p) - (1-y)*log(1-p) = max(z,0) - z*y + log(1+exp(-|z|)).
func (BinaryCrossentropy) row(z, y, d []float32) float64 {
	var sum float64
	n := float32(len(z))
	for i, v := range z {
		x, t := float64(v), float64(y[i])
		sum += max(x, 0) - x*t + math.Log1p(math.Exp(-math.Abs(x)))
		d[i] = (sigmoid(v) - y[i]) / n
	}
	return sum / float64(n)
}

// CategoricalCrossentropy is -log of the probability that the network gives to
// the row's class. The last layer's activation is Softmax; the target of a row
// is the index of its class.
type CategoricalCrossentropy struct{ numeric }

func (CategoricalCrossentropy) targets(int) int            { return 1 }
func (CategoricalCrossentropy) activation() ActivationKind { return Softmax }

// row uses -log(p_y) = log(sum_j exp(z_j)) - z_y, with the largest z taken out.
func (CategoricalCrossentropy) row(z, y, d []float32) float64 {
	largest, sum := softmaxRow(z, d)
	class := int(y[0])
	d[class]--
	return math.Log(sum) - float64(z[class]-largest)
}

func sign(x float32) float32 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return x // 0, or NaN
}
