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
	left            []int // rows of the window that were not taken
	window, batch   []int
	random          *rand.Rand
}

// A window of 64 MiB is small beside any pod's memory; its 256 blocks give a
// good sample of the table even where like rows lie together; and a block of 256
// KiB is read from a disk about as fast as a file from front to back.
const (
	blockBytes   = 256 << 10
	windowBlocks = 256
	// maxBlockRows keeps the order of a window small for narrow tables.
	maxBlockRows = 4096
)

func newOrder(rows, columns int) *order {
	const numberBytes = 4
	return &order{rows: rows, blockRows: min(max(1, blockBytes/(numberBytes*columns)), maxBlockRows)}
}

// start begins an epoch's order.
func (o *order) start(seed int64, epoch int32) {
	o.random = rand.New(stream(seed, "order", epoch))
	o.left, o.blocks = nil, make([]int, (o.rows+o.blockRows-1)/o.blockRows)
	for i := range o.blocks {
		o.blocks[i] = i
	}
	if len(o.blocks) > windowBlocks {
		shuffle(o.random, o.blocks)
	}
}

// next returns the next n rows, or those that are left if they are fewer. They
// are valid until the next call.
func (o *order) next(n int) []int {
	if len(o.left) == 0 {
		o.nextWindow()
	}
	if n <= len(o.left) {
		rows := o.left[:n]
		o.left = o.left[n:]
		return rows
	}
	o.batch = append(o.batch[:0], o.left...)
	for len(o.batch) < n && o.nextWindow() {
		more := min(n-len(o.batch), len(o.left))
		o.batch = append(o.batch, o.left[:more]...)
		o.left = o.left[more:]
	}
	return o.batch
}

// skip leaves n rows out.
func (o *order) skip(n int) {
	for n > 0 {
		n -= len(o.next(n))
	}
}

// nextWindow draws the order of the rows of the next blocks, if there are any.
func (o *order) nextWindow() bool {
	blocks := o.blocks[:min(windowBlocks, len(o.blocks))]
	o.blocks = o.blocks[len(blocks):]
	o.window = o.window[:0]
	for _, b := range blocks {
		for row := b * o.blockRows; row < min((b+1)*o.blockRows, o.rows); row++ {
			o.window = append(o.window, row)
		}
	}
	shuffle(o.random, o.window)
	o.left = o.window
	return len(blocks) > 0
}

func shuffle(random *rand.Rand, v []int) {
	random.Shuffle(len(v), func(i, j int) { v[i], v[j] = v[j], v[i] })
}
