package serve

import (
	"sync/atomic"
	"time"
)

// phases are the times of one request for predictions, on its version.
type phases struct {
	// began is when the version was found, decoded when the rows were read, and
	// computed when their answers were there.
	began, decoded, computed time.Time
	// queued and inferred are the parts of the time between decoded and computed:
	// the wait for a batch, and its computation.
	queued, inferred time.Duration
	rows             int
}

// statistics counts what a version did since it was loaded, as the protocol's
// statistics extension tells it.
type statistics struct {
	success, failure             tally
	queue, input, infer, output  tally
	rows, executions, lastMillis atomic.Int64
}

// tally counts events and the time that they took.
type tally struct{ count, nanoseconds atomic.Int64 }

func (t *tally) add(d time.Duration) {
	t.count.Add(1)
	t.nanoseconds.Add(int64(d))
}

// answered counts a request, which failed if err is not nil.
func (s *statistics) answered(p *phases, now time.Time, err error) {
	if err != nil {
		s.failure.add(now.Sub(p.began))
		return
	}
	s.success.add(now.Sub(p.began))
	s.input.add(p.decoded.Sub(p.began))
	s.queue.add(p.queued)
	s.infer.add(p.inferred)
	s.output.add(now.Sub(p.computed))
	s.rows.Add(int64(p.rows))
	s.lastMillis.Store(now.UnixMilli())
}

// modelStatistics is a version in the answer of the statistics extension.
type modelStatistics struct {
	Name           string          `json:"name"`
	Version        string          `json:"version"`
	LastInference  int64           `json:"last_inference"`
	InferenceCount int64           `json:"inference_count"`
	ExecutionCount int64           `json:"execution_count"`
	Inference      inferenceCounts `json:"inference_stats"`
}

// inferenceCounts are requests and, of those that succeeded, their phases.
type inferenceCounts struct {
	Success duration `json:"success"`
	Fail    duration `json:"fail"`
	Queue   duration `json:"queue"`
	Input   duration `json:"compute_input"`
	Infer   duration `json:"compute_infer"`
	Output  duration `json:"compute_output"`
}

// duration is what a tally read.
type duration struct {
	Count int64 `json:"count"`
	Ns    int64 `json:"ns"`
}

func (t *tally) read() duration { return duration{t.count.Load(), t.nanoseconds.Load()} }

// told returns the counts of a version. Requests that run meanwhile may be in
// some of them and not yet in others.
func (v *version) told() modelStatistics {
	s := &v.statistics
	return modelStatistics{
		Name:           v.model.Name,
		Version:        v.model.Version(),
		LastInference:  s.lastMillis.Load(),
		InferenceCount: s.rows.Load(),
		ExecutionCount: s.executions.Load(),
		Inference: inferenceCounts{
			Success: s.success.read(),
			Fail:    s.failure.read(),
			Queue:   s.queue.read(),
			Input:   s.input.read(),
			Infer:   s.infer.read(),
			Output:  s.output.read(),
		},
	}
}

// statistics returns the counts of the versions that answer under a name, or of
// one of them, or, without a name, of all there are.
func (m *Models) statistics(name, which string) ([]modelStatistics, error) {
	if name != "" {
		v, err := m.look(name, which)
		if err != nil {
			return nil, err
		}
		v.release()
	}
	told := []modelStatistics{}
	m.each(func(v *version) {
		if (name == "" || v.model.Name == name) && (which == "" || is(v.model, which)) {
			told = append(told, v.told())
		}
	})
	return told, nil
}
