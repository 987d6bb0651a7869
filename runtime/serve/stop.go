package serve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Stopping says how a server ends without losing a request. When it is asked
// to stop, the rest of the cluster does not know yet: for seconds more, new
// requests arrive, also on connections that are open. So it says that it is not
// ready, goes on answering, asks clients to leave with "Connection: close", and
// shuts down when nobody comes any more. Clients of gRPC, which would come back at
// once, are asked to leave (GOAWAY) when new connections go elsewhere.
type Stopping struct {
	// Quiet is for how long no request may have begun or ended.
	Quiet time.Duration
	// Least is how long it goes on in any case. After that, new connections are
	// supposed to reach other servers.
	Least time.Duration
	// Most is how long it waits for quiet.
	Most time.Duration
	// Shutdown bounds the end of what then still runs.
	Shutdown time.Duration
}

// over tells whether a server that was asked to stop may shut down now.
// Changed is when a request last began or ended.
func (s Stopping) over(now, asked, changed time.Time, inFlight int64) bool {
	waited := now.Sub(asked)
	quiet := inFlight == 0 && now.Sub(changed) >= s.Quiet
	return waited >= s.Most || quiet && waited >= s.Least
}

// wait returns when the server may shut down, or when ctx ends. It calls leave when
// new connections reach other servers.
func (s Stopping) wait(ctx context.Context, a *activity, leave func()) {
	asked, left := a.now(), false
	tick := time.NewTicker(max(s.Quiet/30, time.Millisecond))
	defer tick.Stop()
	for {
		inFlight, changed := a.last()
		now := a.now()
		if s.over(now, asked, changed, inFlight) {
			return
		}
		if !left && now.Sub(asked) >= s.Least {
			leave()
			left = true
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Listeners are where a server answers.
type Listeners struct {
	// Predictions is for REST, on [spec.ServePort], GRPC for gRPC, on
	// [spec.GRPCPort], and Operations for the operator, on
	// [spec.OperationsPort].
	Predictions, GRPC, Operations net.Listener
}

// Run answers on the listeners until a signal arrives, then stops without
// loss; a second signal ends it at once. It returns nil if it was asked to
// stop, and closes the models.
func (s *Server) Run(signals <-chan os.Signal, l Listeners) error {
	defer s.models.Close()
	front, back := s.servers()
	rpc := newRPC(s, l.GRPC)
	ended := make(chan error, 3)
	simple := newQuick(s, l.Predictions)
	go func() { ended <- front.Serve(simple) }()
	go func() { ended <- rpc.serve() }()
	go func() { ended <- back.Serve(l.Operations) }()
	defer simple.cut()
	defer front.Close()
	defer back.Close()
	defer rpc.cut()
	select {
	case err := <-ended:
		return err
	case sig := <-signals:
		s.options.Log.Info("stopping", "signal", sig.String())
	}
	s.stop(signals, front, simple, rpc)
	return nil
}

// stop waits for quiet and shuts down. Operations go on meanwhile, so that
// those who measure see the last requests, too.
func (s *Server) stop(signals <-chan os.Signal, front *http.Server, simple *quick, rpc *rpc) {
	s.stopping.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	s.options.Stop.wait(ctx, s.requests, rpc.askToLeave)
	bounded, done := context.WithTimeout(ctx, s.options.Stop.Shutdown)
	defer done()
	close(s.shutdown)
	if err := errors.Join(front.Shutdown(bounded), simple.shutdown(bounded), rpc.shutdown(bounded)); err != nil {
		inFlight, _ := s.requests.last()
		s.options.Log.Warn("stopped before all requests were answered", "inFlight", inFlight, "error", errors.Join(err, ctx.Err()))
		return
	}
	s.options.Log.Info("stopped")
}

// awaitAll returns when all of a group are done, or with the error of ctx.
func awaitAll(ctx context.Context, group *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) servers() (front, back *http.Server) {
	o := s.options
	front = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: o.ReadHeaderTimeout,
		ReadTimeout:       o.ReadTimeout,
		WriteTimeout:      o.WriteTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.HeaderBytes,
		ConnContext:       s.withEndOfLife,
	}
	// Nothing here limits the whole of a request: a load may take long, and its
	// caller says how long it waits. (A ReadTimeout, too, would end it.)
	back = &http.Server{
		Handler:           s.Operations(),
		ReadHeaderTimeout: o.ReadHeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.HeaderBytes,
	}
	return front, back
}
