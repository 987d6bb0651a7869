package nn

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas"
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

// BenchmarkStep is a training step of 64-64-32-10 with 32 rows.
func BenchmarkStep(b *testing.B) {
	r := random(1)
	n := &Network{Inputs: 64, Layers: []Layer{
		NewDense(64, 64, Activation{Kind: ReLU}), NewDense(64, 32, Activation{Kind: ReLU}), NewDense(32, 10, Activation{Kind: Softmax}),
	}}
	n.Initialize(GlorotUniform, r)
	trainer, err := NewTrainer(n, CategoricalCrossentropy{}, 32, r)
	if err != nil {
		b.Fatal(err)
	}
	o := NewOptimizer(NewAdam(), Constant(0.001), trainer.Parameters())
	x, y := randomMatrix(32, 64, r), randomTargets(CategoricalCrossentropy{}, 32, 10, r)
	b.ReportAllocs()
	for b.Loop() {
		trainer.Gradients(x, y, nil)
		o.Step()
	}
}
