package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// oneServer serves the model "one", of one input, from the catalog.
func oneServer(t testing.TB, c *catalog) *Server {
	t.Helper()
	s := newServer(testOptions(), c.Open)
	t.Cleanup(s.Models().Close)
	return s
}

func mustLoad(t testing.TB, s *Server, m ...spec.ServedModel) {
	t.Helper()
	if err := s.Models().Load(t.Context(), m...); err != nil {
		t.Fatal(err)
	}
}

const oneRow = `{"inputs":[{"name":"inputs","datatype":"FP32","shape":[1,1],"data":[0]}]}`

func TestSwapUnderLoadLosesNothing(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	c.set(digest("b"), constant(2), nil)
	s := oneServer(t, c)
	mustLoad(t, s, served("one", "a"))
	h := s.Handler()
	valid := map[string]bool{}
	for letter, value := range map[string]string{"a": "1", "b": "2"} {
		valid[`{"model_name":"one","model_version":"`+strings.Repeat(letter, 12)+
			`","outputs":[{"name":"outputs","datatype":"FP32","shape":[1,1],"data":[`+value+`]}]}`] = true
	}

	var clients sync.WaitGroup
	var answered atomic.Int64
	done := make(chan struct{})
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				got := call(h, "POST", "/v2/models/one/infer", oneRow)
				if got.code != http.StatusOK || !valid[got.body] {
					t.Errorf("got %d %s", got.code, got.body)
					return
				}
				answered.Add(1)
			}
		})
	}
	for i := range 100 {
		before := answered.Load()
		mustLoad(t, s, served("one", []string{"b", "a"}[i%2]))
		for answered.Load() == before && !t.Failed() {
			time.Sleep(10 * time.Microsecond)
		}
	}
	close(done)
	clients.Wait()
	await(t, "only the last version is open", func() bool {
		return c.opened(digest("a")) == 1 && c.opened(digest("b")) == 0
	})
}

func TestRequestFinishesOnItsVersion(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	c.set(digest("b"), constant(2), nil)
	s := oneServer(t, c)
	mustLoad(t, s, served("one", "a"))
	v, err := s.models.acquire("one", "")
	if err != nil {
		t.Fatal(err)
	}
	mustLoad(t, s, served("one", "b"))
	if c.opened(digest("a")) != 1 {
		t.Error("the old version was closed while a request ran on it")
	}
	y, err := v.predict(t.Context(), rows(1, 0), new(buffers))
	if err != nil || y.Data[0] != 1 {
		t.Errorf("the old version answers %v, %v", y.Data, err)
	}
	v.release()
	await(t, "the old version is closed after its last request", func() bool { return c.opened(digest("a")) == 0 })
}

func TestFailedLoadKeepsTheOldVersion(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	s := oneServer(t, c)
	mustLoad(t, s, served("one", "a"))
	h := s.Handler()

	err := s.Models().Load(t.Context(), served("one", "b"))
	if text(err) != "the registry does not answer" {
		t.Errorf("got %v", err)
	}
	if got := call(h, "POST", "/v2/models/one/infer", oneRow); !strings.Contains(got.body, `"data":[1]`) {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if got := call(h, "GET", "/v2/health/ready", ""); got.code != http.StatusOK {
		t.Errorf("got %d %s", got.code, got.body)
	}
	want := []spec.ModelStatus{
		{Name: "one", Version: "aaaaaaaaaaaa", Digest: digest("a"), State: spec.StateReady},
		{Name: "one", Version: "bbbbbbbbbbbb", Digest: digest("b"), State: spec.StateUnavailable, Reason: "the registry does not answer"},
	}
	if got := s.Models().Index(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// Back to what is loaded: calls the other one off.
	mustLoad(t, s, served("one", "a"))
	if got := s.Models().Index(); fmt.Sprint(got) != fmt.Sprint(want[:1]) {
		t.Errorf("got %v, want %v", got, want[:1])
	}
}

func TestLoadIsTriedUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCatalog()
		s := newServer(testOptions(), c.Open)
		defer s.Models().Close()
		h := s.Handler()
		if err := s.Models().Configure(spec.Serve{Models: []spec.ServedModel{served("one", "a")}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := call(h, "GET", "/v2/health/ready", "")
		if got.code != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" ||
			!strings.Contains(got.body, `"ready":false,"error":"model one is not loaded: the registry does not answer"`) {
			t.Errorf("got %d %s", got.code, got.body)
		}
		got = call(h, "POST", "/v2/models/one/infer", oneRow)
		if got.code != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "1" {
			t.Errorf("got %d %s %v", got.code, got.body, got.header)
		}
		time.Sleep(time.Hour)
		if n := c.tried(digest("a")); n < 115 || n > 160 {
			t.Errorf("%d attempts in an hour, want one every 24 to 30 s", n)
		}
		c.set(digest("a"), constant(1), nil)
		time.Sleep(31 * time.Second)
		if got := call(h, "GET", "/v2/health/ready", ""); got.code != http.StatusOK {
			t.Errorf("got %d %s", got.code, got.body)
		}
	})
}

func TestWhatWaitingDoesNotMendIsTriedSlowly(t *testing.T) {
	for name, err := range map[string]error{
		"not found": fmt.Errorf("pulling: %w", &store.NotFoundError{}),
		"unfit":     unfit{errors.New("golden row 0 differs")},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCatalog()
			c.set(digest("a"), nil, err)
			s := newServer(testOptions(), c.Open)
			defer s.Models().Close()
			if got := s.Models().Load(t.Context(), served("one", "a")); !errors.Is(got, err) {
				t.Errorf("%s: got %v", name, got)
			}
			time.Sleep(time.Hour)
			if n := c.tried(digest("a")); n < 12 || n > 17 {
				t.Errorf("%s: %d attempts in an hour", name, n)
			}
			if got := s.Models().Index()[0].Reason; got != err.Error() {
				t.Errorf("%s: reason %q", name, got)
			}
			// Whoever asks again gets an attempt at once, and no second one.
			before := c.tried(digest("a"))
			_ = s.Models().Load(t.Context(), served("one", "a"))
			time.Sleep(time.Second)
			if n := c.tried(digest("a")) - before; n != 1 {
				t.Errorf("%s: %d attempts after asking again", name, n)
			}
		})
	}
}

