package nn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// Predict agrees with the float64 reference for every layer and activation.
func TestPredict(t *testing.T) {
	for _, name := range activationNames {
		a, err := ParseActivation(name)
		if err != nil {
			t.Fatal(err)
		}
		r := random(3)
		norm := &Normalization{Mean: []float32{1, -2, 3}, Scale: []float32{.5, 2, -1}}
		batch := NewBatchNormalization(4)
		n := &Network{Inputs: 3, Layers: []Layer{norm, NewDense(3, 4, a), batch, &Dropout{Rate: 0.5}, NewDense(4, 2, Activation{})}}
		randomize(n, r)
		x := randomMatrix(5, 3, r)
		before := slices.Clone(x.Data)
		got := n.Predict(x, n.NewWorkspace(5))

		y := each(wide(x), func(_, j int, v float64) float64 { return (v - float64(norm.Mean[j])) * float64(norm.Scale[j]) })
		y = denseOf(n.Layers[1], y)
		y = each(y, func(_, j int, v float64) float64 {
			return (v-float64(batch.Mean[j]))/math.Sqrt(float64(batch.Variance[j])+1e-3)*float64(batch.Gamma[j]) + float64(batch.Beta[j])
		})
		y = denseOf(n.Layers[4], y)
		for i := range y {
			for j, want := range y[i] {
				if v := float64(row(got, i)[j]); math.Abs(v-want) > 1e-5*(1+math.Abs(want)) {
					t.Errorf("%s: output %d of row %d is %v, want %v", name, j, i, v, want)
				}
			}
		}
		if !slices.Equal(x.Data, before) {
			t.Errorf("%s: Predict changed its input", name)
		}
	}
}

func denseOf(l Layer, x [][]float64) [][]float64 {
	d := l.(*Dense)
	return referenceDense(d, wide(matrix(1, len(d.Weight.Data), d.Weight.Data))[0], wide(matrix(1, len(d.Bias), d.Bias))[0], x)
}

// Inputs may be a part of a larger matrix, and may have fewer rows than there
// is room for, down to none.
func TestPredictParts(t *testing.T) {
	r := random(4)
	n := &Network{Inputs: 3, Layers: []Layer{NewDense(3, 2, Activation{Kind: Tanh})}}
	randomize(n, r)
	w := n.NewWorkspace(6)
	whole := randomMatrix(6, 5, r)
	packed := newMatrix(6, 3)
	for i := range 6 {
		copy(row(packed, i), row(whole, i)[1:4])
	}
	want := slices.Clone(n.Predict(packed, w).Data)
	if got := n.Predict(part(whole, 0, 1, 6, 3), w); !slices.Equal(got.Data, want) {
		t.Errorf("a part predicts %v, want %v", got.Data, want)
	}
	if got := n.Predict(firstRows(packed, 2), w); !slices.Equal(got.Data, want[:4]) {
		t.Errorf("two rows predict %v, want %v", got.Data, want[:4])
	}
	if got := n.Predict(blas32.General{Cols: 3, Stride: 3}, w); got.Rows != 0 || got.Cols != 2 {
		t.Errorf("no rows predict %d x %d, want 0 x 2", got.Rows, got.Cols)
	}
}

func TestActivationsFarOut(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		a    Activation
		x    float32
		want float32
	}{
		{Activation{Kind: Sigmoid}, -200, 0}, {Activation{Kind: Sigmoid}, 200, 1},
		{Activation{Kind: Tanh}, -200, -1}, {Activation{Kind: Tanh}, 200, 1},
		{Activation{Kind: GELU}, -200, 0}, {Activation{Kind: GELU}, 200, 200},
		{Activation{Kind: GELUTanh}, -200, 0}, {Activation{Kind: GELUTanh}, 200, 200},
		{Activation{Kind: ELU, Alpha: 1}, -200, -1}, {Activation{Kind: ReLU}, -inf, 0},
		{Activation{Kind: ReLU}, nan, nan}, {Activation{Kind: LeakyReLU, Alpha: .2}, nan, nan},
	} {
		v := []float32{c.x}
		c.a.apply(matrix(1, 1, v))
		if v[0] != c.want && (v[0] == v[0] || c.want == c.want) {
			t.Errorf("%v(%v) is %v, want %v", c.a.Kind, c.x, v[0], c.want)
		}
	}
	v := []float32{1000, 999, -1000}
	Activation{Kind: Softmax}.apply(matrix(1, 3, v))
	if e := 1 / (1 + math.Exp(-1)); math.Abs(float64(v[0])-e) > 1e-6 || v[2] != 0 {
		t.Errorf("Softmax far out is %v, want %v first and 0 last", v, e)
	}
}

