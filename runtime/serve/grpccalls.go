package serve

import (
	"context"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// calls counts what comes over gRPC, from a call's head to the end of its
// answer, as [Server.answer] and [Server.counted] do for REST.
type calls struct{ *Server }

// inferenceCall is a call of the protocol's service.
type inferenceCall struct {
	method string
	// served is the version that answered it, if it is a ModelInfer and met one.
	served *version
	// counted tells that it is, since its head came.
	counted bool
}

type callKey struct{}

func callOf(ctx context.Context) *inferenceCall {
	c, _ := ctx.Value(callKey{}).(*inferenceCall)
	return c
}

// begun makes a call known by its context, and bounds it, from its head on: a
// client that stops sending holds nothing for ever. Streams, of health and
// reflection, may last.
func (s *Server) begun(ctx context.Context, c *inferenceCall) (context.Context, context.CancelFunc) {
	if !ofInference(c.method) {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(context.WithValue(ctx, callKey{}, c), s.options.WriteTimeout)
}

// TagRPC implements [stats.Handler].
func (*calls) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (s *calls) HandleRPC(ctx context.Context, event stats.RPCStats) {
	c := callOf(ctx)
	if c == nil {
		return
	}
	switch e := event.(type) {
	case *stats.Begin:
		s.begin(c)
	case *stats.End:
		s.end(c, status.Code(e.Error), e.EndTime.Sub(e.BeginTime))
	}
}

func (s *Server) begin(c *inferenceCall) {
	if c.counted {
		return
	}
	c.counted = true
	if waitedFor(c.method) {
		s.requests.begin()
	}
	if c.method == inference.GRPCInferenceService_ModelInfer_FullMethodName {
		s.predictions.begin()
	}
}

// callOff ends a call of which another begins.
func (s *Server) callOff(c *inferenceCall) {
	if !c.counted {
		return
	}
	c.counted = false
	if c.method == inference.GRPCInferenceService_ModelInfer_FullMethodName {
		s.predictions.callOff()
	}
	if waitedFor(c.method) {
		s.requests.callOff()
	}
}

func (s *Server) end(c *inferenceCall, code codes.Code, took time.Duration) {
	if !c.counted {
		return
	}
	c.counted = false
	if c.method == inference.GRPCInferenceService_ModelInfer_FullMethodName {
		s.metrics.answered(c.served, "grpc", code.String(), took)
		s.predictions.end()
	}
	if waitedFor(c.method) {
		s.requests.end()
	}
}

// TagConn implements [stats.Handler].
func (*calls) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements [stats.Handler].
func (*calls) HandleConn(context.Context, stats.ConnStats) {}

func ofInference(method string) bool {
	return strings.HasPrefix(method, "/"+inference.GRPCInferenceService_ServiceDesc.ServiceName+"/")
}

// waitedFor tells whether a stopping server waits for calls of a method of the
// service: of all but the questions about health.
func waitedFor(method string) bool {
	switch method {
	case inference.GRPCInferenceService_ServerLive_FullMethodName,
		inference.GRPCInferenceService_ServerReady_FullMethodName,
		inference.GRPCInferenceService_ModelReady_FullMethodName:
		return false
	}
	return true
}

// statusOf returns err as what a client of gRPC gets to read.
func statusOf(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ended := ctx.Err(); ended != nil {
		return status.FromContextError(ended).Err()
	}
	p := asProblem(err)
	st := status.New(codeOf(p.status), p.message)
	if p.retryAfter > 0 {
		detailed, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(p.retryAfter)})
		if err == nil {
			st = detailed
		}
	}
	return st.Err()
}

// codeOf returns gRPC's code for a status of HTTP.
func codeOf(status int) codes.Code {
	switch status {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusRequestEntityTooLarge:
		return codes.ResourceExhausted
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Internal
}
