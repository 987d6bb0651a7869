package nn

import (
	"errors"
	"fmt"
	"math"
	"slices"

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

// Outputs returns inputs.
func (l *BatchNormalization) Outputs(inputs int) int { return inputs }

func (l *BatchNormalization) validate(inputs int) error {
	err := errors.Join(
		length("gamma", l.Gamma, inputs), length("beta", l.Beta, inputs),
		length("mean", l.Mean, inputs), length("variance", l.Variance, inputs))
	if err != nil {
		return err
	}
	for j, v := range l.Variance {
		if v+l.Epsilon <= 0 {
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

func length(name string, v []float32, want int) error {
	if len(v) != want {
		return fmt.Errorf("%s has %d elements for %d inputs", name, len(v), want)
	}
	return nil
}

func root(x float32) float32 { return float32(math.Sqrt(float64(x))) }
