package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// peer speaks HTTP/2 to a server, frame by frame.
type peer struct {
	*testing.T
	net.Conn
	*http2.Framer
	block bytes.Buffer
	heads *hpack.Encoder
}

func newPeer(t *testing.T, conn net.Conn, settings ...http2.Setting) *peer {
	t.Helper()
	p := &peer{T: t, Conn: conn, Framer: http2.NewFramer(conn, conn)}
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.heads = hpack.NewEncoder(&p.block)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	p.do(p.WriteSettings(settings...))
	return p
}

// speak connects to the server.
func (r *running) speak(t *testing.T, settings ...http2.Setting) *peer {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.rpc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return newPeer(t, conn, settings...)
}

func (p *peer) do(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// asks begins a call of ModelInfer.
func (p *peer) asks(id uint32, more ...string) {
	p.Helper()
	fields := append([]string{":method", "POST", ":scheme", "http", ":path", inference.GRPCInferenceService_ModelInfer_FullMethodName,
		":authority", "x", "content-type", "application/grpc", "te", "trailers"}, more...)
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.do(p.heads.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	p.do(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block.Bytes(), EndHeaders: true}))
}

// calls makes a whole call.
func (p *peer) calls(id uint32, more ...string) {
	p.Helper()
	p.asks(id, more...)
	p.do(p.WriteData(id, true, irisMessage(p.T)))
}

// irisMessage is a request as gRPC sends it.
func irisMessage(t testing.TB) []byte {
	t.Helper()
	return framed(t, one("FP32", &contents{Fp32Contents: []float32{5.1, 3.5, 1.4, 0.2}}, 4))
}

func framed(t testing.TB, r *inferCall) []byte {
	t.Helper()
	wire, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(wire))), wire...)
}

// hears returns the next frame in words, but for those of settings and windows.
func (p *peer) hears() string {
	p.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return "the end"
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = p.WriteSettingsAck() // the server may be gone
			}
		case *http2.WindowUpdateFrame:
		case *http2.MetaHeadersFrame:
			words := []string{fmt.Sprintf("%d:", f.StreamID)}
			for _, field := range f.Fields {
				words = append(words, field.Name+"="+field.Value)
			}
			slices.Sort(words[1:])
			return strings.Join(words, " ")
		case *http2.DataFrame:
			return fmt.Sprintf("%d: %d bytes", f.StreamID, len(f.Data()))
		case *http2.RSTStreamFrame:
			return fmt.Sprintf("%d: %v", f.StreamID, f.ErrCode)
		case *http2.GoAwayFrame:
			return fmt.Sprintf("away after %d: %v", f.LastStreamID, f.ErrCode)
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = p.WritePing(true, f.Data) // the server may be gone
				return "ping"
			}
			return "pong"
		default:
			return fmt.Sprint(f)
		}
	}
}

func (p *peer) hearsAll(want ...string) {
	p.Helper()
	for _, w := range want {
		if got := p.hears(); got != w {
			p.Fatalf("got %q, want %q", got, w)
		}
	}
}

// answered expects the answer to a call of irisMessage.
func (p *peer) answered(id uint32) {
	p.Helper()
	p.hearsAll(fmt.Sprintf("%d: :status=200 content-type=application/grpc", id), fmt.Sprintf("%d: 62 bytes", id), fmt.Sprintf("%d: grpc-status=0", id))
}

func (r *running) atRest(t *testing.T) {
	t.Helper()
	await(t, "nothing is in flight", func() bool {
		requests, _ := r.requests.last()
		predictions, _ := r.predictions.last()
		return requests == 0 && predictions == 0 && r.bodies.used.Load() == 0
	})
}

