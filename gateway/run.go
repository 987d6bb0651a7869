package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"trainyard.dev/trainyard/gateway/pair"
	"trainyard.dev/trainyard/runtime/spec"
)

// Stopping says how a gateway ends without losing a request: it says that it is
// not ready, goes on until nobody comes any more, then lets what it has in hand
// come to its end.
type Stopping struct {
	// Quiet is for how long no request may have come, Least how long it goes on
	// in any case, and Most how long it waits for quiet.
	Quiet, Least, Most time.Duration
	// Shutdown bounds the end of what then still runs.
	Shutdown time.Duration
}

// Defaults returns the options of a gateway that nobody configured.
func Defaults() Options {
	return Options{
		Log:         slog.Default(),
		Sockets:     pair.Alone{},
		Requests:    10_000,
		Bytes:       256 << 20,
		BodyBytes:   16 << 20,
		Hold:        time.Minute,
		ReadTimeout: 30 * time.Second,
		IdleTimeout: 5 * time.Second,
		Settle:      2 * time.Second,
		ProbePeriod: 30 * time.Millisecond,
		WakeAgain:   time.Second,
		Connections: 128,
		PodHTTP:     spec.ServePort,
		PodGRPC:     spec.GRPCPort,
		Stop:        Stopping{Quiet: 3 * time.Second, Least: 5 * time.Second, Most: 20 * time.Second, Shutdown: 70 * time.Second},
	}
}

// Operations answers /readyz for the kubelet, /report for the operator, and
// /metrics.
func (g *Gateway) Operations() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !g.synced.Load() || g.stopping.Load() {
			http.Error(w, "not ready: starting or stopping", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(g.Report())
	})
	mux.Handle("GET /metrics", g.metrics.handler())
	return mux
}

// Run answers operations on the listener until ctx ends, then stops without
// loss. It returns nil if it was asked to stop.
func (g *Gateway) Run(ctx context.Context, operations net.Listener) error {
	back := &http.Server{Handler: g.Operations(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	defer func() { _ = back.Close() }()
	ended := make(chan error, 1)
	go func() { ended <- back.Serve(operations) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	g.options.Log.Info("stopping")
	g.stopping.Store(true)
	g.awaitQuiet(time.Now())
	g.options.Sockets.Resign()
	bounded, cancel := context.WithTimeout(context.Background(), g.options.Stop.Shutdown)
	defer cancel()
	failed := make(chan error, 2)
	for _, server := range []*http.Server{g.rest, g.rpc} {
		go func() { failed <- server.Shutdown(bounded) }()
	}
	if err := errors.Join(<-failed, <-failed); err != nil {
		g.options.Log.Warn("stopped before all requests were answered", "reason", err)
	}
	return nil
}

// awaitQuiet returns when no request has come for a while.
func (g *Gateway) awaitQuiet(asked time.Time) {
	stop := g.options.Stop
	tick := time.NewTicker(max(stop.Quiet/30, time.Millisecond))
	defer tick.Stop()
	for now := range tick.C {
		quiet := now.Sub(time.Unix(0, g.lastRequest.Load())) >= stop.Quiet
		if waited := now.Sub(asked); waited >= stop.Most || quiet && waited >= stop.Least {
			return
		}
	}
}
