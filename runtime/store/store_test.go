package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trainyard.dev/trainyard/runtime/spec"
)

func TestMain(m *testing.M) {
	waits = []time.Duration{time.Millisecond, time.Millisecond}
	os.Exit(m.Run())
}

var testFiles = map[string]string{
	"model.onnx":        "a graph",
	"model.json":        `{"name": "digits"}`,
	"model.safetensors": strings.Repeat("weights ", 10000),
}

func writeModel(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readModel(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() == manifestFile {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(data)
	}
	return files
}

// fault may answer a request in the registry's place; it returns false to let
// the registry answer.
type fault func(w http.ResponseWriter, r *http.Request) bool

type testRegistry struct {
	http.Handler
	fault    atomic.Pointer[fault]
	requests atomic.Int64
}

func (r *testRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.requests.Add(1)
	if f := r.fault.Load(); f != nil && (*f)(w, req) {
		return
	}
	r.Handler.ServeHTTP(w, req)
}

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:")
}

func isWeights(r *http.Request) bool {
	return isBlob(r) && strings.HasSuffix(r.URL.Path, digest.FromString(testFiles["model.safetensors"]).String())
}

func isUpload(r *http.Request) bool { return r.Method == http.MethodPut }

func startRegistry(t *testing.T) (*testRegistry, spec.Repository) {
	t.Helper()
	r := &testRegistry{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, spec.Repository{Name: strings.TrimPrefix(server.URL, "http://") + "/team/digits", PlainHTTP: true}
}

func (r *testRegistry) set(f fault) { r.fault.Store(&f) }

func mustPush(t *testing.T, repo spec.Repository) spec.Model {
	t.Helper()
	pushed, err := Push(t.Context(), repo, writeModel(t, testFiles))
	if err != nil {
		t.Fatal(err)
	}
	return pushed
}

func TestPushAndPull(t *testing.T) {
	r, repo := startRegistry(t)
	pushed := mustPush(t, repo)
	if want := repo.Name + ":" + pushed.Digest[len("sha256:"):][:12]; pushed.Reference != want {
		t.Errorf("reference %s, want %s", pushed.Reference, want)
	}
	if want := int64(7 + 18 + 80000); pushed.Bytes != want {
		t.Errorf("%d bytes, want %d", pushed.Bytes, want)
	}
	dir := filepath.Join(t.TempDir(), "some", "where")
	if err := Pull(t.Context(), repo, pushed.Digest, dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testFiles, readModel(t, dir)); diff != "" {
		t.Error(diff)
	}

	before := r.requests.Load()
	if err := Pull(t.Context(), repo, pushed.Digest, dir); err != nil {
		t.Fatal(err)
	}
	if now := r.requests.Load(); now != before {
		t.Errorf("%d requests for a model that is there", now-before)
	}
	// What was pulled can be pushed again, as the same.
	if again, err := Push(t.Context(), repo, dir); err != nil || again != pushed {
		t.Errorf("pushed again as %v, %v; want %v", again, err, pushed)
	}
}

// The digest is a promise: old models must keep theirs.
func TestDigestIsOfTheFilesOnly(t *testing.T) {
	_, repo := startRegistry(t)
	_, other := startRegistry(t)
	const want = "sha256:4fb1fb99378643d33e9e91a88070867a780da7fb30c01f8bed8029b571434e47"
	first := mustPush(t, repo).Digest
	if second := mustPush(t, other).Digest; second != first {
		t.Errorf("digests %s and %s of the same files", first, second)
	}
	if first != want {
		t.Errorf("digest %s, was %s", first, want)
	}
}

func TestManifest(t *testing.T) {
	_, repo := startRegistry(t)
	pushed := mustPush(t, repo)
	host, path, _ := strings.Cut(repo.Name, "/")
	response, err := http.Get("http://" + host + "/v2/" + path + "/manifests/" + strings.SplitN(pushed.Reference, ":", 3)[2])
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var m ocispec.Manifest
	if err := json.NewDecoder(response.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	if m.ArtifactType != ArtifactType || m.Config.MediaType != ocispec.MediaTypeEmptyJSON || len(m.Annotations) != 0 {
		t.Errorf("artifact type %s, config %s, annotations %v", m.ArtifactType, m.Config.MediaType, m.Annotations)
	}
	types := map[string]string{}
	for _, layer := range m.Layers {
		types[layer.Annotations[ocispec.AnnotationTitle]] = layer.MediaType
	}
	if diff := cmp.Diff(mediaTypes, types); diff != "" {
		t.Error(diff)
	}
}

func TestFaultsThatPass(t *testing.T) {
	for name, test := range map[string]struct {
		concerns func(*http.Request) bool
		fault    fault
	}{
		"503 for blobs":   {isBlob, answer(503, "")},
		"503 for uploads": {isUpload, answer(503, "")},
		"429":             {isBlob, answer(429, "")},
		"cut blob":        {isWeights, cutBlob},
		"cut upload":      {isUpload, cutConnection},
		"corrupted blob":  {isBlob, corruptBlob},
		"503 for the manifest": {func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") },
			answer(503, "")},
	} {
		t.Run(name, func(t *testing.T) {
			r, repo := startRegistry(t)
			var left atomic.Int64
			left.Store(2)
			r.set(func(w http.ResponseWriter, req *http.Request) bool {
				return test.concerns(req) && left.Add(-1) >= 0 && test.fault(w, req)
			})
			pushed := mustPush(t, repo)
			dir := filepath.Join(t.TempDir(), "model")
			if err := Pull(t.Context(), repo, pushed.Digest, dir); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(testFiles, readModel(t, dir)); diff != "" {
				t.Error(diff)
			}
			if left.Load() >= 0 {
				t.Error("the fault did not happen")
			}
		})
	}
}

func answer(status int, body string) fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
}

func cutConnection(_ http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) }

