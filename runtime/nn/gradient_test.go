package nn

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func randomMatrix(rows, cols int, r *rand.Rand) blas32.General {
	m := newMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

// randomize gives every parameter and statistic an arbitrary value, so that no
// term of a formula is hidden by a zero or a one.
func randomize(n *Network, r *rand.Rand) {
	n.Initialize(GlorotNormal, r)
	for _, l := range n.Layers {
		switch l := l.(type) {
		case *Dense:
			for i := range l.Bias {
				l.Bias[i] = float32(r.NormFloat64()) / 3
			}
		case *BatchNormalization:
			for i := range l.Gamma {
				l.Gamma[i], l.Beta[i] = 0.5+r.Float32(), r.Float32()-0.5
				l.Mean[i], l.Variance[i] = r.Float32(), 0.5+r.Float32()
			}
		}
	}
}

type gradientCase struct {
	name      string
	layers    []Layer
	loss      Loss
	reference func(z, y []float64) float64
	penalty   Penalty // on layer 0
	weighted  bool
}

func gradientCases() []gradientCase {
	activation := func(name string) Activation {
		a, err := ParseActivation(name)
		if err != nil {
			panic(err)
		}
		return a
	}
	tanh := activation("Tanh")
	head := func(out int, a Activation) []Layer { return []Layer{NewDense(4, 5, tanh), NewDense(5, out, a)} }

	cases := []gradientCase{
		{name: "MeanSquaredError", layers: head(3, Activation{}), loss: MeanSquaredError{}, reference: referenceSquared},
		{name: "MeanAbsoluteError", layers: head(3, Activation{}), loss: MeanAbsoluteError{}, reference: referenceAbsolute},
		{name: "Huber", layers: head(3, Activation{}), loss: Huber{}, reference: referenceHuber},
		{name: "BinaryCrossentropy", layers: head(1, activation("Sigmoid")), loss: BinaryCrossentropy{}, reference: referenceBinary},
		{name: "CategoricalCrossentropy", layers: head(3, activation("Softmax")), loss: CategoricalCrossentropy{}, reference: referenceCategorical},
		{name: "LeastSquares", layers: head(2, Activation{}), loss: LeastSquares{}, reference: referenceLeastSquares},
		{name: "row weights", layers: head(3, activation("Softmax")), loss: CategoricalCrossentropy{}, reference: referenceCategorical, weighted: true},
		{name: "L1 and L2", layers: head(3, Activation{}), loss: MeanSquaredError{}, reference: referenceSquared, penalty: Penalty{L1: 0.1, L2: 0.3}},
		{name: "no bias", layers: []Layer{&Dense{Weight: newMatrix(2, 4)}, NewDense(2, 1, Activation{})}, loss: MeanSquaredError{}, reference: referenceSquared},
		{name: "BatchNormalization", layers: []Layer{NewDense(4, 5, Activation{}), NewBatchNormalization(5), NewDense(5, 2, tanh)}, loss: MeanSquaredError{}, reference: referenceSquared},
		{name: "BatchNormalization of the inputs", layers: []Layer{NewBatchNormalization(4), NewDense(4, 2, tanh)}, loss: MeanSquaredError{}, reference: referenceSquared},
		{name: "Dropout", layers: []Layer{NewDense(4, 6, tanh), &Dropout{Rate: 0.4}, NewDense(6, 2, tanh)}, loss: MeanSquaredError{}, reference: referenceSquared},
		{name: "Normalization", layers: []Layer{
			&Normalization{Mean: []float32{1, 2, 3, 4}, Scale: []float32{.5, 2, 1, .1}}, NewDense(4, 2, tanh)},
			loss: MeanSquaredError{}, reference: referenceSquared},
		{name: "Normalization within", layers: []Layer{
			NewDense(4, 2, tanh), &Normalization{Mean: []float32{1, 2}, Scale: []float32{.5, 2}}, NewDense(2, 2, tanh)},
			loss: MeanSquaredError{}, reference: referenceSquared},
	}
	for _, name := range activationNames {
		cases = append(cases, gradientCase{
			name:   name + " within and last",
			layers: []Layer{NewDense(4, 5, activation(name)), NewDense(5, 3, activation(name))},
			loss:   MeanSquaredError{}, reference: referenceSquared,
		})
	}
	return cases
}

// Every gradient agrees with the central difference of an independent float64
// computation of the loss, and so does the loss itself.
func TestGradients(t *testing.T) {
	for _, c := range gradientCases() {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(3) {
				checkGradients(t, c, seed+1)
			}
		})
	}
}

