// Package remote fetches the bytes of a dataset or a model from web servers and
// buckets into a file. A connection that breaks is taken up again where it broke,
// as long as the bytes at the other end are still the same; a server that does
// not answer is asked again, for a bounded time.
package remote

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"trainyard.dev/trainyard/runtime/spec"
)

// Source says what to fetch: exactly one of HTTPS and S3.
type Source struct {
	HTTPS       *spec.HTTPSSource
	S3          *spec.S3Source
	Credentials Credentials
	// Field is where users wrote the source, for messages. Empty: "source".
	Field string
	// Trouble is told what keeps the bytes from coming while they are waited for,
	// and nil when they come again. It is called from any goroutine. Nil: nobody
	// is told.
	Trouble func(error)
}

// Credentials are the keys of a source's credentialsSecret.
type Credentials map[string]string

// EnvironmentCredentials finds credentials where the controller puts them: in
// variables that start with [spec.CredentialPrefix]. environment is of the form
// of [os.Environ].
func EnvironmentCredentials(environment []string) Credentials {
	credentials := Credentials{}
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		if key, ok := strings.CutPrefix(name, spec.CredentialPrefix); ok {
			// A last newline is what `echo password > file` leaves.
			credentials[key] = strings.TrimRight(value, "\r\n")
		}
	}
	return credentials
}

// DirectoryCredentials finds credentials where the kubelet puts them that mounts
// a Secret: in files that are named as its keys. A Secret that isn't there is an
// empty folder, or none.
func DirectoryCredentials(dir string) (Credentials, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the credentials: %w", err)
	}
	credentials := Credentials{}
	for _, entry := range entries {
		// The kubelet keeps what the files link to in folders with two dots.
		if strings.HasPrefix(entry.Name(), "..") {
			continue
		}
		value, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading the credentials: %w", err)
		}
		credentials[entry.Name()] = strings.TrimRight(string(value), "\r\n")
	}
	return credentials, nil
}

// field is the name of a field of the source, for messages.
func (s Source) field(name string) string { return cmp.Or(s.Field, "source") + "." + name }

// Version is what a server says of the bytes that it has: another one means
// other bytes. Of a server that says nothing it is zero, and tells nothing.
type Version struct {
	// ETag and Modified are the headers ETag and Last-Modified.
	ETag, Modified string
}

// ErrUnchanged says that the bytes are still those that are known.
var ErrUnchanged = errors.New("unchanged at the other end")

// Fetch writes the source's bytes into a new file in dir (default: the system's
// folder for temporary files) and returns its path; removing it is up to the
// caller. The error is a [*RefusedError] when the same request will fail again,
// and an [*UnavailableError] when the trouble may pass.
func Fetch(ctx context.Context, from Source, dir string) (path string, err error) {
	path, _, err = FetchNew(ctx, from, Version{}, dir)
	return path, err
}

// FetchNew is Fetch for someone who has the bytes of a version already: if the
// server still has that one, it sends nothing, and the error is [ErrUnchanged].
// With an error, now is another version than known only if it is about the bytes
// of that version.
func FetchNew(ctx context.Context, from Source, known Version, dir string) (path string, now Version, err error) {
	transport, err := from.transport()
	if err != nil {
		return "", known, err
	}
	defer transport.CloseIdleConnections()
	object, err := from.object(transport, known)
	if err != nil {
		return "", known, err
	}
	file, err := os.CreateTemp(dir, "fetched-")
	if err != nil {
		return "", known, fmt.Errorf("making room for the file: %w", err)
	}
	defer func() {
		if closing := file.Close(); err == nil && closing != nil {
			err = full(closing)
		}
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	d := newDownload(object, file)
	if from.Trouble != nil {
		d.trouble = from.Trouble
	}
	if err := d.run(ctx); err != nil {
		return "", known, err
	}
	if from.HTTPS != nil && from.HTTPS.SHA256 != "" {
		return file.Name(), d.now, checkHash(file, from.HTTPS.SHA256, from.field("https.sha256"))
	}
	return file.Name(), d.now, nil
}

// transport trusts the public authorities and the one that is among the
// credentials.
func (s Source) transport() (*http.Transport, error) {
	t := newTransport()
	authority := s.Credentials[spec.AuthorityKey]
	if authority == "" {
		return t, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM([]byte(authority)) {
		return nil, refusedf("the key %s of the Secret that credentialsSecret names holds no certificate in PEM form; correct the Secret", spec.AuthorityKey)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: roots}
	return t, nil
}

func checkHash(file *os.File, want, field string) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		return refusedf("the file has the SHA-256 %s, but %s is %s: it is not the file that was meant; check the url, or set sha256 to that of the new file", got, field, want)
	}
	return nil
}
