package serve

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// Short names for what the tests write often.
type (
	inferCall  = inference.ModelInferRequest
	inferInGo  = inference.ModelInferRequest_InferInputTensor
	inferOutGo = inference.ModelInferRequest_InferRequestedOutputTensor
	contents   = inference.InferTensorContents
)

func dial(t testing.TB, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// runToEnd runs a server until the test ends.
func runToEnd(t *testing.T, s *Server) *running {
	t.Helper()
	r := run(t, s)
	t.Cleanup(func() {
		r.signals <- syscall.SIGTERM
		r.signals <- syscall.SIGTERM
		if err := <-r.ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return r
}

// one is a request with one input.
func one(datatype string, c *contents, shape ...int64) *inferCall {
	return &inferCall{ModelName: "iris", Inputs: []*inferInGo{{Name: "x", Datatype: datatype, Shape: shape, Contents: c}}}
}

// asRaw moves the request's input to bytes.
func asRaw(r *inferCall, raw ...[]byte) *inferCall {
	r.RawInputContents = raw
	return r
}

func asking(r *inferCall, outputs ...string) *inferCall {
	for _, name := range outputs {
		r.Outputs = append(r.Outputs, &inferOutGo{Name: name})
	}
	return r
}

func TestModelInferAnswers(t *testing.T) {
	c := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, irisServer(t, nil)).rpc))
	floats := func(v ...float32) *contents { return &contents{Fp32Contents: v} }
	column := func(name string, v float32) *inferInGo {
		return &inferInGo{Name: name, Datatype: "FP32", Shape: []int64{1}, Contents: floats(v)}
	}
	for _, c2 := range []struct {
		name string
		r    *inferCall
		want []float32
	}{
		{"FP32", one("FP32", floats(1, 2, 3, 4), 1, 4), []float32{1, 2, 3}},
		{"one row", one("FP32", floats(1, 2, 3, 4), 4), []float32{1, 2, 3}},
		{"FP64", one("FP64", &contents{Fp64Contents: []float64{1, 2, 3, 4}}, 4), []float32{1, 2, 3}},
		{"BOOL", one("BOOL", &contents{BoolContents: []bool{true, false, true, false}}, 4), []float32{1, 0, 1}},
		{"INT8", one("INT8", &contents{IntContents: []int32{-128, 2, 3, 4}}, 4), []float32{-128, 2, 3}},
		{"INT64", one("INT64", &contents{Int64Contents: []int64{-1 << 40, 2, 3, 4}}, 4), []float32{-1 << 40, 2, 3}},
		{"UINT32", one("UINT32", &contents{UintContents: []uint32{1 << 31, 2, 3, 4}}, 4), []float32{1 << 31, 2, 3}},
		{"UINT64", one("UINT64", &contents{Uint64Contents: []uint64{1 << 63, 2, 3, 4}}, 4), []float32{1 << 63, 2, 3}},
		{"two rows", one("FP32", floats(1, 2, 3, 4, 5, 6, 7, 8), 2, 4), []float32{1, 2, 3, 5, 6, 7}},
		{"columns", &inferCall{ModelName: "iris", Inputs: []*inferInGo{column("petal_width", 4), column("petal_length", 3), column("sepal_width", 2), column("sepal_length", 1)}}, []float32{1, 2, 3}},
	} {
		c2.r.Id = "é1"
		got, err := c.ModelInfer(t.Context(), c2.r)
		if err != nil {
			t.Errorf("%s: %v", c2.name, err)
			continue
		}
		o := got.GetOutputs()[0]
		if !slices.Equal(o.GetContents().GetFp32Contents(), c2.want) || got.GetId() != "é1" || got.GetModelVersion() != "aaaaaaaaaaaa" ||
			o.GetDatatype() != "FP32" || !slices.Equal(o.GetShape(), []int64{int64(len(c2.want) / 3), 3}) || len(got.GetRawOutputContents()) != 0 {
			t.Errorf("%s: got %v", c2.name, got)
		}
	}
	got, err := c.ModelInfer(t.Context(), asking(one("FP32", floats(1, 9, 3, 4), 4), "label", "outputs"))
	if err != nil || string(got.GetOutputs()[0].GetContents().GetBytesContents()[0]) != "versicolor" || len(got.GetOutputs()) != 2 {
		t.Errorf("labels: got %v, %v", got, err)
	}
	got, err = c.ModelInfer(t.Context(), asking(asRaw(one("FP16", nil, 4), encoded(t, []uint16{0x3c00, 0, 0, 0})), "label", "outputs"))
	if err != nil || len(got.GetRawOutputContents()) != 2 || string(got.GetRawOutputContents()[0]) != "\x06\x00\x00\x00setosa" ||
		!slices.Equal(got.GetRawOutputContents()[1], encoded(t, []float32{1, 0, 0})) || got.GetOutputs()[0].GetContents() != nil {
		t.Errorf("raw: got %v, %v", got, err)
	}
}

