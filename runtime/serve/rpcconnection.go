package serve

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// Limits of a connection of HTTP/2.
const (
	// mostStreams is how many calls one connection may have at once. A client that
	// makes more waits; the messages of all lie in memory.
	mostStreams = 250
	// readFrame is how long a frame may be that it sends.
	readFrame = 16 << 10
	// streamWindow and connectionWindow are how many bytes a client may send ahead.
	streamWindow, connectionWindow = 256 << 10, 1 << 20
	// mostIdle is how many frames may bring no call further before one is answered:
	// PING, SETTINGS, RST_STREAM and the like cost the server as much as the client.
	mostIdle = 1000
	// mostSettings is how many settings may come at once; HTTP/2 has about ten.
	mostSettings = 100
	// unsent is how many bytes gather before they are sent, even if there are more
	// frames to read.
	unsent = 32 << 10
	// A client that was silent for pingAfter is asked whether it is still there, and
	// given up when it says nothing for pingTimeout more.
	pingAfter, pingTimeout = time.Minute, 20 * time.Second
	// farewell is how long a client may take to close a connection that is over.
	farewell = time.Second
)

// States of an rpcConnection.
const (
	greeting = iota // the client has not yet said that it speaks HTTP/2
	open
	leaving // the client was told that the connection ends, but may not know it yet
	left    // the client knows: streams that it begins now, it will begin elsewhere
)

// lastPing tells a client's answer to the PING after the first GOAWAY from that to
// others.
var lastPing = [8]byte{'l', 'e', 'a', 'v', 'i', 'n', 'g'}

// errOver ends a connection of which nothing more is expected.
var errOver = errors.New("the connection is over")

// rpcConnection is a connection of HTTP/2. One goroutine reads it, and computes
// what is computed at once; all others are of single streams.
type rpcConnection struct {
	net.Conn
	rpc    *rpc
	framer *http2.Framer
	calls  sync.WaitGroup
	// asked tells that the client is to leave, and woken that there is something to
	// do that no frame asks for.
	asked, woken atomic.Bool

	// What only the goroutine that reads touches: when the connection began, when
	// something was heard, when the client was last asked whether it is there, if it
	// has not answered, and the deadline of reading.
	began, heard, pinged, alarm time.Time

	// sending is held by who writes to Conn; it is taken before mu.
	sending sync.Mutex
	sent    *bytes.Buffer
	writing deadline

	mu sync.Mutex
	// changed tells those who wait for a window or for DATA.
	changed sync.Cond
	state   int
	// end is when the connection is to be left, or, when it is, to be cut.
	end     time.Time
	rested  time.Time // since when it has no streams
	idle    int       // frames, since a call was answered
	streams map[uint32]*rpcStream
	// gathering is how many of them wait for the rest of their message, last the
	// highest that the client has begun, and promised the highest that is answered
	// when the connection is left.
	gathering      int
	last, promised uint32
	// room is how many bytes of DATA the client may send, and owed how many it has
	// sent that it was not given back.
	room, owed int
	// fields is the encoder of heads, which it leaves in block.
	fields  *hpack.Encoder
	block   bytes.Buffer
	out     *bytes.Buffer // frames that are to be sent
	window  int64         // bytes of DATA that the client still takes
	initial int64         // and of a new stream
	frame   int           // the longest frame that it takes
}

func newRPCConnection(r *rpc, from net.Conn) *rpcConnection {
	now := time.Now()
	c := &rpcConnection{
		Conn: from, rpc: r, began: now, heard: now, rested: now, end: r.endOfLife(now), room: connectionWindow,
		streams: map[uint32]*rpcStream{}, sent: new(bytes.Buffer), out: new(bytes.Buffer),
		window: 65535, initial: 65535, frame: 16 << 10, // as HTTP/2 begins
	}
	c.changed.L = &c.mu
	c.writing.set = from.SetWriteDeadline
	c.fields = hpack.NewEncoder(&c.block)
	return c
}

// serve answers until the connection ends.
func (c *rpcConnection) serve() {
	defer func() {
		if cause := recover(); cause != nil {
			c.rpc.options.Log.Error("a connection panicked", "cause", cause, "stack", string(debug.Stack()))
		}
		_ = c.Close()
		c.abandon()
	}()
	in := bufio.NewReaderSize(reading{c}, 16<<10)
	c.framer = http2.NewFramer(pending{c}, in)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(readFrame)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.MaxHeaderListSize = uint32(c.rpc.options.HeaderBytes)
	if c.greet(in) != nil {
		return
	}
	for {
		f, err := c.framer.ReadFrame()
		if err == nil || errors.As(err, new(http2.StreamError)) || errors.As(err, new(http2.ConnectionError)) || errors.Is(err, http2.ErrFrameTooLarge) {
			err = c.take(f, err)
		}
		if errors.Is(err, errOver) {
			c.farewell()
		}
		if err != nil {
			return
		}
	}
}

