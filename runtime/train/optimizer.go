package train

import (
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// optimizerOf returns what makes the steps of a run whose epochs have
// stepsPerEpoch steps.
func optimizerOf(t spec.Training, stepsPerEpoch int64, parameters []nn.Parameter) (*nn.Optimizer, error) {
	rule, err := ruleOf(t.Optimizer)
	if err != nil {
		return nil, err
	}
	schedule, err := scheduleOf(t, stepsPerEpoch)
	if err != nil {
		return nil, err
	}
	optimizer := nn.NewOptimizer(rule, schedule, parameters)
	optimizer.Clip = nn.Clip{
		Norm:       float32(t.Optimizer.ClipNorm),
		GlobalNorm: float32(t.Optimizer.GlobalClipNorm),
		Value:      float32(t.Optimizer.ClipValue),
	}
	return optimizer, nil
}

func ruleOf(o spec.Optimizer) (nn.Rule, error) {
	switch o.Name {
	case spec.SGD:
		return nn.SGD{Momentum: float32(o.Momentum), Nesterov: o.Nesterov}, nil
	case spec.RMSprop:
		r := nn.NewRMSprop()
		r.Rho = or(float32(o.Rho), r.Rho)
		r.Epsilon = or(float32(o.Epsilon), r.Epsilon)
		r.Momentum, r.Centered = float32(o.Momentum), o.Centered
		return r, nil
	case spec.Adam:
		return adamOf(o), nil
	case spec.AdamW:
		r := nn.NewAdamW()
		r.Adam = adamOf(o)
		r.WeightDecay = given(o.WeightDecay, r.WeightDecay)
		return r, nil
	}
	return nil, networkInvalid("training.optimizer.name is %q, which is not known; use %s, %s, %s or %s", o.Name, spec.Adam, spec.AdamW, spec.SGD, spec.RMSprop)
}

func adamOf(o spec.Optimizer) nn.Adam {
	r := nn.NewAdam()
	r.Beta1, r.Beta2 = given(o.Beta1, r.Beta1), given(o.Beta2, r.Beta2)
	r.Epsilon = or(o.Epsilon, r.Epsilon)
	return r
}

// given returns what v points to, or otherwise if that is nothing.
func given[T any](v *T, otherwise T) T {
	if v == nil {
		return otherwise
	}
	return *v
}

func scheduleOf(t spec.Training, stepsPerEpoch int64) (nn.Schedule, error) {
	rate, s := t.Optimizer.LearningRate, t.Optimizer.Schedule
	switch s.Name {
	case "", spec.ConstantSchedule:
		return nn.Constant(rate), nil
	case spec.ExponentialSchedule:
		return nn.Exponential{Initial: rate, Factor: s.DecayRate, Steps: or(s.DecaySteps, stepsPerEpoch)}, nil
	case spec.StepSchedule:
		return nn.StepDecay{Initial: rate, Factor: s.DecayRate, Steps: or(s.DecaySteps, stepsPerEpoch)}, nil
	case spec.CosineSchedule:
		all := int64(t.Epochs) * stepsPerEpoch
		if s.WarmupSteps >= all {
			return nil, networkInvalid("training.optimizer.schedule.warmupSteps is %d, but the run has %d steps (%d epochs of %d), so it would never reach its learning rate: make warmupSteps smaller, or train for more epochs", s.WarmupSteps, all, t.Epochs, stepsPerEpoch)
		}
		return nn.Cosine{Peak: rate, Alpha: s.Alpha, Steps: or(s.DecaySteps, all-s.WarmupSteps), WarmupSteps: s.WarmupSteps}, nil
	}
	return nil, networkInvalid("training.optimizer.schedule.name is %q, which is not known; use %s, %s, %s or %s", s.Name, spec.ConstantSchedule, spec.ExponentialSchedule, spec.StepSchedule, spec.CosineSchedule)
}
