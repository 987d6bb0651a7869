package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"trainyard.dev/trainyard/controllers/routing"
)

var digits = Key{"default", "digits"}

// bench is a gateway with one service, whose pod the test starts: a server on
// another loopback address, with the ports that pods have.
type bench struct {
	*Gateway
	t     *testing.T
	ports routing.Ports
	woken atomic.Int32
	// accepted counts the connections that gRPC's clients made.
	accepted atomic.Int32
	// asleep is set while the service has no pods; onWake starts one.
	onWake func()
}

// freePorts asks the system for ports that nobody has.
func freePorts(t *testing.T, count int) []int {
	t.Helper()
	ports := make([]int, count)
	for i := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports
}

func newBench(t *testing.T, change func(*Options)) *bench {
	t.Helper()
	free := freePorts(t, 4)
	options := Defaults()
	options.Log = slog.New(slog.DiscardHandler)
	options.ProbePeriod, options.WakeAgain, options.Hold = 5*time.Millisecond, 20*time.Millisecond, 30*time.Second
	options.PodHTTP, options.PodGRPC = free[0], free[1]
	if change != nil {
		change(&options)
	}
	b := &bench{t: t, ports: routing.Ports{HTTP: int32(free[2]), GRPC: int32(free[3])}}
	b.Gateway = New(options, func(context.Context, Key) error {
		if b.woken.Add(1) == 1 && b.onWake != nil {
			go b.onWake()
		}
		return nil
	})
	b.rpc.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			b.accepted.Add(1)
		}
	}
	b.Set(digits, View{Ports: b.ports})
	t.Cleanup(func() { _ = b.rest.Close(); _ = b.rpc.Close() })
	return b
}

// pod starts a server, as a pod that Kubernetes does not call ready yet.
func (b *bench) pod(handler http.Handler) {
	b.serve("127.0.0.1", handler)
	b.Set(digits, View{Ports: b.ports, Pods: []Pod{{Address: "127.0.0.1"}}})
}

func (b *bench) serve(address string, handler http.Handler) {
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/health/ready", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/", handler)
	server := &http.Server{Handler: mux}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(b.options.PodHTTP)))
	if err != nil {
		b.t.Error(err)
		return
	}
	go func() { _ = server.Serve(listener) }()
	b.t.Cleanup(func() { _ = server.Close() })
}

func (b *bench) post(ctx context.Context, path string, body io.Reader) (int, string, http.Header) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", b.ports.HTTP, path), body)
	if err != nil {
		b.t.Error(err)
		return 0, "", nil
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error(), nil
	}
	if !response.Close {
		b.t.Errorf("%s: the client may use its connection again, and would not find the pod", path)
	}
	return response.StatusCode, string(content), response.Header
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// counting answers with the hash of the body, and counts each body.
type counting struct {
	mutex sync.Mutex
	seen  map[string]int
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.seen[r.URL.Path]++
	_, _ = fmt.Fprintf(w, "%x", sha256.Sum256(content))
}

// TestHoldsWakesAndForwards has many requests come while there is no pod: the
// service is woken, and each is answered once, with what was sent in it.
func TestHoldsWakesAndForwards(t *testing.T) {
	b := newBench(t, nil)
	pod := &counting{seen: map[string]int{}}
	b.onWake = func() { b.pod(pod) }
	const requests = 200
	var group sync.WaitGroup
	for i := range requests {
		group.Go(func() {
			body := bytes.Repeat([]byte{byte(i)}, 1000*i)
			status, answer, _ := b.post(t.Context(), fmt.Sprintf("/%d", i), bytes.NewReader(body))
			if want := fmt.Sprintf("%x", sha256.Sum256(body)); status != 200 || answer != want {
				t.Errorf("request %d: %d %s, want %s", i, status, answer, want)
			}
		})
	}
	group.Wait()
	if len(pod.seen) != requests {
		t.Errorf("the pod saw %d requests, want %d", len(pod.seen), requests)
	}
	for path, times := range pod.seen {
		if times != 1 {
			t.Errorf("the pod saw %s %d times", path, times)
		}
	}
	report := b.Report().Services[0]
	if report.Requests != requests || report.Held != 0 || report.ColdStart == nil || report.ColdStart.Seconds <= 0 {
		t.Errorf("the operator is told %+v", report)
	}
}

