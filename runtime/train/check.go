package train

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// withDefaults fills in what the recipe may leave out, as the API server does
// for TrainingJobs.
func withDefaults(job spec.Train) spec.Train {
	job.Network.Layers = slices.Clone(job.Network.Layers)
	for i := range job.Network.Layers {
		l := &job.Network.Layers[i]
		l.Type = or(l.Type, spec.Dense)
		l.Activation = or(l.Activation, spec.Linear)
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
	case !(t.Optimizer.LearningRate > 0) || math.IsInf(t.Optimizer.LearningRate, 0):
		return networkInvalid("training.optimizer.learningRate is %v; it must be above 0, for example 0.001", t.Optimizer.LearningRate)
	}
	if _, err := ruleOf(t.Optimizer.Name); err != nil {
		return err
	}
	if _, err := lossOf(t.Loss); err != nil {
		return err
	}
	for i, l := range job.Network.Layers {
		if err := checkLayer(i, l); err != nil {
			return err
		}
	}
	if err := checkLastLayer(job); err != nil {
		return err
	}
	return checkMetrics(t)
}

func checkLayer(i int, l spec.Layer) error {
	if l.Type != spec.Dense {
		return networkInvalid("network.layers[%d].type is %q, which is not known; use %s", i, l.Type, spec.Dense)
	}
	if l.Units < 1 {
		return networkInvalid("network.layers[%d].units is %d; a Dense layer needs at least 1", i, l.Units)
	}
	if _, err := nn.ParseActivation(string(l.Activation)); err != nil {
		return networkInvalid("network.layers[%d].activation: %w", i, err)
	}
	return nil
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

func checkMetrics(t spec.Training) error {
	for i, m := range t.Metrics {
		forClasses, known := metricForClasses[m]
		switch {
		case !known:
			return networkInvalid("training.metrics[%d] is %q, which is not known; use %s, %s, %s or %s", i, m, spec.Accuracy, spec.MAE, spec.RMSE, spec.R2)
		case forClasses && !t.Loss.ForClasses():
			return networkInvalid("metric %s is for classes, but loss %s is for numbers; use %s, %s or %s", m, t.Loss, spec.MAE, spec.RMSE, spec.R2)
		case !forClasses && t.Loss.ForClasses():
			return networkInvalid("metric %s is for numbers, but loss %s is for classes; use %s", m, t.Loss, spec.Accuracy)
		}
	}
	return nil
}

// checkData finds what does not fit between recipe and data.
func checkData(job spec.Train, set *dataset.Set) error {
	if n := len(set.Columns); job.Network.Inputs != 0 && int(job.Network.Inputs) != n {
		return networkInvalid("network.inputs is %d, but the dataset has %d feature columns (%s): set it to %d or leave it out", job.Network.Inputs, n, list(set.Columns), n)
	}
	if set.Train.X.Rows == 0 {
		return invalidf(spec.ReasonDatasetInvalid, "%s: no rows are left to train on", job.SourceName)
	}
	if !job.Training.Loss.ForClasses() {
		return nil
	}
	last := len(job.Network.Layers) - 1
	units, classes := int(job.Network.Layers[last].Units), len(set.Classes)
	switch {
	case job.Training.Loss == spec.BinaryCrossentropy && classes != 2:
		return networkInvalid("loss BinaryCrossentropy is for 2 classes, but column %q has %d (%s): use loss CategoricalCrossentropy, and set network.layers[%d] to {units: %d, activation: Softmax}", set.Label, classes, list(set.Classes), last, classes)
	case job.Training.Loss == spec.CategoricalCrossentropy && classes != units:
		return networkInvalid("the last layer has %d units but column %q has %d classes (%s): set network.layers[%d].units to %d", units, set.Label, classes, list(set.Classes), last, classes)
	}
	return nil
}

// checkMemory refuses, before anything is allocated, a network that limit bytes
// cannot hold beside the dataset.
func checkMemory(job spec.Train, set *dataset.Set, limit int64) error {
	const perNumber = 4 // bytes
	table := perNumber * (float64(len(set.Train.X.Data)) + float64(len(set.Validation.X.Data)))
	need := perNumber * numbersToTrain(job.Network, len(set.Columns), batchRows(job.Training, set))
	if limit > 0 && table+need > float64(limit) {
		return networkInvalid("training this network takes %s beside the dataset's %s, but the trainer may use %s: make layers or batchSize smaller, or give the job more memory", bytesText(need), bytesText(table), bytesText(float64(limit)))
	}
	return nil
}

// numbersToTrain estimates how many numbers training holds: for each weight its
// gradient and two moments, for each layer the activations and gradients of a
// batch, and the buffers of an evaluation.
func numbersToTrain(n spec.Network, inputs, rows int) float64 {
	var weights, activations float64
	width, widest := float64(inputs), 0.0
	for _, l := range n.Layers {
		units := float64(l.Units)
		weights += (width + 1) * units
		activations += width + 2*units
		width, widest = units, max(widest, units)
	}
	return 4*weights + float64(rows)*activations + 3*float64(max(rows, 256))*widest
}

func bytesText(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 {
			return fmt.Sprintf("%.3g %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.3g TiB", n)
}

// list shows a few names: all up to four, otherwise the first two and the last.
func list(names []string) string {
	shown := names
	if len(names) > 4 {
		shown = []string{names[0], names[1], "...", names[len(names)-1]}
	}
	short := make([]string, len(shown))
	for i, name := range shown {
		if r := []rune(name); len(r) > 40 {
			name = string(r[:40]) + "..."
		}
		short[i] = name
	}
	return strings.Join(short, ", ")
}

func networkInvalid(format string, args ...any) *Error {
	return invalidf(spec.ReasonNetworkInvalid, format, args...)
}
