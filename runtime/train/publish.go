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
	o.Monitor.does("pushes the model to " + repository.Name)
	err = patiently(ctx, o.RegistryPatience, o.Monitor, func() (err error) {
		pushed, err = store.Push(ctx, repository, dir)
		return err
	})
	if err != nil {
		return nil, registryFailure(err)
	}
	pushed.Parameters = m.Network.Parameters()
	pushed.Signature = spec.NewSignature(m.Network.Inputs, m.Network.Outputs(), m.Metadata.Inputs, m.Metadata.Classes)
	return &pushed, nil
}

// patiently tries again what may pass, for the time of patience: after half a
// second at first, then up to 15 seconds. The store itself tries again too, but
// only for seconds; this is for a registry that is being moved to another node.
// Meanwhile the monitor tells what it waits for.
func patiently(ctx context.Context, patience time.Duration, monitor *Monitor, try func() error) error {
	defer monitor.warn("")
	delays := backoff.NewExponentialBackOff()
	delays.MaxInterval = 15 * time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := try()
		if err != nil && !passes(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(delays), backoff.WithMaxElapsedTime(patience),
		backoff.WithNotify(func(err error, _ time.Duration) { monitor.warn(err.Error()) }))
	return err
}

// pingTimeout bounds one try to reach the registry, so that a run whose registry
// is silent says so within seconds.
const pingTimeout = 5 * time.Second

// reachRegistry waits until the registry answers. Its patience is shorter than
// that of a push: nothing is lost yet.
func reachRegistry(ctx context.Context, repository spec.Repository, o Options) error {
	o.Monitor.does("waits for the registry to answer")
	err := patiently(ctx, o.RegistryPatience/4, o.Monitor, func() error {
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		return store.Ping(ctx, repository)
	})
	if err != nil {
		return registryFailure(err)
	}
	return nil
}
