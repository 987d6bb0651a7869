package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// longJob trains 20 small steps an epoch, with all that a run remembers.
func longJob(t *testing.T, epochs int32) spec.Train {
	job := job(t, epochs)
	var rows strings.Builder
	rows.WriteString("a,b,y\n")
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		a, b := random.NormFloat64(), random.NormFloat64()
		fmt.Fprintf(&rows, "%g,%g,%g\n", a, b, a*b)
	}
	if err := os.WriteFile(job.Source, []byte(rows.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	job.Dataset.ValidationFraction = 0.2
	job.Network.Layers = []spec.Layer{{Units: 8, Activation: spec.Tanh}, {Type: spec.BatchNormalization}, {Type: spec.Dropout, Rate: 0.1}, {Units: 1}}
	job.Training.BatchSize = 4
	job.Training.EarlyStopping = &spec.EarlyStopping{Patience: 10000}
	return job
}

// weights returns the model.safetensors of a result.
func weights(t *testing.T, job spec.Train, result spec.Result) []byte {
	t.Helper()
	if result.Model == nil {
		t.Fatalf("there is no model in %+v", result)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := store.Pull(t.Context(), job.Repository, result.Model.Digest, dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// follow asks for progress until done says so. It returns false if the trainer
// ends before.
func (tr *process) follow(t *testing.T, done func(spec.Progress) bool) bool {
	t.Helper()
	url := "http://" + tr.address(t) + "/progress"
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		response, err := http.Get(url)
		if err != nil {
			return false
		}
		var p spec.Progress
		err = json.NewDecoder(response.Body).Decode(&p)
		response.Body.Close()
		if err != nil {
			return false
		}
		if done(p) {
			return true
		}
	}
	t.Fatal("no progress")
	return false
}

// A trainer that is killed twenty times leaves the weights of one that was not.
func TestTrainerIsKilled(t *testing.T) {
	t.Parallel()
	job := longJob(t, 60)
	code, result := start(t, encoded(t, job)).end(t)
	if code != 0 {
		t.Fatalf("code %d with %+v", code, result.Failure)
	}
	want := weights(t, job, result)

	job.Checkpoint = &spec.Checkpoint{Directory: t.TempDir(), EverySteps: 3}
	random := rand.New(rand.NewPCG(3, 4))
	for kill := range 20 {
		tr := start(t, encoded(t, job))
		asks := random.IntN(60)
		alive := tr.follow(t, func(p spec.Progress) bool {
			if p.Epoch > 0 { // it trains: a moment later, which may be within a checkpoint
				asks--
			}
			return asks < 0 || p.Epoch > int32(2*kill) // so that the run is long enough
		})
		if !alive {
			t.Fatalf("the run is over after %d kills", kill)
		}
		if err := tr.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = tr.Wait() // it was killed
	}
	code, result = start(t, encoded(t, job)).end(t)
	if code != 0 {
		t.Fatalf("code %d with %+v", code, result.Failure)
	}
	if !bytes.Equal(weights(t, job, result), want) {
		t.Error("the weights are not those of a run that was left alone")
	}
}

// On SIGTERM the trainer leaves a checkpoint, from which another goes on.
func TestTrainerIsTerminatedAndGoesOn(t *testing.T) {
	t.Parallel()
	job := longJob(t, 1000)
	code, result := start(t, encoded(t, job)).end(t)
	if code != 0 {
		t.Fatalf("code %d with %+v", code, result.Failure)
	}
	want := weights(t, job, result)

	job.Checkpoint = &spec.Checkpoint{Directory: t.TempDir(), EverySeconds: 1000}
	tr := start(t, encoded(t, job))
	if !tr.follow(t, func(p spec.Progress) bool { return p.Epoch >= 1 }) {
		t.Fatal("the run is over")
	}
	if err := tr.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, result = tr.end(t); code != spec.ExitInterrupted {
		t.Fatalf("code %d with %+v", code, result)
	}
	if _, err := os.Stat(filepath.Join(job.Checkpoint.Directory, "checkpoint")); err != nil {
		t.Fatal(err)
	}
	code, result = start(t, encoded(t, job)).end(t)
	if code != 0 || !bytes.Equal(weights(t, job, result), want) {
		t.Errorf("code %d; the weights are not those of a run that was left alone", code)
	}
}

// A push that is under way ends although the trainer was asked to stop.
func TestTrainerIsTerminatedWhilePushing(t *testing.T) {
	t.Parallel()
	pushing, goOn := make(chan struct{}, 100), make(chan struct{})
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			pushing <- struct{}{}
			<-goOn
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	job := job(t, 3)
	job.Repository.Name = strings.TrimPrefix(server.URL, "http://") + "/identity"
	tr := start(t, encoded(t, job))
	select {
	case <-pushing:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is pushed")
	}
	if err := tr.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	tr.logged(t, "asked to stop")
	close(goOn)
	if code, result := tr.end(t); code != 0 || result.Model == nil {
		t.Errorf("code %d with %+v, want a model", code, result)
	}
}
