package app

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"trainyard.dev/trainyard/runtime/spec"
)

// crew is the workers of a run, each a process of its own.
type crew struct {
	t          *testing.T
	job        spec.Train
	collective string
	workers    []*process
}

func newCrew(t *testing.T, job spec.Train, workers int32) *crew {
	t.Helper()
	gloo := filepath.Join(t.TempDir(), "gloo")
	if out, err := exec.CommandContext(t.Context(), "../../../hack/gloo", gloo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	job.Workers = &spec.Workers{Count: workers, Leader: freeAddress(t)}
	c := &crew{t: t, job: job, collective: filepath.Join(gloo, "collective")}
	for rank := range int(workers) {
		c.workers = append(c.workers, c.start(rank))
	}
	return c
}

// freeAddress is where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// start starts a worker, as its pod would be.
func (c *crew) start(rank int) *process {
	c.t.Helper()
	listen := "127.0.0.1:0"
	if rank == 0 {
		listen = c.job.Workers.Leader
	}
	return startWith(c.t, encoded(c.t, c.job),
		[]string{spec.RankVariable + "=" + strconv.Itoa(rank), spec.AddressVariable + "=127.0.0.1"},
		"--listen="+listen, "--collective="+c.collective)
}

// end waits until worker 0 has ended, and stops the others, as Kubernetes does.
func (c *crew) end() spec.Result {
	c.t.Helper()
	code, result := c.workers[0].end(c.t)
	if code != 0 {
		c.t.Fatalf("worker 0 ended with code %d and %+v", code, result.Failure)
	}
	for rank, w := range c.workers[1:] {
		if err := w.Process.Signal(syscall.SIGTERM); err != nil {
			c.t.Fatal(err)
		}
		if code, result := w.end(c.t); code != spec.ExitInterrupted || result.Model != nil {
			c.t.Errorf("worker %d ended with code %d and %+v", rank+1, code, result)
		}
	}
	return result
}

// lose ends a worker with a signal in the middle of its work, and starts another
// in its place.
func (c *crew) lose(rank int, signal syscall.Signal) {
	c.t.Helper()
	w := c.workers[rank]
	if !w.follow(c.t, func(p spec.Progress) bool { return p.Epoch >= 2 && p.Activity == "" }) {
		c.t.Fatalf("worker %d has ended", rank)
	}
	if err := w.Process.Signal(signal); err != nil {
		c.t.Fatal(err)
	}
	for w.log.Scan() { // until it is gone
		c.t.Log(w.log.Text())
	}
	_ = w.Wait() // how it ended is what the test did to it
	c.workers[rank] = c.start(rank)
}

// numbers are the tensors of a model.safetensors, one after the other.
func numbers(t *testing.T, file []byte) []float32 {
	t.Helper()
	data := file[8+binary.LittleEndian.Uint64(file):]
	values := make([]float32, len(data)/4)
	if err := binary.Read(bytes.NewReader(data), binary.LittleEndian, values); err != nil {
		t.Fatal(err)
	}
	return values
}

// Several processes make the model of one, to 1e-5; and whichever of them is
// killed or stopped, wherever it was, they make it bit for bit.
func TestWorkersLoseOne(t *testing.T) {
	t.Parallel()
	job := longJob(t, 12)
	code, result := start(t, encoded(t, job)).end(t)
	if code != 0 {
		t.Fatalf("alone, the trainer ends with code %d and %+v", code, result.Failure)
	}
	alone := numbers(t, weights(t, job, result))

	undisturbed := weights(t, job, newCrew(t, job, 2).end())
	for i, v := range numbers(t, undisturbed) {
		if d := math.Abs(float64(v - alone[i])); !(d <= 1e-5) {
			t.Fatalf("number %d is %v, alone it is %v", i, v, alone[i])
		}
	}
	for _, rank := range []int{0, 1} {
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			t.Run(fmt.Sprintf("worker %d, %v", rank, signal), func(t *testing.T) {
				job := job
				job.Checkpoint = &spec.Checkpoint{Directory: t.TempDir(), EverySteps: 7}
				c := newCrew(t, job, 2)
				c.lose(rank, signal)
				if got := weights(t, job, c.end()); !slices.Equal(got, undisturbed) {
					t.Error("the weights are not those of a run that was left alone")
				}
			})
		}
	}
}

// A trainer without the program that connects workers says so, and that trying
// again is of no use.
func TestWorkersNeedTheirProgram(t *testing.T) {
	job := job(t, 3)
	job.Workers = &spec.Workers{Count: 2, Leader: "127.0.0.1:1"}
	tr := startWith(t, encoded(t, job), []string{spec.RankVariable + "=1"}, "--listen=127.0.0.1:0", "--collective="+filepath.Join(t.TempDir(), "collective"))
	code, result := tr.end(t)
	if code != spec.ExitInvalid || result.Failure == nil || !strings.Contains(result.Failure.Message, "set spec.workers to 1") {
		text, _ := json.Marshal(result)
		t.Errorf("code %d with %s", code, text)
	}
}
