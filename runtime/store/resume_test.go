package store

import (
	"bytes"
	"context"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"trainyard.dev/trainyard/runtime/spec"
)

// distribution is a CNCF Distribution of its own: the registry of
// config/registry.
type distribution struct {
	binary, config, address string
	process                 *exec.Cmd
}

func startDistribution(t *testing.T) *distribution {
	t.Helper()
	dir := t.TempDir()
	d := &distribution{binary: filepath.Join(dir, "registry"), config: filepath.Join(dir, "config.yml"), address: freeAddress(t)}
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../hack/cluster", "-tags", "cluster_components", "-o", d.binary, "./cmd/registry")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the registry: %v\n%s", err, output)
	}
	config := "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n" +
		"storage: {filesystem: {rootdirectory: " + filepath.Join(dir, "data") + "}}\n" +
		"http: {addr: '" + d.address + "'}\n"
	if err := os.WriteFile(d.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	d.start(t)
	return d
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

// start waits until the registry answers.
func (d *distribution) start(t *testing.T) {
	t.Helper()
	d.process = exec.Command(d.binary, "serve", d.config)
	d.process.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		response, err := http.Get("http://" + d.address + "/v2/")
		if err == nil {
			response.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the registry doesn't answer: %v", err)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

func (d *distribution) stop() {
	_ = d.process.Process.Kill() // it may have ended
	_ = d.process.Wait()
}

// line is a way to a server that counts what it carries, and breaks.
type line struct {
	listener net.Listener
	target   string
	up, down atomic.Int64
	// The line breaks once when it has carried that many bytes up, or down; then
	// the next number counts.
	mu               sync.Mutex
	breakUp, breakDn []int64
	// dead: it takes no connections.
	dead atomic.Bool
}

func newLine(t *testing.T, target string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{listener: listener, target: target}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(near)
		}
	}()
	return l
}

func (l *line) repository() spec.Repository {
	return spec.Repository{Name: l.listener.Addr().String() + "/team/large", PlainHTTP: true}
}

func (l *line) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", l.target)
	if err != nil || l.dead.Load() {
		return
	}
	defer far.Close()
	ended := make(chan struct{}, 2)
	pump := func(to io.Writer, from io.Reader, count *atomic.Int64, breaks *[]int64) {
		defer func() { ended <- struct{}{} }()
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if _, failed := to.Write(buffer[:n]); failed != nil || err != nil || l.breaks(count.Add(int64(n)), breaks) || l.dead.Load() {
				return
			}
		}
	}
	go pump(far, near, &l.up, &l.breakUp)
	go pump(near, far, &l.down, &l.breakDn)
	<-ended
}

func (l *line) breaks(carried int64, at *[]int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(*at) == 0 || carried < (*at)[0] {
		return false
	}
	*at = (*at)[1:]
	return true
}

// largeModel is larger than what goes in one request.
func largeModel(t *testing.T, size int) map[string]string {
	t.Helper()
	weights := make([]byte, size)
	random := rand.NewChaCha8([32]byte{7})
	_, _ = random.Read(weights) // never fails
	return map[string]string{"model.onnx": "a graph", "model.safetensors": string(weights)}
}

const mib = 1 << 20

var size = flag.Int("mib", 100, "size of the model of TestTransfersGoOn")

// lost bounds what may be lost in a break: what the line's ends had in their
// buffers.
const lost = 8 * mib

func checkCarried(t *testing.T, what string, carried *atomic.Int64, size, breaks int64) {
	t.Helper()
	if got := carried.Load(); got > size+breaks*lost {
		t.Errorf("%s carried %d bytes for %d, with %d breaks", what, got, size, breaks)
	} else {
		t.Logf("%s carried %d bytes for %d, with %d breaks", what, got, size, breaks)
	}
}

func mustPull(t *testing.T, repo spec.Repository, d string, want map[string]string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := Pull(t.Context(), repo, d, dir); err != nil {
		t.Fatal(err)
	}
	checkModel(t, dir, want)
}