func TestRetryDelay(t *testing.T) {
	passing, gone := errors.New("connection refused"), unfit{errors.New("x")}
	for _, c := range []struct {
		failures int
		err      error
		jitter   float64
		want     time.Duration
	}{
		{1, passing, 0, 500 * time.Millisecond},
		{2, passing, 0, time.Second},
		{3, passing, 0.5, 1800 * time.Millisecond},
		{7, passing, 0, 30 * time.Second},
		{1 << 40, passing, 0, 30 * time.Second},
		{1, gone, 0, 5 * time.Minute},
		{9, gone, 1, 4 * time.Minute},
	} {
		if got := retryDelay(c.failures, c.err, c.jitter); got != c.want {
			t.Errorf("after %d failures (%v), jitter %v: got %v, want %v", c.failures, c.err, c.jitter, got, c.want)
		}
	}
}

// TestNewerLoadReplacesOlder holds the load of a version, asks for another, and
// lets go: the older must neither answer nor stay open.
func TestNewerLoadReplacesOlder(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	c.set(digest("b"), constant(2), nil)
	hold := make(chan struct{})
	s := newServer(testOptions(), func(ctx context.Context, m spec.ServedModel) (*version, error) {
		v, err := c.Open(ctx, m)
		if m.Digest == digest("a") {
			<-hold
		}
		return v, err
	})
	t.Cleanup(s.Models().Close)
	first := make(chan error, 1)
	go func() { first <- s.Models().Load(t.Context(), served("one", "a")) }()
	for c.opened(digest("a")) == 0 {
		time.Sleep(time.Millisecond)
	}
	mustLoad(t, s, served("one", "b"))
	if err := <-first; !strings.Contains(text(err), "another version, bbbbbbbbbbbb, was asked for") {
		t.Errorf("got %v", err)
	}
	close(hold)
	s.Models().loads.Wait()
	if index := s.Models().Index(); len(index) != 1 || index[0].Digest != digest("b") || c.opened(digest("a")) != 0 {
		t.Errorf("got %v, and %d versions of the older are open", index, c.opened(digest("a")))
	}
}

