package nn

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"
)

// Network is a stack of layers. Its weights are its layers' exported fields.
type Network struct {
	// Inputs is the number of columns of what goes in.
	Inputs int
	// Layers are applied in this order.
	Layers []Layer
}

// Layer is a *[Dense], *[BatchNormalization], *[Dropout] or *[Normalization].
type Layer interface {
	// Outputs returns the number of columns that come out when inputs columns
	// go in.
	Outputs(inputs int) int

	// validate checks the layer's shapes and values.
	validate(inputs int) error
	// predict writes the layer's answer to x into y, which does not overlap x.
	predict(x, y blas32.General)
	// trained returns the layer's side of training, for batches of up to rows.
	// What is random is drawn from random. forward and backward are given the rows
	// of a batch that batch says.
	trained(rows, inputs int, random *rand.Rand, batch *split) trained
}

// Outputs returns the number of columns that come out.
func (n *Network) Outputs() int {
	width := n.Inputs
	for _, l := range n.Layers {
		width = l.Outputs(width)
	}
	return width
}

// Validate returns an error that names the layer when the shapes of the layers
// do not fit together, or when a layer holds values that it cannot compute
// with. A network that passes can be given to every function of this package.
func (n *Network) Validate() error {
	if n.Inputs < 1 {
		return fmt.Errorf("the network has %d inputs; it needs at least 1", n.Inputs)
	}
	if len(n.Layers) == 0 {
		return errors.New("the network has no layers")
	}
	width := n.Inputs
	for i, l := range n.Layers {
		if l == nil {
			return fmt.Errorf("layers[%d] is nil", i)
		}
		if err := l.validate(width); err != nil {
			return fmt.Errorf("layers[%d] (%s): %w", i, kind(l), err)
		}
		width = l.Outputs(width)
	}
	return nil
}

// kind is the word that users know a layer by.
func kind(l Layer) string {
	switch l.(type) {
	case *Dense:
		return "Dense"
	case *BatchNormalization:
		return "BatchNormalization"
	case *Dropout:
		return "Dropout"
	case *Normalization:
		return "Normalization"
	}
	return fmt.Sprintf("%T", l)
}

// Workspace holds the intermediate results of Predict. One goroutine at a time
// may use it.
type Workspace struct {
	rows    int
	buffers [2][]float32
}

// NewWorkspace returns inference buffers for up to rows rows.
func (n *Network) NewWorkspace(rows int) *Workspace {
	widest, width := 0, n.Inputs
	for _, l := range n.Layers {
		width = l.Outputs(width)
		widest = max(widest, width)
	}
	return &Workspace{
		rows:    rows,
		buffers: [2][]float32{make([]float32, rows*widest), make([]float32, rows*widest)},
	}
}

// Rows returns the most rows that Predict takes at once with w.
func (w *Workspace) Rows() int { return w.rows }

// Predict computes the outputs for x (rows x Inputs). The result lies in w and
// is valid until w is used again; x is not changed. The network is only read:
// any number of goroutines may predict at once, each with its own Workspace.
// Predict allocates nothing.
//
// Predict panics if x has another number of columns than the network has
// inputs, or more rows than w has room for. The network must be valid.
func (n *Network) Predict(x blas32.General, w *Workspace) blas32.General {
	if x.Cols != n.Inputs {
		panic(fmt.Sprintf("nn: %d columns for a network with %d inputs", x.Cols, n.Inputs))
	}
	if x.Rows > w.rows {
		panic(fmt.Sprintf("nn: %d rows for a workspace of %d", x.Rows, w.rows))
	}
	next := 0
	for _, l := range n.Layers {
		if _, ok := l.(*Dropout); ok {
			continue
		}
		y := matrix(x.Rows, l.Outputs(x.Cols), w.buffers[next])
		l.predict(x, y)
		x, next = y, 1-next
	}
	return x
}

// matrix returns the first rows*cols elements of data as a matrix.
func matrix(rows, cols int, data []float32) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data[:rows*cols]}
}

// row returns row i of m.
func row(m blas32.General, i int) []float32 {
	return m.Data[i*m.Stride : i*m.Stride+m.Cols]
}

func newMatrix(rows, cols int) blas32.General {
	return matrix(rows, cols, make([]float32, rows*cols))
}

// firstRows returns the first rows rows of m, which has no gaps.
func firstRows(m blas32.General, rows int) blas32.General {
	return matrix(rows, m.Cols, m.Data)
}