// TestTriesAgainOnlyWhatWasNotSent has two pods that Kubernetes calls ready.
// Nobody listens at one of them: its requests go to the other. A pod that ends
// while it answers is said, and the request is not sent again.
func TestTriesAgainOnlyWhatWasNotSent(t *testing.T) {
	b := newBench(t, nil)
	var asked atomic.Int32
	b.serve("127.0.0.3", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/ends" {
			panic(http.ErrAbortHandler)
		}
	}))
	b.Set(digits, View{Ports: b.ports, Pods: []Pod{{"127.0.0.2", true}, {"127.0.0.3", true}}})
	for range 10 {
		if status, answer, _ := b.post(t.Context(), "/", strings.NewReader("x")); status != 200 {
			t.Fatalf("%d %s", status, answer)
		}
	}
	if asked.Swap(0) != 10 {
		t.Error("requests were answered by no pod")
	}
	status, answer, _ := b.post(t.Context(), "/ends", strings.NewReader("x"))
	if status != http.StatusBadGateway || !strings.Contains(answer, "may or may not have been processed") {
		t.Errorf("%d %s", status, answer)
	}
	if asked.Load() != 1 {
		t.Errorf("a request that may have been processed was sent %d times", asked.Load())
	}
	if b.woken.Load() != 0 {
		t.Error("a service that has a ready pod was woken")
	}
}

func TestRefuses(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*Options)
		view    func(*View)
		body    string
		status  int
		message string
		again   string
	}{
		{"what was held too long", func(o *Options) { o.Hold = 50 * time.Millisecond }, nil, "x", 503, "ModelService default/digits: no pod is ready yet", "2"},
		{"what a stopped service is asked", nil, func(v *View) { v.Stopped = true }, "x", 503, "default/digits is stopped", ""},
		{"a body that is too large", func(o *Options) { o.BodyBytes = 3 }, nil, "xxxx", 413, "more than 3 bytes", ""},
		{"more bytes than there is room for", func(o *Options) { o.Bytes = 3 }, nil, "xxxx", 503, "holds as many", "2"},
		{"more requests than there is room for", func(o *Options) { o.Requests = 0 }, nil, "x", 503, "holds as many", "2"},
		{"what can't be answered as the pod doesn't", func(o *Options) { o.Hold = 50 * time.Millisecond }, func(v *View) { v.Pods = []Pod{{Address: "127.0.0.9"}} }, "x", 503, "don't answer yet", "2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, test.change)
			view := View{Ports: b.ports}
			if test.view != nil {
				test.view(&view)
			}
			b.Set(digits, view)
			status, answer, header := b.post(t.Context(), "/v1/models/digits:predict", strings.NewReader(test.body))
			if status != test.status || !strings.Contains(answer, test.message) || header.Get("Retry-After") != test.again {
				t.Errorf("got %d, Retry-After %q, %s; want %d, %q, ...%q...", status, header.Get("Retry-After"), answer, test.status, test.again, test.message)
			}
			if b.budget.requests != 0 || b.budget.bytes != 0 {
				t.Errorf("%d requests and %d bytes are never given back", b.budget.requests, b.budget.bytes)
			}
		})
	}
}

func TestSaysWhyAServiceCannotBeWoken(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Hold = 100 * time.Millisecond })
	b.wake = func(context.Context, Key) error { return errors.New("exceeded quota") }
	if status, answer, _ := b.post(t.Context(), "/", nil); status != 503 || !strings.Contains(answer, "can't be woken: exceeded quota") {
		t.Errorf("%d %s", status, answer)
	}
}

// TestAClientThatLeavesIsForgotten has nobody but one client, who leaves: the
// gateway stops waking the service.
func TestAClientThatLeavesIsForgotten(t *testing.T) {
	b := newBench(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.post(ctx, "/", strings.NewReader("x")) }()
	until(t, "the request to be held", func() bool { return b.Report().Services[0].Held == 1 })
	cancel()
	<-done
	until(t, "the request to be forgotten", func() bool { return b.Report().Services[0].Held == 0 })
	s := b.at(b.ports.HTTP)
	until(t, "the service to be left in peace", func() bool { s.mutex.Lock(); defer s.mutex.Unlock(); return !s.rousing })
}