func TestModelInferProblems(t *testing.T) {
	c := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, irisServer(t, func(o *Options) { o.BodyBytes = 1 << 16 })).rpc))
	four := &contents{Fp32Contents: []float32{1, 2, 3, 4}}
	named := func(model, version string) *inferCall {
		r := one("FP32", four, 4)
		r.ModelName, r.ModelVersion = model, version
		return r
	}
	for _, c2 := range []struct {
		name string
		r    *inferCall
		code codes.Code
		want string
	}{
		{"nothing", &inferCall{ModelName: "iris"}, codes.InvalidArgument, "the request has no inputs; send one tensor of shape [rows, 4]"},
		{"no model", named("rose", ""), codes.NotFound, `there is no model "rose"; there are: iris`},
		{"no version", named("iris", "1"), codes.NotFound, `model iris has no version "1"; it has aaaaaaaaaaaa`},
		{"shape", one("FP32", four, 2, 4), codes.InvalidArgument, `input "x": data has 4 elements in contents.fp32_contents, where FP32 belongs, but the shape [2, 4] says 8`},
		{"another field", one("INT32", four, 4), codes.InvalidArgument, "has 0 elements in contents.int_contents, where INT32 belongs"},
		{"no contents", one("FP64", nil, 4), codes.InvalidArgument, "has 0 elements in contents.fp64_contents"},
		{"out of range", one("UINT8", &contents{UintContents: []uint32{1, 2, 256, 4}}, 4), codes.InvalidArgument, "data[2] is 256, not a value of UINT8"},
		{"not a number", one("FP32", &contents{Fp32Contents: []float32{1, float32(math.NaN()), 3, 4}}, 1, 4), codes.InvalidArgument, "data[0][1] is NaN, not a finite number"},
		{"half", one("FP16", four, 4), codes.InvalidArgument, "data of datatype FP16 has no field in contents; send it in raw_input_contents"},
		{"bytes", one("BYTES", &contents{BytesContents: [][]byte{{1}}}, 4), codes.InvalidArgument, "has datatype BYTES, but the model computes with numbers"},
		{"both", asRaw(one("FP32", four, 4), make([]byte, 16)), codes.InvalidArgument, `input "x" has contents, but the request has raw_input_contents`},
		{"raw for nobody", asRaw(one("FP32", nil, 4), make([]byte, 16), nil), codes.InvalidArgument, "the request has 1 inputs, but 2 raw_input_contents"},
		{"raw is short", asRaw(one("FP32", nil, 4), make([]byte, 12)), codes.InvalidArgument, "data has 12 bytes, but 4 elements of FP32"},
		{"unknown output", asking(one("FP32", four, 4), "y"), codes.InvalidArgument, `the model has no output "y"; it has outputs, label`},
		{"too many rows", one("FP32", four, 10001, 4), codes.ResourceExhausted, "the request has more than 10000 rows"},
		{"too large", asRaw(one("FP32", nil, 4), make([]byte, 1<<16)), codes.ResourceExhausted, "larger than max"},
	} {
		_, err := c.ModelInfer(t.Context(), c2.r)
		if status.Code(err) != c2.code || !strings.Contains(err.Error(), c2.want) {
			t.Errorf("%s: got %v, want %v %s", c2.name, err, c2.code, c2.want)
		}
	}
}

