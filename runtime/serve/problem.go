package serve

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// problem is an error that a client gets to read.
type problem struct {
	status  int // of HTTP
	message string
	// retryAfter tells when another try makes sense. Zero: it does not.
	retryAfter time.Duration
}

// statusClientGone is what nginx logs for a client that did not wait for its
// answer. Only metrics see it.
const statusClientGone = 499

func (p *problem) Error() string { return p.message }

// body is what REST answers.
func (p *problem) body() []byte {
	return append(quoted([]byte(`{"error":`), p.message), '}')
}

// retrySeconds is retryAfter as headers tell it.
func (p *problem) retrySeconds() int64 { return int64(p.retryAfter.Seconds() + 0.999) }

func invalid(format string, args ...any) error {
	return &problem{status: http.StatusBadRequest, message: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &problem{status: http.StatusNotFound, message: fmt.Sprintf(format, args...)}
}

func tooLarge(format string, args ...any) error {
	return &problem{status: http.StatusRequestEntityTooLarge, message: fmt.Sprintf(format, args...)}
}

func internal(format string, args ...any) error {
	return &problem{status: http.StatusInternalServerError, message: fmt.Sprintf(format, args...)}
}

func unavailable(retryAfter time.Duration, format string, args ...any) error {
	return &problem{
		status:     http.StatusServiceUnavailable,
		message:    fmt.Sprintf(format, args...),
		retryAfter: max(retryAfter, time.Second),
	}
}

// asProblem returns err as what a client gets to read.
func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	return &problem{status: http.StatusInternalServerError, message: err.Error()}
}

// few lists names for a message, and only counts what would make it too long.
func few(names []string) string {
	const most = 20
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// clipped shortens text that a client sent, for a message.
func clipped(text string) string {
	const most = 40
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}
