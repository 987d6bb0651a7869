package train

import (
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"trainyard.dev/trainyard/runtime/spec"
)

// Handler answers GET /progress with a [spec.Progress] as JSON, GET /metrics
// for Prometheus, and GET /healthz.
func (m *Monitor) Handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector{m},
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /progress", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// The only error is that the client went away.
		_ = json.NewEncoder(w).Encode(m.Progress())
	})
	return mux
}

// collector gives a monitor's progress to Prometheus.
type collector struct{ monitor *Monitor }

// gauges are the numbers of a progress.
var gauges = []struct {
	description *prometheus.Desc
	value       func(p spec.Progress) float64
}{
	{describe("epoch", "Epoch that runs or ended last, from 1."), func(p spec.Progress) float64 { return float64(p.Epoch) }},
	{describe("epochs", "Epochs that were asked for."), func(p spec.Progress) float64 { return float64(p.Epochs) }},
	{describe("step", "Step of the epoch, from 1."), func(p spec.Progress) float64 { return float64(p.Step) }},
	{describe("steps", "Steps of an epoch."), func(p spec.Progress) float64 { return float64(p.Steps) }},
	{describe("loss", "Mean loss of the epoch so far."), func(p spec.Progress) float64 { return p.Loss }},
	{describe("samples_per_second", "Rows that training went through per second."), func(p spec.Progress) float64 { return p.SamplesPerSecond }},
	{describe("left_seconds", "Estimate of the seconds until the last epoch ends."), func(p spec.Progress) float64 { return p.SecondsLeft }},
}

var measured = describe("metric", "Metric of the last epoch that was measured.", "name")

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("trainyard_trainer_"+name, help, labels, nil)
}

// Describe implements [prometheus.Collector].
func (c collector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, g := range gauges {
		descriptions <- g.description
	}
	descriptions <- measured
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	p := c.monitor.Progress()
	for _, g := range gauges {
		metrics <- prometheus.MustNewConstMetric(g.description, prometheus.GaugeValue, g.value(p))
	}
	for name, value := range p.Metrics {
		metrics <- prometheus.MustNewConstMetric(measured, prometheus.GaugeValue, value, name)
	}
}
