// Package outside starts servers that others wrote, as users have them outside of
// a cluster: an S3 server and an OCI registry. They are built from their Go
// modules.
package outside

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// Access keys of a bucket server, and user and password of a registry.
const (
	AccessKey = "access"
	SecretKey = "secret"
)

// freeAddress is one on that host that nobody listens at.
func freeAddress(t *testing.T, host string) string {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// build builds a program of a module under the repository's root.
func build(t *testing.T, module, program string, flags ...string) string {
	t.Helper()
	gomod, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), filepath.Base(program))
	arguments := append([]string{"build", "-C", filepath.Join(filepath.Dir(string(gomod)), module), "-o", binary}, flags...)
	if output, err := exec.CommandContext(t.Context(), "go", append(arguments, program)...).CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", program, err, output)
	}
	return binary
}

// start runs a program until the test is over, and shows what it said if that
// failed.
func start(t *testing.T, command *exec.Cmd) {
	t.Helper()
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended
		_ = command.Wait()
		if t.Failed() {
			t.Logf("%s said: %s", filepath.Base(command.Path), said.String())
		}
	})
}

// Buckets is an S3 server, Versity's gateway, with the bucket "data" in it.
type Buckets struct {
	// Endpoint is its host:port. It doesn't speak TLS.
	Endpoint string
	client   *minio.Client
}

// StartBuckets starts an S3 server on a host's free port.
func StartBuckets(t *testing.T, host string) *Buckets {
	t.Helper()
	b := &Buckets{Endpoint: freeAddress(t, host)}
	start(t, exec.Command(build(t, "test/s3", "github.com/versity/versitygw/cmd/versitygw"),
		"--port", b.Endpoint, "--access", AccessKey, "--secret", SecretKey, "--quiet", "posix", "--sidecar", t.TempDir(), t.TempDir()))
	var err error
	b.client, err = minio.New(b.Endpoint, &minio.Options{Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	// The client asks again until the server answers.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.client.MakeBucket(ctx, "data", minio.MakeBucketOptions{}); err != nil {
		t.Fatalf("the S3 server doesn't make a bucket: %v", err)
	}
	return b
}

// Put writes an object into the bucket.
func (b *Buckets) Put(t *testing.T, key string, content []byte) {
	t.Helper()
	if _, err := b.client.PutObject(t.Context(), "data", key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Remove deletes an object from the bucket.
func (b *Buckets) Remove(t *testing.T, key string) {
	t.Helper()
	if err := b.client.RemoveObject(t.Context(), "data", key, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// users are AccessKey and SecretKey as htpasswd writes them:
// htpasswd -nbB access secret.
const users = "access:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"

// StartRegistry starts a CNCF Distribution on a host's free port and returns its
// host:port. It doesn't speak TLS, and lets nobody in without the password.
func StartRegistry(t *testing.T, host string) string {
	t.Helper()
	address, dir := freeAddress(t, host), t.TempDir()
	config := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s/data}, delete: {enabled: true}}
auth: {htpasswd: {realm: models, path: %s/users}}
http: {addr: '%s'}
`, dir, dir, address)
	for name, content := range map[string]string{"config.yml": config, "users": users + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(build(t, "hack/cluster", "./cmd/registry", "-tags=cluster_components"), "serve", filepath.Join(dir, "config.yml"))
	command.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	start(t, command)
	answers(t, "http://"+address+"/v2/")
	return address
}

func answers(t *testing.T, url string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		response, err := http.Get(url)
		if err == nil {
			_ = response.Body.Close() // that it answered is enough
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s doesn't answer: %v", url, err)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

// DockerConfig is the content of a Secret of type kubernetes.io/dockerconfigjson
// for a registry that was started here.
func DockerConfig(registry, password string) []byte {
	return []byte(fmt.Sprintf(`{"auths": {%q: {"username": %q, "password": %q}}}`, registry, AccessKey, password))
}

// Tag makes a tag name what is in a repository of a registry that was started
// here, under a digest.
func Tag(ctx context.Context, repository, digest, tag string) error {
	r, err := remote.NewRepository(repository)
	if err != nil {
		return err
	}
	r.PlainHTTP = true
	r.Client = &auth.Client{Credential: auth.StaticCredential(r.Reference.Registry, auth.Credential{Username: AccessKey, Password: SecretKey})}
	found, err := r.Resolve(ctx, digest)
	if err != nil {
		return err
	}
	return r.Tag(ctx, found, tag)
}
