// Command gateway holds requests for ModelServices that have no pods, wakes
// these, and forwards the requests as soon as a pod answers. With --pair, two of
// them in one pod share their ports: one serves, and when it ends, the other does.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/gateway"
	"trainyard.dev/trainyard/gateway/cluster"
	"trainyard.dev/trainyard/gateway/pair"
)

func main() {
	if err := run(); err != nil {
		slog.Error("the gateway stops", "reason", err)
		os.Exit(1)
	}
}

func run() error {
	options := gateway.Defaults()
	operations := pflag.Int32("operations-port", routing.ReportPort, "port for the operator, for readiness probes and for Prometheus")
	alive := pflag.String("alive-listen", ":8082", "address for liveness probes: /healthz")
	pflag.IntVar(&options.Requests, "max-requests", options.Requests, "most requests in hand at once; more are told to try again")
	pflag.Int64Var(&options.Bytes, "max-bytes", options.Bytes, "most bytes of the bodies of all requests at once; more are told to try again")
	pflag.Int64Var(&options.BodyBytes, "max-body-bytes", options.BodyBytes, "most bytes of a request's body; that of the servers")
	pflag.DurationVar(&options.Hold, "max-hold", options.Hold, "longest time that a request waits for a pod, if it has no earlier deadline of its own")
	pflag.DurationVar(&options.ProbePeriod, "probe-period", options.ProbePeriod, "how often a pod is asked that starts")
	with := pflag.String("pair", "", "a name, such as @gateway, at which this gateway meets another one of its pod: one serves, and the other takes all ports over when that ends (default: there is no other)")
	verbose := pflag.Bool("verbose", false, "log also what is usual")
	pflag.Parse()
	if pflag.NArg() > 0 {
		return fmt.Errorf("%q: there are no arguments, only flags: see --help", pflag.Args())
	}
	if options.Requests < 1 || options.BodyBytes < 1 || options.Bytes < options.BodyBytes || options.Hold <= 0 || options.ProbePeriod <= 0 {
		return fmt.Errorf("--max-requests, --max-body-bytes, --max-hold and --probe-period must be above 0, and --max-bytes at least --max-body-bytes")
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	options.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if _, err := memlimit.Set(memlimit.WithLogger(options.Log)); err != nil {
		options.Log.Debug("no memory limit is known", "error", err)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := answerLiveness(ctx, *alive); err != nil {
		return err
	}
	config, err := reach()
	if err != nil {
		return err
	}
	kubernetes, err := cluster.New(config)
	if err != nil {
		return err
	}
	if *with != "" {
		options.Sockets, err = pair.Lead(ctx, *with, options.Log)
		if ctx.Err() != nil {
			return nil // it never led
		}
		if err != nil {
			return err
		}
	}
	listener, err := options.Sockets.Listen(ctx, *operations)
	if err != nil {
		return err
	}
	g := gateway.New(options, kubernetes.Wake)
	// It goes on watching while it stops: what it holds still needs pods.
	watching, end := context.WithCancel(context.Background())
	defer end()
	go func() {
		if err := kubernetes.Watch(watching, g); err != nil && watching.Err() == nil {
			options.Log.Error("can't watch", "reason", err)
		}
	}()
	return g.Run(ctx, listener)
}

// answerLiveness tells the kubelet, until the process ends, that it runs, whether
// it serves or waits: the operations port is that of the one that serves.
func answerLiveness(ctx context.Context, address string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	return nil
}

// reach finds the API server: that of the pod's cluster, or that of KUBECONFIG.
func reach() (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		config, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("finding the API server: %w", err)
	}
	// Many services may be woken at once.
	config.QPS, config.Burst = 200, 400
	config.UserAgent = "trainyard-gateway"
	return config, nil
}
