package train

import (
	"fmt"
	"slices"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// withDefaults fills in what the recipe may leave out, as the API server does
// for TrainingJobs. Defaults of a layer's or optimizer's own numbers are nn's.
func withDefaults(job spec.Train) spec.Train {
	job.Network.Layers = slices.Clone(job.Network.Layers)
	for i := range job.Network.Layers {
		l := &job.Network.Layers[i]
		l.Type = or(l.Type, spec.Dense)
		if l.Type == spec.Dense {
			l.Activation = or(l.Activation, spec.Linear)
			l.Initializer = or(l.Initializer, spec.GlorotUniform)
		}
	}
	t := &job.Training
	t.Epochs = or(t.Epochs, 10)
	t.BatchSize = or(t.BatchSize, 32)
	t.Optimizer.Name = or(t.Optimizer.Name, spec.Adam)
	rate := 0.001
	if t.Optimizer.Name == spec.SGD {
		rate = 0.01
	}
	t.Optimizer.LearningRate = or(t.Optimizer.LearningRate, rate)
	if t.EarlyStopping != nil {
		e := *t.EarlyStopping
		e.Monitor = or(e.Monitor, spec.MonitorValidationLoss)
		e.Patience = or(e.Patience, 5)
		t.EarlyStopping = &e
	}
	return job
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// checkRecipe finds what cannot be trained on any data.
func checkRecipe(job spec.Train) error {
	t := job.Training
	switch {
	case len(job.Network.Layers) == 0:
		return networkInvalid("network.layers is empty; give at least the layer that makes the predictions, for example {units: 10, activation: Softmax}")
	case job.Network.Inputs < 0:
		return networkInvalid("network.inputs is %d; set it to the number of feature columns or leave it out", job.Network.Inputs)
	case t.Epochs < 1:
		return networkInvalid("training.epochs is %d; it must be at least 1", t.Epochs)
	case t.BatchSize < 1:
		return networkInvalid("training.batchSize is %d; it must be at least 1", t.BatchSize)
	}
	if _, err := ruleOf(t.Optimizer); err != nil {
		return err
	}
	if _, err := lossOf(t, 1); err != nil {
		return err
	}
	for i, l := range job.Network.Layers {
		if err := checkLayer(i, l); err != nil {
			return err
		}
	}
	for _, check := range []error{checkRanges(job), checkLastLayer(job), checkMetrics(t), checkStopping(job)} {
		if check != nil {
			return check
		}
	}
	return nil
}

func checkLayer(i int, l spec.Layer) error {
	switch l.Type {
	case spec.Dropout, spec.BatchNormalization:
		return nil
	case spec.Dense:
	default:
		return networkInvalid("network.layers[%d]%w", i, unknownLayer(l))
	}
	if l.Units < 1 {
		return networkInvalid("network.layers[%d].units is %d; a Dense layer needs at least 1", i, l.Units)
	}
	if _, err := nn.ParseActivation(string(l.Activation)); err != nil {
		return networkInvalid("network.layers[%d].activation: %w", i, err)
	}
	if _, err := nn.ParseInitializer(string(l.Initializer)); err != nil {
		return networkInvalid("network.layers[%d].initializer: %w", i, err)
	}
	return nil
}

// unknownLayer is an error that follows on the layer's name.
func unknownLayer(l spec.Layer) error {
	return fmt.Errorf(".type is %q, which is not known; use %s, %s or %s", l.Type, spec.Dense, spec.Dropout, spec.BatchNormalization)
}

// checkLastLayer compares the last layer with the loss:
//
//	loss                     activation        units
//	CategoricalCrossentropy  Softmax           a class each, 2 at least
//	BinaryCrossentropy       Sigmoid           1
//	one of numbers           all but Softmax   1
func checkLastLayer(job spec.Train) error {
	last := len(job.Network.Layers) - 1
	l, loss := job.Network.Layers[last], job.Training.Loss
	switch {
	case l.Type != spec.Dense:
		return networkInvalid("the last layer is %s, but the last layer makes the predictions: append a Dense layer to network.layers, for example {units: 10, activation: Softmax}", l.Type)
	case loss == spec.CategoricalCrossentropy && l.Activation != spec.Softmax:
		return networkInvalid("loss CategoricalCrossentropy needs probabilities of classes, but the last layer has activation %s: set network.layers[%d].activation to Softmax", l.Activation, last)
	case loss == spec.CategoricalCrossentropy && l.Units < 2:
		return networkInvalid("the last layer has 1 unit, whose Softmax is always 1: set network.layers[%d].units to the number of classes, or, for two classes, use loss BinaryCrossentropy and activation Sigmoid", last)
	case loss == spec.BinaryCrossentropy && l.Activation != spec.Sigmoid:
		return networkInvalid("loss BinaryCrossentropy needs a probability, but the last layer has activation %s: set network.layers[%d].activation to Sigmoid", l.Activation, last)
	case loss == spec.BinaryCrossentropy && l.Units != 1:
		return networkInvalid("loss BinaryCrossentropy needs one probability, but the last layer has %d units: set network.layers[%d].units to 1, or use loss CategoricalCrossentropy and activation Softmax", l.Units, last)
	case !loss.ForClasses() && l.Activation == spec.Softmax:
		return networkInvalid("loss %s compares numbers, but Softmax in the last layer makes probabilities: set network.layers[%d].activation to Linear, or, for classes, use loss CategoricalCrossentropy", loss, last)
	case !loss.ForClasses() && l.Units != 1:
		return networkInvalid("loss %s predicts one number, but the last layer has %d units: set network.layers[%d].units to 1, or, for classes, use loss CategoricalCrossentropy and activation Softmax", loss, l.Units, last)
	}
	return nil
}

func networkInvalid(format string, args ...any) *Error {
	return invalidf(spec.ReasonNetworkInvalid, format, args...)
}
