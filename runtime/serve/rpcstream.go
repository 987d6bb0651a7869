package serve

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// rpcStream is a stream of HTTP/2, on which there is one call. What its head does not
// say is guarded by mu of its connection.
type rpcStream struct {
	on              *rpcConnection
	id              uint32
	call            inferenceCall
	question        *question // that is asked, if the call is simple; nil: ModelInfer
	kind            string    // of content
	began, deadline time.Time
	// gathers tells that the message of a simple call is not whole yet, or that another
	// call, which is what is asked, waits for its body.
	gathers bool
	asked   *http.Request
	// fields are those of the head, if a call that seems simple is traced.
	fields []hpack.HeaderField

	// body is what has arrived and was not read, and taken what it takes of the
	// server's budget.
	body             []byte
	taken            int64
	arrived, claimed int64 // bytes of the whole body; claimed is -1 when it is not said
	room, owed       int   // as of a connection
	ended            bool  // the client has sent everything
	failed           error // why nothing more is read

	out    int64 // bytes of DATA that the client still takes
	gone   bool  // nobody waits for the answer any more
	cancel context.CancelFunc
}

// rpcHead is what the head of a call says.
type rpcHead struct {
	method, scheme, path, authority string
	kind                            string // of content
	length                          int64  // of the body; -1: not said
	timeout                         time.Duration
	// odd tells that there is more to it, for grpc-go.
	odd bool
}

// read reads a head. It is false for what HTTP/2 does not allow.
func (h *rpcHead) read(fields []hpack.HeaderField) bool {
	h.length, h.timeout = -1, -1
	for _, f := range fields {
		switch f.Name {
		case ":method":
			h.method = f.Value
		case ":scheme":
			h.scheme = f.Value
		case ":path":
			h.path = f.Value
		case ":authority":
			h.authority = f.Value
		case "content-type":
			h.kind = f.Value
		case "content-length":
			n, err := strconv.ParseUint(f.Value, 10, 63)
			if err != nil || h.length >= 0 && h.length != int64(n) {
				return false
			}
			h.length = int64(n)
		case "te":
			if f.Value != "trailers" {
				return false
			}
		case "grpc-timeout":
			var ok bool
			h.timeout, ok = timeout(f.Value)
			h.odd = h.odd || !ok
		case "grpc-encoding":
			h.odd = h.odd || f.Value != "identity"
		case "connection", "proxy-connection", "keep-alive", "upgrade", "transfer-encoding":
			return false
		default:
			h.odd = h.odd || f.Name == "host" || strings.HasSuffix(f.Name, "-bin") || strings.HasPrefix(f.Name, ":")
		}
	}
	return h.method != "" && h.scheme != "" && h.path != ""
}

// head begins a stream, or ends its body.
func (c *rpcConnection) head(f *http2.MetaHeadersFrame) error {
	wrong := http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	if s := c.streams[f.StreamID]; s != nil {
		switch {
		case s.ended || s.gone:
			wrong.Code = http2.ErrCodeStreamClosed
			return wrong
		case !f.StreamEnded() || len(f.PseudoFields()) > 0 || s.claimed >= 0 && s.arrived != s.claimed:
			return wrong
		}
		s.ended = true
		c.changed.Broadcast()
		if s.gathers { // nothing but a trailer came last
			c.handOn(s)
		}
		return nil
	}
	if f.StreamID%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if f.StreamID <= c.last {
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	}
	c.last = f.StreamID
	if c.state == left {
		return nil
	}
	var h rpcHead
	ok := h.read(f.Fields)
	switch {
	case f.HasPriority() && f.Priority.StreamDep == f.StreamID:
		return wrong
	case f.Truncated:
		wrong.Code = http2.ErrCodeEnhanceYourCalm
		return wrong
	case !ok || f.StreamEnded() && h.length > 0:
		return wrong
	case len(c.streams) >= mostStreams:
		wrong.Code = http2.ErrCodeRefusedStream
		return wrong
	}
	limit := c.rpc.options.WriteTimeout
	if h.timeout >= 0 {
		limit = min(limit, h.timeout)
	}
	s := &rpcStream{on: c, id: f.StreamID, call: inferenceCall{method: h.path}, kind: cmp.Or(h.kind, "application/grpc"), began: c.heard, deadline: c.heard.Add(limit),
		claimed: h.length, room: streamWindow, out: c.initial, ended: f.StreamEnded()}
	c.streams[s.id] = s
	simple := !s.ended && h.simple()
	if simple && h.path != inference.GRPCInferenceService_ModelInfer_FullMethodName {
		s.question = c.rpc.questions[h.path]
		simple = s.question != nil
	}
	if simple && c.rpc.traces.tracer != nil {
		s.fields = f.RegularFields()
	}
	if !simple {
		s.asked = s.request(&h, f.RegularFields())
		// It waits for some of its body, and for all of a short one that says its length:
		// an answer before that would come instead of what is wrong with the body.
		if s.ended || s.claimed > streamWindow {
			c.pass(s, s.asked)
			return nil
		}
	}
	s.gathers = true
	c.gathering++
	if simple && ofInference(h.path) {
		c.rpc.begin(&s.call)
	}
	return nil
}

