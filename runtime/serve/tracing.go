package serve

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traces tells a tracer of every request for predictions: a span of its own,
// below the caller's if the request names one (W3C Trace Context), and below it
// one for each phase.
type traces struct {
	tracer trace.Tracer // nil: nobody is told
}

var (
	callers  propagation.TraceContext
	ofServer = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
)

// carrier gives the first value of a field of a request's head, or none.
type carrier func(name string) string

// carrierOf returns the carrier of the fields that name a caller's span.
func carrierOf(parent, state []byte) carrier {
	return func(name string) string {
		switch name {
		case "traceparent":
			return string(parent)
		case "tracestate":
			return string(state)
		}
		return ""
	}
}

// Get implements [propagation.TextMapCarrier].
func (c carrier) Get(name string) string { return c(name) }

// Set implements [propagation.TextMapCarrier]. A request is only read.
func (carrier) Set(string, string) {}

// Keys implements [propagation.TextMapCarrier].
func (carrier) Keys() []string { return callers.Fields() }

// span is of one request. A nil span is of none, or of one that is not sampled:
// then its phases aren't, either.
type span struct {
	traces
	ctx context.Context
	trace.Span
}

// begin begins the span of a request. Head is where the caller's is named.
func (t traces) begin(ctx context.Context, head carrier, protocol, model string) *span {
	if t.tracer == nil {
		return nil
	}
	ctx, s := t.tracer.Start(callers.Extract(ctx, head), "predict", ofServer...)
	if !s.IsRecording() {
		return nil
	}
	// Samplers, as the environment names them, do not ask for attributes, and most
	// requests get no further.
	s.SetAttributes(attribute.String("trainyard.protocol", protocol), attribute.String("trainyard.model", clipped(model)))
	return &span{t, ctx, s}
}

// end ends it. Served is nil if the request met no version.
func (s *span) end(served *version, p *phases, err error) {
	if s == nil {
		return
	}
	defer s.End()
	if served != nil {
		s.SetAttributes(attribute.String("trainyard.version", served.model.Version()), attribute.Int("trainyard.rows", p.rows))
	}
	if err != nil {
		problem := asProblem(err)
		s.SetAttributes(attribute.Int("trainyard.status", problem.status))
		s.SetStatus(codes.Error, problem.message)
		return
	}
	s.phase("decode", p.began, p.decoded)
	if p.queued > 0 {
		s.phase("queue", p.decoded, p.decoded.Add(p.queued))
	}
	s.phase("compute", p.computed.Add(-p.inferred), p.computed)
	s.phase("encode", p.computed, time.Now())
}

func (s *span) phase(name string, from, to time.Time) {
	_, child := s.tracer.Start(s.ctx, name, trace.WithTimestamp(from))
	child.End(trace.WithTimestamp(to))
}
