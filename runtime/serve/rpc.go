package serve

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// rpc answers on [spec.GRPCPort]. Calls of ModelInfer, as programs send them all
// day, and short questions it answers itself; every other one it shows to grpc-go,
// as [net/http] would, and so every one whose head or message is odd. So what is
// rare is understood in one place, and what is frequent costs half of what it costs
// there. The frames of HTTP/2, and the compression of heads, are those of
// golang.org/x/net.
type rpc struct {
	*Server
	others *grpc.Server
	// questions are answered here, too.
	questions map[string]*question
	// places are for as many connections as may be open.
	places chan struct{}

	running sync.WaitGroup
	closed  chan struct{}
	mu      sync.Mutex
	from    net.Listener
	open    map[*rpcConnection]struct{}
}

func newRPC(s *Server, from net.Listener) *rpc {
	return &rpc{
		Server:    s,
		others:    s.grpcServer(),
		questions: s.questions(),
		places:    make(chan struct{}, s.options.Connections),
		closed:    make(chan struct{}),
		from:      from,
		open:      map[*rpcConnection]struct{}{},
	}
}

// serve accepts connections until there are none any more. Errors that pass, such
// as a lack of files, have it wait.
func (r *rpc) serve() error {
	r.running.Add(1)
	defer r.running.Done()
	const shortest, longest = 5 * time.Millisecond, time.Second
	pause := shortest
	for {
		select {
		case r.places <- struct{}{}:
		case <-r.closed:
			return nil
		}
		c, err := r.from.Accept()
		if err == nil {
			pause = shortest
			r.take(newRPCConnection(r, c))
			continue
		}
		<-r.places
		if passing, ok := errors.AsType[interface {
			error
			Temporary() bool
		}](err); !ok || !passing.Temporary() {
			return err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, longest)
		case <-r.closed:
			return nil
		}
	}
}

func (r *rpc) take(c *rpcConnection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[c] = struct{}{}
	if r.isClosed() {
		c.askToLeave()
	}
	r.running.Go(func() {
		defer func() { <-r.places }()
		c.serve()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, c)
	})
}

func (r *rpc) isClosed() bool {
	select {
	case <-r.closed:
		return true
	default:
		return false
	}
}

// askToLeave asks the clients of the connections that there are to leave, which they
// do without losing a call. Others may still come.
func (r *rpc) askToLeave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		c.askToLeave()
	}
}

// close accepts no more connections, and asks the clients of those that there are
// to leave.
func (r *rpc) close() {
	r.mu.Lock()
	first := !r.isClosed()
	if first {
		close(r.closed)
		_ = r.from.Close()
	}
	r.mu.Unlock()
	if first {
		r.askToLeave()
	}
}

// shutdown returns when all calls are answered and all clients have left.
func (r *rpc) shutdown(ctx context.Context) error {
	r.close()
	return awaitAll(ctx, &r.running)
}

// cut closes all connections at once.
func (r *rpc) cut() {
	r.close()
	r.mu.Lock()
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.others.Stop()
}
