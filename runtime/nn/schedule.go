package nn

import "math"

// Schedule gives the learning rate of each step.
type Schedule interface {
	// LearningRate of a step, counted from 0.
	LearningRate(step int64) float64
}

// Constant is the same learning rate in every step.
type Constant float64

// LearningRate returns c.
func (c Constant) LearningRate(int64) float64 { return float64(c) }

// Exponential multiplies the learning rate by Factor every Steps steps, a
// little in each: Initial * Factor^(step/Steps) (Keras's ExponentialDecay).
type Exponential struct {
	Initial, Factor float64
	Steps           int64 // above 0
}

// LearningRate returns the rate of a step, counted from 0.
func (e Exponential) LearningRate(step int64) float64 {
	return e.Initial * math.Pow(e.Factor, float64(step)/float64(e.Steps))
}

// StepDecay multiplies the learning rate by Factor at once after every Steps
// steps (Keras's ExponentialDecay with staircase, torch's StepLR).
type StepDecay struct {
	Initial, Factor float64
	Steps           int64 // above 0
}

// LearningRate returns the rate of a step, counted from 0.
func (s StepDecay) LearningRate(step int64) float64 {
	return s.Initial * math.Pow(s.Factor, float64(step/s.Steps))
}

// Cosine raises the learning rate in WarmupSteps equal steps from WarmupFrom to
// Peak, and then lowers it in Steps steps along half a cosine to Peak*Alpha,
// where it stays (Keras's CosineDecay).
type Cosine struct {
	Peak, Alpha float64
	Steps       int64 // above 0
	WarmupFrom  float64
	WarmupSteps int64
}

// LearningRate returns the rate of a step, counted from 0.
func (c Cosine) LearningRate(step int64) float64 {
	if step < c.WarmupSteps {
		return c.WarmupFrom + (c.Peak-c.WarmupFrom)*float64(step)/float64(c.WarmupSteps)
	}
	done := float64(min(step-c.WarmupSteps, c.Steps)) / float64(c.Steps)
	return c.Peak * ((1-c.Alpha)*0.5*(1+math.Cos(math.Pi*done)) + c.Alpha)
}
