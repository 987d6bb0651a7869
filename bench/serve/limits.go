package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"gonum.org/v1/gonum/blas/blas32"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"trainyard.dev/trainyard/runtime/spec"
)

// passed is a codec of messages that are bytes already.
type passed struct{}

func (passed) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (passed) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (passed) Name() string                       { return "proto" }

func dial(host string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(host, append(more, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(passed{})))...)
}

func callOnce(host string, m []byte) error {
	c, err := dial(host)
	if err != nil {
		return err
	}
	defer c.Close()
	return call(c, m)
}

// call makes a call, whose answer has to come in ten seconds.
func call(c *grpc.ClientConn, m []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var answer []byte
	return c.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", m, &answer)
}

// overhead: what a call costs over the forward pass. The server's own time is
// read from its histogram, the client's is measured by a Go client, one call
// after the other.
func (b *bench) overhead() error {
	m := b.models["digits"]
	s, err := b.ours(serverCore, []spec.ServedModel{m.ServedModel})
	if err != nil {
		return err
	}
	defer s.stop()
	c, err := dial(s.grpc)
	if err != nil {
		return err
	}
	defer c.Close()
	const calls = 20_000
	took := make([]time.Duration, 0, calls)
	for range calls {
		var answer []byte
		began := time.Now()
		if err := c.Invoke(context.Background(), "/inference.GRPCInferenceService/ModelInfer", message(m.Name, m.inputs), &answer); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	inServer, err := s.median(`protocol="grpc"`)
	if err != nil {
		return err
	}
	forward := m.forward()
	fmt.Printf("BENCH serve/overhead-grpc forward=%s in-server=%s round-trip=%s over-forward=%s target=40µs unit=median\n",
		forward, inServer.Round(100*time.Nanosecond), took[calls/2], (inServer - forward).Round(100*time.Nanosecond))
	return nil
}

// forward is the median time of a bare forward pass of one row, in this process.
func (m *served) forward() time.Duration {
	w := m.network.NewWorkspace(1)
	x := blas32.General{Rows: 1, Cols: m.inputs, Stride: m.inputs, Data: make([]float32, m.inputs)}
	took := make([]time.Duration, 1001)
	for i := range took {
		began := time.Now()
		m.network.Predict(x, w)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// median reads the server's histogram of durations, and takes what lies within a
// bucket as spread evenly, as Prometheus does.
func (s *side) median(label string) (time.Duration, error) {
	response, err := http.Get("http://" + s.operations + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var bounds, counts []float64 // up to each bound
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), "} ")
		if !strings.HasPrefix(name, "trainyard_server_request_duration_seconds_bucket") || !strings.Contains(name, label) {
			continue
		}
		_, bound, _ := strings.Cut(name, `le="`)
		upTo, err := strconv.ParseFloat(strings.TrimSuffix(bound, `"`), 64)
		if err != nil {
			return 0, err
		}
		count, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0, err
		}
		if len(bounds) > 0 && upTo <= bounds[len(bounds)-1] {
			return 0, fmt.Errorf("more than one histogram has %s: was a request refused?", label)
		}
		bounds, counts = append(bounds, upTo), append(counts, count)
	}
	if len(counts) == 0 || counts[len(counts)-1] == 0 {
		return 0, errors.New("the server counted no request")
	}
	half := counts[len(counts)-1] / 2
	i, _ := slices.BinarySearch(counts, half)
	from, below := 0.0, 0.0
	if i > 0 {
		from, below = bounds[i-1], counts[i-1]
	}
	seconds := from + (bounds[i]-from)*(half-below)/(counts[i]-below)
	return time.Duration(seconds * float64(time.Second)), nil
}

