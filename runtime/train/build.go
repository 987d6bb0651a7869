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
	random := rand.New(stream(seed, "weights", 0))
	network, width := &nn.Network{Inputs: inputs}, inputs
	for i, l := range n.Layers {
		layer, err := layerOf(l, width, random)
		if err != nil {
			return nil, networkInvalid("network.layers[%d]%w", i, err)
		}
		network.Layers = append(network.Layers, layer)
		width = layer.Outputs(width)
	}
	return network, nil
}

// layerOf builds a layer for that many inputs. Its error follows on the
// layer's name.
func layerOf(l spec.Layer, inputs int, random *rand.Rand) (nn.Layer, error) {
	switch l.Type {
	case spec.Dense:
		return denseOf(l, inputs, random)
	case spec.Dropout:
		return &nn.Dropout{Rate: float32(l.Rate)}, nil
	case spec.BatchNormalization:
		layer := nn.NewBatchNormalization(inputs)
		layer.Momentum = float32(l.Momentum)
		layer.Epsilon = or(float32(l.Epsilon), layer.Epsilon)
		return layer, nil
	}
	return nil, unknownLayer(l)
}

func denseOf(l spec.Layer, inputs int, random *rand.Rand) (nn.Layer, error) {
	activation, err := nn.ParseActivation(string(l.Activation))
	if err != nil {
		return nil, fmt.Errorf(".activation: %w", err)
	}
	initializer, err := nn.ParseInitializer(string(l.Initializer))
	if err != nil {
		return nil, fmt.Errorf(".initializer: %w", err)
	}
	activation.Alpha = or(float32(l.Alpha), activation.Alpha)
	layer := nn.NewDense(inputs, int(l.Units), activation)
	if l.Bias != nil && !*l.Bias {
		layer.Bias = nil
	}
	initializer.Fill(layer.Weight, random)
	return layer, nil
}

// trainerOf returns what computes the gradients of network on batches of up to
// rows rows. m is the number of training rows.
func trainerOf(job spec.Train, network *nn.Network, rows, m int, dropout *rand.PCG) (*nn.Trainer, error) {
	loss, err := lossOf(job.Training, m)
	if err != nil {
		return nil, err
	}
	trainer, err := nn.NewTrainer(network, loss, rows, rand.New(dropout))
	if err != nil {
		return nil, err
	}
	all := job.Training.Regularization
	for i, l := range job.Network.Layers {
		own := l.Regularization
		trainer.Penalize(i, nn.Penalty{L1: float32(all.L1 + own.L1), L2: float32(all.L2 + own.L2)})
	}
	return trainer, nil
}

// lossOf returns the loss for m training rows.
func lossOf(t spec.Training, m int) (nn.Loss, error) {
	switch t.Loss {
	case spec.MeanSquaredError:
		return nn.MeanSquaredError{}, nil
	case spec.MeanAbsoluteError:
		return nn.MeanAbsoluteError{}, nil
	case spec.Huber:
		return nn.Huber{}, nil
	case spec.LeastSquares:
		return nn.LeastSquares{Lambda: float32(t.Regularization.Lambda), Rows: m}, nil
	case spec.BinaryCrossentropy:
		return nn.BinaryCrossentropy{}, nil
	case spec.CategoricalCrossentropy:
		return nn.CategoricalCrossentropy{}, nil
	}
	return nil, networkInvalid("training.loss is %q, which is not known; for classes use %s or %s, for numbers %s, %s, %s or %s", t.Loss,
		spec.CategoricalCrossentropy, spec.BinaryCrossentropy, spec.MeanSquaredError, spec.MeanAbsoluteError, spec.Huber, spec.LeastSquares)
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
