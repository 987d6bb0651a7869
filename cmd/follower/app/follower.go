// Package app is the program follower, which looks at an address for models: it
// finds which one in the environment variable TRAINYARD_FOLLOW, and tells over
// HTTP what it finds there.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/pflag"

	"trainyard.dev/trainyard/runtime/follow"
	"trainyard.dev/trainyard/runtime/spec"
)

// Main runs the follower and returns its exit code.
func Main() int {
	listen := pflag.String("listen", fmt.Sprintf(":%d", spec.OperationsPort), "address of /followed")
	serving := pflag.String("serving", "", "file of the models that are served, as the server has it; it need not be there")
	pflag.Parse()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *listen, *serving, log); err != nil {
		log.Error("The follower stops", "error", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, listen, serving string, log *slog.Logger) error {
	what, err := read(os.Getenv(spec.FollowVariable))
	if err != nil {
		return err
	}
	if _, err := memlimit.Set(memlimit.WithLogger(log)); err != nil {
		log.Debug("no memory limit is known", "error", err)
	}
	directory, err := os.MkdirTemp("", "follower-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	follower := follow.New(what, follow.Options{
		Directory: directory, CredentialsDirectory: spec.SourceCredentialsDirectory, Log: log,
		Serving: func() (spec.Serve, error) { return readServing(serving) },
	})
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: follower.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("what was found is not told any more", "error", err)
		}
	}()
	defer server.Close()
	log.Info("looking for models", "source", what.SourceName, "everySeconds", what.EverySeconds, "repository", what.Repository.Name, "listen", listener.Addr().String())
	follower.Run(ctx)
	return nil
}

func read(text string) (spec.Follow, error) {
	var what spec.Follow
	if err := json.Unmarshal([]byte(text), &what); err != nil {
		return what, fmt.Errorf("reading the environment variable %s, which says where to look: %w", spec.FollowVariable, err)
	}
	return what, nil
}

// readServing reads what servers load when they start. A service that has no
// model yet has no such file.
func readServing(path string) (spec.Serve, error) {
	var serving spec.Serve
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return serving, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &serving)
	}
	if err != nil {
		return serving, fmt.Errorf("reading which model is served: %w", err)
	}
	return serving, nil
}
