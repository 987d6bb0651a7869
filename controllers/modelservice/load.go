package modelservice

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"trainyard.dev/trainyard/controllers/scaling"
	"trainyard.dev/trainyard/runtime/spec"
)

// memory is what the controller remembers of its services from pass to pass:
// the scaler's state and what pods and gateways told last. A restart forgets it,
// and the scaler is made for that.
type memory struct {
	mutex    sync.Mutex
	services map[types.NamespacedName]*record
}

type record struct {
	state    scaling.State
	readings map[types.UID]spec.Stats
	gateways map[types.UID]reading
	sampled  time.Time
	// decision is the last one, which holds between samples.
	decision scaling.Decision
	// written is the generation that the Deployment had after it was applied
	// last, with decision's count; zero before.
	written int64
	// applied is what each object was last applied as, several at the same time.
	applying sync.Mutex
	applied  map[string]application
}

func (r *record) appliedAs(object string) application {
	r.applying.Lock()
	defer r.applying.Unlock()
	return r.applied[object]
}

func (r *record) setApplied(object string, as application) {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.applied[object] = as
}

// of finds or makes the record of a service. Only one pass works on a service
// at a time, so the record itself needs no lock.
func (m *memory) of(service types.NamespacedName) *record {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.services == nil {
		m.services = map[types.NamespacedName]*record{}
	}
	if m.services[service] == nil {
		m.services[service] = &record{readings: map[types.UID]spec.Stats{}, applied: map[string]application{}}
	}
	return m.services[service]
}

func (m *memory) forget(service types.NamespacedName) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.services, service)
}

// concurrency is the average number of requests in flight between two readings
// of one pod. Without an earlier reading of the same process it is what is in
// flight now.
func concurrency(before, now spec.Stats) float64 {
	elapsed := now.UptimeSeconds - before.UptimeSeconds
	if before.Started != now.Started || elapsed <= 0 {
		return float64(now.InFlight)
	}
	return max(0, (now.BusySeconds-before.BusySeconds)/elapsed)
}

// rate is how many requests one pod answered in a second between two readings.
func rate(before, now spec.Stats) float64 {
	elapsed := now.UptimeSeconds - before.UptimeSeconds
	if before.Started != now.Started || elapsed <= 0 {
		return float64(now.InFlight)
	}
	return max(0, float64(now.Requests-before.Requests)/elapsed)
}

// wasAsked tells whether a pod was asked for anything between two readings.
func wasAsked(before, now spec.Stats) bool {
	return now.InFlight > 0 || now.Requests > requestsUntil(before.Started == now.Started, before.Requests)
}

// requestsUntil is the count that the one before stood at; that of another
// process says nothing.
func requestsUntil(same bool, count int64) int64 {
	if same {
		return count
	}
	return 0
}

// told is what pods and gateways said in one pass.
type told struct {
	pods          map[types.UID]spec.Stats
	ready         int32
	gateways      map[types.UID]reading
	readyGateways int32
}

// sample sums up what was told since the last time, and remembers it.
func (r *record) sample(now time.Time, measure func(before, now spec.Stats) float64, t told) scaling.Sample {
	sample := scaling.Sample{
		At:       now,
		Pods:     scaling.Answers{Ready: t.ready, Answered: int32(len(t.pods))},
		Gateways: scaling.Answers{Ready: t.readyGateways, Answered: int32(len(t.gateways))},
	}
	for uid, stats := range t.pods {
		before := r.readings[uid]
		sample.Load += measure(before, stats)
		sample.Active = sample.Active || wasAsked(before, stats)
	}
	for uid, is := range t.gateways {
		was := r.gateways[uid]
		sample.Held += float64(is.load.Held)
		sample.Active = sample.Active || is.load.Held > 0 || is.load.Requests > requestsUntil(was.started == is.started, was.load.Requests)
	}
	r.readings, r.gateways, r.sampled = t.pods, t.gateways, now
	return sample
}
