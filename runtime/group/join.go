package group

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// A refusedError says that worker 0 will not have this worker.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return "worker 0 turns this worker away: " + e.why }

// Join reports to worker 0, whose [Roll] answers at that URL, and returns this
// worker's side of the group when that is whole. It tries as long as it takes:
// worker 0 may not have started yet.
func Join(ctx context.Context, url string, m Member) (*Group, error) {
	g, own, err := start(m)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { g.lose(context.Cause(ctx)) })()
	m.waits([]string{"0"})
	others, err := g.reportUntilAnswered(ctx, url, report{m.Rank, m.Run, own})
	if err == nil {
		err = g.connect(others)
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Group) reportUntilAnswered(ctx context.Context, url string, own report) ([]string, error) {
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval, delays.MaxInterval = 50*time.Millisecond, 2*time.Second
	return backoff.Retry(ctx, func() ([]string, error) {
		others, err := g.report(url, own)
		if unreachable := (*unreachableError)(nil); err != nil && !errors.As(err, &unreachable) {
			err = backoff.Permanent(err)
		}
		return others, err
	}, backoff.WithBackOff(delays), backoff.WithMaxElapsedTime(0))
}

// An unreachableError says that worker 0 didn't answer, or not to the end: it
// may do so later.
type unreachableError struct{ cause error }

func (e *unreachableError) Error() string { return "reporting to worker 0: " + e.cause.Error() }

func (e *unreachableError) Unwrap() error { return e.cause }

// direct asks worker 0 itself, whatever proxy is set for other hosts.
var direct = func() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	return &http.Client{Transport: transport}
}()

// report waits until the group is whole. From then on, the end of the request
// is the end of the group.
func (g *Group) report(url string, own report) ([]string, error) {
	text, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(g.ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	response, err := direct.Do(request)
	if err != nil {
		return nil, &unreachableError{err}
	}
	body := bufio.NewReader(response.Body)
	if response.StatusCode == http.StatusConflict {
		defer func() { _ = response.Body.Close() }()
		why, _ := io.ReadAll(io.LimitReader(body, 1<<10))
		return nil, &refusedError{strings.TrimSpace(string(why))}
	}
	var admitted admission
	line, err := body.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &admitted)
	}
	if err != nil {
		_ = response.Body.Close()
		return nil, &unreachableError{fmt.Errorf("%s: %w", response.Status, err)}
	}
	go func() {
		defer func() { _ = response.Body.Close() }()
		_, _ = io.Copy(io.Discard, body)
		g.lose(errors.New("worker 0 has ended it"))
	}()
	return admitted.Addresses, nil
}
