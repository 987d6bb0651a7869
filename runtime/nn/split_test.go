package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
)

// meeting adds up what trainers in goroutines of one process bring.
type meeting struct {
	size  int
	mutex sync.Mutex
	round *round
}

// round is one sum.
type round struct {
	sum     [][]float64
	brought int
	whole   chan struct{}
}

func (m *meeting) Add(parts ...[]float32)        { meet(m, parts) }
func (m *meeting) AddDoubles(parts ...[]float64) { meet(m, parts) }

func meet[T float32 | float64](m *meeting, parts [][]T) {
	m.mutex.Lock()
	if m.round == nil {
		m.round = &round{sum: make([][]float64, len(parts)), whole: make(chan struct{})}
	}
	r := m.round
	for i, part := range parts {
		if r.sum[i] == nil {
			r.sum[i] = make([]float64, len(part))
		}
		for j, v := range part {
			r.sum[i][j] += float64(v)
		}
	}
	if r.brought++; r.brought == m.size {
		m.round = nil
		close(r.whole)
	}
	m.mutex.Unlock()
	<-r.whole
	for i, part := range parts {
		for j := range part {
			part[j] = T(r.sum[i][j])
		}
	}
}

// splitNetwork has every kind of layer.
func splitNetwork(outputs int, last ActivationKind) *Network {
	r := random(3)
	n := &Network{Inputs: 6, Layers: []Layer{
		NewDense(6, 8, Activation{Kind: ReLU}),
		&Dropout{Rate: 0.3},
		NewBatchNormalization(8),
		NewDense(8, 5, Activation{Kind: GELU}),
		&Dropout{Rate: 0.2},
		NewDense(5, outputs, Activation{Kind: last}),
	}}
	randomize(n, r)
	return n
}

// Several trainers get the gradients, the loss and the moving averages of one,
// also when some of them have no row of a batch.
func TestSplit(t *testing.T) {
	for _, c := range []struct {
		loss    Loss
		outputs int
		last    ActivationKind
	}{
		{CategoricalCrossentropy{}, 3, Softmax},
		{BinaryCrossentropy{}, 1, Sigmoid},
		{MeanSquaredError{}, 2, Linear},
		{LeastSquares{Lambda: 2}, 1, Linear},
	} {
		for _, workers := range []int{2, 3, 5} {
			t.Run(fmt.Sprintf("%T, %d workers", c.loss, workers), func(t *testing.T) {
				const rows = 13
				whole := newSplitRun(t, splitNetwork(c.outputs, c.last), c.loss, rows)
				var shares []*splitRun
				peers := &meeting{size: workers}
				for worker := range workers {
					s := newSplitRun(t, splitNetwork(c.outputs, c.last), c.loss, rows)
					s.Split(worker, workers, peers)
					shares = append(shares, s)
				}
				for _, batch := range []int{rows, rows - 2, 1} {
					whole.gradients(batch)
					var all sync.WaitGroup
					for _, s := range shares {
						all.Go(func() { s.gradients(batch) })
					}
					all.Wait()
					for worker, s := range shares {
						s.compare(t, fmt.Sprintf("worker %d, %d rows", worker, batch), whole)
					}
				}
			})
		}
	}
}

// splitRun is a trainer with batches of its own drawing, which are the same for
// all.
type splitRun struct {
	*Trainer
	data *rand.Rand
	last float64
}

func newSplitRun(t *testing.T, n *Network, loss Loss, rows int) *splitRun {
	trainer, err := NewTrainer(n, loss, rows, random(4))
	if err != nil {
		t.Fatal(err)
	}
	trainer.Penalize(0, Penalty{L1: 0.01, L2: 0.02})
	return &splitRun{Trainer: trainer, data: random(5)}
}

func (s *splitRun) gradients(rows int) {
	x := randomMatrix(rows, s.network.Inputs, s.data)
	y := randomTargets(s.loss, rows, s.network.Outputs(), s.data)
	weights := make([]float32, rows)
	for i := range weights {
		weights[i] = s.data.Float32()
	}
	s.last = s.Gradients(x, y, weights)
}

func (s *splitRun) compare(t *testing.T, name string, whole *splitRun) {
	t.Helper()
	near := func(what string, got, want []float32) {
		for i, v := range got {
			if math.Abs(float64(v-want[i])) > 1e-5 {
				t.Errorf("%s: %s[%d] is %v, one trainer has %v", name, what, i, v, want[i])
				return
			}
		}
	}
	if math.Abs(s.last-whole.last) > 1e-5 {
		t.Errorf("%s: the loss is %v, one trainer has %v", name, s.last, whole.last)
	}
	for i, p := range s.Parameters() {
		near("gradient of "+p.Name, p.Gradient, whole.Parameters()[i].Gradient)
	}
	for i, tensor := range s.network.Tensors() {
		near(tensor.Name, tensor.Value, whole.network.Tensors()[i].Value)
	}
}
