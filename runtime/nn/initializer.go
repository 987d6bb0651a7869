package nn

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"
)

// Initializer draws the first weights of a Dense layer, with Keras's formulas.
// With in inputs and out outputs, the weights have the variance
// 2/(in+out) (Glorot and Bengio, 2010) or 2/in (He et al., 2015).
type Initializer uint8

// The initializers. GlorotUniform, Keras's default, is the zero value.
const (
	GlorotUniform Initializer = iota
	GlorotNormal
	HeUniform
	HeNormal
)

var initializerNames = [...]string{"GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal"}

// String returns the initializer's name.
func (i Initializer) String() string {
	if int(i) < len(initializerNames) {
		return initializerNames[i]
	}
	return fmt.Sprintf("Initializer(%d)", uint8(i))
}

// ParseInitializer returns the initializer of that name.
func ParseInitializer(name string) (Initializer, error) {
	for i, n := range initializerNames {
		if n == name {
			return Initializer(i), nil
		}
	}
	return 0, fmt.Errorf("unknown initializer %q; known are %v", name, initializerNames)
}

// Fill draws the weights of an outputs x inputs matrix from random.
func (i Initializer) Fill(w blas32.General, random *rand.Rand) {
	variance := 2 / float64(w.Cols+w.Rows)
	if i == HeUniform || i == HeNormal {
		variance = 2 / float64(w.Cols)
	}
	draw := uniform
	if i == GlorotNormal || i == HeNormal {
		draw = truncatedNormal
	}
	for r := range w.Rows {
		v := row(w, r)
		for j := range v {
			v[j] = float32(draw(variance, random))
		}
	}
}

// uniform draws from the interval around 0 with that variance.
func uniform(variance float64, random *rand.Rand) float64 {
	return math.Sqrt(3*variance) * (2*random.Float64() - 1)
}

// truncatedNormal draws from a normal distribution without its tails beyond
// two standard deviations. What is left has 0.8796... of the full deviation,
// which is made up for.
func truncatedNormal(variance float64, random *rand.Rand) float64 {
	const deviationLeft = 0.87962566103423978
	for {
		if x := random.NormFloat64(); math.Abs(x) <= 2 {
			return x * math.Sqrt(variance) / deviationLeft
		}
	}
}

// Initialize draws the weights of all Dense layers from random, sets their
// biases to 0, and sets BatchNormalization layers to their start.
func (n *Network) Initialize(i Initializer, random *rand.Rand) {
	for _, l := range n.Layers {
		switch l := l.(type) {
		case *Dense:
			i.Fill(l.Weight, random)
			clear(l.Bias)
		case *BatchNormalization:
			l.reset()
		}
	}
}

// Parameters returns the number of weights that training changes.
func (n *Network) Parameters() int64 {
	var count int64
	for _, l := range n.Layers {
		switch l := l.(type) {
		case *Dense:
			count += int64(l.Weight.Rows)*int64(l.Weight.Cols) + int64(len(l.Bias))
		case *BatchNormalization:
			count += int64(len(l.Gamma) + len(l.Beta))
		}
	}
	return count
}
