// Package scaling decides how many pods a service should have. It is pure:
// the same policy, state and sample give the same decision, so every decision
// can be replayed in a test.
//
// The arithmetic is that of Knative's autoscaler. With c(w) the concurrency of
// all pods together, averaged over the window w, and t the concurrency that
// one pod is meant to bear:
//
//	stable  = ceil(c(60s) / t)
//	panic   = ceil(c(6s) / t)
//
// The service panics when panic is at least twice the number of ready pods,
// and goes on panicking until that has not been so for 60 s. In panic the
// count only rises. Otherwise it follows stable, at most halving in a step, and
// never below what stable was within the last 60 s.
//
// Missing data can raise the count, never lower it; and for the first 60 s
// after a start nothing is known of the past, so the count does not fall then.
package scaling

import (
	"fmt"
	"math"
	"time"
)

// The windows and rates of Knative's autoscaler.
const (
	stableWindow   = 60 * time.Second
	panicWindow    = 6 * time.Second
	panicThreshold = 2.0
	utilization    = 0.7
	maxUpRate      = 1000.0
	maxDownRate    = 2.0
)

// Policy is what the user wants.
type Policy struct {
	// Min and Max bound the count; 1 <= Min <= Max.
	Min, Max int32
	// Target is how many requests one pod should be answering at a time. Pods
	// are added when the average passes 70% of it.
	Target float64
}

// Sample is what the pods said at one time.
type Sample struct {
	At time.Time
	// Ready is how many pods are ready, Answered how many of these told their
	// concurrency.
	Ready, Answered int32
	// Concurrency is the sum over those that answered, since the sample before.
	Concurrency float64
}

// State is what the decider remembers from one decision to the next. The zero
// value is the state after a start.
type State struct {
	started    time.Time
	samples    []Sample
	panicSince time.Time
	wanted     []want
}

// want is what the stable window asked for at one time.
type want struct {
	at    time.Time
	count int32
}

// Decision is a count, and why.
type Decision struct {
	Replicas int32
	Reason   string
}

// Decide tells how many pods there should be, given how many were wanted until
// now, and the state to give to the next decision.
func Decide(policy Policy, state State, current int32, sample Sample) (Decision, State) {
	state = state.with(sample)
	stable := state.average(stableWindow)
	burst := state.average(panicWindow)
	target := policy.Target * utilization
	wantStable, wantBurst := podsFor(stable, target), podsFor(burst, target)
	state.wanted = append(state.wanted, want{sample.At, wantStable})

	ready := float64(max(sample.Ready, 1))
	if float64(wantBurst)/ready >= panicThreshold {
		state.panicSince = sample.At
	}

	count, reason := wantStable, fmt.Sprintf("concurrency %.2f over %s, %.1f a pod", stable, stableWindow, target)
	if count <= policy.Min {
		count, reason = policy.Min, "minReplicas"
	}
	switch {
	case state.panics(sample.At) && max(wantBurst, current) > wantStable:
		count, reason = max(wantBurst, current), fmt.Sprintf("burst: concurrency %.2f over %s, %.1f a pod", burst, panicWindow, target)
	case count < current:
		count, reason = state.lower(count, current, sample, reason)
	}
	if highest := int32(math.Min(ready*maxUpRate, math.MaxInt32)); count > max(current, highest) {
		count, reason = max(current, highest), "at most a thousandfold in a step; "+reason
	}
	return bounded(policy, count, reason), state
}

// lower tells how far the count may fall in one step.
func (s State) lower(count, current int32, sample Sample, reason string) (int32, string) {
	switch {
	case sample.Ready == 0:
		return current, "kept: no pod is ready, so no load is known"
	case sample.Answered < sample.Ready:
		return current, fmt.Sprintf("kept: %d of %d pods didn't tell their load", sample.Ready-sample.Answered, sample.Ready)
	case sample.At.Sub(s.started) < stableWindow:
		return current, "kept: less than " + stableWindow.String() + " of load are known"
	}
	for _, want := range s.wanted {
		count = max(count, want.count)
	}
	return min(current, max(count, int32(math.Ceil(float64(current)/maxDownRate)))), reason
}

func bounded(policy Policy, count int32, reason string) Decision {
	if count > policy.Max {
		return Decision{policy.Max, "maxReplicas; " + reason}
	}
	return Decision{max(count, policy.Min), reason}
}

func podsFor(concurrency, target float64) int32 {
	return int32(math.Min(math.Ceil(concurrency/target), math.MaxInt32))
}

// with is the state with one more sample, and without what is too old to
// matter.
func (s State) with(sample Sample) State {
	if s.started.IsZero() {
		s.started = sample.At
	}
	oldest := sample.At.Add(-stableWindow)
	next := State{started: s.started, panicSince: s.panicSince}
	for _, old := range s.samples {
		if old.At.After(oldest) {
			next.samples = append(next.samples, old)
		}
	}
	next.samples = append(next.samples, sample)
	for _, old := range s.wanted {
		if old.at.After(oldest) {
			next.wanted = append(next.wanted, old)
		}
	}
	return next
}

func (s State) panics(now time.Time) bool {
	return !s.panicSince.IsZero() && now.Sub(s.panicSince) < stableWindow
}

// average is the mean of the samples within the window. A sample in which
// pods did not answer counts as if the silent ones did as the others.
func (s State) average(window time.Duration) float64 {
	oldest := s.samples[len(s.samples)-1].At.Add(-window)
	sum, count := 0.0, 0
	for _, sample := range s.samples {
		if !sample.At.After(oldest) || sample.Answered == 0 {
			continue
		}
		concurrency := sample.Concurrency
		if sample.Ready > sample.Answered {
			concurrency *= float64(sample.Ready) / float64(sample.Answered)
		}
		sum, count = sum+concurrency, count+1
	}
	if count == 0 {
		return 0
	}
	return sum / float64(count)
}
