package serve

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestStoppingIsOver(t *testing.T) {
	s := Defaults().Stop
	asked := time.Unix(1000, 0)
	for _, c := range []struct {
		name         string
		now, changed float64 // seconds after asked
		inFlight     int64
		want         bool
	}{
		{"just asked, long quiet", 0, -100, 0, false},
		{"quiet, but not yet the least", 4.9, -100, 0, false},
		{"quiet and the least", 5, -100, 0, true},
		{"the least, but a request just ended", 5, 4, 0, false},
		{"quiet again", 7, 4, 0, true},
		{"a long request", 12, 1, 1, false},
		{"never quiet", 20, 19.9, 3, true},
	} {
		at := func(seconds float64) time.Time { return asked.Add(time.Duration(seconds * 1e9)) }
		if got := s.over(at(c.now), asked, at(c.changed), c.inFlight); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestWaitEndsWhenItIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newActivity(time.Now)
		s := Defaults().Stop
		began := time.Now()
		go func() {
			for range 8 { // the last begins after 7 s and ends after 8 s
				a.begin()
				time.Sleep(time.Second)
				a.end()
			}
		}()
		left := time.Duration(0)
		s.wait(t.Context(), a, func() { left += time.Since(began) })
		if took := time.Since(began).Round(time.Second); took != 11*time.Second {
			t.Errorf("waited %v, want 11s", took)
		}
		if left.Round(time.Second) != s.Least {
			t.Errorf("clients were asked to leave after %v, want %v", left, s.Least)
		}
	})
}

// running is a server that runs on real ports.
type running struct {
	*Server
	url     string
	rpc     string // host:port of gRPC
	signals chan os.Signal
	ended   chan error
}

func run(t *testing.T, s *Server) *running {
	t.Helper()
	l := Listeners{Predictions: listen(t), GRPC: listen(t), Operations: listen(t)}
	r := &running{s, "http://" + l.Predictions.Addr().String(), l.GRPC.Addr().String(), make(chan os.Signal, 2), make(chan error, 1)}
	go func() { r.ended <- s.Run(r.signals, l) }()
	return r
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (r *running) infer(c *http.Client) (code int, closes bool, err error) {
	response, err := c.Post(r.url+"/v2/models/iris/infer", "application/json", strings.NewReader(v2("FP32", "[4]", "[1,2,3,4]")))
	if err != nil {
		return 0, false, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Close, err
}

// await calls f until it is true.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

func TestStopLosesNothing(t *testing.T) {
	r := run(t, irisServer(t, func(o *Options) {
		o.Stop = Stopping{Quiet: time.Second, Least: time.Second, Most: time.Minute, Shutdown: 10 * time.Second}
	}))
	// Clients go on, on open connections and new ones, until they see that the
	// server is not ready, as the cluster would; none may meet an error.
	var answered, asked, failed atomic.Int64
	clients := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { clients <- struct{}{} }()
			c := &http.Client{Transport: &http.Transport{}}
			for {
				code, closes, err := r.infer(c)
				if err != nil || code != http.StatusOK {
					failed.Add(1)
					t.Errorf("got %d, %v", code, err)
					return
				}
				answered.Add(1)
				if closes && asked.Add(1) > 200 {
					return
				}
			}
		}()
	}
	await(t, "requests are answered", func() bool { return answered.Load() > 100 })
	r.signals <- syscall.SIGTERM
	await(t, "readiness fails", func() bool {
		response, err := http.Get(r.url + "/v2/health/ready")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusServiceUnavailable
	})
	for range 4 {
		<-clients
	}
	if err := <-r.ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if asked.Load() < 200 {
		t.Error("the stopping server did not ask clients to leave")
	}
}

// TestStopWaitsForWhoIsStillSending asks the server to stop in the middle of a
// request, and sends the rest after it would have been quiet.
func TestStopWaitsForWhoIsStillSending(t *testing.T) {
	r := run(t, irisServer(t, func(o *Options) {
		o.Stop = Stopping{Quiet: time.Millisecond, Least: time.Millisecond, Most: time.Minute, Shutdown: 10 * time.Second}
	}))
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := v2("FP32", "[4]", "[1,2,3,4]")
	head := fmt.Sprintf("POST /v2/models/iris/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(body))
	if _, err := io.WriteString(conn, head+body[:20]); err != nil {
		t.Fatal(err)
	}
	await(t, "the request is in flight", func() bool { n, _ := r.requests.last(); return n == 1 })
	r.signals <- syscall.SIGTERM
	await(t, "the server is stopping", r.stopping.Load)
	_, sent := r.requests.last()
	await(t, "the server would be quiet", func() bool { return time.Since(sent) > 50*time.Millisecond })
	if _, err := io.WriteString(conn, body[20:]); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK") || !strings.Contains(string(answer), "Connection: close") {
		t.Errorf("got %s, %v", answer, err)
	}
	if err := <-r.ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	r := run(t, irisServer(t, func(o *Options) { o.Stop.Least, o.Stop.Most = time.Hour, time.Hour }))
	r.signals <- syscall.SIGTERM
	await(t, "the server is stopping", r.stopping.Load)
	r.signals <- syscall.SIGTERM
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("the server ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the server goes on")
	}
}

func TestSlowHeadersEndTheConnection(t *testing.T) {
	r := run(t, irisServer(t, func(o *Options) { o.ReadHeaderTimeout = 20 * time.Millisecond }))
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /v2/models/iris/infer HTTP/1.1\r\nHost: x\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the server keeps the connection: %v", err)
	}
	r.signals <- syscall.SIGTERM
	r.signals <- syscall.SIGTERM
	if err := <-r.ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	Stopping{Quiet: time.Hour, Least: time.Hour, Most: time.Hour}.wait(ctx, newActivity(time.Now), func() {})
}
