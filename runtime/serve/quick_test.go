package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// client is a connection to a server that runs, byte by byte.
type client struct {
	*testing.T
	*net.TCPConn
	from *bufio.Reader
}

func (r *running) connect(t *testing.T) *client {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &client{t, conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (c *client) send(text string) {
	c.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.Fatal(err)
	}
}

// reply is an answer as it came over the wire.
type reply struct {
	answer
	closes bool
}

// answered reads an answer, and leaves its date out.
func (c *client) answered() reply {
	c.Helper()
	response, err := http.ReadResponse(c.from, nil)
	if err != nil {
		c.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.Fatal(err)
	}
	if _, err := http.ParseTime(response.Header.Get("Date")); err != nil {
		c.Errorf("the answer's date: %v", err)
	}
	response.Header.Del("Date")
	return reply{answer{response.StatusCode, string(body), response.Header}, response.Close}
}

// closed checks that the server has closed the connection and sent nothing more.
func (c *client) closed() {
	c.Helper()
	rest, err := io.ReadAll(c.from)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) || len(rest) > 0 {
		c.Errorf("the connection goes on: %q, %v", rest, err)
	}
}

// irisRuns runs a server of the model iris until the test ends.
func irisRuns(t *testing.T, change func(*Options)) *running {
	t.Helper()
	r := run(t, irisServer(t, change))
	t.Cleanup(func() {
		r.signals <- syscall.SIGTERM
		r.signals <- syscall.SIGTERM
		if err := <-r.ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return r
}

const irisInfer = "/v2/models/iris/infer"

func irisBody() string { return v2("FP32", "[4]", "[5.1,3.5,1.4,0.2]") }

// TestQuickAnswersAsNetHTTPDoes sends requests in two forms, of which the second
// is for net/http, and compares everything that comes back.
func TestQuickAnswersAsNetHTTPDoes(t *testing.T) {
	r := irisRuns(t, func(o *Options) { o.Rows, o.BytesInFlight = 2, 2000 })
	binary := binaryTensor("FP32", "[1,4]", 16, `{"binary_data_output":true}`)
	for _, c := range []struct {
		name, target, body string
		fields             []string
		code               int
	}{
		{"V2", irisInfer, irisBody(), nil, 200},
		{"V2 with an id", irisInfer, strings.Replace(irisBody(), "{", `{"id":"é",`, 1), nil, 200},
		{"a version", "/v2/models/iris/versions/aaaaaaaaaaaa/infer", irisBody(), nil, 200},
		{"V1", "/v1/models/iris:predict", `{"instances":[[1,2,3,4]],"parameters":{"labels":true}}`, nil, 200},
		{"binary", irisInfer, binary + strings.Repeat("\x00", 16), []string{binaryHeader + ": " + strconv.Itoa(len(binary))}, 200},
		{"not JSON", irisInfer, "<", nil, 400},
		{"an empty body", irisInfer, "", nil, 400},
		{"a wrong split", irisInfer, irisBody(), []string{binaryHeader + ": 100000"}, 400},
		{"an unknown model", "/v2/models/rose/infer", irisBody(), nil, 404},
		{"an unknown version", "/v2/models/iris/versions/1/infer", irisBody(), nil, 404},
		{"many rows", irisInfer, v2("FP32", "[3,4]", "[1,2,3,4,1,2,3,4,1,2,3,4]"), nil, 413},
		{"more than is in memory", irisInfer, irisBody() + strings.Repeat(" ", 2000), nil, 503},
	} {
		quickly, slowly := r.connect(t), r.connect(t)
		head := headOf(c.target, len(c.body), c.fields...)
		// Twice: the connection goes on after each of the answers.
		for range 2 {
			quickly.send(head + c.body)
			slowly.send(strings.Replace(head, "\r\nHost", "\r\nTrailer: x\r\nHost", 1) + c.body)
			got := quickly.answered()
			want := slowly.answered()
			if got.code != c.code || got.code != want.code || got.body != want.body || fmt.Sprint(got.header) != fmt.Sprint(want.header) {
				t.Errorf("%s:\ngot  %d %v %s\nwant %d %v %s", c.name, got.code, got.header, got.body, want.code, want.header, want.body)
			}
		}
	}
}

func TestQuickReadsWhatComesInPieces(t *testing.T) {
	r := irisRuns(t, nil)
	c := r.connect(t)
	head, body := headOf(irisInfer, len(irisBody())), irisBody()
	// As Python's http.client does: the head, and then the body.
	c.send(head)
	await(t, "the request is in flight", func() bool { n, _ := r.requests.last(); return n == 1 })
	c.send(body[:5])
	c.send(body[5:])
	if got := c.answered(); got.code != http.StatusOK {
		t.Errorf("got %d %s", got.code, got.body)
	}
	// Several at once, and the beginning of another.
	c.send(head + body + head + body + head[:10])
	for range 2 {
		if got := c.answered(); got.code != http.StatusOK {
			t.Errorf("got %d %s", got.code, got.body)
		}
	}
	c.send(head[10:] + body)
	if got := c.answered(); got.code != http.StatusOK {
		t.Errorf("got %d %s", got.code, got.body)
	}
}

// TestQuickReadsLongBodies sends requests of every size that is special, the
// numbers in JSON or binary, whole or with a pause in the middle, and a short one
// right after each.
func TestQuickReadsLongBodies(t *testing.T) {
	r := irisRuns(t, nil)
	short := headOf(irisInfer, len(irisBody())) + irisBody()
	want := r.connect(t)
	want.send(short)
	row := want.answered().body
	numbers := string(encoded(t, []float32{5.1, 3.5, 1.4, 0.2}))
	tensor := binaryTensor("FP32", "[1,4]", len(numbers), `{"binary_data_output":false}`)
	for _, size := range []int{len(arrivals{}) - 1, len(arrivals{}), len(arrivals{}) + 1, 3*len(arrivals{}) + 1, 200_003, kept} {
		for _, binary := range []bool{false, true} {
			body := irisBody() + strings.Repeat(" ", size-len(irisBody()))
			head := headOf(irisInfer, size)
			if binary {
				length := size - len(numbers)
				body = tensor + strings.Repeat(" ", length-len(tensor)) + numbers
				head = headOf(irisInfer, size, binaryHeader+": "+strconv.Itoa(length))
			}
			c := r.connect(t)
			c.send(head + body + short)
			for range 2 {
				if got := c.answered(); got.code != http.StatusOK || got.closes || got.body != row {
					t.Errorf("%d bytes, binary is %v: got %d %s", size, binary, got.code, got.body)
				}
			}
			await(t, "no request is in flight", func() bool { return r.Stats().InFlight == 0 })
			before := r.Stats().Requests
			c.send(head + body[:size/2])
			await(t, "the request is in flight", func() bool { return r.Stats().InFlight == 1 })
			c.send(body[size/2:] + short)
			for range 2 {
				if got := c.answered(); got.code != http.StatusOK || got.closes || got.body != row {
					t.Errorf("%d bytes with a pause, binary is %v: got %d %s", size, binary, got.code, got.body)
				}
			}
			await(t, "both are counted", func() bool { return r.Stats().Requests == before+2 })
		}
	}
	if used := r.bodies.used.Load(); used != 0 {
		t.Errorf("%d bytes are used after the end", used)
	}
}

// TestQuickRefusesLongBodies has no room in memory for them. Who sends one hears
// so after the last byte, and may try again on the same connection.
func TestQuickRefusesLongBodies(t *testing.T) {
	r := irisRuns(t, func(o *Options) { o.BytesInFlight = 100_000 })
	c := r.connect(t)
	for range 2 {
		c.send(headOf(irisInfer, 200_000) + strings.Repeat(" ", 200_000))
		if got := c.answered(); got.code != http.StatusServiceUnavailable || got.closes || got.header.Get("Retry-After") != "1" {
			t.Errorf("got %d %s, closing is %v", got.code, got.body, got.closes)
		}
		c.send(headOf(irisInfer, len(irisBody())) + irisBody())
		if got := c.answered(); got.code != http.StatusOK {
			t.Errorf("got %d %s", got.code, got.body)
		}
	}
	// Who ends in the middle is told what is missing.
	c.send(headOf(irisInfer, 50_000) + strings.Repeat(" ", 30_000))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := c.answered(); got.code != http.StatusBadRequest || !strings.Contains(got.body, "unexpected EOF") {
		t.Errorf("got %d %s", got.code, got.body)
	}
	c.closed()
	if used := r.bodies.used.Load(); used != 0 {
		t.Errorf("%d bytes are used after the end", used)
	}
}

// TestQuickHandsOn sends, after simple requests, all that net/http is for.
func TestQuickHandsOn(t *testing.T) {
	r := irisRuns(t, func(o *Options) { o.BodyBytes = kept + 10_000 })
	body := irisBody()
	chunked := "POST " + irisInfer + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	long := body + strings.Repeat(" ", kept)
	for name, c := range map[string]struct {
		text string
		code int
	}{
		"another path":     {"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		"no path":          {"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404},
		"another method":   {"PUT " + irisInfer + " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 405},
		"chunks":           {chunked + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body), 200},
		"a long body":      {headOf(irisInfer, len(long)) + long, 200},
		"too long a body":  {headOf(irisInfer, 2*kept) + strings.Repeat(" ", 70_000), 413},
		"packed":           {headOf(irisInfer, 2, "Content-Encoding: gzip") + "{}", 415},
		"no host":          {"POST " + irisInfer + " HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 400},
		"no HTTP":          {"HELO digits\r\n\r\n", 400},
		"asks to close":    {headOf(irisInfer, len(body), "Connection: close") + body, 200},
		"HTTP/1.0":         {strings.Replace(headOf(irisInfer, len(body)), "1.1", "1.0", 1) + body, 200},
		"an escaped model": {headOf("/v2/models/ir%69s/infer", len(body)) + body, 200},
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.connect(t)
			conn.send(headOf(irisInfer, len(body)) + body)
			conn.answered()
			conn.send(c.text)
			// Of the answer to what is no HTTP, there is not much more.
			line, err := conn.from.ReadString('\n')
			if version, code, _ := strings.Cut(line, " "); err != nil || !strings.HasPrefix(version, "HTTP/1.") || !strings.HasPrefix(code, strconv.Itoa(c.code)) {
				t.Errorf("got %q, %v, want %d", line, err, c.code)
			}
		})
	}
	t.Run("asks first", func(t *testing.T) {
		conn := r.connect(t)
		conn.send(headOf(irisInfer, len(body), "Expect: 100-continue"))
		if line, err := conn.from.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		if _, err := conn.from.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		conn.send(body)
		if got := conn.answered(); got.code != http.StatusOK {
			t.Errorf("got %d %s", got.code, got.body)
		}
	})
}

func TestQuickLimitsEachPhase(t *testing.T) {
	const soon = 30 * time.Millisecond
	head, body := headOf(irisInfer, len(irisBody())), irisBody()
	for name, c := range map[string]struct {
		limit func(*Options)
		// Before is answered, and after is not.
		before, after string
		// code of the answer to after; 0: none.
		code int
	}{
		"nothing is sent":           {limit: func(o *Options) { o.ReadHeaderTimeout = soon }},
		"a part of the body":        {limit: func(o *Options) { o.ReadTimeout = soon }, after: head + body[:5], code: 400},
		"a part of the second body": {limit: func(o *Options) { o.ReadTimeout = soon }, before: head + body, after: head + body[:5], code: 400},
		"idle":                      {limit: func(o *Options) { o.IdleTimeout = soon }, before: head + body},
	} {
		t.Run(name, func(t *testing.T) {
			r := irisRuns(t, c.limit)
			conn := r.connect(t)
			if c.before != "" {
				conn.send(c.before)
				conn.answered()
			}
			conn.send(c.after)
			if c.code != 0 {
				got := conn.answered()
				if got.code != c.code || !got.closes || !strings.Contains(got.body, "timeout") {
					t.Errorf("got %d %s, closing is %v", got.code, got.body, got.closes)
				}
			}
			conn.closed()
			await(t, "no request is in flight", func() bool { n, _ := r.requests.last(); return n == 0 })
		})
	}
}

// TestHalfOpenConnections has clients that are gone in one direction, or in both
// without a word; others are served meanwhile.
func TestHalfOpenConnections(t *testing.T) {
	r := irisRuns(t, func(o *Options) { o.Connections, o.ReadHeaderTimeout = 3, 100*time.Millisecond })
	head, body := headOf(irisInfer, len(irisBody())), irisBody()

	// Who has said that nothing more comes still hears the answer.
	c := r.connect(t)
	c.send(head + body)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := c.answered(); got.code != http.StatusOK {
		t.Errorf("got %d %s", got.code, got.body)
	}
	c.closed()
	// Who says so in the middle of a body is told what is missing.
	c = r.connect(t)
	c.send(head + body[:5])
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := c.answered(); got.code != http.StatusBadRequest || !strings.Contains(got.body, "EOF") {
		t.Errorf("got %d %s", got.code, got.body)
	}
	c.closed()

	// As many as may be open say nothing at all. One more has its turn when the
	// server has given them up.
	for range 3 {
		r.connect(t)
	}
	last := r.connect(t)
	last.send(head + body)
	if got := last.answered(); got.code != http.StatusOK {
		t.Errorf("got %d %s", got.code, got.body)
	}
}

func TestConnectionsMakePlace(t *testing.T) {
	r := irisRuns(t, func(o *Options) { o.Connections = 2 })
	head, body := headOf(irisInfer, len(irisBody())), irisBody()
	asked := int64(0)
	// Of both kinds, and many more than there are places, one after another.
	for range 10 {
		quickly, slowly := r.connect(t), r.connect(t)
		ask := func() {
			quickly.send(head + body)
			quickly.answered()
			asked++
		}
		ask()
		slowly.send("GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
		slowly.answered()
		waiting := r.connect(t)
		waiting.send(head + body)
		// In the time that it takes to answer others, it would have its turn.
		for range 50 {
			ask()
		}
		if got := r.Stats(); got.Requests+got.InFlight > asked {
			t.Fatal("a connection is answered for which there is no place")
		}
		quickly.Close()
		if got := waiting.answered(); got.code != http.StatusOK {
			t.Errorf("got %d %s", got.code, got.body)
		}
		asked++
		slowly.Close()
		waiting.Close()
	}
}

func TestQuickClosesOldConnections(t *testing.T) {
	r := irisRuns(t, func(o *Options) { o.ConnectionAge = time.Nanosecond })
	c := r.connect(t)
	c.send(headOf(irisInfer, len(irisBody())) + irisBody())
	if got := c.answered(); got.code != http.StatusOK || !got.closes {
		t.Errorf("got %d, closing is %v", got.code, got.closes)
	}
	c.closed()
}

// TestIdleConnectionsHoldNoBuffers looks at a connection: what that is worth is
// for bench/serve.
func TestIdleConnectionsHoldNoBuffers(t *testing.T) {
	l := listen(t)
	defer l.Close()
	other, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := newConnection(&quick{Server: irisServer(t, nil), places: make(chan struct{}, 1)}, accepted)
	c.quick.places <- struct{}{}
	defer c.Close()
	waits := func() {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err := c.more(); !errors.Is(err, os.ErrDeadlineExceeded) || c.room != nil {
			t.Errorf("after %v, the connection holds a buffer: %v", err, c.room != nil)
		}
	}
	waits()
	if _, err := io.WriteString(other, "POST"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.more(); err != nil || string(c.read) != "POST" {
		t.Errorf("read %q, %v", c.read, err)
	}
	c.answered(4)
	waits()
}

// panics has the model panic while the result is true.
func panics(v *version) *atomic.Bool {
	fails := new(atomic.Bool)
	v.executed = func(int) {
		if fails.Load() {
			panic("the model fails")
		}
	}
	return fails
}

// TestAPanicEndsOneConnection has a model that cannot be computed, over both
// ways. What others ask is answered on.
func TestAPanicEndsOneConnection(t *testing.T) {
	r := irisRuns(t, nil)
	head, body := headOf(irisInfer, len(irisBody())), irisBody()
	before := r.connect(t)
	before.send(head + body)
	before.answered()
	v, err := r.models.acquire("iris", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	fails := panics(v)
	fails.Store(true)
	for _, text := range []string{head, strings.Replace(head, "\r\nHost", "\r\nTrailer: x\r\nHost", 1)} {
		c := r.connect(t)
		c.send(text + body)
		c.closed()
	}
	fails.Store(false)
	before.send(head + body)
	if got := before.answered(); got.code != http.StatusOK {
		t.Errorf("got %d %s", got.code, got.body)
	}
	await(t, "no request is in flight", func() bool { n, _ := r.requests.last(); return n == 0 })
}

// TestStopAnswersWhoHasJustConnected stops the server between a client's
// connection and its first request.
func TestStopAnswersWhoHasJustConnected(t *testing.T) {
	r := run(t, irisServer(t, func(o *Options) {
		o.Stop = Stopping{Quiet: time.Millisecond, Least: time.Millisecond, Most: time.Minute, Shutdown: 10 * time.Second}
	}))
	request := headOf(irisInfer, len(irisBody())) + irisBody()
	fresh, used := r.connect(t), r.connect(t)
	used.send(request)
	used.answered() // and so the other is accepted, too
	r.signals <- syscall.SIGTERM
	used.closed() // the server accepts nobody any more
	fresh.send(request)
	if got := fresh.answered(); got.code != http.StatusOK || !got.closes {
		t.Errorf("got %d %s, closing is %v", got.code, got.body, got.closes)
	}
	fresh.closed()
	if err := <-r.ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}
