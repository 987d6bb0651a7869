package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/spec"
)

// recipe is what all sides of a case train, and on what. Sides get it as a
// JSON file.
type recipe struct {
	Name string
	// Layers are the widths, from the inputs to the outputs: ReLU between, and
	// Softmax with cross-entropy and Adam at the end; one output stands for
	// least squares by plain gradient descent.
	Layers       []int
	Batch        int // 0: all rows in one step
	LearningRate float64
	// Epochs before the quality is measured. They warm up as well.
	Epochs int
	// Seeds of which the quality is the mean.
	Seeds int
	// Rows to train on come first in Data, then Held rows to measure the
	// quality on.
	Rows, Held int
	// Data is a file of float32, row-major, with the target as last column; or
	// a CSV file.
	Data string
}

func (r recipe) inputs() int  { return r.Layers[0] }
func (r recipe) outputs() int { return r.Layers[len(r.Layers)-1] }

// batch is the number of rows of a step.
func (r recipe) batch() int {
	if r.Batch == 0 {
		return r.Rows
	}
	return r.Batch
}

// multiplications of the products of a step: forward, weight gradients, and
// input gradients of all layers but the first.
func (r recipe) multiplications() float64 {
	count := 0
	for i := range r.Layers[1:] {
		products := 3
		if i == 0 {
			products = 2
		}
		count += products * r.Layers[i] * r.Layers[i+1]
	}
	return float64(count) * float64(r.batch())
}

// draw makes rows from a random network of the recipe's shape, so that there is
// something to learn. Features are normally distributed.
func draw(r recipe, path string) error {
	random := rand.New(rand.NewPCG(1, 1))
	columns, hidden := r.inputs(), min(16, 2*r.outputs())
	first, second := normal(columns*hidden, random), normal(hidden*r.outputs(), random)
	values := make([]float32, 0, (r.Rows+r.Held)*(columns+1))
	for range r.Rows + r.Held {
		x := normal(columns, random)
		values = append(values, x...)
		values = append(values, target(r, times(x, first, hidden), second, random))
	}
	return write(path, values)
}

// target is the class with the largest sum, or a number with noise.
func target(r recipe, hidden, second []float32, random *rand.Rand) float32 {
	if r.outputs() == 1 {
		return hidden[0] + float32(random.NormFloat64())
	}
	for i, h := range hidden {
		hidden[i] = max(h, 0)
	}
	sums := times(hidden, second, r.outputs())
	return float32(slices.Index(sums, slices.Max(sums)))
}

func normal(n int, random *rand.Rand) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(random.NormFloat64())
	}
	return v
}

// times multiplies x with a matrix of that many columns.
func times(x, matrix []float32, columns int) []float32 {
	sums := make([]float32, columns)
	for i, v := range x {
		for j := range sums {
			sums[j] += v * matrix[i*columns+j]
		}
	}
	return sums
}

// drawDigits takes the digits of the samples: 8 x 8 pixels, 1797 rows.
func drawDigits(r *recipe, path string) error {
	set, err := dataset.Read(context.Background(), "config/samples/digits.csv.gz", dataset.Options{
		Dataset: spec.Dataset{Label: "digit", Scaling: spec.StandardScaling, ValidationFraction: 0.2},
		Target:  dataset.Classes,
		Seed:    1,
	})
	if err != nil {
		return err
	}
	var values []float32
	for _, part := range []dataset.Part{set.Train, set.Validation} {
		for i, y := range part.Y {
			values = append(values, part.X.Data[i*part.X.Stride:][:part.X.Cols]...)
			values = append(values, y)
		}
	}
	r.Rows, r.Held = len(set.Train.Y), len(set.Validation.Y)
	return write(path, values)
}

// shortest is how many digits a number needs to be read as the same float64: 16 or
// 17 for most, which is what pandas and numpy write unless told otherwise.
const shortest = -1

// drawCSV writes a table of 20 columns of numbers and a number as label, with that
// many digits each, until the file has that many megabytes, and sets the recipe's
// rows.
func drawCSV(r *recipe, path string, megabytes, digits int) error {
	random := rand.New(rand.NewPCG(1, 1))
	var text []byte
	for j := range r.inputs() {
		text = fmt.Appendf(text, "x%d,", j)
	}
	text = append(text, "y\n"...)
	for ; len(text) < megabytes*1_000_000; r.Rows++ {
		for range r.inputs() {
			text = append(strconv.AppendFloat(text, random.NormFloat64(), 'g', digits, 64), ',')
		}
		text = append(strconv.AppendFloat(text, random.NormFloat64(), 'g', digits, 64), '\n')
	}
	return os.WriteFile(path, text, 0o644)
}

func write(path string, values []float32) error {
	bytes := make([]byte, 0, 4*len(values))
	for _, v := range values {
		bytes = binary.LittleEndian.AppendUint32(bytes, math.Float32bits(v))
	}
	return os.WriteFile(path, bytes, 0o644)
}

// prepare writes the case's data and recipe and returns the recipe's file.
func prepare(c bench, dir string) (recipe, string, error) {
	r := c.recipe
	r.Data = filepath.Join(dir, r.Name+".data")
	if err := c.draw(&r, r.Data); err != nil {
		return r, "", fmt.Errorf("making the data of %s: %w", r.Name, err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return r, "", err
	}
	path := filepath.Join(dir, r.Name+".json")
	return r, path, os.WriteFile(path, text, 0o644)
}
