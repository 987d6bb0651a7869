package train

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cenkalti/backoff/v5"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// publish writes the model to disk and pushes it.
func publish(ctx context.Context, repository spec.Repository, m *model.Model, o Options) (*spec.Model, error) {
	temporary, err := os.MkdirTemp(o.TemporaryDir, "model-")
	if err != nil {
		return nil, fmt.Errorf("making room for the model: %w", err)
	}
	defer os.RemoveAll(temporary)
	dir := filepath.Join(temporary, "model")
	if err := model.Write(dir, m); err != nil {
		return nil, fmt.Errorf("writing the model: %w", err)
	}
	var pushed spec.Model
	err = patiently(ctx, o.RegistryPatience, func() (err error) {
		pushed, err = store.Push(ctx, repository, dir)
		return err
	})
	if err != nil {
		return nil, registryFailure(err)
	}
	pushed.Parameters = m.Network.Parameters()
	return &pushed, nil
}

// patiently tries again what may pass, for the time of patience: after half a
// second at first, then up to 15 seconds. The store itself tries again too, but
// only for seconds; this is for a registry that is being moved to another node.
func patiently(ctx context.Context, patience time.Duration, try func() error) error {
	delays := backoff.NewExponentialBackOff()
	delays.MaxInterval = 15 * time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := try()
		if err != nil && !passes(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(delays), backoff.WithMaxElapsedTime(patience))
	return err
}
