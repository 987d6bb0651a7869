package serve

import (
	"sync"
	"testing"
	"time"
)

// clock is a time that tests move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time       { return c.at }
func (c *clock) pass(seconds float64) { c.at = c.at.Add(time.Duration(seconds * 1e9)) }

func TestActivityIntegratesExactly(t *testing.T) {
	c := &clock{at: time.Unix(1000, 0)}
	a := newActivity(c.now)
	c.pass(1)
	a.begin() // 1 in flight for 2 s
	c.pass(2)
	a.begin() // 2 in flight for 0.5 s
	c.pass(0.5)
	a.end() // 1 in flight for 4 s
	c.pass(4)
	got := a.stats()
	if got.Started != 1000e9 || got.Requests != 1 || got.InFlight != 1 || got.BusySeconds != 2+1+4 || got.UptimeSeconds != 7.5 {
		t.Errorf("got %+v", got)
	}
	a.end()
	c.pass(100)
	if got := a.stats(); got.BusySeconds != 7 || got.InFlight != 0 || got.Requests != 2 {
		t.Errorf("got %+v", got)
	}
	if n, changed := a.last(); n != 0 || !changed.Equal(time.Unix(1007, 5e8)) {
		t.Errorf("last change of %d at %v", n, changed)
	}
}

func TestActivityCountsConcurrentRequests(t *testing.T) {
	a := newActivity(time.Now)
	var requests sync.WaitGroup
	for range 50 {
		requests.Go(func() {
			for range 100 {
				a.begin()
				a.stats()
				a.end()
			}
		})
	}
	requests.Wait()
	if got := a.stats(); got.Requests != 5000 || got.InFlight != 0 || got.BusySeconds < 0 {
		t.Errorf("got %+v", got)
	}
}
