package nn

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"
)

// ActivationKind names a function that is applied to a layer's outputs.
type ActivationKind uint8

// The kinds of activation, with Keras's formulas.
const (
	Linear    ActivationKind = iota // x
	ReLU                            // max(0, x)
	LeakyReLU                       // x for x > 0, Alpha*x below
	ELU                             // x for x > 0, Alpha*(exp(x)-1) below
	GELU                            // x*Phi(x) with the exact normal distribution function Phi
	Sigmoid                         // 1/(1+exp(-x))
	Tanh                            // tanh(x)
	Softmax                         // exp(x_i)/sum_j exp(x_j) over the outputs of one row
	GELUTanh                        // GELU with Phi(x) = (1+tanh(sqrt(2/pi)*(x+0.044715*x^3)))/2, as some exported models have it
)

var activationNames = [...]string{"Linear", "ReLU", "LeakyReLU", "ELU", "GELU", "Sigmoid", "Tanh", "Softmax", "GELUTanh"}

// String returns the kind's word in a recipe, such as "ReLU".
func (k ActivationKind) String() string {
	if int(k) < len(activationNames) {
		return activationNames[k]
	}
	return fmt.Sprintf("ActivationKind(%d)", uint8(k))
}

// ParseActivation returns the activation of that name with Keras's default for
// Alpha: 0.2 for LeakyReLU, 1 for ELU.
func ParseActivation(name string) (Activation, error) {
	for k, n := range activationNames {
		if n != name {
			continue
		}
		a := Activation{Kind: ActivationKind(k)}
		switch a.Kind {
		case LeakyReLU:
			a.Alpha = 0.2
		case ELU:
			a.Alpha = 1
		}
		return a, nil
	}
	return Activation{}, fmt.Errorf("unknown activation %q; known are %v", name, activationNames)
}

// Activation is the function that is applied to a layer's outputs. The zero
// value changes nothing.
type Activation struct {
	Kind ActivationKind
	// Alpha is the slope below 0 of LeakyReLU and the scale below 0 of ELU.
	Alpha float32
}

func (a Activation) validate() error {
	if int(a.Kind) >= len(activationNames) {
		return fmt.Errorf("unknown activation %d", a.Kind)
	}
	if !finite(a.Alpha) {
		return fmt.Errorf("alpha of %v is %v", a.Kind, a.Alpha)
	}
	return nil
}

// apply replaces every element of m, which holds sums, by its activation.
func (a Activation) apply(m blas32.General) {
	switch {
	case a.Kind == Linear:
	case a.Kind == Softmax:
		softmax(m)
	case m.Stride == m.Cols:
		a.applyAll(m.Data[:m.Rows*m.Cols])
	default:
		for i := range m.Rows {
			a.applyAll(row(m, i))
		}
	}
}

// applyAll is apply for the kinds that look at one element at a time.
func (a Activation) applyAll(v []float32) {
	switch a.Kind {
	case ReLU:
		relu(v)
	case LeakyReLU:
		for i, x := range v {
			if x < 0 {
				v[i] = a.Alpha * x
			}
		}
	case ELU:
		for i, x := range v {
			if x < 0 {
				v[i] = a.Alpha * float32(math.Expm1(float64(x)))
			}
		}
	case GELU:
		for i, x := range v {
			v[i] = x * normalCDF(x)
		}
	case GELUTanh:
		for i, x := range v {
			phi, _ := tanhCDF(x)
			v[i] = x * phi
		}
	case Sigmoid:
		for i, x := range v {
			v[i] = sigmoid(x)
		}
	case Tanh:
		for i, x := range v {
			v[i] = float32(math.Tanh(float64(x)))
		}
	}
}

// back turns dy, the gradient by the activation's results y, in place into the
// gradient by its arguments z.
func (a Activation) back(z, y, dy blas32.General) {
	switch {
	case a.Kind == Linear:
	case a.Kind != Softmax && z.Stride == z.Cols && y.Stride == y.Cols && dy.Stride == dy.Cols:
		a.backRow(z.Data, y.Data, dy.Data[:dy.Rows*dy.Cols])
	default:
		for i := range dy.Rows {
			a.backRow(row(z, i), row(y, i), row(dy, i))
		}
	}
}

// needsSums tells whether back looks at the arguments, and not only at the
// results.
func (a Activation) needsSums() bool {
	return a.Kind == LeakyReLU || a.Kind == ELU || a.Kind == GELU || a.Kind == GELUTanh
}

func (a Activation) backRow(z, y, dy []float32) {
	z, y = z[:len(dy)], y[:len(dy)]
	switch a.Kind {
	case ReLU:
		reluBack(y, dy)
	case LeakyReLU:
		for i, x := range z {
			if x < 0 {
				dy[i] *= a.Alpha
			}
		}
	case ELU: // alpha*exp(x) = alpha*(exp(x)-1) + alpha
		for i, x := range z {
			if x < 0 {
				dy[i] *= y[i] + a.Alpha
			}
		}
	case GELU: // d/dx x*Phi(x) = Phi(x) + x*phi(x)
		for i, x := range z {
			dy[i] *= normalCDF(x) + x*normalDensity(x)
		}
	case GELUTanh:
		for i, x := range z {
			phi, slope := tanhCDF(x)
			dy[i] *= phi + x*slope
		}
	case Sigmoid:
		for i, s := range y {
			dy[i] *= s * (1 - s)
		}
	case Tanh:
		for i, t := range y {
			dy[i] *= 1 - t*t
		}
	case Softmax: // dz_i = p_i * (dp_i - sum_j p_j*dp_j)
		var dot float32
		for i, p := range y {
			dot += p * dy[i]
		}
		for i, p := range y {
			dy[i] = p * (dy[i] - dot)
		}
	}
}

// softmaxRow writes the softmax of z into y, which may be z, and returns the largest
// element and the sum of exp(z_i - largest): taken out, nothing overflows.
func softmaxRow(z, y []float32) (largest float32, sum float64) {
	largest = z[0]
	for _, v := range z {
		largest = max(largest, v)
	}
	for i, v := range z {
		e := math.Exp(float64(v - largest))
		y[i] = float32(e)
		sum += e
	}
	scale := float32(1 / sum)
	for i := range y {
		y[i] *= scale
	}
	return largest, sum
}

func sigmoid(x float32) float32 {
	return float32(1 / (1 + math.Exp(-float64(x))))
}

func normalCDF(x float32) float32 {
	return float32(0.5 * math.Erfc(-float64(x)/math.Sqrt2))
}

// tanhCDF is GELUTanh's approximation of the normal distribution function, and
// its derivative.
func tanhCDF(x float32) (phi, slope float32) {
	const a, b = 0.7978845608028654, 0.044715 // a is sqrt(2/pi)
	v := float64(x)
	t := math.Tanh(a * (v + b*v*v*v))
	return float32((1 + t) / 2), float32((1 - t*t) / 2 * a * (1 + 3*b*v*v))
}

func normalDensity(x float32) float32 {
	return float32(math.Exp(-0.5*float64(x)*float64(x)) / math.Sqrt(2*math.Pi))
}

// AllFinite tells whether no number of v is infinite or NaN.
func AllFinite(v []float32) bool { return allFinite(v) }

// finite tells whether x is neither infinite nor NaN.
func finite(x float32) bool { return x-x == 0 }
