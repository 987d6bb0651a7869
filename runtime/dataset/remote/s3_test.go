package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"trainyard.dev/trainyard/runtime/spec"
)

// bucketServer is an S3 server of its own (Versity's gateway) with the bucket
// "data" in it.
type bucketServer struct {
	endpoint string
	client   *minio.Client
}

func newBucketServer(t *testing.T) *bucketServer {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "versitygw")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../../test/s3", "-o", binary, "github.com/versity/versitygw/cmd/versitygw")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the S3 server: %v\n%s", err, output)
	}
	s := &bucketServer{endpoint: freeAddress(t)}
	folder := t.TempDir()
	server := exec.CommandContext(t.Context(), binary, "--port", s.endpoint, "--access", "access", "--secret", "secret", "--quiet",
		"posix", "--sidecar", t.TempDir(), folder)
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill() // it may have ended
		_ = server.Wait()
		if t.Failed() {
			t.Logf("the S3 server said: %s", said.String())
		}
	})
	s.makeBucket(t)
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// makeBucket waits until the server answers.
func (s *bucketServer) makeBucket(t *testing.T) {
	t.Helper()
	var err error
	s.client, err = minio.New(s.endpoint, &minio.Options{Creds: credentials.NewStaticV4("access", "secret", ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.client.MakeBucket(ctx, "data", minio.MakeBucketOptions{}); err != nil {
		t.Fatalf("the S3 server doesn't make a bucket: %v", err)
	}
}

func (s *bucketServer) put(t *testing.T, key string, content []byte) {
	t.Helper()
	if _, err := s.client.PutObject(t.Context(), "data", key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *bucketServer) source(key string) Source {
	return Source{
		S3:          &spec.S3Source{Bucket: "data", Key: key, Endpoint: s.endpoint, PlainHTTP: true, CredentialsSecret: &spec.SecretName{Name: "keys"}},
		Credentials: Credentials{"accessKey": "access", "secretKey": "secret"},
	}
}

func TestS3(t *testing.T) {
	server := newBucketServer(t)
	want := data(3)
	server.put(t, "2026/july.csv", want)

	t.Run("whole", func(t *testing.T) {
		path, err := Fetch(t.Context(), server.source("2026/july.csv"), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		for _, test := range []struct {
			change func(*Source)
			words  string
		}{
			{func(s *Source) { s.S3.Key = "2026/june.csv" }, `there is no object "2026/june.csv" in the bucket; check source.s3.key`},
			{func(s *Source) { s.S3.Bucket = "tada" }, `there is no bucket "tada" at ` + server.endpoint},
			{func(s *Source) { s.Credentials["accessKey"] = "other" }, "No user exists with the provided access key ID"},
			{func(s *Source) { s.Credentials["secretKey"] = "hidden" }, "the secretKey of source.s3.credentialsSecret doesn't belong to its accessKey"},
			{func(s *Source) { s.S3.CredentialsSecret = nil }, "the server denies access to the object; put an access key into a Secret"},
			{func(s *Source) { s.S3.Region = "eu-central-1" }, "set source.s3.region to the bucket's"},
			{func(s *Source) { s.S3.PlainHTTP = false }, "doesn't speak TLS at this port"},
			{func(s *Source) { s.S3.Endpoint = "x/y" }, "write it as host or host:port"},
		} {
			from := server.source("2026/july.csv")
			test.change(&from)
			_, err := Fetch(t.Context(), from, t.TempDir())
			expect(t, err, false, test.words)
		}
	})
	t.Run("broken connection", func(t *testing.T) { testBrokenBucket(t, server, want) })
	t.Run("changed object", func(t *testing.T) { testChangedObject(t, server, want) })
}

// breaking is a way to the server that breaks after each so many bytes, and
// then calls then.
func breaking(t *testing.T, server *bucketServer, after int, then func()) (Source, *[]string) {
	t.Helper()
	var ranges []string
	target := &neturl.URL{Scheme: "http", Host: server.endpoint}
	proxy := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		// The signature is over the host that the client asked.
		r.Out.Host = r.In.Host
	}, ModifyResponse: func(r *http.Response) error {
		r.Body = &broken{ReadCloser: r.Body, left: after, then: then}
		return nil
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range")+" "+r.Header.Get("If-Match"))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	from := server.source("2026/july.csv")
	from.S3.Endpoint = front.Listener.Addr().String()
	return from, &ranges
}

type broken struct {
	io.ReadCloser
	left int
	then func()
}

func (b *broken) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.then()
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func fetchBucket(t *testing.T, from Source) ([]byte, error) {
	t.Helper()
	o, err := from.object(newTransport())
	if err != nil {
		t.Fatal(err)
	}
	return runDownload(t, o)
}

func testBrokenBucket(t *testing.T, server *bucketServer, want []byte) {
	from, ranges := breaking(t, server, 5<<18, func() {})
	got, err := fetchBucket(t, from)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	if len(*ranges) != 3 || (*ranges)[0] != " " || (*ranges)[1] == (*ranges)[0] {
		t.Errorf("asked for %q", *ranges)
	}
}

func testChangedObject(t *testing.T, server *bucketServer, before []byte) {
	after := data(4)[:1<<20]
	from, ranges := breaking(t, server, 5<<18, func() { server.put(t, "2026/july.csv", after) })
	got, err := fetchBucket(t, from)
	if err != nil || !bytes.Equal(got, after) {
		t.Fatalf("got %d of %d bytes, %v", len(got), len(after), err)
	}
	if len(*ranges) != 3 {
		t.Errorf("asked for %s", fmt.Sprint(*ranges))
	}
	server.put(t, "2026/july.csv", before)
}