// TestCallsAreAnsweredAsGRPCDoes makes calls in two forms, of which the second is
// for grpc-go, and compares everything that comes back.
func TestCallsAreAnsweredAsGRPCDoes(t *testing.T) {
	s := irisServer(t, func(o *Options) { o.BodyBytes, o.Rows = 1<<16, 10 })
	_ = s.Models().Load(t.Context(), served("broken", "f"))
	r := runToEnd(t, s)
	client := inference.NewGRPCInferenceServiceClient(dial(t, r.rpc))
	four := &contents{Fp32Contents: []float32{1, 2, 3, 4}}
	named := func(model string) *inferCall {
		call := one("FP32", four, 4)
		call.ModelName = model
		return call
	}
	for name, request := range map[string]*inferCall{
		"typed":         one("FP32", four, 1, 4),
		"raw":           asking(asRaw(one("FP16", nil, 4), encoded(t, []uint16{0x3c00, 0, 0, 0})), "label", "outputs"),
		"nothing":       {ModelName: "iris"},
		"no model":      named("r%se\n\x01€"),
		"not loaded":    named("broken"),
		"not a number":  one("INT8", &contents{IntContents: []int32{1, 2, 3, 400}}, 4),
		"many rows":     one("FP32", &contents{Fp32Contents: make([]float32, 44)}, 11, 4),
		"a long one":    one("FP32", &contents{Fp32Contents: make([]float32, 8000)}, 2000, 4),
		"one too large": one("FP32", &contents{Fp32Contents: make([]float32, 1<<14)}, 1<<12, 4),
	} {
		for _, kind := range []string{"", "proto"} {
			var got [2]string
			for i, more := range [][]string{nil, {"x-bin", "1"}} {
				var header, trailer metadata.MD
				answer, err := client.ModelInfer(metadata.AppendToOutgoingContext(t.Context(), more...), request,
					grpc.CallContentSubtype(kind), grpc.Header(&header), grpc.Trailer(&trailer))
				// An error has all its fields in the trailer, or begins with some of them.
				got[i] = fmt.Sprint(answer, status.Convert(err).Proto(), metadata.Join(header, trailer))
			}
			if got[0] != got[1] {
				t.Errorf("%s, %s:\ngot  %s\nwant %s", name, kind, got[0], got[1])
			}
		}
	}
	r.atRest(t)
}

// withoutGRPC runs a server of which grpc-go answers nothing.
func withoutGRPC(t *testing.T, s *Server) *grpc.ClientConn {
	t.Helper()
	r := newRPC(s, listen(t))
	r.others.Stop()
	r.others = grpc.NewServer()
	go func() {
		if err := r.serve(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("the server ended with %v", err)
		}
	}()
	t.Cleanup(r.cut)
	return dial(t, r.from.Addr().String())
}

