package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// load is what a load generator measured.
type load struct {
	rate     float64 // requests a second
	answered int
	p99      time.Duration
}

func (l load) String() string { return fmt.Sprintf("%.0f@%s", l.rate, l.p99.Round(time.Microsecond)) }

// duration of one measurement, after a warm-up of the same requests.
const (
	duration = 5 * time.Second
	warmUp   = time.Second
)

// script tells wrk what to ask, and prints what it measured in one line.
const script = `
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/json"
local head, pause = os.getenv("BENCH_HEAD"), tonumber(os.getenv("BENCH_PAUSE"))
if head ~= "0" then
  wrk.headers["Content-Type"] = "application/octet-stream"
  wrk.headers["Inference-Header-Content-Length"] = head
end
if pause > 0 then
  function delay() return math.random(0, 2 * pause) end
end
-- Once the file is there, new connections go to another server: as those of a
-- Service do when proxies know that a pod ends.
local moved, host, port = os.getenv("BENCH_MOVED"), os.getenv("BENCH_HOST"), os.getenv("BENCH_PORT")
if moved then
  local asked, text = 0, nil
  function init() text = wrk.format() end
  function request()
    asked = asked + 1
    if moved and asked % 100 == 0 then
      local file = io.open(moved)
      if file then
        file:close()
        wrk.thread.addr, moved = wrk.lookup(host, port)[1], nil
      end
    end
    return text
  end
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("\nRESULT %d %d %d %d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99)))
end
`

// generator is a load generator, on the second core.
type generator struct {
	dir, fortio string
	connections int
	// pause is between an answer and the connection's next request, on average.
	// Were it always the same, connections that met once would ask at the same
	// moment ever after.
	pause time.Duration
	// moved is a file. Once it is there, new connections go to host; empty: none
	// do.
	moved, host string
}

// post measures requests over HTTP/1.1. Head is 0 for JSON.
func (g generator) post(url string, body []byte, head int) (load, error) {
	if _, err := g.wrk(warmUp, url, body, head); err != nil {
		return load{}, err
	}
	return g.wrk(duration, url, body, head)
}

// wrk measures for so long.
func (g generator) wrk(d time.Duration, url string, body []byte, head int) (load, error) {
	lua, file := filepath.Join(g.dir, "wrk.lua"), filepath.Join(g.dir, "body")
	if err := errors.Join(os.WriteFile(lua, []byte(script), 0o600), os.WriteFile(file, body, 0o600)); err != nil {
		return load{}, err
	}
	c := exec.Command("taskset", "-c", loadCore, "wrk", "-t1", "-c", strconv.Itoa(g.connections), "-d", d.String(), "--timeout", "10s", "-s", lua, url)
	c.Env = append(os.Environ(), "BENCH_BODY="+file, "BENCH_HEAD="+strconv.Itoa(head),
		"BENCH_PAUSE="+strconv.FormatInt(g.pause.Milliseconds(), 10))
	if g.moved != "" {
		host, port, err := net.SplitHostPort(g.host)
		if err != nil {
			return load{}, err
		}
		c.Env = append(c.Env, "BENCH_MOVED="+g.moved, "BENCH_HOST="+host, "BENCH_PORT="+port)
	}
	output, err := c.CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w: %s", err, output)
	}
	var requests, micros, failed, p99 float64
	_, result, _ := strings.Cut(string(output), "RESULT ")
	if _, err := fmt.Sscan(result, &requests, &micros, &failed, &p99); err != nil {
		return load{}, fmt.Errorf("wrk said %s", output)
	}
	if failed > 0 {
		return load{}, fmt.Errorf("%.0f of %.0f requests failed", failed, requests)
	}
	return load{requests / micros * 1e6, int(requests), time.Duration(p99) * time.Microsecond}, nil
}

// inBursts asks about so many times a second: clients pause, and there are as many
// of them as that takes.
func (g generator) inBursts(rate float64, url string, body []byte) (load, error) {
	g.pause = 2 * time.Millisecond
	g.connections = max(1, int(rate*g.pause.Seconds()))
	first, err := g.wrk(warmUp, url, body, 0)
	if err != nil {
		return load{}, err
	}
	g.connections = max(1, int(float64(g.connections)*rate/first.rate))
	return g.wrk(duration, url, body, 0)
}

