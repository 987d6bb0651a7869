package serve

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

func TestBudgetIsNeverExceededAndComesBack(t *testing.T) {
	b := budget{most: 100}
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for range 1000 {
				n := int64(10 + i)
				if b.take(n) == nil {
					if used := b.used.Load(); used < n {
						t.Errorf("%d bytes are used, of which %d here", used, n)
					}
					b.giveBack(n)
				}
			}
		})
	}
	wait.Wait()
	if used := b.used.Load(); used != 0 {
		t.Errorf("%d bytes are used after the end", used)
	}
	if b.take(100) != nil || b.take(1) == nil {
		t.Error("the budget is not what it should be")
	}
}

// TestBodiesShareABudget holds one body half sent while another one comes.
func TestBodiesShareABudget(t *testing.T) {
	s := irisServer(t, func(o *Options) { o.BytesInFlight = 250 })
	h := s.Handler()
	good := v2("FP32", "[1,4]", "[1,2,3,4]"+strings.Repeat(" ", 100))
	sending, rest := io.Pipe()
	first := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := httptest.NewRequest(http.MethodPost, "/v2/models/iris/infer", sending)
		r.ContentLength = 1 << 20 // a claim, which costs nothing
		h.ServeHTTP(first, r)
	}()
	if _, err := io.WriteString(rest, good[:120]); err != nil {
		t.Fatal(err)
	}
	await(t, "the half is in memory", func() bool { return s.bodies.used.Load() == 120 })
	got := call(h, http.MethodPost, "/v2/models/iris/infer", good)
	if got.code != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "1" || !strings.Contains(got.body, "as many bytes of requests in memory as it may (250)") {
		t.Errorf("the second: got %d %s", got.code, got.body)
	}
	if _, err := io.WriteString(rest, good[120:]); err != nil {
		t.Fatal(err)
	}
	rest.Close()
	<-done
	if first.Code != http.StatusOK {
		t.Errorf("the first: got %d %s", first.Code, first.Body)
	}
	if got := call(h, http.MethodPost, "/v2/models/iris/infer", good); got.code != http.StatusOK {
		t.Errorf("the third: got %d %s", got.code, got.body)
	}
	if used := s.bodies.used.Load(); used != 0 {
		t.Errorf("%d bytes are used after the end", used)
	}
}

func TestCallsShareTheBudget(t *testing.T) {
	s := irisServer(t, func(o *Options) { o.BytesInFlight = 250 })
	c := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, s).rpc))
	if err := s.bodies.take(230); err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		_, err := c.ModelInfer(t.Context(), one("FP32", &contents{Fp32Contents: make([]float32, 4)}, 4))
		return err
	}
	if err := ask(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	s.bodies.giveBack(230)
	if err := ask(); err != nil {
		t.Errorf("got %v", err)
	}
	if used := s.bodies.used.Load(); used != 0 {
		t.Errorf("%d bytes are used after the end", used)
	}
}
