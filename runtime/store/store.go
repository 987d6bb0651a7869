// Package store keeps models in an OCI registry.
//
// A model is an artifact of OCI 1.1: a manifest of [ArtifactType] with an empty
// config and one layer for each file, titled with the file's name, so that
// `oras pull` understands it too. The manifest says nothing else: the same
// files have the same digest, whoever pushes them and when.
//
// Every call gives up when its context ends. What fails on the way is tried
// again a few times, within seconds; an [UnreachableError], a [RefusedError] or
// a [NotFoundError] says what it was in the end.
package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	// Images from scratch have no certificates of authorities. These are used
	// only where the system has none.
	_ "golang.org/x/crypto/x509roots/fallback"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"trainyard.dev/trainyard/runtime/spec"
)

// ArtifactType is the type of a model's manifest.
const ArtifactType = "application/vnd.trainyard.model.v1"

// mediaTypes are those of a model's files, by name.
var mediaTypes = map[string]string{
	"model.onnx":        "application/vnd.trainyard.model.graph.v1.onnx",
	"model.safetensors": "application/vnd.trainyard.model.weights.v1.safetensors",
	"model.json":        "application/vnd.trainyard.model.metadata.v1+json",
}

const otherMediaType = "application/octet-stream"

// Ping asks whether the registry answers and lets this process in. The error
// says what to check.
func Ping(ctx context.Context, repo spec.Repository) error {
	c, err := newClient(repo)
	if err != nil {
		return err
	}
	registry, err := remote.NewRegistry(c.repository.Reference.Host())
	if err != nil {
		return c.invalidName(err)
	}
	registry.PlainHTTP, registry.Client = repo.PlainHTTP, c.repository.Client
	return c.try(ctx, func() error { return registry.Ping(ctx) })
}

// client speaks to one repository.
type client struct {
	repository *remote.Repository
	name       string
}

func newClient(repo spec.Repository) (*client, error) {
	c := &client{name: repo.Name}
	repository, err := remote.NewRepository(repo.Name)
	if err != nil {
		return nil, c.invalidName(err)
	}
	if repository.Reference.Reference != "" {
		return nil, c.invalidName(errors.New("it has a tag or a digest"))
	}
	repository.PlainHTTP = repo.PlainHTTP
	repository.Client = &auth.Client{
		Client: &http.Client{Transport: transport}, Cache: auth.NewCache(),
		Credential: credential(repo, repository.Reference.Host()),
	}
	c.repository = repository
	return c, nil
}

// tokenUser stands before a token where a user's name would. Nobody reads it.
const tokenUser = "serviceaccount"

// credential is what the registry, and what issues tokens for it, are told of the
// pod: what a Secret of the user's has for it, or the pod's own token. Nobody else
// is told, wherever a registry may refer to: another one is asked for what it
// gives to everyone. The files are read each time, as they change.
func credential(repo spec.Repository, host string) auth.CredentialFunc {
	return func(ctx context.Context, asking string) (auth.Credential, error) {
		switch {
		case asking != host:
			return auth.EmptyCredential, nil
		case repo.CredentialsFile != "":
			return configured(repo.CredentialsFile)(ctx, asking)
		case repo.TokenFile == "":
			return auth.EmptyCredential, nil
		}
		token, err := os.ReadFile(repo.TokenFile)
		if err != nil {
			return auth.EmptyCredential, fmt.Errorf("reading the pod's token for registry %s: %w", host, err)
		}
		return auth.Credential{Username: tokenUser, Password: strings.TrimSpace(string(token))}, nil
	}
}

func (c *client) invalidName(err error) error {
	return fmt.Errorf("repository %q is not host[:port]/path: %w", c.name, err)
}

func (c *client) host() string { return c.repository.Reference.Host() }

// waits lie between the tries of something that failed.
var waits = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// try does something until it succeeds, cannot succeed, or has failed too often.
func (c *client) try(ctx context.Context, do func() error) error {
	var nowhere int64
	return c.tryOn(ctx, &nowhere, do)
}

// tryOn is try for something long. Failures are counted anew when it has come
// further than ever before.
func (c *client) tryOn(ctx context.Context, reached *int64, do func() error) error {
	furthest := *reached
	for failures := 0; ; failures++ {
		err := c.explain(ctx, do())
		if *reached > furthest {
			furthest, failures = *reached, 0
		}
		if err == nil || !worthAnotherTry(err) || ctx.Err() != nil || failures == len(waits) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(waits[failures]):
		}
	}
}

// silence is how long a connection may carry nothing while something is to be
// carried.
const silence = 2 * time.Minute

// transport is shared, so that connections are.
var transport = newTransport()

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &attentiveConn{conn}, nil
	}
	return t
}

// attentiveConn fails when nothing moves for too long: a transfer of any length
// may take its time, but not stand still.
type attentiveConn struct{ net.Conn }

func (c *attentiveConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write moves the deadline of a waiting Read as well, since the answer to a long
// upload comes after it.
func (c *attentiveConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
