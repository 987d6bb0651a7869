package scaling

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// trace is what happens to a service: a policy, and samples in order.
type trace struct {
	policy Policy
	start  int32
	// constant is the load in each sample, if it is one that never changes.
	constant bool
	load     float64
}

func newTrace(random *rand.Rand) trace {
	t := trace{policy: Policy{
		Min: random.Int32N(4), Target: 0.5 + 20*random.Float64(), Unit: "concurrency",
		Window: time.Duration(1+random.Int32N(30)) * time.Second, Idle: time.Duration(1+random.Int32N(30)) * time.Second, Tick: tick,
	}}
	t.policy.Max = max(1, t.policy.Min) + random.Int32N(20)
	t.start = random.Int32N(t.policy.Max + 1)
	t.constant, t.load = random.Int32N(4) == 0, random.ExpFloat64()*t.policy.Target*5
	return t
}

// sample makes up what is told next.
func (t trace) sample(random *rand.Rand, now time.Time, current int32) Sample {
	if t.constant {
		return Sample{At: now, Pods: Answers{current, current}, Gateways: Answers{1, 1}, Load: t.load, Active: t.load > 0}
	}
	sample := Sample{At: now, Pods: Answers{Ready: random.Int32N(current + 1)}, Gateways: Answers{Ready: random.Int32N(3)}}
	sample.Pods.Answered, sample.Gateways.Answered = sample.Pods.Ready, sample.Gateways.Ready
	if random.Int32N(4) == 0 {
		sample.Pods.Answered = random.Int32N(sample.Pods.Ready + 1)
	}
	if random.Int32N(8) == 0 {
		sample.Gateways.Answered = random.Int32N(sample.Gateways.Ready + 1)
	}
	switch random.Int32N(6) {
	case 0:
		sample.Load, sample.Active = random.ExpFloat64()*t.load, true
	case 1:
		sample.Held, sample.Active = float64(random.Int32N(50)), true
	case 2:
		sample.Active = true
	}
	return sample
}

// silence tells whether somebody did not answer who could.
func silence(sample Sample) bool {
	return !sample.Pods.all() || !sample.Gateways.all() || sample.Pods.Ready == 0
}

// witness follows a trace with its own, simpler notion of what is known.
type witness struct {
	// quietSince is since when everybody has told of nothing, without a gap.
	quietSince, last, started time.Time
}

func (w *witness) see(sample Sample) {
	if w.started.IsZero() {
		w.started = sample.At
	}
	complete := sample.Pods.Answered == sample.Pods.Ready && sample.Gateways.Answered == sample.Gateways.Ready
	busy := sample.Active || sample.Load > 0 || sample.Held > 0
	if gap := sample.At.Sub(w.last); !complete || busy {
		w.quietSince = time.Time{}
	} else if w.quietSince.IsZero() || gap > 2*tick || gap < 0 {
		w.quietSince = sample.At
	}
	w.last = sample.At
}

// check returns what is wrong with a decision, or nothing.
func (w *witness) check(t trace, current int32, sample Sample, decision Decision) string {
	known := !w.quietSince.IsZero() && sample.At.Sub(w.quietSince) >= t.policy.Idle
	young := sample.At.Sub(w.started) < t.policy.Window
	switch {
	case decision.Replicas < t.policy.Min || decision.Replicas > t.policy.Max:
		return "it is out of bounds"
	case decision.Reason == "" || decision.Message == "":
		return "it has no reason"
	case silence(sample) && decision.Replicas < min(current, t.policy.Max):
		return "missing data lowered the count"
	case decision.Replicas == 0 && current > 0 && (!known || sample.Gateways.Ready == 0):
		return "zero, although it isn't known that nobody asks"
	case young && decision.Replicas < min(current, t.policy.Max):
		return "the count fell within a window of the start"
	case decision.Replicas > 0 && decision.Replicas < current/2 && decision.Reason != Maximum:
		return "it fell to less than half"
	case current == 0 && sample.Held > 0 && decision.Replicas == 0:
		return "requests are held, and nothing is woken"
	}
	return ""
}

// TestProperties checks, over generated traces, what must hold of each decision
// whatever happens.
func TestProperties(t *testing.T) {
	overTraces(t, func(random *rand.Rand) (trace, string) {
		trace := newTrace(random)
		var state State
		var witness witness
		now, current, changes, last := epoch, trace.start, 0, int32(0)
		for range 12 {
			gap := time.Duration(random.Int64N(int64(5 * time.Second)))
			if random.Int32N(16) == 0 {
				gap = time.Duration(random.Int64N(int64(time.Minute))) - 10*time.Second
			}
			if trace.constant {
				gap = tick
			}
			now = now.Add(gap)
			sample := trace.sample(random, now, current)
			decision, next := Decide(trace.policy, state, current, sample)
			if again, _ := Decide(trace.policy, state, current, sample); decision != again {
				return trace, "the same inputs gave another decision"
			}
			witness.see(sample)
			if wrong := witness.check(trace, current, sample, decision); wrong != "" {
				return trace, wrong
			}
			if step := decision.Replicas - current; step != 0 {
				if (step > 0) != (last > 0) && last != 0 {
					changes++
				}
				last = step
			}
			state, current = next, decision.Replicas
		}
		if trace.constant && changes > 0 {
			return trace, "the count goes up and down under constant load"
		}
		return trace, ""
	})
}

// overTraces runs a check on many traces, on all processors.
func overTraces(t *testing.T, check func(*rand.Rand) (trace, string)) {
	t.Helper()
	var group sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		group.Go(func() {
			for seed := uint64(worker); seed < traces && !t.Failed(); seed += uint64(workers) {
				if trace, wrong := check(rand.New(rand.NewPCG(seed, 0))); wrong != "" {
					t.Errorf("seed %d: %s: %+v", seed, wrong, trace)
				}
			}
		})
	}
	group.Wait()
}
