package nn

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"
)

// trained is one layer's side of training: its activations and gradients.
type trained interface {
	// forward returns the layer's answer to x. Both stay as they are until
	// backward was called.
	forward(x blas32.General) blas32.General
	// backward takes the gradient of the loss by forward's answer, which it may
	// change, and sets the gradients of the parameters. If further is true, it
	// returns the gradient by x.
	backward(dy blas32.General, further bool) blas32.General
	// parameters returns what is trained, named within the layer.
	parameters() []Parameter
}

// Parameter is a tensor that is trained.
type Parameter struct {
	// Name is unique in its network: "layers.0.weight".
	Name string
	// Value is the tensor itself, row-major. Gradient is the gradient of the
	// loss by it.
	Value, Gradient []float32
	// Kernel is set for the weights of Dense layers: what is penalized.
	Kernel bool

	layer int
}

// Trainer computes the gradients of a network's loss. It holds the activations
// and gradients for batches up to one size. One goroutine at a time may use it,
// and meanwhile nobody else may change the network.
type Trainer struct {
	network    *Network // what is trained, without the activation that loss computes itself
	loss       Loss
	activation Activation // that activation
	penalties  []Penalty  // of each layer
	parameters []Parameter
	// lanes share a batch: one has all of it, or each has a part.
	lanes     []*lane
	split     split
	toAdd     [][]float32 // all gradients and the loss, if there are peers
	workspace *Workspace
	gradient  []float32 // that Evaluate has no use for
	batch     batch     // that the lanes are at: this trainer's share
}

// evaluatedRows is how many rows Evaluate looks at together, at least: with
// more rows than a small batch has, a weight is read less often.
const evaluatedRows = 256

// NewTrainer returns a trainer of n for batches of up to rows rows. Dropout
// draws from random.
//
// CategoricalCrossentropy wants a Dense layer with Softmax at the end, and
// BinaryCrossentropy one with Sigmoid: they are computed in one go from the
// layer's sums, which is exact where the probabilities are too close to 0 or 1
// for float32.
func NewTrainer(n *Network, loss Loss, rows int, random *rand.Rand) (*Trainer, error) {
	if err := n.Validate(); err != nil {
		return nil, err
	}
	if rows < 1 {
		return nil, fmt.Errorf("a batch of %d rows; it needs at least 1", rows)
	}
	head, activation, err := withoutActivation(n, loss)
	if err != nil {
		return nil, err
	}
	for i, l := range head.Layers {
		if d, ok := l.(*Dense); ok && d.Weight.Stride != d.Weight.Cols {
			return nil, fmt.Errorf("layers[%d] (Dense): the weight has gaps between its rows (stride %d, %d columns); only a weight without can be trained", i, d.Weight.Stride, d.Weight.Cols)
		}
	}
	evaluated := max(evaluatedRows, min(rows, blockRows))
	t := &Trainer{
		network:    head,
		loss:       loss,
		activation: activation,
		penalties:  make([]Penalty, len(n.Layers)),
		gradient:   make([]float32, evaluated*n.Outputs()),
		workspace:  head.NewWorkspace(evaluated),
	}
	t.lanes = newLanes(head, rows, random, &t.split)
	t.parameters = t.lanes[0].parameters
	if len(t.lanes) > 1 {
		t.parameters = slices.Clone(t.parameters)
		for i, p := range t.parameters {
			t.parameters[i].Gradient = make([]float32, len(p.Value))
		}
	}
	return t, nil
}

// withoutActivation returns n with a linear last layer, and that layer's
// activation, if loss includes it. The weights are shared.
func withoutActivation(n *Network, loss Loss) (*Network, Activation, error) {
	kind := loss.activation()
	if kind == Linear {
		return n, Activation{}, nil
	}
	last, ok := n.Layers[len(n.Layers)-1].(*Dense)
	if !ok || last.Activation.Kind != kind {
		return nil, Activation{}, fmt.Errorf("%T needs a Dense layer with activation %v at the end", loss, kind)
	}
	linear := *last
	linear.Activation = Activation{}
	layers := slices.Clone(n.Layers)
	layers[len(layers)-1] = &linear
	return &Network{Inputs: n.Inputs, Layers: layers}, last.Activation, nil
}

// Penalize adds a penalty on the weights of a Dense layer to the loss.
func (t *Trainer) Penalize(layer int, p Penalty) { t.penalties[layer] = p }

