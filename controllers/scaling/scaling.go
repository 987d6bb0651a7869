// Package scaling decides how many pods a service should have. It is pure:
// the same policy, state and sample give the same decision, so every decision
// can be replayed in a test.
//
// The arithmetic is that of Knative's autoscaler. With l(w) the load of all
// pods together, averaged over the window w, and t the load that one pod is
// meant to bear:
//
//	stable  = ceil(l(window) / t)
//	burst   = ceil(l(window/10) / t)
//
// The service panics when burst is at least twice the number of ready pods,
// and goes on panicking until that has not been so for one window. In panic the
// count only rises. Otherwise it follows stable, at most halving in a step, and
// never below what stable was within the last window. Load is concurrency, or
// requests in a second, and the window is 60 s unless the user says otherwise.
//
// Zero is a decision of its own: every ready pod and every gateway told, in
// samples at most two ticks apart and for the whole idle time, that nobody
// asked for anything.
//
// Missing data can raise the count, never lower it; and for the first window
// after a start nothing is known of the past, so the count does not fall then.
package scaling

import (
	"fmt"
	"math"
	"time"
)

// The rates of Knative's autoscaler.
const (
	panicShare     = 10
	panicThreshold = 2.0
	utilization    = 0.7
	maxUpRate      = 1000.0
	maxDownRate    = 2.0
)

// Policy is what the user wants.
type Policy struct {
	// Min and Max bound the count; 0 <= Min <= Max and 1 <= Max. With a Min of 0
	// the count is 0 only while nobody asks for anything.
	Min, Max int32
	// Target is how much load one pod should bear, above 0. Pods are added when
	// the average passes 70% of it.
	Target float64
	// Unit is what load is measured in, for people: "concurrency".
	Unit string
	// Window is what the load is averaged over, and for how long a lower count
	// must have been enough before the count falls; above 0.
	Window time.Duration
	// Idle is for how long nobody may have asked before the count is 0.
	Idle time.Duration
	// Tick is how often samples are meant to come.
	Tick time.Duration
}

// Answers counts those that could tell something, and those that did.
type Answers struct {
	Ready, Answered int32
}

// all tells whether nobody was silent.
func (a Answers) all() bool { return a.Answered >= a.Ready }

// Sample is what pods and gateways said at one time.
type Sample struct {
	At time.Time
	// Pods answer requests; Gateways hold them while there are no pods.
	Pods, Gateways Answers
	// Load is the sum over the pods that answered, since the sample before.
	Load float64
	// Held is how many requests gateways hold: load that no pod knows of yet.
	Held float64
	// Active is set when anyone told of a request since the sample before.
	Active bool
}

// State is what the decider remembers from one decision to the next. The zero
// value is the state after a start.
type State struct {
	started    time.Time
	samples    []Sample
	panicSince time.Time
	wanted     []want
	// idleSince is since when everyone has told that there is nothing to do;
	// zero when there was, or when somebody was silent.
	idleSince time.Time
}

// want is what the stable window asked for at one time.
type want struct {
	at    time.Time
	count int32
}

// Woken is the state after a gateway raised the count from zero: whatever was
// known of the idle time is over.
func (s State) Woken() State {
	s.idleSince = time.Time{}
	return s
}

// Reason is a decision's cause, in one word.
type Reason string

// Reasons of decisions.
const (
	// Load: the count follows the load.
	Load Reason = "Load"
	// Burst: the load rose fast, and the count only rises.
	Burst Reason = "Burst"
	// Minimum: there is less to do than the least number of pods can bear.
	Minimum Reason = "Minimum"
	// Maximum: there is more to do than the greatest number of pods can bear.
	Maximum Reason = "Maximum"
	// Idle: nobody asks for anything, so there is no pod.
	Idle Reason = "Idle"
	// Kept: the load would do with fewer pods, but too little is known of it.
	Kept Reason = "Kept"
)

// Decision is a count, and why.
type Decision struct {
	Replicas int32
	Reason   Reason
	// Message says the reason to people, with the load that led to it.
	Message string
	// Load is the average that the decision is about.
	Load float64
}

// Decide tells how many pods there should be, given how many were wanted until
// now, and the state to give to the next decision.
func Decide(policy Policy, state State, current int32, sample Sample) (Decision, State) {
	state = state.with(policy, sample)
	stable := state.average(policy.Window)
	burst := state.average(policy.Window / panicShare)
	target := policy.Target * utilization
	wantStable, wantBurst := podsFor(stable, target), podsFor(burst, target)
	state.wanted = append(state.wanted, want{sample.At, wantStable})
	ready := float64(max(sample.Pods.Ready, 1))
	if float64(wantBurst)/ready >= panicThreshold {
		state.panicSince = sample.At
	}
	if decision, rests := state.rest(policy, current, max(wantStable, wantBurst), sample); rests {
		return decision, state
	}

	least := max(policy.Min, 1)
	next := Decision{wantStable, Load, fmt.Sprintf("%s %.2f over %s, %.1f a pod", policy.Unit, stable, policy.Window, target), stable}
	if next.Replicas <= least {
		next.Replicas, next.Reason = least, Minimum
	}
	switch {
	case state.panics(policy, sample.At) && max(wantBurst, current) > wantStable:
		next = Decision{max(wantBurst, current), Burst, fmt.Sprintf("%s %.2f over %s, %.1f a pod", policy.Unit, burst, policy.Window/panicShare, target), burst}
	case next.Replicas < current:
		next = state.lower(policy, next, current, sample)
	}
	if highest := int32(math.Min(ready*maxUpRate, math.MaxInt32)); next.Replicas > max(current, highest) {
		next.Replicas = max(current, highest)
	}
	return next.within(least, policy.Max), state
}

