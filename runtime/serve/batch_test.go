package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/serve/internal/inference"
	"trainyard.dev/trainyard/runtime/spec"
)

// batchedVersion batches the network that repeats its first three columns,
// though it is far too small to gain by it.
func batchedVersion(t testing.TB, b Batching) *version {
	t.Helper()
	s, err := newSignature(4, 3, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := newVersion(served("iris", "a"), s, irisNetwork(), func() {})
	v.share(b)
	return v
}

// TestBatchesAnswerEveryoneTheirOwn asks for random rows from many goroutines.
func TestBatchesAnswerEveryoneTheirOwn(t *testing.T) {
	v := batchedVersion(t, Batching{Rows: 16, Delay: 100 * time.Microsecond})
	var clients sync.WaitGroup
	var asked atomic.Int64
	for client := range 12 {
		random := rand.New(rand.NewPCG(7, uint64(client)))
		clients.Go(func() {
			b := new(buffers)
			for range 500 {
				values := make([]float32, 4*(1+random.IntN(20)))
				for i := range values {
					values[i] = random.Float32()
				}
				b.phases = phases{}
				y, err := v.predict(t.Context(), rows(4, values...), b)
				if err != nil || y.Rows != len(values)/4 {
					t.Errorf("got %d rows, %v", y.Rows, err)
					return
				}
				asked.Add(int64(y.Rows))
				for i := range y.Rows {
					if !slices.Equal(y.Data[i*3:i*3+3], values[i*4:i*4+3]) {
						t.Errorf("row %d of %d is another's", i, y.Rows)
						return
					}
				}
			}
		})
	}
	clients.Wait()
	if n := v.statistics.executions.Load(); n >= 6000 {
		t.Errorf("%d computations for 6000 requests: nothing was batched", n)
	}
}

// held is a batcher whose computations wait until they are let go.
type held struct {
	*batcher
	begun  chan int // rows of a computation that begins
	letGo  chan struct{}
	failed bool
}

func newHeld(b Batching) *held {
	h := &held{begun: make(chan int), letGo: make(chan struct{})}
	h.batcher = &batcher{Batching: b, outputs: 1, compute: func(x blas32.General) []float32 {
		h.begun <- x.Rows
		<-h.letGo
		if h.failed {
			panic("as the test wants it")
		}
		return slices.Clone(x.Data)
	}}
	return h
}

// ask predicts n rows in the background.
func (h *held) ask(ctx context.Context, n int) <-chan error {
	answered := make(chan error, 1)
	go func() {
		defer func() { _ = recover() }()
		answered <- h.predict(ctx, rows(1, make([]float32, n)...), new(buffers))
	}()
	return answered
}

func (h *held) gathered() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gathering == nil {
		return 0
	}
	return h.gathering.rows
}

func TestRequestsGatherWhileOthersAreComputed(t *testing.T) {
	h := newHeld(Batching{Rows: 8, Delay: time.Millisecond})
	answers := []<-chan error{h.ask(t.Context(), 1)}
	if n := <-h.begun; n != 1 {
		t.Fatalf("the first computation has %d rows", n)
	}
	for i := range 3 {
		answers = append(answers, h.ask(t.Context(), 2))
		await(t, "the request gathers", func() bool { return h.gathered() == 2*(i+1) })
	}
	gone, leave := context.WithCancel(t.Context())
	left := h.ask(gone, 1)
	await(t, "the request gathers", func() bool { return h.gathered() == 7 })
	leave()
	if err := <-left; asProblem(err).status != statusClientGone {
		t.Errorf("who left got %v", err)
	}
	// Two rows are too many for this batch: it is closed, and another begins.
	answers = append(answers, h.ask(t.Context(), 2))
	await(t, "the next batch gathers", func() bool { return h.gathered() == 2 })
	h.letGo <- struct{}{}
	for _, want := range []int{7, 2} {
		if n := <-h.begun; n != want && n != 9-want {
			t.Errorf("a computation has %d rows", n)
		}
		h.letGo <- struct{}{}
	}
	for _, a := range answers {
		if err := <-a; err != nil {
			t.Error(err)
		}
	}
}

func TestPanicFailsItsBatchAndNoOther(t *testing.T) {
	h := newHeld(Batching{Rows: 8, Delay: time.Millisecond})
	first := h.ask(t.Context(), 1)
	<-h.begun
	h.ask(t.Context(), 1) // leads, and panics
	await(t, "the request gathers", func() bool { return h.gathered() == 1 })
	member := h.ask(t.Context(), 1)
	await(t, "the request gathers", func() bool { return h.gathered() == 2 })
	h.letGo <- struct{}{}
	if err := <-first; err != nil {
		t.Error(err)
	}
	<-h.begun
	h.failed = true
	h.letGo <- struct{}{}
	if err := <-member; asProblem(err).status != 500 {
		t.Errorf("got %v", err)
	}
}

