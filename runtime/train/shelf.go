package train

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// shelf keeps a run's checkpoint in the registry: a directory of the pod is
// fetched from there once, and copied there while training goes on. Nil is for
// directories that need no copy.
type shelf struct {
	repository spec.Repository
	tag        string
	dir        string
	ctx        context.Context
	cancel     context.CancelFunc
	sending    chan struct{} // closed when what was sent has arrived, or failed; nil: nothing was
}

func newShelf(repository spec.Repository, tag string, o Options) (*shelf, error) {
	room, err := os.MkdirTemp(o.TemporaryDir, "checkpoint-")
	if err != nil {
		return nil, fmt.Errorf("making room for checkpoints: %w", err)
	}
	s := &shelf{repository: repository, tag: tag, dir: filepath.Join(room, "kept")}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// fetch brings the checkpoint that the registry has, if it has one. A registry
// that doesn't answer fails the attempt: to begin anew would cost more.
func (s *shelf) fetch(ctx context.Context, o Options) error {
	if s == nil {
		return nil
	}
	o.Monitor.does("looks for a checkpoint in " + s.repository.Name)
	missing := (*store.NotFoundError)(nil)
	err := patiently(ctx, o.RegistryPatience/4, o.Monitor, func() error {
		return store.PullCheckpoint(ctx, s.repository, s.tag, s.dir)
	})
	switch {
	case err == nil || errors.As(err, &missing):
		return nil
	case ctx.Err() != nil || passes(err):
		return registryFailure(err)
	}
	o.Log.Warn("The checkpoint can't be read; training starts from the beginning", "tag", s.tag, "error", err)
	return nil
}

// busy tells whether a checkpoint is on its way.
func (s *shelf) busy() bool {
	if s == nil || s.sending == nil {
		return false
	}
	select {
	case <-s.sending:
		return false
	default:
		return true
	}
}

// send starts to copy the directory, which nobody changes until it has arrived.
func (s *shelf) send(failed func(error)) {
	if s == nil {
		return
	}
	done := make(chan struct{})
	s.sending = done
	go func() {
		defer close(done)
		if err := store.PushCheckpoint(s.ctx, s.repository, s.tag, s.dir); err != nil && s.ctx.Err() == nil {
			failed(err)
		}
	}()
}

// wait waits until nothing is on its way.
func (s *shelf) wait(ctx context.Context) {
	if s == nil || s.sending == nil {
		return
	}
	select {
	case <-s.sending:
	case <-ctx.Done():
	}
}

// close gives up what is on its way, so that nothing arrives any more.
func (s *shelf) close() {
	if s == nil {
		return
	}
	s.cancel()
	if s.sending != nil {
		<-s.sending
	}
	// Best effort: the pod's disk goes with the pod.
	_ = os.RemoveAll(filepath.Dir(s.dir))
}

// discardTimeout bounds the clearing away after a run that went well.
const discardTimeout = 10 * time.Second

// Discard deletes the checkpoint of a run that has published its model and left
// its result. Without it, a checkpoint stays where it is.
func Discard(job spec.Train) error {
	switch c := job.Checkpoint; {
	case c == nil:
		return nil
	case c.Directory != "":
		return os.RemoveAll(c.Directory)
	case c.Tag != "":
		ctx, cancel := context.WithTimeout(context.Background(), discardTimeout)
		defer cancel()
		return store.DeleteCheckpoint(ctx, job.Repository, c.Tag)
	}
	return nil
}
