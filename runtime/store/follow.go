package store

import (
	"context"
	"fmt"
	"os"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"trainyard.dev/trainyard/runtime/spec"
)

// Resolve returns the digest of what a tag names, with one request that transfers
// nothing else. A tag that isn't there is a [NotFoundError].
func Resolve(ctx context.Context, repo spec.Repository, tag string) (string, error) {
	c, err := newClient(repo)
	if err != nil {
		return "", err
	}
	found, err := c.resolve(ctx, tag)
	return found.Digest.String(), err
}

// configured finds a registry's credentials in a Docker configuration, the file
// that a Secret of type kubernetes.io/dockerconfigjson holds. It is read each
// time, as the kubelet writes it anew when the Secret changes.
func configured(file string) auth.CredentialFunc {
	return func(ctx context.Context, host string) (auth.Credential, error) {
		if _, err := os.Stat(file); err != nil {
			return auth.EmptyCredential, &CredentialsError{Host: host, Problem: "there is no Secret of that name with a key .dockerconfigjson"}
		}
		store, err := credentials.NewFileStore(file)
		if err != nil {
			return auth.EmptyCredential, &CredentialsError{Host: host, Problem: fmt.Sprintf("its key .dockerconfigjson can't be read (%v)", err)}
		}
		found, err := credentials.Credential(store)(ctx, host)
		if err == nil && found == auth.EmptyCredential {
			return found, &CredentialsError{Host: host, Problem: "it holds none for this registry"}
		}
		return found, err
	}
}

// CredentialsError says that there are no credentials for a registry that asks
// for some.
type CredentialsError struct {
	// Host is the registry's host[:port].
	Host string
	// Problem is what is wrong with the Secret.
	Problem string
}

// Error says how to mend it.
func (e *CredentialsError) Error() string {
	return fmt.Sprintf("registry %s asks for credentials, and credentialsSecret doesn't give them: %s; make one with: kubectl create secret docker-registry NAME --docker-server=%s --docker-username=... --docker-password=...",
		e.Host, e.Problem, e.Host)
}
