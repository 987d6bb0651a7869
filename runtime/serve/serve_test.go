package serve

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// digest returns a valid digest that begins with the letter.
func digest(letter string) string { return "sha256:" + strings.Repeat(letter, 64) }

func served(name, letter string) spec.ServedModel {
	return spec.ServedModel{Name: name, Repository: spec.Repository{Name: "registry.example/models"}, Digest: digest(letter)}
}

var irisColumns = []string{"sepal_length", "sepal_width", "petal_length", "petal_width"}

// irisNetwork puts out its first three columns, as probabilities would be.
func irisNetwork() *nn.Network {
	d := nn.NewDense(4, 3, nn.Activation{})
	for i := range 3 {
		d.Weight.Data[i*4+i] = 1
	}
	return &nn.Network{Inputs: 4, Layers: []nn.Layer{d}}
}

// constant is a network of one input that answers value + 0*input.
func constant(value float32) *nn.Network {
	d := nn.NewDense(1, 1, nn.Activation{})
	d.Bias[0] = value
	return &nn.Network{Inputs: 1, Layers: []nn.Layer{d}}
}

// catalog opens versions of networks that lie in memory, by digest. The test
// of the loader has a registry and files instead.
type catalog struct {
	mu       sync.Mutex
	networks map[string]*nn.Network
	columns  []string
	classes  []string
	failures map[string]error
	attempts map[string]int
	open     map[string]int // versions that are not closed
}

func newCatalog() *catalog {
	return &catalog{networks: map[string]*nn.Network{}, failures: map[string]error{}, attempts: map[string]int{}, open: map[string]int{}}
}

func (c *catalog) Open(_ context.Context, m spec.ServedModel) (*version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempts[m.Digest]++
	if err := c.failures[m.Digest]; err != nil {
		return nil, err
	}
	n, ok := c.networks[m.Digest]
	if !ok {
		return nil, errors.New("the registry does not answer")
	}
	s, err := newSignature(n.Inputs, n.Outputs(), c.columns, c.classes)
	if err != nil {
		return nil, err
	}
	c.open[m.Digest]++
	return newVersion(m, s, n, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open[m.Digest]--
	}), nil
}

// set makes loads of a digest fail with err, or succeed with n.
func (c *catalog) set(digest string, n *nn.Network, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.networks[digest], c.failures[digest] = n, err
}

func (c *catalog) opened(digest string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[digest]
}

func (c *catalog) tried(digest string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts[digest]
}

func testOptions() Options {
	o := Defaults()
	o.Log = slog.New(slog.DiscardHandler)
	return o
}

// irisServer serves the model "iris".
func irisServer(t testing.TB, change func(*Options)) *Server {
	t.Helper()
	c := newCatalog()
	c.columns, c.classes = irisColumns, []string{"setosa", "versicolor", "virginica"}
	c.set(digest("a"), irisNetwork(), nil)
	o := testOptions()
	if change != nil {
		change(&o)
	}
	s := newServer(o, c.Open)
	t.Cleanup(s.Models().Close)
	if err := s.Models().Load(t.Context(), served("iris", "a")); err != nil {
		t.Fatal(err)
	}
	return s
}

// answer is what a handler said.
type answer struct {
	code   int
	body   string
	header http.Header
}

func call(h http.Handler, method, path, body string) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	text, _ := io.ReadAll(w.Body)
	return answer{w.Code, string(text), w.Header()}
}

// inferCase is a request, and what its answer must be or hold.
type inferCase struct {
	name, body string
	code       int
	want       string
}

func checkCases(t *testing.T, h http.Handler, path string, cases []inferCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := call(h, http.MethodPost, path, c.body)
			if got.code != c.code || !strings.Contains(got.body, c.want) {
				t.Errorf("%s\ngot  %d %s\nwant %d %s", c.body, got.code, got.body, c.code, c.want)
			}
			if got.header.Get("Content-Type") != "application/json" {
				t.Errorf("content type %q", got.header.Get("Content-Type"))
			}
		})
	}
}

func rows(columns int, values ...float32) blas32.General {
	return general(len(values)/columns, columns, values)
}
