package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"trainyard.dev/trainyard/runtime/spec"
)

// stop: a server is asked to stop while hundreds of clients ask as fast as they
// can, and those go on, as in a cluster: for a second new connections still reach
// it, then another server. A request without an answer fails the measurement.
func (b *bench) stop() error {
	m := b.models["digits"]
	stopping, other, err := b.two(m)
	if err != nil {
		return err
	}
	defer stopping.stop()
	defer other.stop()
	g := b.clients(400)
	g.moved, g.host = filepath.Join(b.dir, "moved"), other.http
	_ = os.Remove(g.moved) // of an earlier run
	const all = 12 * time.Second
	ended, took := make(chan error, 1), time.Duration(0)
	go func() {
		var err error
		took, err = stopping.leave(func() error { return os.WriteFile(g.moved, nil, 0o600) })
		ended <- err
	}()
	asked, err := g.wrk(all, stopping.infer(m.Name), jsonRequest(m.inputs), 0)
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	if took > all-before {
		return fmt.Errorf("the server ended %s after it was asked to, when nobody asked it any more", took)
	}
	fmt.Printf("BENCH serve/stop ours=%s connections=%d answered=%d failed=0 ended-after=%s\n", asked, g.connections, asked.answered, took.Round(time.Millisecond))
	return nil
}

// two starts two servers of models, which take as long to stop as the default is.
func (b *bench) two(models ...*served) (stopping, other *side, err error) {
	var all []spec.ServedModel
	for _, m := range models {
		all = append(all, m.ServedModel)
	}
	start := func() (*side, error) { return b.ours(serverCore, all, "--stop-quiet=3s", "--stop-least=5s") }
	if stopping, err = start(); err != nil {
		return nil, nil, err
	}
	if other, err = start(); err != nil {
		stopping.stop()
		return nil, nil, err
	}
	return stopping, other, nil
}

// A server is asked to stop when it was asked for predictions for so long, and new
// connections reach it for so long after that.
const before, shown = 2 * time.Second, time.Second

// leave has a server stop, and new connections move to another. It returns how long
// the server took to end.
func (s *side) leave(move func() error) (time.Duration, error) {
	time.Sleep(before)
	asked := time.Now()
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	time.Sleep(shown)
	if err := move(); err != nil {
		return 0, err
	}
	err := s.command.Wait()
	return time.Since(asked), err
}

// stopGRPC: the same with clients of grpc-go, which stay until the server says that
// it goes (GOAWAY). Some others connect for every call. Half of the calls take the
// server long, so that it is as busy as the clients.
func (b *bench) stopGRPC() error {
	short, long := b.models["digits"], b.models["medium"]
	stopping, other, err := b.two(short, long)
	if err != nil {
		return err
	}
	defer stopping.stop()
	defer other.stop()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // leaves the server its core
	var moved, over atomic.Bool
	reached := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		to := stopping.grpc
		if moved.Load() {
			to = other.grpc
		}
		return new(net.Dialer).DialContext(ctx, "tcp", to)
	})
	const connections, each, connecting = 50, 4, 4
	var (
		callers sync.WaitGroup
		mu      sync.Mutex
		took    []time.Duration
		failed  []error
	)
	asks := func(call func() error) {
		callers.Go(func() {
			var answered []time.Duration
			var errs []error
			for !over.Load() && len(errs) < 10 {
				began := time.Now()
				if err := call(); err != nil {
					errs = append(errs, err)
				} else {
					answered = append(answered, time.Since(began))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took, failed = append(took, answered...), append(failed, errs...)
		})
	}
	bodies := [][]byte{message(short.Name, short.inputs), message(long.Name, long.inputs)}
	began := time.Now()
	for range connections {
		c, err := dial(stopping.grpc, reached)
		if err != nil {
			return err
		}
		defer c.Close()
		for i := range each {
			asks(func() error { return call(c, bodies[i%2]) })
		}
	}
	for i := range connecting {
		asks(func() error {
			c, err := dial(stopping.grpc, reached)
			if err != nil {
				return err
			}
			defer c.Close()
			return call(c, bodies[i%2])
		})
	}
	ended, err := stopping.leave(func() error { moved.Store(true); return nil })
	if err == nil {
		time.Sleep(time.Second) // the other is asked by all
	}
	over.Store(true)
	callers.Wait()
	if len(failed) > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d calls failed, one with: %w", len(failed), len(failed)+len(took), failed[0]))
	}
	if err != nil {
		return err
	}
	slices.Sort(took)
	asked := load{float64(len(took)) / time.Since(began).Seconds(), len(took), took[len(took)*99/100]}
	fmt.Printf("BENCH serve/stop-grpc ours=%s connections=%d answered=%d failed=0 ended-after=%s\n", asked, connections, asked.answered, ended.Round(time.Millisecond))
	return nil
}
