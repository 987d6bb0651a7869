package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// programs are the folders with what is run.
type programs struct {
	// cluster holds the control plane's, kwok KWOK and its stages, operator the
	// manager and the gateway.
	cluster, kwok, operator string
}

// errEnded is why a case fails whose program ends, even without an error.
var errEnded = errors.New("the program ended")

// patience is how long a program may take to stop before it is killed.
const patience = 10 * time.Second

// start runs a program until the bench goes down. Its output is in a file; if it
// ends before, so does the case.
func (b *bench) start(name, path string, environment []string, arguments ...string) (pid int, err error) {
	log, err := os.Create(filepath.Join(b.output, name+".log"))
	if err != nil {
		return 0, err
	}
	program := exec.CommandContext(b.life, path, arguments...)
	program.Stdout, program.Stderr = log, log
	program.Env = append(os.Environ(), environment...)
	program.Cancel = func() error { return program.Process.Signal(syscall.SIGTERM) }
	program.WaitDelay = patience
	if err := program.Start(); err != nil {
		return 0, fmt.Errorf("starting %s: %w", name, err)
	}
	b.running.Go(func() {
		err := program.Wait()
		if b.life.Err() == nil {
			b.fail(fmt.Errorf("%s ended too early, see %s: %w", name, log.Name(), errors.Join(err, errEnded)))
		}
		_ = log.Close()
	})
	return program.Process.Pid, nil
}

// until asks again and again until something holds, and past the limit says what
// it waited for.
func until(ctx context.Context, what string, limit time.Duration, holds func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("waited %s for %s", limit, what))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := holds(ctx)
		if done || (err != nil && ctx.Err() == nil) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