// Softmax is what float64 gives, and the same bits come out whichever rows are
// beside a row, with and without a gap between them.
func TestSoftmax(t *testing.T) {
	r := random(11)
	softmax := Activation{Kind: Softmax}
	for _, cols := range []int{1, 2, 3, 10, 16, 33, 1000} {
		for _, spread := range []float64{1e-3, 1, 30, 500} {
			whole := newMatrix(7, cols+1)
			for i := range whole.Data {
				whole.Data[i] = float32(spread * r.NormFloat64())
			}
			gaps, together := part(whole, 0, 0, 7, cols), newMatrix(7, cols)
			for i := range together.Rows {
				copy(row(together, i), row(gaps, i))
			}
			var want []float64
			for i := range together.Rows {
				want = append(want, softmax64(row(together, i))...)
			}
			softmax.apply(together)
			for i, v := range together.Data {
				if math.Abs(float64(v)-want[i]) > 1e-6*want[i]+1e-37 {
					t.Fatalf("%d outputs of about %v: %v is %v, want %v", cols, spread, i, v, want[i])
				}
			}
			softmax.apply(gaps)
			for i := range together.Rows {
				if !slices.Equal(row(gaps, i), row(together, i)) {
					t.Fatalf("%d outputs of about %v: row %d alone is %v, with others %v", cols, spread, i, row(gaps, i), row(together, i))
				}
			}
		}
	}
	nan := float32(math.NaN())
	for _, v := range [][]float32{{1, nan, 2}, {nan, nan, nan}, {float32(math.Inf(1)), 1, 2}} {
		if softmax.apply(matrix(1, 3, v)); allFinite(v) {
			t.Errorf("Softmax of what is no number is %v", v)
		}
	}
}

// softmax64 is exp(x_i - max)/sum_j exp(x_j - max), where the differences are
// rounded to float32, since that alone may change a result by 1e-5 of it.
func softmax64(v []float32) []float64 {
	largest, sum := slices.Max(v), 0.0
	y := make([]float64, len(v))
	for i, x := range v {
		y[i] = math.Exp(float64(x - largest))
		sum += y[i]
	}
	for i := range y {
		y[i] /= sum
	}
	return y
}

