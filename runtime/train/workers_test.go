package train

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/group"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// collective returns the path of the program that connects workers, which is
// built once.
var collective = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("../../hack/gloo", filepath.Join(gloo, "gloo")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return filepath.Join(gloo, "gloo", "collective"), nil
})

// gloo is the folder it is built in.
var gloo string

func TestMain(m *testing.M) {
	os.Exit(func() (code int) {
		var err error
		if gloo, err = os.MkdirTemp("", "gloo-"); err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(gloo)
		return m.Run()
	}())
}

// team is the workers of a run in one process. Each has a collective of its own.
type team struct {
	t       *testing.T
	job     spec.Train
	set     *dataset.Set
	options []Options
}

func newTeam(t *testing.T, job spec.Train, set *dataset.Set, workers int) *team {
	t.Helper()
	program, err := collective()
	if err != nil {
		t.Fatal(err)
	}
	roll := group.NewRoll()
	server := httptest.NewServer(roll)
	t.Cleanup(server.Close)
	job.Workers = &spec.Workers{Count: int32(workers), Leader: strings.TrimPrefix(server.URL, "http://")}
	team := &team{t: t, job: job, set: set}
	for rank := range workers {
		team.options = append(team.options, Options{
			Monitor: new(Monitor), Log: quiet,
			Worker: &Worker{Rank: rank, Address: "127.0.0.1", Collective: program, Roll: roll},
		})
	}
	return team
}

// train lets all train, and returns the run of the leader. The others are
// stopped when it is over. Each worker's context may be given.
func (team *team) train(contexts ...context.Context) (*fit, error) {
	team.t.Helper()
	over, stop := context.WithCancel(testContext(team.t))
	defer stop()
	for len(contexts) < len(team.options) {
		contexts = append(contexts, over)
	}
	var led *fit
	var failure error
	var all sync.WaitGroup
	for rank, o := range team.options {
		all.Go(func() {
			f, err := team.trainAs(contexts[rank], o)
			if rank == 0 {
				led, failure = f, err
				stop()
			}
		})
	}
	all.Wait()
	return led, failure
}

func (team *team) trainAs(ctx context.Context, o Options) (*fit, error) {
	fresh := func() (*fit, error) { return newFit(team.job, team.set, o.Monitor) }
	f, err := keep(ctx, team.job, o, fresh)
	if err != nil {
		team.t.Error(err)
		return nil, err
	}
	f, err = f.train(ctx, o, fresh)
	if o.Worker.leads() {
		team.t.Cleanup(f.close)
	} else {
		f.close()
	}
	return f, err
}

// near compares what two runs leave.
func near(t *testing.T, got, want outcome) {
	t.Helper()
	const tolerance = 1e-5
	for i, tensor := range got.Tensors {
		for j, v := range tensor.Value {
			if d := math.Abs(float64(v - want.Tensors[i].Value[j])); !(d <= tolerance) {
				t.Errorf("%s[%d] is %v, want %v", tensor.Name, j, v, want.Tensors[i].Value[j])
				break
			}
		}
	}
	for name, v := range want.Metrics {
		if d := math.Abs(got.Metrics[name] - v); !(d <= tolerance) {
			t.Errorf("%s is %v, want %v", name, got.Metrics[name], v)
		}
	}
	if got.State.Epoch != want.State.Epoch || got.Epoch != want.Epoch {
		t.Errorf("it ends in epoch %d with the weights of %d, want %d and %d", got.State.Epoch, got.Epoch, want.State.Epoch, want.Epoch)
	}
}

func outcomeOf(f *fit) outcome {
	metrics, epoch := f.finish()
	return outcome{f.network.Tensors(), metrics, epoch, f.position}
}

// Several workers make the model that one makes, whatever is in the recipe: 48
// rows in batches of 10 are not shared out evenly.
func TestWorkersMakeTheSameModel(t *testing.T) {
	t.Parallel()
	job := everything(writeFile(t, threeClasses(60)))
	set := readSet(t, job)
	alone := begin(t, job, set, "", quiet)
	end(t, alone)
	for _, workers := range []int{2, 3} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			f, err := newTeam(t, job, set, workers).train()
			if err != nil {
				t.Fatal(err)
			}
			near(t, outcomeOf(f), outcomeOf(alone))
		})
	}
}