// greet says how the server speaks HTTP/2, and reads that the client does.
func (c *rpcConnection) greet(in io.Reader) error {
	c.mu.Lock()
	err := errors.Join(
		c.framer.WriteSettings(
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: mostStreams},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.rpc.options.HeaderBytes)}),
		c.framer.WriteWindowUpdate(0, connectionWindow-65535))
	c.mu.Unlock()
	if err != nil {
		return err
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(in, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return errors.New("the client speaks no HTTP/2")
	}
	return nil
}

// take does what a frame asks for, or what an error in it does.
func (c *rpcConnection) take(f http2.Frame, err error) error {
	whole, err := c.understand(f, err)
	if err == nil && whole != nil {
		c.answer(whole)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	full, over := c.out.Len() > unsent, c.state == left && len(c.streams) == 0
	c.mu.Unlock()
	switch {
	case over: // the client knows that the connection ends, and has all its answers
		return errOver
	case full:
		return c.flush()
	}
	return nil
}

// understand returns the stream whose message is whole now, if there is one.
func (c *rpcConnection) understand(f http2.Frame, err error) (*rpcStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var whole *rpcStream
	if err == nil {
		whole, err = c.process(f)
	}
	if wrong, ok := errors.AsType[http2.StreamError](err); ok {
		err = c.reset(wrong)
	}
	if err == nil && c.idle > mostIdle {
		err = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	if wrong, ok := errors.AsType[http2.ConnectionError](err); ok {
		err = c.fail(http2.ErrCode(wrong))
	} else if errors.Is(err, http2.ErrFrameTooLarge) {
		err = c.fail(http2.ErrCodeFrameSize)
	}
	return whole, err
}

// fail tells the client why the connection ends. The error is for who reads it.
func (c *rpcConnection) fail(code http2.ErrCode) error {
	if c.state != left {
		c.promised = c.last
	}
	if err := c.framer.WriteGoAway(c.promised, code, nil); err != nil {
		return err
	}
	return errOver
}

func (c *rpcConnection) process(f http2.Frame) (*rpcStream, error) {
	if c.state == greeting {
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			return nil, http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.state = open
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return nil, c.head(f)
	case *http2.DataFrame:
		return c.data(f)
	case *http2.WindowUpdateFrame:
		return nil, c.widen(f)
	case *http2.SettingsFrame:
		c.idle++
		return nil, c.settings(f)
	case *http2.PingFrame:
		c.idle++
		return nil, c.ping(f)
	case *http2.RSTStreamFrame:
		c.idle++
		if f.StreamID > c.last {
			return nil, http2.ConnectionError(http2.ErrCodeProtocol)
		}
		if s := c.streams[f.StreamID]; s != nil {
			c.abort(s)
		}
	case *http2.PriorityFrame:
		c.idle++
		if f.StreamDep == f.StreamID {
			return nil, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	case *http2.PushPromiseFrame:
		return nil, http2.ConnectionError(http2.ErrCodeProtocol)
	default: // GOAWAY, too: the client closes the connection when it has its answers
		c.idle++
	}
	return nil, nil
}

func (c *rpcConnection) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if f.NumSettings() > mostSettings {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			c.fields.SetMaxDynamicTableSizeLimit(s.Val)
		case http2.SettingMaxFrameSize:
			c.frame = min(int(s.Val), 64<<10)
		case http2.SettingInitialWindowSize:
			more := int64(s.Val) - c.initial
			c.initial = int64(s.Val)
			for _, s := range c.streams {
				if s.out += more; s.out > mostWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			c.changed.Broadcast()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.framer.WriteSettingsAck()
}

// mostWindow is the largest window that HTTP/2 has.
const mostWindow = 1<<31 - 1

func (c *rpcConnection) widen(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > mostWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
	} else if f.StreamID > c.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	} else if s := c.streams[f.StreamID]; s != nil {
		if s.out += int64(f.Increment); s.out > mostWindow {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
		}
	}
	c.changed.Broadcast()
	return nil
}

func (c *rpcConnection) ping(f *http2.PingFrame) error {
	if !f.IsAck() {
		return c.framer.WritePing(true, f.Data)
	}
	if f.Data != lastPing || c.state != leaving {
		return nil
	}
	c.state, c.promised = left, c.last
	return c.framer.WriteGoAway(c.promised, http2.ErrCodeNo, nil)
}

// leave tells the client that the connection ends. Streams that it begins before
// it knows are answered: the answer to a PING tells when it knows.
func (c *rpcConnection) leave(now time.Time) error {
	c.state, c.end, c.pinged = leaving, now.Add(c.rpc.options.WriteTimeout), now
	return errors.Join(c.framer.WriteGoAway(mostWindow, http2.ErrCodeNo, nil), c.framer.WritePing(false, lastPing))
}

// askToLeave may be called by anyone.
func (c *rpcConnection) askToLeave() {
	c.asked.Store(true)
	c.wake()
}

// wake has the goroutine that reads look at what is due.
func (c *rpcConnection) wake() {
	c.woken.Store(true)
	_ = c.SetReadDeadline(time.Unix(1, 0))
}

// farewell sends what is left, and waits for the client to close the connection: if
// the server did while something arrives, the client might lose the last answers.
func (c *rpcConnection) farewell() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if c.flush() != nil || !ok || half.CloseWrite() != nil || c.SetReadDeadline(time.Now().Add(farewell)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, c.Conn)
}

// abandon ends all streams, and returns when nobody works on one. Where the work
// panicked, streams are left.
func (c *rpcConnection) abandon() {
	c.mu.Lock()
	for _, s := range c.streams {
		c.abort(s)
	}
	c.mu.Unlock()
	c.calls.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		c.finish(s, codes.Internal)
	}
}

