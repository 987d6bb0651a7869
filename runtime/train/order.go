package train

import "math/rand/v2"

// order is the order in which an epoch takes the rows of a table. It follows
// from the seed, the epoch and the shape of the table alone, so that a run can
// go on anywhere.
//
// Rows of a small table are shuffled. Of a larger one, first the blocks of rows
// that lie together are shuffled, and then the rows within each window of so
// many blocks. A table that memory has no room for is read that way: in long
// pieces, of one window at a time. All tables of a size are treated alike, so
// that the weights do not depend on how much memory there was.
type order struct {
	rows, blockRows int
	blocks          []int // in the epoch's order, as far as they were not taken
	random          *rand.Rand
}

// A window of 16 MiB is small beside any pod's memory; its 256 blocks give a good
// sample of the table even where like rows lie together.
const (
	blockBytes   = 64 << 10
	windowBlocks = 256
	// maxBlockRows keeps the order of a window small for narrow tables.
	maxBlockRows = 1024
)

func newOrder(rows, columns int) *order {
	const numberBytes = 4
	return &order{rows: rows, blockRows: min(max(1, blockBytes/(numberBytes*columns)), maxBlockRows)}
}

// start begins an epoch's order.
func (o *order) start(seed int64, epoch int32) {
	o.random = rand.New(stream(seed, "order", epoch))
	o.blocks = make([]int, (o.rows+o.blockRows-1)/o.blockRows)
	for i := range o.blocks {
		o.blocks[i] = i
	}
	if len(o.blocks) > windowBlocks {
		shuffle(o.random, o.blocks)
	}
}

// window is the rows of some blocks, and the order to take them in.
type window struct {
	rows []int // block after block
	// picks are positions in rows, in the order to take them: those that were not
	// taken yet.
	picks []int
	all   []int // the room of picks
	// x and y are copies of the rows, if they come from files.
	x, y []float32
}

// draw makes w the epoch's next window. It tells whether there is one.
func (o *order) draw(w *window) bool {
	blocks := o.blocks[:min(windowBlocks, len(o.blocks))]
	o.blocks = o.blocks[len(blocks):]
	w.rows, w.all = w.rows[:0], w.all[:0]
	for _, b := range blocks {
		for row := b * o.blockRows; row < min((b+1)*o.blockRows, o.rows); row++ {
			w.all = append(w.all, len(w.rows))
			w.rows = append(w.rows, row)
		}
	}
	shuffle(o.random, w.all)
	w.picks = w.all
	return len(blocks) > 0
}

func shuffle(random *rand.Rand, v []int) {
	random.Shuffle(len(v), func(i, j int) { v[i], v[j] = v[j], v[i] })
}
