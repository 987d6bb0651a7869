// Package prober asks a service for predictions at a steady rate and counts
// what becomes of every request.
package prober

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"trainyard.dev/trainyard/controllers/routing"
)

// Asking asks one thing. It tells which request the answer is to, and whether it
// came through a gateway.
type Asking func(id string) (answered string, passed bool, err error)

// Prober sends requests with ids that no other has, and counts.
type Prober struct {
	ask    Asking
	prefix string

	mutex   sync.Mutex
	sent    int
	answers map[string]int
	// failures are the first few, for people.
	failures []string
	failed   int
	took     []time.Duration
	passed   int
	row      int
	// lastFailed is a beginning.
	lastFailed time.Time
}

// New makes a prober that posts the body, an inference request of the Open
// Inference Protocol, to the URL. A request may take as long as the limit. Each
// has a connection of its own, so that each finds its own way.
func New(url string, body map[string]any, limit time.Duration) *Prober {
	return Of(posting(url, body, &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}))
}

// Keeping makes a prober like [New]'s, whose requests use the connections of those
// before.
func Keeping(url string, body map[string]any, limit time.Duration) *Prober {
	return Of(posting(url, body, &http.Client{Timeout: limit, Transport: &http.Transport{}}))
}

// Of makes a prober that asks in that way.
func Of(ask Asking) *Prober {
	return &Prober{ask: ask, prefix: fmt.Sprintf("%x", time.Now().UnixNano()), answers: map[string]int{}}
}

// Run sends that many requests in a second until ctx ends, and returns when
// each has been answered or has failed.
func (p *Prober) Run(ctx context.Context, perSecond int) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	var group sync.WaitGroup
	for ctx.Err() == nil {
		group.Go(p.Ask)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	group.Wait()
}

// Ask sends one request, and notes what becomes of it.
func (p *Prober) Ask() {
	p.mutex.Lock()
	p.sent++
	id := fmt.Sprintf("%s-%d", p.prefix, p.sent)
	p.mutex.Unlock()
	began := time.Now()
	answered, passed, err := p.ask(id)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err == nil && answered != id {
		err = fmt.Errorf("the answer to %s is one to %s", id, answered)
	}
	if err != nil {
		p.failed++
		p.lastFailed = latest(p.lastFailed, began)
		if len(p.failures) < 10 {
			p.failures = append(p.failures, fmt.Sprintf("%s after %.2f s: %v", began.Format("15:04:05.000"), time.Since(began).Seconds(), err))
		}
		return
	}
	p.answers[id]++
	p.took = append(p.took, time.Since(began))
	p.row++
	if passed {
		p.passed++
		p.row = 0
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func posting(url string, body map[string]any, client *http.Client) Asking {
	return func(id string) (answered string, passed bool, err error) {
		request := map[string]any{"id": id}
		maps.Copy(request, body)
		encoded, err := json.Marshal(request)
		if err != nil {
			return "", false, err
		}
		response, err := client.Post(url, "application/json", bytes.NewReader(encoded))
		if err != nil {
			return "", false, err
		}
		defer func() { _ = response.Body.Close() }()
		content, err := io.ReadAll(response.Body)
		if err != nil {
			return "", false, err
		}
		if response.StatusCode != http.StatusOK {
			return "", false, fmt.Errorf("%s: %.300s", response.Status, content)
		}
		var answer struct{ ID string }
		if err := json.Unmarshal(content, &answer); err != nil {
			return "", false, err
		}
		return answer.ID, strings.Contains(response.Header.Get("Via"), routing.Via), nil
	}
}

// Count is what became of the requests.
type Count struct {
	// Sent, Answered and Failed count requests; each that was sent is one of the
	// others in the end.
	Sent, Answered, Failed int
	// Failures are the first few.
	Failures []string
	// Passed counts those answers that came through a gateway, and Row the latest
	// in a row that did not.
	Passed, Row int
	// LastFailed is when the last of those began that failed.
	LastFailed time.Time
	// Took is how long those took that were answered, shortest first.
	Took []time.Duration
}

// Count tells what became of the requests until now.
func (p *Prober) Count() Count {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return Count{
		Sent: p.sent, Answered: len(p.answers), Failed: p.failed, Failures: slices.Clone(p.failures),
		Passed: p.passed, Row: p.row, LastFailed: p.lastFailed,
		Took: slices.Sorted(slices.Values(p.took)),
	}
}

// Percentile is the smallest of the durations, sorted, that the given share of
// them does not pass. It is zero of none.
func Percentile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}
