package train

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// stream returns a source of random numbers of its own for each purpose (and
// part of it, such as an epoch), so that drawing more for one changes nothing
// for the others.
func stream(seed int64, purpose string, part int32) *rand.PCG {
	hash := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", purpose, part, seed))
	return rand.NewPCG(binary.BigEndian.Uint64(hash[:8]), binary.BigEndian.Uint64(hash[8:16]))
}

// networkOf builds the network with its first weights.
func networkOf(n spec.Network, inputs int, seed int64) (*nn.Network, error) {
	network, width := &nn.Network{Inputs: inputs}, inputs
	for _, l := range n.Layers {
		activation, err := nn.ParseActivation(string(l.Activation))
		if err != nil {
			return nil, err
		}
		network.Layers = append(network.Layers, nn.NewDense(width, int(l.Units), activation))
		width = int(l.Units)
	}
	network.Initialize(nn.GlorotUniform, rand.New(stream(seed, "weights", 0)))
	return network, nil
}

func lossOf(l spec.Loss) (nn.Loss, error) {
	switch l {
	case spec.MeanSquaredError:
		return nn.MeanSquaredError{}, nil
	case spec.MeanAbsoluteError:
		return nn.MeanAbsoluteError{}, nil
	case spec.Huber:
		return nn.Huber{}, nil
	case spec.BinaryCrossentropy:
		return nn.BinaryCrossentropy{}, nil
	case spec.CategoricalCrossentropy:
		return nn.CategoricalCrossentropy{}, nil
	}
	return nil, networkInvalid("training.loss is %q, which is not known; for classes use %s or %s, for numbers %s, %s or %s", l,
		spec.CategoricalCrossentropy, spec.BinaryCrossentropy, spec.MeanSquaredError, spec.MeanAbsoluteError, spec.Huber)
}

func ruleOf(name spec.OptimizerName) (nn.Rule, error) {
	switch name {
	case spec.SGD:
		return nn.SGD{}, nil
	case spec.RMSprop:
		return nn.NewRMSprop(), nil
	case spec.Adam:
		return nn.NewAdam(), nil
	}
	return nil, networkInvalid("training.optimizer.name is %q, which is not known; use %s, %s or %s", name, spec.Adam, spec.SGD, spec.RMSprop)
}

// metricForClasses has the known metrics, and whether they are for classes or
// for numbers.
var metricForClasses = map[spec.Metric]bool{
	spec.Accuracy: true,
	spec.MAE:      false,
	spec.RMSE:     false,
	spec.R2:       false,
}

func metricOf(name spec.Metric) nn.Metric {
	switch name {
	case spec.MAE:
		return new(nn.MAE)
	case spec.RMSE:
		return new(nn.RMSE)
	case spec.R2:
		return new(nn.R2)
	}
	return new(nn.Accuracy)
}

// withScaling returns the network that takes values in the dataset's own units.
func withScaling(n *nn.Network, s *dataset.Scaling) *nn.Network {
	if s == nil {
		return n
	}
	first := &nn.Normalization{Mean: s.Mean, Scale: s.Scale}
	return &nn.Network{Inputs: n.Inputs, Layers: append([]nn.Layer{first}, n.Layers...)}
}

// golden records the network's answers to the first few validation rows, or
// training rows if there are none, in the dataset's own units.
func golden(network *nn.Network, set *dataset.Set) *model.Golden {
	const most = 8
	from := set.Validation.X
	if from.Rows == 0 {
		from = set.Train.X
	}
	rows := min(most, from.Rows)
	x := blas32.General{Rows: rows, Cols: from.Cols, Stride: from.Cols, Data: make([]float32, rows*from.Cols)}
	for i := range rows {
		to := x.Data[i*x.Stride : (i+1)*x.Stride]
		copy(to, from.Data[i*from.Stride:])
		unscale(set.Scaling, to)
	}
	return &model.Golden{
		Inputs:  slices.Collect(rowsOf(x)),
		Outputs: slices.Collect(rowsOf(network.Predict(x, network.NewWorkspace(rows)))),
	}
}

// unscale is the inverse of the scaling, up to rounding.
func unscale(s *dataset.Scaling, row []float32) {
	if s == nil {
		return
	}
	for j := range row {
		row[j] = row[j]/s.Scale[j] + s.Mean[j]
	}
}

func rowsOf(m blas32.General) func(yield func([]float32) bool) {
	return func(yield func([]float32) bool) {
		for i := range m.Rows {
			if !yield(slices.Clone(m.Data[i*m.Stride : i*m.Stride+m.Cols])) {
				return
			}
		}
	}
}
