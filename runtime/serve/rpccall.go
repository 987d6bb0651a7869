package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// messageHead is how many bytes come before a message of gRPC: whether it is
// compressed, and its length.
const messageHead = 5

// simple tells whether a call is one that is answered here, if its method is:
// with nothing in its head that would have to be understood.
func (h *rpcHead) simple() bool {
	return h.method == http.MethodPost && h.authority != "" &&
		(h.kind == "application/grpc" || h.kind == "application/grpc+proto") && !h.odd
}

// gather returns the stream when its message is whole. A message that is odd goes
// to grpc-go, which says what is wrong with it.
func (c *rpcConnection) gather(s *rpcStream) *rpcStream {
	most := c.rpc.options.BodyBytes
	if s.question != nil {
		most = min(most, readFrame)
	}
	if len(s.body) >= messageHead {
		size := int64(binary.BigEndian.Uint32(s.body[1:]))
		if s.body[0] != 0 || size > most || int64(len(s.body)) > messageHead+size || s.ended && int64(len(s.body)) < messageHead+size {
			c.handOn(s)
			return nil
		}
	} else if s.ended {
		c.handOn(s)
		return nil
	}
	if !s.ended {
		return nil
	}
	c.gathered(s)
	return s
}

func (c *rpcConnection) gathered(s *rpcStream) {
	if s.gathers {
		s.gathers = false
		c.gathering--
	}
}

// mostAtOnce is how many multiplications a call may take at most, about, that is
// computed by the goroutine that reads its connection: other calls on it wait, but
// for less than a tenth of a millisecond.
const mostAtOnce = 1 << 20

// atOnce tells whether a message of size bytes can be computed in so short a time.
// A row has at least one byte for each of its numbers.
func (v *version) atOnce(size int) bool {
	return v.batcher == nil && multiplications(v.network)*(1+size/v.features) <= mostAtOnce
}

// answer answers a call whose message is whole.
func (c *rpcConnection) answer(s *rpcStream) {
	if s.question != nil {
		c.tell(s)
		return
	}
	r := new(inference.ModelInferRequest)
	if len(s.body) > readFrame {
		c.apart(s, func(ctx context.Context) {
			if c.decode(s, r) {
				v, err := c.rpc.models.acquire(r.GetModelName(), r.GetModelVersion())
				c.infer(ctx, s, v, r, err)
			}
		})
		return
	}
	if !c.decode(s, r) || c.late(s) {
		return
	}
	v, err := c.rpc.models.acquire(r.GetModelName(), r.GetModelVersion())
	if err == nil && !v.atOnce(len(s.body)) {
		c.apart(s, func(ctx context.Context) { c.infer(ctx, s, v, r, nil) })
		return
	}
	c.infer(context.Background(), s, v, r, err)
}

// decode reads the message into m. What cannot be read is handed on.
func (c *rpcConnection) decode(s *rpcStream, m proto.Message) bool {
	wire := s.body[messageHead:]
	// A part takes two bytes, so a short message has not too many.
	few := len(wire) < 2*mostParts || parts(wire, m.ProtoReflect().Descriptor(), mostParts) <= mostParts
	if few && proto.Unmarshal(wire, m) == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handOn(s)
	return false
}

// late ends a call whose deadline has passed.
func (c *rpcConnection) late(s *rpcStream) bool {
	if c.heard.Before(s.deadline) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(s)
	return true
}

// apart has a goroutine of its own work on a call, which ends with the call's
// deadline, or when the client cancels it.
func (c *rpcConnection) apart(s *rpcStream, work func(context.Context)) {
	ctx, cancel := context.WithDeadline(context.Background(), s.deadline)
	c.mu.Lock()
	defer c.mu.Unlock()
	s.cancel = cancel
	if s.gone {
		cancel()
	}
	c.calls.Go(func() {
		defer cancel()
		work(ctx)
		_ = c.flush() // an error ends the connection
	})
}

// infer computes the answer, and sends it. V is nil if err is not.
func (c *rpcConnection) infer(ctx context.Context, s *rpcStream, v *version, r *inference.ModelInferRequest, err error) {
	b := takeBuffers()
	defer b.giveBack()
	traced := c.trace(ctx, s, r.GetModelName())
	if err == nil {
		s.call.served = v
		b.reply, err = c.rpc.inferMessage(ctx, v, r, b)
	}
	traced.end(s.call.served, &b.phases, err)
	c.reply(s, b.reply, statusOf(ctx, err))
}

