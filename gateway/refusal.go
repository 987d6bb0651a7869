package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// refusal is why a request is not answered.
type refusal struct {
	status int
	code   codes.Code
	// again is set when it makes sense to ask again soon.
	again   bool
	message string
}

// Error implements error.
func (r refusal) Error() string { return r.message }

// retryAfter is when to ask again.
const retryAfter = 2 * time.Second

var (
	errFull = refusal{http.StatusServiceUnavailable, codes.Unavailable, true, "the gateway holds as many requests as it may; ask again later"}
	// errHeld ends the wait of a request that has no deadline of its own.
	errHeld = errors.New("held as long as the gateway may")
)

// lateFor is why a request was held to its end: its own deadline, its client,
// or the gateway's patience.
func lateFor(ctx context.Context, message string) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errHeld):
		return refusal{http.StatusServiceUnavailable, codes.Unavailable, true, message}
	case errors.Is(cause, context.DeadlineExceeded):
		return refusal{http.StatusGatewayTimeout, codes.DeadlineExceeded, true, message}
	default:
		return refusal{statusClientLeft, codes.Canceled, false, "the client left"}
	}
}

// statusClientLeft is for the metrics; nobody is there to read it.
const statusClientLeft = 499

// asRefusal makes a refusal of what went wrong between the gateway and a pod.
func asRefusal(err error) refusal {
	if known := (refusal{}); errors.As(err, &known) {
		return known
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return refusal{http.StatusGatewayTimeout, codes.DeadlineExceeded, false, "the pod didn't answer before the request's deadline"}
	case errors.Is(err, context.Canceled):
		return refusal{statusClientLeft, codes.Canceled, false, "the client left"}
	}
	return refusal{http.StatusBadGateway, codes.Unavailable, false, fmt.Sprintf("the pod ended while it answered, so the request may or may not have been processed: %v", err)}
}

// writeREST tells a client of HTTP, in the words of the Open Inference Protocol.
func (r refusal) writeREST(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Connection", "close")
	if r.again {
		header.Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
	w.WriteHeader(r.status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": r.message})
}

// writeRPC tells a client of gRPC: all in the header, as there is no message.
func (r refusal) writeRPC(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Type", "application/grpc")
	header.Set("Grpc-Status", strconv.Itoa(int(r.code)))
	header.Set("Grpc-Message", strings.ReplaceAll(url.QueryEscape(r.message), "+", "%20"))
	w.WriteHeader(http.StatusOK)
}

// grpcTimeout reads the header of that name: up to eight digits and a unit.
// What is no such thing is no deadline.
func grpcTimeout(header string) (time.Duration, bool) {
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}
	if len(header) < 2 || len(header) > 9 {
		return 0, false
	}
	unit, known := units[header[len(header)-1]]
	count, err := strconv.ParseUint(header[:len(header)-1], 10, 32)
	if !known || err != nil {
		return 0, false
	}
	// Eight digits of hours are more than a Duration holds.
	return time.Duration(min(count, uint64(24*365*time.Hour/unit))) * unit, true
}
