// Package cluster is what the token service needs of Kubernetes: a Secret that
// keeps its keys, and the API server, which knows whose a credential is.
package cluster

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/tokens"
)

// keysPause is how long to wait before the Secret is tried again.
const keysPause = 2 * time.Second

// AwaitKeys returns the keys of a Secret, and puts those there that it lacks. It
// tries again until it has them, and says what it waits for.
func AwaitKeys(ctx context.Context, c client.Client, secret client.ObjectKey, log *slog.Logger) (*tokens.KeyRing, error) {
	for {
		ring, err := openKeys(ctx, c, secret)
		if err == nil {
			return ring, nil
		}
		log.Error("no tokens for the registry can be issued yet", "reason", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(keysPause):
		}
	}
}

// openKeys reads the Secret and completes it. Of two managers that do so at once,
// the second is refused, and reads what the first has written.
func openKeys(ctx context.Context, c client.Client, name client.ObjectKey) (*tokens.KeyRing, error) {
	var secret corev1.Secret
	err := c.Get(ctx, name, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("there is no Secret %s; apply config/registry, which holds it, or leave --registry-token-address out if the registry needs no tokens", name)
	case err != nil:
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	ring, err := tokens.Complete(secret.Data)
	if err != nil {
		return nil, fmt.Errorf("completing Secret %s: %w", name, err)
	}
	wanted, err := ring.Encode()
	if err != nil || maps.EqualFunc(wanted, secret.Data, bytes.Equal) {
		return ring, err
	}
	secret.Data = wanted
	if err := c.Update(ctx, &secret); err != nil {
		return nil, fmt.Errorf("writing keys to Secret %s: %w", name, err)
	}
	return ring, nil
}
