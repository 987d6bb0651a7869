package nn

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"
)

// Defaults of [BatchNormalization] in Keras.
const (
	BatchNormalizationMomentum = 0.99
	BatchNormalizationEpsilon  = 1e-3
)

// BatchNormalization brings each column to mean Beta and standard deviation
// Gamma: in training over the batch, in Predict with the moving averages that
// training left in Mean and Variance (Ioffe and Szegedy, 2015).
type BatchNormalization struct {
	Gamma, Beta, Mean, Variance []float32
	// Epsilon is added to the variance before its square root divides.
	Epsilon float32
	// Momentum says, while it is trained, how slowly Mean and Variance move: in
	// each step, average = Momentum*average + (1-Momentum)*batch. 0 stands for
	// Keras's default.
	Momentum float32
}

// NewBatchNormalization returns the layer as training starts with it: gamma 1,
// beta 0, mean 0, variance 1, and Keras's epsilon.
func NewBatchNormalization(inputs int) *BatchNormalization {
	return &BatchNormalization{
		Gamma:    slices.Repeat([]float32{1}, inputs),
		Beta:     make([]float32, inputs),
		Mean:     make([]float32, inputs),
		Variance: slices.Repeat([]float32{1}, inputs),
		Epsilon:  BatchNormalizationEpsilon,
	}
}

func (l *BatchNormalization) reset() {
	clear(l.Beta)
	clear(l.Mean)
	for j := range l.Gamma {
		l.Gamma[j], l.Variance[j] = 1, 1
	}
}

// Outputs returns inputs.
func (l *BatchNormalization) Outputs(inputs int) int { return inputs }

func (l *BatchNormalization) validate(inputs int) error {
	err := errors.Join(
		length("gamma", l.Gamma, inputs), length("beta", l.Beta, inputs),
		length("mean", l.Mean, inputs), length("variance", l.Variance, inputs))
	if err != nil {
		return err
	}
	if !(l.Momentum >= 0 && l.Momentum < 1) {
		return fmt.Errorf("momentum is %v; it must be at least 0 and below 1", l.Momentum)
	}
	for j, v := range l.Variance {
		if !(v+l.Epsilon > 0) {
			return fmt.Errorf("variance[%d] + epsilon is %v; it must be above 0", j, v+l.Epsilon)
		}
	}
	return nil
}

func (l *BatchNormalization) predict(x, y blas32.General) {
	for j := range x.Cols {
		mean, beta := l.Mean[j], l.Beta[j]
		scale := l.Gamma[j] / root(l.Variance[j]+l.Epsilon)
		for i := range x.Rows {
			y.Data[i*y.Stride+j] = (x.Data[i*x.Stride+j]-mean)*scale + beta
		}
	}
}

type trainedBatchNormalization struct {
	*BatchNormalization
	batch          *split
	normalized, y  blas32.General // before and after gamma and beta
	mean, variance []float64      // of the batch
	inverse        []float32      // 1/sqrt(variance + epsilon)
	dGamma, dBeta  []float32
	// sumGamma and sumBeta are the same over all rows of the batch.
	sumGamma, sumBeta []float32
}

func (l *BatchNormalization) trained(rows, inputs int, _ *rand.Rand, batch *split) trained {
	return &trainedBatchNormalization{
		BatchNormalization: l,
		batch:              batch,
		normalized:         newMatrix(rows, inputs),
		y:                  newMatrix(rows, inputs),
		mean:               make([]float64, inputs),
		variance:           make([]float64, inputs),
		inverse:            make([]float32, inputs),
		dGamma:             make([]float32, inputs),
		dBeta:              make([]float32, inputs),
		sumGamma:           make([]float32, inputs),
		sumBeta:            make([]float32, inputs),
	}
}

func (t *trainedBatchNormalization) parameters() []Parameter {
	return []Parameter{
		{Name: "gamma", Value: t.Gamma, Gradient: t.dGamma},
		{Name: "beta", Value: t.Beta, Gradient: t.dBeta},
	}
}

func (t *trainedBatchNormalization) forward(x blas32.General) blas32.General {
	t.measure(x)
	normalized, y := firstRows(t.normalized, x.Rows), firstRows(t.y, x.Rows)
	for i := range x.Rows {
		to, scaled := row(normalized, i), row(y, i)
		for j, v := range row(x, i) {
			to[j] = (v - float32(t.mean[j])) * t.inverse[j]
			scaled[j] = to[j]*t.Gamma[j] + t.Beta[j]
		}
	}
	return y
}

// measure takes mean and variance (divided by the number of rows) of the whole
// batch and moves the averages towards them.
func (t *trainedBatchNormalization) measure(x blas32.General) {
	clear(t.mean)
	clear(t.variance)
	n := float64(t.batch.all)
	for i := range x.Rows {
		for j, v := range row(x, i) {
			t.mean[j] += float64(v) / n
		}
	}
	if p := t.batch.peers; p != nil {
		p.AddDoubles(t.mean)
	}
	for i := range x.Rows {
		for j, v := range row(x, i) {
			d := float64(v) - t.mean[j]
			t.variance[j] += d * d / n
		}
	}
	if p := t.batch.peers; p != nil {
		p.AddDoubles(t.variance)
	}
	momentum := t.momentum()
	for j, v := range t.variance {
		t.inverse[j] = float32(1 / math.Sqrt(v+float64(t.Epsilon)))
		t.Mean[j] = moved(t.Mean[j], t.mean[j], momentum)
		t.Variance[j] = moved(t.Variance[j], v, momentum)
	}
}

func (l *BatchNormalization) momentum() float64 {
	if l.Momentum == 0 {
		return BatchNormalizationMomentum
	}
	return float64(l.Momentum)
}

func moved(average float32, batch, momentum float64) float32 {
	return float32(float64(average)*momentum + batch*(1-momentum))
}

// backward: with n rows and y = gamma*normalized + beta,
//
//	dx = gamma/sqrt(variance+epsilon) * (dy - mean(dy) - normalized*mean(dy*normalized))
func (t *trainedBatchNormalization) backward(dy blas32.General, _ bool) blas32.General {
	clear(t.dGamma)
	clear(t.dBeta)
	for i := range dy.Rows {
		normalized := row(t.normalized, i)
		for j, d := range row(dy, i) {
			t.dBeta[j] += d
			t.dGamma[j] += d * normalized[j]
		}
	}
	copy(t.sumGamma, t.dGamma)
	copy(t.sumBeta, t.dBeta)
	if p := t.batch.peers; p != nil {
		p.Add(t.sumGamma, t.sumBeta)
	}
	n := float32(t.batch.all)
	for i := range dy.Rows {
		d, normalized := row(dy, i), row(t.normalized, i)
		for j := range d {
			d[j] = t.Gamma[j] * t.inverse[j] * (d[j] - t.sumBeta[j]/n - normalized[j]*t.sumGamma[j]/n)
		}
	}
	return dy
}
