package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// starter takes the steps of a start: it says how long each took and gives
// each wait a limit.
type starter struct {
	state *state
	begin time.Time
}

// step runs one part of the start.
func (s *starter) step(what string, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("step %q: %w", what, err)
	}
	fmt.Printf("[%5.1fs] %s (%.1fs)\n", time.Since(s.begin).Seconds(), what, time.Since(start).Seconds())
	return nil
}

// await asks until the answer is nil. Past the limit, or when a component has
// ended, it reports the last answer and the end of the log where the reason
// probably stands; the step around it says what was waited for.
func (s *starter) await(ctx context.Context, component string, limit time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // not the error that the limit itself causes
		}
		if name, ok := s.state.ended(); ok {
			return fmt.Errorf("%s has ended\n%s", name, tail(logFile(name)))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not so after %s; the last answer was: %w\n%s", limit, last, tail(logFile(component)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tail is the end of a log.
func tail(file string) string {
	const lines = 15
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(content)), "\n")
	all = all[max(0, len(all)-lines):]
	return fmt.Sprintf("the last lines of %s:\n  %s", file, strings.Join(all, "\n  "))
}
