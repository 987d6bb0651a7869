package nn

import (
	"math"
	"testing"
)

const rate = 0.01

// A recurrence is a rule computed in float64 as the documentation writes it, for
// one weight, with the learning rate above.
type recurrence func(w, g float64, step int) float64

func sgd(momentum float64, nesterov bool) recurrence {
	var m float64
	return func(w, g float64, _ int) float64 {
		m = momentum*m - rate*g
		if nesterov {
			return w + momentum*m - rate*g
		}
		return w + m
	}
}

func rmsprop(momentum float64, centered bool) recurrence {
	const rho = 0.9
	var v, a, m float64
	return func(w, g float64, _ int) float64 {
		v = rho*v + (1-rho)*g*g
		if centered {
			a = rho*a + (1-rho)*g
		}
		m = momentum*m + rate*g/math.Sqrt(v-a*a+1e-7)
		return w - m
	}
}

func adam(decay float64) recurrence {
	var m, v float64
	return func(w, g float64, step int) float64 {
		w -= w * decay * rate
		m = 0.9*m + 0.1*g
		v = 0.999*v + 0.001*g*g
		t := float64(step)
		alpha := rate * math.Sqrt(1-math.Pow(0.999, t)) / (1 - math.Pow(0.9, t))
		return w - alpha*m/(math.Sqrt(v)+1e-7)
	}
}

func TestRules(t *testing.T) {
	centered := NewRMSprop()
	centered.Centered = true
	moving := NewRMSprop()
	moving.Momentum = 0.7
	both := moving
	both.Centered = true
	for _, c := range []struct {
		name string
		rule Rule
		want func() recurrence
	}{
		{"SGD", SGD{}, func() recurrence { return sgd(0, false) }},
		{"SGD with momentum", SGD{Momentum: 0.9}, func() recurrence { return sgd(0.9, false) }},
		{"SGD with Nesterov momentum", SGD{Momentum: 0.9, Nesterov: true}, func() recurrence { return sgd(0.9, true) }},
		{"RMSprop", NewRMSprop(), func() recurrence { return rmsprop(0, false) }},
		{"RMSprop centered", centered, func() recurrence { return rmsprop(0, true) }},
		{"RMSprop with momentum", moving, func() recurrence { return rmsprop(0.7, false) }},
		{"RMSprop centered with momentum", both, func() recurrence { return rmsprop(0.7, true) }},
		{"Adam", NewAdam(), func() recurrence { return adam(0) }},
		{"AdamW", NewAdamW(), func() recurrence { return adam(0.004) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The second weight has gradients so small that epsilon counts.
			scales := []float64{1, 1e-4}
			p := Parameter{Name: "w", Value: []float32{1, 1}, Gradient: make([]float32, 2)}
			o := NewOptimizer(c.rule, Constant(rate), []Parameter{p})
			rules, want := []recurrence{c.want(), c.want()}, []float64{1, 1}
			for step, g := range []float64{0.5, -2, 0.25, 3, 0.125, -1} {
				for i, scale := range scales {
					p.Gradient[i] = float32(g * scale)
					want[i] = rules[i](want[i], g*scale, step+1)
				}
				o.Step()
				for i, got := range p.Value {
					if math.Abs(float64(got)-want[i]) > 3e-6 {
						t.Fatalf("w[%d] after step %d is %.8f, want %.8f", i, step+1, got, want[i])
					}
				}
			}
		})
	}
}

// First steps that can be checked by hand: w = 1, g = 0.5, rate 0.1.
func TestFirstSteps(t *testing.T) {
	for _, c := range []struct {
		name string
		rule Rule
		want float64
	}{
		{"SGD", SGD{}, 0.95},
		{"SGD with Nesterov momentum", SGD{Momentum: 0.9, Nesterov: true}, 1 - 0.05 - 0.045},
		{"RMSprop", NewRMSprop(), 1 - 0.1/math.Sqrt(0.1)}, // epsilon is too small to see
		{"Adam", NewAdam(), 0.9}, // the first step is the learning rate
		{"AdamW", NewAdamW(), 0.9 - 0.0004},
	} {
		p := Parameter{Value: []float32{1}, Gradient: []float32{0.5}}
		NewOptimizer(c.rule, Constant(0.1), []Parameter{p}).Step()
		if got := float64(p.Value[0]); math.Abs(got-c.want) > 2e-6 {
			t.Errorf("%s: w after the first step is %v, want %v", c.name, got, c.want)
		}
	}
}