// data takes bytes of a body. It returns the stream if its message is whole now.
func (c *rpcConnection) data(f *http2.DataFrame) (*rpcStream, error) {
	n, data := int(f.Length), f.Data()
	c.owed += n
	if c.room -= n; c.room < 0 {
		return nil, http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	if c.owed > connectionWindow/2 {
		if err := c.framer.WriteWindowUpdate(0, uint32(c.owed)); err != nil {
			return nil, err
		}
		c.room, c.owed = c.room+c.owed, 0
	}
	if f.StreamID > c.last {
		return nil, http2.ConnectionError(http2.ErrCodeProtocol)
	}
	wrong := func(code http2.ErrCode) error { return http2.StreamError{StreamID: f.StreamID, Code: code} }
	s := c.streams[f.StreamID]
	if s == nil || s.ended || s.gone {
		return nil, wrong(http2.ErrCodeStreamClosed)
	}
	if s.room -= n; s.room < 0 {
		return nil, wrong(http2.ErrCodeFlowControl)
	}
	s.ended = f.StreamEnded()
	s.arrived += int64(len(data))
	if s.claimed >= 0 && (s.arrived > s.claimed || s.ended && s.arrived < s.claimed) {
		return nil, wrong(http2.ErrCodeProtocol)
	}
	if len(data) == 0 && !s.ended {
		c.idle++
	}
	if err := c.rpc.bodies.take(int64(len(data))); err != nil {
		if s.gathers {
			st, _ := status.FromError(statusOf(context.Background(), err))
			c.refused(s, st)
		} else {
			s.failed = err
			c.changed.Broadcast()
		}
		return nil, nil
	}
	s.taken += int64(len(data))
	if s.gathers && s.asked != nil {
		s.body = append(s.body, data...)
		if s.ended || s.claimed < 0 {
			c.handOn(s)
		}
		return nil, c.consumed(s, n-len(data))
	}
	if s.gathers {
		if len(s.body) == 0 && s.ended {
			s.body = data // which is read before the next frame is
		} else {
			s.body = append(s.body, data...)
		}
		return c.gather(s), c.consumed(s, n)
	}
	// grpc-go holds whatever comes.
	most := c.rpc.options.BodyBytes + streamWindow
	if !ofInference(s.call.method) {
		most = mostQuestions
	}
	if s.arrived > most {
		return nil, wrong(http2.ErrCodeEnhanceYourCalm)
	}
	s.body = append(s.body, data...)
	c.changed.Broadcast()
	return nil, c.consumed(s, n-len(data))
}

// consumed lets the client send n bytes more.
func (c *rpcConnection) consumed(s *rpcStream, n int) error {
	s.owed += n
	if s.ended || s.gone || s.owed <= streamWindow/2 {
		return nil
	}
	more := uint32(s.owed)
	s.room, s.owed = s.room+s.owed, 0
	return c.framer.WriteWindowUpdate(s.id, more)
}

// reset tells the client that a stream is over, since something is wrong with it.
func (c *rpcConnection) reset(wrong http2.StreamError) error {
	c.idle++
	if wrong.StreamID%2 == 1 {
		c.last = max(c.last, wrong.StreamID)
	}
	if s := c.streams[wrong.StreamID]; s != nil {
		c.abort(s)
	}
	return c.framer.WriteRSTStream(wrong.StreamID, wrong.Code)
}

// mostQuestions is how many bytes a client may send on one stream of health or
// reflection.
const mostQuestions = 64 << 10

// abort ends the work on a stream that nobody waits for any more.
func (c *rpcConnection) abort(s *rpcStream) {
	s.gone = true
	if s.failed == nil {
		s.failed = context.Canceled
	}
	if s.cancel != nil {
		s.cancel()
	}
	c.changed.Broadcast()
	if s.gathers {
		c.finish(s, codes.Canceled)
	}
}

// finish forgets a stream that was answered, or that nobody waits for.
func (c *rpcConnection) finish(s *rpcStream, code codes.Code) {
	now := time.Now()
	c.rpc.end(&s.call, code, now.Sub(s.began))
	c.gathered(s)
	c.rpc.bodies.giveBack(s.taken)
	if !s.gone {
		c.idle = 0
		if !s.ended {
			_ = c.framer.WriteRSTStream(s.id, http2.ErrCodeNo) // memory takes all
		}
	}
	s.gone = true
	delete(c.streams, s.id)
	if len(c.streams) == 0 {
		c.rested = now
		if c.state == left {
			c.wake()
		}
	}
}

// writeHead writes the fields that were encoded.
func (c *rpcConnection) writeHead(s *rpcStream, last bool) {
	block := c.block.Bytes()
	first := block[:min(len(block), c.frame)]
	block = block[len(first):]
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: first, EndHeaders: len(block) == 0, EndStream: last})
	for err == nil && len(block) > 0 {
		first = block[:min(len(block), c.frame)]
		block = block[len(first):]
		err = c.framer.WriteContinuation(s.id, len(block) == 0, first)
	}
	_ = err // memory takes all
	c.block.Reset()
}

