package serve

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
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

// tracedServer serves the models iris and, with requests that share computations,
// shared, and tells a tracer of all requests without a caller's span, or of none.
func tracedServer(t *testing.T, all bool) (*Server, *tracetest.InMemoryExporter) {
	t.Helper()
	told, root := tracetest.NewInMemoryExporter(), sdktrace.NeverSample()
	if all {
		root = sdktrace.AlwaysSample()
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(told), sdktrace.WithSampler(sdktrace.ParentBased(root)))
	s := irisServer(t, func(o *Options) {
		o.Tracer, o.Rows, o.BytesInFlight = provider.Tracer("test"), 2000, 100_000
	})
	mustLoad(t, s, served("shared", "a"))
	v, err := s.models.acquire("shared", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	v.share(Batching{Rows: 8, Delay: time.Millisecond})
	return s, told
}

// inWords tells all of spans that does not differ from request to request.
func inWords(spans tracetest.SpanStubs) []string {
	names := map[string]string{"0000000000000000": "none"}
	for _, s := range spans {
		names[s.SpanContext.SpanID().String()] = s.Name
	}
	var words []string
	for _, s := range spans {
		parent := s.Parent.SpanID().String()
		if name, ok := names[parent]; ok {
			parent = name
		} else {
			parent += " in " + s.SpanContext.TraceID().String()
		}
		words = append(words, fmt.Sprintf("%s: %v below %s (remote is %v), flags %v, state %q, %v, %v, %v, %v, by %s",
			s.Name, s.SpanKind, parent, s.Parent.IsRemote(), s.SpanContext.TraceFlags(), s.SpanContext.TraceState(),
			s.Attributes, s.Status, s.Events, s.Links, s.InstrumentationScope.Name))
	}
	return words
}

// callersFields are what requests may say of their caller's span, in pairs of name
// and value.
var callersFields = map[string]struct {
	fields []string
	// sampled without a caller's span that counts: as the server decides.
	sampled func(all bool) bool
}{
	"no caller":       {nil, same},
	"a caller":        {[]string{"traceparent", traceparent}, always},
	"one not sampled": {[]string{"traceparent", strings.TrimSuffix(traceparent, "1") + "0", "tracestate", "a=1"}, never},
	"its state":       {[]string{"tracestate", "a=1,b=2", "traceparent", traceparent}, always},
	"no state":        {[]string{"traceparent", traceparent, "tracestate", ""}, always},
	"two states":      {[]string{"traceparent", traceparent, "tracestate", "a=1", "tracestate", "b=2"}, always},
	"a wrong state":   {[]string{"traceparent", traceparent, "tracestate", "="}, always},
	"a wrong one":     {[]string{"traceparent", traceparent[1:]}, same},
	"a later version": {[]string{"traceparent", "01" + traceparent[2:] + "-more"}, always},
	"two":             {[]string{"traceparent", traceparent, "traceparent", traceparent[1:]}, always},
	"two, none first": {[]string{"traceparent", "", "traceparent", traceparent}, same},
	"baggage":         {[]string{"baggage", "a=1", "traceparent", traceparent}, always},
}

func same(all bool) bool { return all }
func always(bool) bool   { return true }
func never(bool) bool    { return false }

// TestQuickTracesAsNetHTTPDoes sends requests in two forms, of which the second is
// for net/http, and compares the spans.
func TestQuickTracesAsNetHTTPDoes(t *testing.T) {
	long := strings.Repeat(" ", 2*len(arrivals{}))
	for _, all := range []bool{true, false} {
		s, told := tracedServer(t, all)
		var asked atomic.Int64 // of net/http
		q, h := newQuick(s, listen(t)), s.Handler()
		front := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			h.ServeHTTP(w, r)
		})}
		go func() {
			if err := front.Serve(q); !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("the server ended with %v", err)
			}
		}()
		t.Cleanup(func() {
			front.Close()
			q.cut()
		})
		r := &running{Server: s, url: "http://" + q.Addr().String()}
		quickly, slowly := r.connect(t), r.connect(t)
		for name, c := range map[string]struct {
			target, body string
			fields       []string
			code, spans  int
		}{
			"V2":              {irisInfer, irisBody(), nil, 200, 4},
			"a version":       {"/v2/models/iris/versions/aaaaaaaaaaaa/infer", irisBody(), nil, 200, 4},
			"V1":              {"/v1/models/iris:predict", `{"instances":[[1,2,3,4],[1,2,3,4]]}`, nil, 200, 4},
			"shared":          {"/v2/models/shared/infer", irisBody(), nil, 200, 5},
			"long":            {irisInfer, irisBody() + long, nil, 200, 4},
			"not JSON":        {irisInfer, "<", nil, 400, 1},
			"V1, not JSON":    {"/v1/models/iris:predict", "<", nil, 400, 1},
			"a wrong split":   {irisInfer, irisBody(), []string{binaryHeader + ": 100000"}, 400, 1},
			"unknown":         {"/v2/models/rose/infer", irisBody(), nil, 404, 1},
			"V1, unknown":     {"/v1/models/" + strings.Repeat("r", 300) + ":predict", irisBody(), nil, 404, 1},
			"unknown version": {"/v2/models/iris/versions/1/infer", irisBody(), nil, 404, 1},
			"no room":         {irisInfer, strings.Repeat(" ", 200_000), nil, 503, 1},
		} {
			for caller, f := range callersFields {
				fields := slices.Clone(c.fields)
				for pair := range slices.Chunk(f.fields, 2) {
					fields = append(fields, pair[0]+":  "+pair[1]+" ")
				}
				head := headOf(c.target, len(c.body), fields...)
				spans := func(on *client, head string, byNetHTTP int64) []string {
					before := asked.Load()
					on.send(head + c.body)
					if got := on.answered(); got.code != c.code || asked.Load()-before != byNetHTTP {
						t.Errorf("%s, %s: got %d %s, from net/http is %v", name, caller, got.code, got.body, byNetHTTP == 0)
					}
					defer told.Reset()
					return inWords(told.GetSpans())
				}
				got := spans(quickly, head, 0)
				want := spans(slowly, strings.Replace(head, "\r\nHost", "\r\nTrailer: x\r\nHost", 1), 1)
				compareSpans(t, name+", "+caller, got, want, c.spans, f.sampled(all))
			}
		}
	}
}

