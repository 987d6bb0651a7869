package train

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

var quiet = slog.New(slog.DiscardHandler)

// everything is a job whose run remembers all that a run can remember.
func everything(source string) spec.Train {
	job := classJob(source, spec.Repository{})
	job.Network.Layers = []spec.Layer{
		{Units: 6, Activation: spec.ReLU, Regularization: spec.Penalty{L2: 1e-3}},
		{Type: spec.BatchNormalization, Momentum: 0.9},
		{Type: spec.Dropout, Rate: 0.3},
		{Units: 3, Activation: spec.Softmax},
	}
	t := &job.Training
	t.Metrics = []spec.Metric{spec.Accuracy, spec.AUC}
	t.Optimizer = spec.Optimizer{Name: spec.AdamW, LearningRate: 0.05, GlobalClipNorm: 1, Schedule: spec.Schedule{Name: spec.CosineSchedule, WarmupSteps: 3}}
	t.Epochs, t.BatchSize, t.BalanceClasses = 6, 10, true // 48 rows: the last batch of an epoch is smaller
	t.EarlyStopping = &spec.EarlyStopping{Monitor: spec.MonitorValidationLoss, Patience: 2}
	return withDefaults(job)
}

func readSet(t *testing.T, job spec.Train) *dataset.Set {
	t.Helper()
	set, err := read(t.Context(), job, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// steps is a context that is done after so many steps: a run asks once a step.
type steps struct {
	context.Context
	left int
}

func (s *steps) Err() error {
	if s.left--; s.left < 0 {
		return context.Canceled
	}
	return nil
}

// begin returns a run with checkpoints in dir, as Run makes it.
func begin(t *testing.T, job spec.Train, set *dataset.Set, dir string, log *slog.Logger) *fit {
	t.Helper()
	var c *spec.Checkpoint
	if dir != "" {
		c = &spec.Checkpoint{Directory: dir, EverySteps: 1}
	}
	job.Checkpoint = c
	monitor := new(Monitor)
	f, err := keep(t.Context(), job, Options{Log: log, Monitor: monitor}, func() (*fit, error) { return newFit(job, set, monitor) })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// outcome is all that a run leaves.
type outcome struct {
	Tensors []nn.Tensor
	Metrics map[string]float64
	Epoch   int32
	State   position
}

func end(t *testing.T, f *fit) outcome {
	t.Helper()
	if err := f.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	metrics, epoch := f.finish()
	return outcome{f.tensors(), metrics, epoch, f.position}
}

// A run that ends without a word at any step boundary goes on as if it had not.
func TestResumeAfterEveryStep(t *testing.T) {
	job := everything(writeFile(t, threeClasses(60)))
	set := readSet(t, job)
	want := end(t, begin(t, job, set, "", quiet))
	if want.Epoch == 0 || want.State.Epoch < 3 {
		t.Fatalf("the run is too short: %+v", want.State)
	}
	for boundary := 0; ; boundary++ {
		dir := t.TempDir()
		f := begin(t, job, set, dir, quiet)
		if err := f.run(&steps{t.Context(), boundary}); err == nil {
			if boundary < 20 {
				t.Errorf("only %d boundaries", boundary)
			}
			return
		}
		if boundary%3 == 0 { // as after SIGTERM; otherwise, as after SIGKILL
			f.keeper.save(f)
		}
		resumed := begin(t, job, set, dir, quiet)
		if resumed.optimizer.Steps != f.optimizer.Steps {
			t.Fatalf("boundary %d: resumed after %d steps of %d", boundary, resumed.optimizer.Steps, f.optimizer.Steps)
		}
		if diff := cmp.Diff(want, end(t, resumed)); diff != "" {
			t.Fatalf("boundary %d: %s", boundary, diff)
		}
	}
}

// A run that was over is not trained again.
func TestResumeAfterTheEnd(t *testing.T) {
	job, dir := everything(writeFile(t, threeClasses(60))), t.TempDir()
	set := readSet(t, job)
	f := begin(t, job, set, dir, quiet)
	if err := f.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.keeper.save(f)
	made := f.optimizer.Steps
	metrics, epoch := f.finish()
	want := outcome{f.tensors(), metrics, epoch, f.position}

	resumed := begin(t, job, set, dir, quiet)
	if diff := cmp.Diff(want, end(t, resumed)); diff != "" || resumed.optimizer.Steps != made {
		t.Errorf("%d steps of %d: %s", resumed.optimizer.Steps, made, diff)
	}
	if p := resumed.monitor.Progress(); p.Epoch != f.Epoch || p.SecondsLeft != 0 {
		t.Errorf("progress is %+v", p)
	}
}

// What is damaged, or of another run, is refused by name, and the run starts
// from the beginning.
func TestCheckpointIsRefused(t *testing.T) {
	job := everything(writeFile(t, threeClasses(60)))
	set := readSet(t, job)
	want := end(t, begin(t, job, set, "", quiet))
	made := t.TempDir()
	if err := begin(t, job, set, made, quiet).run(&steps{t.Context(), 7}); err == nil {
		t.Fatal("the run was not interrupted")
	}
	good, err := os.ReadFile(filepath.Join(made, checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	other := everything(writeFile(t, threeClasses(63)))
	seed, uid := job, job
	seed.Training.Seed++
	uid.Lineage.UID = "2"
	for _, c := range []struct {
		name    string
		content []byte
		job     spec.Train
		words   string
	}{
		{"a flipped bit", flipped(good, len(good)/2), job, "damaged: its checksum is"},
		{"a flipped bit in the state", flipped(good, 40), job, "damaged: its checksum is"},
		{"cut off", good[:len(good)-5], job, "damaged: its checksum is"},
		{"empty", nil, job, "damaged: it has 0 bytes"},
		{"another dataset", good, other, "belongs to another run"},
		{"another seed", good, seed, "belongs to another run"},
		{"another TrainingJob", good, uid, "belongs to another run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, log := t.TempDir(), new(bytes.Buffer)
			if err := os.WriteFile(filepath.Join(dir, checkpointFile), c.content, 0o644); err != nil {
				t.Fatal(err)
			}
			f := begin(t, c.job, readSet(t, c.job), dir, slog.New(slog.NewTextHandler(log, nil)))
			if !strings.Contains(log.String(), c.words) || !strings.Contains(log.String(), "from the beginning") {
				t.Errorf("the log is %q, want %q", log, c.words)
			}
			if f.optimizer.Steps != 0 {
				t.Errorf("the run has made %d steps", f.optimizer.Steps)
			}
			if got := end(t, f); c.job.Training.Seed == job.Training.Seed && c.job.Source == job.Source {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func flipped(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// A full disk costs a warning; the checkpoint before stays, and the next one is
// tried in its turn.
func TestCheckpointOnFullDisk(t *testing.T) {
	job, dir, log := everything(writeFile(t, threeClasses(60))), t.TempDir(), new(bytes.Buffer)
	set := readSet(t, job)
	want := end(t, begin(t, job, set, "", quiet))
	f := begin(t, job, set, dir, slog.New(slog.NewTextHandler(log, nil)))
	if err := f.run(&steps{t.Context(), 4}); err == nil {
		t.Fatal("the run was not interrupted")
	}
	before, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(dir, checkpointPartial)); err != nil {
		t.Fatal(err)
	}
	f.keeper.save(f)
	if !strings.Contains(log.String(), "no space left on device") || !strings.Contains(log.String(), "goes on without") {
		t.Errorf("the log is %q", log)
	}
	if warning := f.monitor.Progress().Warning; !strings.Contains(warning, dir) || !strings.Contains(warning, "no space left on device") {
		t.Errorf("the warning is %q", warning)
	}
	if after, err := os.ReadFile(filepath.Join(dir, checkpointFile)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the checkpoint before is lost: %v", err)
	}
	if diff := cmp.Diff(want, end(t, f)); diff != "" {
		t.Error(diff)
	}
	if after, err := os.ReadFile(filepath.Join(dir, checkpointFile)); err != nil || bytes.Equal(before, after) {
		t.Errorf("no checkpoint follows: %v", err)
	}
	if warning := f.monitor.Progress().Warning; warning != "" {
		t.Errorf("the warning is %q although checkpoints are written again", warning)
	}
}

// Nothing can be written at all: that is a warning, too.
func TestCheckpointWithoutDirectory(t *testing.T) {
	job, log := everything(writeFile(t, threeClasses(60))), new(bytes.Buffer)
	file := writeFile(t, "a file where the directory should be")
	end(t, begin(t, job, readSet(t, job), filepath.Join(file, "checkpoints"), slog.New(slog.NewTextHandler(log, nil))))
	if !strings.Contains(log.String(), "not a directory") {
		t.Errorf("the log is %q", log)
	}
}

func TestKeeperIsDue(t *testing.T) {
	job := everything(writeFile(t, threeClasses(60)))
	f := begin(t, job, readSet(t, job), "", quiet)
	start := time.Now()
	for _, c := range []struct {
		name  string
		k     keeper
		steps int
		after time.Duration
		want  bool
	}{
		{"too few steps", keeper{everySteps: 3}, 2, time.Hour, false},
		{"enough steps", keeper{everySteps: 3}, 3, 0, true},
		{"too early", keeper{every: time.Minute}, 100, 59 * time.Second, false},
		{"time", keeper{every: time.Minute}, 1, time.Minute, true},
		{"whichever comes first", keeper{every: time.Minute, everySteps: 10}, 1, time.Minute, true},
	} {
		c.k.dir, c.k.log, c.k.last = t.TempDir(), quiet, start
		for range c.steps {
			c.k.stepped(f, start.Add(c.after))
		}
		_, err := os.Stat(filepath.Join(c.k.dir, checkpointFile))
		if written := !errors.Is(err, fs.ErrNotExist); written != c.want {
			t.Errorf("%s: written is %v", c.name, written)
		}
	}
}

// Whatever the bytes are: no panic, no memory that they only claim.
func FuzzDecodeCheckpoint(f *testing.F) {
	tensors := func() []nn.Tensor { return []nn.Tensor{{Name: "w", Value: make([]float32, 3)}} }
	var good bytes.Buffer
	if err := encodeCheckpoint(&good, checkpointState{Run: "r", position: position{Epoch: 1, Step: 2}}, tensors()); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes(), false)
	f.Add(good.Bytes()[:good.Len()-sha256.Size], true)
	f.Add([]byte(checkpointMagic+"\xff\xff\xff\xff"), true)
	f.Add([]byte(checkpointMagic+"\x02\x00\x00\x00{}"), true)
	f.Fuzz(func(t *testing.T, content []byte, seal bool) {
		if seal {
			content = sealed(content)
		}
		s, err := decodeCheckpoint(bytes.NewReader(content), "r", tensors())
		damaged := (*damagedError)(nil)
		if err != nil && !errors.As(err, &damaged) && !errors.Is(err, errOtherRun) {
			t.Errorf("the error is %v", err)
		}
		if err == nil && s.Run != "r" {
			t.Errorf("the run is %q", s.Run)
		}
	})
}

// sealed appends the checksum, so that a fuzzer gets past it.
func sealed(b []byte) []byte {
	hash := sha256.Sum256(b)
	return append(bytes.Clone(b), hash[:]...)
}