// rest tells whether the service has no pods, and needs none. Gateways are what
// wakes it, so without one it never goes to rest.
func (s State) rest(policy Policy, current, wanted int32, sample Sample) (Decision, bool) {
	idle := policy.Min == 0 && wanted == 0 && !sample.Active
	if idle && current == 0 {
		return Decision{0, Idle, "nobody asks for anything", 0}, true
	}
	known := !s.idleSince.IsZero() && sample.Gateways.Ready > 0
	if !idle || !known || s.young(policy, sample.At) || sample.At.Sub(s.idleSince) < policy.Idle {
		return Decision{}, false
	}
	return Decision{0, Idle, fmt.Sprintf("nobody has asked for anything for %s", policy.Idle), 0}, true
}

// lower tells how far the count may fall in one step.
func (s State) lower(policy Policy, next Decision, current int32, sample Sample) Decision {
	kept := func(format string, arguments ...any) Decision {
		return Decision{current, Kept, fmt.Sprintf(format, arguments...) + "; " + next.Message, next.Load}
	}
	switch {
	case sample.Pods.Ready == 0:
		return kept("no pod is ready, so no load is known")
	case !sample.Pods.all():
		return kept("%d of %d pods didn't tell their load", sample.Pods.Ready-sample.Pods.Answered, sample.Pods.Ready)
	case !sample.Gateways.all():
		return kept("%d of %d gateways didn't tell what they hold", sample.Gateways.Ready-sample.Gateways.Answered, sample.Gateways.Ready)
	case s.young(policy, sample.At):
		return kept("less than %s of load are known", policy.Window)
	}
	for _, want := range s.wanted {
		next.Replicas = max(next.Replicas, want.count)
	}
	next.Replicas = min(current, max(next.Replicas, int32(math.Ceil(float64(current)/maxDownRate))))
	return next
}

func (d Decision) within(least, most int32) Decision {
	if d.Replicas > most {
		d.Replicas, d.Reason = most, Maximum
	}
	d.Replicas = max(d.Replicas, least)
	return d
}

func podsFor(load, target float64) int32 {
	return int32(math.Min(math.Ceil(load/target), math.MaxInt32))
}

// with is the state with one more sample, and without what is too old to
// matter.
func (s State) with(policy Policy, sample Sample) State {
	if s.started.IsZero() {
		s.started = sample.At
	}
	oldest := sample.At.Add(-policy.Window)
	next := State{started: s.started, panicSince: s.panicSince, idleSince: s.idle(policy, sample)}
	next.samples = make([]Sample, 0, len(s.samples)+1)
	for _, old := range s.samples {
		if old.At.After(oldest) {
			next.samples = append(next.samples, old)
		}
	}
	next.samples = append(next.samples, sample)
	next.wanted = make([]want, 0, len(s.wanted)+1)
	for _, old := range s.wanted {
		if old.at.After(oldest) {
			next.wanted = append(next.wanted, old)
		}
	}
	return next
}

// idle tells since when everyone has told that there is nothing to do. It
// begins when a pod is ready, anew after a gap, in which anything may have
// happened, and when the clock was turned back.
func (s State) idle(policy Policy, sample Sample) time.Time {
	busy := sample.Active || sample.Load > 0 || sample.Held > 0
	if busy || sample.Pods.Ready == 0 || !sample.Pods.all() || !sample.Gateways.all() {
		return time.Time{}
	}
	if s.idleSince.IsZero() || len(s.samples) == 0 {
		return sample.At
	}
	if gap := sample.At.Sub(s.samples[len(s.samples)-1].At); gap < 0 || gap > 2*policy.Tick {
		return sample.At
	}
	return s.idleSince
}

// young tells whether less than a window has passed since the start.
func (s State) young(policy Policy, now time.Time) bool { return now.Sub(s.started) < policy.Window }

func (s State) panics(policy Policy, now time.Time) bool {
	return !s.panicSince.IsZero() && now.Sub(s.panicSince) < policy.Window
}

// average is the mean load of the samples within the window. A sample in which
// pods did not answer counts as if the silent ones did as the others; one of
// which nothing is known does not count.
func (s State) average(window time.Duration) float64 {
	oldest := s.samples[len(s.samples)-1].At.Add(-window)
	sum, count := 0.0, 0
	for _, sample := range s.samples {
		if !sample.At.After(oldest) || (sample.Pods.Answered == 0 && sample.Held == 0) {
			continue
		}
		load := sample.Load
		if sample.Pods.Ready > sample.Pods.Answered && sample.Pods.Answered > 0 {
			load *= float64(sample.Pods.Ready) / float64(sample.Pods.Answered)
		}
		sum, count = sum+load+sample.Held, count+1
	}
	if count == 0 {
		return 0
	}
	return sum / float64(count)
}
