package serve

import (
	"context"
	"errors"
	"time"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// loader makes versions of models in a registry.
type loader struct {
	cache   *cache
	timeout time.Duration
}

func newLoader(o Options) *loader {
	return &loader{
		cache:   &cache{dir: o.CacheDir, pull: store.Pull, entries: map[string]*entry{}},
		timeout: o.LoadTimeout,
	}
}

// open pulls a model, maps it into memory and lets it answer its golden rows.
func (l *loader) open(ctx context.Context, m spec.ServedModel) (*version, error) {
	bounded, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	dir, giveBack, err := l.cache.hold(bounded, m)
	if err != nil {
		return nil, err
	}
	v, err := openVersion(m, dir, giveBack)
	if err != nil {
		giveBack()
		return nil, unfit{err}
	}
	return v, nil
}

// openVersion opens the model in dir. Closing the version calls giveBack.
func openVersion(m spec.ServedModel, dir string, giveBack func()) (*version, error) {
	opened, err := model.Open(dir)
	if err != nil {
		return nil, err
	}
	v, err := checked(m, opened, func() {
		// Nothing can be done about an unmapping that fails.
		_ = opened.Close()
		giveBack()
	})
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return v, nil
}

// checked returns a version that has shown that it can answer.
func checked(m spec.ServedModel, o *model.Model, closing func()) (*version, error) {
	if err := o.Network.Validate(); err != nil {
		return nil, err
	}
	s, err := newSignature(o.Network.Inputs, o.Network.Outputs(), o.Metadata.Inputs, o.Metadata.Classes)
	if err != nil {
		return nil, err
	}
	v := newVersion(m, s, o.Network, closing)
	if g := o.Metadata.Golden; g != nil {
		if err := v.checkGolden(g.Inputs, g.Outputs); err != nil {
			return nil, err
		}
	}
	return v, nil
}
