package serve

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"trainyard.dev/trainyard/runtime/spec"
)

// metrics is what GET /metrics shows.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	errors   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	batches  *prometheus.HistogramVec
	loads    *prometheus.CounterVec
	loadTime *prometheus.GaugeVec
	models   *Models

	mu sync.Mutex
	// gone are versions that were served, and since when they are not.
	gone map[label]time.Time
}

// label is what series are told apart by.
type label struct{ model, version string }

// seriesKept is for how long the series of a version that is gone stay: those who
// measure shall see its last counts.
const seriesKept = 15 * time.Minute

// buckets go from what a small network needs to what a client gives up on.
var buckets = []float64{
	.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
}

func newMetrics(a *activity) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		gone:     map[label]time.Time{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trainyard_server_requests_total",
			Help: "Requests for predictions that were answered. Those that met no loaded model have an empty model and version.",
		}, []string{"model", "version", "protocol", "code"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trainyard_server_errors_total",
			Help: "Requests for predictions that were refused or failed, by kind: invalid, unknown, too_large, unavailable, client_gone or failed.",
		}, []string{"model", "version", "kind"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "trainyard_server_request_duration_seconds",
			Help:    "Time from the head of a request for predictions to the end of its answer.",
			Buckets: buckets,
		}, []string{"model", "version", "protocol"}),
		batches: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "trainyard_server_batch_rows",
			Help:    "Rows that were computed at once, of one request or of several.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}, []string{"model", "version"}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trainyard_server_model_loads_total",
			Help: "Attempts to load a model, by outcome: success or failure.",
		}, []string{"model", "outcome"}),
		loadTime: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "trainyard_server_model_load_seconds",
			Help: "How long the successful load of the version took.",
		}, []string{"model", "version"}),
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trainyard_server_requests_in_flight",
		Help: "Requests for predictions that are being answered now.",
	}, func() float64 { n, _ := a.last(); return float64(n) })
	m.registry.MustRegister(m.requests, m.errors, m.duration, m.batches, m.loads, m.loadTime, inFlight,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.forget(time.Now())
		h.ServeHTTP(w, r)
	})
}

// retired begins the time after which the version is forgotten.
func (m *metrics) retired(model spec.ServedModel) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone[label{model.Name, model.Version()}] = time.Now()
}

// forget deletes the series of versions that are gone for long, so that a
// server that is given model after model does not grow.
func (m *metrics) forget(now time.Time) {
	served, names := m.served()
	m.mu.Lock()
	defer m.mu.Unlock()
	for l, since := range m.gone {
		if now.Sub(since) < seriesKept {
			continue
		}
		delete(m.gone, l)
		if !served[l] {
			version := prometheus.Labels{"model": l.model, "version": l.version}
			for _, vector := range m.byVersion() {
				vector.DeletePartialMatch(version)
			}
		}
		if !names[l.model] {
			m.loads.DeletePartialMatch(prometheus.Labels{"model": l.model})
		}
	}
}

// byVersion returns what has series of each version.
func (m *metrics) byVersion() []interface {
	DeletePartialMatch(prometheus.Labels) int
} {
	return []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.requests, m.errors, m.duration, m.batches, m.loadTime}
}

// served returns what is loaded, or being loaded, and its names.
func (m *metrics) served() (map[label]bool, map[string]bool) {
	served, names := map[label]bool{}, map[string]bool{}
	for _, s := range m.models.Index() {
		served[label{s.Name, s.Version}] = true
		names[s.Name] = true
	}
	return served, names
}

// answered counts a request for predictions. Served is nil when it met no
// version of a model, and code HTTP's number or gRPC's name.
func (m *metrics) answered(served *version, protocol, code string, took time.Duration) {
	var model spec.ServedModel
	if served != nil {
		model = served.model
	}
	version := model.Version()
	m.requests.WithLabelValues(model.Name, version, protocol, code).Inc()
	m.duration.WithLabelValues(model.Name, version, protocol).Observe(took.Seconds())
	if kind := kindOf(code); kind != "" {
		m.errors.WithLabelValues(model.Name, version, kind).Inc()
	}
}

// kindOf returns what kind of error a code of HTTP or gRPC tells; empty: none.
func kindOf(code string) string {
	switch code {
	case "200", "OK":
		return ""
	case "400", "415", "InvalidArgument":
		return "invalid"
	case "404", "NotFound":
		return "unknown"
	case "413", "ResourceExhausted":
		return "too_large"
	case "503", "Unavailable":
		return "unavailable"
	case "499", "Canceled", "DeadlineExceeded":
		return "client_gone"
	}
	return "failed"
}

// executions returns what is told the rows of each computation of a version.
func (m *metrics) executions(model spec.ServedModel) func(rows int) {
	rows := m.batches.WithLabelValues(model.Name, model.Version())
	return func(n int) { rows.Observe(float64(n)) }
}

func (m *metrics) loaded(model spec.ServedModel, took time.Duration, err error) {
	if err != nil {
		m.loads.WithLabelValues(model.Name, "failure").Inc()
		return
	}
	m.loads.WithLabelValues(model.Name, "success").Inc()
	m.loadTime.WithLabelValues(model.Name, model.Version()).Set(took.Seconds())
}

// watch shows how many models there are in each state.
func (m *metrics) watch(models *Models) {
	m.models = models
	m.registry.MustRegister(&states{models: models})
}

// states is a collector of what is loaded.
type states struct{ models *Models }

var (
	statesDescription = prometheus.NewDesc("trainyard_server_models",
		"Versions of models in the server, by state: READY, LOADING or UNAVAILABLE.", []string{"state"}, nil)
	busyDescription = prometheus.NewDesc("trainyard_server_model_requests_in_flight",
		"Requests for predictions that run on the version now.", []string{"model", "version"}, nil)
	memoryDescription = prometheus.NewDesc("trainyard_server_model_memory_bytes",
		"Size of the version's weights.", []string{"model", "version"}, nil)
)

// Describe implements [prometheus.Collector].
func (s *states) Describe(to chan<- *prometheus.Desc) {
	to <- statesDescription
	to <- busyDescription
	to <- memoryDescription
}

// Collect implements [prometheus.Collector].
func (s *states) Collect(to chan<- prometheus.Metric) {
	count := map[string]float64{spec.StateReady: 0, spec.StateLoading: 0, spec.StateUnavailable: 0}
	for _, m := range s.models.Index() {
		count[m.State]++
	}
	for state, n := range count {
		to <- prometheus.MustNewConstMetric(statesDescription, prometheus.GaugeValue, n, state)
	}
	s.models.each(func(v *version) {
		model, version := v.model.Name, v.model.Version()
		// One use is the registry's own.
		to <- prometheus.MustNewConstMetric(busyDescription, prometheus.GaugeValue, float64(v.uses.Load()-1), model, version)
		to <- prometheus.MustNewConstMetric(memoryDescription, prometheus.GaugeValue, float64(4*weights(v.network)), model, version)
	})
}
