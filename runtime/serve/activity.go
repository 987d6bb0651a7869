package serve

import (
	"sync"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
)

// activity counts requests. Its integral of the number in flight is exact: it
// grows at each change, by what was in flight since the last.
type activity struct {
	now func() time.Time

	mu       sync.Mutex
	started  time.Time
	changed  time.Time
	requests int64
	inFlight int64
	busy     float64 // seconds, up to changed
}

func newActivity(now func() time.Time) *activity {
	t := now()
	return &activity{now: now, started: t, changed: t}
}

func (a *activity) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance()
	a.inFlight++
}

func (a *activity) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance()
	a.inFlight--
	a.requests++
}

// callOff ends what will begin again, and counts no request.
func (a *activity) callOff() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance()
	a.inFlight--
}

// advance brings the integral up to now. It is called before inFlight changes.
func (a *activity) advance() {
	t := a.now()
	a.busy += float64(a.inFlight) * t.Sub(a.changed).Seconds()
	a.changed = t
}

// stats reads all counts at one moment. It is not a change.
func (a *activity) stats() spec.Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.now()
	return spec.Stats{
		Started:       a.started.UnixNano(),
		Requests:      a.requests,
		InFlight:      a.inFlight,
		BusySeconds:   a.busy + float64(a.inFlight)*t.Sub(a.changed).Seconds(),
		UptimeSeconds: t.Sub(a.started).Seconds(),
	}
}

// last returns the number in flight, and when a request last began or ended.
func (a *activity) last() (inFlight int64, changed time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inFlight, a.changed
}
