package modelservice

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"trainyard.dev/trainyard/controllers/isolation"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/runtime/spec"
)

// Servers talks to the servers in running pods, on their operations port.
type Servers interface {
	// Models tells which models the pod's server has, or tries to have.
	Models(ctx context.Context, pod *corev1.Pod) ([]spec.ModelStatus, error)
	// Load has the pod's server take a model; it serves the one before until
	// the new one is ready.
	Load(ctx context.Context, pod *corev1.Pod, model spec.ServedModel) error
	// Stats tells how busy the pod's server is.
	Stats(ctx context.Context, pod *corev1.Pod) (spec.Stats, error)
}

// Followers talks to the pods that look at an address for models.
type Followers interface {
	// Followed tells what the pod has found.
	Followed(ctx context.Context, pod *corev1.Pod) (spec.Followed, error)
}

// HTTPServers is [Servers], [Followers] and [Gateways] over HTTP.
type HTTPServers struct {
	client *http.Client
	// calls holds one place for each call that is under way.
	calls chan struct{}
}

// mostCalls bounds how many calls are under way at the same time. As many pods
// may be silent, each of which takes two places for half of the time, before
// others are asked less often for it.
const mostCalls = 256

// NewHTTPServers gives up on a server that does not answer within the timeout.
func NewHTTPServers(timeout time.Duration) *HTTPServers {
	return &HTTPServers{client: isolation.Client(timeout), calls: make(chan struct{}, mostCalls)}
}

// Models implements [Servers].
func (s *HTTPServers) Models(ctx context.Context, pod *corev1.Pod) ([]spec.ModelStatus, error) {
	var models []spec.ModelStatus
	err := s.call(ctx, http.MethodPost, pod, spec.OperationsPort, "/v2/repository/index", nil, &models)
	return models, err
}

// Load implements [Servers].
func (s *HTTPServers) Load(ctx context.Context, pod *corev1.Pod, model spec.ServedModel) error {
	return s.call(ctx, http.MethodPost, pod, spec.OperationsPort, "/v2/repository/models/"+model.Name+"/load", model, nil)
}

// Stats implements [Servers].
func (s *HTTPServers) Stats(ctx context.Context, pod *corev1.Pod) (spec.Stats, error) {
	var stats spec.Stats
	err := s.call(ctx, http.MethodGet, pod, spec.OperationsPort, "/stats", nil, &stats)
	return stats, err
}

// Followed implements [Followers].
func (s *HTTPServers) Followed(ctx context.Context, pod *corev1.Pod) (spec.Followed, error) {
	var followed spec.Followed
	err := s.call(ctx, http.MethodGet, pod, spec.OperationsPort, "/followed", nil, &followed)
	return followed, err
}

// Report implements [Gateways].
func (s *HTTPServers) Report(ctx context.Context, pod *corev1.Pod) (routing.Report, error) {
	var report routing.Report
	err := s.call(ctx, http.MethodGet, pod, routing.ReportPort, "/report", nil, &report)
	return report, err
}

// maxAnswer bounds what is read from a pod.
const maxAnswer = 4 << 20

//nolint:unparam // servers and gateways have the same port by chance
func (s *HTTPServers) call(ctx context.Context, method string, pod *corev1.Pod, port int, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(encoded)
	}
	url := "http://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(port)) + path
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	s.calls <- struct{}{}
	defer func() { <-s.calls }()
	response, err := s.client.Do(request)
	if err != nil {
		return fmt.Errorf("asking pod %s: %w", pod.Name, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer of pod %s: %w", pod.Name, err)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("pod %s answers %s: %s", pod.Name, response.Status, strings.TrimSpace(string(answer)))
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("reading the answer of pod %s: %w", pod.Name, err)
	}
	return nil
}