func compareSpans(t *testing.T, name string, got, want []string, spans int, sampled bool) {
	t.Helper()
	if !sampled {
		spans = 0
	}
	if !slices.Equal(got, want) || len(got) != spans {
		t.Errorf("%s:\ngot  %s\nwant %s\nand %d", name, strings.Join(got, "\n     "), strings.Join(want, "\n     "), spans)
	}
}

// TestCallsAreTracedAsGRPCDoes makes calls in two forms, of which the second is for
// grpc-go, and compares the spans. The first is made where grpc-go answers nothing.
func TestCallsAreTracedAsGRPCDoes(t *testing.T) {
	four := &contents{Fp32Contents: []float32{1, 2, 3, 4}}
	named := func(model string) *inferCall {
		call := one("FP32", four, 4)
		call.ModelName = model
		return call
	}
	for _, all := range []bool{true, false} {
		s, told := tracedServer(t, all)
		quickly := inference.NewGRPCInferenceServiceClient(withoutGRPC(t, s))
		slowly := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, s).rpc))
		for name, c := range map[string]struct {
			request *inferCall
			spans   int
		}{
			"typed":        {one("FP32", four, 1, 4), 4},
			"raw":          {asRaw(one("FP16", nil, 4), encoded(t, []uint16{0x3c00, 0, 0, 0})), 4},
			"shared":       {named("shared"), 5},
			"a long one":   {one("FP32", &contents{Fp32Contents: make([]float32, 8000)}, 2000, 4), 4},
			"nothing":      {&inferCall{ModelName: "iris"}, 1},
			"unknown":      {named(strings.Repeat("r", 300)), 1},
			"not a number": {one("INT8", &contents{IntContents: []int32{1, 2, 3, 400}}, 4), 1},
			"many rows":    {one("FP32", &contents{Fp32Contents: make([]float32, 4*2001)}, 2001, 4), 1},
		} {
			for caller, f := range callersFields {
				spans := func(from inference.GRPCInferenceServiceClient, more ...string) []string {
					ctx := metadata.AppendToOutgoingContext(t.Context(), append(more, f.fields...)...)
					_, _ = from.ModelInfer(ctx, c.request) // the spans tell
					defer told.Reset()
					return inWords(told.GetSpans())
				}
				compareSpans(t, name+", "+caller, spans(quickly), spans(slowly, "x-bin", "1"), c.spans, f.sampled(all))
			}
		}
	}
}

// TestOddCallsAreTraced sends what seemed to be a simple call, and has a trailer.
func TestOddCallsAreTraced(t *testing.T) {
	s, told := tracedServer(t, false)
	p := runToEnd(t, s).speak(t)
	p.asks(1, "traceparent", traceparent, "tracestate", "a=1")
	p.do(p.WriteData(1, false, irisMessage(t)))
	p.block.Reset()
	p.do(p.heads.WriteField(hpack.HeaderField{Name: "x", Value: "y"}))
	p.do(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block.Bytes(), EndHeaders: true, EndStream: true}))
	p.answered(1)
	got := told.GetSpans()
	if len(got) != 4 || got[3].SpanContext.TraceID().String() != callersTrace || got[3].SpanContext.TraceState().String() != "a=1" {
		t.Errorf("got %v", inWords(got))
	}
}
