package app

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// asServer makes the test's own binary behave as the server.
const asServer = "TRAINYARD_TEST_AS_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

func server(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), asServer+"=1", "TMPDIR="+t.TempDir())
	return c
}

func TestWrongUsageEndsWithASentence(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "serve.json")
	if err := os.WriteFile(bad, []byte(`{"models":[{"name":"x","digest":"latest"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--nonsense"}, "unknown flag: --nonsense"},
		{[]string{"serve"}, `unexpected argument "serve"`},
		{[]string{"--max-rows", "0"}, "must be at least 1"},
		{[]string{"--write-timeout", "0"}, "--idle-timeout must be above 0"},
		{[]string{"--max-bytes-in-flight", "100"}, "must be at least --max-body-bytes"},
		{[]string{"--max-batch-size", "1000"}, "--max-batch-size must be from 0 to 256"},
		{[]string{"--config", "/does/not/exist"}, "reading the configuration: open /does/not/exist"},
		{[]string{"--config", bad, "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--operations-listen", "127.0.0.1:0"}, `the digest of model x is "latest"`},
	} {
		out, err := server(t, c.args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "server: ") || !strings.Contains(string(out), c.want) || strings.Contains(string(out), "goroutine") {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
	if out, err := server(t, "--help").CombinedOutput(); err != nil || !strings.Contains(string(out), "--max-rows") {
		t.Errorf("--help: %v\n%s", err, out)
	}
}

// published is a model of one input that answers 2x+1, in a registry.
func published(t *testing.T) spec.ServedModel {
	t.Helper()
	r := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(r.Close)
	d := nn.NewDense(1, 1, nn.Activation{})
	d.Weight.Data[0], d.Bias[0] = 2, 1
	dir := t.TempDir()
	err := model.Write(dir, &model.Model{
		Network: &nn.Network{Inputs: 1, Layers: []nn.Layer{d}},
		Metadata: model.Metadata{Name: "line", Inputs: []string{"x"}, Label: "y",
			Golden: &model.Golden{Inputs: [][]float32{{3}}, Outputs: [][]float32{{7}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	repo := spec.Repository{Name: strings.TrimPrefix(r.URL, "http://") + "/models/line", PlainHTTP: true}
	pushed, err := store.Push(t.Context(), repo, dir)
	if err != nil {
		t.Fatal(err)
	}
	return spec.ServedModel{Name: "line", Repository: repo, Digest: pushed.Digest}
}

// listening reads the log up to the addresses, and the rest in the background.
func listening(t *testing.T, from io.Reader) (predictions, operations string) {
	t.Helper()
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		var line struct{ Msg, Predictions, Operations string }
		if err := json.Unmarshal(lines.Bytes(), &line); err == nil && line.Msg == "listening" {
			go func() { _, _ = io.Copy(io.Discard, from) }()
			return "http://" + line.Predictions, "http://" + line.Operations
		}
	}
	t.Fatal("the server does not listen")
	return "", ""
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// ready waits until the server's models are loaded.
func ready(t *testing.T, predictions string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		code, body := get(t, predictions+"/v2/health/ready")
		if code == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the server does not become ready: %s", body)
		}
	}
}

func TestServerFromConfigurationToSIGTERM(t *testing.T) {
	config, err := json.Marshal(spec.Serve{Models: []spec.ServedModel{published(t)}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), spec.ServeKey)
	if err := os.WriteFile(file, config, 0o644); err != nil {
		t.Fatal(err)
	}
	c := server(t, "--config", file, "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--operations-listen", "127.0.0.1:0",
		"--stop-quiet", "100ms", "--stop-least", "200ms")
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	predictions, operations := listening(t, stderr)
	ready(t, predictions)
	response, err := http.Post(predictions+"/v1/models/line:predict", "application/json", strings.NewReader(`{"instances":[{"x":20}]}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if string(body) != `{"predictions":[[41]]}` {
		t.Errorf("got %d %s", response.StatusCode, body)
	}
	if code, body := get(t, operations+"/stats"); code != http.StatusOK || !strings.Contains(body, `"requests":1`) {
		t.Errorf("got %d %s", code, body)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	left, err := filepath.Glob(filepath.Join(tempOf(c), "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("the server left %v, %v", left, err)
	}
}

// tempOf is the folder that the server was given for temporary files.
func tempOf(c *exec.Cmd) string {
	_, dir, _ := strings.Cut(c.Env[len(c.Env)-1], "=")
	return dir
}