// start: from the start of the process to ready, with a model of 100 KB from a
// local registry. The median of several.
func (b *bench) start() error {
	var took []time.Duration
	for range 11 {
		began := time.Now()
		s, err := b.ours(serverCore+","+loadCore, []spec.ServedModel{b.models["small"].ServedModel})
		if err != nil {
			return err
		}
		took = append(took, time.Since(began))
		s.stop()
	}
	slices.Sort(took)
	fmt.Printf("BENCH serve/start ours=%s worst=%s target=60ms\n", took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	return nil
}

// memory: 1,000 models of 100 KB, each with files of its own.
func (b *bench) memory() error {
	var models []spec.ServedModel
	for i := range 1000 {
		m, err := b.registry.push(context.Background(), b.dir+"/thousand", fmt.Sprintf("m%0*d", 3+i, i), []int{128, 128, 64, 10})
		if err != nil {
			return err
		}
		m.Name = fmt.Sprintf("model-%04d", i)
		models = append(models, m.ServedModel)
	}
	began := time.Now()
	s, err := b.ours(serverCore+","+loadCore, models)
	if err != nil {
		return err
	}
	defer s.stop()
	for end := began.Add(2 * time.Minute); !answers("http://" + s.http + "/v2/health/ready"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("1,000 models are not loaded after two minutes")
		}
	}
	loaded := time.Since(began)
	for _, m := range models {
		if err := s.check(m.Name, jsonRequest(128)); err != nil {
			return err
		}
	}
	resident, err := s.resident()
	fmt.Printf("BENCH serve/memory models=1000 resident=%dMB loaded-in=%s target=400MB\n", resident>>20, loaded.Round(time.Millisecond))
	return err
}

// resident is the process's resident memory in bytes, mapped files included.
func (s *side) resident() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	kilobytes, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	return kilobytes << 10, err
}

// connections: 50,000 that stay open, idle, and then ask once each. Where a process
// may not have so many files, they are in gVisor; without it, there are as many as
// may be. A client's address has some 28,000 ports, so there are several.
func (b *bench) connections() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	const wanted, others = 50_000, 100 // files of the process that are no such connections
	most, note := wanted, ""
	if limit.Max < wanted+others {
		if runsc, err := exec.LookPath("runsc"); err == nil {
			return b.inside(runsc, wanted+others, limit.Max)
		}
		most = int(limit.Max - others)
		note = fmt.Sprintf(" (a process may have %d files open here; with Debian's package runsc, there are as many as wanted)", limit.Max)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("allowing %d open files: %w", limit.Cur, err)
	}
	m := b.models["digits"]
	s, err := b.ours(serverCore+","+loadCore, []spec.ServedModel{m.ServedModel},
		"--max-connections="+strconv.Itoa(most+1), "--max-connection-age=1h", "--idle-timeout=1h")
	if err != nil {
		return err
	}
	defer s.stop()
	open := make([]net.Conn, most)
	defer func() {
		for _, c := range open {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	refused := 0
	// Some ask at once: so one change between the processes, which takes long in
	// gVisor, is for several requests.
	ask := func(on func(i int) (net.Conn, error)) error {
		failed := make([]error, most)
		var g errgroup.Group
		g.SetLimit(64)
		for i := range most {
			g.Go(func() error {
				c, err := on(i)
				if err == nil {
					failed[i] = askOn(c, s.http, m.Name, jsonRequest(m.inputs))
				}
				return err
			})
		}
		err := g.Wait()
		failed = slices.DeleteFunc(failed, func(err error) bool { return err == nil })
		if refused += len(failed); len(failed) > 0 {
			log.Printf("bench: %d of %d requests failed, the first with: %v", len(failed), most, failed[0])
		}
		return err
	}
	if err := ask(func(i int) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%4))}, Timeout: 10 * time.Second}
		var err error
		open[i], err = d.Dial("tcp", s.http)
		return open[i], err
	}); err != nil {
		return err
	}
	resident, err := s.resident()
	if err != nil {
		return err
	}
	if err := ask(func(i int) (net.Conn, error) { return open[i], nil }); err != nil {
		return err
	}
	fmt.Printf("BENCH serve/connections wanted=%d open=%d refused=%d resident=%dMB target=0%s\n", wanted, len(open), refused, resident>>20, note)
	return nil
}

// inside runs this case in gVisor, a kernel that is a program: it has limits and a
// network of its own, and sees this system's files.
func (b *bench) inside(runsc string, files int, allowed uint64) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(runsc, "--rootless", "--network=none", "do", "sh", "-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(files),
		program, b.server, b.floor, b.fortio, b.peers, b.dir)
	c.Env = append(os.Environ(), "BENCH_CASES=connections")
	output, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("in gVisor: %w: %s", err, output)
	}
	fmt.Printf("%s (in gVisor, since a process may have %d files open here)\n", bytes.TrimSpace(output), allowed)
	return nil
}

// askOn asks on an open connection and reads the whole answer.
func askOn(c net.Conn, host, model string, body []byte) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "POST /v2/models/%s/infer HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", model, host, len(body), body); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %w", response.Status, err)
	}
	return nil
}
