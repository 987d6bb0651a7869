// Package train makes a model from a [spec.Train]: it reads the dataset, checks
// that recipe and data fit together, trains the network, and pushes the model
// to the registry.
//
// A run goes straight down: ping the registry -> read -> check -> fit -> write
// -> push -> [spec.Result]. What can be refused is refused before the first
// step. What a run remembers between two steps is in one struct, of which
// checkpoints are copies: a run that goes on from one publishes the same
// weights, bit for bit, as one that was never interrupted.
package train

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/dataset/remote"
	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/spec"
)

// Options are what a run needs to know beyond its [spec.Train].
type Options struct {
	// Monitor is told how far the run is. Nil: nobody asks.
	Monitor *Monitor
	// CodeVersion is stored with the model.
	CodeVersion string
	// MemoryLimit is how many bytes the run may take. A network that would need
	// more is refused; of a dataset that would, the rows are kept in files. 0: no
	// limit.
	MemoryLimit int64
	// TemporaryDir is where the model is written before it is pushed, and rows that
	// memory has no room for are kept. Default: the system's.
	TemporaryDir string
	// RegistryPatience is how long the run waits for a registry that does not
	// answer. Default: 2 minutes.
	RegistryPatience time.Duration
	// PushGrace is how much longer a push that is under way when ctx is done may
	// take. Default: 20 seconds, which is less than Kubernetes gives a pod that it
	// stops.
	PushGrace time.Duration
	// Precaution is given, when memory may not suffice, the result that should be
	// found if the process is killed for it. Nil: none is left.
	Precaution func(spec.Result)
	// Worker says which of the workers this is, if the job has several.
	Worker *Worker
	// Log is told what the result does not say, such as that a checkpoint could
	// not be written. Default: the default logger.
	Log *slog.Logger
}

// Run trains the model that job describes and pushes it. When it fails, the
// error is an [*Error], and the result has its Failure and whatever else is
// known by then. When ctx is done, it stops between two steps and leaves a
// checkpoint, if it may; a push that is under way gets some time to end.
func Run(ctx context.Context, job spec.Train, o Options) (result spec.Result, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the trainer has a bug: %v\n%s", r, debug.Stack())
		}
		if err != nil {
			failure := classify(ctx, err)
			result.Failure, result.Model, err = &failure.Failure, nil, failure
		}
		if p := o.Monitor.Progress(); p.Epochs > 0 {
			p.Metrics, p.Activity, p.Warning = nil, "", "" // they are in the result, or over
			result.Progress = &p
		}
	}()
	if o.Monitor == nil {
		o.Monitor = new(Monitor)
	}
	if o.RegistryPatience == 0 {
		o.RegistryPatience = 2 * time.Minute
	}
	if o.PushGrace == 0 {
		o.PushGrace = 20 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return run(ctx, withDefaults(job), o)
}

func run(ctx context.Context, job spec.Train, o Options) (spec.Result, error) {
	var result spec.Result
	if err := errors.Join(checkRecipe(job), checkWorker(job, o)); err != nil {
		return result, err
	}
	// Of several workers, only the first one has to do with the registry: if it
	// is away, one pod fails, and not all.
	if o.Worker.leads() {
		if err := reachRegistry(ctx, job.Repository, o); err != nil {
			return result, err
		}
	}
	o.Monitor.does("reads " + job.SourceName)
	leaveMemory(o, o.MemoryLimit/tableShare)
	set, err := read(ctx, job, o)
	if err != nil {
		return result, err
	}
	defer set.Close()
	leaveMemory(o, set.MemoryBytes())
	result.DatasetDigest = set.Digest
	if err := errors.Join(checkData(job, set), checkMemory(job, set, o.MemoryLimit)); err != nil {
		return result, err
	}
	foresee(memoryNeeded(job, set), o)
	fresh := func() (*fit, error) { return newFit(job, set, o.Monitor) }
	f, err := keep(ctx, job, o, fresh)
	if err != nil {
		return result, err
	}
	defer f.keeper.close()
	f, err = f.train(ctx, o, fresh)
	defer f.close()
	if err == nil || errors.Is(err, ctx.Err()) && !f.inStep {
		f.keeper.end(f, o.PushGrace)
	}
	if err != nil {
		return result, err
	}
	result.Metrics, result.Epoch = f.finish()
	ctx, cancel := extended(ctx, o.PushGrace)
	defer cancel()
	result.Model, err = publish(ctx, job.Repository, f.model(job, result.Metrics, o.CodeVersion), o)
	return result, err
}

// foresee tells how much memory the run needs. A process that is killed for it
// can't tell any more.
func foresee(needed float64, o Options) {
	o.Monitor.needs(needed)
	if o.Precaution != nil && (o.MemoryLimit == 0 || 2*needed > float64(o.MemoryLimit)) {
		o.Precaution(spec.Result{Progress: &spec.Progress{MemoryBytes: int64(needed)}})
	}
}

// extended returns a context that is done some time after ctx.
func extended(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(by, func() { cancel(context.Cause(ctx)) })
	})
	return longer, func() { stop(); cancel(nil) }
}

// tableShare is the part of the memory that rows may take: a third. The rest is
// for reading them, and for the network. Rows in files lose little: as long as
// the kernel has memory to spare, it keeps the files in it.
const tableShare = 3

// leaveMemory keeps the garbage collector from using memory that the rows take,
// which it does not know of.
func leaveMemory(o Options, rows int64) {
	if o.MemoryLimit > 0 {
		debug.SetMemoryLimit(o.MemoryLimit - rows)
	}
}

func read(ctx context.Context, job spec.Train, o Options) (*dataset.Set, error) {
	target := dataset.Numbers
	if job.Training.Loss.ForClasses() {
		target = dataset.Classes
	}
	set, err := dataset.Read(ctx, job.Source, dataset.Options{
		Dataset:      job.Dataset,
		Target:       target,
		Seed:         job.Training.Seed,
		SourceName:   job.SourceName,
		MemoryBytes:  o.MemoryLimit / tableShare,
		TemporaryDir: o.TemporaryDir,
		Credentials:  remote.EnvironmentCredentials(os.Environ()),
		Trouble: func(err error) {
			if err == nil {
				o.Monitor.warn("")
				return
			}
			o.Monitor.warn(err.Error())
		},
	})
	if invalid := (*dataset.InvalidError)(nil); errors.As(err, &invalid) {
		return nil, invalidf(spec.ReasonDatasetInvalid, "%w", err)
	}
	if unavailable := (*remote.UnavailableError)(nil); errors.As(err, &unavailable) {
		return nil, failuref(spec.ReasonDatasetUnavailable, 1, "%w", err)
	}
	return set, err
}

// model puts together what was trained and what is known of it.
func (f *fit) model(job spec.Train, metrics map[string]float64, codeVersion string) *model.Model {
	network := withScaling(f.network, f.set.Scaling)
	return &model.Model{
		Network: network,
		Metadata: model.Metadata{
			Name:          job.Name,
			Inputs:        f.set.Columns,
			Label:         f.set.Label,
			Classes:       f.set.Classes,
			Metrics:       metrics,
			DatasetDigest: f.set.Digest,
			Seed:          job.Training.Seed,
			Lineage:       job.Lineage,
			CodeVersion:   codeVersion,
			Golden:        golden(network, f.set),
		},
	}
}
