package app

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"trainyard.dev/trainyard/runtime/spec"
)

// The test binary is the trainer when it is started with this variable.
const asTrainer = "TRAINER_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asTrainer) != "" {
		os.Exit(Main(""))
	}
	os.Exit(m.Run())
}

// process is a trainer on its own.
type process struct {
	*exec.Cmd
	resultFile string
	log        *bufio.Scanner
}

func start(t *testing.T, recipe string) *process {
	t.Helper()
	return startWith(t, recipe, nil, "--listen=127.0.0.1:0")
}

// startWith starts a trainer with more of an environment, and with arguments.
func startWith(t *testing.T, recipe string, environment []string, arguments ...string) *process {
	t.Helper()
	result := filepath.Join(t.TempDir(), "result")
	tr := &process{Cmd: exec.CommandContext(t.Context(), os.Args[0], append(arguments, "--result="+result)...), resultFile: result}
	tr.Env = append(append(os.Environ(), asTrainer+"=1", spec.TrainVariable+"="+recipe), environment...)
	stderr, err := tr.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	tr.log = bufio.NewScanner(stderr)
	if err := tr.Start(); err != nil {
		t.Fatal(err)
	}
	return tr
}

// address returns where the trainer serves, as it logged it.
func (tr *process) address(t *testing.T) string {
	t.Helper()
	return tr.logged(t, `listen=(\S+)`)[1]
}

// logged reads the log until a line matches the pattern, and returns its parts.
func (tr *process) logged(t *testing.T, pattern string) []string {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	for tr.log.Scan() {
		if m := expression.FindStringSubmatch(tr.log.Text()); m != nil {
			return m
		}
	}
	t.Fatalf("the trainer logs nothing like %s", pattern)
	return nil
}

// end waits for the process and returns its exit code and result.
func (tr *process) end(t *testing.T) (int, spec.Result) {
	t.Helper()
	for tr.log.Scan() {
		t.Log(tr.log.Text())
	}
	exit := (*exec.ExitError)(nil)
	if err := tr.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	text, err := os.ReadFile(tr.resultFile)
	if err != nil {
		t.Fatal(err)
	}
	var result spec.Result
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return tr.ProcessState.ExitCode(), result
}

// job trains y = x on a few rows.
func job(t *testing.T, epochs int32) spec.Train {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	source := filepath.Join(t.TempDir(), "data.csv")
	if err := os.WriteFile(source, []byte("x,y\n0,0\n1,1\n2,2\n3,3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return spec.Train{
		Name: "identity", Source: source, SourceName: "data.csv",
		Dataset:    spec.Dataset{Label: "y"},
		Network:    spec.Network{Layers: []spec.Layer{{Units: 1}}},
		Training:   spec.Training{Loss: spec.MeanSquaredError, Epochs: epochs},
		Repository: spec.Repository{Name: strings.TrimPrefix(server.URL, "http://") + "/identity", PlainHTTP: true},
	}
}

func encoded(t *testing.T, job spec.Train) string {
	t.Helper()
	text, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTrainer(t *testing.T) {
	code, result := start(t, encoded(t, job(t, 3))).end(t)
	if code != 0 || result.Failure != nil || result.Model == nil || !strings.HasPrefix(result.Model.Digest, "sha256:") {
		t.Errorf("code %d with %+v", code, result)
	}
}

func TestTrainerRefusesRecipes(t *testing.T) {
	unknown := strings.Replace(encoded(t, job(t, 3)), `{`, `{"patience":3,`, 1)
	wrong := job(t, 3)
	wrong.Network.Layers[0].Units = 2
	for _, c := range []struct{ recipe, words string }{
		{"", "TRAINYARD_TRAIN is empty"},
		{unknown, `unknown field "patience"`},
		{`{"name":`, "unexpected EOF"},
		{encoded(t, job(t, 3)) + "{}", "something follows"},
		{encoded(t, wrong), "set network.layers[0].units to 1"},
	} {
		code, result := start(t, c.recipe).end(t)
		if code != spec.ExitInvalid || result.Failure == nil || !strings.Contains(result.Failure.Message, c.words) {
			t.Errorf("code %d with %+v, want %d with %q", code, result.Failure, spec.ExitInvalid, c.words)
		}
	}
}

// On SIGTERM the trainer leaves a result and the exit code that says so.
func TestTrainerIsTerminated(t *testing.T) {
	tr := start(t, encoded(t, job(t, 1e6)))
	url := "http://" + tr.address(t) + "/progress"
	for deadline := time.Now().Add(30 * time.Second); progress(t, url).Epoch < 2; {
		if time.Now().After(deadline) {
			t.Fatal("no progress")
		}
	}
	if err := tr.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	code, result := tr.end(t)
	if code != spec.ExitInterrupted || result.Failure == nil || result.Failure.Reason != spec.ReasonInterrupted || result.Progress == nil {
		t.Errorf("code %d with %+v", code, result)
	}
}

func progress(t *testing.T, url string) spec.Progress {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var p spec.Progress
	if err := json.NewDecoder(response.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}