// TestQuestionsAreAnsweredAsGRPCDoes asks in two forms, of which the second is for
// grpc-go, and compares everything that comes back. What is odd is grpc-go's in
// both; the rest is asked where it answers nothing.
func TestQuestionsAreAnsweredAsGRPCDoes(t *testing.T) {
	s := irisServer(t, nil)
	_ = s.Models().Load(t.Context(), served("broken", "f"))
	slowly := dial(t, runToEnd(t, s).rpc)
	quickly := withoutGRPC(t, s)
	metadataOf := func(name, version string) proto.Message {
		return &inference.ModelMetadataRequest{Name: name, Version: version}
	}
	wrong := func(m proto.Message) proto.Message {
		m.ProtoReflect().SetUnknown([]byte{10, 1, 0xff})
		return m
	}
	long := strings.Repeat("r", readFrame)
	const live, ready, modelReady, server, model, check = inference.GRPCInferenceService_ServerLive_FullMethodName,
		inference.GRPCInferenceService_ServerReady_FullMethodName, inference.GRPCInferenceService_ModelReady_FullMethodName,
		inference.GRPCInferenceService_ServerMetadata_FullMethodName, inference.GRPCInferenceService_ModelMetadata_FullMethodName,
		grpc_health_v1.Health_Check_FullMethodName
	for _, stopping := range []bool{false, true} {
		s.stopping.Store(stopping)
		for _, c := range []struct {
			method           string
			request, answer  proto.Message
			code             codes.Code
			counts, byGRPCGo bool
		}{
			{live, &inference.ServerLiveRequest{}, new(inference.ServerLiveResponse), codes.OK, false, false},
			{ready, &inference.ServerReadyRequest{}, new(inference.ServerReadyResponse), codes.OK, false, false},
			{modelReady, &inference.ModelReadyRequest{Name: "iris"}, new(inference.ModelReadyResponse), codes.OK, false, false},
			{modelReady, &inference.ModelReadyRequest{Name: "broken"}, new(inference.ModelReadyResponse), codes.OK, false, false},
			{modelReady, &inference.ModelReadyRequest{Name: "r%se"}, new(inference.ModelReadyResponse), codes.NotFound, false, false},
			{server, &inference.ServerMetadataRequest{}, new(inference.ServerMetadataResponse), codes.OK, true, false},
			{model, metadataOf("iris", ""), new(inference.ModelMetadataResponse), codes.OK, true, false},
			{model, metadataOf("iris", "1"), new(inference.ModelMetadataResponse), codes.NotFound, true, false},
			{model, metadataOf("broken", ""), new(inference.ModelMetadataResponse), codes.Unavailable, true, false},
			{model, metadataOf(long, ""), new(inference.ModelMetadataResponse), codes.NotFound, true, true},
			{model, wrong(metadataOf("iris", "")), new(inference.ModelMetadataResponse), codes.Internal, true, true},
			{check, &grpc_health_v1.HealthCheckRequest{}, new(grpc_health_v1.HealthCheckResponse), codes.OK, false, false},
			{check, &grpc_health_v1.HealthCheckRequest{Service: healthServices[1]}, new(grpc_health_v1.HealthCheckResponse), codes.OK, false, false},
			{check, &grpc_health_v1.HealthCheckRequest{Service: "x"}, new(grpc_health_v1.HealthCheckResponse), codes.NotFound, false, false},
			{check, wrong(&grpc_health_v1.HealthCheckRequest{}), new(grpc_health_v1.HealthCheckResponse), codes.Internal, false, true},
		} {
			before := s.requests.stats().Requests
			ask := func(from *grpc.ClientConn, more ...string) string {
				var header, trailer metadata.MD
				err := from.Invoke(metadata.AppendToOutgoingContext(t.Context(), more...), c.method, c.request, c.answer, grpc.Header(&header), grpc.Trailer(&trailer))
				if status.Code(err) != c.code {
					t.Errorf("%s %.50v: got %v", c.method, c.request, err)
				}
				return fmt.Sprint(c.answer, status.Convert(err).Proto(), metadata.Join(header, trailer))
			}
			first := quickly
			if c.byGRPCGo {
				first = slowly
			}
			if got, want := ask(first), ask(slowly, "x-bin", "1"); got != want {
				t.Errorf("%s %.50v:\ngot  %s\nwant %s", c.method, c.request, got, want)
			}
			counted := int64(0)
			if c.counts {
				counted = 2
			}
			await(t, "both are counted", func() bool {
				n, _ := s.requests.last()
				return n == 0 && s.requests.stats().Requests == before+counted
			})
		}
	}
	s.stopping.Store(false)
	if n := s.predictions.stats().Requests; n != 0 {
		t.Errorf("%d predictions are counted", n)
	}
}

