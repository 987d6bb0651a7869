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

// Models holds what a server serves: by name, the versions that answer and
// those that are being loaded to take their place. Its methods may be called by any
// number of goroutines.
type Models struct {
	openVersion func(context.Context, spec.ServedModel) (*version, error)
	log         *slog.Logger
	observed    observer
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
	current    *split   // nil: none yet
	loading    *loading // nil: nothing is to be loaded
}

func newModels(open func(context.Context, spec.ServedModel) (*version, error), log *slog.Logger, o observer) *Models {
	ctx, cancel := context.WithCancel(context.Background())
	return &Models{openVersion: open, log: log, observed: o, ctx: ctx, cancel: cancel, slots: map[string]*slot{}}
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

// checkSet returns an error that says why models cannot be the versions of one
// model, side by side. It continues a sentence that begins with the list.
func checkSet(models []spec.ServedModel) error {
	for i, m := range models {
		if err := check(m); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
		if slices.ContainsFunc(models[:i], func(o spec.ServedModel) bool { return o.Digest == m.Digest }) {
			return fmt.Errorf("[%d]: model %s has version %s twice", i, m.Name, m.Version())
		}
	}
	_, err := thousandths(weightsOf(models))
	return err
}

// Configure starts to load all models of a configuration and returns at once.
// The server is ready when each of them has been loaded.
func (m *Models) Configure(c spec.Serve) error {
	sets := map[string][]spec.ServedModel{}
	for i, model := range c.Models {
		if err := check(model); err != nil {
			return fmt.Errorf("models[%d]: %w", i, err)
		}
		sets[model.Name] = append(sets[model.Name], model)
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		if err := checkSet(sets[name]); err != nil {
			return fmt.Errorf("models of the name %s: %w", name, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, models := range sets {
		s := m.slot(name)
		s.configured = true
		m.start(s, models)
	}
	return nil
}

// Load brings versions of a model to answer under its name, by their weights,
// and waits until they do, or until the first attempt has failed, whose reason
// it returns. Attempts go on in the background; what answered under the name
// before does so meanwhile, and all that is new takes over in one step. What is
// loaded already is not loaded again. To load what answers already is no work,
// and calls off what else was loading.
func (m *Models) Load(ctx context.Context, models ...spec.ServedModel) error {
	if len(models) == 1 && check(models[0]) != nil {
		return check(models[0])
	}
	if err := checkSet(models); err != nil {
		return invalid("versions%v", err)
	}
	outcome := m.request(models)
	select {
	case err := <-outcome:
		return err
	case <-m.ctx.Done():
		return unavailable(time.Second, "the server is stopping")
	case <-ctx.Done():
		return unavailable(time.Second, "model %s, version %s, is still being loaded", models[0].Name, versionsOf(models))
	}
}

func versionsOf(models []spec.ServedModel) string {
	versions := make([]string, len(models))
	for i, model := range models {
		versions[i] = model.Version()
	}
	return few(versions)
}

// request sees to it that the models are loaded or loading, and returns where
// the outcome of the next attempt can be read.
func (m *Models) request(models []spec.ServedModel) <-chan error {
	outcome := make(chan error, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil
	}
	s := m.slot(models[0].Name)
	if s.current != nil && slices.Equal(s.current.models, models) {
		s.stopLoading(errors.New("what answers already was asked for again"))
		outcome <- nil
		return outcome
	}
	if s.loading == nil || !slices.Equal(s.loading.wanted, models) {
		m.start(s, models)
	}
	s.loading.awaited(outcome)
	return outcome
}

// Unload ends what is under a name: all of it, or one version, if a version is
// named. Requests that run end well.
func (m *Models) Unload(ctx context.Context, name, version string) error {
	if version != "" {
		rest, err := m.without(name, version)
		if err != nil {
			return err
		}
		if len(rest) > 0 {
			return m.Load(ctx, rest...)
		}
	}
	m.mu.Lock()
	s, ok := m.slots[name]
	if !ok {
		defer m.mu.Unlock()
		return m.unknown(name)
	}
	delete(m.slots, name)
	if s.loading != nil {
		m.retire(s.loading.wanted)
	}
	s.stopLoading(errors.New("the model was unloaded"))
	m.mu.Unlock()
	m.log.Info("unloaded model", "model", name)
	if s.current != nil {
		m.retire(s.current.models)
	}
	s.current.release()
	return nil
}

// without returns what is left under a name without one of its versions.
func (m *Models) without(name, version string) ([]spec.ServedModel, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, ok := m.slots[name]
	if !ok {
		return nil, m.unknown(name)
	}
	if s.current.version(version) == nil {
		return nil, s.unknown(name, version)
	}
	return s.current.without(version), nil
}

func (m *Models) retire(models []spec.ServedModel) {
	for _, model := range models {
		m.observed.retired(model)
	}
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
		s.current.release()
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

// acquire returns the version that answers a request under a name. The caller
// releases it. Version is that of the request: the short form, the digest, or
// empty, which takes a turn.
func (m *Models) acquire(name, version string) (*version, error) {
	return m.hold(name, version, (*split).turn)
}

// look is acquire for those who ask about a model, and take nobody's turn.
func (m *Models) look(name, version string) (*version, error) {
	return m.hold(name, version, (*split).main)
}

func (m *Models) hold(name, version string, choose func(*split) *version) (*version, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, ok := m.slots[name]
	if !ok {
		return nil, m.unknown(name)
	}
	v, err := s.find(name, version, choose)
	if err != nil {
		return nil, err
	}
	v.use()
	return v, nil
}

func (s *slot) find(name, version string, choose func(*split) *version) (*version, error) {
	if s.current != nil && version == "" {
		return choose(s.current), nil
	}
	if v := s.current.version(version); v != nil {
		return v, nil
	}
	if l := s.loading; l != nil && (version == "" || l.has(version)) {
		return nil, l.notReady()
	}
	return nil, s.unknown(name, version)
}

func (s *slot) unknown(name, version string) error {
	if s.current == nil {
		return notFound("model %s has no version %q", name, clipped(version))
	}
	return notFound("model %s has no version %q; it has %s", name, clipped(version), versionsOf(s.current.models))
}

// each calls f with every version that answers, by name. F must be quick.
func (m *Models) each(f func(*version)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(m.slots)) {
		if s := m.slots[name]; s.current != nil {
			for _, v := range s.current.versions {
				f(v)
			}
		}
	}
}

// versions lists those that answer under a name, short.
func (m *Models) versions(name string) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var versions []string
	if s, ok := m.slots[name]; ok && s.current != nil {
		for _, model := range s.current.models {
			versions = append(versions, model.Version())
		}
	}
	return versions
}

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
			for _, model := range s.current.models {
				index = append(index, stateOf(model, spec.StateReady))
			}
		}
		if s.loading != nil {
			index = append(index, s.loading.statuses(s.current)...)
		}
	}
	return index
}

func stateOf(m spec.ServedModel, state string) spec.ModelStatus {
	return spec.ModelStatus{Name: m.Name, Version: m.Version(), Digest: m.Digest, State: state, Weight: m.Weight, NewContract: m.NewContract}
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
