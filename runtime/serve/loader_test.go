package serve

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// hub is a registry that can be switched off.
type hub struct {
	repo spec.Repository
	down atomic.Bool
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	h.repo = spec.Repository{Name: strings.TrimPrefix(s.URL, "http://") + "/models/one", PlainHTTP: true}
	return h
}

// push publishes a model that answers value, with a golden row that says so, or
// that says something else.
func (h *hub) push(t *testing.T, value, golden float32) spec.ServedModel {
	t.Helper()
	dir := t.TempDir()
	err := model.Write(dir, &model.Model{
		Network: constant(value),
		Metadata: model.Metadata{Name: "one", Inputs: []string{"x"}, Label: "y",
			Golden: &model.Golden{Inputs: [][]float32{{5}}, Outputs: [][]float32{{golden}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h.pushDir(t, dir)
}

func (h *hub) pushDir(t *testing.T, dir string) spec.ServedModel {
	t.Helper()
	pushed, err := store.Push(t.Context(), h.repo, dir)
	if err != nil {
		t.Fatal(err)
	}
	return spec.ServedModel{Name: "one", Repository: h.repo, Digest: pushed.Digest}
}

// realServer loads models from registries.
func realServer(t *testing.T) *Server {
	t.Helper()
	o := testOptions()
	o.CacheDir = t.TempDir()
	s := New(o)
	t.Cleanup(s.Models().Close)
	return s
}

// cached lists the models in the server's cache.
func cached(t *testing.T, s *Server) []string {
	t.Helper()
	entries, err := os.ReadDir(s.options.CacheDir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, "sha256:"+e.Name())
	}
	return names
}

func TestLoadFromRegistry(t *testing.T) {
	h, s := newHub(t), realServer(t)
	first, second := h.push(t, 1, 1), h.push(t, 2, 2)
	mustLoad(t, s, first)
	if got := call(s.Handler(), "POST", "/v1/models/one:predict", `{"instances":[{"x":5}]}`); got.body != `{"predictions":[[1]]}` {
		t.Errorf("got %d %s", got.code, got.body)
	}
	mustLoad(t, s, second)
	if got := call(s.Handler(), "POST", "/v2/models/one/infer", oneRow); !strings.Contains(got.body, `"data":[2]`) {
		t.Errorf("got %d %s", got.code, got.body)
	}
	await(t, "the older model leaves the cache", func() bool {
		got := cached(t, s)
		return len(got) == 1 && got[0] == second.Digest
	})
}

func TestTwoNamesShareTheFilesOfADigest(t *testing.T) {
	h, s := newHub(t), realServer(t)
	one := h.push(t, 1, 1)
	two := one
	two.Name = "two"
	mustLoad(t, s, one)
	mustLoad(t, s, two)
	if err := s.Models().Unload(t.Context(), "one", ""); err != nil {
		t.Fatal(err)
	}
	if got := cached(t, s); len(got) != 1 {
		t.Errorf("the cache holds %v", got)
	}
	if got := call(s.Handler(), "POST", "/v2/models/two/infer", oneRow); got.code != http.StatusOK {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if err := s.Models().Unload(t.Context(), "two", ""); err != nil {
		t.Fatal(err)
	}
	if got := cached(t, s); len(got) != 0 {
		t.Errorf("the cache holds %v after the last unload", got)
	}
}

func TestGoldenMismatchGetsNoTraffic(t *testing.T) {
	h, s := newHub(t), realServer(t)
	mustLoad(t, s, h.push(t, 1, 1))
	err := s.Models().Load(t.Context(), h.push(t, 2, 3))
	if _, bad := errors.AsType[unfit](err); !bad || !strings.Contains(text(err), "golden row 0: output 0 is 2, but was 3 when the model was made") {
		t.Errorf("got %v", err)
	}
	if got := call(s.Handler(), "POST", "/v2/models/one/infer", oneRow); !strings.Contains(got.body, `"data":[1]`) {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if got := cached(t, s); len(got) != 1 {
		t.Errorf("the cache holds %v", got)
	}
}

func TestCorruptModelIsRefused(t *testing.T) {
	h, s := newHub(t), realServer(t)
	for _, name := range []string{"model.onnx", "model.safetensors", "model.json"} {
		dir := t.TempDir()
		if err := model.Write(dir, &model.Model{Network: constant(1), Metadata: model.Metadata{Name: "one"}}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("garbage"), 0o644); err != nil {
			t.Fatal(err)
		}
		err := s.Models().Load(t.Context(), h.pushDir(t, dir))
		if _, bad := errors.AsType[unfit](err); !bad {
			t.Errorf("%s is garbage: got %v", name, err)
		}
	}
}

func TestMissingDigestIsNamed(t *testing.T) {
	h, s := newHub(t), realServer(t)
	m := h.push(t, 1, 1)
	m.Digest = digest("0")
	body := `{"repository":{"name":"` + h.repo.Name + `","plainHTTP":true},"digest":"` + m.Digest + `"}`
	got := call(s.Operations(), "POST", "/v2/repository/models/one/load", body)
	if got.code != http.StatusNotFound || !strings.Contains(got.body, m.Digest+" is not in repository") {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if err := s.ready(); err != nil {
		t.Errorf("a model that was only pushed makes the server unready: %v", err)
	}
}

func TestServerWaitsForItsRegistry(t *testing.T) {
	h, s := newHub(t), realServer(t)
	m := h.push(t, 1, 1)
	h.down.Store(true)
	if err := s.Models().Configure(spec.Serve{Models: []spec.ServedModel{m}}); err != nil {
		t.Fatal(err)
	}
	await(t, "the reason is visible", func() bool {
		index := s.Models().Index()
		return index[0].State == spec.StateUnavailable && strings.Contains(index[0].Reason, "503")
	})
	h.down.Store(false)
	await(t, "the model is ready", func() bool { return s.ready() == nil })
}

func TestClassifierFromRegistry(t *testing.T) {
	h, s := newHub(t), realServer(t)
	dir := t.TempDir()
	err := model.Write(dir, &model.Model{
		Network:  &nn.Network{Inputs: 4, Layers: irisNetwork().Layers},
		Metadata: model.Metadata{Name: "iris", Inputs: irisColumns, Label: "species", Classes: []string{"setosa", "versicolor", "virginica"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	mustLoad(t, s, h.pushDir(t, dir))
	got := call(s.Handler(), "POST", "/v1/models/one:predict", `{"instances":[[1,5,2,0]],"parameters":{"labels":true}}`)
	if got.body != `{"predictions":[[1,5,2]],"labels":["versicolor"]}` {
		t.Errorf("got %d %s", got.code, got.body)
	}
}
