package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
)

// keeper keeps a run's checkpoints. A checkpoint that cannot be written is no
// reason to stop: the run goes on and says so. Nil keeps nothing.
type keeper struct {
	dir        string
	shelf      *shelf // where dir's checkpoint is copied to; nil: dir outlives the pod
	everySteps int64
	every      time.Duration
	run        string
	log        *slog.Logger
	monitor    *Monitor

	unsaved int64     // steps since the last try
	last    time.Time // of trying
}

// How often a checkpoint is written if nothing else is wanted. One in the
// registry costs more: registries delete slowly.
const (
	defaultEvery         = time.Minute
	defaultEveryRegistry = 5 * time.Minute
)

// keep returns a fit that keeps checkpoints, and that goes on from the one that
// there is, if it can. fresh returns a new one. Of several workers, only the one
// that leads does so.
func keep(ctx context.Context, job spec.Train, o Options, fresh func() (*fit, error)) (*fit, error) {
	f, err := fresh()
	if err != nil || job.Checkpoint == nil || job.Checkpoint.Directory == "" && job.Checkpoint.Tag == "" || !o.Worker.leads() {
		return f, err
	}
	k, err := newKeeper(job, o)
	if err != nil {
		return nil, err
	}
	if k.run, err = f.identity(); err != nil {
		return nil, err
	}
	if err := k.shelf.fetch(ctx, o); err != nil {
		return nil, err
	}
	if f, err = k.resumed(f, fresh); err != nil {
		return nil, err
	}
	f.keeper = k
	return f, nil
}

func newKeeper(job spec.Train, o Options) (*keeper, error) {
	c := job.Checkpoint
	k := &keeper{
		dir: c.Directory, everySteps: c.EverySteps, every: time.Duration(c.EverySeconds * float64(time.Second)),
		log: o.Log, monitor: o.Monitor, last: time.Now(),
	}
	byDefault := defaultEvery
	if k.dir == "" {
		var err error
		if k.shelf, err = newShelf(job.Repository, c.Tag, o); err != nil {
			return nil, err
		}
		k.dir, byDefault = k.shelf.dir, defaultEveryRegistry
	}
	if k.everySteps == 0 && k.every == 0 {
		k.every = byDefault
	}
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		k.warn(err)
	}
	return k, nil
}

// resumed returns f as the checkpoint has it, or a new fit if there is none of
// use.
func (k *keeper) resumed(f *fit, fresh func() (*fit, error)) (*fit, error) {
	state, err := readCheckpoint(k.dir, k.run, f.tensors())
	if err == nil {
		err = f.resume(state)
	}
	switch {
	case err == nil:
		k.log.Info("Training goes on from a checkpoint", "directory", k.dir, "epoch", f.Epoch, "step", f.Step)
		f.report()
		return f, nil
	case !errors.Is(err, fs.ErrNotExist):
		k.log.Warn("The checkpoint is not used; training starts from the beginning", "directory", k.dir, "error", err)
	}
	return fresh()
}

// stepped writes a checkpoint after a step if it is time for one.
func (k *keeper) stepped(f *fit, now time.Time) {
	if k == nil {
		return
	}
	k.unsaved++
	if k.everySteps > 0 && k.unsaved >= k.everySteps || k.every > 0 && now.Sub(k.last) >= k.every {
		k.save(f)
	}
}

// save writes a checkpoint, unless the one before is still on its way. f is
// between two steps.
func (k *keeper) save(f *fit) {
	if k == nil {
		return
	}
	// A failure waits for its next turn, too: a full disk must not slow down
	// every step.
	defer func() { k.unsaved, k.last = 0, time.Now() }()
	if k.shelf.busy() {
		return
	}
	state, err := f.state(k.run)
	if err == nil {
		err = writeCheckpoint(k.dir, state, f.tensors())
	}
	if err != nil {
		k.warn(err)
		return
	}
	k.monitor.warn("")
	k.shelf.send(k.warn)
}

// end writes the last checkpoint of a run that stops between two steps, and
// waits for it to arrive, but not for ever. A run that is over has nothing to
// send to the registry: the model follows.
func (k *keeper) end(f *fit, patience time.Duration) {
	switch {
	case k == nil || k.shelf != nil && f.Over:
		return
	case k.shelf == nil:
		k.save(f)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	k.shelf.wait(ctx)
	k.save(f)
	k.shelf.wait(ctx)
}

// close ends what is still on its way.
func (k *keeper) close() {
	if k != nil {
		k.shelf.close()
	}
}

func (k *keeper) warn(err error) {
	k.log.Warn("A checkpoint could not be written; training goes on without", "error", err)
	k.monitor.warn(fmt.Sprintf("checkpoints can't be kept, so after an interruption training will start from an earlier one, or from the beginning: %v", err))
}
