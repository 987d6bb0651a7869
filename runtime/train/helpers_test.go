package train

import (
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"trainyard.dev/trainyard/runtime/spec"
)

// newRegistry starts an OCI registry of its own and returns a repository in it.
// Requests that deny wants are answered with that status.
func newRegistry(t *testing.T, deny func(*http.Request) int) spec.Repository {
	t.Helper()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if deny != nil {
			if status := deny(r); status != 0 {
				w.WriteHeader(status)
				return
			}
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return spec.Repository{Name: strings.TrimPrefix(server.URL, "http://") + "/models/test", PlainHTTP: true}
}

// writeFile returns the path of a file with that text.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data.csv")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// threeClasses is a table of points around three centres, in units that need
// scaling.
func threeClasses(rows int) string {
	r := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	text.WriteString("length,weight,kind\n")
	for i := range rows {
		c := i % 3
		centre := [][2]float64{{100, 0.1}, {200, 0.1}, {150, 0.9}}[c]
		fmt.Fprintf(&text, "%g,%g,%s\n", centre[0]+10*r.NormFloat64(), centre[1]+0.1*r.NormFloat64(), []string{"ant", "bee", "cat"}[c])
	}
	return text.String()
}

// line is a table of points on the line 3x - 2.
func line(rows int) string {
	var text strings.Builder
	text.WriteString("x,y\n")
	for i := range rows {
		x := float64(i) / float64(rows)
		fmt.Fprintf(&text, "%g,%g\n", x, 3*x-2)
	}
	return text.String()
}

func layer(units int32, activation spec.Activation) spec.Layer {
	return spec.Layer{Units: units, Activation: activation}
}

// classJob trains on threeClasses.
func classJob(source string, repository spec.Repository) spec.Train {
	return spec.Train{
		Name: "insects", Source: source, SourceName: "ConfigMap default/insects, key data.csv",
		Dataset: spec.Dataset{Label: "kind", ValidationFraction: 0.2, Scaling: spec.StandardScaling},
		Network: spec.Network{Inputs: 2, Layers: []spec.Layer{layer(16, spec.ReLU), layer(3, spec.Softmax)}},
		Training: spec.Training{
			Loss: spec.CategoricalCrossentropy, Metrics: []spec.Metric{spec.Accuracy},
			Optimizer: spec.Optimizer{Name: spec.Adam, LearningRate: 0.01}, Epochs: 10, Seed: 7,
		},
		Repository: repository,
		Lineage:    spec.Lineage{Namespace: "default", Job: "insects", UID: "1"},
	}
}

// numberJob trains on line.
func numberJob(source string, repository spec.Repository) spec.Train {
	return spec.Train{
		Name: "line", Source: source, SourceName: "line.csv",
		Dataset: spec.Dataset{Label: "y", ValidationFraction: 0.25},
		Network: spec.Network{Layers: []spec.Layer{layer(1, "")}},
		Training: spec.Training{
			Loss: spec.MeanSquaredError, Metrics: []spec.Metric{spec.MAE, spec.RMSE, spec.R2},
			Optimizer: spec.Optimizer{Name: spec.SGD, LearningRate: 0.3}, Epochs: 100, BatchSize: 16,
		},
		Repository: repository,
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
