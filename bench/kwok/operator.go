package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Where manager and gateway listen. The ports that they have in a pod are those
// of the pods that this program plays, and from 10000 on the gateway's.
const (
	managerMetrics    = "127.0.0.1:8180"
	managerProbes     = "127.0.0.1:8181"
	managerProfiles   = "127.0.0.1:8182"
	gatewayOperations = "127.0.0.1:" + gatewayPort
	gatewayPort       = "8183"
)

// manager is the running operator.
type manager struct {
	pid int
}

// startOperator starts the manager and the gateway, with no more permissions
// than they have in a cluster, and the manager with the memory limit that
// config/manager tells Go's collector.
func (b *bench) startOperator() error {
	managers, err := b.kubeconfigOf("manager")
	if err != nil {
		return err
	}
	gateways, err := b.kubeconfigOf("gateway")
	if err != nil {
		return err
	}
	pid, err := b.start("manager", filepath.Join(b.operator, "manager"),
		[]string{"KUBECONFIG=" + managers, "POD_NAMESPACE=" + system, "GOMEMLIMIT=200MiB"},
		"--metrics-address="+managerMetrics, "--probe-address="+managerProbes, "--pprof-address="+managerProfiles,
		"--registry=registry/models", "--registry-plain-http")
	if err != nil {
		return err
	}
	b.manager = &manager{pid}
	_, err = b.start("gateway", filepath.Join(b.operator, "gateway"), []string{"KUBECONFIG=" + gateways},
		"--operations-port="+gatewayPort, "--alive-listen=127.0.0.1:0")
	if err != nil {
		return err
	}
	for name, address := range map[string]string{"manager": managerProbes, "gateway": gatewayOperations} {
		err := until(b.ctx, "the "+name+" to be ready", time.Minute, func(ctx context.Context) (bool, error) {
			answer, err := get(ctx, "http://"+address+"/readyz")
			if err != nil {
				return false, nil // it doesn't listen yet
			}
			return true, answer.Close()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func get(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s answers %s", url, response.Status), response.Body.Close())
	}
	return response.Body, nil
}

// memory is how many MiB the manager takes now, and took at most, as the kernel
// counts them.
func (m *manager) memory() (now, peak int, err error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", m.pid))
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if key != "VmRSS" && key != "VmHWM" {
			continue
		}
		kilobytes, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		if err != nil {
			return 0, 0, fmt.Errorf("reading the manager's memory: %w", err)
		}
		if key == "VmRSS" {
			now = kilobytes / 1024
		} else {
			peak = kilobytes / 1024
		}
	}
	return now, peak, nil
}

// reading is what the manager's metrics say at one time.
type reading struct {
	at time.Time
	// reconciles counts by upper bound in seconds, as Prometheus has it: each
	// bound includes those below.
	reconciles map[float64]uint64
	count      uint64
	errors     float64
	cpu        float64
}

// read reads the metrics about one of the manager's controllers.
func (m *manager) read(ctx context.Context, controller string) (reading, error) {
	body, err := get(ctx, "http://"+managerMetrics+"/metrics")
	if err != nil {
		return reading{}, fmt.Errorf("reading the manager's metrics: %w", err)
	}
	defer func() { _ = body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(body)
	if err != nil {
		return reading{}, fmt.Errorf("reading the manager's metrics: %w", err)
	}
	r := reading{at: time.Now(), reconciles: map[float64]uint64{}}
	for _, metric := range families["controller_runtime_reconcile_time_seconds"].GetMetric() {
		if !isOf(metric, controller) {
			continue
		}
		r.count = metric.GetHistogram().GetSampleCount()
		for _, bucket := range metric.GetHistogram().GetBucket() {
			r.reconciles[bucket.GetUpperBound()] = bucket.GetCumulativeCount()
		}
	}
	for _, metric := range families["controller_runtime_reconcile_errors_total"].GetMetric() {
		if isOf(metric, controller) {
			r.errors = metric.GetCounter().GetValue()
		}
	}
	for _, metric := range families["process_cpu_seconds_total"].GetMetric() {
		r.cpu = metric.GetCounter().GetValue()
	}
	return r, nil
}

func isOf(metric *dto.Metric, controller string) bool {
	for _, label := range metric.GetLabel() {
		if label.GetName() == "controller" {
			return label.GetValue() == controller
		}
	}
	return false
}

// percentile is the smallest of the histogram's bounds that holds for that part
// of the passes since an earlier reading, in seconds. What is finer than the
// bounds isn't known.
func (r reading) percentile(since reading, part float64) float64 {
	wanted := uint64(math.Ceil(part * float64(r.count-since.count)))
	least := math.Inf(1)
	for bound, count := range r.reconciles {
		if count-since.reconciles[bound] >= wanted && bound < least {
			least = bound
		}
	}
	return least
}

// passes says how long a pass took since an earlier reading, and how many cores
// the manager had in that time.
func (r reading) passes(since reading) string {
	return fmt.Sprintf("p50 <= %g s, p99 <= %g s of %d passes; %g errors; %.2f cores",
		r.percentile(since, 0.5), r.percentile(since, 0.99), r.count-since.count, r.errors-since.errors,
		(r.cpu-since.cpu)/r.at.Sub(since.at).Seconds())
}

// profile saves what Go's profiler tells of the manager, if BENCH_PROFILE is
// set.
func (b *bench) profile(name string) error {
	if os.Getenv("BENCH_PROFILE") == "" {
		return nil
	}
	for file, path := range map[string]string{"heap": "heap", "cpu": "profile?seconds=10"} {
		body, err := get(b.ctx, "http://"+managerProfiles+"/debug/pprof/"+path)
		if err != nil {
			return fmt.Errorf("profiling the manager: %w", err)
		}
		content, err := io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil {
			return fmt.Errorf("profiling the manager: %w", err)
		}
		if err := os.WriteFile(b.file(name+"."+file+".pprof"), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
