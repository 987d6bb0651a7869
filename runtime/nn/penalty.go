package nn

import "math"

// Penalty on a kernel w is added to the loss: L1*sum|w| + L2*sum(w^2), as
// Keras's kernel_regularizer.
type Penalty struct {
	L1, L2 float32
}

// value returns the penalty on w.
func (p Penalty) value(w []float32) float64 {
	if p == (Penalty{}) {
		return 0
	}
	var abs, squares float64
	for _, v := range w {
		abs += math.Abs(float64(v))
		squares += float64(v) * float64(v)
	}
	return float64(p.L1)*abs + float64(p.L2)*squares
}

// apply adds the penalty's gradient to gradient and returns its value.
func (p Penalty) apply(w, gradient []float32) float64 {
	if p == (Penalty{}) {
		return 0
	}
	for i, v := range w {
		gradient[i] += p.L1*sign(v) + 2*p.L2*v
	}
	return p.value(w)
}

// Clip limits gradients before a step. At most one field may be set; the zero
// value changes nothing.
type Clip struct {
	// Norm limits the Euclidean norm of each parameter's gradient (Keras's
	// clipnorm).
	Norm float32
	// GlobalNorm limits the norm of all gradients together (global_clipnorm).
	GlobalNorm float32
	// Value limits each element to -Value..Value (clipvalue).
	Value float32
}

// Apply limits the gradients of parameters. A gradient with an infinite norm or
// NaN is left for the loss to show.
func (c Clip) Apply(parameters []Parameter) {
	switch {
	case c.Norm > 0:
		for _, p := range parameters {
			scaleTo(float64(c.Norm), math.Sqrt(squares(p.Gradient)), p.Gradient)
		}
	case c.GlobalNorm > 0:
		var sum float64
		for _, p := range parameters {
			sum += squares(p.Gradient)
		}
		for _, p := range parameters {
			scaleTo(float64(c.GlobalNorm), math.Sqrt(sum), p.Gradient)
		}
	case c.Value > 0:
		for _, p := range parameters {
			for i, g := range p.Gradient {
				p.Gradient[i] = min(max(g, -c.Value), c.Value)
			}
		}
	}
}

// scaleTo scales g, whose norm is norm, so that its norm is at most limit.
func scaleTo(limit, norm float64, g []float32) {
	if !(norm > limit) || math.IsInf(norm, 1) {
		return
	}
	factor := float32(limit / norm)
	for i := range g {
		g[i] *= factor
	}
}

func squares(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return sum
}
