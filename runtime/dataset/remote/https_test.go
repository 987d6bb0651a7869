package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/spec"
)

// data is a few MiB, so that it arrives in many pieces.
func data(seed uint64) []byte {
	random := rand.NewChaCha8([32]byte{byte(seed)})
	bytes := make([]byte, 3<<20)
	_, _ = random.Read(bytes) // it has no errors
	return bytes
}

// web starts a web server that asks handler.
func web(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// fetch is Fetch with the server's certificate and without patience.
func fetch(t *testing.T, server *httptest.Server, from Source) ([]byte, error) {
	t.Helper()
	o, err := from.object(server.Client().Transport.(*http.Transport), Version{})
	if err != nil {
		return nil, err
	}
	return runDownload(t, o)
}

func runDownload(t *testing.T, o object) ([]byte, error) {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := newDownload(o, file)
	d.delays.InitialInterval, d.delays.MaxInterval, d.stall = time.Microsecond, time.Microsecond, 200*time.Millisecond
	if err := d.run(t.Context()); err != nil {
		return nil, err
	}
	got, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return got, nil
}

func at(server *httptest.Server) Source {
	return Source{HTTPS: &spec.HTTPSSource{URL: server.URL + "/iris.csv?signature=hidden"}}
}

// cut sends the first n bytes of an answer and breaks the connection.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 && err == nil {
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// TestTakesUpWhereItBroke breaks every connection after a quarter MiB, which is
// too little, or one MiB.
func TestTakesUpWhereItBroke(t *testing.T) {
	want := data(1)
	var ranges []string
	server := web(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(&cut{w, 1<<18 + 7*len(ranges)}, r, "", time.Time{}, bytes.NewReader(want))
	})
	if _, err := fetch(t, server, at(server)); err == nil {
		t.Fatal("connections that give a quarter MiB each are too little progress")
	}

	ranges = nil
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(&cut{w, 1<<20 + 7*len(ranges)}, r, "", time.Time{}, bytes.NewReader(want))
	})
	got, err := fetch(t, server, at(server))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	if len(ranges) != 3 || ranges[0] != "" || !strings.HasPrefix(ranges[2], "bytes=20") {
		t.Errorf("asked for %q", ranges)
	}
}

// TestChangedInTheMiddle gives other bytes after the connection broke: the
// file has only the new ones.
func TestChangedInTheMiddle(t *testing.T) {
	for _, tag := range []string{`"v%d"`, `W/"v%d"`, ""} {
		before, after := data(1), data(2)[:2<<20]
		requests := 0
		server := web(t, func(w http.ResponseWriter, r *http.Request) {
			if requests++; tag != "" {
				w.Header().Set("ETag", fmt.Sprintf(tag, min(requests, 2)))
			}
			if requests == 1 {
				http.ServeContent(&cut{w, 5 << 18}, r, "", time.Time{}, bytes.NewReader(before))
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(after))
		})
		got, err := fetch(t, server, at(server))
		if err != nil || !bytes.Equal(got, after) || requests != 2 {
			t.Errorf("tag %q: got %d bytes in %d requests, %v", tag, len(got), requests, err)
		}
	}
}

// TestWrongRange has a server that answers a range with another one: all is
// asked for again.
func TestWrongRange(t *testing.T) {
	want := data(1)
	server := web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		if r.Header.Get("Range") != "" {
			w.Header().Set("Content-Range", "bytes 0-9/10")
			w.WriteHeader(http.StatusPartialContent)
			return
		}
		requestsLeft := len(want)
		if r.Context().Value(http.ServerContextKey).(*http.Server).MaxHeaderBytes == 0 {
			requestsLeft = 5 << 18
			r.Context().Value(http.ServerContextKey).(*http.Server).MaxHeaderBytes = 1 << 20
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(want)))
		_, _ = (&cut{w, requestsLeft}).Write(want) // the cut is what is tested
	})
	got, err := fetch(t, server, at(server))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestSilence(t *testing.T) {
	done := make(chan struct{})
	server := web(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("x")) // the client hears this
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-done:
		}
	})
	defer close(done)
	_, err := fetch(t, server, at(server))
	expect(t, err, true, "the server is silent")
}

// What is waited for is told before it is given up, and taken back when bytes
// come.
func TestTroubleIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		d := newDownload(late{after: 20 * time.Second}, file)
		var mutex sync.Mutex
		var told []string
		start := time.Now()
		d.trouble = func(err error) {
			mutex.Lock()
			defer mutex.Unlock()
			told = append(told, fmt.Sprint(time.Since(start), " ", err))
		}
		if err := d.run(t.Context()); err != nil {
			t.Error(err)
		}
		want := []string{"5s the server is silent; check that it is well, and firewalls and network policies on the way", "20s <nil>"}
		mutex.Lock()
		defer mutex.Unlock()
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
	})
}

