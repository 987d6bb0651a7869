package train

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

func TestCheckRecipe(t *testing.T) {
	classes := func(change func(*spec.Train)) spec.Train {
		job := classJob("x", spec.Repository{})
		change(&job)
		return job
	}
	numbers := func(change func(*spec.Train)) spec.Train {
		job := numberJob("x", spec.Repository{})
		change(&job)
		return job
	}
	for _, c := range []struct {
		job  spec.Train
		want string
	}{
		{classes(func(*spec.Train) {}), ""},
		{numbers(func(*spec.Train) {}), ""},
		{numbers(func(j *spec.Train) { j.Network.Layers[0].Activation = spec.Sigmoid }), ""},
		{classes(func(j *spec.Train) {
			j.Training.Loss, j.Network.Layers[1] = spec.BinaryCrossentropy, layer(1, spec.Sigmoid)
		}), ""},
		{spec.Train{}, "network.layers is empty"},
		{classes(func(j *spec.Train) { j.Network.Layers[0].Units = 0 }), "network.layers[0].units is 0"},
		{classes(func(j *spec.Train) { j.Network.Layers[0].Type = "Conv" }), `network.layers[0].type is "Conv"`},
		{classes(func(j *spec.Train) { j.Network.Layers[0].Activation = "relu" }), `network.layers[0].activation: unknown activation "relu"`},
		{classes(func(j *spec.Train) { j.Network.Inputs = -1 }), "network.inputs is -1"},
		{classes(func(j *spec.Train) { j.Network.Layers[1].Activation = spec.Linear }), "set network.layers[1].activation to Softmax"},
		{classes(func(j *spec.Train) { j.Network.Layers[1].Units = 1 }), "BinaryCrossentropy and activation Sigmoid"},
		{classes(func(j *spec.Train) { j.Training.Loss = spec.BinaryCrossentropy }), "set network.layers[1].activation to Sigmoid"},
		{classes(func(j *spec.Train) {
			j.Training.Loss, j.Network.Layers[1].Activation = spec.BinaryCrossentropy, spec.Sigmoid
		}), "set network.layers[1].units to 1"},
		{numbers(func(j *spec.Train) { j.Network.Layers[0].Activation = spec.Softmax }), "set network.layers[0].activation to Linear"},
		{numbers(func(j *spec.Train) { j.Network.Layers[0].Units = 2 }), "set network.layers[0].units to 1"},
		{numbers(func(j *spec.Train) { j.Training.Loss = "L2" }), `training.loss is "L2"`},
		{numbers(func(j *spec.Train) { j.Training.Optimizer.Name = "Lion" }), `training.optimizer.name is "Lion"`},
		{numbers(func(j *spec.Train) { j.Training.Optimizer.LearningRate = -1 }), "learningRate is -1"},
		{numbers(func(j *spec.Train) { j.Training.Epochs = -1 }), "epochs is -1"},
		{numbers(func(j *spec.Train) { j.Training.BatchSize = -1 }), "batchSize is -1"},
		{numbers(func(j *spec.Train) { j.Training.Metrics = []spec.Metric{"Speed"} }), `training.metrics[0] is "Speed"`},
		{numbers(func(j *spec.Train) { j.Training.Metrics = []spec.Metric{spec.Accuracy} }), "metric Accuracy is for classes"},
		{classes(func(j *spec.Train) { j.Training.Metrics = []spec.Metric{spec.R2} }), "metric R2 is for numbers"},
		{classes(func(j *spec.Train) {
			j.Training.Loss, j.Network.Layers[1], j.Training.Metrics = spec.BinaryCrossentropy, layer(1, spec.Sigmoid), []spec.Metric{spec.TopKAccuracy}
		}), "metric TopKAccuracy needs loss CategoricalCrossentropy"},
		{classes(func(j *spec.Train) { j.Network.Layers[1] = spec.Layer{Type: spec.Dropout, Rate: 0.5} }), "the last layer is Dropout"},
		{classes(func(j *spec.Train) { j.Network.Layers[0] = spec.Layer{Type: spec.Dropout, Rate: 1} }), "network.layers[0].rate is 1; it must be at least 0 and below 1"},
		{classes(func(j *spec.Train) { j.Network.Layers[0] = spec.Layer{Type: spec.BatchNormalization, Momentum: 2} }), "network.layers[0].momentum is 2"},
		{classes(func(j *spec.Train) { j.Network.Layers[0].Initializer = "Zeros" }), `network.layers[0].initializer: unknown initializer "Zeros"`},
		{classes(func(j *spec.Train) { j.Network.Layers[0].Regularization.L1 = -1 }), "network.layers[0].regularization.l1 is -1; it must be at least 0"},
		{numbers(func(j *spec.Train) { j.Training.Loss, j.Training.Regularization.Lambda = spec.LeastSquares, -1 }), "training.regularization.lambda is -1"},
		{numbers(func(j *spec.Train) { j.Training.Optimizer.Beta2 = new(1.0) }), "optimizer.beta2 is 1; it must be at least 0 and below 1"},
		{numbers(func(j *spec.Train) { j.Training.Optimizer.Schedule.Name = "Linear" }), ""}, // is found with the data
		{numbers(func(j *spec.Train) { j.Training.Optimizer.Schedule = spec.Schedule{Name: spec.StepSchedule} }), "schedule.decayRate is 0; it must be above 0 and at most 1"},
		{numbers(func(j *spec.Train) { j.Training.EarlyStopping = &spec.EarlyStopping{Monitor: "ValidationR2"} }), ""},
		{numbers(func(j *spec.Train) { j.Training.EarlyStopping = &spec.EarlyStopping{Monitor: "Speed"} }), "add Speed to training.metrics"},
		{numbers(func(j *spec.Train) {
			j.Training.EarlyStopping, j.Dataset.ValidationFraction = new(spec.EarlyStopping), 0
		}), "there are no validation rows: set dataset.validationFraction, for example to 0.2, or monitor Loss"},
	} {
		err := checkRecipe(withDefaults(c.job))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("refused: %v", err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestDefaults(t *testing.T) {
	original := spec.Train{Network: spec.Network{Layers: []spec.Layer{{Units: 1}}}}
	job := withDefaults(original)
	want := spec.Training{Epochs: 10, BatchSize: 32, Optimizer: spec.Optimizer{Name: spec.Adam, LearningRate: 0.001}}
	if diff := cmp.Diff(want, job.Training); diff != "" {
		t.Error(diff)
	}
	if job.Network.Layers[0] != (spec.Layer{Type: spec.Dense, Units: 1, Activation: spec.Linear, Initializer: spec.GlorotUniform}) || original.Network.Layers[0].Type != "" {
		t.Errorf("layers are %v, of %v", job.Network.Layers, original.Network.Layers)
	}
	original.Training.Optimizer.Name = spec.SGD
	if got := withDefaults(original).Training.Optimizer.LearningRate; got != 0.01 {
		t.Errorf("SGD starts with learning rate %v, want 0.01", got)
	}
}

func TestList(t *testing.T) {
	for _, c := range []struct{ names, want string }{
		{"", ""}, {"a", "a"}, {"a b c d", "a, b, c, d"}, {"0 1 2 3 4 5 6 7 8 9", "0, 1, ..., 9"},
		{strings.Repeat("é", 50), strings.Repeat("é", 40) + "..."},
	} {
		if got := list(strings.Fields(c.names)); got != c.want {
			t.Errorf("list(%q) is %q, want %q", c.names, got, c.want)
		}
	}
}

// Each purpose and epoch has random numbers of its own.
func TestStreamsDiffer(t *testing.T) {
	seen := map[uint64]string{}
	for _, purpose := range []string{"weights", "order", "dropout"} {
		for _, seed := range []int64{-1, 0, 1, 2} {
			for part := range int32(3) {
				first := stream(seed, purpose, part).Uint64()
				if other, ok := seen[first]; ok {
					t.Errorf("%s %d %d starts as %s", purpose, part, seed, other)
				}
				seen[first] = purpose
			}
		}
	}
	first, again := stream(1, "order", 2), stream(1, "order", 2)
	if first.Uint64() != again.Uint64() {
		t.Error("a stream does not repeat")
	}
}

// Time is fake here.
func TestPatience(t *testing.T) {
	away := &store.UnreachableError{Host: "registry", Problem: "it restarts"}
	for _, c := range []struct {
		name      string
		failures  int
		err       error
		succeeds  bool
		atMost    time.Duration
		tryAtMost int
	}{
		{"comes back", 4, away, true, time.Minute, 5},
		{"answers 503 for a while", 4, &store.RefusedError{Status: 503}, true, time.Minute, 5},
		{"stays away", 1 << 30, away, false, 2 * time.Minute, 30},
		{"refuses", 1 << 30, &store.RefusedError{Status: 403}, false, 0, 1},
		{"other failures", 1 << 30, errors.New("disk full"), false, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries, start := 0, time.Now()
				err := patiently(t.Context(), 2*time.Minute, nil, func() error {
					if tries++; tries <= c.failures {
						return c.err
					}
					return nil
				})
				if (err == nil) != c.succeeds || err != nil && !errors.Is(err, c.err) {
					t.Errorf("the error is %v", err)
				}
				if took := time.Since(start); took > c.atMost || tries > c.tryAtMost {
					t.Errorf("it took %v and %d tries", took, tries)
				}
			})
		})
	}
}

