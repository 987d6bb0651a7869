package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
)

// Servers run on the one core, the load generator on the other.
const serverCore, loadCore = "0", "1"

// side is a server that runs.
type side struct {
	name       string
	command    *exec.Cmd
	http, grpc string // host:port
	operations string
	log        string
}

func (s *side) infer(model string) string {
	return "http://" + s.http + "/v2/models/" + model + "/infer"
}

// ours starts this project's server with models, on cores.
func (b *bench) ours(cores string, models []spec.ServedModel, flags ...string) (*side, error) {
	config := filepath.Join(b.dir, spec.ServeKey)
	text, err := json.Marshal(spec.Serve{Models: models})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	image, err := imageEnvironment()
	if err != nil {
		return nil, err
	}
	s := &side{name: "ours", http: freeAddress(), grpc: freeAddress(), operations: freeAddress()}
	arguments := append([]string{"-c", cores, b.server, "--config=" + config, "--listen=" + s.http, "--grpc-listen=" + s.grpc,
		"--operations-listen=" + s.operations, "--stop-quiet=10ms", "--stop-least=10ms"}, flags...)
	c := exec.Command("taskset", arguments...)
	c.Env = append(os.Environ(), image...)
	return s, b.launch(s, models, c)
}

// imageEnvironment is what the image of the server sets.
func imageEnvironment() ([]string, error) {
	text, err := os.ReadFile("Dockerfile")
	var variables []string
	for line := range strings.Lines(string(text)) {
		if variable, ok := strings.CutPrefix(line, "ENV "); ok {
			variables = append(variables, strings.TrimSpace(variable))
		}
	}
	return variables, err
}

// peer starts a peer's server of a model.
func (b *bench) peer(name string, m *served) (*side, error) {
	s := &side{name: name, http: freeAddress(), grpc: freeAddress()}
	c := exec.Command("taskset", "-c", serverCore, filepath.Join(b.peers, name, "bin", "python"), filepath.Join("bench", "serve", "peers", name+"_server.py"))
	c.Env = append(os.Environ(), "MODEL="+filepath.Join(m.dir, "model.onnx"), "NAME="+m.Name, "INPUTS="+fmt.Sprint(m.inputs),
		"HTTP="+s.http, "GRPC="+s.grpc, "OMP_NUM_THREADS=1", "DIR="+b.dir)
	return s, b.launch(s, []spec.ServedModel{m.ServedModel}, c)
}

// bare starts a server that does nothing but answer, after so long.
func (b *bench) bare(after time.Duration) (*side, error) {
	s := &side{name: "floor", http: freeAddress()}
	_, port, err := net.SplitHostPort(s.http)
	if err != nil {
		return nil, err
	}
	const reply = 300 // bytes, about as many as an answer of the digits network
	return s, b.launch(s, []spec.ServedModel{{}}, exec.Command("taskset", "-c", serverCore, b.floor, port, strconv.Itoa(reply), strconv.FormatInt(after.Nanoseconds(), 10)))
}

// launch starts a side and waits until its models are ready.
func (b *bench) launch(s *side, models []spec.ServedModel, c *exec.Cmd) error {
	s.command, s.log = c, filepath.Join(b.dir, s.name+".log")
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return err
	}
	last := models[len(models)-1].Name
	for end := time.Now().Add(time.Minute); !answers("http://" + s.http + "/v2/models/" + last + "/ready"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.stop()
			return fmt.Errorf("%s is not ready after a minute; see %s", s.name, s.log)
		}
	}
	return nil
}

func answers(url string) bool {
	response, err := http.Get(url)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode == http.StatusOK
}

// stop ends a side. Its process may be gone already.
func (s *side) stop() {
	_ = s.command.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		_ = s.command.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = s.command.Process.Kill()
		<-done
	}
}

// check asks once, and shows that the answer is one.
func (s *side) check(model string, body []byte) error {
	response, err := http.Post(s.infer(model), "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var decoded struct {
		Outputs []struct{ Data []float64 }
	}
	if err := json.Unmarshal(answer, &decoded); err != nil || response.StatusCode != http.StatusOK || len(decoded.Outputs) != 1 || len(decoded.Outputs[0].Data) != 10 {
		return fmt.Errorf("%s answers %s: %s", s.name, response.Status, answer)
	}
	return nil
}

// load has the side serve a model in the place of its versions, and returns when
// it does.
func (s *side) load(m spec.ServedModel) error {
	body, err := json.Marshal(spec.LoadRequest{ServedModel: m})
	if err != nil {
		return err
	}
	response, err := http.Post("http://"+s.operations+"/v2/repository/models/"+m.Name+"/load", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("loading %s: %s: %s", m.Digest, response.Status, answer)
	}
	return err
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // a machine without a free port measures nothing
	}
	defer l.Close()
	return l.Addr().String()
}

// waited returns for how long threads of the side that could have run have not,
// since its core was taken.
func (s *side) waited() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		var ran, waited time.Duration
		if _, err := fmt.Sscan(string(text), &ran, &waited); err != nil {
			return 0, err
		}
		total += waited
	}
	return total, nil
}
