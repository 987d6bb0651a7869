package train

import (
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/dataset"
)

// feed puts batches together: rows of the training set in the epoch's order. Of
// a table in files, it holds a window in memory, and reads the next one while
// that is trained on.
//
// Rows are copied into a batch between two steps, which is one to four
// hundredths of a step (see BenchmarkGather). A goroutine that does it ahead was
// tried: steps of 784-512-256-10 took as long as before, those of 64-64-32-10
// half as long again.
type feed struct {
	from    dataset.Part
	weights []float32 // of the rows' losses; nil: 1
	order   *order
	batch   batch // room for the rows of a step
	now     window
	// ahead is the window after now, of a table in files. loading is closed
	// when it was read; nil: nothing was asked for.
	ahead   window
	loading chan struct{}
	failure error // to read it
}

// batch is the rows of a step.
type batch struct {
	x       blas32.General
	y       []float32
	weights []float32
}

// newFeed returns a feed of batches of up to size rows.
func newFeed(from dataset.Part, weights []float32, size int) *feed {
	columns := from.X.Cols
	f := &feed{from: from, weights: weights, order: newOrder(from.X.Rows, columns), batch: batch{
		x: blas32.General{Cols: columns, Stride: columns, Data: make([]float32, size*columns)},
		y: make([]float32, size),
	}}
	if weights != nil {
		f.batch.weights = make([]float32, size)
	}
	return f
}

// start goes to the row of that number in an epoch's order. Windows before it
// are drawn, but not read.
func (f *feed) start(seed int64, epoch int32, row int) error {
	f.close()
	f.order.start(seed, epoch)
	first := &f.now
	if f.from.InFile() {
		first = &f.ahead
	}
	for f.order.draw(first) && row >= len(first.picks) {
		row -= len(first.picks)
	}
	if f.from.InFile() {
		f.load()
		if err := f.nextWindow(); err != nil {
			return err
		}
	}
	f.now.picks = f.now.picks[min(row, len(f.now.picks)):]
	return nil
}

// next returns the next n rows in the epoch's order, which has as many. They are
// valid until the next call.
func (f *feed) next(n int) (batch, error) {
	b := f.batch
	b.x.Rows, b.y = n, b.y[:n]
	if b.weights != nil {
		b.weights = b.weights[:n]
	}
	for filled := 0; filled < n; {
		if len(f.now.picks) == 0 {
			if err := f.nextWindow(); err != nil {
				return b, err
			}
		}
		some := min(n-filled, len(f.now.picks))
		f.copy(b, filled, f.now.picks[:some])
		f.now.picks = f.now.picks[some:]
		filled += some
	}
	return b, nil
}

// copy copies rows of the window into the batch, from a position on.
func (f *feed) copy(b batch, at int, picks []int) {
	x, y, columns := f.from.X.Data, f.from.Y, b.x.Cols
	for i, p := range picks {
		row := f.now.rows[p]
		if b.weights != nil {
			b.weights[at+i] = f.weights[row]
		}
		if f.from.InFile() {
			x, y, row = f.now.x, f.now.y, p
		}
		copy(b.x.Data[(at+i)*columns:(at+i+1)*columns], x[row*columns:])
		b.y[at+i] = y[row]
	}
}

// nextWindow goes to the next window. Of a table in files, that was read by now,
// or will be soon.
func (f *feed) nextWindow() error {
	if !f.from.InFile() {
		f.order.draw(&f.now)
		return nil
	}
	f.close()
	err := f.failure
	f.now, f.ahead = f.ahead, f.now
	if err == nil && f.order.draw(&f.ahead) {
		f.load()
	}
	return err
}

// load begins to read the window ahead.
func (f *feed) load() {
	f.loading = make(chan struct{})
	go func() {
		defer close(f.loading)
		f.failure = f.ahead.read(f.from)
	}()
}

// close waits for what is being read. The feed can start again.
func (f *feed) close() {
	if f.loading != nil {
		<-f.loading
		f.loading = nil
	}
}

// read copies the window's rows out of their files, a run of successive rows at
// a time.
func (w *window) read(from dataset.Part) error {
	columns := from.X.Cols
	w.x = slices.Grow(w.x[:0], len(w.rows)*columns)[:len(w.rows)*columns]
	w.y = slices.Grow(w.y[:0], len(w.rows))[:len(w.rows)]
	for start := 0; start < len(w.rows); {
		end := start + 1
		for end < len(w.rows) && w.rows[end] == w.rows[end-1]+1 {
			end++
		}
		if err := from.ReadRows(w.rows[start], w.x[start*columns:end*columns], w.y[start:end]); err != nil {
			return err
		}
		start = end
	}
	return nil
}
