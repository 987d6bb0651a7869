package train

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/spec"
)

// BenchmarkGather compares how long it takes to put a batch together with how
// long a whole step takes.
func BenchmarkGather(b *testing.B) {
	for _, c := range []struct {
		name         string
		inputs, rows int
		batch        int32
		units        []int32
	}{
		{"digits", 64, 1438, 32, []int32{64, 32, 10}},
		{"784-512-256-10", 784, 10000, 128, []int32{512, 256, 10}},
	} {
		f := benchmarkFit(b, c.inputs, c.rows, c.batch, c.units)
		taken := 0
		next := func() batch {
			if taken += int(c.batch); taken > c.rows {
				taken = int(c.batch)
				start(b, f)
			}
			rows, err := f.next(int(c.batch))
			if err != nil {
				b.Fatal(err)
			}
			return rows
		}
		b.Run(fmt.Sprintf("%s/gather", c.name), func(b *testing.B) {
			for range b.N {
				next()
			}
		})
		b.Run(fmt.Sprintf("%s/step", c.name), func(b *testing.B) {
			for range b.N {
				if err := f.makeStep(next()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchmarkFit(b *testing.B, inputs, rows int, batch int32, units []int32) *fit {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	set := &dataset.Set{Columns: make([]string, inputs), Train: dataset.Part{
		X: blas32.General{Rows: rows, Cols: inputs, Stride: inputs, Data: make([]float32, rows*inputs)}, Y: make([]float32, rows),
	}}
	for i := range set.Train.X.Data {
		set.Train.X.Data[i] = r.Float32()
	}
	for i := range set.Train.Y {
		set.Train.Y[i] = float32(r.IntN(10))
	}
	job := spec.Train{Training: spec.Training{Loss: spec.CategoricalCrossentropy, BatchSize: batch}}
	for _, u := range units {
		job.Network.Layers = append(job.Network.Layers, layer(u, spec.ReLU))
	}
	job.Network.Layers[len(units)-1].Activation = spec.Softmax
	f, err := newFit(withDefaults(job), set, new(Monitor))
	if err != nil {
		b.Fatal(err)
	}
	start(b, f)
	return f
}

func start(b *testing.B, f *fit) {
	if err := f.startAt(0); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCheckpoint writes and reads the state of 784-512-256-10 with Adam.
func BenchmarkCheckpoint(b *testing.B) {
	f, dir := benchmarkFit(b, 784, 10000, 128, []int32{512, 256, 10}), b.TempDir()
	s, err := f.state("run")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		for range b.N {
			if err := writeCheckpoint(dir, s, f.tensors()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		for range b.N {
			if _, err := readCheckpoint(dir, "run", f.tensors()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
