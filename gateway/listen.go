package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// portOf is the context's key of the port that a connection came to.
type portOf struct{}

// servers are one for REST over HTTP/1 and one for gRPC over HTTP/2. Each
// listens on the ports of all services.
func (g *Gateway) servers() (rest, rpc *http.Server) {
	var http1, http2 http.Protocols
	http1.SetHTTP1(true)
	http2.SetUnencryptedHTTP2(true)
	ofREST := newProtocol(g, g.options.PodHTTP, &http1)
	ofREST.refuse, ofREST.prepare = refusal.writeREST, g.keepBody
	ofREST.sendsAway = func(*service) bool { return true }
	ofRPC := newProtocol(g, g.options.PodGRPC, &http2)
	// A stream is not kept: what its client may send before it is read is
	// bounded by flow control.
	ofRPC.refuse, ofRPC.sendsAway = refusal.writeRPC, (*service).settled
	ofRPC.prepare = func(http.ResponseWriter, *http.Request) (int64, error) { return 0, nil }

	rest = g.server(ofREST, &http1)
	rpc = g.server(ofRPC, &http2)
	rpc.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:      1000,
		MaxReceiveBufferPerStream: 64 << 10,
		// A client that is gone without a word is noticed.
		SendPingTimeout: 30 * time.Second,
	}
	return rest, rpc
}

func (g *Gateway) server(handler http.Handler, protocols *http.Protocols) *http.Server {
	return &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		// A connection that is kept goes on leading here when there are pods.
		IdleTimeout:    g.options.IdleTimeout,
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       slog.NewLogLogger(g.options.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, connection net.Conn) context.Context {
			return context.WithValue(ctx, portOf{}, int32(connection.LocalAddr().(*net.TCPAddr).Port))
		},
	}
}

// Sockets are the ports that the gateway listens on. Another process may have them
// in common with this one.
type Sockets interface {
	// Listen opens a port, or takes it over as it is.
	Listen(ctx context.Context, port int32) (net.Listener, error)
	// Close closes a port for the other process, too.
	Close(port int32)
	// Forget closes what was taken over and was not listened on by now.
	Forget()
	// Resign leaves all ports to the other process.
	Resign()
}

// listeners are the ports that are open.
type listeners struct {
	log     *slog.Logger
	sockets Sockets
	mutex   sync.Mutex
	byPort  map[int32]net.Listener
}

func newListeners(sockets Sockets, log *slog.Logger) *listeners {
	return &listeners{log: log, sockets: sockets, byPort: map[int32]net.Listener{}}
}

func (l *listeners) open(port int32, server *http.Server) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	listener, err := l.sockets.Listen(context.Background(), port)
	if err != nil {
		l.log.Error("can't listen", "port", port, "reason", err)
		return
	}
	l.byPort[port] = listener
	go func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			l.log.Error("stopped listening", "port", port, "reason", err)
		}
	}()
}

func (l *listeners) close(port int32) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if listener := l.byPort[port]; listener != nil {
		_ = listener.Close()
		delete(l.byPort, port)
		l.sockets.Close(port)
	}
}
