// Package gateway holds requests while their service has no pods, wakes it, and
// forwards them as soon as a pod answers.
//
// Kubernetes sends requests here only while no pod of a service is ready (see
// package routing). A request is held until a pod answers, its own deadline
// passes or its client leaves, and is forwarded once: it is sent again only if
// the connection could not be made, when it has certainly not been processed.
// Answers over HTTP/1 ask the client to close the connection, so that its next one
// finds a pod. gRPC's connections are closed as soon as pods can be reached without
// the gateway: many calls are under way on each, and some may be at the moment of a
// GOAWAY. Clients send those again over another connection, once.
//
// The package knows nothing of Kubernetes; package gateway/cluster tells it
// what there is, and wakes services for it.
package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"trainyard.dev/trainyard/controllers/routing"
)

// Key names a ModelService.
type Key struct{ Namespace, Name string }

// String is namespace/name.
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// View is what is known of a service.
type View struct {
	// Ports are where the gateway listens for it.
	Ports routing.Ports
	// Stopped is set when its owner parked it: nothing wakes it then.
	Stopped bool
	// Pods that have an address and are not being stopped.
	Pods []Pod
}

// Pod is where a service may answer.
type Pod struct {
	Address string
	// Ready is set when Kubernetes knows that it answers.
	Ready bool
}

// Wake gives a service that has no pods one. It does nothing to a service that
// has some.
type Wake func(ctx context.Context, service Key) error

// Options say how a gateway works. The zero value is no default: start from
// [Defaults].
type Options struct {
	Log     *slog.Logger
	Sockets Sockets
	// Requests and Bytes bound what the gateway has in hand at once.
	Requests int
	Bytes    int64
	// BodyBytes is the most that the body of a request over HTTP/1 may have. A
	// gRPC message is not kept here, and its limit is the server's.
	BodyBytes int64
	// Hold is the longest that a request waits for a pod.
	Hold time.Duration
	// ReadTimeout bounds how long a client may take to send a request.
	ReadTimeout time.Duration
	// IdleTimeout is for how long a connection without a request stays open.
	IdleTimeout time.Duration
	// Settle is for how long a pod has to be ready until the gateway counts on it
	// that new connections find it: by then kube-proxies know.
	Settle time.Duration
	// ProbePeriod is how often a pod is asked that starts.
	ProbePeriod time.Duration
	// WakeAgain is how often a service is woken that still has no pod.
	WakeAgain time.Duration
	// Connections is how many requests a service's pods are sent at once.
	Connections int
	// PodHTTP and PodGRPC are the ports of pods.
	PodHTTP, PodGRPC int
	// Stop says how the gateway ends.
	Stop Stopping
}

// Gateway holds, wakes and forwards.
type Gateway struct {
	options Options
	wake    Wake
	metrics *metrics
	budget  budget
	started time.Time

	rest, rpc *http.Server
	listeners *listeners

	mutex    sync.Mutex
	services map[Key]*service
	ports    map[int32]*service

	synced, stopping atomic.Bool
	lastRequest      atomic.Int64
}

// New makes a gateway that knows no service yet.
func New(options Options, wake Wake) *Gateway {
	g := &Gateway{
		options: options, wake: wake, metrics: newMetrics(), started: time.Now(),
		budget:   budget{maxRequests: options.Requests, maxBytes: options.Bytes},
		services: map[Key]*service{}, ports: map[int32]*service{},
	}
	g.rest, g.rpc = g.servers()
	g.listeners = newListeners(options.Sockets, options.Log)
	return g
}

// Synced tells the gateway that it was told of every service there is. Before,
// it is not ready.
func (g *Gateway) Synced() {
	g.options.Sockets.Forget()
	g.synced.Store(true)
}

// Set tells the gateway of a service, or of a change to it.
func (g *Gateway) Set(key Key, view View) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	s := g.services[key]
	if s == nil {
		s = newService(key, g)
		g.services[key] = s
	}
	before := s.ports()
	s.set(view)
	if before != view.Ports {
		g.release(s, before)
		g.claim(s, view.Ports)
	}
}

// Remove tells the gateway that a service is gone. What it holds for it is
// refused.
func (g *Gateway) Remove(key Key) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	s := g.services[key]
	if s == nil {
		return
	}
	delete(g.services, key)
	g.release(s, s.ports())
	s.remove()
	g.metrics.forget(key)
}

// claim listens on a service's ports. Ports that another service has are left
// to it, until it gives them back: the operator gives one of the two others.
func (g *Gateway) claim(s *service, ports routing.Ports) {
	for port, server := range map[int32]*http.Server{ports.HTTP: g.rest, ports.GRPC: g.rpc} {
		if port == 0 {
			continue
		}
		if other := g.ports[port]; other != nil {
			g.options.Log.Warn("two services have one port", "port", port, "service", other.key.String(), "other", s.key.String())
			continue
		}
		g.ports[port] = s
		g.listeners.open(port, server)
	}
}

// release gives a service's ports back, and to whoever waits for them.
func (g *Gateway) release(s *service, ports routing.Ports) {
	for _, port := range []int32{ports.HTTP, ports.GRPC} {
		if g.ports[port] != s {
			continue
		}
		delete(g.ports, port)
		g.listeners.close(port)
		for _, other := range g.services {
			if p := other.ports(); other != s && (p.HTTP == port || p.GRPC == port) {
				g.claim(other, p)
				break
			}
		}
	}
}

// at is the service that has a port, nil if none has.
func (g *Gateway) at(port int32) *service {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.ports[port]
}

// Report is what the operator is told.
func (g *Gateway) Report() routing.Report {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	report := routing.Report{Started: g.started.UnixNano(), Services: make([]routing.Load, 0, len(g.services))}
	for _, s := range g.services {
		report.Services = append(report.Services, s.load())
	}
	return report
}