func TestADeletedServiceRefusesWhatIsHeld(t *testing.T) {
	b := newBench(t, nil)
	answers := make(chan string, 1)
	go func() {
		status, answer, _ := b.post(t.Context(), "/", nil)
		answers <- fmt.Sprint(status, answer)
	}()
	until(t, "the request to be held", func() bool { return b.Report().Services[0].Held == 1 })
	b.Remove(digits)
	if answer := <-answers; !strings.HasPrefix(answer, "503") || !strings.Contains(answer, "was deleted") {
		t.Error(answer)
	}
	if _, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.ports.HTTP)); err == nil {
		t.Error("the gateway listens for a service that is gone")
	}
}

// TestPortsOfTwo gives two services the same ports, as two managers may: the
// first keeps them, and the second has them when the first takes others.
func TestPortsOfTwo(t *testing.T) {
	b := newBench(t, nil)
	other := Key{"other", "digits"}
	b.Set(other, View{Ports: b.ports})
	if s := b.at(b.ports.HTTP); s.key != digits {
		t.Fatalf("the ports went to %s", s.key)
	}
	free := freePorts(t, 2)
	b.Set(digits, View{Ports: routing.Ports{HTTP: int32(free[0]), GRPC: int32(free[1])}})
	for _, port := range []int32{b.ports.HTTP, b.ports.GRPC} {
		if s := b.at(port); s == nil || s.key != other {
			t.Errorf("port %d is %v's", port, s)
		}
	}
	if s := b.at(int32(free[0])); s == nil || s.key != digits {
		t.Errorf("the new port is %v's", s)
	}
}

// TestStops asks the gateway to stop while it holds a request: it says that it
// isn't ready, and goes on until the request is answered.
func TestStops(t *testing.T) {
	b := newBench(t, func(o *Options) {
		o.Stop = Stopping{Quiet: 10 * time.Millisecond, Least: 20 * time.Millisecond, Most: time.Second, Shutdown: 20 * time.Second}
	})
	b.Synced()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, listener) }()
	answers := make(chan int, 1)
	go func() {
		status, _, _ := b.post(t.Context(), "/", strings.NewReader("x"))
		answers <- status
	}()
	until(t, "the request to be held", func() bool { return b.Report().Services[0].Held == 1 })
	stop()
	until(t, "the gateway to say that it isn't ready", func() bool {
		response, err := http.Get("http://" + listener.Addr().String() + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusServiceUnavailable
	})
	b.pod(&counting{seen: map[string]int{}})
	if status := <-answers; status != 200 {
		t.Errorf("the request that was held was answered with %d", status)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// rpcPod is a gRPC server, as in a pod: unary calls and streams.
type rpcPod struct {
	healthgrpc.UnimplementedHealthServer
}

func (rpcPod) Check(_ context.Context, request *healthgrpc.HealthCheckRequest) (*healthgrpc.HealthCheckResponse, error) {
	if request.GetService() == "unknown" {
		return nil, status.Error(codes.NotFound, "no such service: ü")
	}
	return &healthgrpc.HealthCheckResponse{Status: healthgrpc.HealthCheckResponse_SERVING}, nil
}

func (rpcPod) Watch(_ *healthgrpc.HealthCheckRequest, stream grpc.ServerStreamingServer[healthgrpc.HealthCheckResponse]) error {
	for range 3 {
		if err := stream.Send(&healthgrpc.HealthCheckResponse{Status: healthgrpc.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) rpcPod() {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(b.options.PodGRPC)))
	if err != nil {
		b.t.Error(err)
		return
	}
	server := grpc.NewServer()
	healthgrpc.RegisterHealthServer(server, rpcPod{})
	go func() { _ = server.Serve(listener) }()
	b.t.Cleanup(server.Stop)
	b.pod(http.NotFoundHandler())
}

func (b *bench) dial() healthgrpc.HealthClient {
	connection, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", b.ports.GRPC), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = connection.Close() })
	return healthgrpc.NewHealthClient(connection)
}

// TestHoldsGRPC sends unary calls and streams over one connection while there
// is no pod.
func TestHoldsGRPC(t *testing.T) {
	b := newBench(t, nil)
	b.onWake = b.rpcPod
	client := b.dial()
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			answer, err := client.Check(t.Context(), &healthgrpc.HealthCheckRequest{})
			if err != nil || answer.GetStatus() != healthgrpc.HealthCheckResponse_SERVING {
				t.Errorf("unary: %v %v", answer, err)
			}
		})
		group.Go(func() {
			stream, err := client.Watch(t.Context(), &healthgrpc.HealthCheckRequest{})
			if err != nil {
				t.Error(err)
				return
			}
			received := 0
			for err == nil {
				if _, err = stream.Recv(); err == nil {
					received++
				}
			}
			if received != 3 || !errors.Is(err, io.EOF) {
				t.Errorf("stream: %d messages, %v", received, err)
			}
		})
	}
	group.Wait()
	_, err := client.Check(t.Context(), &healthgrpc.HealthCheckRequest{Service: "unknown"})
	if status.Code(err) != codes.NotFound || status.Convert(err).Message() != "no such service: ü" {
		t.Errorf("the pod's own error arrives as %v", err)
	}
}

