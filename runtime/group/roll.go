package group

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// report is what a worker tells worker 0 to become part of the group.
type report struct {
	Rank int    `json:"rank"`
	Run  string `json:"run"`
	// Addresses are where this worker waits for each of the others.
	Addresses []string `json:"addresses"`
}

// admission is the answer: where the others wait for this worker.
type admission struct {
	Addresses []string `json:"addresses"`
}

// Roll is who has reported to worker 0. It is the handler of their requests.
type Roll struct {
	mutex   sync.Mutex
	waiting map[int]*present
	changed chan struct{} // closed when someone new waits
	// group is the one that is whole, of members; nil: there is none.
	group   *Group
	members []*present
}

// present is a worker that has reported and holds its request open.
type present struct {
	report
	answer chan answer   // takes one
	over   chan struct{} // closed when the group has ended
}

// answer is what a worker gets: where the others are, or why it may not join.
type answer struct {
	admission
	refusal string
}

// NewRoll returns an empty roll.
func NewRoll() *Roll {
	return &Roll{waiting: map[int]*present{}, changed: make(chan struct{})}
}

// maxReport is how long a report may be: some thousand workers' addresses.
const maxReport = 1 << 20

// ServeHTTP answers a worker's report when the group is whole, and holds the
// request until the group ends.
func (r *Roll) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	p := &present{answer: make(chan answer, 1), over: make(chan struct{})}
	if err := json.NewDecoder(io.LimitReader(request.Body, maxReport)).Decode(&p.report); err != nil || p.Rank < 1 {
		http.Error(w, "no worker's report", http.StatusBadRequest)
		return
	}
	r.enter(p)
	defer r.leave(p)
	select {
	case <-request.Context().Done():
		return
	case a := <-p.answer:
		if a.refusal != "" {
			http.Error(w, a.refusal, http.StatusConflict)
			return
		}
		// A worker that is gone is seen below.
		_ = json.NewEncoder(w).Encode(a.admission)
		_ = http.NewResponseController(w).Flush()
	}
	select {
	case <-request.Context().Done():
	case <-p.over:
	}
}

// enter puts a worker on the roll. If there is an earlier one of its rank in the
// group, that group is lost.
func (r *Roll) enter(p *present) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if before := r.waiting[p.Rank]; before != nil {
		before.answer <- answer{refusal: fmt.Sprintf("another worker %d has reported", p.Rank)}
	}
	if slices.ContainsFunc(r.members, func(member *present) bool { return member.Rank == p.Rank }) {
		r.group.lose(fmt.Errorf("worker %d has started anew", p.Rank))
	}
	r.waiting[p.Rank] = p
	close(r.changed)
	r.changed = make(chan struct{})
}

// leave takes a worker whose request has ended off the roll.
func (r *Roll) leave(p *present) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.waiting[p.Rank] == p {
		delete(r.waiting, p.Rank)
	}
	if slices.Contains(r.members, p) {
		r.group.lose(fmt.Errorf("worker %d is gone", p.Rank))
	}
}

// Call waits until all workers have reported, and returns worker 0's side of
// their group. Closing that ends the group for all. Workers that are about
// another run are turned away, and so is worker 0.
func (r *Roll) Call(ctx context.Context, m Member) (*Group, error) {
	g, own, err := start(m)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { g.lose(context.Cause(ctx)) })()
	g.leave = func() { r.dismiss(g) }
	all, err := r.gather(ctx, g, m, own)
	if err == nil {
		err = g.connect(all)
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// gather waits for all workers, tells each where the others are, and returns
// where they are for worker 0.
func (r *Roll) gather(ctx context.Context, g *Group, m Member, own []string) ([]string, error) {
	for {
		r.mutex.Lock()
		changed, missing := r.changed, r.missing(m.Size)
		if len(missing) == 0 {
			defer r.mutex.Unlock()
			return r.admit(g, m, own)
		}
		r.mutex.Unlock()
		m.waits(missing)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-changed:
		}
	}
}

// waits tells whom the worker waits for.
func (m Member) waits(ranks []string) {
	if m.Waiting == nil {
		return
	}
	workers := "worker "
	if len(ranks) > 1 {
		workers = "workers "
	}
	m.Waiting(workers + strings.Join(ranks, ", "))
}

func (r *Roll) missing(size int) (ranks []string) {
	for rank := 1; rank < size; rank++ {
		if r.waiting[rank] == nil {
			ranks = append(ranks, fmt.Sprint(rank))
		}
	}
	return ranks
}

// admit lets all who wait into the group.
func (r *Roll) admit(g *Group, m Member, own []string) ([]string, error) {
	of := [][]string{own}
	for rank := 1; rank < m.Size; rank++ {
		p := r.waiting[rank]
		if err := m.fits(p.report); err != nil {
			p.answer <- answer{refusal: err.Error()}
			delete(r.waiting, rank)
			return nil, err
		}
		of = append(of, p.Addresses)
	}
	r.group = g
	for rank := 1; rank < m.Size; rank++ {
		p := r.waiting[rank]
		p.answer <- answer{admission: admission{forWorker(of, rank)}}
		delete(r.waiting, rank)
		r.members = append(r.members, p)
	}
	return forWorker(of, 0), nil
}

// fits tells why a worker can't be one of the group.
func (m Member) fits(other report) error {
	switch {
	case other.Run != m.Run:
		return fmt.Errorf("worker %d has another recipe or other data than worker 0: the dataset may have changed between the times they read it", other.Rank)
	case len(other.Addresses) != m.Size:
		return fmt.Errorf("worker %d takes part in a run of %d workers, worker 0 in one of %d", other.Rank, len(other.Addresses), m.Size)
	}
	return nil
}

// forWorker returns the addresses that each worker has for one of them.
func forWorker(of [][]string, rank int) []string {
	addresses := make([]string, len(of))
	for i := range of {
		addresses[i] = of[i][rank]
	}
	return addresses
}

// dismiss ends the requests of all who were in the group.
func (r *Roll) dismiss(g *Group) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.group != g {
		return
	}
	for _, member := range r.members {
		close(member.over)
	}
	r.group, r.members = nil, nil
}
