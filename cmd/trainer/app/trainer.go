// Package app is the program trainer, which trains one model: it finds a recipe
// in the environment variable TRAINYARD_TRAIN, tells over HTTP how far it is,
// pushes the model to a registry, and leaves a result in the termination
// message. See [spec.ExitInvalid] and [spec.ExitInterrupted] for its exit codes.
package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/pflag"

	"trainyard.dev/trainyard/runtime/group"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/train"
)

// Main runs the trainer and returns its exit code. The version is that of the
// code, which is stored with the model; empty: as the go command recorded it.
func Main(version string) int {
	listen := pflag.String("listen", fmt.Sprintf(":%d", spec.ProgressPort), "address of /progress, /metrics and /healthz")
	resultFile := pflag.String("result", "/dev/termination-log", "file for the result, which Kubernetes shows as the termination message")
	collective := pflag.String("collective", collectivePath(), "the program that connects the workers of a run, if it has several")
	pflag.Parse()

	last := new(tail)
	slog.SetDefault(slog.New(slog.NewTextHandler(io.MultiWriter(os.Stderr, last), nil)))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	defer context.AfterFunc(ctx, func() { slog.Info("The trainer is asked to stop", "cause", context.Cause(ctx)) })()

	job, err := recipe(os.Getenv(spec.TrainVariable))
	if err != nil {
		result, err := train.Failed(spec.ReasonInternal, spec.ExitInvalid, err)
		return end(result, err, *resultFile, last)
	}
	result, err := run(ctx, job, *listen, train.Options{Worker: worker(job, *collective), CodeVersion: cmp.Or(version, recordedVersion()), Precaution: func(r spec.Result) {
		r.Log = last.String()
		if err := leave(r, *resultFile); err != nil {
			slog.Warn("The termination message can't be written", "error", err)
		}
	}})
	code := end(result, err, *resultFile, last)
	if err == nil {
		// The result comes first: until it is left, the run may have to go on.
		if err := train.Discard(job); err != nil {
			slog.Warn("The checkpoint stays where it is", "error", err)
		}
	}
	return code
}

// end logs how the run ended, leaves the result and returns the exit code.
func end(result spec.Result, err error, file string, last *tail) int {
	code := exitCode(result, err)
	if err != nil {
		result.Log = last.String()
	}
	if err := leave(result, file); err != nil {
		slog.Error("Result is not in the termination message", "error", err)
	}
	return code
}

// run trains what the environment asks for.
func run(ctx context.Context, job spec.Train, listen string, o train.Options) (spec.Result, error) {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return train.Failed(spec.ReasonInternal, 1, fmt.Errorf("serving /progress: %w", err))
	}
	monitor := new(train.Monitor)
	mux := http.NewServeMux()
	mux.Handle("/", monitor.Handler())
	if o.Worker != nil {
		mux.Handle("POST "+spec.GroupPath, o.Worker.Roll)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Warn("Progress is not served any more", "error", err)
		}
	}()
	defer server.Close()

	o.Monitor, o.MemoryLimit = monitor, memoryLimit()
	slog.Info("Training starts", "model", job.Name, "source", job.SourceName, "repository", job.Repository.Name,
		"listen", listener.Addr(), "version", o.CodeVersion, "processors", runtime.GOMAXPROCS(0), "memoryLimit", o.MemoryLimit)
	done := make(chan struct{})
	defer close(done)
	go logProgress(monitor, done)
	return train.Run(ctx, job, o)
}

// collectivePath is where the runtime image has the program: beside this one.
func collectivePath() string {
	own, err := os.Executable()
	if err != nil {
		return "collective"
	}
	return filepath.Join(filepath.Dir(own), "collective")
}

// worker tells which of the run's workers this is; nil: it is alone.
func worker(job spec.Train, collective string) *train.Worker {
	if job.Workers == nil {
		return nil
	}
	rank, err := strconv.Atoi(os.Getenv(spec.RankVariable))
	if err != nil {
		rank = -1 // which is refused
	}
	return &train.Worker{Rank: rank, Address: os.Getenv(spec.AddressVariable), Collective: collective, Roll: group.NewRoll()}
}

// recipe reads the job. A field that this version does not know would be left
// out of the training without a word, so it is refused.
func recipe(text string) (spec.Train, error) {
	var job spec.Train
	if text == "" {
		return job, fmt.Errorf("the environment variable %s is empty; it holds the recipe as JSON", spec.TrainVariable)
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&job); err != nil {
		return job, fmt.Errorf("reading %s: %w; trainer and operator should have the same version", spec.TrainVariable, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return job, fmt.Errorf("reading %s: something follows the recipe", spec.TrainVariable)
	}
	return job, nil
}

// memoryLimit tells the garbage collector how much memory the container may
// have, and returns that. 0: no limit is known.
func memoryLimit() int64 {
	limit, err := memlimit.Set(memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)))
	if err != nil {
		slog.Warn("Memory limit is not known", "error", err)
		return 0
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// recordedVersion names the code as the go command recorded it.
func recordedVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return info.Main.Version
}

// logProgress logs one line a second while there is something new.
func logProgress(monitor *train.Monitor, done <-chan struct{}) {
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	var last spec.Progress
	for {
		select {
		case <-done:
			return
		case <-ticks.C:
		}
		p := monitor.Progress()
		if p.Epoch == last.Epoch && p.Step == last.Step {
			continue
		}
		last = p
		slog.Info("Training", "epoch", p.Epoch, "epochs", p.Epochs, "step", p.Step, "steps", p.Steps,
			"loss", p.Loss, "metrics", p.Metrics, "samplesPerSecond", p.SamplesPerSecond, "secondsLeft", p.SecondsLeft)
	}
}

// leave writes the result where Kubernetes picks it up.
func leave(result spec.Result, file string) error {
	message, err := train.TerminationMessage(result)
	if err != nil {
		return err
	}
	return os.WriteFile(file, message, 0o644)
}

func exitCode(result spec.Result, err error) int {
	if err == nil {
		slog.Info("Model is published", "reference", result.Model.Reference, "digest", result.Model.Digest, "epoch", result.Epoch, "metrics", result.Metrics)
		return 0
	}
	slog.Error("Training failed", "reason", result.Failure.Reason, "error", err)
	if failure := (*train.Error)(nil); errors.As(err, &failure) {
		return failure.ExitCode
	}
	return 1
}
