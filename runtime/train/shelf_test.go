package train

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// shelved is a job whose checkpoints are in a registry.
func shelved(t *testing.T, deny func(*http.Request) int) spec.Train {
	t.Helper()
	job := everything(writeFile(t, threeClasses(60)))
	job.Repository = newRegistry(t, deny)
	job.Checkpoint = &spec.Checkpoint{Tag: "checkpoint-1", EverySteps: 3}
	return job
}

// beginShelved begins a run as Run does, in a pod of its own.
func beginShelved(t *testing.T, job spec.Train, set *dataset.Set) *fit {
	t.Helper()
	o := Options{Log: quiet, Monitor: new(Monitor), TemporaryDir: t.TempDir(), RegistryPatience: time.Second}
	f, err := keep(testContext(t), job, o, func() (*fit, error) { return newFit(job, set, o.Monitor) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.keeper.close)
	return f
}

// A run goes on, in another pod, from what the one before left in the registry:
// when it was asked to stop, where it stopped; when it was killed, from an
// earlier step.
func TestResumeFromRegistry(t *testing.T) {
	job := shelved(t, nil)
	set := readSet(t, job)
	want := end(t, begin(t, job, set, "", quiet))
	for _, killed := range []bool{false, true} {
		f := beginShelved(t, job, set)
		if err := f.run(&steps{t.Context(), 14}); err == nil {
			t.Fatal("the run was not interrupted")
		}
		if killed {
			f.keeper.shelf.wait(testContext(t))
		} else {
			f.keeper.end(f, time.Minute)
		}
		made := f.optimizer.Steps
		f.keeper.close()

		resumed := beginShelved(t, job, set)
		if steps := resumed.optimizer.Steps; steps == 0 || steps > made || !killed && steps != made {
			t.Errorf("killed %v: resumed after %d steps of %d", killed, steps, made)
		}
		if diff := cmp.Diff(want, end(t, resumed)); diff != "" {
			t.Error(diff)
		}
		resumed.keeper.close()
		if err := Discard(job); err != nil {
			t.Fatal(err)
		}
		missing := (*store.NotFoundError)(nil)
		if err := store.PullCheckpoint(t.Context(), job.Repository, job.Checkpoint.Tag, t.TempDir()); !errors.As(err, &missing) {
			t.Errorf("after the run was discarded, pulling gives %v", err)
		}
	}
}

// Without a checkpoint there is nothing to discard.
func TestDiscardNothing(t *testing.T) {
	job := shelved(t, nil)
	if err := Discard(job); err != nil {
		t.Error(err)
	}
	job.Checkpoint = nil
	if err := Discard(job); err != nil {
		t.Error(err)
	}
}

// A registry that refuses checkpoints costs a warning, and no step.
func TestRegistryRefusesCheckpoints(t *testing.T) {
	job := shelved(t, func(r *http.Request) int {
		if r.Method == http.MethodPost || r.Method == http.MethodPut {
			return http.StatusForbidden
		}
		return 0
	})
	set := readSet(t, job)
	want := end(t, begin(t, job, set, "", quiet))
	f := beginShelved(t, job, set)
	if err := f.run(&steps{t.Context(), 14}); err == nil {
		t.Fatal("the run was not interrupted")
	}
	f.keeper.end(f, time.Minute)
	if warning := f.monitor.Progress().Warning; !strings.Contains(warning, "403 Forbidden") || !strings.Contains(warning, "checkpoints can't be kept") {
		t.Errorf("the warning is %q", warning)
	}
	if diff := cmp.Diff(want, end(t, f)); diff != "" {
		t.Error(diff)
	}
}

// A registry that is away when a checkpoint is looked for fails the attempt: a
// run that began anew would lose what was done.
func TestRegistryIsAwayWhenResuming(t *testing.T) {
	job := shelved(t, func(r *http.Request) int {
		if strings.Contains(r.URL.Path, "checkpoint-1") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	set := readSet(t, job)
	o := Options{Log: quiet, Monitor: new(Monitor), TemporaryDir: t.TempDir(), RegistryPatience: time.Millisecond}
	_, err := keep(testContext(t), job, o, func() (*fit, error) { return newFit(job, set, o.Monitor) })
	failure := (*Error)(nil)
	if !errors.As(err, &failure) || failure.Failure.Reason != spec.ReasonRegistryUnavailable {
		t.Errorf("the error is %v", err)
	}
}

// While it waits for a registry, a run says for what.
func TestWaitingIsTold(t *testing.T) {
	job, monitor := shelved(t, func(*http.Request) int { return http.StatusServiceUnavailable }), new(Monitor)
	ctx, stop := context.WithCancel(testContext(t))
	ended := make(chan error)
	go func() {
		_, err := Run(ctx, job, Options{Monitor: monitor, Log: quiet})
		ended <- err
	}()
	for monitor.Progress().Warning == "" {
		if ctx.Err() != nil {
			t.Fatal("nothing is told")
		}
		time.Sleep(time.Millisecond)
	}
	p := monitor.Progress()
	stop()
	if err := <-ended; err == nil {
		t.Error("the run ended well without a registry")
	}
	if !strings.Contains(p.Warning, "503 Service Unavailable") || p.Activity != "waits for the registry to answer" {
		t.Errorf("told is %q, %q", p.Activity, p.Warning)
	}
}

// What a run needs is left behind where memory may not suffice, and only there.
func TestMemoryIsForeseen(t *testing.T) {
	for _, c := range []struct {
		limit int64
		left  bool
	}{{0, true}, {100 << 20, true}, {1 << 30, false}} {
		left := int64(0)
		foresee(80<<20, Options{Monitor: new(Monitor), MemoryLimit: c.limit, Precaution: func(r spec.Result) { left = r.Progress.MemoryBytes }})
		if (left == 80<<20) != c.left {
			t.Errorf("of a limit of %d, %d is left", c.limit, left)
		}
	}
}