// TestOddMessagesAreForGRPC sends what seemed to be a simple call, and is none.
func TestOddMessagesAreForGRPC(t *testing.T) {
	r := runToEnd(t, irisServer(t, func(o *Options) { o.BodyBytes = 1 << 18 }))
	message := irisMessage(t)
	for name, c := range map[string]struct {
		body []byte
		code codes.Code
	}{
		"no message":           {nil, codes.Internal},
		"no length":            {message[:3], codes.Internal},
		"a part":               {message[:30], codes.Internal},
		"two":                  {append(bytes.Clone(message), message...), codes.Internal},
		"compressed, it says":  {append([]byte{1}, message[1:]...), codes.Internal},
		"too large, it says":   {[]byte{0, 0, 4, 0, 1}, codes.ResourceExhausted},
		"no message of ours":   {[]byte{0, 0, 0, 0, 2, 0xff, 0xff}, codes.Internal},
		"an empty one":         {[]byte{0, 0, 0, 0, 0}, codes.NotFound},
		"one with many inputs": {framed(t, &inferCall{Inputs: slices.Repeat([]*inferInGo{{}}, mostParts+1)}), codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.speak(t)
			for rest, id := c.body, uint32(1); ; {
				if len(rest) == len(c.body) {
					p.asks(id)
				}
				n := min(len(rest), 16<<10)
				p.do(p.WriteData(id, n == len(rest), rest[:n]))
				if rest = rest[n:]; len(rest) == 0 {
					break
				}
			}
			for got := ""; !strings.Contains(got, "grpc-status="); {
				if got = p.hears(); got == "the end" {
					t.Fatal(got)
				} else if strings.Contains(got, "grpc-status=") && !strings.Contains(got, fmt.Sprintf("grpc-status=%d", c.code)) {
					t.Errorf("got %s, want %d", got, c.code)
				}
			}
			// The connection goes on.
			p.calls(3)
			for got := ""; got != "3: grpc-status=0"; {
				if got = p.hears(); got == "the end" {
					t.Fatal(got)
				}
			}
		})
	}
	t.Run("packed", func(t *testing.T) {
		c := inference.NewGRPCInferenceServiceClient(dial(t, r.rpc))
		if _, err := c.ModelInfer(t.Context(), one("FP32", &contents{Fp32Contents: make([]float32, 4)}, 4), grpc.UseCompressor(gzip.Name)); err != nil {
			t.Error(err)
		}
	})
	r.atRest(t)
}

// TestAnswersKeepToTheClientsWindows has clients that take an answer in pieces, or
// not at all.
func TestAnswersKeepToTheClientsWindows(t *testing.T) {
	r := runToEnd(t, irisServer(t, func(o *Options) { o.WriteTimeout = 300 * time.Millisecond }))
	p := r.speak(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	for i, more := range [][]string{nil, {"x-bin", "AQ"}} {
		id := uint32(1 + 2*i)
		p.calls(id, more...)
		p.hearsAll(fmt.Sprintf("%d: :status=200 content-type=application/grpc", id))
		for sent := 0; sent < 62; {
			got := p.hears()
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(got, fmt.Sprintf("%d: ", id)), " bytes"))
			if err != nil || n > 20 {
				t.Fatalf("got %q", got)
			}
			sent += n
			p.do(p.WriteWindowUpdate(id, uint32(n)))
		}
		p.hearsAll(fmt.Sprintf("%d: grpc-status=0", id))
	}
	// A change of the first window is one of streams that wait, too.
	p.calls(5)
	p.hearsAll("5: :status=200 content-type=application/grpc", "5: 10 bytes")
	p.do(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000}))
	p.hearsAll("5: 52 bytes", "5: grpc-status=0")
	// Below zero, and who then gives nothing is not waited for.
	p.do(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	p.calls(7)
	p.calls(9, "x-bin", "AQ")
	waiting := map[string]bool{}
	for range 4 {
		waiting[p.hears()] = true
	}
	for _, want := range []string{"7: :status=200 content-type=application/grpc", "9: :status=200 content-type=application/grpc", "7: CANCEL", "9: CANCEL"} {
		if !waiting[want] {
			t.Errorf("there is no %q in %v", want, waiting)
		}
	}
	r.atRest(t)
}

// TestLongMessagesArrive sends more than the windows of a stream and of a
// connection hold.
func TestLongMessagesArrive(t *testing.T) {
	r := runToEnd(t, irisServer(t, func(o *Options) { o.Rows = 1 << 20 }))
	c := inference.NewGRPCInferenceServiceClient(dial(t, r.rpc))
	for _, more := range [][]string{nil, {"x-bin", "AQ"}} {
		const rows = 1 << 17
		got, err := c.ModelInfer(metadata.AppendToOutgoingContext(t.Context(), more...), asRaw(one("FP32", nil, rows, 4), make([]byte, 16*rows)))
		if err != nil || len(got.GetRawOutputContents()[0]) != 12*rows {
			t.Errorf("%v: got %v", more, err)
		}
	}
	r.atRest(t)
}

