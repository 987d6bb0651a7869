package app

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/spec"
)

// TestTracesReachTheCollector runs the program with an endpoint in its
// environment, asks once, and reads what it has sent when it is gone.
func TestTracesReachTheCollector(t *testing.T) {
	var mutex sync.Mutex
	var names []string
	var service string
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var sent coltrace.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &sent); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		mutex.Lock()
		defer mutex.Unlock()
		for _, of := range sent.GetResourceSpans() {
			for _, a := range of.GetResource().GetAttributes() {
				if a.GetKey() == "service.name" {
					service = a.GetValue().GetStringValue()
				}
			}
			for _, scope := range of.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					names = append(names, s.GetName())
				}
			}
		}
	}))
	defer collector.Close()
	config, err := json.Marshal(spec.Serve{Models: []spec.ServedModel{published(t)}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), spec.ServeKey)
	if err := os.WriteFile(file, config, 0o644); err != nil {
		t.Fatal(err)
	}
	c := server(t, "--config", file, "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--operations-listen", "127.0.0.1:0",
		"--stop-quiet", "10ms", "--stop-least", "10ms")
	c.Env = append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL, "OTEL_SERVICE_NAME=digits"}, c.Env...)
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	predictions, _ := listening(t, stderr)
	ready(t, predictions)
	response, err := http.Post(predictions+"/v1/models/line:predict", "application/json", strings.NewReader(`{"instances":[{"x":20}]}`))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	mutex.Lock()
	defer mutex.Unlock()
	if got := strings.Join(names, " "); got != "decode compute encode predict" || service != "digits" {
		t.Errorf("the collector got %q of %q", got, service)
	}
}

func TestOtherProtocolsOfTracesAreRefused(t *testing.T) {
	c := server(t)
	c.Env = append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, c.Env...)
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "OTEL_EXPORTER_OTLP_PROTOCOL is grpc; the server speaks http/protobuf") {
		t.Errorf("got %v: %s", err, out)
	}
}
