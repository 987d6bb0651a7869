package serve

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"trainyard.dev/trainyard/runtime/store"
)

// Delays between attempts to load a model.
const (
	firstDelay = 500 * time.Millisecond
	mostDelay  = 30 * time.Second
	// slowDelay is for what does not pass by waiting, unless somebody mends
	// the registry.
	slowDelay = 5 * time.Minute
)

// retryDelay is how long to wait after the given number of failures, the last
// of them err: half a second, doubled each time, up to 30 s. What waiting does
// not mend is tried every 5 minutes only. Jitter, in [0,1), takes away up to a
// fifth, so that pods that failed together do not come back together.
func retryDelay(failures int, err error, jitter float64) time.Duration {
	delay := slowDelay
	if !lasting(err) {
		delay = min(firstDelay<<min(failures-1, 10), mostDelay)
	}
	return delay - time.Duration(jitter*float64(delay)/5)
}

// unfit marks a model that was pulled whole and cannot be served.
type unfit struct{ error }

func (u unfit) Unwrap() error { return u.error }

// lasting tells whether the same attempt would fail again.
func lasting(err error) bool {
	_, bad := errors.AsType[unfit](err)
	_, gone := errors.AsType[*store.NotFoundError](err)
	return bad || gone
}

// loadProblem is what whoever asked for a load reads when it failed.
func loadProblem(name string, err error) error {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	status := http.StatusServiceUnavailable
	if _, bad := errors.AsType[unfit](err); bad {
		status = http.StatusUnprocessableEntity
	} else if _, gone := errors.AsType[*store.NotFoundError](err); gone {
		status = http.StatusNotFound
	}
	return &problem{status: status, message: fmt.Sprintf("model %s is not loaded: %v", clipped(name), err)}
}

func jitter() float64 { return rand.Float64() }
