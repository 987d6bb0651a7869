package nn

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

// Keras's own numbers, which testdata/record.py recorded.
type recorded struct {
	Optimizers struct {
		X, Y    []float32
		Weights [][]float32
		Cases   []struct {
			Rule    string
			Options recordedOptions
			recordedFit
		}
	}
	Network struct {
		X, Y, RowWeights []float32
		Weights          [][]float32
		Predictions      []float32
		recordedFit
	}
	Losses struct {
		Z, Y, Bits, Classes []float32
		Values              map[string]float64
	}
	Activations struct {
		Z      []float32
		Values map[string][]float32
	}
	Schedules map[string][]float64
}

// recordedFit has the losses of a run's steps, and the tensors after some.
type recordedFit struct {
	Losses []float64
	After  map[int][][]float32
}

// recordedOptions are Keras's names.
type recordedOptions struct {
	Momentum, Rho, Epsilon float64
	Nesterov, Centered     bool
	Beta1                  float64 `json:"beta_1"`
	Beta2                  float64 `json:"beta_2"`
	WeightDecay            float64 `json:"weight_decay"`
	Clipnorm, Clipvalue    float32
	GlobalClipnorm         float32 `json:"global_clipnorm"`
}

func (o recordedOptions) rule(name string) Rule {
	set := func(to *float64, v float64) {
		if v != 0 {
			*to = v
		}
	}
	adamw := NewAdamW()
	set(&adamw.Beta1, o.Beta1)
	set(&adamw.Beta2, o.Beta2)
	set(&adamw.Epsilon, o.Epsilon)
	set(&adamw.WeightDecay, o.WeightDecay)
	switch name {
	case "SGD":
		return SGD{Momentum: float32(o.Momentum), Nesterov: o.Nesterov}
	case "Adam":
		return adamw.Adam
	case "AdamW":
		return adamw
	}
	r := NewRMSprop()
	r.Momentum, r.Centered = float32(o.Momentum), o.Centered
	if o.Rho != 0 {
		r.Rho, r.Epsilon = float32(o.Rho), float32(o.Epsilon)
	}
	return r
}

func readRecorded(t *testing.T) recorded {
	t.Helper()
	text, err := os.ReadFile("testdata/keras.json")
	if err != nil {
		t.Fatal(err)
	}
	var r recorded
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

const recordedBatch = 8

// compare makes the recorded steps and compares losses and tensors on the way.
func (r recordedFit) compare(t *testing.T, n *Network, trainer *Trainer, o *Optimizer, x blas32.General, y, weights []float32) {
	t.Helper()
	targets := len(y) / x.Rows
	for i, want := range r.Losses {
		at := i * recordedBatch % x.Rows
		var w []float32
		if weights != nil {
			w = weights[at : at+recordedBatch]
		}
		loss := trainer.Gradients(part(x, at, 0, recordedBatch, x.Cols), y[at*targets:(at+recordedBatch)*targets], w)
		if !near(loss, want, 1e-5) {
			t.Fatalf("the loss in step %d is %v, in Keras %v", i+1, loss, want)
		}
		o.Step()
		for j, tensor := range r.After[i+1] {
			compareNumbers(t, fmt.Sprintf("%s after step %d", n.Tensors()[j].Name, i+1), n.Tensors()[j].Value, tensor)
		}
	}
}

func compareNumbers(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d numbers, in Keras %d", what, len(got), len(want))
	}
	for i := range got {
		if !near(float64(got[i]), float64(want[i]), 1e-4) {
			t.Fatalf("%s: number %d is %v, in Keras %v", what, i, got[i], want[i])
		}
	}
}

// near tells whether got is want up to a relative error, and to what float32
// loses beside numbers of about 1.
func near(got, want, relative float64) bool {
	return math.Abs(got-want) <= relative*math.Abs(want)+1e-6
}