// Whoever copies Steps and Slots has all that an optimizer remembers.
func TestOptimizerResumes(t *testing.T) {
	for _, rule := range []Rule{SGD{Momentum: 0.9}, RMSprop{Rho: 0.9, Momentum: 0.5, Epsilon: 1e-7, Centered: true}, NewAdamW()} {
		step := func(o *Optimizer, p Parameter, g float32) {
			p.Gradient[0] = g
			o.Step()
		}
		p := Parameter{Value: []float32{1}, Gradient: make([]float32, 1)}
		o := NewOptimizer(rule, Exponential{Initial: 0.1, Factor: 0.5, Steps: 2}, []Parameter{p})
		step(o, p, 0.5)
		step(o, p, -1)

		q := Parameter{Value: []float32{p.Value[0]}, Gradient: make([]float32, 1)}
		resumed := NewOptimizer(rule, o.Schedule, []Parameter{q})
		resumed.Steps = o.Steps
		for i, s := range o.Slots {
			copy(resumed.Slots[i].Value, s.Value)
		}
		step(o, p, 2)
		step(resumed, q, 2)
		if p.Value[0] != q.Value[0] {
			t.Errorf("%T: w is %v, resumed %v", rule, p.Value[0], q.Value[0])
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		name string
		clip Clip
		want [4]float32
	}{
		{"none", Clip{}, [4]float32{3, 4, 12, 0}},
		{"norm of each", Clip{Norm: 6}, [4]float32{3, 4, 6, 0}},
		{"norm of all", Clip{GlobalNorm: 6.5}, [4]float32{1.5, 2, 6, 0}},
		{"norm of all is small enough", Clip{GlobalNorm: 13}, [4]float32{3, 4, 12, 0}},
		{"value", Clip{Value: 3.5}, [4]float32{3, 3.5, 3.5, 0}},
	} {
		a, b := []float32{3, 4}, []float32{12, 0} // norms 5 and 12, together 13
		c.clip.Apply([]Parameter{{Gradient: a}, {Gradient: b}})
		if got := [4]float32{a[0], a[1], b[0], b[1]}; got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	negative := []float32{-9}
	Clip{Value: 2}.Apply([]Parameter{{Gradient: negative}})
	if negative[0] != -2 {
		t.Errorf("-9 clipped to 2 is %v", negative[0])
	}
}

func TestSchedules(t *testing.T) {
	cosine := Cosine{Peak: 0.1, Alpha: 0.1, Steps: 10, WarmupFrom: 0.02, WarmupSteps: 4}
	for _, c := range []struct {
		schedule Schedule
		step     int64
		want     float64
	}{
		{Constant(0.5), 99, 0.5},
		{Exponential{1, 0.5, 10}, 0, 1},
		{Exponential{1, 0.5, 10}, 5, math.Sqrt(0.5)},
		{Exponential{1, 0.5, 10}, 20, 0.25},
		{StepDecay{1, 0.5, 10}, 9, 1},
		{StepDecay{1, 0.5, 10}, 10, 0.5},
		{StepDecay{1, 0.5, 10}, 29, 0.25},
		{cosine, 0, 0.02},
		{cosine, 2, 0.06},
		{cosine, 4, 0.1},
		{cosine, 9, 0.055}, // half way between the peak and a tenth of it
		{cosine, 14, 0.01},
		{cosine, 1000, 0.01},
		{Cosine{Peak: 1, Steps: 4}, 0, 1},
		{Cosine{Peak: 1, Steps: 4}, 1, 0.5 + math.Sqrt2/4},
		{Cosine{Peak: 1, Steps: 4}, 4, 0},
	} {
		if got := c.schedule.LearningRate(c.step); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%T%+v at step %d is %v, want %v", c.schedule, c.schedule, c.step, got, c.want)
		}
	}
}
