package tokens

import (
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How often one source may ask: each time, the API server is asked as well. A pod
// asks a few times when it starts, and again every five minutes; as many pods as
// may start at once behind one address, of a node that hides those of its pods,
// are let through.
const (
	perSecond = 10
	burst     = 100
)

// toldEvery is how often one source's refusals are logged as more than a detail,
// and for how long a source is remembered that doesn't ask.
const toldEvery = time.Minute

// limits knows the sources of requests. The zero value knows none.
type limits struct {
	mutex   sync.Mutex
	sources map[string]*source
	swept   time.Time
}

// source is where requests come from.
type source struct {
	budget *rate.Limiter
	last   time.Time
	// refused counts the refusals since they were told last.
	refused int
	told    time.Time
}

// sourceOf is the address that a request comes from.
func sourceOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// of finds or makes a source, and forgets those that don't ask any more. The mutex
// is held.
func (l *limits) of(address string, now time.Time) *source {
	if now.Sub(l.swept) >= toldEvery {
		l.swept = now
		maps.DeleteFunc(l.sources, func(_ string, s *source) bool { return now.Sub(s.last) >= toldEvery })
	}
	if l.sources == nil {
		l.sources = map[string]*source{}
	}
	found := l.sources[address]
	if found == nil {
		found = &source{budget: rate.NewLimiter(perSecond, burst)}
		l.sources[address] = found
	}
	found.last = now
	return found
}

// allows tells whether a source may ask now.
func (l *limits) allows(address string, now time.Time) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.of(address, now).budget.AllowN(now, 1)
}

// refuses counts a refusal, and tells how many there were since they were told
// last; zero: it isn't time to tell again.
func (l *limits) refuses(address string, now time.Time) (count int) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	s := l.of(address, now)
	s.refused++
	if now.Sub(s.told) < toldEvery {
		return 0
	}
	count, s.refused, s.told = s.refused, 0, now
	return count
}
