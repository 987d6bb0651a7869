package train

import (
	"fmt"
	"math"

	"trainyard.dev/trainyard/runtime/spec"
)

// interval is a set of numbers that a field may have.
type interval struct {
	low, high         float64
	withLow, withHigh bool // whether the ends belong to it
}

var (
	positive    = interval{low: 0, high: math.Inf(1)}
	notNegative = interval{low: 0, high: math.Inf(1), withLow: true}
	fraction    = interval{low: 0, high: 1, withLow: true}
	part        = interval{low: 0, high: 1, withLow: true, withHigh: true}
	factor      = interval{low: 0, high: 1, withHigh: true}
)

func (i interval) contains(v float64) bool {
	return v > i.low && v < i.high || i.withLow && v == i.low || i.withHigh && v == i.high
}

// String says where the numbers are: "at least 0 and below 1".
func (i interval) String() string {
	low, high := "above", "below"
	if i.withLow {
		low = "at least"
	}
	if i.withHigh {
		high = "at most"
	}
	text := fmt.Sprintf("%s %v", low, i.low)
	if !math.IsInf(i.high, 1) {
		text += fmt.Sprintf(" and %s %v", high, i.high)
	}
	return text
}

// ranged is a field with a number that must be in an interval.
type ranged struct {
	field    string
	value    float64
	interval interval
}

// checkRanges finds numbers with which no formula works.
func checkRanges(job spec.Train) error {
	fields := trainingRanges(job.Training)
	for i, l := range job.Network.Layers {
		fields = append(fields, layerRanges(fmt.Sprintf("network.layers[%d].", i), l)...)
	}
	for _, f := range fields {
		if !f.interval.contains(f.value) {
			return networkInvalid("%s is %v; it must be %v", f.field, f.value, f.interval)
		}
	}
	return nil
}

// trainingRanges leaves no field out: where 0 stands for a default, it is
// allowed.
func trainingRanges(t spec.Training) []ranged {
	o, r := t.Optimizer, t.Regularization
	const optimizer = "training.optimizer."
	fields := []ranged{
		{"training.regularization.l1", r.L1, notNegative},
		{"training.regularization.l2", r.L2, notNegative},
		{"training.regularization.lambda", r.Lambda, notNegative},
		{"training.topK", float64(t.TopK), notNegative},
		{optimizer + "learningRate", o.LearningRate, positive},
		{optimizer + "momentum", o.Momentum, fraction},
		{optimizer + "rho", o.Rho, fraction},
		{optimizer + "beta1", given(o.Beta1, 0), fraction},
		{optimizer + "beta2", given(o.Beta2, 0), fraction},
		{optimizer + "epsilon", o.Epsilon, notNegative},
		{optimizer + "weightDecay", given(o.WeightDecay, 0), notNegative},
		{optimizer + "clipNorm", o.ClipNorm, notNegative},
		{optimizer + "globalClipNorm", o.GlobalClipNorm, notNegative},
		{optimizer + "clipValue", o.ClipValue, notNegative},
		{optimizer + "schedule.decaySteps", float64(o.Schedule.DecaySteps), notNegative},
		{optimizer + "schedule.warmupSteps", float64(o.Schedule.WarmupSteps), notNegative},
		{optimizer + "schedule.alpha", o.Schedule.Alpha, part},
	}
	if s := o.Schedule.Name; s == spec.ExponentialSchedule || s == spec.StepSchedule {
		fields = append(fields, ranged{optimizer + "schedule.decayRate", o.Schedule.DecayRate, factor})
	}
	return fields
}

func layerRanges(layer string, l spec.Layer) []ranged {
	return []ranged{
		{layer + "alpha", l.Alpha, notNegative},
		{layer + "regularization.l1", l.Regularization.L1, notNegative},
		{layer + "regularization.l2", l.Regularization.L2, notNegative},
		{layer + "rate", l.Rate, fraction},
		{layer + "momentum", l.Momentum, fraction},
		{layer + "epsilon", l.Epsilon, notNegative},
	}
}
