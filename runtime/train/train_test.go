package train

import (
	"context"
	"errors"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// pull returns the directory of a model that was pushed.
func pull(t *testing.T, repository spec.Repository, pushed *spec.Model) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pulled")
	if err := store.Pull(testContext(t), repository, pushed.Digest, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// From a table to a model in the registry that answers as it did when it was
// trained.
func TestRun(t *testing.T) {
	repository := newRegistry(t, nil)
	job := classJob(writeFile(t, threeClasses(600)), repository)
	monitor := new(Monitor)
	result, err := Run(testContext(t), job, Options{Monitor: monitor, CodeVersion: "v1.2.3", TemporaryDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Accuracy", "ValidationAccuracy"} {
		if got := result.Metrics[name]; got < 0.97 {
			t.Errorf("%s is %v, want 0.97 or more", name, got)
		}
	}
	for _, name := range []string{"Loss", "ValidationLoss"} {
		if got, ok := result.Metrics[name]; !ok || got > 0.3 {
			t.Errorf("%s is %v, want 0.3 or less", name, got)
		}
	}
	if p := monitor.Progress(); p.Epoch != 10 || p.Epochs != 10 || p.Step != 15 || p.Steps != 15 || p.SecondsLeft != 0 || p.SamplesPerSecond <= 0 {
		t.Errorf("at the end, progress is %+v", p)
	}
	// 2*16 + 16 + 16*3 + 3
	if result.Model.Parameters != 99 || result.Model.Bytes == 0 || !strings.HasPrefix(result.Model.Reference, repository.Name+":") {
		t.Errorf("the model is %+v", result.Model)
	}

	m, err := model.Open(pull(t, repository, result.Model))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	checkModel(t, m, job, result)
}

func checkModel(t *testing.T, m *model.Model, job spec.Train, result spec.Result) {
	t.Helper()
	d := m.Metadata
	if d.Name != job.Name || d.Label != "kind" || d.Seed != 7 || d.CodeVersion != "v1.2.3" || d.Lineage != job.Lineage || d.DatasetDigest != result.DatasetDigest {
		t.Errorf("the metadata are %+v", d)
	}
	if !slices.Equal(d.Inputs, []string{"length", "weight"}) || !slices.Equal(d.Classes, []string{"ant", "bee", "cat"}) {
		t.Errorf("inputs are %v and classes %v", d.Inputs, d.Classes)
	}
	if d.Metrics["ValidationAccuracy"] != result.Metrics["ValidationAccuracy"] {
		t.Errorf("the model's metrics are %v, the result's %v", d.Metrics, result.Metrics)
	}
	if len(d.Golden.Inputs) != 8 || d.Golden.Inputs[0][0] < 50 {
		t.Fatalf("golden inputs are %v, want 8 rows in the dataset's units", d.Golden.Inputs)
	}
	w := m.Network.NewWorkspace(8)
	for i, input := range d.Golden.Inputs {
		got := m.Network.Predict(blas32.General{Rows: 1, Cols: 2, Stride: 2, Data: input}, w)
		for j, want := range d.Golden.Outputs[i] {
			if math.Abs(float64(got.Data[j]-want)) > 1e-6 {
				t.Errorf("output %d of golden row %d is %v, was %v", j, i, got.Data[j], want)
			}
		}
	}
}

// A model of numbers, without scaling, validation in the metrics, any default.
func TestRunOnNumbers(t *testing.T) {
	result, err := Run(testContext(t), numberJob(writeFile(t, line(200)), newRegistry(t, nil)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m := result.Metrics; m["ValidationR2"] < 0.999 || m["MAE"] > 0.02 || m["RMSE"] > 0.02 || m["ValidationLoss"] > 1e-3 {
		t.Errorf("the metrics are %v", m)
	}
}

// The same seed on the same data gives the same bytes; another seed others.
func TestSameSeedSameModel(t *testing.T) {
	repository := newRegistry(t, nil)
	source := writeFile(t, threeClasses(300))
	train := func(seed int64) ([]byte, string) {
		job := classJob(source, repository)
		job.Training.Seed = seed
		result, err := Run(testContext(t), job, Options{})
		if err != nil {
			t.Fatal(err)
		}
		weights, err := os.ReadFile(filepath.Join(pull(t, repository, result.Model), "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return weights, result.Model.Digest
	}
	first, digest := train(7)
	again, digestAgain := train(7)
	other, _ := train(8)
	if !slices.Equal(first, again) || digest != digestAgain {
		t.Errorf("two runs with one seed give different models: %s and %s", digest, digestAgain)
	}
	if slices.Equal(first, other) {
		t.Error("another seed gives the same weights")
	}
}

// wantFailure checks a failure in both places where it is reported.
func wantFailure(t *testing.T, result spec.Result, err error, reason string, code int, words ...string) {
	t.Helper()
	failure := (*Error)(nil)
	if !errors.As(err, &failure) {
		t.Fatalf("the error is %v, want an *Error", err)
	}
	if failure.Failure.Reason != reason || failure.ExitCode != code {
		t.Errorf("the failure is %s with code %d, want %s with %d: %v", failure.Failure.Reason, failure.ExitCode, reason, code, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if result.Model != nil || result.Failure == nil || *result.Failure != failure.Failure {
		t.Errorf("the result is %+v, want the failure and no model", result)
	}
}

func TestRunRefuses(t *testing.T) {
	source := writeFile(t, threeClasses(60))
	repository := newRegistry(t, nil)
	for _, c := range []struct {
		name   string
		change func(*spec.Train)
		reason string
		words  []string
	}{
		{"no such label", func(j *spec.Train) { j.Dataset.Label = "species" }, spec.ReasonDatasetInvalid, []string{"ConfigMap default/insects", "species"}},
		{"text among numbers", func(j *spec.Train) { j.Source = writeFile(t, "a,kind\n1,x\nzwei,y\n") }, spec.ReasonDatasetInvalid, []string{"zwei"}},
		{"no rows left", func(j *spec.Train) { j.Source = writeFile(t, "a,kind\n") }, spec.ReasonDatasetInvalid, []string{"no rows"}},
		{"one class", func(j *spec.Train) {
			j.Source, j.Network.Inputs, j.Dataset.Scaling = writeFile(t, "a,kind\n"+strings.Repeat("1,x\n", 20)), 1, ""
		}, spec.ReasonDatasetInvalid, []string{"nothing to learn"}},
		{"units", func(j *spec.Train) { j.Network.Layers[1].Units = 5 }, spec.ReasonNetworkInvalid,
			[]string{`the last layer has 5 units but column "kind" has 3 classes (ant, bee, cat): set network.layers[1].units to 3`}},
		{"inputs", func(j *spec.Train) { j.Network.Inputs = 64 }, spec.ReasonNetworkInvalid, []string{"network.inputs is 64, but the dataset has 2 feature columns (length, weight)"}},
		{"three classes and one probability", func(j *spec.Train) {
			j.Training.Loss, j.Network.Layers[1] = spec.BinaryCrossentropy, layer(1, spec.Sigmoid)
		}, spec.ReasonNetworkInvalid, []string{"CategoricalCrossentropy", "{units: 3, activation: Softmax}"}},
		{"weights of another class", func(j *spec.Train) {
			j.Training.ClassWeights = map[string]spec.ClassWeight{"dog": 2}
		}, spec.ReasonNetworkInvalid, []string{`training.classWeights has a class "dog", but column "kind" has none of that name (ant, bee, cat)`}},
		{"a warm-up without an end", func(j *spec.Train) {
			j.Training.Optimizer.Schedule = spec.Schedule{Name: spec.CosineSchedule, WarmupSteps: 1000}
		}, spec.ReasonNetworkInvalid, []string{"warmupSteps is 1000, but the run has 20 steps (10 epochs of 2)"}},
		{"diverges", func(j *spec.Train) {
			j.Training.Optimizer, j.Training.Loss = spec.Optimizer{Name: spec.SGD, LearningRate: 1e30}, spec.MeanSquaredError
			j.Network.Layers[1], j.Dataset.Label, j.Training.Metrics = layer(1, ""), "weight", nil
			j.Dataset.Features, j.Network.Inputs = []string{"length"}, 1
		}, spec.ReasonDiverged, []string{"epoch 1, step ", "layers[", "learningRate"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := classJob(source, repository)
			c.change(&job)
			result, err := Run(testContext(t), job, Options{})
			wantFailure(t, result, err, c.reason, spec.ExitInvalid, c.words...)
		})
	}
}

// A file that is not there is not waited for: the pod has its volume.
func TestRunWithoutFile(t *testing.T) {
	job := classJob(filepath.Join(t.TempDir(), "nothing"), newRegistry(t, nil))
	result, err := Run(testContext(t), job, Options{})
	wantFailure(t, result, err, spec.ReasonDatasetInvalid, spec.ExitInvalid, "ConfigMap default/insects", "there is no such file")
}

func TestRunNeedsTooMuchMemory(t *testing.T) {
	job := classJob(writeFile(t, threeClasses(60)), newRegistry(t, nil))
	job.Network.Layers = []spec.Layer{layer(1e6, spec.ReLU), layer(1e6, spec.ReLU), layer(3, spec.Softmax)}
	result, err := Run(testContext(t), job, Options{MemoryLimit: 1 << 30})
	wantFailure(t, result, err, spec.ReasonNetworkInvalid, spec.ExitInvalid, "TiB", "may use 1 GiB")
}

// What AUC keeps counts, too.
func TestMemoryOfMeasuring(t *testing.T) {
	job := classJob("x", spec.Repository{})
	set := &dataset.Set{Train: dataset.Part{X: blas32.General{Rows: 1e6}}}
	if n := numbersToMeasure(job, set); n != 0 {
		t.Errorf("Accuracy keeps %v numbers", n)
	}
	job.Training.Metrics = []spec.Metric{spec.AUC}
	if n := numbersToMeasure(job, set); n < 3e6 {
		t.Errorf("AUC keeps only %v numbers of 3 million predictions", n)
	}
}

// A registry that takes no models is a failure with the registry's own words,
// and with all that the training found.
func TestRunIsRefusedByTheRegistry(t *testing.T) {
	repository := newRegistry(t, func(r *http.Request) int {
		if r.Method == http.MethodPost || r.Method == http.MethodPut {
			return http.StatusForbidden
		}
		return 0
	})
	result, err := Run(testContext(t), classJob(writeFile(t, threeClasses(60)), repository), Options{})
	wantFailure(t, result, err, spec.ReasonPushRefused, 1, "403", repository.Name)
	if result.Metrics["Loss"] == 0 || result.DatasetDigest == "" {
		t.Errorf("the result %+v does not tell what was trained", result)
	}
}

// A registry that is away is noticed before any data is read.
func TestRunWithoutRegistry(t *testing.T) {
	t.Parallel()
	job := classJob("/there/is/no/such/file", spec.Repository{Name: "127.0.0.1:1/models", PlainHTTP: true})
	result, err := Run(testContext(t), job, Options{RegistryPatience: time.Millisecond})
	wantFailure(t, result, err, spec.ReasonRegistryUnavailable, 1, "127.0.0.1:1")
}

func TestRunWithoutRepository(t *testing.T) {
	result, err := Run(testContext(t), classJob("x", spec.Repository{Name: "no repository"}), Options{})
	wantFailure(t, result, err, spec.ReasonPushRefused, 1, "no repository")
}

// A run that is asked to stop does so between two steps.
func TestRunIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(testContext(t))
	defer cancel(nil)
	job := classJob(writeFile(t, threeClasses(60)), newRegistry(t, nil))
	job.Training.Epochs = 1e6
	monitor := new(Monitor)
	go func() {
		for monitor.Progress().Epoch < 2 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel(errors.New("SIGTERM"))
	}()
	result, err := Run(ctx, job, Options{Monitor: monitor})
	wantFailure(t, result, err, spec.ReasonInterrupted, spec.ExitInterrupted, "SIGTERM")
	if result.Progress == nil || result.Progress.Epoch < 2 {
		t.Errorf("progress is %+v, want epoch 2 or later", result.Progress)
	}
}

// The digits recipe of the samples.
func TestDigits(t *testing.T) {
	const source = "../../config/samples/digits.csv.gz"
	result, err := Run(testContext(t), spec.Train{
		Name: "digits", Source: source, SourceName: "digits.csv.gz",
		Dataset: spec.Dataset{Label: "digit", ValidationFraction: 0.2, Scaling: spec.StandardScaling},
		Network: spec.Network{Inputs: 64, Layers: []spec.Layer{layer(64, spec.ReLU), layer(32, spec.ReLU), layer(10, spec.Softmax)}},
		Training: spec.Training{
			Loss: spec.CategoricalCrossentropy, Metrics: []spec.Metric{spec.Accuracy}, Seed: 7,
			Optimizer: spec.Optimizer{Name: spec.Adam, LearningRate: 0.001}, Epochs: 10, BatchSize: 32,
		},
		Repository: newRegistry(t, nil),
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := result.Metrics["ValidationAccuracy"]; got < 0.95 {
		t.Errorf("ValidationAccuracy is %v, want 0.95 or more", got)
	}
	t.Logf("%v", result.Metrics)
}
