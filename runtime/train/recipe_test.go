package train

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// optimizers are all of them, with all that can be set.
var optimizers = []spec.Optimizer{
	{Name: spec.SGD, LearningRate: 0.1},
	{Name: spec.SGD, LearningRate: 0.05, Momentum: 0.9, Nesterov: true, ClipNorm: 5},
	{Name: spec.RMSprop, LearningRate: 0.01},
	{Name: spec.RMSprop, LearningRate: 0.01, Rho: 0.8, Momentum: 0.5, Centered: true, Epsilon: 1e-5, ClipValue: 5},
	{Name: spec.Adam, LearningRate: 0.02},
	{Name: spec.Adam, LearningRate: 0.02, Beta1: new(0.8), Beta2: new(0.99), Epsilon: 1e-5, GlobalClipNorm: 5},
	{Name: spec.AdamW, LearningRate: 0.02, WeightDecay: new(0.01)},
}

// Every kind of layer learns with every optimizer, and what is published
// answers as it did in training.
func TestRunEverything(t *testing.T) {
	repository, source := newRegistry(t, nil), writeFile(t, threeClasses(300))
	for i, o := range optimizers {
		t.Run(fmt.Sprint(i, " ", o.Name), func(t *testing.T) {
			t.Parallel()
			job := classJob(source, repository)
			job.Network.Layers = []spec.Layer{
				{Units: 8, Activation: spec.LeakyReLU, Alpha: 0.05, Initializer: spec.HeNormal, Bias: new(false)},
				{Type: spec.BatchNormalization, Momentum: 0.9},
				{Type: spec.Dropout, Rate: 0.1},
				{Units: 3, Activation: spec.Softmax, Regularization: spec.Penalty{L1: 1e-4}},
			}
			job.Training.Optimizer, job.Training.Epochs, job.Training.TopK = o, 20, 2
			job.Training.Regularization.L2 = 1e-4
			job.Training.Metrics = []spec.Metric{spec.Accuracy, spec.TopKAccuracy, spec.Precision, spec.Recall, spec.F1, spec.AUC}
			result, err := Run(testContext(t), job, Options{CodeVersion: "v1.2.3"})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range job.Training.Metrics {
				if v := result.Metrics["Validation"+string(m)]; v < 0.95 {
					t.Errorf("Validation%s is %v, want 0.95 or more", m, v)
				}
			}
			m, err := model.Open(pull(t, repository, result.Model))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			checkModel(t, m, job, result)
		})
	}
}

// A loss that is no number is found, and told, whatever makes the steps.
func TestEveryOptimizerDiverges(t *testing.T) {
	set := &dataset.Set{Columns: []string{"x"}, Train: dataset.Part{
		X: blas32.General{Rows: 4, Cols: 1, Stride: 1, Data: []float32{1, 2, 3, 4}}, Y: []float32{1, 2, 3, 4},
	}}
	for i, o := range optimizers {
		o.LearningRate = 1e38
		job := withDefaults(numberJob("x", spec.Repository{}))
		job.Network.Layers = append([]spec.Layer{{Type: spec.Dense, Units: 4, Activation: spec.Linear, Initializer: spec.GlorotUniform}}, job.Network.Layers...)
		job.Training.Optimizer, job.Training.Regularization.L2 = o, 1e-3
		f, err := newFit(job, set, new(Monitor))
		if err != nil {
			t.Fatal(err)
		}
		err = f.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "the loss became") || !strings.Contains(err.Error(), "layers[") {
			t.Errorf("optimizer %d (%s): the error is %v", i, o.Name, err)
		}
	}
}

// Full-batch gradient descent on LeastSquares with lambda ends in the solution
// of the normal equations with lambda, whose intercept is not penalized.
func TestLeastSquares(t *testing.T) {
	const lambda = 0.5
	job := numberJob(writeFile(t, line(50)), newRegistry(t, nil))
	job.Dataset.ValidationFraction = 0
	job.Training = spec.Training{
		Loss: spec.LeastSquares, Regularization: spec.Regularization{Lambda: lambda}, FullBatch: true, Epochs: 3000,
		Optimizer: spec.Optimizer{Name: spec.SGD, LearningRate: 0.5},
	}
	monitor := new(Monitor)
	result, err := Run(testContext(t), job, Options{Monitor: monitor})
	if err != nil {
		t.Fatal(err)
	}
	// y = 3x - 2 on x = i/50: with centred x, theta = 3*S/(S + lambda).
	var mean, s float64
	for i := range 50 {
		mean += float64(i) / 50 / 50
	}
	for i := range 50 {
		s += math.Pow(float64(i)/50-mean, 2)
	}
	theta := 3 * s / (s + lambda)
	// J = 1/(2m) * (3-theta)^2*S + lambda/(2m) * theta^2
	want := ((3-theta)*(3-theta)*s + lambda*theta*theta) / 100
	if got := result.Metrics["Loss"]; math.Abs(got-want) > 1e-6 {
		t.Errorf("J is %v, want %v", got, want)
	}
	if p := monitor.Progress(); p.Steps != 1 {
		t.Errorf("an epoch has %d steps, want 1", p.Steps)
	}
	m, err := model.Open(pull(t, job.Repository, result.Model))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d := m.Network.Layers[0].(*nn.Dense)
	if got := float64(d.Weight.Data[0]); math.Abs(got-theta) > 1e-4 {
		t.Errorf("theta is %v, want %v", got, theta)
	}
}

