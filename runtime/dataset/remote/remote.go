// Package remote fetches a dataset's bytes from web servers and buckets into a
// file. A connection that breaks is taken up again where it broke, as long as
// the bytes at the other end are still the same; a server that does not answer
// is asked again, for a bounded time.
package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"trainyard.dev/trainyard/runtime/spec"
)

// Source says what to fetch: exactly one of HTTPS and S3.
type Source struct {
	HTTPS       *spec.HTTPSSource
	S3          *spec.S3Source
	Credentials Credentials
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

// Fetch writes the source's bytes into a new file in dir (default: the system's
// folder for temporary files) and returns its path; removing it is up to the
// caller. The error is a [*RefusedError] when the same request will fail again,
// and an [*UnavailableError] when the trouble may pass.
func Fetch(ctx context.Context, from Source, dir string) (path string, err error) {
	object, err := from.object(newTransport())
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp(dir, "dataset-")
	if err != nil {
		return "", fmt.Errorf("making room for the dataset: %w", err)
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
		return "", err
	}
	if from.HTTPS != nil && from.HTTPS.SHA256 != "" {
		return file.Name(), checkHash(file, from.HTTPS.SHA256)
	}
	return file.Name(), nil
}

func checkHash(file *os.File, want string) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		return refusedf("the file has the SHA-256 %s, but source.https.sha256 is %s: it is not the file that was meant; check the url, or set sha256 to that of the new file", got, want)
	}
	return nil
}
