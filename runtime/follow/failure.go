package follow

import (
	"errors"
	"fmt"
	"syscall"

	"trainyard.dev/trainyard/runtime/dataset/remote"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// registryError is about the registry that models are pushed to, not about the
// source.
type registryError struct{ error }

func (e *registryError) Unwrap() error { return e.error }

// failureOf says for people why there is no model.
func failureOf(what spec.Follow, err error) *spec.Failure {
	reason := reasonOf(err)
	message := fmt.Sprintf("%s: %v", what.SourceName, err)
	switch reason {
	case spec.ReasonModelInvalid:
		message = fmt.Sprintf("what is at %s can't be served: %v", what.SourceName, err)
	case spec.ReasonContractBroken:
		message = fmt.Sprintf("the model at %s is not served: %v. If those who call the service know, set %s.newContract", what.SourceName, err, field)
	case spec.ReasonRegistryUnavailable, spec.ReasonPushRefused:
		message = fmt.Sprintf("what is at %s can't be published: %v", what.SourceName, err)
	}
	return &spec.Failure{Reason: reason, Message: message}
}

// reasonOf is the word for what went wrong.
//
//	what                                     reason
//	the file or the model itself             ModelInvalid, ContractBroken
//	no room for it                           DiskFull
//	the registry for models says no          PushRefused
//	the registry for models, otherwise       RegistryUnavailable
//	the source says no, or has nothing       SourceRefused
//	the source doesn't answer                SourceUnavailable
//	anything else                            InternalError
func reasonOf(err error) string {
	if unfit, ok := errors.AsType[*unfitError](err); ok {
		return unfit.reason
	}
	_, refused := errors.AsType[*store.RefusedError](err)
	if _, ours := errors.AsType[*registryError](err); ours {
		if refused {
			return spec.ReasonPushRefused
		}
		return spec.ReasonRegistryUnavailable
	}
	_, said := errors.AsType[*remote.RefusedError](err)
	_, missing := errors.AsType[*store.NotFoundError](err)
	_, locked := errors.AsType[*store.CredentialsError](err)
	_, silent := errors.AsType[*remote.UnavailableError](err)
	_, unreachable := errors.AsType[*store.UnreachableError](err)
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return spec.ReasonDiskFull
	case refused || said || missing || locked:
		return spec.ReasonSourceRefused
	case silent || unreachable:
		return spec.ReasonSourceUnavailable
	}
	return spec.ReasonInternal
}