func TestStopping(t *testing.T) {
	network := &nn.Network{Inputs: 1, Layers: []nn.Layer{nn.NewDense(1, 1, nn.Activation{})}}
	nan := math.NaN()
	for _, c := range []struct {
		name     string
		e        spec.EarlyStopping
		values   []float64 // NaN: not measured
		stops    int32     // the epoch; 0: never
		best     int32
		restores bool
	}{
		{"gets better", spec.EarlyStopping{Monitor: "Loss", Patience: 1}, []float64{3, 2, 1}, 0, 3, true},
		{"at once", spec.EarlyStopping{Monitor: "Loss", Patience: 1}, []float64{3, 2, 2, 1}, 3, 2, true},
		{"waits", spec.EarlyStopping{Monitor: "ValidationLoss", Patience: 2}, []float64{3, 4, 2, 3, 3, 1}, 5, 3, true},
		{"an error is better when it is small", spec.EarlyStopping{Monitor: "ValidationRMSE", Patience: 1}, []float64{3, 2, 4}, 3, 2, true},
		{"a score is better when it is large", spec.EarlyStopping{Monitor: "ValidationR2", Patience: 1}, []float64{0.5, 0.6, 0.6}, 3, 2, true},
		{"accuracy", spec.EarlyStopping{Monitor: "Accuracy", Patience: 1}, []float64{0.5, 0.4}, 2, 1, true},
		{"by too little", spec.EarlyStopping{Monitor: "Loss", Patience: 2, MinDelta: 0.5}, []float64{3, 2.75, 2.5, 1}, 3, 1, true},
		{"by little each time, but in all enough", spec.EarlyStopping{Monitor: "Loss", Patience: 3, MinDelta: 0.5}, []float64{3, 2.75, 2.25}, 0, 3, true},
		{"no number", spec.EarlyStopping{Monitor: "Loss", Patience: 2}, []float64{nan, 2, nan, nan}, 4, 2, true},
		{"never a number", spec.EarlyStopping{Monitor: "Loss", Patience: 2}, []float64{nan, nan}, 2, 0, false},
		{"the last weights", spec.EarlyStopping{Monitor: "Loss", Patience: 1, RestoreBestWeights: new(false)}, []float64{1, 2}, 2, 1, false},
	} {
		s, stopped := newStopping(&c.e, network), int32(0)
		for i, v := range c.values {
			metrics := map[string]float64{}
			if !math.IsNaN(v) {
				metrics[string(c.e.Monitor)] = v
			}
			if s.stop(int32(i+1), metrics, network) {
				stopped = int32(i + 1)
				break
			}
		}
		if stopped != c.stops || s.BestEpoch != c.best || s.restores() != c.restores {
			t.Errorf("%s: stopped after %d with best %d, restores %v; want %d, %d, %v", c.name, stopped, s.BestEpoch, s.restores(), c.stops, c.best, c.restores)
		}
	}
	if newStopping(nil, network).restores() {
		t.Error("nothing is restored without early stopping")
	}
}