// Parameters returns what is trained, in the order of the layers. The slices
// are the trainer's own.
func (t *Trainer) Parameters() []Parameter { return t.parameters }

// Gradients computes the loss of a batch and sets the gradients of all
// parameters. It runs the layers as in training: Dropout drops, and
// BatchNormalization normalizes over the batch and moves its averages.
//
// x has 1 to rows rows, and a column for each input. y has for each row the index of its class, or for
// losses of numbers one number for each output. weights has a factor for each
// row's loss; nil means 1 for all. The loss is the mean over the rows
// (the sum of the weighted losses over the number of rows, as in Keras) plus
// the penalties. After the first call for a batch size, nothing is allocated.
func (t *Trainer) Gradients(x blas32.General, y, weights []float32) float64 {
	rows := x.Rows
	t.split.take(rows)
	t.batch = batch{x, y, weights}.rows(t.split.from, t.split.to, t.loss.targets(t.network.Outputs()))
	if len(t.lanes) == 1 {
		t.lanes[0].gradients(t.loss, t.batch, rows)
	} else {
		t.addUpLanes()
	}
	t.batch = batch{}
	var loss float64
	for _, l := range t.lanes {
		loss += l.sum
	}
	loss = t.add(loss / float64(rows))
	for _, p := range t.parameters {
		if p.Kernel {
			loss += t.penalty(p.layer, rows).apply(p.Value, p.Gradient)
		}
	}
	return loss
}

// add adds up all gradients, and the loss, over the trainers of the batch.
func (t *Trainer) add(loss float64) float64 {
	if t.split.peers == nil {
		return loss
	}
	if t.toAdd == nil {
		for _, p := range t.parameters {
			t.toAdd = append(t.toAdd, p.Gradient)
		}
		t.toAdd = append(t.toAdd, make([]float32, 1))
	}
	sum := t.toAdd[len(t.toAdd)-1]
	sum[0] = float32(loss)
	t.split.peers.Add(t.toAdd...)
	return float64(sum[0])
}

func (t *Trainer) penalty(layer, rows int) Penalty {
	p, whole := t.penalties[layer], t.loss.penalty(rows)
	return Penalty{L1: p.L1 + whole.L1, L2: p.L2 + whole.L2}
}

// Evaluate computes the loss of any number of rows, with its penalties, as the
// network stands: nothing is dropped or moved. Every metric gets all the
// predictions. Evaluate allocates nothing itself. When ctx is done it stops and
// returns ctx's error.
func (t *Trainer) Evaluate(ctx context.Context, x blas32.General, y, weights []float32, metrics ...Metric) (float64, error) {
	var loss float64
	targets := t.loss.targets(t.network.Outputs())
	for from := 0; from < x.Rows; from += t.workspace.rows {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		to := min(from+t.workspace.rows, x.Rows)
		z := t.network.Predict(part(x, from, 0, to-from, x.Cols), t.workspace)
		var w []float32
		if weights != nil {
			w = weights[from:to]
		}
		wanted := y[from*targets : to*targets]
		loss += sumLoss(t.loss, z, wanted, w, matrix(z.Rows, z.Cols, t.gradient), 1)
		t.activation.apply(z)
		for _, m := range metrics {
			m.Add(z, wanted)
		}
	}
	loss /= float64(max(1, x.Rows))
	for _, p := range t.parameters {
		if p.Kernel {
			loss += t.penalty(p.layer, x.Rows).value(p.Value)
		}
	}
	return loss, nil
}

// NonFinite looks for the first layer that holds an infinite number or NaN in
// its weights or had one in its outputs in the last call to Gradients, and says
// where: "the weight of layers[1] (Dense)". It returns "" if there is none.
func (t *Trainer) NonFinite() string {
	for i, l := range t.network.Layers {
		for _, p := range t.lanes[0].layers[i].parameters() {
			if !allFinite(p.Value) {
				return fmt.Sprintf("the %s of layers[%d] (%s)", p.Name, i, kind(l))
			}
		}
		for _, lane := range t.lanes {
			if y := lane.outputs[i]; !allFinite(y.Data[:y.Rows*y.Cols]) {
				return fmt.Sprintf("the output of layers[%d] (%s)", i, kind(l))
			}
		}
	}
	return ""
}