// afterSteps is a context that is done when a run has made so many steps.
func afterSteps(ctx context.Context, m *Monitor, steps int64) (context.Context, func()) {
	ctx, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			if p := m.Progress(); int64(p.Epoch-1)*p.Steps+p.Step >= steps {
				stop()
			}
		}
	}()
	return ctx, func() { stop(); <-watched }
}

// A worker that is asked to stop leaves after a step, and nothing of that is
// lost: the others wait for another in its place, and the model has the bits that
// it would have had.
func TestWorkerIsReplaced(t *testing.T) {
	t.Parallel()
	job := everything(writeFile(t, threeClasses(60)))
	job.Training.EarlyStopping, job.Training.Epochs = nil, 60
	set := readSet(t, job)
	undisturbed, err := newTeam(t, job, set, 2).train()
	if err != nil {
		t.Fatal(err)
	}
	want := outcomeOf(undisturbed)

	job.Checkpoint = &spec.Checkpoint{Directory: t.TempDir(), EverySeconds: 1000} // only when it must
	team := newTeam(t, job, set, 2)
	follower := team.options[1]
	ctx, release := afterSteps(testContext(t), follower.Monitor, 100)
	defer release()
	replaced := make(chan struct{})
	over, stop := context.WithCancel(testContext(t))
	go func() {
		defer close(replaced)
		if _, err := team.trainAs(ctx, follower); !errors.Is(err, context.Canceled) {
			t.Errorf("the worker that is asked to stop: %v", err)
		}
		if _, err := team.trainAs(over, follower); !errors.Is(err, context.Canceled) {
			t.Errorf("the one in its place: %v", err)
		}
	}()
	f, err := team.trainAs(testContext(t), team.options[0])
	stop()
	<-replaced
	if err != nil {
		t.Fatal(err)
	}
	got := outcomeOf(f)
	for i, tensor := range got.Tensors {
		if !equalBits(tensor, want.Tensors[i]) {
			t.Errorf("%s has other bits than without a stop", tensor.Name)
		}
	}
}

func equalBits(a, b nn.Tensor) bool {
	for i, v := range a.Value {
		if math.Float32bits(v) != math.Float32bits(b.Value[i]) {
			return false
		}
	}
	return len(a.Value) == len(b.Value)
}

// All workers find that training diverges, and say so.
func TestWorkersDiverge(t *testing.T) {
	t.Parallel()
	job := numberJob(writeFile(t, line(40)), spec.Repository{})
	job.Training.Optimizer.LearningRate = 1e30
	job = withDefaults(job)
	set := readSet(t, job)
	team := newTeam(t, job, set, 2)
	together := make([]error, 2)
	var all sync.WaitGroup
	for rank, o := range team.options {
		all.Go(func() { _, together[rank] = team.trainAs(testContext(t), o) })
	}
	all.Wait()
	for rank, err := range together {
		if failure := (*Error)(nil); !errors.As(err, &failure) || failure.Failure.Reason != spec.ReasonDiverged {
			t.Errorf("worker %d: %v", rank, err)
		}
	}
}

// A trainer that can't train with others says so.
func TestWorkersAreRefused(t *testing.T) {
	job := classJob(writeFile(t, threeClasses(30)), newRegistry(t, nil))
	job.Workers = &spec.Workers{Count: 2, Leader: "127.0.0.1:1"}
	for _, c := range []struct {
		worker *Worker
		words  string
	}{
		{nil, "isn't told which one it is"},
		{&Worker{Rank: 2}, "isn't told which one it is"},
		{&Worker{Rank: 1, Collective: filepath.Join(t.TempDir(), "collective")}, "set spec.workers to 1"},
	} {
		_, err := Run(testContext(t), job, Options{Worker: c.worker})
		if failure := (*Error)(nil); !errors.As(err, &failure) || failure.ExitCode != spec.ExitInvalid || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%+v: %v, want ... %s", c.worker, err, c.words)
		}
	}
}