// TestWhileItLoads holds a load: nobody waits longer than it wants, and all
// answers say what is going on.
func TestWhileItLoads(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	hold := make(chan struct{})
	s := newServer(testOptions(), func(ctx context.Context, m spec.ServedModel) (*version, error) {
		<-hold
		return c.Open(ctx, m)
	})
	t.Cleanup(s.Models().Close)
	if err := s.Models().Configure(spec.Serve{Models: []spec.ServedModel{served("one", "a")}}); err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Models().Load(impatient, served("one", "a")); asProblem(err).status != 503 || !strings.Contains(text(err), "is still being loaded") {
		t.Errorf("got %v", err)
	}
	h := s.Handler()
	for _, path := range []string{"/v2/health/ready", "/v2/models/one/ready", "/v2/models/one/versions/aaaaaaaaaaaa", "/v1/models/one"} {
		if got := call(h, "GET", path, ""); got.code != 503 || got.header.Get("Retry-After") != "1" || !strings.Contains(got.body, "model one is being loaded") {
			t.Errorf("%s: got %d %s", path, got.code, got.body)
		}
	}
	if got := call(h, "GET", "/v2/models/one/versions/7", ""); got.code != 404 {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if got := call(h, "POST", "/v2/repository/index", ""); !strings.Contains(got.body, `"state":"LOADING"`) {
		t.Errorf("got %d %s", got.code, got.body)
	}
	close(hold)
	mustLoad(t, s, served("one", "a"))
	if got := call(h, "GET", "/v2/health/ready", ""); got.code != 200 {
		t.Errorf("got %d %s", got.code, got.body)
	}
}

func TestClosedModelsLoadNothing(t *testing.T) {
	s := oneServer(t, newCatalog())
	s.Models().Close()
	if err := s.Models().Load(t.Context(), served("one", "a")); text(err) != "the server is stopping" {
		t.Errorf("got %v", err)
	}
}

func TestUnload(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	s := oneServer(t, c)
	mustLoad(t, s, served("one", "a"))
	if err := s.Models().Unload(t.Context(), "one", ""); err != nil {
		t.Fatal(err)
	}
	if c.opened(digest("a")) != 0 {
		t.Error("the version is still open")
	}
	if got := call(s.Handler(), "POST", "/v2/models/one/infer", oneRow); got.code != http.StatusNotFound {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if err := s.Models().Unload(t.Context(), "one", ""); text(err) != `there is no model "one"; the server has none` {
		t.Errorf("got %v", err)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	good := served("one", "a")
	for _, c := range []struct {
		change func(*spec.ServedModel)
		want   string
	}{
		{func(m *spec.ServedModel) { m.Name = "" }, `the model's name is ""`},
		{func(m *spec.ServedModel) { m.Name = "a/b" }, `the model's name is "a/b"`},
		{func(m *spec.ServedModel) { m.Name = "a:predict" }, `the model's name is "a:predict"`},
		{func(m *spec.ServedModel) { m.Digest = "sha256:../../etc" }, `the digest of model one is "sha256:../../etc"`},
		{func(m *spec.ServedModel) { m.Repository.Name = "" }, "model one has no repository"},
	} {
		bad := good
		c.change(&bad)
		s := oneServer(t, newCatalog())
		if err := s.Models().Configure(spec.Serve{Models: []spec.ServedModel{good, bad}}); !strings.Contains(text(err), "models[1]: "+c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
		if len(s.Models().Index()) != 0 {
			t.Error("part of a wrong configuration was taken")
		}
	}
}

func TestReadinessIsAboutTheConfiguration(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	s := oneServer(t, c)
	if err := s.Models().Configure(spec.Serve{Models: []spec.ServedModel{served("one", "a")}}); err != nil {
		t.Fatal(err)
	}
	mustLoad(t, s, served("one", "a"))
	// A model that was only pushed, and fails, must not take the others away.
	if err := s.Models().Load(t.Context(), served("two", "b")); err == nil {
		t.Error("a load succeeded without a model")
	}
	if err := s.ready(); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestLargeRequestsAreChunked(t *testing.T) {
	s := irisServer(t, nil)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	for _, n := range []int{1, 2, 3, 255, 256, 257, 1000} {
		values := make([]float32, n*4)
		for i := range values {
			values[i] = float32(i)
		}
		y, err := v.predict(t.Context(), rows(4, values...), new(buffers))
		if err != nil || y.Rows != n {
			t.Fatalf("%d rows: got %d, %v", n, y.Rows, err)
		}
		for i := range n {
			if y.Data[i*3+2] != float32(i*4+2) {
				t.Fatalf("%d rows: row %d is %v", n, i, y.Data[i*3:i*3+3])
			}
		}
	}
}

func TestCanceledRequestStops(t *testing.T) {
	s := irisServer(t, nil)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.predict(ctx, rows(4, 1, 2, 3, 4), new(buffers)); asProblem(err).status != statusClientGone {
		t.Errorf("got %v", err)
	}
}

func TestGoldenRowsAreChecked(t *testing.T) {
	s, err := newSignature(4, 3, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := newVersion(served("iris", "a"), s, irisNetwork(), func() {})
	in := [][]float32{{1, 2, 3, 4}, {1000, 0, 0, 0}}
	for _, c := range []struct {
		outputs [][]float32
		want    string
	}{
		{[][]float32{{1, 2, 3}, {1000, 0, 0}}, ""},
		{[][]float32{{1.00009, 2, 3}, {1000.09, 0, 0}}, ""},
		{[][]float32{{1, 2, 3}, {1000.2, 0, 0}}, "golden row 1: output 0 is 1000, but was 1000.2"},
		{[][]float32{{1, 2, 3.001}, {1000, 0, 0}}, "golden row 0: output 2 is 3, but was 3.001"},
		{[][]float32{{1, 2, 3}}, "2 golden inputs and 1 golden outputs"},
		{[][]float32{{1, 2, 3}, {1}}, "golden row 1 has 4 inputs and 1 outputs"},
	} {
		if err := v.checkGolden(in, c.outputs); (err == nil) != (c.want == "") || !strings.Contains(text(err), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func decoded[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}