// TestWaitForACrowd lets many ask at once, then one alone: it waits for the
// crowd once, for no longer than the delay, and after that not at all.
func TestWaitForACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &batcher{Batching: Batching{Rows: 8, Delay: time.Second}, outputs: 1, last: 5, compute: func(x blas32.General) []float32 {
			return slices.Clone(x.Data)
		}}
		took := func() time.Duration {
			began := time.Now()
			if err := q.predict(t.Context(), rows(1, 0), new(buffers)); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		for i, want := range []time.Duration{time.Second, 0, 0} {
			if got := took(); got != want {
				t.Errorf("request %d waited %v, want %v", i, got, want)
			}
		}
		// A crowd that comes back does not wait either.
		q.last = 5
		var crowd sync.WaitGroup
		for range 5 {
			crowd.Go(func() {
				if got := took(); got != 0 {
					t.Errorf("one of the crowd waited %v", got)
				}
			})
		}
		crowd.Wait()
	})
}

func TestOnlyLargeNetworksAreBatched(t *testing.T) {
	network := func(widths ...int) *nn.Network {
		n := &nn.Network{Inputs: widths[0]}
		for i := range widths[1:] {
			n.Layers = append(n.Layers, nn.NewDense(widths[i], widths[i+1], nn.Activation{}))
		}
		return n
	}
	b := Defaults().Batching
	if b.suits(network(64, 64, 32, 10)) || b.suits(network(784, 512, 256, 10)) || !b.suits(network(1024, 4096, 4096, 10)) {
		t.Error("batching suits the wrong network")
	}
	b.Rows = 1
	if b.suits(network(1024, 4096, 4096, 10)) {
		t.Error("batching that is off suits a network")
	}
}

// TestOneBadRowFailsAlone batches a row that overflows with one that does not.
func TestOneBadRowFailsAlone(t *testing.T) {
	v := batchedVersion(t, Batching{Rows: 8, Delay: time.Hour})
	v.network.Layers[0].(*nn.Dense).Weight.Data[0] = 2
	v.batcher.last = 2
	var both sync.WaitGroup
	both.Go(func() {
		_, err := v.predict(t.Context(), rows(4, 3e38, 0, 0, 0), new(buffers))
		if !strings.Contains(text(err), "the model computed +Inf for row 0, output 0") {
			t.Errorf("the row that overflows: got %v", err)
		}
	})
	both.Go(func() {
		y, err := v.predict(t.Context(), rows(4, 1, 2, 3, 4), new(buffers))
		if err != nil || !slices.Equal(y.Data, []float32{2, 2, 3}) {
			t.Errorf("the other row: got %v, %v", y.Data, err)
		}
	})
	both.Wait()
	if n := v.statistics.executions.Load(); n != 1 {
		t.Errorf("%d computations", n)
	}
}

// TestSwapOfWeightsUnderLoadMixesNothing has clients ask over REST and gRPC at
// full speed, in batches, while versions and weights change: every answer is
// that of the version that it names, and none fails.
func TestSwapOfWeightsUnderLoadMixesNothing(t *testing.T) {
	c := newCatalog()
	values := map[string]float32{}
	for i, letter := range []string{"a", "b", "c"} {
		c.set(digest(letter), constant(float32(i)), nil)
		values[strings.Repeat(letter, 12)] = float32(i)
	}
	s := newServer(testOptions(), func(ctx context.Context, m spec.ServedModel) (*version, error) {
		v, err := c.Open(ctx, m)
		if err == nil {
			v.share(Batching{Rows: 8, Delay: 50 * time.Microsecond})
		}
		return v, err
	})
	t.Cleanup(s.Models().Close)
	mustLoad(t, s, weighted("a", 1))
	r := runToEnd(t, s)
	rpc := inference.NewGRPCInferenceServiceClient(dial(t, r.rpc))
	done := make(chan struct{})
	var clients sync.WaitGroup
	var answered atomic.Int64
	load := func(ask func() (version string, value float32, err error)) {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				version, value, err := ask()
				if want, ok := values[version]; err != nil || !ok || value != want {
					t.Errorf("version %s answers %v, %v", version, value, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	for range 4 {
		load(func() (string, float32, error) {
			request := one("FP32", &contents{Fp32Contents: []float32{0}}, 1, 1)
			request.ModelName = "one"
			got, err := rpc.ModelInfer(t.Context(), request)
			if err != nil {
				return "", 0, err
			}
			return got.GetModelVersion(), got.GetOutputs()[0].GetContents().GetFp32Contents()[0], nil
		})
		load(func() (string, float32, error) {
			response, err := http.Post(r.url+"/v2/models/one/infer", "application/json", strings.NewReader(oneRow))
			if err != nil {
				return "", 0, err
			}
			defer response.Body.Close()
			var got struct {
				Version string `json:"model_version"`
				Outputs []struct{ Data []float32 }
			}
			if err := json.NewDecoder(response.Body).Decode(&got); err != nil || len(got.Outputs) != 1 {
				return "", 0, fmt.Errorf("%s: %w", response.Status, err)
			}
			return got.Version, got.Outputs[0].Data[0], nil
		})
	}
	for i := range 60 {
		before := answered.Load()
		mustLoad(t, s, [][]spec.ServedModel{
			{weighted("a", 90), weighted("b", 10)}, {weighted("b", 50), weighted("c", 50)}, {weighted("c", 1), weighted("a", 2)},
		}[i%3]...)
		await(t, "requests are answered", func() bool { return answered.Load() > before+8 || t.Failed() })
	}
	close(done)
	clients.Wait()
}
