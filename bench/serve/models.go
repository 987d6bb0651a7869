package main

import (
	"context"
	"io"
	"log"
	"math/rand/v2"
	"net/http/httptest"
	"path/filepath"
	"strings"

	ocireg "github.com/google/go-containerregistry/pkg/registry"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// registry is a real one, in this process, on the loopback interface.
type registry struct{ *httptest.Server }

func startRegistry() *registry {
	return &registry{httptest.NewServer(ocireg.New(ocireg.Logger(log.New(io.Discard, "", 0))))}
}

// served is a model that was pushed, and the folder that it was pushed from.
type served struct {
	spec.ServedModel
	dir     string
	inputs  int
	network *nn.Network
}

// pushAll makes the models that the cases need.
func (r *registry) pushAll(ctx context.Context, dir string) (map[string]*served, error) {
	models := map[string]*served{}
	for name, widths := range map[string][]int{
		"digits": {64, 64, 32, 10},
		"medium": {784, 512, 256, 10},
		"wide":   {1024, 4096, 4096, 10},
		"small":  {128, 128, 64, 10}, // about 100 KB
	} {
		m, err := r.push(ctx, filepath.Join(dir, name), name, widths)
		if err != nil {
			return nil, err
		}
		models[name] = m
	}
	return models, nil
}

// push makes a network of random weights: ReLU, and Softmax at the end.
func (r *registry) push(ctx context.Context, dir, name string, widths []int) (*served, error) {
	n := &nn.Network{Inputs: widths[0]}
	random := rand.New(rand.NewPCG(1, uint64(len(name))))
	for i, width := range widths[1:] {
		kind := nn.ReLU
		if i == len(widths)-2 {
			kind = nn.Softmax
		}
		d := nn.NewDense(widths[i], width, nn.Activation{Kind: kind})
		for k := range d.Weight.Data {
			d.Weight.Data[k] = (random.Float32() - 0.5) / 8
		}
		n.Layers = append(n.Layers, d)
	}
	if err := model.Write(dir, &model.Model{Network: n, Metadata: model.Metadata{Name: name}}); err != nil {
		return nil, err
	}
	repository := spec.Repository{Name: strings.TrimPrefix(r.URL, "http://") + "/models/" + name, PlainHTTP: true}
	pushed, err := store.Push(ctx, repository, dir)
	if err != nil {
		return nil, err
	}
	return &served{spec.ServedModel{Name: name, Repository: repository, Digest: pushed.Digest}, dir, widths[0], n}, nil
}
