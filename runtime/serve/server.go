package serve

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"trainyard.dev/trainyard/runtime/spec"
)

// Options say how a server works. The zero value of a number or duration is
// no default: start from [Defaults].
type Options struct {
	// CacheDir is where models are pulled to. It must exist.
	CacheDir string
	// Log is where the server tells what happens to it.
	Log *slog.Logger
	// Tracer is told of each request for predictions. Nil: nobody is.
	Tracer trace.Tracer

	// BodyBytes is the most that a request's body may have.
	BodyBytes int64
	// BytesInFlight is the most that the bodies of all requests may have that
	// are in memory at once. A body of REST that fits into 16 KiB with its head
	// counts when it is whole, as does a message of gRPC that is compressed.
	BytesInFlight int64
	// HeaderBytes is the most that a request's head may have.
	HeaderBytes int
	// Rows is the most that a request may ask predictions for.
	Rows int
	// Connections is the most that are open at once; more have to wait.
	Connections int
	// ConnectionAge, give or take a fifth, is when a connection is closed after
	// its next answer: an established connection never moves to a new pod.
	ConnectionAge time.Duration

	// ReadHeaderTimeout, ReadTimeout, WriteTimeout and IdleTimeout are those of
	// [http.Server]. All are above 0.
	ReadHeaderTimeout time.Duration
	ReadTimeout       time.Duration
	WriteTimeout      time.Duration
	IdleTimeout       time.Duration
	// LoadTimeout bounds one attempt to load a model.
	LoadTimeout time.Duration
	// Batching is for networks that gain by it.
	Batching Batching

	// Stop says how the server ends.
	Stop Stopping
}

// Defaults returns the options of a server that nobody configured.
func Defaults() Options {
	return Options{
		Log:               slog.Default(),
		BodyBytes:         16 << 20,
		BytesInFlight:     256 << 20,
		HeaderBytes:       64 << 10,
		Rows:              10_000,
		Connections:       8192,
		ConnectionAge:     5 * time.Minute,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		LoadTimeout:       10 * time.Minute,
		Batching:          Batching{Rows: 64, Delay: time.Millisecond},
		Stop: Stopping{
			Quiet:    3 * time.Second,
			Least:    5 * time.Second,
			Most:     20 * time.Second,
			Shutdown: 5 * time.Second,
		},
	}
}

// Server answers predictions for its models.
type Server struct {
	options Options
	models  *Models
	metrics *metrics
	// predictions are what the scaler counts; requests, all but health checks,
	// are what a stopping server waits for.
	predictions *activity
	requests    *activity
	bodies      budget
	traces      traces
	stopping    atomic.Bool
	// shutdown is closed when a stopping server waits for nobody new.
	shutdown chan struct{}
}

// New returns a server without models. Give it some with [Models.Configure],
// then [Server.Run] it.
func New(o Options) *Server {
	return newServer(o, newLoader(o).open)
}

func newServer(o Options, open func(context.Context, spec.ServedModel) (*version, error)) *Server {
	s := &Server{
		options:     o,
		predictions: newActivity(time.Now),
		requests:    newActivity(time.Now),
		bodies:      budget{most: o.BytesInFlight},
		traces:      traces{o.Tracer},
		shutdown:    make(chan struct{}),
	}
	s.metrics = newMetrics(s.predictions)
	s.models = newModels(s.prepared(open), o.Log, s.metrics)
	s.metrics.watch(s.models)
	return s
}

// prepared returns open for versions that count and batch as the server does.
func (s *Server) prepared(open func(context.Context, spec.ServedModel) (*version, error)) func(context.Context, spec.ServedModel) (*version, error) {
	return func(ctx context.Context, m spec.ServedModel) (*version, error) {
		v, err := open(ctx, m)
		if err != nil {
			return nil, err
		}
		v.batched(s.options.Batching)
		v.executed = s.metrics.executions(m)
		return v, nil
	}
}

// Models returns what the server serves.
func (s *Server) Models() *Models { return s.models }

// Stats returns how busy the server was with predictions.
func (s *Server) Stats() spec.Stats { return s.predictions.stats() }

// ready returns nil when the server should get requests.
func (s *Server) ready() error {
	if s.stopping.Load() {
		return unavailable(time.Second, "the server is stopping")
	}
	return s.models.Ready()
}

// Handler answers on [spec.ServePort]: predictions and health.
func (s *Server) Handler() http.Handler {
	return s.closingConnections(routes(s.paths()))
}

// paths are what [openAPI] describes.
func (s *Server) paths() map[string]methods {
	return map[string]methods{
		"/{$}":                 {http.MethodGet: s.alive},
		"/openapi.json":        {http.MethodGet: s.openAPI},
		"/v2":                  {http.MethodGet: s.counted(s.serverMetadata)},
		"/v2/health/live":      {http.MethodGet: s.live},
		"/v2/health/ready":     {http.MethodGet: s.serverReady},
		"/v2/models/{model}":   {http.MethodGet: s.counted(s.modelMetadata)},
		"/v1/models":           {http.MethodGet: s.counted(s.listModels)},
		"/v1/models/{model}":   {http.MethodGet: s.counted(s.modelStatus)},
		"/v2/repository/index": {http.MethodPost: s.counted(s.index)},

		"/v1/models/{model}:predict":                   {http.MethodPost: s.counted(s.predict)},
		"/v2/models/stats":                             {http.MethodGet: s.counted(s.modelStatistics)},
		"/v2/models/{model}/stats":                     {http.MethodGet: s.counted(s.modelStatistics)},
		"/v2/models/{model}/config":                    {http.MethodGet: s.counted(s.modelConfig)},
		"/v2/models/{model}/ready":                     {http.MethodGet: s.modelReady},
		"/v2/models/{model}/infer":                     {http.MethodPost: s.counted(s.infer)},
		"/v2/models/{model}/versions/{version}":        {http.MethodGet: s.counted(s.modelMetadata)},
		"/v2/models/{model}/versions/{version}/stats":  {http.MethodGet: s.counted(s.modelStatistics)},
		"/v2/models/{model}/versions/{version}/config": {http.MethodGet: s.counted(s.modelConfig)},
		"/v2/models/{model}/versions/{version}/ready":  {http.MethodGet: s.modelReady},
		"/v2/models/{model}/versions/{version}/infer":  {http.MethodPost: s.counted(s.infer)},
	}
}

// Operations answers on [spec.OperationsPort]: to the operator and to
// monitoring.
func (s *Server) Operations() http.Handler {
	return routes(map[string]methods{
		"/stats":                               {http.MethodGet: s.stats},
		"/metrics":                             {http.MethodGet: s.metrics.handler().ServeHTTP},
		"/v2/repository/index":                 {http.MethodPost: s.index},
		"/v2/repository/models/{model}/load":   {http.MethodPost: s.load},
		"/v2/repository/models/{model}/unload": {http.MethodPost: s.unload},
	})
}

// counted keeps a stopping server waiting for requests to h.
func (s *Server) counted(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.requests.begin()
		defer s.requests.end()
		h(w, r)
	}
}