func checkGradients(t *testing.T, c gradientCase, seed uint64) {
	const rows = 7
	r := random(seed)
	n := &Network{Inputs: 4, Layers: c.layers}
	randomize(n, r)
	trainer, err := NewTrainer(n, c.loss, rows+3, r)
	if err != nil {
		t.Fatal(err)
	}
	trainer.Penalize(0, c.penalty)
	x := randomMatrix(rows, 4, r)
	y := randomTargets(c.loss, rows, n.Outputs(), r)
	ref := reference{network: n, loss: c.reference, penalties: []Penalty{c.penalty}, masks: map[int][][]float64{}}
	if c.weighted {
		ref.weights = []float32{1, 0, 2, .5, 3, 1, .25}
	}

	loss := trainer.Gradients(x, y, ref.weights)

	for i, l := range trainer.lanes[0].layers {
		if d, ok := l.(*trainedDropout); ok {
			ref.masks[i] = wide(firstRows(d.factors, rows))
		}
	}
	values := map[string][]float64{}
	for _, p := range trainer.Parameters() {
		values[p.Name] = wide(matrix(1, len(p.Value), p.Value))[0]
	}
	value := func() float64 {
		return ref.value(values, wide(x), wide(matrix(rows, len(y)/rows, y)))
	}
	if want := value(); math.Abs(loss-want) > 1e-5*(1+math.Abs(want)) {
		t.Errorf("seed %d: loss is %v, want %v", seed, loss, want)
	}
	for _, p := range trainer.Parameters() {
		for i, got := range p.Gradient {
			want := difference(value, &values[p.Name][i])
			if math.Abs(float64(got)-want) > 2e-5*(1+math.Abs(want)) {
				t.Errorf("seed %d: gradient of %s[%d] is %v, want %v", seed, p.Name, i, got, want)
			}
		}
	}
}

func difference(f func() float64, x *float64) float64 {
	const h = 1e-6
	at := *x
	*x = at + h
	above := f()
	*x = at - h
	below := f()
	*x = at
	return (above - below) / (2 * h)
}

func randomTargets(l Loss, rows, outputs int, r *rand.Rand) []float32 {
	y := make([]float32, rows*l.targets(outputs))
	for i := range y {
		switch l.(type) {
		case CategoricalCrossentropy:
			y[i] = float32(r.IntN(outputs))
		case BinaryCrossentropy:
			y[i] = float32(r.IntN(2))
		default:
			y[i] = 2 * float32(r.NormFloat64())
		}
	}
	return y
}

func wide(m blas32.General) [][]float64 {
	w := make([][]float64, m.Rows)
	for i := range w {
		w[i] = make([]float64, m.Cols)
		for j, v := range row(m, i) {
			w[i][j] = float64(v)
		}
	}
	return w
}

// The penalty of LeastSquares is lambda/(2m) on kernels, with the m of the
// training set when it is known.
func TestLeastSquaresPenalty(t *testing.T) {
	n := &Network{Inputs: 1, Layers: []Layer{NewDense(1, 1, Activation{})}}
	d := n.Layers[0].(*Dense)
	d.Weight.Data[0], d.Bias[0] = 3, 5
	x, y := matrix(2, 1, []float32{1, 2}), []float32{8, 11} // predicted exactly
	for _, c := range []struct {
		rows     int
		loss     float64
		gradient float32
	}{
		{0, 0.5 / (2 * 2) * 9, 0.5 / 2 * 3},
		{10, 0.5 / (2 * 10) * 9, 0.5 / 10 * 3},
	} {
		trainer, err := NewTrainer(n, LeastSquares{Lambda: 0.5, Rows: c.rows}, 2, random(1))
		if err != nil {
			t.Fatal(err)
		}
		loss := trainer.Gradients(x, y, nil)
		evaluated, err := trainer.Evaluate(t.Context(), x, y, nil)
		if err != nil {
			t.Fatal(err)
		}
		weight, bias := trainer.Parameters()[0], trainer.Parameters()[1]
		if math.Abs(loss-c.loss) > 1e-6 || evaluated != loss {
			t.Errorf("m = %d: loss is %v, evaluated %v, want %v", c.rows, loss, evaluated, c.loss)
		}
		if math.Abs(float64(weight.Gradient[0]-c.gradient)) > 1e-6 || bias.Gradient[0] != 0 {
			t.Errorf("m = %d: gradients are %v and %v, want %v and 0", c.rows, weight.Gradient, bias.Gradient, c.gradient)
		}
	}
}

// Sums that are far beyond what exp can take still have a finite loss and the
// right gradient.
func TestCrossentropyOfExtremeSums(t *testing.T) {
	d := make([]float32, 2)
	if got := (CategoricalCrossentropy{}).row([]float32{1000, -1000}, []float32{1}, d); got != 2000 || d[0] != 1 || d[1] != -1 {
		t.Errorf("CategoricalCrossentropy is %v with gradient %v, want 2000 with [1 -1]", got, d)
	}
	if got := (BinaryCrossentropy{}).row([]float32{-1000}, []float32{1}, d[:1]); got != 1000 || d[0] != -1 {
		t.Errorf("BinaryCrossentropy is %v with gradient %v, want 1000 with -1", got, d[0])
	}
}