// cutBlob breaks the connection in the middle of the weights.
func cutBlob(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Length", "80000")
	_, _ = io.WriteString(w, strings.Repeat("w", 5000))
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// corruptBlob keeps the length, as a bad disk would.
func corruptBlob(w http.ResponseWriter, r *http.Request) bool {
	for _, data := range testFiles {
		if strings.HasSuffix(r.URL.Path, digest.FromString(data).String()) {
			_, _ = w.Write(bytes.Repeat([]byte{'x'}, len(data)))
			return true
		}
	}
	return false
}

func TestFaultsThatStay(t *testing.T) {
	const denied = `{"errors": [{"code": "DENIED", "message": "team may not\n write here"}]}`
	for name, test := range map[string]struct {
		concerns func(*http.Request) bool
		fault    fault
		want     string
		status   int
	}{
		"401": {isBlob, answer(401, denied), "401 Unauthorized: denied: team may not write here; check who may use this repository", 401},
		"403": {isBlob, answer(403, denied), "403 Forbidden: denied: team may not write here; check who may use this repository", 403},
		"500": {isBlob, answer(500, "oops"), "500 Internal Server Error: it gave no reason; try later, and see the registry's log", 500},
		"cut": {isWeights, cutBlob, "does not answer: the connection broke", 0},
		"corrupted": {isBlob, corruptBlob,
			"sent other bytes than their digest says", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r, repo := startRegistry(t)
			pushed := mustPush(t, repo)
			r.set(func(w http.ResponseWriter, req *http.Request) bool { return test.concerns(req) && test.fault(w, req) })
			dir := filepath.Join(t.TempDir(), "model")
			err := Pull(t.Context(), repo, pushed.Digest, dir)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			var refused *RefusedError
			if errors.As(err, &refused) != (test.status != 0) || test.status != 0 && refused.Status != test.status {
				t.Errorf("refused: %+v, want status %d", refused, test.status)
			}
			if test.status == 401 || test.status == 403 {
				checkNothingThere(t, dir)
			} else {
				checkOnlyParts(t, dir, pushed.Digest)
			}
		})
	}
}

func checkNothingThere(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// checkOnlyParts allows what the next Pull goes on with.
func checkOnlyParts(t *testing.T, dir, modelDigest string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != partialPrefix+strings.TrimPrefix(modelDigest, "sha256:") {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestPushRefused(t *testing.T) {
	for status, want := range map[int]string{
		401: "check who may use", 413: "raise the largest body", 507: "see the registry's log",
	} {
		r, repo := startRegistry(t)
		r.set(func(w http.ResponseWriter, req *http.Request) bool {
			return isUpload(req) && answer(status, "")(w, req)
		})
		_, err := Push(t.Context(), repo, writeModel(t, testFiles))
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Status != status || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: got %v, want ...%s...", status, err, want)
		}
	}
}

func TestNotFound(t *testing.T) {
	_, repo := startRegistry(t)
	absent := digest.FromString("absent").String()
	dir := filepath.Join(t.TempDir(), "model")
	err := Pull(t.Context(), repo, absent, dir)
	var notFound *NotFoundError
	if !errors.As(err, &notFound) || notFound.Digest != absent || notFound.Repository != repo.Name {
		t.Errorf("got %v", err)
	}
	checkNothingThere(t, dir)
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)

	for want, repo := range map[string]spec.Repository{
		"registry " + closed + " does not answer: nothing listens there (connection refused); check the port": {Name: closed + "/m", PlainHTTP: true},
		`the name "registry.invalid" is not known; check the host`:                                            {Name: "registry.invalid/m"},
		"it does not speak TLS; set plainHTTP":                                                                {Name: plain.Listener.Addr().String() + "/m"},
		"its certificate is not trusted":                                                                      {Name: secure.Listener.Addr().String() + "/m"},
	} {
		err := Ping(t.Context(), repo)
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want ...%s...", err, want)
		}
	}
}

