package trainingjob

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"trainyard.dev/trainyard/controllers/isolation"
	"trainyard.dev/trainyard/runtime/spec"
)

// HTTPProgress asks trainers over HTTP. An answer that takes longer than the
// timeout is none: the next pass asks again.
func HTTPProgress(timeout time.Duration) func(context.Context, *corev1.Pod) (*spec.Progress, error) {
	client := isolation.Client(timeout)
	return func(ctx context.Context, pod *corev1.Pod) (*spec.Progress, error) {
		url := "http://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(spec.ProgressPort)) + "/progress"
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answered %s", url, response.Status)
		}
		var progress spec.Progress
		if err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&progress); err != nil {
			return nil, fmt.Errorf("reading %s: %w", url, err)
		}
		return &progress, nil
	}
}
