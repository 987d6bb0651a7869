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
	duration *prometheus.HistogramVec
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
	.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
}

func newMetrics(a *activity) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		gone:     map[label]time.Time{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trainyard_server_requests_total",
			Help: "Requests for predictions that were answered. Those that met no loaded model have an empty model and version.",
		}, []string{"model", "version", "protocol", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "trainyard_server_request_duration_seconds",
			Help:    "Time from the head of a request for predictions to the end of its answer.",
			Buckets: buckets,
		}, []string{"model", "protocol"}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trainyard_server_model_loads_total",
			Help: "Attempts to load a model, by outcome: success or failure.",
		}, []string{"model", "outcome"}),
		loadTime: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "trainyard_server_model_load_seconds",
			Help: "How long the last successful load of the model took.",
		}, []string{"model"}),
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trainyard_server_requests_in_flight",
		Help: "Requests for predictions that are being answered now.",
	}, func() float64 { n, _ := a.last(); return float64(n) })
	m.registry.MustRegister(m.requests, m.duration, m.loads, m.loadTime, inFlight,
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
			m.requests.DeletePartialMatch(prometheus.Labels{"model": l.model, "version": l.version})
		}
		if !names[l.model] {
			name := prometheus.Labels{"model": l.model}
			m.duration.DeletePartialMatch(name)
			m.loads.DeletePartialMatch(name)
			m.loadTime.DeletePartialMatch(name)
		}
	}
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

// answered counts a request for predictions. Served is the zero value when it
// met no version of a model, and code HTTP's number or gRPC's name.
func (m *metrics) answered(served spec.ServedModel, protocol, code string, took time.Duration) {
	m.requests.WithLabelValues(served.Name, served.Version(), protocol, code).Inc()
	m.duration.WithLabelValues(served.Name, protocol).Observe(took.Seconds())
}

func (m *metrics) loaded(model spec.ServedModel, took time.Duration, err error) {
	if err != nil {
		m.loads.WithLabelValues(model.Name, "failure").Inc()
		return
	}
	m.loads.WithLabelValues(model.Name, "success").Inc()
	m.loadTime.WithLabelValues(model.Name).Set(took.Seconds())
}

// watch shows how many models there are in each state.
func (m *metrics) watch(models *Models) {
	m.models = models
	m.registry.MustRegister(&states{models: models})
}

// states is a collector of the number of models by state.
type states struct{ models *Models }

var statesDescription = prometheus.NewDesc("trainyard_server_models",
	"Versions of models in the server, by state: READY, LOADING or UNAVAILABLE.", []string{"state"}, nil)

// Describe implements [prometheus.Collector].
func (s *states) Describe(to chan<- *prometheus.Desc) { to <- statesDescription }

// Collect implements [prometheus.Collector].
func (s *states) Collect(to chan<- prometheus.Metric) {
	count := map[string]float64{spec.StateReady: 0, spec.StateLoading: 0, spec.StateUnavailable: 0}
	for _, m := range s.models.Index() {
		count[m.State]++
	}
	for state, n := range count {
		to <- prometheus.MustNewConstMetric(statesDescription, prometheus.GaugeValue, n, state)
	}
}
