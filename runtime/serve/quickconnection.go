package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// connection is one that [quick] answers. After it was handed on, it is a
// [net.Conn] that gives first what had been read.
type connection struct {
	net.Conn
	quick *quick
	state atomic.Int32
	// end is when it is closed after its next answer.
	end   time.Time
	freed sync.Once

	// read is what has arrived and is not answered yet. It lies in room, which is
	// nil while there is nothing: a connection may be idle for long.
	read []byte
	room *arrivals
	// raw is nil where there are none. Step is the method of this name.
	raw      syscall.RawConn
	step     func(fd uintptr) bool
	arriving error

	reading, writing deadline
	// model is the name that was asked for last.
	model string
}

// States of a connection.
const (
	fresh int32 = iota // nothing was asked yet
	idle
	busy
	ended // because the server stops
)

// arrivals is room for a head, and for a body that is not long.
type arrivals [16 << 10]byte

var rooms = sync.Pool{New: func() any { return new(arrivals) }}

func newConnection(q *quick, from net.Conn) *connection {
	c := &connection{Conn: from, quick: q, end: q.endOfLife(time.Now())}
	c.reading.set, c.writing.set = from.SetReadDeadline, from.SetWriteDeadline
	c.prepare()
	return c
}

// Read implements [net.Conn].
func (c *connection) Read(p []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.read)
	c.answered(n)
	return n, nil
}

// Close implements [net.Conn], and makes place for another.
func (c *connection) Close() error {
	c.freed.Do(func() { <-c.quick.places })
	return c.Conn.Close()
}

// CloseWrite lets net/http end a connection without losing its last answer.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// grace is how long a stopping server waits for the first request on a connection.
// A client that has just connected is sending it: cut off, it would not know
// whether it was processed.
const grace = time.Second

// leave ends the connection, if nobody is about to ask.
func (c *connection) leave() {
	if c.state.CompareAndSwap(idle, ended) {
		_ = c.Close()
	} else if c.state.Load() == fresh {
		_ = c.SetReadDeadline(time.Now().Add(grace)) // it ends in any case
	}
}

// serve answers until the connection ends or is handed on.
func (c *connection) serve() {
	kept := false
	defer func() {
		if cause := recover(); cause != nil {
			c.quick.options.Log.Error("a request panicked", "cause", cause, "stack", string(debug.Stack()))
		}
		if !kept {
			_ = c.Close()
			c.forget()
		}
	}()
	for first := true; c.await(first); first = false {
		h, ok := parseHead(c.read)
		if !ok || !c.quick.takes(&h) {
			kept = c.handOn()
			return
		}
		if !c.answer(&h) || !c.state.CompareAndSwap(busy, idle) {
			return
		}
	}
}

// takes tells whether a request is within the limits.
func (q *quick) takes(h *head) bool {
	o := &q.options
	return h.length <= o.HeaderBytes && int64(h.body) <= o.BodyBytes && h.body <= kept
}

// handOn gives the connection to who accepts it.
func (c *connection) handOn() bool {
	if c.reading.clear() != nil || c.writing.clear() != nil {
		return false
	}
	select {
	case c.quick.others <- c:
		return true
	case <-c.quick.closed:
		c.refuse(unavailable(time.Second, "the server is stopping"))
		return false
	}
}

// refuse answers a request that nobody takes, as far as it is known.
func (c *connection) refuse(why error) {
	b, now := takeBuffers(), time.Now()
	defer b.giveBack()
	b.reply, _ = appendReply(b.reply[:0], b, nil, why, true, now)
	if c.writing.move(now, c.quick.options.WriteTimeout) == nil {
		_, _ = c.Write(b.reply) // the connection ends in any case
	}
}

// await waits for the first bytes of a request. It is false when there come none.
func (c *connection) await(first bool) bool {
	if len(c.read) == 0 {
		limit := c.quick.options.IdleTimeout
		if first {
			limit = c.quick.options.ReadHeaderTimeout
		}
		if c.reading.move(time.Now(), limit) != nil {
			return false
		}
	}
	// A connection that the shutdown did not see yet sees the shutdown.
	if c.quick.isClosed() {
		if !first {
			return false
		}
		c.leave()
	}
	if len(c.read) == 0 && c.more() != nil {
		return false
	}
	return c.state.CompareAndSwap(idle, busy) || c.state.CompareAndSwap(fresh, busy)
}