func checkModel(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	for name, data := range readModel(t, dir) {
		if digest.FromString(data) != digest.FromString(want[name]) {
			t.Errorf("%s has %d other bytes", name, len(data))
		}
	}
	if got, want := len(readModel(t, dir)), len(want); got != want {
		t.Errorf("%d files, want %d", got, want)
	}
}

func TestTransfersGoOn(t *testing.T) {
	registry := startDistribution(t)
	files := largeModel(t, *size*mib)
	dir := writeModel(t, files)
	bytes := int64(*size) * mib

	up := newLine(t, registry.address)
	// Within a piece, at the end of one, within the last, and at the very end.
	up.breakUp = []int64{10 * mib, 40 * mib, bytes / 2, bytes - mib}
	pushed, err := Push(t.Context(), up.repository(), dir)
	if err != nil {
		t.Fatal(err)
	}
	checkCarried(t, "push", &up.up, bytes, 4)

	// Somebody who starts over sends nothing that is there.
	again := newLine(t, registry.address)
	if second, err := Push(t.Context(), again.repository(), writeModel(t, files)); err != nil || second.Digest != pushed.Digest {
		t.Errorf("again: %v, %v", second, err)
	}
	checkCarried(t, "second push", &again.up, mib, 0)

	down := newLine(t, registry.address)
	down.breakDn = []int64{10 * mib, bytes / 2, bytes - 10*mib}
	mustPull(t, down.repository(), pushed.Digest, files)
	checkCarried(t, "pull", &down.down, bytes, 2*3) // a break each, and the request for the whole that is broken off
}

// A call that gave up leaves the next one its work, even when the registry was
// started anew meanwhile.
func TestTheNextCallGoesOn(t *testing.T) {
	registry := startDistribution(t)
	files := largeModel(t, 60*mib)
	dir := writeModel(t, files)
	l := newLine(t, registry.address)
	whenAt := func(carried *atomic.Int64, size int64) context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for carried.Load() < size && ctx.Err() == nil {
				time.Sleep(time.Millisecond) // between two looks
			}
			cancel()
		}()
		return ctx
	}
	if _, err := Push(whenAt(&l.up, 40*mib), l.repository(), dir); err == nil {
		t.Fatal("the push was not broken off")
	}
	registry.stop()
	registry.start(t)
	pushed, err := Push(t.Context(), l.repository(), dir)
	if err != nil {
		t.Fatal(err)
	}
	checkCarried(t, "two pushes", &l.up, 60*mib, 1)
	if notes, _ := filepath.Glob(filepath.Join(dir, ".*")); len(notes) > 0 {
		t.Errorf("left behind: %v", notes)
	}

	l.down.Store(0)
	pulled := filepath.Join(t.TempDir(), "model")
	if err := Pull(whenAt(&l.down, 30*mib), l.repository(), pushed.Digest, pulled); err == nil {
		t.Fatal("the pull was not broken off")
	}
	if err := Pull(t.Context(), l.repository(), pushed.Digest, pulled); err != nil {
		t.Fatal(err)
	}
	checkModel(t, pulled, files)
	checkCarried(t, "two pulls", &l.down, 60*mib, 2)
	if entries, _ := os.ReadDir(filepath.Dir(pulled)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestRegistriesWithoutPieces(t *testing.T) {
	files := largeModel(t, pieceBytes+1)
	for name, test := range map[string]fault{
		"no PATCH": func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodPatch && answer(405, "")(w, r)
		},
		"no status of uploads": func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/uploads/") && answer(404, "")(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, repo := startRegistry(t)
			var broken atomic.Bool
			r.set(func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method == http.MethodPut && !broken.Swap(true) {
					return cutConnection(w, req)
				}
				return test(w, req)
			})
			pushed, err := Push(t.Context(), repo, writeModel(t, files))
			if err != nil {
				t.Fatal(err)
			}
			mustPull(t, repo, pushed.Digest, files)
		})
	}
}

