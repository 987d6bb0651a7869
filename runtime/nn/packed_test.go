package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

// frozenPair returns a network, and the same frozen.
func frozenPair(seed uint64, widths ...int) (plain, frozen *Network) {
	n := &Network{Inputs: widths[0]}
	for i, width := range widths[1:] {
		d := NewDense(widths[i], width, Activation{Kind: []ActivationKind{ReLU, Tanh, Linear}[i%3]})
		if i%2 == 1 {
			d.Bias = nil
		}
		n.Layers = append(n.Layers, d)
	}
	randomize(n, random(seed))
	return n, n.Frozen()
}

// blank clears none to all of the columns of x, and some numbers of the others.
func blank(x blas32.General, r *rand.Rand) {
	share := []float64{0, 0.02, 0.5, 0.9, 1}[r.IntN(5)]
	for k := range x.Cols {
		whole := r.Float64() < share
		for i := range x.Rows {
			if whole || r.Float64() < share/2 {
				x.Data[i*x.Stride+k] = 0
			}
		}
	}
}

// A frozen network predicts what it did before, for every number of rows and
// outputs: for those that fill a tile or a panel, and those that do not; and
// whatever inputs are zeros.
func TestFrozenPredictsTheSame(t *testing.T) {
	r := random(8)
	for _, outputs := range []int{1, 2, 15, 16, 17, 40} {
		plain, frozen := frozenPair(uint64(outputs), 1+r.IntN(70), 1+r.IntN(50), outputs)
		for rows := 1; rows < 110; rows++ {
			x := randomMatrix(rows, plain.Inputs, r)
			blank(x, r)
			want, got := plain.Predict(x, plain.NewWorkspace(rows)), frozen.Predict(x, frozen.NewWorkspace(rows))
			for i, v := range got.Data {
				if w := want.Data[i]; math.Abs(float64(v-w)) > 1e-4*max(1, math.Abs(float64(w))) {
					t.Fatalf("%d rows, %d outputs: number %d is %v, was %v", rows, outputs, i, v, w)
				}
			}
		}
	}
}

// What is no number stays none, so that it is noticed.
func TestFrozenKeepsNaN(t *testing.T) {
	_, n := frozenPair(3, 40, 30)
	for rows := 1; rows < 20; rows++ {
		x := randomMatrix(rows, 40, random(4))
		x.Data[0] = float32(math.NaN())
		y := n.Predict(x, n.NewWorkspace(rows))
		for i := range y.Rows {
			if want := i > 0; allFinite(row(y, i)) != want {
				t.Errorf("%d rows: row %d is %v", rows, i, row(y, i))
			}
		}
	}
}

// 0 times what is infinite is no number, and is not left out.
func TestFrozenKeepsInfiniteWeights(t *testing.T) {
	plain, _ := frozenPair(5, 40, 30)
	plain.Layers[0].(*Dense).Weight.Data[0] = float32(math.Inf(1))
	y := plain.Frozen().Predict(newMatrix(20, 40), plain.NewWorkspace(20))
	for i := range y.Rows {
		if v := row(y, i)[0]; v == v {
			t.Errorf("row %d: 0 times infinity is %v", i, v)
		}
	}
}

// The same bits come out however many goroutines compute, and nothing is
// allocated.
func TestFrozenIsExact(t *testing.T) {
	_, n := frozenPair(1, 200, 1030, 500, 10)
	x, w := randomMatrix(64, 200, random(2)), n.NewWorkspace(64)
	want := slices.Clone(n.Predict(x, w).Data)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, cores := range []int{1, 3} {
		runtime.GOMAXPROCS(cores)
		if got := n.Predict(x, w).Data; !slices.Equal(got, want) {
			t.Errorf("with %d goroutines, other bits come out", cores)
		}
	}
	if allocated := testing.AllocsPerRun(5, func() { n.Predict(x, w) }); allocated != 0 {
		t.Errorf("Predict allocates %v times", allocated)
	}
}

// BenchmarkPredict reports rows a second of a network for one core.
func BenchmarkPredict(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	plain, frozen := frozenPair(1, 784, 512, 256, 10)
	for _, c := range []struct {
		name   string
		n      *Network
		blanks int // columns
	}{{"plain", plain, 0}, {"frozen", frozen, 0}, {"blanks", frozen, 392}} {
		n := c.n
		for _, rows := range []int{2, 4, 16, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d", c.name, rows), func(b *testing.B) {
				x, w := randomMatrix(rows, n.Inputs, random(1)), n.NewWorkspace(rows)
				for i := range rows {
					clear(row(x, i)[:c.blanks])
				}
				for b.Loop() {
					n.Predict(x, w)
				}
				b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}
