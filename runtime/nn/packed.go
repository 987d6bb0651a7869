package nn

import (
	"slices"
	"sync"

	"gonum.org/v1/gonum/blas/blas32"
)

// Frozen returns the network for when its weights do not change any more. They are
// shared; but once Predict is given several rows, it may keep a second copy of
// them, in the order in which the products read them.
func (n *Network) Frozen() *Network {
	frozen := &Network{Inputs: n.Inputs, Layers: slices.Clone(n.Layers)}
	for i, l := range n.Layers {
		if d, ok := l.(*Dense); ok && packedLanes > 0 && d.packs() {
			frozen.Layers[i] = &packedDense{Dense: d}
		}
	}
	return frozen
}

// packs tells whether the layer's products may be made with [packed] weights.
func (d *Dense) packs() bool {
	if d.Weight.Rows*d.Weight.Cols > mostPacked {
		return false
	}
	for i := range d.Weight.Rows {
		if !allFinite(row(d.Weight, i)) {
			return false
		}
	}
	return true
}

// packedDense is a layer with a second copy of its weights.
type packedDense struct {
	*Dense
	packed packed
}

func (d *packedDense) predict(x, y blas32.General) {
	if x.Rows == 1 {
		d.Dense.predict(x, y)
		return
	}
	d.packed.multiply(d.Dense, x, y)
	if d.Activation.Kind != ReLU { // which the product has done
		d.Activation.apply(y)
	}
}

// mostPacked weights of a layer are copied at most, 16 MiB: who loads a large
// model expects it in memory once.
const mostPacked = 1 << 22

// mostParts of a product keep as many cores busy.
const mostParts = 8

// panel is how many outputs the weights of packed are kept together for.
const panel = 16

// leastTile is the fewest rows of a tile of a kernel, and tileRows are rows that
// fill tiles of any.
const leastTile, tileRows = 6, 12

// packed are a layer's weights, panel by panel, and in each, input by input:
// what a product with several rows reads one after the other. OpenBLAS makes such
// a copy for every product. On one core with AVX2, 784-512-256-10 answers 1.3
// times as many rows a second with this if they come by 64, and 4 times as many if
// they come by 2 (BenchmarkPredict).
//
// Inputs that are 0 in all rows of a tile, which is 6 or 12 rows, are left out: such
// are the borders of images, and most columns that stand for one value of a category
// each. They would add 0, since all weights are finite.
type packed struct {
	made         sync.Once
	weight, bias []float32 // for whole panels
}

// make copies the weights of d. Those of outputs that only fill the last panel
// are 0.
func (p *packed) make(d *Dense) {
	panels := (d.Weight.Rows + panel - 1) / panel
	p.bias = make([]float32, panels*panel)
	copy(p.bias, d.Bias)
	p.weight = make([]float32, panels*panel*d.Weight.Cols)
	for j := range d.Weight.Rows {
		to := p.weight[j/panel*panel*d.Weight.Cols+j%panel:]
		for k, w := range row(d.Weight, j) {
			to[k*panel] = w
		}
	}
}

// multiply writes x*Weight^T + Bias of d into y, or 0 where that is less and d has
// ReLU. As in [multiply], what goes to which goroutine does not matter for the
// result.
func (p *packed) multiply(d *Dense, x, y blas32.General) {
	p.made.Do(func() { p.make(d) })
	panels := len(p.bias) / panel
	parts := min(panels, mostParts, max(1, 2*x.Rows*x.Cols*y.Cols/parallelFrom))
	t := packedProducts.take()
	columns := slices.Grow(t.columns[:0], (1+x.Rows/leastTile)*(1+x.Cols))
	columns = columns[:cap(columns)]
	findColumns(x, columns)
	relu := 0
	if d.Activation.Kind == ReLU {
		relu = 1
	}
	*t = packedProduct{p, x, y, columns, relu, (panels + parts - 1) / parts}
	parallel(t, (panels+t.panels-1)/t.panels)
	*t = packedProduct{}
	if len(columns) <= mostColumns {
		t.columns = columns
	}
	packedProducts.put(t)
}

// packedProduct is a product that is computed in parts of some panels.
type packedProduct struct {
	*packed
	x, y    blas32.General
	columns []int32 // as findColumns writes them
	relu    int
	panels  int
}

var packedProducts = make(spares[packedProduct], 16)

// mostColumns are kept of a product, which is 1 MiB.
const mostColumns = 1 << 18

func (t *packedProduct) do(i int) {
	from := i * t.panels * panel
	to := min(from+t.panels*panel, t.y.Cols)
	cols, rows := t.atOnce()
	for j := from; j < to; j += cols {
		for i := 0; i < t.y.Rows; i += rows {
			multiplyPacked(i, min(rows, t.y.Rows-i), t.columns, t.x, t.weight[j*t.x.Cols:], t.bias[j:], t.relu, part(t.y, 0, j, t.y.Rows, min(cols, to-j)))
		}
	}
}

// atOnce returns how many outputs and rows one call should compute: all rows, if
// possible, since each call reads the weights of its outputs.
func (t *packedProduct) atOnce() (cols, rows int) {
	// Some multiplications take less than the 20 µs after which Go's scheduler gives
	// a core to somebody else who would compute, while a call in C goes on: then all
	// would end late, and none would find its weights in the cache.
	few := packedLanes << 16
	panels := max(1, few/(panel*t.x.Cols*t.y.Rows))
	rows = max(1, few/(panel*t.x.Cols*tileRows)) * tileRows
	return panels * panel, rows
}
