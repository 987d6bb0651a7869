// Package app is the program server, which pulls models and answers predictions
// for them.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/pflag"

	"trainyard.dev/trainyard/runtime/serve"
	"trainyard.dev/trainyard/runtime/spec"
)

// exitUsage says that the command line or the configuration is wrong.
const exitUsage = 2

// Main runs the server and returns its exit code.
func Main() int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	err := run(os.Args[1:], os.Stderr, signals)
	switch {
	case err == nil || errors.Is(err, pflag.ErrHelp):
		return 0
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "server:", err)
		return exitUsage
	default:
		fmt.Fprintln(os.Stderr, "server:", err)
		return 1
	}
}

// usageError is about what somebody wrote.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// settings are what the command line says beside [serve.Options].
type settings struct {
	config           string
	listen           string
	grpcListen       string
	operationsListen string
	verbose          bool
}

func run(args []string, out io.Writer, signals <-chan os.Signal) error {
	options := serve.Defaults()
	set, err := parse(args, out, &options)
	if err != nil {
		return err
	}
	options.Log = logger(out, set.verbose)
	config, err := readConfig(set.config)
	if err != nil {
		return usageError{err}
	}
	var flush func()
	if options.Tracer, flush, err = tracer(context.Background(), options.Log); err != nil {
		return err
	}
	defer flush()
	if _, err := memlimit.Set(memlimit.WithLogger(options.Log)); err != nil {
		options.Log.Debug("no memory limit is known", "error", err)
	}
	ballast := ballast()
	defer runtime.KeepAlive(ballast)
	removeCache, err := makeCache(&options.CacheDir)
	if err != nil {
		return err
	}
	defer removeCache()
	// The ports first: a pod that loads can say so.
	listeners, err := listen(set)
	if err != nil {
		return err
	}
	server := serve.New(options)
	if err := server.Models().Configure(config); err != nil {
		return usageError{fmt.Errorf("%s: %w", set.config, err)}
	}
	options.Log.Info("listening", "predictions", listeners.Predictions.Addr().String(),
		"grpc", listeners.GRPC.Addr().String(), "operations", listeners.Operations.Addr().String())
	return server.Run(signals, listeners)
}

