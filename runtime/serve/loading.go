package serve

import (
	"context"
	"fmt"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
)

// loading is a version on its way. Its fields are guarded by Models.mu.
type loading struct {
	model  spec.ServedModel
	cancel context.CancelFunc
	// hurry ends the wait for the next attempt.
	hurry chan struct{}
	// waiters are told how the attempt that runs, or the next one, ends.
	waiters []chan<- error
	// reason is why the last attempt failed, and next when the next begins.
	reason error
	next   time.Time
}

// start begins to load a model into s, instead of what was loading.
func (m *Models) start(s *slot, model spec.ServedModel) {
	s.stopLoading(fmt.Errorf("another version, %s, was asked for", model.Version()))
	ctx, cancel := context.WithCancel(m.ctx)
	l := &loading{model: model, cancel: cancel, hurry: make(chan struct{}, 1)}
	s.loading = l
	m.loads.Go(func() { m.load(ctx, s, l) })
}

func (s *slot) stopLoading(why error) {
	if s.loading == nil {
		return
	}
	s.loading.cancel()
	s.loading.tell(why)
	s.loading = nil
}

// awaited adds a waiter and begins the next attempt at once.
func (l *loading) awaited(outcome chan<- error) {
	l.waiters = append(l.waiters, outcome)
	select {
	case l.hurry <- struct{}{}:
	default:
	}
}

func (l *loading) tell(err error) {
	for _, w := range l.waiters {
		w <- err
	}
	l.waiters = nil
}

// load tries until it succeeds or is called off.
func (m *Models) load(ctx context.Context, s *slot, l *loading) {
	defer l.cancel()
	for failures := 1; ; failures++ {
		began := time.Now()
		v, err := m.open(ctx, l.model)
		if ctx.Err() != nil {
			if err == nil {
				v.release()
			}
			return
		}
		m.observed.loaded(l.model, time.Since(began), err)
		if err == nil {
			m.install(s, l, v)
			return
		}
		delay := retryDelay(failures, err, jitter())
		m.failed(l, err, delay)
		select {
		case <-ctx.Done():
			return
		case <-l.hurry:
		case <-time.After(delay):
		}
	}
}

// install makes v what answers under the name.
func (m *Models) install(s *slot, l *loading, v *version) {
	m.mu.Lock()
	if s.loading != l { // called off at the last moment
		m.mu.Unlock()
		v.release()
		return
	}
	before := s.current
	s.current, s.loading = v, nil
	l.tell(nil)
	m.mu.Unlock()
	m.log.Info("model is ready", "model", l.model.Name, "digest", l.model.Digest)
	if before != nil {
		m.observed.retired(before.model)
		before.release()
	}
}

func (m *Models) failed(l *loading, err error, delay time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.reason, l.next = err, time.Now().Add(delay)
	l.tell(err)
	select {
	case <-l.hurry: // by somebody who has just been told
	default:
	}
	m.log.Warn("model was not loaded", "model", l.model.Name, "digest", l.model.Digest, "retryIn", delay, "error", err)
}

// notReady is what clients read while there is nothing else to answer.
func (l *loading) notReady() error {
	if l.reason == nil {
		return unavailable(time.Second, "model %s is being loaded", l.model.Name)
	}
	return unavailable(time.Until(l.next), "model %s is not loaded: %v", l.model.Name, l.reason)
}

func (l *loading) status() spec.ModelStatus {
	if l.reason == nil {
		return stateOf(l.model, spec.StateLoading)
	}
	st := stateOf(l.model, spec.StateUnavailable)
	st.Reason = l.reason.Error()
	return st
}