// writeSome writes as much DATA as the client takes, and returns the rest.
func (c *rpcConnection) writeSome(s *rpcStream, data []byte) []byte {
	for len(data) > 0 && !s.gone {
		n := min(int64(len(data)), c.window, s.out, int64(c.frame))
		if n <= 0 {
			break
		}
		_ = c.framer.WriteData(s.id, false, data[:n]) // memory takes all
		c.window, s.out, data = c.window-n, s.out-n, data[n:]
	}
	return data
}

// write sends DATA, and waits until the client takes it. What it does not take
// before ctx ends ends the stream.
func (c *rpcConnection) write(ctx context.Context, s *rpcStream, data []byte) error {
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})()
	for {
		c.mu.Lock()
		data = c.writeSome(s, data)
		if len(data) > 0 && !s.gone && ctx.Err() != nil {
			_ = c.reset(http2.StreamError{StreamID: s.id, Code: http2.ErrCodeCancel}) // memory takes all
		}
		if len(data) == 0 || s.gone {
			defer c.mu.Unlock()
			if s.gone {
				return context.Canceled
			}
			return nil
		}
		c.mu.Unlock()
		if err := c.flush(); err != nil {
			return err
		}
		c.mu.Lock()
		for c.window <= 0 || s.out <= 0 {
			if s.gone || ctx.Err() != nil {
				break
			}
			c.changed.Wait()
		}
		c.mu.Unlock()
	}
}

// handOn has grpc-go answer a call that seemed simple, or whose body is whole.
func (c *rpcConnection) handOn(s *rpcStream) {
	c.gathered(s)
	c.rpc.callOff(&s.call)
	s.body = bytes.Clone(s.body)
	if s.asked == nil {
		fields := []hpack.HeaderField{
			{Name: "content-type", Value: s.kind},
			{Name: "grpc-timeout", Value: strconv.FormatInt(max(0, time.Until(s.deadline).Milliseconds()), 10) + "m"}}
		for _, name := range callers.Fields() {
			fields = append(fields, hpack.HeaderField{Name: name, Value: s.field(name)})
		}
		s.asked = s.request(&rpcHead{method: http.MethodPost}, fields)
	}
	c.pass(s, s.asked)
}

