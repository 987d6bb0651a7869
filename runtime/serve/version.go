package serve

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// chunk is how many rows are computed at once. It bounds a workspace's memory;
// more rows would not be faster.
const chunk = 256

// version is a model that is loaded. It is closed when nobody uses it.
type version struct {
	signature
	model   spec.ServedModel
	network *nn.Network
	// frozen is the network, as predictions are made with it.
	frozen *nn.Network
	// header is the value of versionHeader.
	header []string
	// workspaces[i] are for up to 1<<i rows.
	workspaces [9]sync.Pool
	// batcher is nil when requests are computed one by one.
	batcher    *batcher
	statistics statistics
	// executed is told the rows of each computation.
	executed func(rows int)
	// uses counts the requests that run on it, and the registry's own hold.
	uses  atomic.Int64
	close func()
}

// newVersion returns a version with one use, the caller's. Closing runs after
// the last.
func newVersion(m spec.ServedModel, s signature, n *nn.Network, closing func()) *version {
	v := &version{signature: s, model: m, network: n, frozen: n.Frozen(), header: []string{m.Version()}, close: closing, executed: func(int) {}}
	v.uses.Store(1)
	return v
}

// use must be called by someone who knows that another use lasts.
func (v *version) use() { v.uses.Add(1) }

// release ends a use.
func (v *version) release() {
	if v.uses.Add(-1) == 0 {
		v.close()
	}
}

// batched makes requests share computations, if the network gains by it.
func (v *version) batched(b Batching) {
	if b.suits(v.network) {
		v.share(b)
	}
}

func (v *version) share(b Batching) {
	b.Rows = min(b.Rows, chunk)
	v.batcher = &batcher{Batching: b, outputs: v.outputs, compute: func(x blas32.General) []float32 {
		return v.execute(make([]float32, 0, x.Rows*v.outputs), x)
	}}
}

// predict computes the outputs of all rows of x. They lie in b.y.
func (v *version) predict(ctx context.Context, x blas32.General, b *buffers) (blas32.General, error) {
	b.phases.decoded, b.phases.rows = time.Now(), x.Rows
	var err error
	if v.batcher != nil && x.Rows < v.batcher.Rows {
		err = v.batcher.predict(ctx, x, b)
		b.phases.computed = time.Now()
	} else {
		err = v.alone(ctx, x, b)
		b.phases.computed = time.Now()
		b.phases.inferred = b.phases.computed.Sub(b.phases.decoded)
	}
	if err == nil {
		err = finite(b.y, v.outputs)
	}
	return general(x.Rows, v.outputs, b.y), err
}

// alone computes the rows of one request.
func (v *version) alone(ctx context.Context, x blas32.General, b *buffers) error {
	b.y = b.y[:0]
	for from := 0; from < x.Rows; from += chunk {
		if ctx.Err() != nil {
			return clientGone(ctx)
		}
		rows := min(chunk, x.Rows-from)
		b.y = v.execute(b.y, general(rows, x.Cols, x.Data[from*x.Cols:(from+rows)*x.Cols]))
	}
	return nil
}

func clientGone(ctx context.Context) error {
	return &problem{status: statusClientGone, message: "the client is gone: " + ctx.Err().Error()}
}

// execute is appendOutputs that counts.
func (v *version) execute(dst []float32, x blas32.General) []float32 {
	v.statistics.executions.Add(1)
	v.executed(x.Rows)
	return v.appendOutputs(dst, x)
}

func (v *version) appendOutputs(dst []float32, x blas32.General) []float32 {
	size := bits.Len(uint(x.Rows - 1))
	w, ok := v.workspaces[size].Get().(*nn.Workspace)
	if !ok {
		w = v.frozen.NewWorkspace(1 << size)
	}
	defer v.workspaces[size].Put(w)
	y := v.frozen.Predict(x, w)
	for i := range y.Rows {
		dst = append(dst, y.Data[i*y.Stride:i*y.Stride+y.Cols]...)
	}
	return dst
}

// checkGolden lets the model answer the rows that were recorded when it was
// made. The error names the row and the output that differ.
func (v *version) checkGolden(inputs, outputs [][]float32) error {
	if len(inputs) != len(outputs) {
		return fmt.Errorf("the model has %d golden inputs and %d golden outputs", len(inputs), len(outputs))
	}
	for i, row := range inputs {
		if len(row) != v.features || len(outputs[i]) != v.outputs {
			return fmt.Errorf("golden row %d has %d inputs and %d outputs; the network takes %d and gives %d",
				i, len(row), len(outputs[i]), v.features, v.outputs)
		}
		got := v.appendOutputs(nil, general(1, len(row), row))
		for k, want := range outputs[i] {
			if !close32(got[k], want) {
				return fmt.Errorf("golden row %d: output %d is %v, but was %v when the model was made; its files do not fit together, so train or export it again",
					i, k, got[k], want)
			}
		}
	}
	return nil
}

// close32 compares with a tolerance of 1e-4, absolute or relative: other
// kernels on another machine add in another order.
func close32(got, want float32) bool {
	const tolerance = 1e-4
	g, w := float64(got), float64(want)
	return math.Abs(g-w) <= tolerance*math.Max(1, math.Abs(w))
}
