package modelservice

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"trainyard.dev/trainyard/controllers/scaling"
	"trainyard.dev/trainyard/runtime/spec"
)

// memory is what the controller remembers of its services from pass to pass:
// the scaler's state and the pods' last readings. A restart forgets it, and
// the scaler is made for that.
type memory struct {
	mutex    sync.Mutex
	services map[types.NamespacedName]*record
}

type record struct {
	state    scaling.State
	readings map[types.UID]spec.Stats
	sampled  time.Time
	// decision is the last one, which holds between samples.
	decision scaling.Decision
	// applied is what each object was last applied as.
	applied map[string]application
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

// sample sums up what the ready pods told, and remembers it.
func (r *record) sample(readings map[types.UID]spec.Stats, ready int32, now time.Time) scaling.Sample {
	total := 0.0
	for uid, reading := range readings {
		total += concurrency(r.readings[uid], reading)
	}
	r.readings = readings
	return scaling.Sample{At: now, Ready: ready, Answered: int32(len(readings)), Concurrency: total}
}