// What is published is the best epoch, and everybody says so. Steps so large
// that later epochs are worse than some before.
func TestRunStopsEarly(t *testing.T) {
	job := classJob(writeFile(t, threeClasses(200)), newRegistry(t, nil))
	job.Training.Epochs, job.Training.BatchSize = 1000, 8
	job.Training.Optimizer = spec.Optimizer{Name: spec.Adam, LearningRate: 0.1}
	job.Training.EarlyStopping = &spec.EarlyStopping{Patience: 3}
	result, err := Run(testContext(t), job, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := result.Progress
	if !p.StoppedEarly || p.Epoch != p.BestEpoch+3 || result.Epoch != p.BestEpoch || p.SecondsLeft != 0 {
		t.Errorf("epoch %d is published, progress is %+v", result.Epoch, p)
	}
	// A run that just ends there is the same one.
	job.Training.EarlyStopping, job.Training.Epochs = nil, result.Epoch
	shorter, err := Run(testContext(t), job, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if shorter.Metrics["ValidationLoss"] != result.Metrics["ValidationLoss"] || shorter.Metrics["Loss"] != result.Metrics["Loss"] {
		t.Errorf("the metrics are %v, want %v", result.Metrics, shorter.Metrics)
	}
	if shorter.Model.Digest != result.Model.Digest {
		t.Error("the model is not the one of the best epoch")
	}
}

// A full batch is not copied, and not changed either.
func TestFullBatch(t *testing.T) {
	job := everything(writeFile(t, threeClasses(60)))
	job.Training.FullBatch = true
	set := readSet(t, job)
	before := slices.Clone(set.Train.X.Data)
	for _, first := range []spec.Layer{job.Network.Layers[0], job.Network.Layers[1], job.Network.Layers[2]} {
		job.Network.Layers = append([]spec.Layer{first}, job.Network.Layers...)
		f := begin(t, job, set, "", quiet)
		if err := f.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.optimizer.Steps != int64(f.Epoch) {
			t.Errorf("%d steps in %d epochs", f.optimizer.Steps, f.Epoch)
		}
	}
	if !slices.Equal(before, set.Train.X.Data) {
		t.Error("training changed the data")
	}
}

func TestClassWeights(t *testing.T) {
	set := &dataset.Set{Label: "kind", Classes: []string{"ant", "bee", "cat"}, Train: dataset.Part{Y: []float32{0, 0, 0, 0, 1, 2}}}
	for _, c := range []struct {
		t    spec.Training
		want []float32
	}{
		{spec.Training{}, nil},
		{spec.Training{ClassWeights: map[string]spec.ClassWeight{"bee": 5, "cat": 0}}, []float32{1, 1, 1, 1, 5, 0}},
		{spec.Training{BalanceClasses: true}, []float32{0.5, 0.5, 0.5, 0.5, 2, 2}},
	} {
		if got := rowWeights(c.t, set); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.t, got, c.want)
		}
	}
	err := checkClassWeights(spec.Training{ClassWeights: map[string]spec.ClassWeight{"Bee": 1}}, set)
	if err == nil || !strings.Contains(err.Error(), `a class "Bee", but column "kind" has none of that name (ant, bee, cat)`) {
		t.Errorf("the error is %v", err)
	}
	err = checkClassWeights(spec.Training{ClassWeights: map[string]spec.ClassWeight{"bee": -1}}, set)
	if err == nil || !strings.Contains(err.Error(), `"bee" is -1`) {
		t.Errorf("the error is %v", err)
	}
}

func TestSchedulesOfRuns(t *testing.T) {
	training := func(s spec.Schedule) spec.Training {
		return spec.Training{Epochs: 10, Optimizer: spec.Optimizer{LearningRate: 0.5, Schedule: s}}
	}
	for _, c := range []struct {
		s    spec.Schedule
		want nn.Schedule
	}{
		{spec.Schedule{}, nn.Constant(0.5)},
		{spec.Schedule{Name: spec.ConstantSchedule}, nn.Constant(0.5)},
		{spec.Schedule{Name: spec.ExponentialSchedule, DecayRate: 0.9}, nn.Exponential{Initial: 0.5, Factor: 0.9, Steps: 45}},
		{spec.Schedule{Name: spec.StepSchedule, DecayRate: 0.9, DecaySteps: 100}, nn.StepDecay{Initial: 0.5, Factor: 0.9, Steps: 100}},
		{spec.Schedule{Name: spec.CosineSchedule, WarmupSteps: 50, Alpha: 0.1}, nn.Cosine{Peak: 0.5, Alpha: 0.1, Steps: 400, WarmupSteps: 50}},
		{spec.Schedule{Name: spec.CosineSchedule, DecaySteps: 7}, nn.Cosine{Peak: 0.5, Steps: 7}},
	} {
		if got, err := scheduleOf(training(c.s), 45); got != c.want || err != nil {
			t.Errorf("%+v is %+v, error %v", c.s, got, err)
		}
	}
	for words, s := range map[string]spec.Schedule{
		"the run has 450 steps (10 epochs of 45)": {Name: spec.CosineSchedule, WarmupSteps: 450},
		`schedule.name is "Linear"`:               {Name: "Linear"},
	} {
		if _, err := scheduleOf(training(s), 45); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: the error is %v", s, err)
		}
	}
}

// A run that is interrupted and started again publishes the bytes of one that
// was not.
func TestRunGoesOn(t *testing.T) {
	repository := newRegistry(t, nil)
	job := everything(writeFile(t, threeClasses(90)))
	job.Repository = repository
	want, err := Run(testContext(t), job, Options{})
	if err != nil {
		t.Fatal(err)
	}
	job.Checkpoint = &spec.Checkpoint{Directory: filepath.Join(t.TempDir(), "checkpoints")}
	var got spec.Result
	for asks := 10; ; asks += 10 {
		got, err = Run(&steps{testContext(t), asks}, job, Options{Log: quiet})
		if err == nil {
			break
		}
		wantFailure(t, got, err, spec.ReasonInterrupted, spec.ExitInterrupted)
		if asks > 1000 {
			t.Fatal("it never ends")
		}
	}
	if got.Model.Digest != want.Model.Digest || got.Epoch != want.Epoch || got.Progress.Epoch != want.Progress.Epoch {
		t.Errorf("the model is %+v after epoch %d, want %+v", got.Model, got.Epoch, want.Model)
	}
}