func TestCallsEndWithTheirDeadline(t *testing.T) {
	r := runToEnd(t, irisServer(t, func(o *Options) { o.WriteTimeout = 500 * time.Millisecond }))
	p := r.speak(t)
	for i, limit := range []string{"20m", "0n"} {
		id := uint32(1 + 2*i)
		p.asks(id, "grpc-timeout", limit)
		p.hearsAll(fmt.Sprintf("%d: :status=200 content-type=application/grpc grpc-message=context deadline exceeded grpc-status=4", id), fmt.Sprintf("%d: NO_ERROR", id))
	}
	p.calls(5, "grpc-timeout", "99999999H")
	p.answered(5)
	// Neither way, a call may last longer than the server wants.
	p.asks(7)
	p.asks(9, "x-bin", "AQ")
	p.do(p.WriteData(9, false, []byte{0, 0, 0, 1, 0})) // until then, it is as the other
	told := map[string]bool{}
	for range 5 {
		told[p.hears()] = true
	}
	for _, want := range []string{
		"7: :status=200 content-type=application/grpc grpc-message=context deadline exceeded grpc-status=4", "7: NO_ERROR",
		"9: :status=200 content-type=application/grpc", "9: grpc-message=context deadline exceeded grpc-status=4", "9: NO_ERROR",
	} {
		if !told[want] {
			t.Errorf("there is no %q in %v", want, told)
		}
	}
	r.atRest(t)
}

func TestBytesInMemoryAreBounded(t *testing.T) {
	r := runToEnd(t, irisServer(t, func(o *Options) { o.BytesInFlight = 100 }))
	p := r.speak(t)
	p.asks(1)
	p.do(p.WriteData(1, false, []byte{0, 0, 0, 1, 0}))
	p.do(p.WriteData(1, false, make([]byte, 96)))
	if got := p.hears(); !strings.Contains(got, "grpc-status=14") || !strings.Contains(got, "grpc-status-details-bin=") {
		t.Errorf("got %s", got)
	}
	p.hearsAll("1: NO_ERROR")
	p.calls(3)
	p.answered(3)
	r.atRest(t)
}

// TestFloodsEndTheConnection sends frames that cost much and ask for nothing.
func TestFloodsEndTheConnection(t *testing.T) {
	r := runToEnd(t, irisServer(t, nil))
	for name, frame := range map[string]func(p *peer, i int) error{
		"pings":      func(p *peer, _ int) error { return p.WritePing(false, [8]byte{}) },
		"settings":   func(p *peer, _ int) error { return p.WriteSettings() },
		"priorities": func(p *peer, _ int) error { return p.WritePriority(1, http2.PriorityParam{}) },
		"empty data": func(p *peer, i int) error {
			if i == 0 {
				p.asks(3)
			}
			return p.WriteData(3, false, nil)
		},
		"rapid reset": func(p *peer, i int) error {
			p.asks(uint32(3 + 2*i))
			return p.WriteRSTStream(uint32(3+2*i), http2.ErrCodeCancel)
		},
		"unknown": func(p *peer, _ int) error { return p.WriteRawFrame(0x77, 0, 0, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			p := r.speak(t)
			p.calls(1)
			p.answered(1)
			go func() { // alone in writing
				for i := range mostIdle + 2 {
					if frame(p, i) != nil {
						return // the server ends it
					}
				}
			}()
			got := p.hears()
			for got == "pong" {
				got = p.hears()
			}
			if !strings.Contains(got, "ENHANCE_YOUR_CALM") {
				t.Errorf("got %s", got)
			}
		})
	}
	r.atRest(t)
}

func TestMoreStreamsAreRefused(t *testing.T) {
	r := runToEnd(t, irisServer(t, nil))
	p := r.speak(t)
	for i := range uint32(mostStreams + 1) {
		p.asks(1 + 2*i)
	}
	p.hearsAll("501: REFUSED_STREAM")
	p.do(p.WriteData(1, true, irisMessage(t)))
	p.answered(1)
	p.calls(503)
	p.answered(503)
}

