package serve

import (
	"context"
	"net"
	"sync"
	"time"
)

// quick is a listener that answers requests for predictions itself, if they are
// as programs send them all day: a head of a few fields, and a body whose length
// it tells ([parseHead] has the rules), and which is not longer than what buffers
// keep. It hands a connection on, with
// what has been read of it, at the first request that is anything else. So what
// is rare, odd or hostile is understood in one place, [net/http], and what is
// frequent costs half of what it costs there.
type quick struct {
	net.Listener
	*Server
	// places are for as many connections as may be open.
	places chan struct{}
	// others are connections for who calls Accept, and failed is why there is
	// none.
	others chan net.Conn
	failed chan error
	closed chan struct{}

	running sync.WaitGroup
	mu      sync.Mutex
	open    map[*connection]struct{} // that were not handed on
}

func newQuick(s *Server, l net.Listener) *quick {
	q := &quick{
		Listener: l,
		Server:   s,
		places:   make(chan struct{}, s.options.Connections),
		others:   make(chan net.Conn),
		failed:   make(chan error),
		closed:   make(chan struct{}),
		open:     map[*connection]struct{}{},
	}
	q.running.Go(q.take)
	return q
}

// Accept implements [net.Listener]. It returns connections with other requests.
func (q *quick) Accept() (net.Conn, error) {
	select {
	case c := <-q.others:
		return c, nil
	case err := <-q.failed:
		return nil, err
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener]. Connections without a request are closed, so
// that their clients open others, which other servers answer; but those of which
// the first is about to come.
func (q *quick) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isClosed() {
		return nil
	}
	close(q.closed)
	for c := range q.open {
		c.leave()
	}
	return q.Listener.Close()
}

func (q *quick) isClosed() bool {
	select {
	case <-q.closed:
		return true
	default:
		return false
	}
}

// take accepts connections until the listener is closed. Who calls Accept is
// told of errors, and has us wait as long as it waits before it calls again: for
// example until there are files.
func (q *quick) take() {
	for {
		select {
		case q.places <- struct{}{}:
		case <-q.closed:
			return
		}
		c, err := q.Listener.Accept()
		if err == nil {
			q.begin(newConnection(q, c))
			continue
		}
		<-q.places
		select {
		case q.failed <- err:
		case <-q.closed:
			return
		}
	}
}

func (q *quick) begin(c *connection) {
	q.mu.Lock()
	q.open[c] = struct{}{}
	q.mu.Unlock()
	q.running.Go(func() {
		c.serve()
		q.mu.Lock()
		delete(q.open, c)
		q.mu.Unlock()
	})
}

// shutdown returns when there are no connections any more. It is called after
// Close, since which they are closed as soon as their request is answered.
func (q *quick) shutdown(ctx context.Context) error {
	return awaitAll(ctx, &q.running)
}

// cut closes all connections at once.
func (q *quick) cut() {
	_ = q.Close()
	q.mu.Lock()
	defer q.mu.Unlock()
	for c := range q.open {
		_ = c.Close()
	}
}

// deadline is one of a connection's, which is moved for every request. Moving it
// takes longer than a request should, so it is moved only when it is a sixteenth
// too early.
type deadline struct {
	set   func(time.Time) error
	moved time.Time
	limit time.Duration
}

// move lets what follows take as long as limit, more or less.
func (d *deadline) move(now time.Time, limit time.Duration) error {
	if limit == d.limit && now.Sub(d.moved) < limit/16 {
		return nil
	}
	d.moved, d.limit = now, limit
	return d.set(now.Add(limit))
}

// clear lets what follows take as long as it wants.
func (d *deadline) clear() error {
	d.limit = 0
	return d.set(time.Time{})
}