func parse(args []string, out io.Writer, o *serve.Options) (settings, error) {
	s := settings{}
	f := pflag.NewFlagSet("server", pflag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&s.config, "config", "", "file of the models to load, as JSON; without one, models come over the operations port")
	f.StringVar(&s.listen, "listen", fmt.Sprintf(":%d", spec.ServePort), "address for predictions and health")
	f.StringVar(&s.grpcListen, "grpc-listen", fmt.Sprintf(":%d", spec.GRPCPort), "address for predictions and health over gRPC")
	f.StringVar(&s.operationsListen, "operations-listen", fmt.Sprintf(":%d", spec.OperationsPort), "address for the operator and for monitoring")
	f.BoolVar(&s.verbose, "verbose", false, "log more")
	f.StringVar(&o.CacheDir, "cache-dir", "", "folder that models are pulled to; default: a temporary one")
	f.Int64Var(&o.BodyBytes, "max-body-bytes", o.BodyBytes, "most bytes of a request's body")
	f.Int64Var(&o.BytesInFlight, "max-bytes-in-flight", o.BytesInFlight, "most bytes of the bodies of all requests at once; more are told to try again")
	f.IntVar(&o.HeaderBytes, "max-header-bytes", o.HeaderBytes, "most bytes of a request's head")
	f.IntVar(&o.Rows, "max-rows", o.Rows, "most rows of a request")
	f.IntVar(&o.Connections, "max-connections", o.Connections, "most connections at once; more have to wait")
	f.DurationVar(&o.ConnectionAge, "max-connection-age", o.ConnectionAge, "age at which a connection is closed after an answer, give or take a fifth (of gRPC: a tenth)")
	f.DurationVar(&o.ReadHeaderTimeout, "read-header-timeout", o.ReadHeaderTimeout, "longest time to read a request's head")
	f.DurationVar(&o.ReadTimeout, "read-timeout", o.ReadTimeout, "longest time to read a whole request")
	f.DurationVar(&o.WriteTimeout, "write-timeout", o.WriteTimeout, "longest time to answer a request")
	f.DurationVar(&o.IdleTimeout, "idle-timeout", o.IdleTimeout, "longest time that a connection may be idle")
	f.IntVar(&o.Batching.Rows, "max-batch-size", o.Batching.Rows, "most rows of several requests that are computed at once, from 2 to 256, for networks that gain by it; 0: batch nothing")
	f.DurationVar(&o.Batching.Delay, "max-batch-delay", o.Batching.Delay, "longest time that a request waits for others to be computed with")
	f.DurationVar(&o.LoadTimeout, "load-timeout", o.LoadTimeout, "longest time of one attempt to load a model")
	f.DurationVar(&o.Stop.Quiet, "stop-quiet", o.Stop.Quiet, "when stopping: how long no request may have come")
	f.DurationVar(&o.Stop.Least, "stop-least", o.Stop.Least, "when stopping: how long to go on in any case")
	f.DurationVar(&o.Stop.Most, "stop-most", o.Stop.Most, "when stopping: how long to wait for quiet")
	f.DurationVar(&o.Stop.Shutdown, "stop-shutdown", o.Stop.Shutdown, "when stopping: how long what still runs may take after that")
	if err := f.Parse(args); err != nil {
		return s, usageError{err}
	}
	if f.NArg() > 0 {
		return s, usageError{fmt.Errorf("unexpected argument %q; see --help", f.Arg(0))}
	}
	if o.Batching.Rows < 0 || o.Batching.Rows > 256 || o.Batching.Delay < 0 {
		return s, usageError{errors.New("--max-batch-size must be from 0 to 256, and --max-batch-delay not below 0")}
	}
	if min(o.ReadHeaderTimeout, o.ReadTimeout, o.WriteTimeout, o.IdleTimeout) <= 0 {
		return s, usageError{errors.New("--read-header-timeout, --read-timeout, --write-timeout and --idle-timeout must be above 0")}
	}
	if o.BytesInFlight < o.BodyBytes {
		return s, usageError{errors.New("--max-bytes-in-flight must be at least --max-body-bytes")}
	}
	if o.BodyBytes < 1 || o.HeaderBytes < 1 || o.Rows < 1 || o.Connections < 1 {
		return s, usageError{errors.New("--max-body-bytes, --max-header-bytes, --max-rows and --max-connections must be at least 1")}
	}
	return s, nil
}

func logger(out io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level}))
}

func readConfig(path string) (spec.Serve, error) {
	var c spec.Serve
	if path == "" {
		return c, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("reading the configuration: %w", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("reading the configuration %s: %w", path, err)
	}
	return c, nil
}

// makeCache makes the folder for models. A temporary one is removed at the end.
func makeCache(dir *string) (remove func(), err error) {
	if *dir != "" {
		return func() {}, os.MkdirAll(filepath.Clean(*dir), 0o755)
	}
	if *dir, err = os.MkdirTemp("", "trainyard-models-"); err != nil {
		return nil, err
	}
	return func() { os.RemoveAll(*dir) }, nil
}

// listen opens all listeners, or none.
func listen(s settings) (l serve.Listeners, err error) {
	var c net.ListenConfig
	var opened []net.Listener
	for _, at := range []struct {
		address string
		to      *net.Listener
	}{{s.listen, &l.Predictions}, {s.grpcListen, &l.GRPC}, {s.operationsListen, &l.Operations}} {
		if *at.to, err = c.Listen(context.Background(), "tcp", at.address); err != nil {
			for _, o := range opened {
				err = errors.Join(err, o.Close())
			}
			return l, err
		}
		opened = append(opened, *at.to)
	}
	return l, nil
}
