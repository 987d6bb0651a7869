package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"trainyard.dev/trainyard/controllers/routing"
)

// service is one ModelService, as the gateway sees it.
type service struct {
	key     Key
	gateway *Gateway
	held    prometheus.Gauge
	// slots bound what is sent to its pods at once.
	slots chan struct{}

	mutex sync.Mutex
	view  View
	gone  bool
	// readySince is when the first of the pods was ready that are, zero if none is.
	readySince time.Time
	// answered are pods that answered a probe, although Kubernetes may not call
	// them ready yet; suspect are those that refused a connection since.
	answered, suspect map[string]bool
	// changed is closed, and made anew, when any of the above changes.
	changed chan struct{}
	rousing bool
	// trouble is why the last attempt to wake it failed.
	trouble   error
	turn      int
	requests  int64
	waiting   int
	sent      int
	coldStart *routing.ColdStart
}

func newService(key Key, g *Gateway) *service {
	held := g.metrics.held.WithLabelValues(key.Namespace, key.Name)
	return &service{key: key, gateway: g, held: held, slots: make(chan struct{}, g.options.Connections), answered: map[string]bool{}, suspect: map[string]bool{}, changed: make(chan struct{})}
}

func (s *service) ports() routing.Ports {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.view.Ports
}

func (s *service) set(view View) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.view = view
	switch ready := slices.ContainsFunc(view.Pods, func(pod Pod) bool { return pod.Ready }); {
	case !ready:
		s.readySince = time.Time{}
	case s.readySince.IsZero():
		s.readySince = time.Now()
	}
	isGone := func(address string, _ bool) bool {
		return !slices.ContainsFunc(view.Pods, func(pod Pod) bool { return pod.Address == address })
	}
	deleteFunc(s.answered, isGone)
	deleteFunc(s.suspect, isGone)
	s.tell()
}

// settled tells whether new connections go to pods by now.
func (s *service) settled() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return !s.readySince.IsZero() && time.Since(s.readySince) >= s.gateway.options.Settle
}

func deleteFunc(set map[string]bool, unwanted func(string, bool) bool) {
	for key, value := range set {
		if unwanted(key, value) {
			delete(set, key)
		}
	}
}

func (s *service) remove() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.gone = true
	s.tell()
}

// tell has everyone who waits look again.
func (s *service) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await holds a request until a pod answers, and returns its address. It
// refuses when ctx ends, or when nothing will wake the service.
func (s *service) await(ctx context.Context) (string, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.waiting++
	s.held.Inc()
	defer func() {
		s.waiting--
		s.held.Dec()
	}()
	for {
		if err := s.refuses(); err != nil {
			return "", err
		}
		if address, ok := s.pick(); ok {
			return address, nil
		}
		s.rouse()
		changed := s.changed
		s.mutex.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		s.mutex.Lock()
		if ctx.Err() != nil {
			return "", s.late(ctx)
		}
	}
}

// refuses tells why there is no use in waiting.
func (s *service) refuses() error {
	switch {
	case s.gone:
		return refusal{http.StatusServiceUnavailable, codes.Unavailable, false, fmt.Sprintf("ModelService %s was deleted", s.key)}
	case s.view.Stopped:
		return refusal{http.StatusServiceUnavailable, codes.Unavailable, false, fmt.Sprintf("ModelService %s is stopped; set its spec.stopped to false to start it", s.key)}
	}
	return nil
}

// pick takes the pods that answer in turn.
func (s *service) pick() (string, bool) {
	count := len(s.view.Pods)
	for i := range count {
		pod := s.view.Pods[(s.turn+i)%count]
		if s.answers(pod) {
			s.turn = (s.turn + i + 1) % count
			return pod.Address, true
		}
	}
	return "", false
}

func (s *service) answers(pod Pod) bool {
	return s.answered[pod.Address] || (pod.Ready && !s.suspect[pod.Address])
}

