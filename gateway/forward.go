package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	"trainyard.dev/trainyard/controllers/routing"
)

// dialTimeout bounds how long a connection to a pod may take. It is within the
// cluster: what takes longer will not come.
const dialTimeout = time.Second

// serviceKey is the context's key of the service that a request is for.
type serviceKey struct{}

func serviceOf(r *http.Request) *service { return r.Context().Value(serviceKey{}).(*service) }

// protocol is one of the two that pods answer.
type protocol struct {
	gateway *Gateway
	// port is that of pods.
	port   int
	proxy  *httputil.ReverseProxy
	refuse func(refusal, http.ResponseWriter)
	// prepare makes a request ready to be held, and tells how many bytes of it
	// are in memory.
	prepare func(http.ResponseWriter, *http.Request) (int64, error)
	// sendsAway tells whether the client is to make another connection for its
	// next request.
	sendsAway func(*service) bool
}

func newProtocol(g *Gateway, port int, protocols *http.Protocols) *protocol {
	p := &protocol{gateway: g, port: port}
	transport := &http.Transport{
		DialContext:        (&net.Dialer{Timeout: dialTimeout}).DialContext,
		Protocols:          protocols,
		DisableCompression: true,
	}
	p.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetXForwarded()
			r.Out.URL.Scheme = "http"
			// The pod is chosen when there is one.
			r.Out.URL.Host = r.In.Host
		},
		Transport: &holding{p, transport},
		ErrorLog:  slog.NewLogLogger(g.options.Log.Handler(), slog.LevelDebug),
		ModifyResponse: func(response *http.Response) error {
			if p.sendsAway(serviceOf(response.Request)) {
				// HTTP/2 makes a GOAWAY of it.
				response.Header.Set("Connection", "close")
			}
			response.Header.Add("Via", "1.1 "+routing.Via)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { p.end(w, r, asRefusal(err)) },
	}
	return p
}

// end refuses a request.
func (p *protocol) end(w http.ResponseWriter, r *http.Request, why refusal) {
	p.gateway.metrics.refused.WithLabelValues(strconv.Itoa(why.status)).Inc()
	p.gateway.options.Log.Debug("refused", "path", r.URL.Path, "status", why.status, "reason", why.message)
	p.refuse(why, w)
}

// ServeHTTP takes a request in, holds it and forwards it.
func (p *protocol) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := p.gateway
	g.lastRequest.Store(time.Now().UnixNano())
	port, _ := r.Context().Value(portOf{}).(int32)
	s := g.at(port)
	if s == nil {
		p.end(w, r, refusal{http.StatusServiceUnavailable, codes.Unavailable, true, "no ModelService has this port any more; ask again"})
		return
	}
	s.begin()
	if !g.budget.admit() {
		p.end(w, r, errFull)
		return
	}
	bytes, err := p.prepare(w, r)
	defer func() { g.budget.leave(bytes) }()
	if err != nil {
		p.end(w, r, asRefusal(err))
		return
	}
	ctx := context.WithValue(r.Context(), serviceKey{}, s)
	if timeout, ok := grpcTimeout(r.Header.Get("Grpc-Timeout")); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	p.proxy.ServeHTTP(w, r.WithContext(ctx))
}

// keepBody reads the whole body: only then does the server notice when the
// client leaves.
func (g *Gateway) keepBody(w http.ResponseWriter, r *http.Request) (int64, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(g.options.ReadTimeout))
	body := &charged{from: http.MaxBytesReader(w, r.Body, g.options.BodyBytes), budget: &g.budget}
	content, err := io.ReadAll(body)
	_ = control.SetReadDeadline(time.Time{})
	tooLarge := (*http.MaxBytesError)(nil)
	switch {
	case errors.As(err, &tooLarge):
		return body.bytes, refusal{http.StatusRequestEntityTooLarge, codes.ResourceExhausted, false,
			"the body has more than " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes, which is the most that a request may have"}
	case errors.As(err, new(refusal)):
		return body.bytes, err
	case err != nil:
		return body.bytes, refusal{http.StatusBadRequest, codes.InvalidArgument, false, "the body can't be read: " + err.Error()}
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(content)), int64(len(content)), nil
	return body.bytes, nil
}

// holding waits for a pod, then sends the request there.
type holding struct {
	*protocol
	to *http.Transport
}

// RoundTrip implements [http.RoundTripper]. No connection is used for a second
// request: a pod that ends may close one just when a request is written, and
// nobody could tell whether it was processed. What could not be sent for want of
// a connection was not, and is held on.
func (h *holding) RoundTrip(request *http.Request) (*http.Response, error) {
	s := serviceOf(request)
	began := time.Now()
	waits, cancel := context.WithTimeoutCause(request.Context(), h.gateway.options.Hold, errHeld)
	defer cancel()
	for {
		address, err := s.await(waits)
		if err != nil {
			return nil, err
		}
		if err := s.enter(waits); err != nil {
			return nil, err
		}
		connection, err := h.to.NewClientConn(waits, "http", net.JoinHostPort(address, strconv.Itoa(h.port)))
		if err == nil {
			h.gateway.metrics.hold.Observe(time.Since(began).Seconds())
			defer s.leave()
			return send(request, connection)
		}
		s.leave()
		s.failed(address)
	}
}

// send sends the request over a connection, which is closed with the answer.
func send(request *http.Request, connection *http.ClientConn) (*http.Response, error) {
	response, err := connection.RoundTrip(request)
	if err != nil {
		_ = connection.Close()
		return nil, err
	}
	response.Body = lastBody{response.Body, connection}
	return response, nil
}

// lastBody is the body of the one answer of a connection.
type lastBody struct {
	io.ReadCloser
	connection *http.ClientConn
}

// Close implements [io.Closer].
func (b lastBody) Close() error {
	return errors.Join(b.ReadCloser.Close(), b.connection.Close())
}
