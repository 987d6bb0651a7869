package gateway

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what /metrics tells.
type metrics struct {
	registry  *prometheus.Registry
	held      *prometheus.GaugeVec
	refused   *prometheus.CounterVec
	hold      prometheus.Histogram
	coldStart prometheus.Histogram
}

func newMetrics() *metrics {
	seconds := []float64{0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "trainyard_gateway_held_requests", Help: "Requests that wait for a pod of their ModelService."}, []string{"namespace", "modelservice"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trainyard_gateway_refused_requests_total", Help: "Requests that the gateway did not forward, by HTTP status; 499 means that the client left."}, []string{"status"}),
		hold: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "trainyard_gateway_hold_seconds", Help: "How long requests were held that were forwarded then.", Buckets: seconds}),
		coldStart: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "trainyard_gateway_cold_start_seconds", Help: "From the first request for a ModelService without pods until a pod answered.", Buckets: seconds}),
	}
	m.registry.MustRegister(m.held, m.refused, m.hold, m.coldStart, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// forget drops the series of a service that is gone.
func (m *metrics) forget(key Key) { m.held.DeleteLabelValues(key.Namespace, key.Name) }

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
