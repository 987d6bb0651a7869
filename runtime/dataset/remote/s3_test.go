package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"testing"

	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/test/outside"
)

// bucketServer is an S3 server of its own with the bucket "data" in it.
type bucketServer struct{ *outside.Buckets }

func newBucketServer(t *testing.T) *bucketServer {
	return &bucketServer{outside.StartBuckets(t, "127.0.0.1")}
}

func (s *bucketServer) source() Source {
	return Source{
		S3:          &spec.S3Source{Bucket: "data", Key: "2026/july.csv", Endpoint: s.Endpoint, PlainHTTP: true, CredentialsSecret: &spec.SecretName{Name: "keys"}},
		Credentials: Credentials{"accessKey": "access", "secretKey": "secret"},
	}
}

func TestS3(t *testing.T) {
	server := newBucketServer(t)
	want := data(3)
	server.Put(t, "2026/july.csv", want)

	t.Run("whole", func(t *testing.T) {
		path, err := Fetch(t.Context(), server.source(), t.TempDir())
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
			{func(s *Source) { s.S3.Bucket = "tada" }, `there is no bucket "tada" at ` + server.Endpoint},
			{func(s *Source) { s.Credentials["accessKey"] = "other" }, "No user exists with the provided access key ID"},
			{func(s *Source) { s.Credentials["secretKey"] = "hidden" }, "the secretKey of source.s3.credentialsSecret doesn't belong to its accessKey"},
			{func(s *Source) { s.S3.CredentialsSecret = nil }, "the server denies access to the object; put an access key into a Secret"},
			{func(s *Source) { s.S3.Region = "eu-central-1" }, "set source.s3.region to the bucket's"},
			{func(s *Source) { s.S3.PlainHTTP = false }, "doesn't speak TLS at this port"},
			{func(s *Source) { s.S3.Endpoint = "x/y" }, "write it as host or host:port"},
		} {
			from := server.source()
			test.change(&from)
			_, err := Fetch(t.Context(), from, t.TempDir())
			expect(t, err, false, test.words)
		}
	})
	t.Run("unchanged", func(t *testing.T) { testUnchangedObject(t, server, want) })
	t.Run("broken connection", func(t *testing.T) { testBrokenBucket(t, server, want) })
	t.Run("changed object", func(t *testing.T) { testChangedObject(t, server, want) })
}

// breaking is a way to the server that breaks after each so many bytes, and
// then calls then.
func breaking(t *testing.T, server *bucketServer, after int, then func()) (Source, *[]string) {
	t.Helper()
	var ranges []string
	target := &neturl.URL{Scheme: "http", Host: server.Endpoint}
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
	from := server.source()
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
	o, err := from.object(newTransport(), Version{})
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
	from, ranges := breaking(t, server, 5<<18, func() { server.Put(t, "2026/july.csv", after) })
	got, err := fetchBucket(t, from)
	if err != nil || !bytes.Equal(got, after) {
		t.Fatalf("got %d of %d bytes, %v", len(got), len(after), err)
	}
	if len(*ranges) != 3 {
		t.Errorf("asked for %s", fmt.Sprint(*ranges))
	}
	server.Put(t, "2026/july.csv", before)
}

func testUnchangedObject(t *testing.T, server *bucketServer, before []byte) {
	from := server.source()
	_, known, err := FetchNew(t.Context(), from, Version{}, t.TempDir())
	if err != nil || known.ETag == "" {
		t.Fatalf("got version %+v, %v", known, err)
	}
	dir := t.TempDir()
	if _, _, err := FetchNew(t.Context(), from, known, dir); !errors.Is(err, ErrUnchanged) {
		t.Errorf("got %v, want %v", err, ErrUnchanged)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%d files were left, %v", len(left), err)
	}
	server.Put(t, "2026/july.csv", before[1:])
	path, now, err := FetchNew(t.Context(), from, known, dir)
	if err != nil || now == known {
		t.Fatalf("got version %+v, %v", now, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, before[1:]) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	server.Put(t, "2026/july.csv", before)
}
