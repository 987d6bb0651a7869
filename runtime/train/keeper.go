package train

import (
	"errors"
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
	everySteps int64
	every      time.Duration
	run        string
	log        *slog.Logger

	unsaved int64     // steps since the last try
	last    time.Time // of trying
}

// defaultEvery is how often a checkpoint is written if nothing else is wanted.
const defaultEvery = time.Minute

// keep returns a fit that keeps checkpoints, and that goes on from the one that
// there is, if it can. fresh returns a new one.
func keep(c *spec.Checkpoint, log *slog.Logger, fresh func() (*fit, error)) (*fit, error) {
	f, err := fresh()
	if err != nil || c == nil || c.Directory == "" {
		return f, err
	}
	k := &keeper{dir: c.Directory, everySteps: c.EverySteps, every: time.Duration(c.EverySeconds * float64(time.Second)), log: log, last: time.Now()}
	if k.everySteps == 0 && k.every == 0 {
		k.every = defaultEvery
	}
	if k.run, err = f.identity(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		log.Warn("There is no place for checkpoints", "error", err)
	}
	if f, err = k.resumed(f, fresh); err != nil {
		return nil, err
	}
	f.keeper = k
	return f, nil
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

// save writes a checkpoint. f is between two steps.
func (k *keeper) save(f *fit) {
	if k == nil {
		return
	}
	// A failure waits for its next turn, too: a full disk must not slow down
	// every step.
	defer func() { k.unsaved, k.last = 0, time.Now() }()
	state, err := f.state(k.run)
	if err == nil {
		err = writeCheckpoint(k.dir, state, f.tensors())
	}
	if err != nil {
		k.log.Warn("A checkpoint could not be written; training goes on without", "epoch", f.Epoch, "step", f.Step, "error", err)
	}
}
