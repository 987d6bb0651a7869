package serve

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/metadata"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

const (
	callersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	traceparent  = "00-" + callersTrace + "-00f067aa0ba902b7-01"
)

// TestRequestsAreTraced asks over REST and gRPC, in a caller's trace.
func TestRequestsAreTraced(t *testing.T) {
	told := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(told))
	s := irisServer(t, func(o *Options) { o.Tracer = provider.Tracer("test") })
	ask := func(path, body string) {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("traceparent", traceparent)
		s.Handler().ServeHTTP(httptest.NewRecorder(), r)
	}
	check := func(status codes.Code, attributes string, names ...string) {
		t.Helper()
		spans := told.GetSpans()
		told.Reset()
		var got []string
		for _, span := range spans {
			got = append(got, span.Name)
			if span.SpanContext.TraceID().String() != callersTrace {
				t.Errorf("span %s is not in the caller's trace", span.Name)
			}
			if span.EndTime.Before(span.StartTime) {
				t.Errorf("span %s ends before it begins", span.Name)
			}
		}
		if !slices.Equal(got, names) {
			t.Fatalf("got spans %v, want %v", got, names)
		}
		whole := spans[len(spans)-1]
		var all []string
		for _, a := range whole.Attributes {
			all = append(all, string(a.Key)+"="+a.Value.String())
		}
		if whole.Status.Code != status || strings.Join(all, " ") != attributes || whole.Parent.SpanID().String() != "00f067aa0ba902b7" {
			t.Errorf("got %v, %v, below %v", whole.Status, all, whole.Parent.SpanID())
		}
	}
	phases := []string{"decode", "compute", "encode", "predict"}
	ask("/v2/models/iris/infer", v2("FP32", "[4]", "[1,2,3,4]"))
	check(codes.Unset, "trainyard.protocol=v2 trainyard.model=iris trainyard.version=aaaaaaaaaaaa trainyard.rows=1", phases...)
	ask("/v1/models/rose:predict", `{"instances":[[1,2,3,4]]}`)
	check(codes.Error, "trainyard.protocol=v1 trainyard.model=rose trainyard.status=404", "predict")
	c := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, s).rpc))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", traceparent)
	if _, err := c.ModelInfer(ctx, one("FP32", &contents{Fp32Contents: []float32{1, 2, 3, 4}}, 4)); err != nil {
		t.Fatal(err)
	}
	check(codes.Unset, "trainyard.protocol=grpc trainyard.model=iris trainyard.version=aaaaaaaaaaaa trainyard.rows=1", phases...)
}