// pass has grpc-go answer a call, which it is shown as [net/http] would.
func (c *rpcConnection) pass(s *rpcStream, r *http.Request) {
	ctx, cancel := c.rpc.begun(context.Background(), &inferenceCall{method: s.call.method})
	s.cancel = cancel
	if s.gone {
		cancel()
	}
	c.calls.Go(func() {
		defer cancel()
		w := &rpcReply{stream: s, ctx: ctx, header: http.Header{}}
		defer w.end()
		c.rpc.others.ServeHTTP(w, r.WithContext(ctx))
	})
}

// field returns the first value of a field of the head of a call that is traced.
func (s *rpcStream) field(name string) string {
	for _, f := range s.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func (s *rpcStream) request(h *rpcHead, fields []hpack.HeaderField) *http.Request {
	header := http.Header{}
	for _, f := range fields {
		header.Add(f.Name, f.Value)
	}
	return &http.Request{Method: h.method, Host: h.authority, URL: &url.URL{Path: s.call.method}, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: header, Body: s, ContentLength: s.claimed, RemoteAddr: s.on.RemoteAddr().String()}
}

// Read implements [io.Reader] for the body of a request.
func (s *rpcStream) Read(p []byte) (int, error) {
	n, err := s.read(p)
	if n > 0 {
		err = errors.Join(err, s.on.flush())
	}
	return n, err
}

func (s *rpcStream) read(p []byte) (int, error) {
	s.on.mu.Lock()
	defer s.on.mu.Unlock()
	for len(s.body) == 0 && s.failed == nil && !s.ended {
		s.on.changed.Wait()
	}
	if s.failed != nil {
		return 0, s.failed
	}
	if len(s.body) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.body)
	s.body, s.taken = s.body[n:], s.taken-int64(n)
	s.on.rpc.bodies.giveBack(int64(n))
	return n, s.on.consumed(s, n)
}

// Close implements [io.Closer] for the body of a request.
func (s *rpcStream) Close() error {
	s.on.mu.Lock()
	defer s.on.mu.Unlock()
	s.failed = errors.New("body closed by handler") // as grpc-go knows it
	s.on.changed.Broadcast()
	return nil
}

// rpcReply is the answer to a call that was handed on.
type rpcReply struct {
	stream *rpcStream
	ctx    context.Context
	header http.Header
	begun  bool
	unsent []byte
}

// Header implements [http.ResponseWriter]. What is in it after the answer has begun
// is the trailer.
func (w *rpcReply) Header() http.Header { return w.header }

// WriteHeader implements [http.ResponseWriter].
func (w *rpcReply) WriteHeader(code int) {
	if w.begun {
		return
	}
	w.begun = true
	w.header.Del("Trailer")
	c := w.stream.on
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.stream.gone {
		return
	}
	c.field(":status", strconv.Itoa(code))
	w.fields()
	c.writeHead(w.stream, false)
}

// fields encodes the header.
func (w *rpcReply) fields() {
	for name, values := range w.header {
		for _, value := range values {
			w.stream.on.field(strings.ToLower(strings.TrimPrefix(name, http.TrailerPrefix)), value)
		}
	}
	clear(w.header)
}

// Write implements [http.ResponseWriter].
func (w *rpcReply) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.unsent = append(w.unsent, p...)
	return len(p), nil
}

// Flush implements [http.Flusher].
func (w *rpcReply) Flush() {
	w.WriteHeader(http.StatusOK)
	_ = w.stream.on.write(w.ctx, w.stream, w.unsent) // the client is gone then
	w.unsent = w.unsent[:0]
	_ = w.stream.on.flush()
}

// canceled is [codes.Canceled], as it is written.
const canceled = "1"

// end ends the answer. Of a call that took too long, grpc-go says nothing, or that the
// client canceled it.
func (w *rpcReply) end() {
	if !w.begun {
		w.header.Set("Content-Type", "application/grpc")
	}
	w.Flush()
	c, s := w.stream.on, w.stream
	c.mu.Lock()
	if !s.gone {
		if said := w.header.Get("Grpc-Status"); w.ctx.Err() != nil && (said == "" || said == canceled) {
			clear(w.header)
			c.status(status.FromContextError(w.ctx.Err()))
		}
		w.fields()
		c.writeHead(s, true)
	}
	c.finish(s, codes.OK)
	c.mu.Unlock()
	_ = c.flush() // an error ends the connection
}
