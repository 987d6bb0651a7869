package train

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// fit is a training run between two steps. Its future depends on nothing else
// than job, set, and, of the rest, the network's weights, the optimizer's Steps
// and Slots, the state of dropout, epoch, step and loss: the order of an
// epoch's rows follows from the seed.
type fit struct {
	job       spec.Train
	set       *dataset.Set
	network   *nn.Network
	trainer   *nn.Trainer
	optimizer *nn.Optimizer
	dropout   *rand.PCG

	epoch int32   // that runs or ended last, from 1
	step  int64   // of this epoch, from 1
	loss  float64 // sum over this epoch's rows

	order   []int // of this epoch's rows
	x       blas32.General
	y       []float32
	metrics map[string]float64 // of the last epoch that was measured

	monitor *Monitor
	pace    pace
}

func newFit(job spec.Train, set *dataset.Set, monitor *Monitor) (*fit, error) {
	seed := job.Training.Seed
	network, err := networkOf(job.Network, len(set.Columns), seed)
	if err != nil {
		return nil, err
	}
	loss, err := lossOf(job.Training.Loss)
	if err != nil {
		return nil, err
	}
	rule, err := ruleOf(job.Training.Optimizer.Name)
	if err != nil {
		return nil, err
	}
	dropout := stream(seed, "dropout", 0)
	rows := batchRows(job.Training, set)
	trainer, err := nn.NewTrainer(network, loss, rows, rand.New(dropout))
	if err != nil {
		return nil, err
	}
	return &fit{
		job:       job,
		set:       set,
		network:   network,
		trainer:   trainer,
		optimizer: nn.NewOptimizer(rule, nn.Constant(job.Training.Optimizer.LearningRate), trainer.Parameters()),
		dropout:   dropout,
		order:     make([]int, set.Train.X.Rows),
		x:         blas32.General{Cols: set.Train.X.Cols, Stride: set.Train.X.Cols, Data: make([]float32, rows*set.Train.X.Cols)},
		y:         make([]float32, rows),
		monitor:   monitor,
	}, nil
}

// batchRows is the number of rows of a full batch.
func batchRows(t spec.Training, set *dataset.Set) int {
	return min(int(t.BatchSize), set.Train.X.Rows)
}

// run goes through all epochs.
func (f *fit) run(ctx context.Context) error {
	f.pace.start(time.Now())
	for f.epoch < f.job.Training.Epochs {
		f.epoch, f.step, f.loss = f.epoch+1, 0, 0
		f.shuffle()
		if err := f.runEpoch(ctx); err != nil {
			return err
		}
		if err := f.measure(); err != nil {
			return err
		}
		f.report()
	}
	return nil
}

// shuffle draws the order of the rows of this epoch.
func (f *fit) shuffle() {
	for i := range f.order {
		f.order[i] = i
	}
	random := rand.New(stream(f.job.Training.Seed, "order", f.epoch))
	random.Shuffle(len(f.order), func(i, j int) { f.order[i], f.order[j] = f.order[j], f.order[i] })
}

func (f *fit) runEpoch(ctx context.Context) error {
	batch := len(f.y)
	for from := 0; from < len(f.order); from += batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		f.step++
		rows := f.order[from:min(from+batch, len(f.order))]
		x, y := f.gather(rows)
		loss := f.trainer.Gradients(x, y, nil)
		if !isFinite(loss) {
			return f.diverged(loss)
		}
		f.optimizer.Step()
		f.loss += loss * float64(len(rows))
		if f.pace.add(len(rows), time.Now()) {
			f.report()
		}
	}
	return ctx.Err()
}

// gather copies rows of the training set into one batch.
func (f *fit) gather(rows []int) (blas32.General, []float32) {
	from, x := f.set.Train.X, f.x
	x.Rows = len(rows)
	for i, r := range rows {
		copy(x.Data[i*x.Stride:(i+1)*x.Stride], from.Data[r*from.Stride:])
		f.y[i] = f.set.Train.Y[r]
	}
	return x, f.y[:len(rows)]
}

// measure computes loss and metrics of both parts of the data as the network
// stands after the epoch.
func (f *fit) measure() error {
	measured := map[string]float64{}
	f.measurePart(f.set.Train, "", measured)
	if f.set.Validation.X.Rows > 0 {
		f.measurePart(f.set.Validation, "Validation", measured)
	}
	f.metrics = measured
	if _, ok := measured["Loss"]; !ok {
		return f.diverged(math.NaN())
	}
	return nil
}

// measurePart leaves out what is infinite or not defined: JSON has no word for
// it.
func (f *fit) measurePart(part dataset.Part, prefix string, measured map[string]float64) {
	names := f.job.Training.Metrics
	metrics := make([]nn.Metric, len(names))
	for i, name := range names {
		metrics[i] = metricOf(name)
	}
	if loss := f.trainer.Evaluate(part.X, part.Y, nil, metrics...); isFinite(loss) {
		measured[prefix+"Loss"] = loss
	}
	for i, name := range names {
		if v := metrics[i].Value(); isFinite(v) {
			measured[prefix+string(name)] = v
		}
	}
}

// diverged explains a loss that is no number any more.
func (f *fit) diverged(loss float64) error {
	where := ""
	if place := f.trainer.NonFinite(); place != "" {
		where = "; the first number that is not finite is in " + place
	}
	advice := "lower training.optimizer.learningRate"
	if f.job.Dataset.Scaling == "" || f.job.Dataset.Scaling == spec.NoScaling {
		advice = "set dataset.scaling to Standard, or " + advice
	}
	return invalidf(spec.ReasonDiverged, "the loss became %v in epoch %d, step %d%s: %s (it is %v)",
		loss, f.epoch, f.step, where, advice, f.job.Training.Optimizer.LearningRate)
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