// reading is what the framer reads from.
type reading struct{ *rpcConnection }

// Read implements [io.Reader]. Before it waits for the client, it sends what there
// is for it; and it does what is due meanwhile.
func (r reading) Read(p []byte) (int, error) {
	c := r.rpcConnection
	for {
		if err := c.flush(); err != nil {
			return 0, err
		}
		c.mu.Lock()
		due := c.due()
		c.mu.Unlock()
		if c.alarm.IsZero() || due.Before(c.alarm) {
			if err := c.SetReadDeadline(due); err != nil {
				return 0, err
			}
			c.alarm = due
		}
		// Who woke it before that deadline was set has not been heard yet.
		if !c.woken.Swap(false) {
			n, err := c.Read(p)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				c.heard, c.pinged = time.Now(), time.Time{}
				return n, err
			}
		}
		c.alarm = time.Time{}
		if err := c.overdue(time.Now()); err != nil {
			return 0, err
		}
	}
}

// due is when there is something to do that no frame asks for.
func (c *rpcConnection) due() time.Time {
	if c.state == greeting {
		return c.began.Add(c.rpc.options.ReadHeaderTimeout)
	}
	due := c.end
	sooner := func(t time.Time) {
		if t.Before(due) {
			due = t
		}
	}
	if c.pinged.IsZero() {
		sooner(c.heard.Add(pingAfter))
	} else {
		sooner(c.pinged.Add(pingTimeout))
	}
	if len(c.streams) == 0 && c.state == open {
		sooner(c.rested.Add(c.rpc.options.IdleTimeout))
	}
	if c.gathering > 0 {
		for _, s := range c.streams {
			if s.gathers {
				sooner(s.deadline)
			}
		}
	}
	return due
}

// overdue does it.
func (c *rpcConnection) overdue(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed := func(t time.Time) bool { return !now.Before(t) }
	if c.state == greeting && c.asked.Swap(false) {
		c.began = now.Add(min(grace, c.rpc.options.ReadHeaderTimeout) - c.rpc.options.ReadHeaderTimeout)
		c.end = now // to be left as soon as it is open
	}
	switch {
	case c.state == greeting && passed(c.due()),
		c.state > open && passed(c.end),
		!c.pinged.IsZero() && passed(c.pinged.Add(pingTimeout)):
		return errOver
	case c.state == left && len(c.streams) == 0:
		return errOver
	}
	for _, s := range c.streams {
		if s.gathers && passed(s.deadline) {
			c.expire(s)
		}
	}
	asked := c.asked.Swap(false)
	if c.state == open && (asked || passed(c.end) || len(c.streams) == 0 && passed(c.rested.Add(c.rpc.options.IdleTimeout))) {
		return c.leave(now)
	}
	if c.state != greeting && c.pinged.IsZero() && passed(c.heard.Add(pingAfter)) {
		c.pinged = now
		return c.framer.WritePing(false, [8]byte{})
	}
	return nil
}

// pending is what the framer writes to.
type pending struct{ *rpcConnection }

// Write implements [io.Writer].
func (p pending) Write(frame []byte) (int, error) { return p.out.Write(frame) }

// flush sends what there is. It is called without mu.
func (c *rpcConnection) flush() error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	c.sent, c.out = c.out, c.sent
	c.mu.Unlock()
	if c.sent.Len() == 0 {
		return nil
	}
	err := c.writing.move(time.Now(), c.rpc.options.WriteTimeout)
	if err == nil {
		_, err = c.Write(c.sent.Bytes())
	}
	if err != nil {
		_ = c.Close() // which ends reading, too
	}
	if c.sent.Cap() > unsent {
		c.sent = new(bytes.Buffer)
	}
	c.sent.Reset()
	return err
}
