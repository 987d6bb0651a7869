package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// UnreachableError says that a registry does not answer.
type UnreachableError struct {
	// Host is the registry's host[:port].
	Host string
	// Problem says why, and what to check.
	Problem string
	Err     error
}

// Error names the registry and says what to check.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("registry %s does not answer: %s", e.Host, e.Problem)
}

// Unwrap returns what the network said.
func (e *UnreachableError) Unwrap() error { return e.Err }

// RefusedError says that a registry answered, and did not do what it was asked.
type RefusedError struct {
	// Repository is host[:port]/path.
	Repository string
	// Status is the HTTP status.
	Status int
	// Words are the registry's own.
	Words string
}

// Error quotes the registry and says what to check.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("registry refused %s: %d %s: %s%s", e.Repository, e.Status, http.StatusText(e.Status), e.Words, e.advice())
}

func (e *RefusedError) advice() string {
	switch {
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return "; check who may use this repository"
	case e.Status == http.StatusRequestEntityTooLarge:
		return "; raise the largest body that the registry, or the proxy before it, accepts"
	case e.Status == http.StatusTooManyRequests || e.Status >= 500:
		return "; try later, and see the registry's log"
	}
	return ""
}

// NotFoundError says that a repository does not hold a digest.
type NotFoundError struct {
	Repository string
	// Digest of the model, or of one of its files.
	Digest string
}

// Error names digest and repository.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s is not in repository %s; it may have been deleted, or pushed to another repository", e.Digest, e.Repository)
}

// explain says in words what a call to the registry met.
func (c *client) explain(ctx context.Context, err error) error {
	var response *errcode.ErrorResponse
	var credentials *CredentialsError
	switch {
	case err == nil || isClear(err):
		return err
	case errors.As(err, &credentials):
		return credentials
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return &RefusedError{Repository: c.name, Status: http.StatusUnauthorized, Words: "it asks for a user and a password"}
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("talking to registry %s: %w", c.host(), context.Cause(ctx))
	case errors.As(err, &response):
		return &RefusedError{Repository: c.name, Status: response.StatusCode, Words: words(response)}
	case errors.Is(err, errdef.ErrNotFound):
		return &RefusedError{Repository: c.name, Status: http.StatusNotFound, Words: "there is nothing here; is this the address of an OCI registry?"}
	case errors.Is(err, content.ErrMismatchedDigest) || errors.Is(err, content.ErrTrailingData):
		return fmt.Errorf("registry %s sent other bytes than their digest says; the blob is damaged there or on the way: %w", c.host(), err)
	}
	if problem := networkProblem(err); problem != "" {
		if issuer := tokenIssuer(err); issuer != "" {
			problem = fmt.Sprintf("it wants a token from %s, and there: %s. If this is Trainyard's own registry, the manager issues its tokens", issuer, problem)
		}
		return &UnreachableError{Host: c.host(), Problem: problem, Err: err}
	}
	return fmt.Errorf("talking to registry %s: %w", c.host(), err)
}

// isClear tells what needs no explanation: failures of files, and ours.
func isClear(err error) bool {
	var file *fs.PathError
	var notFound *NotFoundError
	return errors.As(err, &file) || errors.As(err, &notFound)
}

// tokenIssuer is the host that was asked for a token when err occurred; "" if it
// was something else that was asked for.
func tokenIssuer(err error) string {
	var request *url.Error
	if !errors.As(err, &request) {
		return ""
	}
	// Only requests for tokens name the service that they are for.
	if asked, err := url.Parse(request.URL); err == nil && asked.Query().Has("service") {
		return asked.Host
	}
	return ""
}

// words are what the registry said, in one bounded line.
func words(response *errcode.ErrorResponse) string {
	if len(response.Errors) == 0 {
		return "it gave no reason"
	}
	const longest = 300
	said := strings.Join(strings.Fields(response.Errors.Error()), " ")
	if len(said) > longest {
		said = strings.ToValidUTF8(said[:longest], "") + "..."
	}
	return said
}

// networkProblem says what is wrong with the way to the registry; "" if err is
// not about that.
func networkProblem(err error) string {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var timeout net.Error
	var operation *net.OpError
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %q is not known; check the host in the repository's name, and DNS", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there (connection refused); check the port, and that the registry runs"
	case errors.Is(err, http.ErrSchemeMismatch) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it does not speak TLS; set plainHTTP if that is intended"
	case errors.As(err, &certificate):
		return fmt.Sprintf("its certificate is not trusted: %v", certificate.Err)
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time; check that it runs, and firewalls and network policies on the way"
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return "the connection broke; check that the registry is not restarting, and proxies on the way"
	case errors.As(err, &operation):
		return operation.Error()
	}
	return ""
}

// worthAnotherTry tells failures that pass from failures that stay.
func worthAnotherTry(err error) bool {
	var unreachable *UnreachableError
	var refused *RefusedError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate) || errors.Is(err, http.ErrSchemeMismatch):
		return false
	case errors.As(err, &unreachable):
		return true
	case errors.As(err, &refused):
		return refused.Status >= 500 || refused.Status == http.StatusTooManyRequests || refused.Status == http.StatusRequestTimeout ||
			refused.Status == http.StatusRequestedRangeNotSatisfiable // a broken request may still have been at work
	}
	return errors.Is(err, content.ErrMismatchedDigest) || errors.Is(err, content.ErrTrailingData)
}