func TestServiceDescribesItself(t *testing.T) {
	s := irisServer(t, nil)
	c := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, s).rpc))
	ctx := t.Context()
	if live, err := c.ServerLive(ctx, nil); err != nil || !live.GetLive() {
		t.Errorf("live: %v, %v", live, err)
	}
	if ready, err := c.ServerReady(ctx, nil); err != nil || !ready.GetReady() {
		t.Errorf("ready: %v, %v", ready, err)
	}
	server, err := c.ServerMetadata(ctx, nil)
	if err != nil || server.GetName() != "trainyard" || !slices.Contains(server.GetExtensions(), "binary_tensor_data") {
		t.Errorf("server: %v, %v", server, err)
	}
	m, err := c.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: "iris"})
	if err != nil || m.GetVersions()[0] != "aaaaaaaaaaaa" || !slices.Equal(m.GetInputs()[0].GetShape(), []int64{-1, 4}) || m.GetOutputs()[1].GetDatatype() != "BYTES" {
		t.Errorf("model: %v, %v", m, err)
	}
	if _, err := c.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: "rose"}); status.Code(err) != codes.NotFound {
		t.Errorf("no model: %v", err)
	}
	if ready, err := c.ModelReady(ctx, &inference.ModelReadyRequest{Name: "iris"}); err != nil || !ready.GetReady() {
		t.Errorf("model is ready: %v, %v", ready, err)
	}
	if _, err := c.ModelReady(ctx, &inference.ModelReadyRequest{Name: "rose"}); status.Code(err) != codes.NotFound {
		t.Errorf("no model is ready: %v", err)
	}
	_ = s.Models().Load(ctx, served("broken", "f"))
	if ready, err := c.ModelReady(ctx, &inference.ModelReadyRequest{Name: "broken"}); err != nil || ready.GetReady() {
		t.Errorf("model is not ready: %v, %v", ready, err)
	}
	_, err = c.ModelInfer(ctx, &inferCall{ModelName: "broken"})
	if details := status.Convert(err).Details(); status.Code(err) != codes.Unavailable || len(details) != 1 ||
		details[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration() < time.Second/2 {
		t.Errorf("not loaded: %v", err)
	}
	all, err := c.RepositoryIndex(ctx, nil)
	if err != nil || len(all.GetModels()) != 2 || all.GetModels()[0].GetState() != "UNAVAILABLE" || all.GetModels()[0].GetReason() == "" {
		t.Errorf("index: %v, %v", all, err)
	}
	if some, err := c.RepositoryIndex(ctx, &inference.RepositoryIndexRequest{Ready: true}); err != nil || len(some.GetModels()) != 1 {
		t.Errorf("index of the ready: %v, %v", some, err)
	}
}

func TestHealthOverGRPC(t *testing.T) {
	r := run(t, irisServer(t, func(o *Options) { o.Stop.Least, o.Stop.Most = time.Hour, time.Hour }))
	c := grpc_health_v1.NewHealthClient(dial(t, r.rpc))
	watch, err := c.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("watch: %v, %v", got, err)
	}
	for _, service := range healthServices {
		if got, err := c.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service}); err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("check %q: %v, %v", service, got, err)
		}
	}
	if _, err := c.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("check of nothing: %v", err)
	}
	if got, err := c.List(t.Context(), nil); err != nil || len(got.GetStatuses()) != 2 {
		t.Errorf("list: %v, %v", got, err)
	}
	r.signals <- syscall.SIGTERM
	if got, err := watch.Recv(); err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("watch of the stopping server: %v, %v", got, err)
	}
	r.signals <- syscall.SIGTERM
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the end of watching: %v", err)
	}
	if err := <-r.ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