// evenly asks so many times a second, at moments that are spread evenly.
func (g generator) evenly(rate float64, url string, body []byte) (load, error) {
	if _, err := g.fixed(warmUp, rate, url, body); err != nil {
		return load{}, err
	}
	l, err := g.fixed(duration, rate, url, body)
	if err == nil && l.rate < 0.97*rate {
		err = fmt.Errorf("fortio asked %.0f times a second, when it should have asked %.0f times", l.rate, rate)
	}
	return l, err
}

// fixed measures for so long. A connection asks when it is its turn, and has its
// answer before that; 16 are enough for that, and more wait for one another.
func (g generator) fixed(d time.Duration, rate float64, url string, body []byte) (load, error) {
	file := filepath.Join(g.dir, "body")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return load{}, err
	}
	c := exec.Command("taskset", "-c", loadCore, g.fortio, "load", "-qps", strconv.FormatFloat(rate, 'f', 0, 64), "-uniform", "-jitter", "-c", "16",
		"-t", d.String(), "-payload-file", file, "-content-type", "application/json", "-p", "99", "-r", "0.00002", "-json", "-", "-loglevel", "error", url)
	c.Env = append(os.Environ(), "GOGC=off") // its pauses would be in the latency
	var said strings.Builder
	c.Stderr = &said
	output, err := c.Output()
	if err != nil {
		return load{}, fmt.Errorf("fortio: %w: %s", err, said.String())
	}
	return readFortio(output)
}

// readFortio reads what Fortio tells.
func readFortio(output []byte) (load, error) {
	var told struct {
		ActualQPS         float64
		RetCodes          map[string]int
		DurationHistogram struct {
			Percentiles []struct{ Percentile, Value float64 }
		}
	}
	if err := json.Unmarshal(output, &told); err != nil {
		return load{}, fmt.Errorf("fortio: %w", err)
	}
	percentiles := told.DurationHistogram.Percentiles
	if len(told.RetCodes) != 1 || told.RetCodes["200"] == 0 || len(percentiles) != 1 {
		return load{}, fmt.Errorf("fortio had answers of %v, and latencies of %v", told.RetCodes, percentiles)
	}
	return load{told.ActualQPS, told.RetCodes["200"], time.Duration(percentiles[0].Value * float64(time.Second))}, nil
}

// call measures unary calls of ModelInfer over gRPC, with the connections'
// calls at once.
func (g generator) call(host string, m []byte, connections int) (load, error) {
	file, log := filepath.Join(g.dir, "message"), filepath.Join(g.dir, "h2load.log")
	if err := os.WriteFile(file, framed(m), 0o600); err != nil {
		return load{}, err
	}
	output, err := exec.Command("taskset", "-c", loadCore, "h2load", "-c", strconv.Itoa(connections), "-m", strconv.Itoa(g.connections/connections),
		"-D", strconv.Itoa(int(duration.Seconds())), "--warm-up-time", strconv.Itoa(int(warmUp.Seconds())), "--log-file", log, "-d", file,
		"-H", "content-type: application/grpc", "-H", "te: trailers", "http://"+host+"/inference.GRPCInferenceService/ModelInfer").CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("h2load: %w: %s", err, output)
	}
	defer os.Remove(log)
	return readLog(log)
}

// readLog reads what h2load wrote of each request: its start, HTTP's status and
// how long it took, in microseconds.
func readLog(path string) (load, error) {
	file, err := os.Open(path)
	if err != nil {
		return load{}, err
	}
	defer file.Close()
	var took []int
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || fields[1] != "200" {
			return load{}, fmt.Errorf("h2load logged %q", lines.Text())
		}
		micros, err := strconv.Atoi(fields[2])
		if err != nil {
			return load{}, err
		}
		took = append(took, micros)
	}
	if len(took) == 0 {
		return load{}, errors.New("no call was answered")
	}
	slices.Sort(took)
	return load{float64(len(took)) / duration.Seconds(), len(took), time.Duration(took[len(took)*99/100]) * time.Microsecond}, nil
}
