package train

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"oras.land/oras-go/v2/errdef"

	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// Error is why a run left no model.
type Error struct {
	// Failure is for the job's status. Its message is the error's text.
	Failure spec.Failure
	// ExitCode is what the process should exit with: [spec.ExitInvalid],
	// [spec.ExitInterrupted], or 1 for what another try may mend.
	ExitCode int

	cause error
}

// Error returns the failure's message.
func (e *Error) Error() string { return e.Failure.Message }

// Unwrap returns what caused the failure.
func (e *Error) Unwrap() error { return e.cause }

// invalidf returns the error of an input that will fail again.
func invalidf(reason, format string, args ...any) *Error {
	return failuref(reason, spec.ExitInvalid, format, args...)
}

func failuref(reason string, code int, format string, args ...any) *Error {
	cause := fmt.Errorf(format, args...)
	return &Error{
		Failure:  spec.Failure{Reason: reason, Message: cause.Error()},
		ExitCode: code,
		cause:    cause,
	}
}

// classify returns err as an [*Error]. Whatever fails after ctx is done failed
// because of that.
func classify(ctx context.Context, err error) *Error {
	known := (*Error)(nil)
	switch {
	case ctx.Err() != nil:
		return failuref(spec.ReasonInterrupted, spec.ExitInterrupted, "stopped before the model was published: %w", context.Cause(ctx))
	case errors.As(err, &known) && !errors.Is(err, syscall.ENOSPC):
		return known
	case known != nil:
		return failuref(spec.ReasonDiskFull, 1, "%w", known)
	case errors.Is(err, syscall.ENOSPC):
		return failuref(spec.ReasonDiskFull, 1, "%w: make room on the node or the volume, or request ephemeral-storage in spec.resources, so that the pod comes to a node that has it", err)
	}
	return failuref(spec.ReasonInternal, 1, "%w", err)
}

// registryFailure tells a registry that refuses from one that does not answer.
func registryFailure(err error) error {
	unreachable, refused := (*store.UnreachableError)(nil), (*store.RefusedError)(nil)
	switch {
	case errors.As(err, &unreachable) || errors.As(err, &refused) && passes(err):
		return failuref(spec.ReasonRegistryUnavailable, 1, "%w", err)
	case errors.As(err, &refused) || errors.Is(err, errdef.ErrInvalidReference):
		return failuref(spec.ReasonPushRefused, 1, "%w", err)
	}
	return err
}

// passes tells whether a failure of the registry may have passed by itself a
// minute later.
func passes(err error) bool {
	if refused := (*store.RefusedError)(nil); errors.As(err, &refused) {
		return refused.Status >= 500 || refused.Status == http.StatusTooManyRequests || refused.Status == http.StatusRequestTimeout
	}
	unreachable, certificate := (*store.UnreachableError)(nil), (*tls.CertificateVerificationError)(nil)
	return errors.As(err, &unreachable) && !errors.As(err, &certificate)
}

// Failed returns the result and the error of a run that could not even start.
func Failed(reason string, exitCode int, err error) (spec.Result, error) {
	failure := failuref(reason, exitCode, "%w", err)
	return spec.Result{Failure: &failure.Failure}, failure
}