// An upload goes nowhere but to the registry.
func TestUploadsStayAtTheRegistry(t *testing.T) {
	r, repo := startRegistry(t)
	r.set(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPost {
			return false
		}
		w.Header().Set("Location", "http://elsewhere.invalid/upload")
		w.WriteHeader(http.StatusAccepted)
		return true
	})
	_, err := Push(t.Context(), repo, writeModel(t, largeModel(t, pieceBytes+1)))
	if err == nil || !strings.Contains(err.Error(), "is on a different host") {
		t.Errorf("got %v", err)
	}
	dir := writeModel(t, testFiles)
	for _, noted := range []string{"", "sha256:0", "sha256:0 http://elsewhere.invalid/upload", "%", digest.FromString("").String() + " http://elsewhere.invalid/x"} {
		note := filepath.Join(dir, ".note")
		if err := os.WriteFile(note, []byte(noted), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := newClient(repo)
		if err != nil {
			t.Fatal(err)
		}
		layers, err := describe(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		layers[0].Digest = digest.FromString("")
		if u := c.resumeUpload(layers[0], note); u.location != nil {
			t.Errorf("%q leads to %v", noted, u.location)
		}
	}
}

// What lies there is not trusted.
func TestPullOverDamagedParts(t *testing.T) {
	_, repo := startRegistry(t)
	pushed := mustPush(t, repo)
	for name, part := range map[string]string{
		"other bytes": strings.Repeat("x", 100),
		"too long":    strings.Repeat("weights ", 10001),
		"whole":       testFiles["model.safetensors"],
		"nothing":     "",
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			place := filepath.Join(parent, partialPrefix+strings.TrimPrefix(pushed.Digest, "sha256:"))
			if err := os.Mkdir(place, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(place, "model.safetensors"), []byte(part), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(parent, "model")
			if err := Pull(t.Context(), repo, pushed.Digest, dir); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(testFiles, readModel(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPartsDoNotStayForever(t *testing.T) {
	_, repo := startRegistry(t)
	pushed := mustPush(t, repo)
	parent := t.TempDir()
	old, fresh, taken := filepath.Join(parent, partialPrefix+"old"), filepath.Join(parent, partialPrefix+"fresh"), filepath.Join(parent, partialPrefix+"taken")
	for path, age := range map[string]time.Duration{old: 2 * keptFor, fresh: 0, taken: 2 * keptFor} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	unlock, ok := lockFolder(taken)
	if !ok {
		t.Skip("folders cannot be locked here")
	}
	defer unlock()
	if err := Pull(t.Context(), repo, pushed.Digest, filepath.Join(parent, "model")); err != nil {
		t.Fatal(err)
	}
	var left bytes.Buffer
	entries, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		left.WriteString(entry.Name() + " ")
	}
	if got, want := left.String(), ".pull-fresh .pull-taken model "; got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
}

// TestFolderOfAnotherPull is left alone by one that is done, and that had its own at
// the same path before.
func TestFolderOfAnotherPull(t *testing.T) {
	dir, model := filepath.Join(t.TempDir(), "model"), digest.FromString("model")
	done, err := openPartial(dir, model)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(done.path, dir); err != nil {
		t.Fatal(err)
	}
	other, err := openPartial(dir, model)
	if err != nil {
		t.Fatal(err)
	}
	done.close(false)
	if _, err := os.Stat(other.path); err != nil {
		t.Errorf("the folder of another Pull: %v", err)
	}
	other.close(false)
	if _, err := os.Stat(other.path); !os.IsNotExist(err) {
		t.Errorf("its own folder is left: %v", err)
	}
}

func TestReceived(t *testing.T) {
	for header, want := range map[string]int64{
		"0-1023": 1024, "bytes=0-9": 10, "0-0": 1, "": -1, "-": -1, "0-": -1, "0--5": -1, "x": -1, "0-9223372036854775807": -1, "0-99999999999999999999": -1,
	} {
		if got := received(http.Header{"Range": {header}}); got != want {
			t.Errorf("%q: %d, want %d", header, got, want)
		}
	}
}
