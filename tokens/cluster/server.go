package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/tokens"
)

// Limits of a request for a token. A token of a ServiceAccount has 1 or 2 KB.
const (
	headerBytes    = 32 << 10
	requestTimeout = 10 * time.Second
	idleTimeout    = time.Minute
)

// Server serves tokens as part of a manager. Every manager does, whichever leads:
// they share their keys.
type Server struct {
	// Address is where to listen.
	Address string
	// Client reaches the API server without a cache.
	Client client.Client
	// Secret keeps the keys.
	Secret client.ObjectKey
	// Service answers. Its keys are set when they are there.
	Service *tokens.Service

	ready atomic.Bool
}

// NeedLeaderElection says that it does not.
func (s *Server) NeedLeaderElection() bool { return false }

// Ready tells whether tokens are issued, for /readyz.
func (s *Server) Ready(*http.Request) error {
	if !s.ready.Load() {
		return errors.New("no tokens for the registry are issued yet")
	}
	return nil
}

// Start serves until ctx is done.
func (s *Server) Start(ctx context.Context) error {
	keys, err := AwaitKeys(ctx, s.Client, s.Secret, s.Service.Log)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // to be asked to stop is no failure
	}
	if err != nil {
		return err
	}
	s.Service.Issuer.Keys = keys
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("listening for requests for tokens: %w", err)
	}
	server := &http.Server{
		Handler:           http.TimeoutHandler(s.Service.Handler(), requestTimeout, "the API server does not answer in time"),
		ReadHeaderTimeout: requestTimeout,
		WriteTimeout:      2 * requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytes,
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		s.ready.Store(false)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		stopped <- server.Shutdown(bounded)
	}()
	s.ready.Store(true)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving tokens for the registry: %w", err)
	}
	return <-stopped
}