// TestCanceledCallsAreEnded resets a call in each of its states.
func TestCanceledCallsAreEnded(t *testing.T) {
	s := irisServer(t, nil)
	r := runToEnd(t, s)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	v.share(Batching{Rows: 8, Delay: time.Millisecond})
	v.batcher.computing.Lock() // so that no call is ever computed
	p := r.speak(t)
	p.asks(1)
	p.calls(3)
	p.calls(5, "x-bin", "AQ")
	await(t, "all are in flight", func() bool { n, _ := s.predictions.last(); return n == 3 })
	for _, id := range []uint32{1, 3, 5} {
		p.do(p.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	// The one that leads the batch computes, whoever waits for it.
	await(t, "others are ended", func() bool { n, _ := s.predictions.last(); return n <= 1 })
	v.batcher.computing.Unlock()
	r.atRest(t)
	if text := call(s.Operations(), "GET", "/metrics", "").body; !strings.Contains(text, `requests_total{code="Canceled"`) {
		t.Error("no call is counted as canceled")
	}
	p.calls(7)
	p.answered(7)
}

// TestCallsOnOneConnectionAreBatched needs goroutines that compute beside the one
// that reads.
func TestCallsOnOneConnectionAreBatched(t *testing.T) {
	s := irisServer(t, nil)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	v.share(Batching{Rows: 4, Delay: time.Minute})
	v.batcher.last = 4 // so that a batch waits for as many
	var most atomic.Int64
	v.executed = func(rows int) { most.Store(max(most.Load(), int64(rows))) }
	c := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, s).rpc))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := c.ModelInfer(t.Context(), one("FP32", &contents{Fp32Contents: make([]float32, 4)}, 4)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most.Load() != 4 {
		t.Errorf("at most %d rows were computed at once", most.Load())
	}
}

func TestAPanicEndsOneCall(t *testing.T) {
	s := irisServer(t, nil)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	fails := panics(v)
	r := runToEnd(t, s)
	p := r.speak(t)
	fails.Store(true)
	p.calls(1)
	p.hearsAll("1: :status=200 content-type=application/grpc grpc-message=the server failed; its log says how grpc-status=13")
	fails.Store(false)
	p.calls(3)
	p.answered(3)
	r.atRest(t)
	if n := v.uses.Load(); n != 2 {
		t.Errorf("the version is used %d times", n)
	}
}

