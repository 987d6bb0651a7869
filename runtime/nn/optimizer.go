package nn

import (
	"fmt"
	"math"
)

// Optimizer turns gradients into steps. Its exported fields Steps and Slots are
// all that it remembers: a checkpoint is their copy.
type Optimizer struct {
	Rule     Rule
	Schedule Schedule
	Clip     Clip
	// Steps that were made.
	Steps int64
	// Slots are what Rule remembers of each parameter, such as Adam's moments:
	// for each parameter its slots, one after the other, each as long as the
	// parameter.
	Slots []Slot

	parameters []Parameter
	pieces     []piece // of all parameters
	rate       float64 // of the step that is being made
}

// piece is a part of a parameter, and what the rule remembers of it. Pieces
// are moved at the same time by different goroutines.
type piece struct {
	value, gradient []float32
	slots           [][]float32
}

// pieceSize takes a rule some 0.03 ms or more.
const pieceSize = 1 << 16

// Slot is what a rule remembers of one parameter.
type Slot struct {
	Name  string // "layers.0.weight.momentum"
	Value []float32
}

// NewOptimizer returns an optimizer of parameters that has made no step.
func NewOptimizer(rule Rule, schedule Schedule, parameters []Parameter) *Optimizer {
	o := &Optimizer{Rule: rule, Schedule: schedule, parameters: parameters}
	for _, p := range parameters {
		var values [][]float32
		for _, name := range rule.slots() {
			v := make([]float32, len(p.Value))
			values = append(values, v)
			o.Slots = append(o.Slots, Slot{Name: fmt.Sprintf("%s.%s", p.Name, name), Value: v})
		}
		o.addPieces(p, values)
	}
	return o
}

func (o *Optimizer) addPieces(p Parameter, slots [][]float32) {
	for from := 0; from < len(p.Value); from += pieceSize {
		to := min(from+pieceSize, len(p.Value))
		part := piece{value: p.Value[from:to], gradient: p.Gradient[from:to]}
		for _, s := range slots {
			part.slots = append(part.slots, s[from:to])
		}
		o.pieces = append(o.pieces, part)
	}
}

// Step moves the parameters against their gradients, which it may change.
func (o *Optimizer) Step() {
	o.Clip.Apply(o.parameters)
	o.rate = o.Schedule.LearningRate(o.Steps)
	o.Steps++
	if len(o.pieces) == len(o.parameters) { // all are small
		for i := range o.pieces {
			o.do(i)
		}
		return
	}
	parallel(o, len(o.pieces))
}

// do moves a piece.
func (o *Optimizer) do(i int) {
	p := &o.pieces[i]
	o.Rule.update(p.value, p.gradient, p.slots, o.rate, o.Steps)
}

// Rule is how an [Optimizer] moves a parameter: an [SGD], [RMSprop], [Adam] or
// [AdamW], with the formulas of Keras 3.
type Rule interface {
	// slots names what the rule remembers of each parameter.
	slots() []string
	// update moves w for the step-th time, counted from 1.
	update(w, g []float32, slots [][]float32, learningRate float64, step int64)
}

// SGD is gradient descent, with momentum if Momentum is not 0:
//
//	m = Momentum*m - rate*g
//	w = w + m                        or, with Nesterov:
//	w = w + Momentum*m - rate*g
//
// Its customary learning rate is 0.01.
type SGD struct {
	Momentum float32
	Nesterov bool
}

func (r SGD) slots() []string {
	if r.Momentum == 0 {
		return nil
	}
	return []string{"momentum"}
}

func (r SGD) update(w, g []float32, slots [][]float32, learningRate float64, _ int64) {
	rate := float32(learningRate)
	if r.Momentum == 0 {
		for i := range w {
			w[i] -= rate * g[i]
		}
		return
	}
	for i, m := range slots[0] {
		m = r.Momentum*m - rate*g[i]
		slots[0][i] = m
		if r.Nesterov {
			m = r.Momentum*m - rate*g[i]
		}
		w[i] += m
	}
}

// RMSprop divides by a moving average of the gradient's magnitude:
//
//	v = Rho*v + (1-Rho)*g^2
//	a = Rho*a + (1-Rho)*g            only if Centered, else 0
//	s = rate*g / sqrt(v - a^2 + Epsilon)
//	m = Momentum*m + s               only if Momentum is not 0, else s
//	w = w - m
//
// Its customary learning rate is 0.001.
type RMSprop struct {
	Rho, Momentum, Epsilon float32
	Centered               bool
}

// NewRMSprop returns the rule with Keras's defaults.
func NewRMSprop() RMSprop { return RMSprop{Rho: 0.9, Epsilon: 1e-7} }

func (r RMSprop) slots() []string {
	names := []string{"velocity"}
	if r.Momentum != 0 {
		names = append(names, "momentum")
	}
	if r.Centered {
		names = append(names, "average")
	}
	return names
}

func (r RMSprop) update(w, g []float32, slots [][]float32, learningRate float64, _ int64) {
	rate, velocity, average := float32(learningRate), slots[0], slots[len(slots)-1]
	for i, d := range g {
		velocity[i] = r.Rho*velocity[i] + (1-r.Rho)*d*d
		variance := velocity[i]
		if r.Centered {
			average[i] = r.Rho*average[i] + (1-r.Rho)*d
			variance -= average[i] * average[i]
		}
		s := rate * d / root(variance+r.Epsilon)
		if r.Momentum != 0 {
			slots[1][i] = r.Momentum*slots[1][i] + s
			s = slots[1][i]
		}
		w[i] -= s
	}
}

// Adam keeps moving averages of the gradient and of its square (Kingma and Ba,
// 2014, with epsilon as in the formula just before section 2.1). In step t:
//
//	m = m + (g-m)*(1-Beta1)
//	v = v + (g^2-v)*(1-Beta2)
//	w = w - rate*sqrt(1-Beta2^t)/(1-Beta1^t) * m/(sqrt(v)+Epsilon)
//
// Its customary learning rate is 0.001.
type Adam struct {
	Beta1, Beta2, Epsilon float64
}

// NewAdam returns the rule with Keras's defaults.
func NewAdam() Adam { return Adam{Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7} }

func (Adam) slots() []string { return []string{"momentum", "velocity"} }

func (r Adam) update(w, g []float32, slots [][]float32, learningRate float64, step int64) {
	t := float64(step)
	rate := float32(learningRate * math.Sqrt(1-math.Pow(r.Beta2, t)) / (1 - math.Pow(r.Beta1, t)))
	first, second, epsilon := float32(1-r.Beta1), float32(1-r.Beta2), float32(r.Epsilon)
	adamStep(w, g, slots[0], slots[1], rate, first, second, epsilon)
}

// AdamW is [Adam] after w = w - rate*WeightDecay*w. As in Keras, that holds for
// every parameter, biases too.
type AdamW struct {
	Adam
	WeightDecay float64
}

// NewAdamW returns the rule with Keras's defaults.
func NewAdamW() AdamW { return AdamW{Adam: NewAdam(), WeightDecay: 0.004} }

func (r AdamW) update(w, g []float32, slots [][]float32, learningRate float64, step int64) {
	decay := float32(r.WeightDecay * learningRate)
	for i := range w {
		w[i] -= w[i] * decay
	}
	r.Adam.update(w, g, slots, learningRate, step)
}