func TestOptimizersAsKeras(t *testing.T) {
	r := readRecorded(t).Optimizers
	for _, c := range r.Cases {
		t.Run(strings.TrimSpace(fmt.Sprintf("%s%+v", c.Rule, c.Options)), func(t *testing.T) {
			n := &Network{Inputs: 3, Layers: []Layer{NewDense(3, 4, Activation{Kind: Tanh}), NewDense(4, 2, Activation{})}}
			for i, l := range n.Layers {
				copy(l.(*Dense).Weight.Data, r.Weights[i])
			}
			trainer, err := NewTrainer(n, MeanSquaredError{}, recordedBatch, nil)
			if err != nil {
				t.Fatal(err)
			}
			o := NewOptimizer(c.Options.rule(c.Rule), Constant(0.01), trainer.Parameters())
			o.Clip = Clip{Norm: c.Options.Clipnorm, GlobalNorm: c.Options.GlobalClipnorm, Value: c.Options.Clipvalue}
			c.compare(t, n, trainer, o, matrix(len(r.X)/3, 3, r.X), r.Y, nil)
		})
	}
}

// Batch normalization, penalties, weights of rows and a schedule, all at once.
func TestNetworkAsKeras(t *testing.T) {
	r := readRecorded(t).Network
	batch := NewBatchNormalization(4)
	batch.Momentum = 0.9
	first, last := NewDense(3, 4, Activation{Kind: ELU, Alpha: 1}), NewDense(4, 3, Activation{Kind: Softmax})
	first.Bias = nil
	copy(first.Weight.Data, r.Weights[0])
	copy(last.Weight.Data, r.Weights[1])
	n := &Network{Inputs: 3, Layers: []Layer{first, batch, last}}
	trainer, err := NewTrainer(n, CategoricalCrossentropy{}, recordedBatch, nil)
	if err != nil {
		t.Fatal(err)
	}
	trainer.Penalize(0, Penalty{L1: 0.01, L2: 0.02})
	o := NewOptimizer(NewAdam(), Cosine{Peak: 0.05, Alpha: 0.1, Steps: 90, WarmupSteps: 10}, trainer.Parameters())
	x := matrix(len(r.X)/3, 3, r.X)
	r.compare(t, n, trainer, o, x, r.Y, r.RowWeights)
	compareNumbers(t, "prediction", n.Predict(x, n.NewWorkspace(x.Rows)).Data, r.Predictions)
}

func TestLossesAsKeras(t *testing.T) {
	r := readRecorded(t).Losses
	z := matrix(6, 3, r.Z)
	for _, c := range []struct {
		loss Loss
		y    []float32
	}{
		{MeanSquaredError{}, r.Y}, {MeanAbsoluteError{}, r.Y}, {Huber{}, r.Y},
		{BinaryCrossentropy{}, r.Bits}, {CategoricalCrossentropy{}, r.Classes},
	} {
		name := strings.TrimPrefix(fmt.Sprintf("%T", c.loss), "nn.")
		if got, want := sumLoss(c.loss, z, c.y, nil, newMatrix(6, 3), 1)/6, r.Values[name]; !near(got, want, 1e-6) {
			t.Errorf("%s is %v, in Keras %v", name, got, want)
		}
	}
}

func TestActivationsAsKeras(t *testing.T) {
	r := readRecorded(t).Activations
	for name, want := range r.Values {
		a, err := ParseActivation(name)
		if err != nil {
			t.Fatal(err)
		}
		got := append([]float32(nil), r.Z...)
		a.apply(matrix(1, len(got), got))
		compareNumbers(t, name, got, want)
	}
}

func TestSchedulesAsKeras(t *testing.T) {
	r := readRecorded(t).Schedules
	for name, schedule := range map[string]Schedule{
		"Exponential":         Exponential{Initial: 0.1, Factor: 0.5, Steps: 30},
		"Step":                StepDecay{Initial: 0.1, Factor: 0.5, Steps: 30},
		"Cosine":              Cosine{Peak: 0.1, Alpha: 0.01, Steps: 80},
		"Cosine with warm-up": Cosine{Peak: 0.1, Alpha: 0.01, Steps: 70, WarmupSteps: 20},
	} {
		if len(r[name]) == 0 {
			t.Errorf("%s was not recorded", name)
		}
		for i, want := range r[name] {
			if got := schedule.LearningRate(int64(5 * i)); math.Abs(got-want) > 1e-8 { // Keras computes Cosine in float32
				t.Errorf("%s in step %d is %v, in Keras %v", name, 5*i, got, want)
			}
		}
	}
}
