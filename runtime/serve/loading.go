package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
)

// loading is a model's next versions on their way. Its fields are guarded by
// Models.mu.
type loading struct {
	wanted []spec.ServedModel
	cancel context.CancelFunc
	// hurry ends the wait for the next attempt.
	hurry chan struct{}
	// waiters are told how the attempt that runs, or the next one, ends.
	waiters []chan<- error
	// reasons are why the last attempt failed, for each of wanted, and next is
	// when the next begins.
	reasons []error
	next    time.Time
}

// start begins to load versions into s, instead of what was loading.
func (m *Models) start(s *slot, wanted []spec.ServedModel) {
	s.stopLoading(fmt.Errorf("another version, %s, was asked for", versionsOf(wanted)))
	ctx, cancel := context.WithCancel(m.ctx)
	l := &loading{wanted: wanted, cancel: cancel, hurry: make(chan struct{}, 1), reasons: make([]error, len(wanted))}
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
	a := m.attempt(s, l)
	for failures := 1; ; failures++ {
		reasons := m.open(ctx, a)
		if ctx.Err() != nil {
			a.release()
			return
		}
		err := first(reasons)
		if err == nil {
			m.install(s, l, a)
			return
		}
		delay := retryDelay(failures, err, jitter())
		m.failed(l, reasons, delay)
		select {
		case <-ctx.Done():
			a.release()
			return
		case <-l.hurry:
		case <-time.After(delay):
		}
	}
}

// first returns the error that passes soonest, or nil.
func first(reasons []error) error {
	var found error
	for _, err := range reasons {
		if err != nil && (found == nil || lasting(found) && !lasting(err)) {
			found = err
		}
	}
	return found
}

// attempt is what of the wanted versions is there so far.
type attempt struct {
	wanted   []spec.ServedModel
	versions []*version
	// contract is what new versions have to fit; nil: there is none yet.
	contract *contract
}

// attempt begins with those of wanted that answer already.
func (m *Models) attempt(s *slot, l *loading) *attempt {
	a := &attempt{wanted: l.wanted, versions: make([]*version, len(l.wanted))}
	m.mu.RLock()
	defer m.mu.RUnlock()
	// What is called off opens nothing, so its attempt need not begin well.
	if s.loading != l || s.current == nil {
		return a
	}
	a.contract = s.current.main().contract()
	for i, model := range l.wanted {
		if v := s.current.version(model.Digest); v != nil {
			v.use()
			a.versions[i] = v
		}
	}
	return a
}

func (a *attempt) release() {
	for _, v := range a.versions {
		if v != nil {
			v.release()
		}
	}
}

// open opens the versions that are missing, and says which of them failed.
func (m *Models) open(ctx context.Context, a *attempt) []error {
	reasons := make([]error, len(a.wanted))
	for i, model := range a.wanted {
		if a.versions[i] != nil {
			continue
		}
		began := time.Now()
		v, err := m.admit(ctx, model, a.contract)
		if ctx.Err() == nil {
			m.observed.loaded(model, time.Since(began), err)
		}
		reasons[i], a.versions[i] = err, v
		if err == nil && a.contract == nil {
			a.contract = v.contract()
		}
	}
	return reasons
}

// admit opens a version that fits the contract. Opening includes its golden
// rows.
func (m *Models) admit(ctx context.Context, model spec.ServedModel, c *contract) (*version, error) {
	v, err := m.openVersion(ctx, model)
	if err != nil || c == nil || model.NewContract {
		return v, err
	}
	if err := c.check(v); err != nil {
		v.release()
		return nil, err
	}
	return v, nil
}

// install makes the versions what answers under the name.
func (m *Models) install(s *slot, l *loading, a *attempt) {
	m.mu.Lock()
	if s.loading != l { // called off at the last moment
		m.mu.Unlock()
		a.release()
		return
	}
	before := s.current
	s.current, s.loading = newSplit(a.wanted, a.versions), nil
	l.tell(nil)
	m.mu.Unlock()
	for _, model := range a.wanted {
		m.log.Info("model is ready", "model", model.Name, "digest", model.Digest, "weight", model.Weight)
	}
	if before != nil {
		m.retire(slices.DeleteFunc(slices.Clone(before.models), func(o spec.ServedModel) bool { return l.has(o.Digest) }))
		before.release()
	}
}

func (m *Models) failed(l *loading, reasons []error, delay time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.reasons, l.next = reasons, time.Now().Add(delay)
	l.tell(errors.Join(reasons...))
	select {
	case <-l.hurry: // by somebody who has just been told
	default:
	}
	for i, err := range reasons {
		if err != nil {
			m.log.Warn("model was not loaded", "model", l.wanted[i].Name, "digest", l.wanted[i].Digest, "retryIn", delay, "error", err)
		}
	}
}

func (l *loading) has(version string) bool {
	return slices.ContainsFunc(l.wanted, func(m spec.ServedModel) bool { return is(m, version) })
}

// notReady is what clients read while there is nothing else to answer.
func (l *loading) notReady() error {
	if reason := errors.Join(l.reasons...); reason != nil {
		return unavailable(time.Until(l.next), "model %s is not loaded: %v", l.wanted[0].Name, reason)
	}
	return unavailable(time.Second, "model %s is being loaded", l.wanted[0].Name)
}

// statuses are those of the versions that do not answer yet.
func (l *loading) statuses(current *split) []spec.ModelStatus {
	var all []spec.ModelStatus
	for i, model := range l.wanted {
		if current.version(model.Digest) != nil {
			continue
		}
		st := stateOf(model, spec.StateLoading)
		if err := l.reasons[i]; err != nil {
			st.State, st.Reason = spec.StateUnavailable, err.Error()
		}
		all = append(all, st)
	}
	return all
}
