package serve

import (
	"context"
	"sync"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
)

// Batching says how the rows of several requests are computed at once, whatever
// protocol they came over. A large network reads its weights from memory once
// for all of them, instead of once for each.
type Batching struct {
	// Rows is the most that are computed at once, up to 256; requests that have as
	// many on their own go on their own. Below 2, nothing is batched.
	Rows int
	// Delay is the longest that a request waits for others.
	Delay time.Duration
}

// fewestMultiplications is for one row of the smallest network that is batched.
// The weights of a smaller one stay in the cache, so that rows alone, on all
// cores, are computed sooner than rows together. BenchmarkBatching on two cores
// with OpenBLAS: 77 µs alone and 126 together at 2 million, 110 and 96 at 4
// million. Above, that benchmark gave gains and losses on a shared machine; what
// decided is bench/serve's 1024-4096-4096-10, which gains 3.8 times.
const fewestMultiplications = 1 << 22

// suits tells whether batching gains anything for a network.
func (b Batching) suits(n *nn.Network) bool {
	return b.Rows > 1 && multiplications(n) >= fewestMultiplications
}

// multiplications returns how many one row takes.
func multiplications(n *nn.Network) int {
	total := 0
	for _, l := range n.Layers {
		if d, ok := l.(*nn.Dense); ok {
			total += d.Weight.Rows * d.Weight.Cols
		}
	}
	return total
}

// weights returns how many numbers the network's dense layers hold.
func weights(n *nn.Network) int {
	total := multiplications(n)
	for _, l := range n.Layers {
		if d, ok := l.(*nn.Dense); ok {
			total += len(d.Bias)
		}
	}
	return total
}

// batcher gathers rows. While a batch is computed, the next one gathers; so
// under load batches form by themselves, and without load nobody waits. On top,
// a batch waits for as many rows as the last one had: clients that have just
// been answered come back together. Delay bounds that, and only the first
// request after a crowd has left ever waits that long in vain.
//
// There is no goroutine of its own: the request that begins a batch sees to it.
type batcher struct {
	Batching
	compute func(blas32.General) []float32
	outputs int
	// computing is held by who computes: one batch at a time.
	computing sync.Mutex

	mu sync.Mutex
	// gathering takes more rows; nil: the next request begins a batch.
	gathering *batch
	// last is how many rows the last batch had.
	last int
}

// batch is rows of several requests. Up to the start of its computation it is
// guarded by batcher.mu; what the computation leaves is read after done.
type batch struct {
	x    []float32
	rows int
	// wanted rows are worth waiting for, and enough is closed when they are there.
	wanted int
	enough chan struct{}

	done         chan struct{}
	y            []float32
	failed       error
	began, ended time.Time
}

// predict leaves the answers to the rows of x in b.y.
func (q *batcher) predict(ctx context.Context, x blas32.General, b *buffers) error {
	mine, from, leads := q.join(x)
	if leads {
		q.lead(mine)
	}
	select {
	case <-mine.done:
	case <-ctx.Done():
		return clientGone(ctx)
	}
	if mine.failed != nil {
		return mine.failed
	}
	b.y = append(b.y[:0], mine.y[from*q.outputs:(from+x.Rows)*q.outputs]...)
	b.phases.queued, b.phases.inferred = mine.began.Sub(b.phases.decoded), mine.ended.Sub(mine.began)
	return nil
}

// join adds rows to the batch that gathers, from its row from on. Who begins a
// batch leads it.
func (q *batcher) join(x blas32.General) (mine *batch, from int, leads bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if g := q.gathering; g != nil && g.rows+x.Rows > q.Rows {
		q.close(g)
	}
	if q.gathering == nil {
		q.gathering = &batch{wanted: min(q.last, q.Rows), enough: make(chan struct{}), done: make(chan struct{})}
		leads = true
	}
	mine, from = q.gathering, q.gathering.rows
	mine.x = append(mine.x, x.Data[:x.Rows*x.Cols]...)
	mine.rows += x.Rows
	if mine.rows >= q.Rows {
		q.close(mine)
	} else if from < mine.wanted && mine.rows >= mine.wanted {
		close(mine.enough)
	}
	return mine, from, leads
}

// close lets a batch take no more rows, and wait for none. It is called with
// mu held, once or more.
func (q *batcher) close(g *batch) {
	if q.gathering != g {
		return
	}
	q.gathering = nil
	q.last = g.rows
	select {
	case <-g.enough:
	default:
		close(g.enough)
	}
}

// lead waits until the batch may begin, and computes it. It does so even if the
// client of the request that leads is gone: others wait.
func (q *batcher) lead(g *batch) {
	q.await(g)
	q.computing.Lock()
	defer q.computing.Unlock()
	q.mu.Lock()
	q.close(g)
	q.mu.Unlock()
	g.failed = internal("the server failed; its log says how")
	defer close(g.done) // also when compute panics
	g.began = time.Now()
	g.y = q.compute(general(g.rows, len(g.x)/g.rows, g.x))
	g.ended = time.Now()
	g.failed = nil
}

// await waits for the rows that are wanted, but not for long.
func (q *batcher) await(g *batch) {
	q.mu.Lock()
	waits := g.rows < g.wanted
	q.mu.Unlock()
	if !waits {
		return
	}
	limit := time.NewTimer(q.Delay)
	defer limit.Stop()
	select {
	case <-g.enough:
	case <-limit.C:
	}
}