func TestRefusesGRPC(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.Check(ctx, &healthgrpc.HealthCheckRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("past its own deadline: %v", err)
	}
	until(t, "the call to be forgotten", func() bool { return b.Report().Services[0].Held == 0 })
	b.Set(digits, View{Ports: b.ports, Stopped: true})
	if _, err := client.Check(t.Context(), &healthgrpc.HealthCheckRequest{}); status.Code(err) != codes.Unavailable || !strings.Contains(status.Convert(err).Message(), "default/digits is stopped") {
		t.Errorf("of a service that is stopped: %v", err)
	}
}

// TestGRPCLeavesForReadyPods keeps calling over one connection. It stays open
// while the pod is not known to be ready, and for a moment longer: a GOAWAY for
// every answer would make calls that are under way fail. Then the connection is
// closed, and calls that come meanwhile succeed over the next one.
func TestGRPCLeavesForReadyPods(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Settle = 20 * time.Millisecond })
	b.onWake = b.rpcPod
	client := b.dial()
	call := func() {
		answer, err := client.Check(t.Context(), &healthgrpc.HealthCheckRequest{})
		if err != nil || answer.GetStatus() != healthgrpc.HealthCheckResponse_SERVING {
			t.Errorf("%v %v", answer, err)
		}
	}
	for range 50 {
		call()
	}
	if got := b.accepted.Load(); got != 1 {
		t.Errorf("the client had to connect %d times before a pod was ready", got)
	}
	b.Set(digits, View{Ports: b.ports, Pods: []Pod{{Address: "127.0.0.1", Ready: true}}})
	until(t, "the client to connect anew", func() bool { call(); return b.accepted.Load() > 1 })
}

// TestIdleConnectionsAreClosed waits for nothing on a connection that a client
// opened ahead.
func TestIdleConnectionsAreClosed(t *testing.T) {
	b := newBench(t, func(o *Options) { o.IdleTimeout = 20 * time.Millisecond })
	connection, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", b.ports.GRPC), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	connection.Connect()
	for _, want := range []connectivity.State{connectivity.Ready, connectivity.Idle} {
		until(t, "the connection to be "+want.String(), func() bool { return connection.GetState() == want })
	}
}

func TestGRPCTimeout(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"1S": time.Second, "250m": 250 * time.Millisecond, "3M": 3 * time.Minute, "99999999u": 99999999 * time.Microsecond, "7n": 7, "2H": 2 * time.Hour,
		"99999999H": 24 * 365 * time.Hour,
	} {
		if got, ok := grpcTimeout(header); !ok || got != want {
			t.Errorf("%s is %s, %v; want %s", header, got, ok, want)
		}
	}
	for _, header := range []string{"", "S", "1", "-1S", "1x", "123456789S", "1.5S", "S1"} {
		if got, ok := grpcTimeout(header); ok {
			t.Errorf("%q is %s", header, got)
		}
	}
}

func FuzzGRPCTimeout(f *testing.F) {
	for _, seed := range []string{"1S", "99999999H", "", "0n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if timeout, ok := grpcTimeout(header); ok && (timeout < 0 || timeout > 24*365*time.Hour) {
			t.Errorf("%q is %s", header, timeout)
		}
	})
}
