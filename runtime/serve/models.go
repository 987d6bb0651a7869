package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
)

// Models holds what a server serves: by name, the version that answers and the
// one that is being loaded to take its place. Its methods may be called by any
// number of goroutines.
type Models struct {
	open     func(context.Context, spec.ServedModel) (*version, error)
	log      *slog.Logger
	observed observer
	// ctx ends all loading.
	ctx    context.Context
	cancel context.CancelFunc
	loads  sync.WaitGroup

	mu    sync.RWMutex
	slots map[string]*slot
}

// observer is told how attempts to load end, and what is served no more.
type observer interface {
	loaded(m spec.ServedModel, took time.Duration, err error)
	retired(m spec.ServedModel)
}

// slot is all there is under one name.
type slot struct {
	// configured models are those that the server must have to be ready.
	configured bool
	current    *version // nil: none yet
	loading    *loading // nil: nothing is to be loaded
}

func newModels(open func(context.Context, spec.ServedModel) (*version, error), log *slog.Logger, o observer) *Models {
	ctx, cancel := context.WithCancel(context.Background())
	return &Models{open: open, log: log, observed: o, ctx: ctx, cancel: cancel, slots: map[string]*slot{}}
}

var (
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// check returns an error that says what of m cannot be loaded, whoever asks.
func check(m spec.ServedModel) error {
	switch {
	case !nameForm.MatchString(m.Name):
		return invalid("the model's name is %q; expected letters, digits, '.', '_' and '-'", clipped(m.Name))
	case !digestForm.MatchString(m.Digest):
		return invalid("the digest of model %s is %q; expected sha256: and 64 hexadecimal digits", m.Name, clipped(m.Digest))
	case m.Repository.Name == "":
		return invalid("model %s has no repository", m.Name)
	}
	return nil
}

// Configure starts to load all models of a configuration and returns at once.
// The server is ready when each of them has been loaded.
func (m *Models) Configure(c spec.Serve) error {
	names := map[string]bool{}
	for i, model := range c.Models {
		if err := check(model); err != nil {
			return fmt.Errorf("models[%d]: %w", i, err)
		}
		if names[model.Name] {
			return fmt.Errorf("models[%d]: there are two models named %s", i, model.Name)
		}
		names[model.Name] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, model := range c.Models {
		s := m.slot(model.Name)
		s.configured = true
		m.start(s, model)
	}
	return nil
}

// Load brings a model to answer under its name and waits until it does, or
// until the first attempt has failed, whose reason it returns. Attempts go on in
// the background; what answered under the name before does so meanwhile. To
// load what is loaded already is no work, and calls off what else was loading.
func (m *Models) Load(ctx context.Context, model spec.ServedModel) error {
	if err := check(model); err != nil {
		return err
	}
	outcome := m.request(model)
	select {
	case err := <-outcome:
		return err
	case <-m.ctx.Done():
		return unavailable(time.Second, "the server is stopping")
	case <-ctx.Done():
		return unavailable(time.Second, "model %s, version %s, is still being loaded", model.Name, model.Version())
	}
}

// request sees to it that the model is loaded or loading, and returns where the
// outcome of the next attempt can be read.
func (m *Models) request(model spec.ServedModel) <-chan error {
	outcome := make(chan error, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil
	}
	s := m.slot(model.Name)
	if s.current != nil && s.current.model == model {
		s.stopLoading(errors.New("the version that was loaded already was asked for again"))
		outcome <- nil
		return outcome
	}
	if s.loading == nil || s.loading.model != model {
		m.start(s, model)
	}
	s.loading.awaited(outcome)
	return outcome
}

// Unload ends what is under a name. Requests that run on it end well.
func (m *Models) Unload(name string) error {
	m.mu.Lock()
	s, ok := m.slots[name]
	if !ok {
		defer m.mu.Unlock()
		return m.unknown(name)
	}
	delete(m.slots, name)
	if s.loading != nil {
		m.observed.retired(s.loading.model)
	}
	s.stopLoading(errors.New("the model was unloaded"))
	m.mu.Unlock()
	m.log.Info("unloaded model", "model", name)
	if s.current != nil {
		m.observed.retired(s.current.model)
	}
	s.release()
	return nil
}

// Close ends all loading and all models.
func (m *Models) Close() {
	m.mu.Lock()
	m.cancel()
	m.mu.Unlock()
	m.loads.Wait()
	m.mu.Lock()
	slots := m.slots
	m.slots = map[string]*slot{}
	m.mu.Unlock()
	for _, s := range slots {
		s.release()
	}
}

// slot returns the slot of a name; it makes one if there is none.
func (m *Models) slot(name string) *slot {
	s, ok := m.slots[name]
	if !ok {
		s = &slot{}
		m.slots[name] = s
	}
	return s
}

func (s *slot) release() {
	if s.current != nil {
		s.current.release()
	}
}

// acquire returns the version that answers under a name. The caller releases
// it. Version is that of the request: empty, the short form or the digest.
func (m *Models) acquire(name, version string) (*version, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, err := m.find(name, version)
	if err != nil {
		return nil, err
	}
	v.use()
	return v, nil
}

func (m *Models) find(name, version string) (*version, error) {
	s, ok := m.slots[name]
	if !ok {
		return nil, m.unknown(name)
	}
	if v := s.current; v != nil && (version == "" || v.is(version)) {
		return v, nil
	}
	if l := s.loading; l != nil && (version == "" || is(l.model, version)) {
		return nil, l.notReady()
	}
	if s.current == nil {
		return nil, notFound("model %s has no version %q", name, clipped(version))
	}
	return nil, notFound("model %s has no version %q; it has %s", name, clipped(version), s.current.model.Version())
}

func (v *version) is(version string) bool { return is(v.model, version) }

func is(m spec.ServedModel, version string) bool {
	return version == m.Version() || version == m.Digest
}

func (m *Models) unknown(name string) error {
	names := slices.Sorted(maps.Keys(m.slots))
	if len(names) == 0 {
		return notFound("there is no model %q; the server has none", clipped(name))
	}
	return notFound("there is no model %q; there are: %s", clipped(name), few(names))
}

// Index lists what is loaded and what is being loaded, by name.
func (m *Models) Index() []spec.ModelStatus {
	m.mu.RLock()
	defer m.mu.RUnlock()
	index := []spec.ModelStatus{}
	for _, name := range slices.Sorted(maps.Keys(m.slots)) {
		s := m.slots[name]
		if s.current != nil {
			index = append(index, stateOf(s.current.model, spec.StateReady))
		}
		if s.loading != nil {
			index = append(index, s.loading.status())
		}
	}
	return index
}

func stateOf(m spec.ServedModel, state string) spec.ModelStatus {
	return spec.ModelStatus{Name: m.Name, Version: m.Version(), Digest: m.Digest, State: state}
}

// Ready returns nil when every model of the configuration has a version that
// answers; otherwise which have none, and why.
func (m *Models) Ready() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(m.slots)) {
		if s := m.slots[name]; s.configured && s.current == nil {
			missing = append(missing, s.loading.notReady().Error())
		}
	}
	if missing == nil {
		return nil
	}
	return unavailable(time.Second, "%s", strings.Join(missing, "; "))
}