// late is an object of a server that takes its time.
type late struct{ after time.Duration }

func (l late) open(context.Context, int64, string) (*part, error) {
	time.Sleep(l.after)
	return &part{body: io.NopCloser(strings.NewReader("late"))}, nil
}

// expect checks the kind of an error, its words, and that it holds no secret.
func expect(t *testing.T, err error, passing bool, words string) {
	t.Helper()
	var refused *RefusedError
	var unavailable *UnavailableError
	if passing && !errors.As(err, &unavailable) || !passing && !errors.As(err, &refused) || !strings.Contains(err.Error(), words) {
		t.Errorf("got %T %v, want ...%s...", err, err, words)
	}
	if err != nil && strings.Contains(err.Error(), "hidden") {
		t.Errorf("the error tells the signature: %v", err)
	}
}

func TestAnswersForPeople(t *testing.T) {
	credentials := &spec.SecretName{Name: "web"}
	for _, test := range []struct {
		status      int
		credentials *spec.SecretName
		passing     bool
		words       string
	}{
		{401, nil, false, "the server asks for credentials (401 Unauthorized); put them into a Secret"},
		{403, nil, false, "doesn't give this file to everyone (403 Forbidden)"},
		{401, credentials, false, "doesn't accept the credentials of source.https.credentialsSecret for this file (401 Unauthorized)"},
		{403, credentials, false, "correct the Secret"},
		{404, nil, false, "there is no such file on the server (404 Not Found)"},
		{410, nil, false, "there is no such file"},
		{400, nil, false, "400 Bad Request"},
		{304, nil, false, "304 Not Modified"},
		{408, nil, true, "408 Request Timeout"},
		{429, nil, true, "429 Too Many Requests"},
		{500, nil, true, "500 Internal Server Error"},
		{503, nil, true, "503 Service Unavailable"},
	} {
		requests := 0
		server := web(t, func(w http.ResponseWriter, _ *http.Request) { requests++; w.WriteHeader(test.status) })
		from := at(server)
		from.HTTPS.CredentialsSecret, from.Credentials = test.credentials, Credentials{"token": "hidden"}
		_, err := fetch(t, server, from)
		expect(t, err, test.passing, test.words)
		if want := map[bool]int{false: 1, true: 6}[test.passing]; requests != want {
			t.Errorf("%d: %d requests, want %d", test.status, requests, want)
		}
	}
}

// TestUnchanged looks again at a file that didn't change, on servers that tell
// that in different ways, and at one that did.
func TestUnchanged(t *testing.T) {
	first, second := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 7, 2, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name, before, after string
		// modified are the times of the file, heeds whether the server heeds what
		// it is asked.
		modified, later time.Time
		heeds           bool
		// sent is how many of the three looks get the file.
		sent int
	}{
		{"ETag", `"a"`, `"b"`, time.Time{}, time.Time{}, true, 2},
		{"weak ETag", `W/"a"`, `W/"b"`, first, first, true, 2},
		{"Last-Modified", "", "", first, second, true, 2},
		{"ETag that the server doesn't compare", `"a"`, `"b"`, first, second, false, 2},
		{"nothing", "", "", time.Time{}, time.Time{}, true, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			tag, modified, content, sent := test.before, test.modified, "before", 0
			server := web(t, func(w http.ResponseWriter, r *http.Request) {
				if tag != "" {
					w.Header().Set("ETag", tag)
				}
				if !test.heeds {
					r.Header.Del("If-None-Match")
				}
				http.ServeContent(w, r, "", modified, strings.NewReader(content))
			})
			from, known := at(server), Version{}
			from.Credentials = Credentials{"ca.crt": certificateOf(server)}
			look := func() string {
				path, now, err := FetchNew(t.Context(), from, known, t.TempDir())
				if errors.Is(err, ErrUnchanged) {
					return "unchanged"
				}
				if err != nil {
					t.Fatal(err)
				}
				known = now
				sent++
				got, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return string(got)
			}
			seen := []string{look(), look()}
			tag, modified, content = test.after, test.later, "after"
			seen = append(seen, look())
			if seen[0] != "before" || seen[2] != "after" || sent != test.sent {
				t.Errorf("saw %q, and the file was sent %d times, want %d", seen, sent, test.sent)
			}
		})
	}
}

