package serve

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"trainyard.dev/trainyard/runtime/nn"
)

// digitsServer serves 64 inputs, 32 hidden units and 10 classes.
func digitsServer(b *testing.B) *Server {
	hidden := nn.NewDense(64, 32, nn.Activation{Kind: nn.ReLU})
	last := nn.NewDense(32, 10, nn.Activation{Kind: nn.Softmax})
	c := newCatalog()
	c.set(digest("a"), &nn.Network{Inputs: 64, Layers: []nn.Layer{hidden, last}}, nil)
	s := oneServer(b, c)
	mustLoad(b, s, served("digits", "a"))
	return s
}

// digit is a row as Python's json module writes it.
func digit() string {
	values := make([]string, 64)
	for i := range values {
		values[i] = []string{"0.0", "13.0", "0.8125", "5.1000001430511475"}[i%4]
	}
	return "[" + strings.Join(values, ", ") + "]"
}

func BenchmarkCodec(b *testing.B) {
	s := digitsServer(b)
	v, err := s.models.acquire("digits", "")
	if err != nil {
		b.Fatal(err)
	}
	defer v.release()
	for name, c := range map[string]struct {
		codec codec
		body  string
	}{
		"V2": {inferV2, v2("FP32", "[1,64]", digit())},
		"V1": {predictV1, `{"instances":[` + digit() + `]}`},
	} {
		b.Run(name, func(b *testing.B) {
			w := new(buffers)
			w.body = append(w.body[:0], c.body...)
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := c.codec(b.Context(), v, 100, w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHandler(b *testing.B) {
	h := digitsServer(b).Handler()
	body := v2("FP32", "[1,64]", digit())
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v2/models/digits/infer", strings.NewReader(body)))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

// BenchmarkTraces tells of a request, where one in a hundred is sampled unless the
// caller has decided.
func BenchmarkTraces(b *testing.B) {
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(tracetest.NewNoopExporter()),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(0.01))))
	t := traces{provider.Tracer("test")}
	for name, parent := range map[string]string{"no caller": "", "sampled": traceparent, "not sampled": strings.TrimSuffix(traceparent, "1") + "0"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t.begin(context.Background(), carrierOf([]byte(parent), nil), "v2", "digits").end(nil, new(phases), nil)
			}
		})
	}
}

// BenchmarkBatching has 32 clients ask networks of growing size for one row each.
// Where "together" takes less time than "alone" is fewestMultiplications.
func BenchmarkBatching(b *testing.B) {
	for _, width := range []int{256, 1024, 1448, 2048, 2896, 4096} {
		n := &nn.Network{Inputs: width, Layers: []nn.Layer{
			nn.NewDense(width, width, nn.Activation{Kind: nn.ReLU}), nn.NewDense(width, width, nn.Activation{Kind: nn.ReLU}),
		}}
		s, err := newSignature(width, width, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		for name, rows := range map[string]int{"alone": 0, "together": 64} {
			b.Run(fmt.Sprintf("%d/%s", multiplications(n), name), func(b *testing.B) {
				v := newVersion(served("one", "a"), s, n, func() {})
				if rows > 0 {
					v.share(Batching{Rows: rows, Delay: time.Millisecond})
				}
				b.SetParallelism(32 / runtime.GOMAXPROCS(0))
				b.RunParallel(func(p *testing.PB) {
					x, w := general(1, width, make([]float32, width)), new(buffers)
					for p.Next() {
						if _, err := v.predict(b.Context(), x, w); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

func BenchmarkPredict(b *testing.B) {
	s := digitsServer(b)
	v, err := s.models.acquire("digits", "")
	if err != nil {
		b.Fatal(err)
	}
	defer v.release()
	x, w := rows(64, make([]float32, 64)...), new(buffers)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.predict(b.Context(), x, w); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRaw(b *testing.B) {
	const rows, cols = 64, 784
	body := raw(make([]byte, 4*rows*cols))
	b.SetBytes(int64(len(body)))
	var x []float32
	for b.Loop() {
		var err error
		if x, err = body.appendTo(x[:0], float32s, []int{rows, cols}); err != nil {
			b.Fatal(err)
		}
	}
}
