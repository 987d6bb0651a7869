package train

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/spec"
)

// numbered is a set of rows that hold their number, in memory or in files.
func numbered(t *testing.T, rows, columns int, memory int64) *dataset.Set {
	t.Helper()
	var text strings.Builder
	for i := range rows {
		text.WriteString(strings.Repeat(fmt.Sprint(i)+",", columns) + fmt.Sprintln(i))
	}
	path := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := dataset.Read(t.Context(), path, dataset.Options{
		Dataset:     spec.Dataset{Label: fmt.Sprint(columns), Header: new(false)},
		MemoryBytes: memory,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	if set.Train.InFile() != (memory > 0) {
		t.Fatalf("with %d bytes of memory, the rows are in files: %v", memory, set.Train.InFile())
	}
	return set
}

// take takes an epoch's rows from one on, in batches of up to n.
func take(t *testing.T, f *feed, rows, from, n int) []int {
	t.Helper()
	if err := f.start(7, 1, from); err != nil {
		t.Fatal(err)
	}
	var taken []int
	for from < rows {
		b, err := f.next(min(n, rows-from))
		if err != nil {
			t.Fatal(err)
		}
		from += b.x.Rows
		for i, y := range b.y {
			row := b.x.Data[i*b.x.Stride : i*b.x.Stride+b.x.Cols]
			if slices.ContainsFunc(row, func(v float32) bool { return v != y }) {
				t.Fatalf("row %v has label %v", row, y)
			}
			if b.weights != nil && b.weights[i] != 2*y {
				t.Fatalf("row %v has weight %v", y, b.weights[i])
			}
			taken = append(taken, int(y))
		}
	}
	return taken
}

// A feed gives the rows of the order, with their own labels and weights, from
// any row on, in batches of any size, from memory as from files.
func TestFeed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []struct{ rows, columns int }{{10, 2}, {windowBlocks*maxBlockRows + 3, 1}, {3000, 2000}} {
		want := rowsIn(newOrder(size.rows, size.columns), 7, 1)
		for _, memory := range []int64{0, 1} {
			set := numbered(t, size.rows, size.columns, memory)
			weights := make([]float32, size.rows)
			for i := range weights {
				weights[i] = float32(2 * i)
			}
			f := newFeed(set.Train, weights, size.rows)
			for range 3 {
				from := random.IntN(size.rows)
				if got := take(t, f, size.rows, from, 1+random.IntN(size.rows)); !slices.Equal(want[from:], got) {
					t.Errorf("%v in %d bytes: from row %d on, the rows are others", size, memory, from)
				}
			}
			f.close()
		}
	}
}

// What a run publishes does not depend on how much memory its rows had.
func TestFilesGiveTheSameWeights(t *testing.T) {
	job := withDefaults(spec.Train{
		Network:  spec.Network{Layers: []spec.Layer{layer(4, spec.ReLU), layer(1, spec.Linear)}},
		Training: spec.Training{Loss: spec.MeanSquaredError, Epochs: 2, BatchSize: 37},
	})
	var weights [][]float32
	for _, memory := range []int64{0, 1} {
		f, err := newFit(job, numbered(t, 3000, 2000, memory), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.close()
		weights = append(weights, f.network.Tensors()[0].Value)
	}
	if !slices.Equal(weights[0], weights[1]) {
		t.Error("the weights differ")
	}
}
