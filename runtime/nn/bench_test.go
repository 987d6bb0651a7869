package nn

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// BenchmarkMultiply reports the speed of the forward product of a Dense layer.
func BenchmarkMultiply(b *testing.B) {
	for _, shape := range [][3]int{{32, 64, 64}, {32, 64, 100}, {256, 256, 256}, {1024, 1024, 1024}} {
		rows, outputs, inputs := shape[0], shape[1], shape[2]
		b.Run(fmt.Sprintf("%dx%dx%d", rows, inputs, outputs), func(b *testing.B) {
			r := random(1)
			x, w, y := randomMatrix(rows, inputs, r), randomMatrix(outputs, inputs, r), newMatrix(rows, outputs)
			for b.Loop() {
				multiply(blas.NoTrans, blas.Trans, x, w, 0, y)
			}
			operations := 2 * float64(rows) * float64(outputs) * float64(inputs) * float64(b.N)
			b.ReportMetric(operations/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

// BenchmarkStep is a training step with Adam.
func BenchmarkStep(b *testing.B) {
	for _, c := range []struct{ rows, inputs, first, second int }{{32, 100, 64, 32}, {128, 784, 512, 256}, {512, 1024, 4096, 4096}} {
		b.Run(fmt.Sprintf("%d-%d-%d-10", c.inputs, c.first, c.second), func(b *testing.B) {
			r := random(1)
			n := &Network{Inputs: c.inputs, Layers: []Layer{
				NewDense(c.inputs, c.first, Activation{Kind: ReLU}), NewDense(c.first, c.second, Activation{Kind: ReLU}),
				NewDense(c.second, 10, Activation{Kind: Softmax}),
			}}
			n.Initialize(GlorotUniform, r)
			benchmarkSteps(b, n, CategoricalCrossentropy{}, NewAdam(), randomMatrix(c.rows, c.inputs, r), randomTargets(CategoricalCrossentropy{}, c.rows, 10, r))
		})
	}
}

// BenchmarkLeastSquares is a step of linear regression over all rows.
func BenchmarkLeastSquares(b *testing.B) {
	const rows, inputs = 1_000_000, 20
	r := random(1)
	n := &Network{Inputs: inputs, Layers: []Layer{NewDense(inputs, 1, Activation{})}}
	benchmarkSteps(b, n, LeastSquares{}, SGD{}, randomMatrix(rows, inputs, r), make([]float32, rows))
}

func benchmarkSteps(b *testing.B, n *Network, loss Loss, rule Rule, x blas32.General, y []float32) {
	trainer, err := NewTrainer(n, loss, x.Rows, random(1))
	if err != nil {
		b.Fatal(err)
	}
	o := NewOptimizer(rule, Constant(0.0001), trainer.Parameters())
	b.ReportAllocs()
	for b.Loop() {
		trainer.Gradients(x, y, nil)
		o.Step()
	}
	b.ReportMetric(float64(x.Rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