func certificateOf(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// TestOwnAuthority trusts the authority among the credentials, and the Secret may
// hold nothing else.
func TestOwnAuthority(t *testing.T) {
	server := web(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("x" + r.Header.Get("Authorization")))
	})
	from := at(server)
	from.HTTPS.CredentialsSecret, from.Credentials = &spec.SecretName{Name: "web"}, Credentials{"ca.crt": certificateOf(server)}
	if _, err := Fetch(t.Context(), from, t.TempDir()); err != nil {
		t.Error(err)
	}
	from.Credentials["ca.crt"] = "nothing of the kind"
	_, err := Fetch(t.Context(), from, t.TempDir())
	expect(t, err, false, "the key ca.crt of the Secret that credentialsSecret names holds no certificate")
}

// TestMountedCredentials reads a Secret as the kubelet mounts it.
func TestMountedCredentials(t *testing.T) {
	dir := t.TempDir()
	if got, err := DirectoryCredentials(filepath.Join(dir, "missing")); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if err := errors.Join(os.Mkdir(dir+"/..2026", 0o700), os.WriteFile(dir+"/..2026/token", []byte("abc\n"), 0o600),
		os.Symlink("..2026", dir+"/..data"), os.Symlink("..data/token", dir+"/token")); err != nil {
		t.Fatal(err)
	}
	got, err := DirectoryCredentials(dir)
	if diff := cmp.Diff(Credentials{"token": "abc"}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestConnectionTrouble(t *testing.T) {
	server := web(t, func(http.ResponseWriter, *http.Request) {})
	_, err := Fetch(t.Context(), at(server), t.TempDir())
	expect(t, err, false, "the server's certificate is not trusted: x509: certificate signed by unknown authority")

	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	_, err = Fetch(t.Context(), Source{HTTPS: &spec.HTTPSSource{URL: strings.Replace(plain.URL, "http", "https", 1)}}, t.TempDir())
	expect(t, err, false, "doesn't speak TLS")

	redirect := web(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+"?hidden", http.StatusFound)
	})
	_, err = fetch(t, redirect, at(redirect))
	expect(t, err, false, "redirects to a URL that is not https")

	plain.Close()
	_, err = fetch(t, server, Source{HTTPS: &spec.HTTPSSource{URL: strings.Replace(plain.URL, "http", "https", 1) + "?hidden"}})
	expect(t, err, true, "nothing listens there (connection refused)")

	_, err = fetch(t, server, Source{HTTPS: &spec.HTTPSSource{URL: "https://nobody.invalid/?hidden"}})
	expect(t, err, true, `the name "nobody.invalid" is not known`)
}

func TestCredentials(t *testing.T) {
	secret := &spec.SecretName{Name: "web"}
	for _, test := range []struct {
		environment []string
		want        string
	}{
		{[]string{"TRAINYARD_SOURCE_token=abc\n", "PATH=/"}, "Bearer abc"},
		{[]string{"TRAINYARD_SOURCE_username=me", "TRAINYARD_SOURCE_password=p=q"}, "Basic bWU6cD1x"},
	} {
		var got string
		server := web(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Authorization") })
		from := Source{HTTPS: &spec.HTTPSSource{URL: server.URL, CredentialsSecret: secret}, Credentials: EnvironmentCredentials(test.environment)}
		if _, err := fetch(t, server, from); err != nil || got != test.want {
			t.Errorf("sent %q, want %q; %v", got, test.want, err)
		}
	}
	_, err := Fetch(t.Context(), Source{HTTPS: &spec.HTTPSSource{URL: "https://h/", CredentialsSecret: secret}}, "")
	expect(t, err, false, "Secret web, which credentialsSecret names, isn't there, or has neither a key token nor the keys username and password")
	_, err = Fetch(t.Context(), Source{S3: &spec.S3Source{Bucket: "b", Key: "k", CredentialsSecret: secret}}, "")
	expect(t, err, false, "Secret web, which credentialsSecret names, has to be there, with the keys accessKey and secretKey")
	_, err = Fetch(t.Context(), Source{HTTPS: &spec.HTTPSSource{URL: "https://me:hidden@h/"}}, "")
	expect(t, err, false, "the url has to be of the form https://host/path")
}

func TestHash(t *testing.T) {
	path := t.TempDir() + "/file"
	if err := os.WriteFile(path, []byte("x,y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sum := sha256.Sum256([]byte("x,y\n"))
	if err := checkHash(file, hex.EncodeToString(sum[:]), "source.https.sha256"); err != nil {
		t.Error(err)
	}
	expect(t, checkHash(file, strings.Repeat("0", 64), "source.https.sha256"), false, "it is not the file that was meant")
}

// TestNothingIsLeft checks that a failure leaves no file behind.
func TestNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fetch(ctx, Source{HTTPS: &spec.HTTPSSource{URL: "https://nobody.invalid/"}}, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(0, len(left)); diff != "" {
		t.Error(diff)
	}
}
