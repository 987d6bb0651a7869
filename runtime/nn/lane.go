package nn

import (
	"fmt"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"
)

// A batch of many rows is cut into laneCount parts, each of which a goroutine
// takes through all layers, forth and back, in blocks of blockRows rows. A block
// stays in the processor's cache meanwhile, so that each row is fetched from
// memory once, and activations and gradients by them are kept for some blocks
// instead of for all rows.
//
// The cut depends on the number of rows alone, and the lanes' gradients are added
// up in their order: who computes what does not change a bit.
const (
	laneCount = 16
	blockRows = 2048
)

// batch is the rows of a step, what is wanted for them, and the weights of
// their losses; nil: 1.
type batch struct {
	x          blas32.General
	y, weights []float32
}

// rows returns a part of b. The loss has that many targets a row.
func (b batch) rows(from, to, targets int) batch {
	p := batch{x: part(b.x, from, 0, to-from, b.x.Cols), y: b.y[from*targets : to*targets]}
	if b.weights != nil {
		p.weights = b.weights[from:to]
	}
	return p
}

// lane takes rows through the layers, forth and back.
type lane struct {
	layers     []trained
	outputs    []blas32.General // of each layer, for the last rows
	parameters []Parameter      // with the gradients for the last rows
	gradient   []float32        // by the last layer's outputs

	// Of all rows of a batch, if they come in blocks.
	sum   float64     // of the rows' losses
	total [][]float32 // the sums of the gradients of parameters
}

// newLanes returns the lanes for batches of up to rows rows: a single one if
// there are few rows, or if layers need to see all of them together.
func newLanes(n *Network, rows int, random *rand.Rand, batch *split) []*lane {
	if rows < laneCount*blockRows || !separable(n) {
		return []*lane{newLane(n, rows, random, batch)}
	}
	lanes := make([]*lane, laneCount)
	for i := range lanes {
		l := newLane(n, blockRows, random, batch)
		for _, p := range l.parameters {
			l.total = append(l.total, make([]float32, len(p.Value)))
		}
		lanes[i] = l
	}
	return lanes
}

// separable tells whether a row's way through n depends on that row alone.
// BatchNormalization looks at all rows, and Dropout draws for one after the
// other.
func separable(n *Network) bool {
	for _, l := range n.Layers {
		switch l.(type) {
		case *BatchNormalization, *Dropout:
			return false
		}
	}
	return true
}

func newLane(n *Network, rows int, random *rand.Rand, batch *split) *lane {
	l := &lane{outputs: make([]blas32.General, len(n.Layers)), gradient: make([]float32, rows*n.Outputs())}
	width := n.Inputs
	for i, layer := range n.Layers {
		t := layer.trained(rows, width, random, batch)
		for _, p := range t.parameters() {
			p.Name = fmt.Sprintf("layers.%d.%s", i, p.Name)
			p.layer = i
			l.parameters = append(l.parameters, p)
		}
		l.layers = append(l.layers, t)
		width = layer.Outputs(width)
	}
	return l
}

// gradients computes the sum of the rows' losses, and the gradients of its
// of-th part, of being the rows of the whole batch.
func (l *lane) gradients(loss Loss, b batch, of int) {
	x := b.x
	for i, layer := range l.layers {
		x = layer.forward(x)
		l.outputs[i] = x
	}
	dy := matrix(x.Rows, x.Cols, l.gradient)
	l.sum = sumLoss(loss, x, b.y, b.weights, dy, 1/float32(of))
	lowest := l.lowestTrained()
	for i := len(l.layers) - 1; i >= lowest; i-- {
		dy = l.layers[i].backward(dy, i > lowest)
	}
}

// lowestTrained returns the first layer with parameters: gradients below it
// would serve nobody.
func (l *lane) lowestTrained() int {
	if len(l.parameters) == 0 {
		return len(l.layers)
	}
	return l.parameters[0].layer
}

// inBlocks is gradients for any number of rows: the gradients are added up in
// total. It stops at a loss that is no number, for NonFinite to look at what led
// to it.
func (l *lane) inBlocks(loss Loss, b batch, of int) {
	for _, t := range l.total {
		clear(t)
	}
	var sum float64
	targets := loss.targets(len(l.gradient) / blockRows)
	for from := 0; from < b.x.Rows && sum-sum == 0; from += blockRows {
		l.gradients(loss, b.rows(from, min(from+blockRows, b.x.Rows), targets), of)
		sum += l.sum
		for i, p := range l.parameters {
			add(l.total[i], p.Gradient)
		}
	}
	l.sum = sum
}

// addUpLanes lets every lane take its part of the batch, and sets the gradients.
func (t *Trainer) addUpLanes() {
	parallel(t, len(t.lanes))
	for i, p := range t.parameters {
		clear(p.Gradient)
		for _, l := range t.lanes {
			add(p.Gradient, l.total[i])
		}
	}
}

// do lets a lane take its part of the batch.
func (t *Trainer) do(i int) {
	rows, targets := t.batch.x.Rows, t.loss.targets(t.network.Outputs())
	from, to := i*rows/len(t.lanes), (i+1)*rows/len(t.lanes)
	t.lanes[i].inBlocks(t.loss, t.batch.rows(from, to, targets), rows)
}

func add(to, v []float32) {
	to = to[:len(v)]
	for i, x := range v {
		to[i] += x
	}
}
