package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// subject is what a side does: learn, and then the same work again and again.
type subject interface {
	// learn runs the recipe's epochs and returns the quality they reach.
	learn() (float64, error)
	// repeat does the work n times; a unit of work is rows rows.
	repeat(n int) error
	rows() int
}

// answer is what a side prints: first the quality, then a rate for every line
// that it reads.
type answer struct {
	Quality float64 `json:"quality"`
	Rate    float64 `json:"rate"` // rows a second
}

// serve is this project's side.
func serve(path string) error {
	s, err := newSubject(path)
	if err != nil {
		return err
	}
	quality, err := s.learn()
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(answer{Quality: quality}); err != nil {
		return err
	}
	n := 0
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if n == 0 {
			if n, err = forOneSecond(s); err != nil {
				return err
			}
		}
		start := time.Now()
		if err := s.repeat(n); err != nil {
			return err
		}
		rate := float64(n*s.rows()) / time.Since(start).Seconds()
		if err := out.Encode(answer{Rate: rate}); err != nil {
			return err
		}
	}
	return nil
}

// forOneSecond returns how often s can do its work in about a second.
func forOneSecond(s subject) (int, error) {
	start := time.Now()
	err := s.repeat(1)
	return 1 + int(time.Second/(time.Since(start)+1)), err
}

func newSubject(path string) (subject, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r recipe
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	if strings.HasPrefix(r.Name, "csv") {
		return &reading{r}, nil
	}
	return newTraining(r)
}

// reading reads the CSV file.
type reading struct{ recipe }

func (r *reading) rows() int { return r.Rows }

// learn returns the mean of the last column, to show that it was read.
func (r *reading) learn() (float64, error) {
	set, err := r.read()
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, y := range set.Train.Y {
		sum += float64(y)
	}
	return sum / float64(len(set.Train.Y)), set.Close()
}

func (r *reading) repeat(n int) error {
	for range n {
		set, err := r.read()
		if err != nil {
			return err
		}
		if err := set.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) read() (*dataset.Set, error) {
	return dataset.Read(context.Background(), r.Data, dataset.Options{
		Dataset: spec.Dataset{Label: "y"}, Target: dataset.Numbers,
		MemoryBytes: 4 << 30, // as in a pod of 8 GiB
	})
}

// training trains as runtime/train does: it shuffles the rows for every epoch,
// gathers a batch, and takes a step.
type training struct {
	recipe
	x, held       blas32.General
	y, heldTarget []float32

	random    *rand.Rand
	network   *nn.Network
	trainer   *nn.Trainer
	optimizer *nn.Optimizer
	order     []int
	batchX    blas32.General
	batchY    []float32
}

func newTraining(r recipe) (*training, error) {
	bytes, err := os.ReadFile(r.Data)
	if err != nil {
		return nil, err
	}
	t := &training{recipe: r}
	t.x, t.y = t.part(bytes, 0, r.Rows)
	t.held, t.heldTarget = t.part(bytes, r.Rows, r.Rows+r.Held)
	return t, nil
}

// part takes rows from the data file.
func (t *training) part(bytes []byte, from, to int) (blas32.General, []float32) {
	columns := t.inputs()
	x := blas32.General{Rows: to - from, Cols: columns, Stride: columns}
	y := make([]float32, 0, to-from)
	for i := from; i < to; i++ {
		for j := range columns + 1 {
			v := math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*(i*(columns+1)+j):]))
			if j == columns {
				y = append(y, v)
			} else {
				x.Data = append(x.Data, v)
			}
		}
	}
	return x, y
}

func (t *training) rows() int { return t.Rows }

func (t *training) learn() (float64, error) {
	var sum float64
	for seed := range t.Seeds {
		if err := t.start(uint64(seed)); err != nil {
			return 0, err
		}
		if err := t.repeat(t.Epochs); err != nil {
			return 0, err
		}
		quality, err := t.quality()
		if err != nil {
			return 0, err
		}
		sum += quality
	}
	return sum / float64(t.Seeds), nil
}

// start makes a new network.
func (t *training) start(seed uint64) error {
	t.random = rand.New(rand.NewPCG(seed, 0))
	t.network = &nn.Network{Inputs: t.inputs()}
	last := len(t.Layers) - 2
	for i := range last {
		t.network.Layers = append(t.network.Layers, nn.NewDense(t.Layers[i], t.Layers[i+1], nn.Activation{Kind: nn.ReLU}))
	}
	var (
		loss nn.Loss = nn.CategoricalCrossentropy{}
		rule nn.Rule = nn.NewAdam()
		end          = nn.Activation{Kind: nn.Softmax}
	)
	if t.outputs() == 1 {
		loss, rule, end = nn.LeastSquares{}, nn.SGD{}, nn.Activation{}
	}
	t.network.Layers = append(t.network.Layers, nn.NewDense(t.Layers[last], t.outputs(), end))
	t.network.Initialize(nn.GlorotUniform, t.random)
	var err error
	if t.trainer, err = nn.NewTrainer(t.network, loss, t.batch(), t.random); err != nil {
		return err
	}
	t.optimizer = nn.NewOptimizer(rule, nn.Constant(t.LearningRate), t.trainer.Parameters())
	t.order = make([]int, t.Rows)
	if t.Batch > 0 {
		t.batchX = blas32.General{Rows: t.Batch, Cols: t.inputs(), Stride: t.inputs(), Data: make([]float32, t.Batch*t.inputs())}
		t.batchY = make([]float32, t.Batch)
	}
	return nil
}

func (t *training) repeat(epochs int) error {
	for range epochs {
		if err := t.epoch(); err != nil {
			return err
		}
	}
	return nil
}

func (t *training) epoch() error {
	if t.Batch == 0 {
		return t.step(t.x, t.y)
	}
	for i := range t.order {
		t.order[i] = i
	}
	t.random.Shuffle(len(t.order), func(i, j int) { t.order[i], t.order[j] = t.order[j], t.order[i] })
	for from := 0; from < len(t.order); from += t.Batch {
		if err := t.step(t.gather(t.order[from:min(from+t.Batch, len(t.order))])); err != nil {
			return err
		}
	}
	return nil
}

func (t *training) gather(rows []int) (blas32.General, []float32) {
	x := t.batchX
	x.Rows = len(rows)
	for i, r := range rows {
		copy(x.Data[i*x.Stride:(i+1)*x.Stride], t.x.Data[r*t.x.Stride:])
		t.batchY[i] = t.y[r]
	}
	return x, t.batchY[:len(rows)]
}

func (t *training) step(x blas32.General, y []float32) error {
	if loss := t.trainer.Gradients(x, y, nil); math.IsNaN(loss) {
		return fmt.Errorf("%s: the loss became NaN", t.Name)
	}
	t.optimizer.Step()
	return nil
}

// quality is the accuracy on the held rows, or the loss on the training rows.
func (t *training) quality() (float64, error) {
	if t.outputs() == 1 {
		return t.trainer.Evaluate(context.Background(), t.x, t.y, nil)
	}
	accuracy := new(nn.Accuracy)
	_, err := t.trainer.Evaluate(context.Background(), t.held, t.heldTarget, nil, accuracy)
	return accuracy.Value(), err
}
