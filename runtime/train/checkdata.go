package train

import (
	"fmt"
	"slices"
	"strings"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/group"
	"trainyard.dev/trainyard/runtime/spec"
)

// checkData finds what does not fit between recipe and data.
func checkData(job spec.Train, set *dataset.Set) error {
	if n := len(set.Columns); job.Network.Inputs != 0 && int(job.Network.Inputs) != n {
		return networkInvalid("network.inputs is %d, but the dataset has %d feature columns (%s): set it to %d or leave it out", job.Network.Inputs, n, list(set.Columns), n)
	}
	if set.Train.X.Rows == 0 {
		return invalidf(spec.ReasonDatasetInvalid, "%s: no rows are left to train on", job.SourceName)
	}
	if _, err := scheduleOf(job.Training, stepsPerEpoch(job.Training, set)); err != nil {
		return err
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
	return checkClassWeights(job.Training, set)
}

// checkMemory refuses, before anything is allocated, a network that limit bytes
// cannot hold beside the dataset.
func checkMemory(job spec.Train, set *dataset.Set, limit int64) error {
	const perNumber = 4 // bytes
	table := float64(set.MemoryBytes())
	need := perNumber * (numbersToTrain(job, len(set.Columns), batchRows(job.Training, set)) + numbersToMeasure(job, set))
	if limit > 0 && table+need > float64(limit) {
		return networkInvalid("training this network takes %s beside the dataset's %s, but the trainer may use %s: make layers or batchSize smaller, or give the job more memory", bytesText(need), bytesText(table), bytesText(float64(limit)))
	}
	return nil
}

// memoryNeeded estimates how many bytes a run takes: its rows twice, if they are
// in memory, as slices that grow do, the network, and the program itself.
func memoryNeeded(job spec.Train, set *dataset.Set) float64 {
	const perNumber, program = 4, 64 << 20
	network := numbersToTrain(job, len(set.Columns), batchRows(job.Training, set)) + numbersToMeasure(job, set)
	needed := 2*float64(set.MemoryBytes()) + perNumber*network + program
	if job.Workers != nil {
		needed += group.Memory
	}
	return needed
}

// numbersToTrain estimates how many numbers training holds: for each weight its
// gradient and two moments, and its best value, for each layer the activations
// and gradients of a batch, and the buffers of an evaluation.
func numbersToTrain(job spec.Train, inputs, rows int) float64 {
	var weights, activations float64
	width, widest := float64(inputs), 0.0
	for _, l := range job.Network.Layers {
		units := float64(l.Units)
		switch l.Type {
		case spec.Dense:
			weights += (width + 1) * units
		default:
			units = width
			weights += 2 * width
		}
		activations += width + 2*units
		width, widest = units, max(widest, units)
	}
	copies := 4.0
	if job.Training.EarlyStopping != nil {
		copies = 5
	}
	return copies*weights + float64(rows)*activations + 3*float64(max(rows, 256))*widest
}

// numbersToMeasure estimates how many numbers AUC holds, which keeps all
// predictions of a part and sorts them.
func numbersToMeasure(job spec.Train, set *dataset.Set) float64 {
	if !slices.Contains(job.Training.Metrics, spec.AUC) {
		return 0
	}
	rows := max(set.Train.X.Rows, set.Validation.X.Rows)
	outputs := job.Network.Layers[len(job.Network.Layers)-1].Units
	return float64(rows) * (2*float64(outputs) + 4)
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