// TestStoppingLosesNoCallOnTheWay has a client begin calls when it does not know
// yet that the server stops.
func TestStoppingLosesNoCallOnTheWay(t *testing.T) {
	r := run(t, irisServer(t, func(o *Options) {
		o.Stop = Stopping{Quiet: time.Millisecond, Least: time.Millisecond, Most: time.Minute, Shutdown: 10 * time.Second}
	}))
	silent, err := net.Dial("tcp", r.rpc) // who connects and says nothing is not waited for
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p := r.speak(t)
	p.calls(1)
	p.answered(1)
	r.signals <- syscall.SIGTERM
	f, err := p.ReadFrame()
	for ; err == nil; f, err = p.ReadFrame() {
		if ping, ok := f.(*http2.PingFrame); ok { // which says that a GOAWAY came before
			p.calls(3)
			p.asks(5)
			p.do(p.WritePing(true, ping.Data))
			p.asks(7)
			p.do(p.WriteData(7, true, irisMessage(t)))
			break
		}
	}
	p.answered(3)
	p.hearsAll("away after 5: NO_ERROR", "7: STREAM_CLOSED")
	p.do(p.WriteData(5, true, irisMessage(t)))
	p.answered(5)
	p.hearsAll("the end")
	if err := <-r.ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// onPipe serves one end of a connection, and returns who is at the other.
func onPipe(t *testing.T, change func(*Options)) *peer {
	s := irisServer(t, change)
	ours, theirs := net.Pipe()
	c := newRPCConnection(newRPC(s, nil), ours)
	done := make(chan struct{})
	go func() {
		c.serve()
		close(done)
	}()
	wide := buffered(theirs)
	t.Cleanup(func() {
		wide.Close()
		<-done
		c.rpc.others.Stop()
	})
	return newPeer(t, wide)
}

// wide is a connection that takes at once what is written to it. A pipe would have
// both of its ends wait for each other.
type wide struct {
	net.Conn
	written chan []byte
}

func buffered(c net.Conn) net.Conn {
	w := wide{c, make(chan []byte, 100)}
	go func() {
		for text := range w.written {
			if _, err := c.Write(text); err != nil {
				return
			}
		}
	}()
	return w
}

// Write implements [net.Conn].
func (w wide) Write(p []byte) (int, error) {
	w.written <- bytes.Clone(p)
	return len(p), nil
}

// Close implements [net.Conn].
func (w wide) Close() error {
	close(w.written)
	return w.Conn.Close()
}

// TestConnectionsEndInTime lets time pass on connections.
func TestConnectionsEndInTime(t *testing.T) {
	const away = "away after 2147483647: NO_ERROR"
	for name, c := range map[string]struct {
		change func(*Options)
		within time.Duration
		does   func(*peer)
	}{
		"idle": {nil, 2 * time.Minute, func(p *peer) {
			p.calls(1)
			p.answered(1)
			p.hearsAll("ping", away, "ping", "away after 1: NO_ERROR", "the end")
		}},
		"old": {func(o *Options) { o.ConnectionAge = 30 * time.Second }, 37 * time.Second, func(p *peer) {
			p.asks(1)
			p.hearsAll(away, "ping", "away after 1: NO_ERROR")
			p.do(p.WriteData(1, true, irisMessage(p.T)))
			p.answered(1)
			p.hearsAll("the end")
		}},
		"gone without a word": {nil, pingAfter + pingTimeout, func(p *peer) {
			f, err := p.ReadFrame()
			for ; err == nil; f, err = p.ReadFrame() {
				_ = f
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := onPipe(t, c.change)
				began := time.Now()
				c.does(p)
				if took := time.Since(began); took > c.within+time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestGreetingIsWaitedForInTime(t *testing.T) {
	r := runToEnd(t, irisServer(t, func(o *Options) { o.ReadHeaderTimeout = 20 * time.Millisecond }))
	for _, text := range []string{"", "PRI * HT", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", http2.ClientPreface} {
		conn, err := net.Dial("tcp", r.rpc)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		p := http2.NewFramer(nil, conn)
		for err == nil {
			_, err = p.ReadFrame()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: the server keeps the connection", text)
		}
	}
}

func TestTimeoutsAreRead(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1S": time.Second, "20m": 20 * time.Millisecond, "99999999n": 99999999, "3u": 3 * time.Microsecond, "2M": 2 * time.Minute,
		"": -1, "S": -1, "1": -1, "123456789S": -1, "-1S": -1, "1s": -1, "1.5S": -1,
	} {
		got, ok := timeout(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: got %v, %v", text, got, ok)
		}
	}
	if got, ok := timeout("99999999H"); !ok || got < 1000*time.Hour {
		t.Errorf("got %v, %v", got, ok)
	}
}

// FuzzRPCConnection sends anything to a connection. What comes back are frames of
// HTTP/2, and nothing is left of it.
func FuzzRPCConnection(f *testing.F) {
	const infer = inference.GRPCInferenceService_ModelInfer_FullMethodName
	script := func(write func(p *http2.Framer, head func(method string, more ...string) []byte)) {
		var out, block bytes.Buffer
		heads := hpack.NewEncoder(&block)
		write(http2.NewFramer(&out, nil), func(method string, more ...string) []byte {
			block.Reset()
			for i, fields := 0, append([]string{":method", "POST", ":scheme", "http", ":path", method,
				":authority", "x", "content-type", "application/grpc"}, more...); i < len(fields); i += 2 {
				_ = heads.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
			}
			return bytes.Clone(block.Bytes())
		})
		f.Add(out.Bytes())
	}
	message := irisMessage(f)
	open := func(p *http2.Framer, id uint32, block []byte, ends bool) {
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: ends})
	}
	script(func(p *http2.Framer, head func(string, ...string) []byte) {
		_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		open(p, 1, head(infer, "traceparent", traceparent, "tracestate", "a=1"), true)
		_ = p.WriteData(1, true, message)
		open(p, 3, head(infer, "x-bin", "AQ"), true)
		_ = p.WriteData(3, false, message[:9])
		_ = p.WriteWindowUpdate(1, 100)
		_ = p.WriteData(3, true, message[9:])
		_ = p.WriteWindowUpdate(3, 100)
	})
	script(func(p *http2.Framer, head func(string, ...string) []byte) {
		_ = p.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
		block := head(infer, "grpc-timeout", "1n", "traceparent", traceparent)
		open(p, 5, block[:10], false)
		_ = p.WriteContinuation(5, true, block[10:])
		_ = p.WriteDataPadded(5, false, message, make([]byte, 3))
		_ = p.WritePing(false, [8]byte{1})
		_ = p.WritePing(true, lastPing)
		open(p, 5, nil, true)
		_ = p.WriteRSTStream(5, http2.ErrCodeCancel)
		_ = p.WriteGoAway(0, http2.ErrCodeNo, nil)
		_ = p.WritePriority(7, http2.PriorityParam{StreamDep: 5})
	})
	script(func(p *http2.Framer, head func(string, ...string) []byte) {
		_ = p.WriteSettings()
		open(p, 1, head(inference.GRPCInferenceService_ServerLive_FullMethodName), true)
		_ = p.WriteData(1, true, make([]byte, messageHead))
		open(p, 3, head(inference.GRPCInferenceService_ModelMetadata_FullMethodName), true)
		_ = p.WriteData(3, false, []byte{0, 0, 0, 0, 6, 10, 4})
		_ = p.WriteData(3, true, []byte("iris"))
		open(p, 5, head(grpc_health_v1.Health_Check_FullMethodName), true)
		_ = p.WriteData(5, true, []byte{0, 0, 1, 0, 0})
	})
	var panics atomic.Int64
	s := irisServer(f, func(o *Options) {
		o.Log = slog.New(counting{slog.DiscardHandler, &panics})
		o.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(tracetest.NewNoopExporter())).Tracer("test")
	})
	r := newRPC(s, nil)
	f.Cleanup(r.others.Stop)
	f.Fuzz(func(t *testing.T, frames []byte) {
		ours, theirs := net.Pipe()
		c := newRPCConnection(r, ours)
		go func() {
			_, _ = theirs.Write(append([]byte(http2.ClientPreface), frames...)) // the server may end it
			_ = theirs.SetReadDeadline(time.Now().Add(time.Millisecond))
		}()
		ended := make(chan struct{})
		go func() {
			c.serve()
			close(ended)
		}()
		answers := http2.NewFramer(nil, theirs)
		answers.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for {
			_, err := answers.ReadFrame()
			if wrong := (http2.StreamError{}); err == nil {
				continue
			} else if code := http2.ConnectionError(0); errors.As(err, &wrong) || errors.As(err, &code) {
				t.Fatalf("%x: the answer is none: %v", frames, err)
			}
			break
		}
		theirs.Close()
		<-ended
		if panics.Load() != 0 {
			t.Fatalf("%x: it panics", frames)
		}
		if len(c.streams) != 0 || c.gathering != 0 {
			t.Fatalf("%x: %d streams are left, %d of them gather", frames, len(c.streams), c.gathering)
		}
		if n := s.bodies.used.Load(); n != 0 {
			await(t, "memory is given back", func() bool { return s.bodies.used.Load() == 0 })
		}
		if n, _ := s.predictions.last(); n != 0 {
			await(t, "nothing is in flight", func() bool { n, _ := s.predictions.last(); return n == 0 })
		}
	})
}

// counting counts errors that are logged.
type counting struct {
	slog.Handler
	errors *atomic.Int64
}

// Enabled implements [slog.Handler].
func (counting) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (c counting) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		c.errors.Add(1)
	}
	return nil
}

// TestNetHTTPIsAnswered asks as the gateway does: with the client of net/http, the
// head and the message apart.
func TestNetHTTPIsAnswered(t *testing.T) {
	r := runToEnd(t, irisServer(t, nil))
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	body, message := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.rpc+inference.GRPCInferenceService_ModelInfer_FullMethodName, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	go func() {
		await(t, "the call has begun", func() bool { n, _ := r.requests.last(); return n == 1 })
		_, _ = message.Write(irisMessage(t)) // the answer tells
		message.Close()
	}()
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || len(text) != 62 || response.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("got %d bytes, %v, %v", len(text), response.Trailer, err)
	}
	r.atRest(t)
}