// reply sends a message, or the status of an error in its place.
func (c *rpcConnection) reply(s *rpcStream, message []byte, err error) {
	if err == nil {
		c.send(s, message)
		return
	}
	st, _ := status.FromError(err)
	c.refuse(s, st)
}

// trace begins the span of a call.
func (c *rpcConnection) trace(ctx context.Context, s *rpcStream, model string) *span {
	if c.rpc.traces.tracer == nil {
		return nil
	}
	return c.rpc.traces.begin(ctx, s.field, "grpc", model)
}

// inferMessage returns the answer as gRPC sends it, in the memory of b.
func (s *Server) inferMessage(ctx context.Context, v *version, r *inference.ModelInferRequest, b *buffers) (message []byte, err error) {
	defer v.release()
	defer func() {
		if cause := recover(); cause != nil {
			s.options.Log.Error("a call panicked", "cause", cause, "stack", string(debug.Stack()))
			err = internal("the server failed; its log says how")
		}
	}()
	answer, err := s.inferCall(ctx, v, r, b)
	if err != nil {
		return b.reply, err
	}
	return appendMessage(b.reply[:0], answer)
}

// appendMessage appends a message as gRPC sends it.
func appendMessage(dst []byte, m proto.Message) ([]byte, error) {
	begin := len(dst) + messageHead
	message, err := proto.MarshalOptions{}.MarshalAppend(append(dst, make([]byte, messageHead)...), m)
	if err == nil {
		binary.BigEndian.PutUint32(message[begin-4:], uint32(len(message)-begin))
	}
	return message, err
}

// send sends a message and that all went well. What the client has no window for
// now is sent by another goroutine.
func (c *rpcConnection) send(s *rpcStream, message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.gone {
		c.field(":status", "200")
		c.field("content-type", s.kind)
		c.writeHead(s, false)
		message = c.writeSome(s, message)
	}
	if s.gone || len(message) == 0 {
		c.succeed(s)
		return
	}
	rest := bytes.Clone(message)
	ctx, cancel := context.WithDeadline(context.Background(), s.deadline)
	s.cancel = cancel
	c.calls.Go(func() {
		defer cancel()
		_ = c.write(ctx, s, rest) // the client is gone then
		c.mu.Lock()
		c.succeed(s)
		c.mu.Unlock()
		_ = c.flush() // an error ends the connection
	})
}

// succeed ends a call with the status OK, if the client still waits for it.
func (c *rpcConnection) succeed(s *rpcStream) {
	code := codes.Canceled
	if !s.gone {
		code = codes.OK
		c.field("grpc-status", "0")
		c.writeHead(s, true)
	}
	c.finish(s, code)
}

// refuse ends a call with a status that is not OK, and no message.
func (c *rpcConnection) refuse(s *rpcStream, st *status.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused(s, st)
}

func (c *rpcConnection) refused(s *rpcStream, st *status.Status) {
	code := codes.Canceled
	if !s.gone {
		code = st.Code()
		c.field(":status", "200")
		c.field("content-type", s.kind)
		c.status(st)
		c.writeHead(s, true)
	}
	c.finish(s, code)
}

// expire ends a call whose message did not come in time.
func (c *rpcConnection) expire(s *rpcStream) {
	c.refused(s, status.FromContextError(context.DeadlineExceeded))
}

// status encodes a status's fields.
func (c *rpcConnection) status(st *status.Status) {
	c.field("grpc-status", strconv.Itoa(int(st.Code())))
	c.field("grpc-message", escaped(st.Message()))
	if p := st.Proto(); len(p.GetDetails()) > 0 {
		if text, err := proto.Marshal(p); err == nil {
			c.field("grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(text))
		}
	}
}

// escaped returns a text as gRPC writes a status's message.
func escaped(text string) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToValidUTF8(text, string(utf8.RuneError))) {
		if c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// timeout reads a timeout as gRPC writes it: at most eight digits, and a unit.
func timeout(text string) (time.Duration, bool) {
	if len(text) < 2 || len(text) > 9 {
		return 0, false
	}
	unit, ok := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second,
		'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}[text[len(text)-1]]
	n := natural([]byte(text[:len(text)-1]))
	if !ok || n < 0 {
		return 0, false
	}
	return time.Duration(min(int64(n), int64(1<<62/unit))) * unit, true
}

// field encodes a field of a head that [rpcConnection.writeHead] writes.
func (c *rpcConnection) field(name, value string) {
	_ = c.fields.WriteField(hpack.HeaderField{Name: name, Value: value}) // memory takes all
}