// late is why a request was held to its end.
func (s *service) late(ctx context.Context) error {
	why := "no pod is ready yet"
	switch {
	case s.trouble != nil:
		why = "it can't be woken: " + s.trouble.Error()
	case len(s.view.Pods) > 0:
		why = "its pods have started and don't answer yet"
	}
	return lateFor(ctx, fmt.Sprintf("ModelService %s: %s; `kubectl describe modelservice %s --namespace %s` says more", s.key, why, s.key.Name, s.key.Namespace))
}

// failed is told of a pod to which no connection could be made.
func (s *service) failed(address string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.answered, address)
	s.suspect[address] = true
}

// begin counts a request.
func (s *service) begin() { s.count(func() { s.requests++ }) }

// enter waits until a request may be sent: a pod that just started is not to be
// met by thousands at once. It is followed by leave when the answer begins.
func (s *service) enter(ctx context.Context) error {
	s.count(func() { s.sent++ })
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		s.count(func() { s.sent-- })
		return lateFor(ctx, fmt.Sprintf("ModelService %s: its pods are busy with other requests", s.key))
	}
}

func (s *service) leave() {
	<-s.slots
	s.count(func() { s.sent-- })
}

func (s *service) count(change func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	change()
}

// load is what the operator is told. Requests that were sent to a pod are
// counted there, but for those that wait for a connection.
func (s *service) load() routing.Load {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	queued := max(0, s.sent-s.gateway.options.Connections)
	return routing.Load{
		Namespace: s.key.Namespace, Name: s.key.Name,
		Requests: s.requests, Held: int64(s.waiting + queued), ColdStart: s.coldStart,
	}
}

// rouse wakes the service and asks its pods until one answers. It is done once,
// however many wait. The mutex is held.
func (s *service) rouse() {
	if s.rousing {
		return
	}
	s.rousing = true
	go s.keepRousing(time.Now())
}

// tellAgain is how often the log says that requests wait for long.
const tellAgain = 5 * time.Second

func (s *service) keepRousing(began time.Time) {
	tick := time.NewTicker(s.gateway.options.ProbePeriod)
	defer tick.Stop()
	cold, woken, told := false, time.Time{}, began
	for {
		addresses, over := s.sleeping(began, cold)
		if over {
			return
		}
		if time.Since(told) >= tellAgain {
			told = time.Now()
			s.gateway.options.Log.Warn("requests wait, and no pod answers", "service", s.key.String(), "seconds", time.Since(began).Seconds(), "pods", addresses)
		}
		if len(addresses) == 0 && time.Since(woken) >= s.gateway.options.WakeAgain {
			cold, woken = true, time.Now()
			s.wakeUp()
		}
		s.probe(addresses)
		<-tick.C
	}
}

// sleeping are the pods that don't answer yet. It is over when one does, or
// when nobody waits.
func (s *service) sleeping(began time.Time, cold bool) (addresses []string, over bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answering := slices.ContainsFunc(s.view.Pods, s.answers)
	if answering && cold {
		took := time.Since(began).Seconds()
		s.coldStart = &routing.ColdStart{At: time.Now().UnixNano(), Seconds: took}
		s.gateway.metrics.coldStart.Observe(took)
		s.gateway.options.Log.Info("woken", "service", s.key.String(), "seconds", took)
	}
	if answering || s.waiting == 0 || s.refuses() != nil {
		s.rousing = false
		return nil, true
	}
	for _, pod := range s.view.Pods {
		addresses = append(addresses, pod.Address)
	}
	return addresses, false
}

// wakeTimeout bounds one attempt to wake a service.
const wakeTimeout = 5 * time.Second

func (s *service) wakeUp() {
	ctx, cancel := context.WithTimeout(context.Background(), wakeTimeout)
	defer cancel()
	err := s.gateway.wake(ctx, s.key)
	if err != nil {
		s.gateway.options.Log.Warn("can't wake a service", "service", s.key.String(), "reason", err)
	}
	s.count(func() { s.trouble = err })
}