func TestValidate(t *testing.T) {
	dense := func(in, out int) *Dense { return NewDense(in, out, Activation{}) }
	broken := dense(2, 3)
	broken.Weight.Data = broken.Weight.Data[:5]
	overflowing := &Dense{Weight: blas32.General{Rows: math.MaxInt, Cols: 2, Stride: 2, Data: make([]float32, 4)}}
	biased := dense(2, 3)
	biased.Bias = biased.Bias[:1]
	negative := NewBatchNormalization(2)
	negative.Variance[1] = -1
	for _, c := range []struct {
		network Network
		want    string
	}{
		{Network{Inputs: 2, Layers: []Layer{dense(2, 3), NewBatchNormalization(3), &Dropout{}, dense(3, 1)}}, ""},
		{Network{Layers: []Layer{dense(2, 3)}}, "0 inputs"},
		{Network{Inputs: 2}, "no layers"},
		{Network{Inputs: 2, Layers: []Layer{nil}}, "layers[0] is nil"},
		{Network{Inputs: 2, Layers: []Layer{dense(2, 3), dense(4, 1)}}, "layers[1] (Dense): the weight is for 4 inputs, but 3 come in"},
		{Network{Inputs: 2, Layers: []Layer{dense(2, 0)}}, "0 rows"},
		{Network{Inputs: 2, Layers: []Layer{broken}}, "5 numbers"},
		{Network{Inputs: 2, Layers: []Layer{overflowing}}, "do not hold"},
		{Network{Inputs: 2, Layers: []Layer{biased}}, "1 elements for 3 outputs"},
		{Network{Inputs: 2, Layers: []Layer{negative}}, "variance[1]"},
		{Network{Inputs: 2, Layers: []Layer{NewBatchNormalization(3)}}, "gamma has 3 elements"},
		{Network{Inputs: 2, Layers: []Layer{&Normalization{}}}, "mean has 0 elements for 2 inputs"},
		{Network{Inputs: 2, Layers: []Layer{&Dropout{Rate: 1}}}, "below 1"},
		{Network{Inputs: 2, Layers: []Layer{NewDense(2, 1, Activation{Kind: 99})}}, "unknown activation 99"},
	} {
		err := c.network.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestNewTrainerRefuses(t *testing.T) {
	linear := &Network{Inputs: 2, Layers: []Layer{NewDense(2, 2, Activation{})}}
	gaps := &Network{Inputs: 1, Layers: []Layer{&Dense{Weight: blas32.General{Rows: 2, Cols: 1, Stride: 2, Data: make([]float32, 4)}}}}
	for _, c := range []struct {
		network *Network
		loss    Loss
		rows    int
		want    string
	}{
		{linear, CategoricalCrossentropy{}, 1, "activation Softmax at the end"},
		{linear, BinaryCrossentropy{}, 1, "activation Sigmoid at the end"},
		{linear, MeanSquaredError{}, 0, "a batch of 0 rows"},
		{gaps, MeanSquaredError{}, 1, "gaps between its rows"},
		{&Network{}, MeanSquaredError{}, 1, "0 inputs"},
	} {
		if _, err := NewTrainer(c.network, c.loss, c.rows, random(1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestMultiply(t *testing.T) {
	r := random(5)
	for _, shape := range [][3]int{{1, 1, 1}, {3, 5, 7}, {64, 192, 3}, {65, 193, 2}, {130, 400, 33}, {300, 70, 90}, {310, 200, 300}, {1, 20, 70_000}, {70_000, 1, 20}} {
		m, n, k := shape[0], shape[1], shape[2]
		for _, tA := range []blas.Transpose{blas.NoTrans, blas.Trans} {
			for _, tB := range []blas.Transpose{blas.NoTrans, blas.Trans} {
				a, b := randomMatrix(m, k, r), randomMatrix(k, n, r)
				if tA == blas.Trans {
					a = randomMatrix(k, m, r)
				}
				if tB == blas.Trans {
					b = randomMatrix(n, k, r)
				}
				got, want := randomMatrix(m, n, r), newMatrix(m, n)
				copy(want.Data, got.Data)
				blas32.Gemm(tA, tB, 1, a, b, 1, want)
				multiply(tA, tB, a, b, 1, got)
				for i := range want.Data {
					if math.Abs(float64(got.Data[i]-want.Data[i])) > 1e-4*math.Sqrt(float64(k)) {
						t.Fatalf("%v, %c %c: element %d is %v, want %v", shape, tA, tB, i, got.Data[i], want.Data[i])
					}
				}
			}
		}
	}
}

// Training is the same, bit by bit, from run to run and for every GOMAXPROCS,
// for networks small and large.
func TestTrainingIsReproducible(t *testing.T) {
	for _, width := range []int{8, 300} {
		first := trainedBits(t, width)
		for _, procs := range []int{1, 2, 4} {
			previous := runtime.GOMAXPROCS(procs)
			got := trainedBits(t, width)
			runtime.GOMAXPROCS(previous)
			if !bytes.Equal(got, first) {
				t.Errorf("width %d with GOMAXPROCS %d: other weights", width, procs)
			}
		}
	}
}

func trainedBits(t *testing.T, width int) []byte {
	t.Helper()
	trainer, o, x, y := training(t, width)
	for range 5 {
		trainer.Gradients(x, y, nil)
		o.Step()
	}
	var bits []byte
	for _, p := range trainer.Parameters() {
		for _, v := range p.Value {
			b := math.Float32bits(v)
			bits = append(bits, byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
		}
	}
	return bits
}

func training(t *testing.T, width int) (*Trainer, *Optimizer, blas32.General, []float32) {
	t.Helper()
	r := random(6)
	n := &Network{Inputs: 10, Layers: []Layer{
		NewDense(10, width, Activation{Kind: GELU}), NewBatchNormalization(width), &Dropout{Rate: 0.2},
		NewDense(width, width, Activation{Kind: ReLU}), NewDense(width, 3, Activation{Kind: Softmax}),
	}}
	n.Initialize(HeNormal, r)
	trainer, err := NewTrainer(n, CategoricalCrossentropy{}, 100, r)
	if err != nil {
		t.Fatal(err)
	}
	trainer.Penalize(0, Penalty{L1: 1e-4, L2: 1e-4})
	o := NewOptimizer(NewAdamW(), Cosine{Peak: 0.01, Steps: 100}, trainer.Parameters())
	o.Clip.GlobalNorm = 1
	x := randomMatrix(100, 10, r)
	return trainer, o, x, randomTargets(CategoricalCrossentropy{}, 100, 3, r)
}

func TestNothingIsAllocated(t *testing.T) {
	for _, width := range []int{8, 300} {
		trainer, o, x, y := training(t, width)
		step := func() {
			trainer.Gradients(x, y, nil)
			o.Step()
		}
		if n := testing.AllocsPerRun(5, step); n != 0 {
			t.Errorf("width %d: a training step allocates %v times", width, n)
		}
		if n := testing.AllocsPerRun(5, func() { mustEvaluate(t, trainer, x, y, nil) }); n != 0 {
			t.Errorf("width %d: Evaluate allocates %v times", width, n)
		}
		w := trainer.network.NewWorkspace(x.Rows)
		if n := testing.AllocsPerRun(5, func() { trainer.network.Predict(x, w) }); n != 0 {
			t.Errorf("width %d: Predict allocates %v times", width, n)
		}
	}
}

// Evaluate takes more rows than fit at once. It finds the loss that Gradients
// finds, and metrics see what Predict predicts.
func TestEvaluate(t *testing.T) {
	const rows = 2*evaluatedRows + 3
	r := random(7)
	n := &Network{Inputs: 4, Layers: []Layer{NewDense(4, 5, Activation{Kind: Tanh}), NewDense(5, 3, Activation{Kind: Softmax})}}
	randomize(n, r)
	x, y := randomMatrix(rows, 4, r), randomTargets(CategoricalCrossentropy{}, rows, 3, r)
	weights := make([]float32, rows)
	for i := range weights {
		weights[i] = r.Float32()
	}
	newTrainer := func(rows int) *Trainer {
		trainer, err := NewTrainer(n, CategoricalCrossentropy{}, rows, r)
		if err != nil {
			t.Fatal(err)
		}
		trainer.Penalize(1, Penalty{L2: 0.1})
		return trainer
	}
	var got, want Accuracy
	loss := mustEvaluate(t, newTrainer(1), x, y, weights, &got)
	want.Add(n.Predict(x, n.NewWorkspace(rows)), y)
	if got != want {
		t.Errorf("the metric saw %+v, want %+v", got, want)
	}
	if trained := newTrainer(rows).Gradients(x, y, weights); math.Abs(trained-loss) > 1e-9 {
		t.Errorf("the loss is %v in training and %v in Evaluate", trained, loss)
	}
}

func mustEvaluate(t *testing.T, trainer *Trainer, x blas32.General, y, weights []float32, metrics ...Metric) float64 {
	t.Helper()
	loss, err := trainer.Evaluate(t.Context(), x, y, weights, metrics...)
	if err != nil {
		t.Fatal(err)
	}
	return loss
}

func TestEvaluateStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	trainer, _, x, y := training(t, 8)
	if _, err := trainer.Evaluate(ctx, x, y, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

// Who copies the tensors has all of a network: parameters and moving averages.
func TestTensors(t *testing.T) {
	build := func() (*Network, *Trainer) {
		n := &Network{Inputs: 4, Layers: []Layer{NewDense(4, 5, Activation{Kind: Tanh}), NewBatchNormalization(5), &Dropout{Rate: 0.5}, NewDense(5, 3, Activation{Kind: Softmax})}}
		n.Layers[3].(*Dense).Bias = nil
		trainer, err := NewTrainer(n, CategoricalCrossentropy{}, 8, random(3))
		if err != nil {
			t.Fatal(err)
		}
		return n, trainer
	}
	n, trainer := build()
	n.Initialize(GlorotUniform, random(1))
	x, y := randomMatrix(8, 4, random(2)), randomTargets(CategoricalCrossentropy{}, 8, 3, random(2))
	trainer.Gradients(x, y, nil)
	NewOptimizer(SGD{}, Constant(0.1), trainer.Parameters()).Step()

	other, _ := build()
	var names []string
	for i, tensor := range n.Tensors() {
		names = append(names, tensor.Name)
		copy(other.Tensors()[i].Value, tensor.Value)
	}
	if want := "[layers.0.weight layers.0.bias layers.1.gamma layers.1.beta layers.1.mean layers.1.variance layers.3.weight]"; fmt.Sprint(names) != want {
		t.Errorf("the tensors are %v, want %v", names, want)
	}
	got, want := other.Predict(x, other.NewWorkspace(8)), n.Predict(x, n.NewWorkspace(8))
	if !slices.Equal(got.Data, want.Data) {
		t.Error("the copy answers otherwise")
	}
}

func TestParseInitializer(t *testing.T) {
	for _, i := range []Initializer{GlorotUniform, GlorotNormal, HeUniform, HeNormal} {
		if got, err := ParseInitializer(i.String()); got != i || err != nil {
			t.Errorf("%v is read as %v, error %v", i, got, err)
		}
	}
	if _, err := ParseInitializer("Zeros"); err == nil {
		t.Error("Zeros is known")
	}
}

func TestBatchNormalizationMomentum(t *testing.T) {
	l := NewBatchNormalization(1)
	l.Momentum = 0.5
	trained := l.trained(2, 1, nil, &split{all: 2})
	trained.forward(matrix(2, 1, []float32{3, 7})) // mean 5, variance 4
	if l.Mean[0] != 2.5 || l.Variance[0] != 2.5 {
		t.Errorf("after one batch mean is %v and variance %v, want 2.5 and 2.5", l.Mean[0], l.Variance[0])
	}
}

func TestBatchNormalizationMovesItsAverages(t *testing.T) {
	l := NewBatchNormalization(1)
	n := &Network{Inputs: 1, Layers: []Layer{l, NewDense(1, 1, Activation{})}}
	trainer, err := NewTrainer(n, MeanSquaredError{}, 2, random(1))
	if err != nil {
		t.Fatal(err)
	}
	trainer.Gradients(matrix(2, 1, []float32{3, 7}), []float32{0, 0}, nil) // mean 5, variance 4
	if math.Abs(float64(l.Mean[0])-0.05) > 1e-7 || math.Abs(float64(l.Variance[0])-(0.99+0.04)) > 1e-6 {
		t.Errorf("after one batch mean is %v and variance %v, want 0.05 and 1.03", l.Mean[0], l.Variance[0])
	}
}

func TestDropoutKeepsTheExpectation(t *testing.T) {
	l := (&Dropout{Rate: 0.3}).trained(1000, 100, random(8), &split{to: 1000, all: 1000})
	x := newMatrix(1000, 100)
	for i := range x.Data {
		x.Data[i] = 1
	}
	var sum, zeros float64
	for _, v := range l.forward(x).Data {
		sum += float64(v)
		if v == 0 {
			zeros++
		}
	}
	// 5 standard deviations of 100000 draws are 0.007.
	if math.Abs(zeros/1e5-0.3) > 0.008 || math.Abs(sum/1e5-1) > 0.012 {
		t.Errorf("%v of the inputs are dropped, and the mean is %v; want 0.3 and 1", zeros/1e5, sum/1e5)
	}
}

func TestNonFinite(t *testing.T) {
	d0, d1 := NewDense(1, 2, Activation{}), NewDense(2, 1, Activation{})
	n := &Network{Inputs: 1, Layers: []Layer{d0, d1}}
	n.Initialize(GlorotUniform, random(1))
	trainer, err := NewTrainer(n, MeanSquaredError{}, 1, random(1))
	if err != nil {
		t.Fatal(err)
	}
	x := matrix(1, 1, []float32{1})
	trainer.Gradients(x, []float32{1}, nil)
	if got := trainer.NonFinite(); got != "" {
		t.Errorf("a sound network has %q", got)
	}
	d1.Weight.Data[0] = float32(math.NaN())
	if got := trainer.NonFinite(); got != "the weight of layers[1] (Dense)" {
		t.Errorf("got %q, want layers[1]", got)
	}
	d1.Weight.Data[0] = 0
	trainer.Gradients(matrix(1, 1, []float32{float32(math.Inf(1))}), []float32{1}, nil)
	if got := trainer.NonFinite(); got != "the output of layers[0] (Dense)" {
		t.Errorf("got %q, want the output of layers[0]", got)
	}
}

func TestInitializers(t *testing.T) {
	const in, out = 300, 100
	for _, c := range []struct {
		i               Initializer
		variance, limit float64
	}{
		{GlorotUniform, 2.0 / 400, math.Sqrt(6.0 / 400)},
		{HeUniform, 2.0 / 300, math.Sqrt(6.0 / 300)},
		{GlorotNormal, 2.0 / 400, 2 * math.Sqrt(2.0/400) / 0.8796},
		{HeNormal, 2.0 / 300, 2 * math.Sqrt(2.0/300) / 0.8796},
	} {
		w := newMatrix(out, in)
		c.i.Fill(w, random(9))
		var sum, squared, largest float64
		for _, v := range w.Data {
			sum += float64(v)
			squared += float64(v) * float64(v)
			largest = max(largest, math.Abs(float64(v)))
		}
		mean, variance := sum/(in*out), squared/(in*out)
		if math.Abs(mean) > 0.003 || math.Abs(variance/c.variance-1) > 0.04 {
			t.Errorf("%v: mean %v and variance %v, want 0 and %v", c.i, mean, variance, c.variance)
		}
		if largest > c.limit || largest < 0.98*c.limit {
			t.Errorf("%v: the largest weight is %v, want just below %v", c.i, largest, c.limit)
		}
	}
}

// A source can be marshalled in the middle of the work and goes on from there.
func TestRandomNumbersResume(t *testing.T) {
	source := rand.NewPCG(1, 2)
	drop := (&Dropout{Rate: 0.5}).trained(4, 4, rand.New(source), &split{to: 4, all: 4})
	x := randomMatrix(4, 4, random(1))
	drop.forward(x)
	saved, err := source.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(drop.forward(x).Data)
	if err := source.UnmarshalBinary(saved); err != nil {
		t.Fatal(err)
	}
	if got := drop.forward(x).Data; !slices.Equal(got, want) {
		t.Errorf("resumed, dropout gives %v, want %v", got, want)
	}
}

func TestAllFinite(t *testing.T) {
	for n := range 70 {
		v := make([]float32, n)
		for i := range v {
			v[i] = math.MaxFloat32 * float32(1-2*(i%2))
		}
		if !AllFinite(v) {
			t.Errorf("%d finite numbers are not", n)
		}
		for i, was := range v {
			for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				if v[i] = float32(bad); AllFinite(v) {
					t.Errorf("%d numbers are finite, of which one is %v", n, bad)
				}
			}
			v[i] = was
		}
	}
}
