package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
)

// RefusedError says that the same request will fail again.
type RefusedError struct {
	// Problem says what is wrong and what to do about it.
	Problem string
}

// Error returns the problem.
func (e *RefusedError) Error() string { return e.Problem }

// UnavailableError says that the source could not be read now.
type UnavailableError struct {
	// Problem says what is wrong and what to do if it stays so.
	Problem string
	// Err is what was met, for programs.
	Err error
}

// Error returns the problem.
func (e *UnavailableError) Error() string { return e.Problem }

// Unwrap returns what was met.
func (e *UnavailableError) Unwrap() error { return e.Err }

func refusedf(format string, args ...any) *RefusedError {
	return &RefusedError{Problem: fmt.Sprintf(format, args...)}
}

// explain says in words what a connection met.
func explain(ctx context.Context, err error) error {
	var refused *RefusedError
	var unavailable *UnavailableError
	if errors.As(err, &refused) || errors.As(err, &unavailable) {
		return err
	}
	if errors.Is(context.Cause(ctx), errStalled) {
		err = errStalled
	}
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return refusedf("the server's certificate is not trusted: %v", certificate.Err)
	case errors.Is(err, http.ErrSchemeMismatch) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return refusedf("the server doesn't speak TLS at this port; check the port, or, for s3, set plainHTTP if that is intended")
	case errors.Is(err, errPlainRedirect):
		return refusedf("%v; use the URL of the file itself", errPlainRedirect)
	}
	return &UnavailableError{Problem: networkProblem(err), Err: err}
}

func networkProblem(err error) string {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %q is not known (%s); check it, and DNS", dns.Name, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there (connection refused); check host and port, and that the server runs"
	case errors.Is(err, errStalled) || errors.As(err, &timeout) && timeout.Timeout():
		return "the server is silent; check that it is well, and firewalls and network policies on the way"
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return "the connection broke again and again; check that the server is well, and proxies on the way"
	}
	return shorten(withoutURL(err).Error())
}

// full explains a file that can't be written.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &UnavailableError{Problem: "the file doesn't fit on the pod's disk; give the node more ephemeral storage, or make the file smaller", Err: err}
	}
	return fmt.Errorf("storing the file: %w", err)
}

// withoutURL takes the URL out of an error of net/http: it may hold a signature.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// shorten makes one bounded line of what a server said.
func shorten(text string) string {
	const longest = 200
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > longest {
		text = text[:longest] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}