func TestReflectionListsTheServices(t *testing.T) {
	c := grpc_reflection_v1.NewServerReflectionClient(dial(t, runToEnd(t, irisServer(t, nil)).rpc))
	stream, err := c.ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil || !strings.Contains(got.String(), "inference.GRPCInferenceService") || !strings.Contains(got.String(), "grpc.health.v1.Health") {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestCallsAreCounted(t *testing.T) {
	s := irisServer(t, nil)
	c := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, s).rpc))
	for range 3 {
		if _, err := c.ModelInfer(t.Context(), one("FP32", &contents{Fp32Contents: make([]float32, 4)}, 4)); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = c.ModelInfer(t.Context(), one("FP32", nil, 4))
	_, _ = c.ModelInfer(t.Context(), &inferCall{ModelName: "rose"})
	_, _ = c.ServerReady(t.Context(), nil)
	await(t, "all calls are counted", func() bool { return s.Stats().Requests == 5 && s.Stats().InFlight == 0 })
	text := call(s.Operations(), "GET", "/metrics", "").body
	for _, want := range []string{
		`requests_total{code="OK",model="iris",protocol="grpc",version="aaaaaaaaaaaa"} 3`,
		`requests_total{code="InvalidArgument",model="iris",protocol="grpc",version="aaaaaaaaaaaa"} 1`,
		`requests_total{code="NotFound",model="",protocol="grpc",version=""} 1`,
		`request_duration_seconds_count{model="iris",protocol="grpc",version="aaaaaaaaaaaa"} 4`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
}

// TestStopLosesNoCall stops one of two servers. Clients that never rest go on
// with the other one.
func TestStopLosesNoCall(t *testing.T) {
	stopping := func(o *Options) {
		o.Stop = Stopping{Quiet: 100 * time.Millisecond, Least: 150 * time.Millisecond, Most: 300 * time.Millisecond, Shutdown: 10 * time.Second}
	}
	a, b := run(t, irisServer(t, stopping)), runToEnd(t, irisServer(t, stopping))
	both := manual.NewBuilderWithScheme("both")
	both.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: a.rpc}, {Addr: b.rpc}}})
	c := inference.NewGRPCInferenceServiceClient(dial(t, "both:///x", grpc.WithResolvers(both),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`)))
	var stop atomic.Bool
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop.Store(true)
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				if _, err := c.ModelInfer(context.Background(), one("FP32", &contents{Fp32Contents: make([]float32, 4)}, 4)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	await(t, "both answer", func() bool { return a.Stats().Requests > 100 && b.Stats().Requests > 100 })
	a.signals <- syscall.SIGTERM
	await(t, "the server is stopping", a.stopping.Load)
	answered := a.Stats().Requests
	if err := <-a.ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if a.Stats().Requests == answered {
		t.Error("the stopping server answered nobody")
	}
	answered = b.Stats().Requests
	await(t, "the other one answers", func() bool { return b.Stats().Requests > answered+100 })
}

// TestStopAsksCallersToLeave stops the server of a client that never rests, and whose
// next connection would reach another one.
func TestStopAsksCallersToLeave(t *testing.T) {
	a := run(t, irisServer(t, func(o *Options) {
		o.Stop = Stopping{Quiet: 100 * time.Millisecond, Least: 150 * time.Millisecond, Most: time.Hour, Shutdown: 10 * time.Second}
	}))
	b := runToEnd(t, irisServer(t, nil))
	var connections atomic.Int64
	c := inference.NewGRPCInferenceServiceClient(dial(t, "passthrough:///x", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		to := b.rpc
		if connections.Add(1) == 1 {
			to = a.rpc
		}
		return new(net.Dialer).DialContext(ctx, "tcp", to)
	})))
	call := func() {
		if _, err := c.ModelInfer(t.Context(), one("FP32", &contents{Fp32Contents: make([]float32, 4)}, 4)); err != nil {
			t.Fatal(err)
		}
	}
	call()
	a.signals <- syscall.SIGTERM
	await(t, "the server to end", func() bool {
		call()
		return len(a.ended) > 0
	})
	if err := <-a.ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if connections.Load() != 2 || b.Stats().Requests == 0 {
		t.Errorf("the client connected %d times, and the other server answered %d requests", connections.Load(), b.Stats().Requests)
	}
}

func TestSlowCallIsEnded(t *testing.T) {
	s := irisServer(t, func(o *Options) { o.WriteTimeout = 50 * time.Millisecond })
	c := dial(t, runToEnd(t, s).rpc)
	stream, err := c.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, inference.GRPCInferenceService_ModelInfer_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&inference.ModelInferResponse{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	await(t, "nothing is in flight", func() bool { n, _ := s.requests.last(); return n == 0 })
}

func TestPanicIsAnError(t *testing.T) {
	s := irisServer(t, nil)
	_, err := s.answerCall(t.Context(), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { panic("x") })
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "goroutine") {
		t.Errorf("got %v", err)
	}
}

func TestStatusOfEveryProblem(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want codes.Code
	}{
		{t.Context(), nil, codes.OK},
		{t.Context(), invalid("x"), codes.InvalidArgument},
		{t.Context(), notFound("x"), codes.NotFound},
		{t.Context(), tooLarge("x"), codes.ResourceExhausted},
		{t.Context(), unavailable(1, "x"), codes.Unavailable},
		{t.Context(), internal("x"), codes.Internal},
		{t.Context(), io.ErrUnexpectedEOF, codes.Internal},
		{gone, errors.New("x"), codes.Canceled},
	} {
		if got := status.Code(statusOf(c.ctx, c.err)); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
}

// TestAnyMatrixIsReadFromCalls reads random rows from both forms of gRPC.
func TestAnyMatrixIsReadFromCalls(t *testing.T) {
	v, err := irisServer(t, nil).models.acquire("iris", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	random := rand.New(rand.NewPCG(7, 8))
	for range 200 {
		n := 1 + random.IntN(9)
		flat := make([]float32, n*4)
		for i := range flat {
			flat[i] = float32(random.NormFloat64()) * 1e3
		}
		for _, r := range []*inferCall{
			one("FP32", &contents{Fp32Contents: flat}, int64(n), 4),
			asRaw(one("FP32", nil, int64(n), 4), encoded(t, flat)),
		} {
			tensors, err := tensorsOf(r)
			if err != nil {
				t.Fatal(err)
			}
			if x, err := v.matrix(tensors, 10, new(buffers)); err != nil || !slices.Equal(x.Data, flat) {
				t.Fatalf("%v\nread as %v, %v", r, x.Data, err)
			}
		}
	}
}
