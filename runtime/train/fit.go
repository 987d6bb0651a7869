package train

import (
	"context"
	"math/rand/v2"
	"time"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// fit is a training run between two steps. Its future depends on nothing else
// than job, set, and what a checkpoint holds: position, the tensors of network,
// optimizer and stopping, their counters, the last measures, and the state of
// dropout. The order of an epoch's rows follows from the seed.
type fit struct {
	job       spec.Train
	set       *dataset.Set
	network   *nn.Network
	trainer   *nn.Trainer
	optimizer *nn.Optimizer
	dropout   *rand.PCG
	stopping  *stopping // nil: all epochs run

	position
	metrics map[string]float64 // of the last epoch that was measured

	weights []float32 // of the rows' losses; nil: 1
	feed    *feed     // of batches; nil: a step takes all rows where they are
	others  *others   // that train with this one; nil: none
	inStep  bool      // a step was begun and not ended: f is of no use any more

	monitor *Monitor
	pace    pace
	keeper  *keeper // of checkpoints; nil: none are kept
}

// position is where a run is.
type position struct {
	// Epoch is the one that runs, from 1; when the run is over, the last one.
	Epoch int32 `json:"epoch"`
	// Step is how many steps of the epoch were made.
	Step int64 `json:"step"`
	// Loss is the sum over these steps' rows.
	Loss float64 `json:"loss"`
	// Over is set when the last epoch was measured.
	Over bool `json:"over"`
}

func newFit(job spec.Train, set *dataset.Set, monitor *Monitor) (*fit, error) {
	t := job.Training
	network, err := networkOf(job.Network, len(set.Columns), t.Seed)
	if err != nil {
		return nil, err
	}
	dropout, rows := new(rand.PCG), batchRows(t, set)
	trainer, err := trainerOf(job, network, rows, set.Train.X.Rows, dropout)
	if err != nil {
		return nil, err
	}
	optimizer, err := optimizerOf(t, stepsPerEpoch(t, set), trainer.Parameters())
	if err != nil {
		return nil, err
	}
	weights := rowWeights(t, set)
	return &fit{
		job:       job,
		set:       set,
		network:   network,
		trainer:   trainer,
		optimizer: optimizer,
		dropout:   dropout,
		stopping:  newStopping(t.EarlyStopping, network),
		position:  position{Epoch: 1},
		weights:   weights,
		feed:      feedOf(set, weights, rows),
		monitor:   monitor,
	}, nil
}

// feedOf returns a feed of batches of that many rows, unless that is all.
func feedOf(set *dataset.Set, weights []float32, rows int) *feed {
	if rows == set.Train.X.Rows {
		return nil
	}
	return newFeed(set.Train, weights, rows)
}

// batchRows is the number of rows of a full batch.
func batchRows(t spec.Training, set *dataset.Set) int {
	if t.FullBatch {
		return set.Train.X.Rows
	}
	return min(int(t.BatchSize), set.Train.X.Rows)
}

func stepsPerEpoch(t spec.Training, set *dataset.Set) int64 {
	rows, batch := int64(set.Train.X.Rows), int64(batchRows(t, set))
	return (rows + batch - 1) / batch
}

// run goes through all epochs that are left. An error of ctx leaves f between
// two steps.
func (f *fit) run(ctx context.Context) error {
	f.pace.start(time.Now())
	for !f.Over {
		if err := f.runEpoch(ctx); err != nil {
			return err
		}
		if err := f.measure(ctx); err != nil {
			return err
		}
		f.endEpoch()
	}
	return nil
}

// runEpoch makes the steps of the epoch that are left.
func (f *fit) runEpoch(ctx context.Context) error {
	size, rows := batchRows(f.job.Training, f.set), f.set.Train.X.Rows
	from := min(int(f.Step)*size, rows) // the last batch may be smaller
	if err := f.startAt(from); err != nil {
		return err
	}
	if f.Step == 0 {
		f.Loss, *f.dropout = 0, *stream(f.job.Training.Seed, "dropout", f.Epoch)
	}
	for ; from < rows; from += size {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := f.next(min(size, rows-from))
		if err == nil {
			err = f.makeStep(b)
		}
		if err != nil {
			return err
		}
		f.keeper.stepped(f, f.pace.now)
		if err := f.others.over(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// startAt goes to the row of that number in the epoch's order.
func (f *fit) startAt(row int) error {
	if f.feed == nil {
		return nil
	}
	return f.feed.start(f.job.Training.Seed, f.Epoch, row)
}

// next returns the next n rows in the epoch's order.
func (f *fit) next(n int) (batch, error) {
	if f.feed == nil {
		return batch{x: f.set.Train.X, y: f.set.Train.Y, weights: f.weights}, nil
	}
	return f.feed.next(n)
}

// close leaves the other workers and waits for whatever still uses the set.
func (f *fit) close() {
	f.others.leave()
	if f.feed != nil {
		f.feed.close()
	}
}

func (f *fit) makeStep(b batch) error {
	f.inStep = true
	loss := f.trainer.Gradients(b.x, b.y, b.weights)
	if err := f.others.lost(); err != nil {
		return err
	}
	f.Step++
	if !isFinite(loss) {
		f.others.part()
		return f.diverged(loss)
	}
	f.optimizer.Step()
	f.inStep = false
	f.Loss += loss * float64(b.x.Rows)
	if f.pace.add(b.x.Rows, time.Now()) {
		f.report()
	}
	return nil
}

// endEpoch goes on to the next epoch, if there is one.
func (f *fit) endEpoch() {
	enough := f.stopping != nil && f.stopping.stop(f.Epoch, f.metrics, f.network)
	f.Over = enough || f.Epoch == f.job.Training.Epochs
	f.report()
	if !f.Over {
		f.position = position{Epoch: f.Epoch + 1}
	}
}

// finish leaves in the network what is to be published, and returns its
// measures and its epoch.
func (f *fit) finish() (metrics map[string]float64, epoch int32) {
	if !f.stopping.restores() {
		return f.metrics, f.Epoch
	}
	copyTensors(f.network.Tensors(), f.stopping.best)
	return f.stopping.Metrics, f.stopping.BestEpoch
}
