package serve

import (
	"context"
	"net"
	"net/http"
	"time"
)

// endKey is the context's key of when a connection is to be closed.
type endKey struct{}

// withEndOfLife tells requests when their connection is to be closed.
func (s *Server) withEndOfLife(ctx context.Context, from net.Conn) context.Context {
	end := time.Now()
	if c, ok := from.(*connection); ok {
		end = c.end
	} else {
		end = s.endOfLife(end)
	}
	return context.WithValue(ctx, endKey{}, end)
}

// endOfLife returns when a new connection is to be closed, jittered so that
// clients that came together do not come back together.
func (s *Server) endOfLife(now time.Time) time.Time {
	return now.Add(jittered(s.options.ConnectionAge, jitter()))
}

// jittered returns age, give or take a fifth. By is in [0,1).
func jittered(age time.Duration, by float64) time.Duration {
	return time.Duration(float64(age) * (0.8 + 0.4*by))
}

// closingConnections asks the client to open a new connection when this one is
// old, or when the server is stopping.
func (s *Server) closingConnections(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		end, limited := r.Context().Value(endKey{}).(time.Time)
		h.ServeHTTP(&closingWriter{w, func() bool {
			return s.stopping.Load() || limited && time.Now().After(end)
		}}, r)
	})
}

// closingWriter decides when the answer begins, not when the request did: the
// server may have been asked to stop in between.
type closingWriter struct {
	http.ResponseWriter
	closes func() bool
}

// WriteHeader implements [http.ResponseWriter].
func (w *closingWriter) WriteHeader(code int) {
	if w.closes() {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap is for [http.ResponseController].
func (w *closingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