// grow makes room, and returns what is free of it.
func (c *connection) grow() []byte {
	if c.room == nil {
		c.room = rooms.Get().(*arrivals)
		c.read = c.room[:0]
	}
	return c.room[len(c.read):]
}

// answered forgets the first n bytes of what was read.
func (c *connection) answered(n int) {
	if n == len(c.read) {
		c.forget()
		return
	}
	c.read = c.room[:copy(c.room[:], c.read[n:])]
}

func (c *connection) forget() {
	if c.room != nil {
		rooms.Put(c.room)
	}
	c.read, c.room = nil, nil
}

// answer does for a request what [Server.answer] does with net/http. It is false
// when the connection cannot be used any more.
func (c *connection) answer(h *head) bool {
	s := c.quick.Server
	began := time.Now()
	s.requests.begin()
	defer s.requests.end()
	s.predictions.begin()
	defer s.predictions.end()
	b := takeBuffers()
	defer b.giveBack()
	if string(h.model) != c.model {
		c.model = string(h.model)
	}
	traced := c.trace(h)
	served, whole, err := c.compute(h, b)
	traced.end(served, &b.phases, err)
	now := time.Now()
	closes := !whole || s.stopping.Load() || now.After(c.end)
	var code int
	b.reply, code = appendReply(b.reply[:0], b, served, err, closes, now)
	if c.writing.move(now, s.options.WriteTimeout) != nil {
		return false
	}
	_, gone := c.Write(b.reply)
	s.metrics.answered(served, h.protocol, strconv.Itoa(code), time.Since(began))
	return gone == nil && !closes
}

// trace begins the span of a request.
func (c *connection) trace(h *head) *span {
	if c.quick.traces.tracer == nil {
		return nil
	}
	return c.quick.traces.begin(context.Background(), carrierOf(h.parent, h.state), h.protocol, c.model)
}

// compute leaves the answer in b. It is not whole when the request did not come
// to its end.
func (c *connection) compute(h *head, b *buffers) (served *version, whole bool, err error) {
	defer func() { c.answered(min(len(c.read), h.length+h.body)) }()
	charge := &charged{budget: &c.quick.bodies}
	defer charge.giveBack()
	if whole, err = c.receive(h, b, charge); err != nil {
		return nil, whole, err
	}
	if err := b.split(string(h.binary)); err != nil {
		return nil, true, err
	}
	// Whoever leaves after a whole request, which is not long, is noticed when the
	// answer is written.
	served, err = c.quick.compute(context.Background(), c.model, string(h.version), h.codec, b)
	return served, true, err
}

// receive reads the rest of a request. If its body has no room beside the head, it
// goes straight to where its tensors are read.
func (c *connection) receive(h *head, b *buffers, charge *charged) (whole bool, err error) {
	if len(c.read) < h.length+h.body {
		err = c.reading.move(time.Now(), c.quick.options.ReadTimeout)
	}
	if err == nil && h.length+h.body > len(c.room) {
		return c.receiveLong(h, b, charge)
	}
	for err == nil && len(c.read) < h.length+h.body {
		err = c.more()
	}
	if err != nil {
		return false, invalid("reading the body: %v", err)
	}
	b.body = c.read[h.length : h.length+h.body]
	return true, charge.take(h.body)
}

// receiveLong reads a body of which c.read has only the beginning.
func (c *connection) receiveLong(h *head, b *buffers, charge *charged) (whole bool, err error) {
	rest := &io.LimitedReader{R: io.MultiReader(bytes.NewReader(c.read[h.length:]), c.Conn), N: int64(h.body)}
	charge.Reader = rest
	err = b.receive(charge, h.body, tensorsAt(string(h.binary)))
	if over, ok := errors.AsType[*problem](err); ok {
		// Who still sends would not read the answer.
		charge.giveBack()
		_, err = io.Copy(io.Discard, rest)
		return err == nil && rest.N == 0, over
	}
	if err == nil && rest.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return false, invalid("reading the body: %v", err)
	}
	return true, nil
}

// moreAtOnce is more for connections that do not tell when something arrives.
func (c *connection) moreAtOnce() error {
	n, err := c.Conn.Read(c.grow())
	c.read = c.room[:len(c.read)+n]
	if n > 0 {
		return nil
	}
	return err
}
