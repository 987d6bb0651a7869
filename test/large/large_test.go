//go:build large

// Package large takes a model of more than 4 GiB all the way: written, pushed to
// CNCF Distribution, pulled and served by the real server, and asked. It needs
// 14 GB of disk and a minute or two:
//
//	go test -tags large -v ./test/large
//
// With -python, onnxruntime in that interpreter answers too; it takes twice the
// model's size in memory.
package large

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

var python = flag.String("python", "", "an interpreter with onnxruntime")

const inputs, hidden = 16400, 33000

// network has two tensors of more than 2 GiB each. Its weights are zeros that
// were never written, so they take no memory, but for a few.
func network() *nn.Network {
	first, second, third := nn.NewDense(inputs, hidden, nn.Activation{}), nn.NewDense(hidden, inputs, nn.Activation{}), nn.NewDense(inputs, 2, nn.Activation{})
	first.Weight.Data[hidden*inputs-1] = 2
	first.Bias[hidden-1] = 1
	second.Weight.Data[inputs*hidden-1] = 0.5
	second.Bias[inputs-1] = 0.25
	third.Weight.Data[inputs-1], third.Weight.Data[2*inputs-1] = 4, 10
	third.Bias[1] = -1
	return &nn.Network{Inputs: inputs, Layers: []nn.Layer{first, second, third}}
}

// row is answered by wanted: (3*2+1)*0.5 + 0.25 = 3.75, times 4, and 10 less 1.
func row() []float32 {
	x := make([]float32, inputs)
	x[inputs-1] = 3
	return x
}

var wanted = []float32{15, 36.5}

func TestLargeModel(t *testing.T) {
	began := time.Now()
	step := func(format string, args ...any) {
		t.Logf("%5.1f s  %s", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	dir := t.TempDir()
	if err := model.Write(dir, &model.Model{Network: network(), Metadata: model.Metadata{Name: "large"}}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "model.safetensors"))
	if err != nil || info.Size() < 4<<30 {
		t.Fatal(info, err)
	}
	step("written, %d bytes; this process: %s", info.Size(), memory(t, os.Getpid()))
	if *python != "" {
		askONNXRuntime(t, dir)
		step("onnxruntime agrees")
	}

	repo := spec.Repository{Name: startRegistry(t) + "/models/large", PlainHTTP: true}
	pushed, err := store.Push(t.Context(), repo, dir)
	if err != nil {
		t.Fatal(err)
	}
	step("pushed; this process: %s", memory(t, os.Getpid()))

	predictions, process := startServer(t, spec.ServedModel{Name: "large", Repository: repo, Digest: pushed.Digest})
	waitFor(t, predictions+"/v2/health/ready", 5*time.Minute)
	step("pulled and ready; the server: %s", memory(t, process))
	for range 3 {
		if got := ask(t, predictions); len(got) != 2 || got[0] != wanted[0] || got[1] != wanted[1] {
			t.Fatalf("answered %v, want %v", got, wanted)
		}
		step("answered; the server: %s", memory(t, process))
	}
	if own := anonymous(t, process); own > 256<<20 {
		t.Errorf("the server has %d bytes of its own", own)
	}
}

func build(t *testing.T, folder string, args ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	command := exec.CommandContext(t.Context(), "go", append([]string{"build", "-C", folder, "-o", binary}, args...)...)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("building %v: %v\n%s", args, err, output)
	}
	return binary
}

func start(t *testing.T, binary string, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.CommandContext(t.Context(), binary, args...)
	command.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none", "TMPDIR="+t.TempDir())
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended
		_ = command.Wait()
		if t.Failed() {
			t.Logf("%s said: %s", filepath.Base(binary), said.String())
		}
	})
	return command
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

func startRegistry(t *testing.T) (address string) {
	t.Helper()
	registry := build(t, "../../hack/cluster", "-tags", "cluster_components", "./cmd/registry")
	address = freeAddress(t)
	config := filepath.Join(t.TempDir(), "config.yml")
	text := "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: " + t.TempDir() + "}}\nhttp: {addr: '" + address + "'}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, registry, "serve", config)
	waitFor(t, "http://"+address+"/v2/", 20*time.Second)
	return address
}

func startServer(t *testing.T, served spec.ServedModel) (predictions string, process int) {
	t.Helper()
	config, err := json.Marshal(spec.Serve{Models: []spec.ServedModel{served}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), spec.ServeKey)
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	command := start(t, build(t, "../..", "./cmd/server"), "--config", file, "--listen", address, "--grpc-listen", "127.0.0.1:0", "--operations-listen", "127.0.0.1:0")
	return "http://" + address, command.Process.Pid
}

func waitFor(t *testing.T, url string, limit time.Duration) {
	t.Helper()
	var last string
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // between two looks
		response, err := http.Get(url)
		if err != nil {
			last = err.Error()
			continue
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
		last = string(body)
	}
	t.Fatalf("%s does not answer 200 after %v: %s", url, limit, last)
}

func ask(t *testing.T, predictions string) []float32 {
	t.Helper()
	request, err := json.Marshal(map[string]any{"instances": [][]float32{row()}})
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Post(predictions+"/v1/models/large:predict", "application/json", bytes.NewReader(request))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	var answer struct{ Predictions [][]float32 }
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Predictions) != 1 {
		t.Fatalf("%d %s: %v", response.StatusCode, body, err)
	}
	return answer.Predictions[0]
}

func askONNXRuntime(t *testing.T, dir string) {
	t.Helper()
	rows, err := json.Marshal([][]float32{row()})
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), *python, "../e2e/onnx_predict.py", filepath.Join(dir, "model.onnx"))
	command.Stdin, command.Stderr = bytes.NewReader(rows), os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answers [][]float32
	if err := json.Unmarshal(output, &answers); err != nil || answers[0][0] != wanted[0] || answers[0][1] != wanted[1] {
		t.Fatalf("onnxruntime answered %s, want %v (%v)", output, wanted, err)
	}
}

var resident = regexp.MustCompile(`(RssAnon|RssFile):\s*(\d+) kB`)

// memory is what a process has in memory: its own, and of files.
func memory(t *testing.T, process int) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(resident.FindAllString(string(status), -1), ", ")
}

func anonymous(t *testing.T, process int) int64 {
	t.Helper()
	found := resident.FindStringSubmatch(memory(t, process))
	if found == nil || found[1] != "RssAnon" {
		t.Fatalf("no RssAnon in %q", memory(t, process))
	}
	kilobytes, err := strconv.ParseInt(found[2], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}
