package nn

import (
	"math"
	"slices"
)

// What follows computes a network's loss a second time, in float64 and one
// number at a time, straight from the formulas in the documentation. The
// gradients of the package are checked against differences of this.

type reference struct {
	network   *Network
	loss      func(z, y []float64) float64 // of one row
	penalties []Penalty
	masks     map[int][][]float64 // factors of the Dropout layers
	weights   []float32           // of the rows
}

// value is the loss for the parameters in values, which is keyed by layer and
// name.
func (r reference) value(values map[string][]float64, x [][]float64, y [][]float64) float64 {
	for i, l := range r.network.Layers {
		switch l := l.(type) {
		case *Dense:
			x = referenceDense(l, values[key(i, "weight")], values[key(i, "bias")], x)
		case *BatchNormalization:
			x = referenceBatch(values[key(i, "gamma")], values[key(i, "beta")], float64(l.Epsilon), x)
		case *Normalization:
			x = each(x, func(_, j int, v float64) float64 { return (v - float64(l.Mean[j])) * float64(l.Scale[j]) })
		case *Dropout:
			x = each(x, func(k, j int, v float64) float64 { return v * r.masks[i][k][j] })
		}
	}
	var sum float64
	for k := range x {
		w := 1.0
		if r.weights != nil {
			w = float64(r.weights[k])
		}
		sum += w * r.loss(x[k], y[k])
	}
	sum /= float64(len(x))
	for i, p := range r.penalties {
		for _, w := range values[key(i, "weight")] {
			sum += float64(p.L1)*math.Abs(w) + float64(p.L2)*w*w
		}
	}
	return sum
}

func key(layer int, name string) string {
	return "layers." + string(rune('0'+layer)) + "." + name
}

func each(x [][]float64, f func(i, j int, v float64) float64) [][]float64 {
	y := make([][]float64, len(x))
	for i := range x {
		y[i] = slices.Clone(x[i])
		for j, v := range x[i] {
			y[i][j] = f(i, j, v)
		}
	}
	return y
}

func referenceDense(l *Dense, weight, bias []float64, x [][]float64) [][]float64 {
	y := make([][]float64, len(x))
	for k := range x {
		y[k] = make([]float64, l.Weight.Rows)
		for o := range y[k] {
			if bias != nil {
				y[k][o] = bias[o]
			}
			for i, v := range x[k] {
				y[k][o] += v * weight[o*l.Weight.Cols+i]
			}
		}
		y[k] = referenceActivation(l.Activation, y[k])
	}
	return y
}

func referenceActivation(a Activation, z []float64) []float64 {
	y := slices.Clone(z)
	var sum float64
	for _, v := range z {
		sum += math.Exp(v)
	}
	for i, v := range z {
		switch a.Kind {
		case ReLU:
			y[i] = math.Max(0, v)
		case LeakyReLU:
			if v < 0 {
				y[i] = float64(a.Alpha) * v
			}
		case ELU:
			if v < 0 {
				y[i] = float64(a.Alpha) * (math.Exp(v) - 1)
			}
		case GELU:
			y[i] = v * (1 + math.Erf(v/math.Sqrt(2))) / 2
		case GELUTanh:
			y[i] = v / (1 + math.Exp(-2*math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
		case Sigmoid:
			y[i] = 1 / (1 + math.Exp(-v))
		case Tanh:
			y[i] = (math.Exp(v) - math.Exp(-v)) / (math.Exp(v) + math.Exp(-v))
		case Softmax:
			y[i] = math.Exp(v) / sum
		}
	}
	return y
}

func referenceBatch(gamma, beta []float64, epsilon float64, x [][]float64) [][]float64 {
	n := float64(len(x))
	mean, variance := make([]float64, len(gamma)), make([]float64, len(gamma))
	for _, r := range x {
		for j, v := range r {
			mean[j] += v / n
		}
	}
	for _, r := range x {
		for j, v := range r {
			variance[j] += (v - mean[j]) * (v - mean[j]) / n
		}
	}
	return each(x, func(_, j int, v float64) float64 {
		return gamma[j]*(v-mean[j])/math.Sqrt(variance[j]+epsilon) + beta[j]
	})
}

// The losses as functions of what the last layer puts out, activation included.

func referenceSquared(z, y []float64) float64 {
	return meanOver(z, y, func(e float64) float64 { return e * e })
}

func referenceAbsolute(z, y []float64) float64 { return meanOver(z, y, math.Abs) }

func referenceHuber(z, y []float64) float64 {
	return meanOver(z, y, func(e float64) float64 {
		if math.Abs(e) <= 1 {
			return e * e / 2
		}
		return math.Abs(e) - 0.5
	})
}

func referenceLeastSquares(z, y []float64) float64 {
	return meanOver(z, y, func(e float64) float64 { return e * e / 2 }) * float64(len(z))
}

func referenceBinary(p, y []float64) float64 {
	var sum float64
	for i := range p {
		sum -= y[i]*math.Log(p[i]) + (1-y[i])*math.Log(1-p[i])
	}
	return sum / float64(len(p))
}

func referenceCategorical(p, y []float64) float64 { return -math.Log(p[int(y[0])]) }

func meanOver(z, y []float64, f func(float64) float64) float64 {
	var sum float64
	for i := range z {
		sum += f(z[i] - y[i])
	}
	return sum / float64(len(z))
}