func TestFailuresAreTold(t *testing.T) {
	for _, c := range []struct {
		err    error
		reason string
	}{
		{&store.UnreachableError{}, spec.ReasonRegistryUnavailable},
		{&store.RefusedError{Status: 500}, spec.ReasonRegistryUnavailable},
		{&store.RefusedError{Status: 429}, spec.ReasonRegistryUnavailable},
		{&store.RefusedError{Status: 401}, spec.ReasonPushRefused},
		{&store.RefusedError{Status: 413}, spec.ReasonPushRefused},
		{errors.New("disk full"), spec.ReasonInternal},
		{&fs.PathError{Op: "write", Path: "/tmp/model", Err: syscall.ENOSPC}, spec.ReasonDiskFull},
		{failuref(spec.ReasonDatasetUnavailable, 1, "no room: %w", syscall.ENOSPC), spec.ReasonDiskFull},
	} {
		if got := classify(t.Context(), registryFailure(c.err)); got.Failure.Reason != c.reason || got.ExitCode != 1 {
			t.Errorf("%#v is %s with code %d, want %s with 1", c.err, got.Failure.Reason, got.ExitCode, c.reason)
		}
	}
}

func TestHandler(t *testing.T) {
	monitor := new(Monitor)
	server := httptest.NewServer(monitor.Handler())
	defer server.Close()
	get := func(path string) (int, string) {
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	if status, _ := get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz answers %d", status)
	}
	if _, body := get("/progress"); !strings.Contains(body, `"epoch":0`) {
		t.Errorf("before the start, /progress answers %s", body)
	}
	want := spec.Progress{Epoch: 2, Epochs: 10, Step: 3, Steps: 45, Loss: 0.5, Metrics: map[string]float64{"Accuracy": 0.75}, SamplesPerSecond: 1000, SecondsLeft: 9}
	monitor.change(func(p *spec.Progress) { *p = want })
	_, body := get("/progress")
	var got spec.Progress
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, metrics := get("/metrics")
	for _, line := range []string{"trainyard_trainer_epoch 2", "trainyard_trainer_loss 0.5", `trainyard_trainer_metric{name="Accuracy"} 0.75`, "trainyard_trainer_samples_per_second 1000", "go_goroutines"} {
		if !strings.Contains(metrics, line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

// The message is JSON of a size that Kubernetes keeps, whatever is in it, and
// says as much as it can.
func FuzzTerminationMessage(f *testing.F) {
	f.Add("Diverged", "short", 3)
	f.Add("Diverged", strings.Repeat("é", 5000), 3)
	f.Add("Diverged", strings.Repeat("\x00\"<", 5000), 0)
	f.Add("Diverged", strings.Repeat("\xff", 5000), 60)
	f.Fuzz(func(t *testing.T, reason, message string, metrics int) {
		if len(reason) > 100 {
			return
		}
		r := spec.Result{Failure: &spec.Failure{Reason: reason, Message: message}, Progress: &spec.Progress{Epoch: 3}, Metrics: map[string]float64{}}
		r.Log = strings.Repeat(message+"\n", metrics&7)
		for i := range metrics % 1000 {
			r.Metrics[strings.Repeat("m", i%50)+string(rune('a'+i%26))] = float64(i)
		}
		text, err := TerminationMessage(r)
		if err != nil || len(text) > MessageLimit {
			t.Fatalf("%d bytes, error %v", len(text), err)
		}
		var got spec.Result
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if got.Failure == nil || got.Model != nil {
			t.Errorf("the failure is lost in %s", text)
		}
		if len(message) < 500 && len(r.Metrics) < 10 && got.Progress == nil {
			t.Errorf("a short message lost its progress: %s", text)
		}
	})
}

func TestWeightsFollowTheSeed(t *testing.T) {
	n := withDefaults(spec.Train{Network: spec.Network{Layers: []spec.Layer{layer(3, spec.ReLU)}}}).Network
	weights := func(seed int64) []float32 {
		network, err := networkOf(n, 2, seed)
		if err != nil {
			t.Fatal(err)
		}
		return network.Layers[0].(*nn.Dense).Weight.Data
	}
	if !cmp.Equal(weights(1), weights(1)) || cmp.Equal(weights(1), weights(2)) {
		t.Error("weights do not follow the seed")
	}
}