func TestPing(t *testing.T) {
	r, repo := startRegistry(t)
	if err := Ping(t.Context(), repo); err != nil {
		t.Error(err)
	}
	r.set(answer(401, ""))
	var refused *RefusedError
	if err := Ping(t.Context(), repo); !errors.As(err, &refused) || refused.Status != 401 {
		t.Errorf("got %v", err)
	}
	r.set(answer(404, ""))
	if err := Ping(t.Context(), repo); !errors.As(err, &refused) || refused.Status != 404 {
		t.Errorf("got %v", err)
	}
}

func TestInvalidNames(t *testing.T) {
	for _, name := range []string{"", "digits", "host/UPPER", "host/path:tag", "host/path@" + digest.FromString("").String(), "http://host/path"} {
		if err := Ping(t.Context(), spec.Repository{Name: name}); err == nil || !strings.Contains(err.Error(), "is not host[:port]/path") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, d := range []string{"", "latest", "sha256:", "sha512:" + strings.Repeat("0", 128), "sha256:../../../../etc"} {
		err := Pull(t.Context(), spec.Repository{Name: "host/path"}, d, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), "is not the digest of a model") {
			t.Errorf("%q: %v", d, err)
		}
	}
}

// A registry that accepts and then says nothing is left when the context ends.
func TestSilence(t *testing.T) {
	r, repo := startRegistry(t)
	pushed := mustPush(t, repo)
	for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"cancel": context.WithCancel,
		"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 20*time.Millisecond)
		},
	} {
		for _, concerns := range []func(*http.Request) bool{isBlob, func(*http.Request) bool { return true }} {
			ctx, cancel := end(t.Context())
			r.set(func(_ http.ResponseWriter, req *http.Request) bool {
				if !concerns(req) {
					return false
				}
				if name == "cancel" {
					cancel()
				}
				<-req.Context().Done()
				return true
			})
			dir := filepath.Join(t.TempDir(), "model")
			err := Pull(ctx, repo, pushed.Digest, dir)
			var unreachable *UnreachableError
			switch {
			case name == "cancel" && !errors.Is(err, context.Canceled):
				t.Errorf("cancel: %v", err)
			case name == "deadline" && (!errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &unreachable)):
				t.Errorf("deadline: %v", err)
			}
			cancel()
			checkOnlyParts(t, dir, pushed.Digest)
		}
	}
}

func TestPullOverWhatIsThere(t *testing.T) {
	_, repo := startRegistry(t)
	pushed := mustPush(t, repo)
	other, err := Push(t.Context(), repo, writeModel(t, map[string]string{"model.onnx": "another"}))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	pull := func(d string) error { return Pull(t.Context(), repo, d, dir) }

	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := pull(other.Digest); err != nil {
		t.Errorf("into an empty folder: %v", err)
	}
	if err := pull(pushed.Digest); err != nil {
		t.Errorf("over another model: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "model.onnx"), []byte("damage!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := pull(pushed.Digest); err != nil {
		t.Errorf("over a damaged model: %v", err)
	}
	if diff := cmp.Diff(testFiles, readModel(t, dir)); diff != "" {
		t.Error(diff)
	}
	if err := os.Remove(filepath.Join(dir, manifestFile)); err != nil {
		t.Fatal(err)
	}
	if err := pull(other.Digest); err == nil || !strings.Contains(err.Error(), "holds something else than a pulled model") {
		t.Errorf("over a folder of somebody else: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(dir)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestConcurrentPulls(t *testing.T) {
	_, repo := startRegistry(t)
	pushed := mustPush(t, repo)
	dir := filepath.Join(t.TempDir(), "model")
	results := make(chan error)
	for range 8 {
		go func() { results <- Pull(t.Context(), repo, pushed.Digest, dir) }()
	}
	for range 8 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(testFiles, readModel(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestPushWhatIsNoModel(t *testing.T) {
	_, repo := startRegistry(t)
	if _, err := Push(t.Context(), repo, t.TempDir()); err == nil || !strings.Contains(err.Error(), "no files") {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := Push(t.Context(), repo, filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Push(t.Context(), repo, dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder within: %v", err)
	}
}

func FuzzModelFiles(f *testing.F) {
	for _, title := range []string{"model.onnx", "../model.onnx", "/etc/passwd", "a/b", `a\b`, ".hidden", "", "a\x00"} {
		layer := ocispec.Descriptor{Digest: digest.FromString(""), Annotations: map[string]string{ocispec.AnnotationTitle: title}}
		manifest, err := packManifest([]ocispec.Descriptor{layer, ocispec.DescriptorEmptyJSON})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(manifest)
	}
	f.Fuzz(func(t *testing.T, manifest []byte) {
		files, err := modelFiles(manifest)
		if (err == nil) != (len(files) > 0) {
			t.Fatalf("%d files, %v", len(files), err)
		}
		for _, file := range files {
			name := file.Annotations[ocispec.AnnotationTitle]
			if name == "" || filepath.Join("dir", name) != "dir/"+name || filepath.Dir(filepath.Join("dir", name)) != "dir" {
				t.Fatalf("accepted the name %q", name)
			}
		}
	})
}
