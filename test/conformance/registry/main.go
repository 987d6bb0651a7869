// Command registry holds the models that the conformance tests ask: it makes
// them, pushes them to a registry of its own on the loopback interface, writes
// the server's configuration to the file that it is given, and runs until its
// standard input ends.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, config string, until io.Reader) error {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	var c spec.Serve
	for _, m := range []*model.Model{iris(), line()} {
		served, err := push(ctx, host, m)
		if err != nil {
			return err
		}
		c.Models = append(c.Models, served)
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	// Renamed, so that whoever waits for the file finds it whole.
	if err := os.WriteFile(config+".part", text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(config+".part", config); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, until)
	return err
}

// iris tells three classes apart: it puts out the first three of its columns.
func iris() *model.Model {
	d := nn.NewDense(4, 3, nn.Activation{})
	for i := range 3 {
		d.Weight.Data[i*4+i] = 1
	}
	return &model.Model{
		Network: &nn.Network{Inputs: 4, Layers: []nn.Layer{d}},
		Metadata: model.Metadata{
			Name:    "iris",
			Inputs:  []string{"sepal_length", "sepal_width", "petal_length", "petal_width"},
			Label:   "species",
			Classes: []string{"setosa", "versicolor", "virginica"},
		},
	}
}

// line predicts a number: 2x+1.
func line() *model.Model {
	d := nn.NewDense(1, 1, nn.Activation{})
	d.Weight.Data[0], d.Bias[0] = 2, 1
	return &model.Model{
		Network:  &nn.Network{Inputs: 1, Layers: []nn.Layer{d}},
		Metadata: model.Metadata{Name: "line", Inputs: []string{"x"}, Label: "y"},
	}
}

func push(ctx context.Context, host string, m *model.Model) (spec.ServedModel, error) {
	dir, err := os.MkdirTemp("", "conformance-model-")
	if err != nil {
		return spec.ServedModel{}, err
	}
	defer os.RemoveAll(dir)
	if err := model.Write(dir, m); err != nil {
		return spec.ServedModel{}, err
	}
	repo := spec.Repository{Name: host + "/models/" + m.Metadata.Name, PlainHTTP: true}
	pushed, err := store.Push(ctx, repo, dir)
	if err != nil {
		return spec.ServedModel{}, err
	}
	return spec.ServedModel{Name: m.Metadata.Name, Repository: repo, Digest: pushed.Digest}, nil
}
