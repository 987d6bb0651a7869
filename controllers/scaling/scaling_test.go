package scaling

import (
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const tick = 2 * time.Second

// policy is one between bounds, with everything else as users get it by
// default.
func policy(least, most int32, target float64) Policy {
	return Policy{Min: least, Max: most, Target: target, Unit: "concurrency", Window: time.Minute, Idle: time.Minute, Tick: tick}
}

// load is a stretch of time under the same concurrency.
type load struct {
	seconds     int
	concurrency float64
	// held is what gateways hold.
	held float64
	// silent pods, or gateways, tell nothing.
	silent, silentGateways bool
	// noGateway is set when none is ready.
	noGateway bool
}

// replay feeds a sample every two seconds; pods are ready as soon as they are
// wanted.
func replay(policy Policy, start int32, loads ...load) []int32 {
	var counts []int32
	var state State
	now, current := epoch, start
	for _, load := range loads {
		for range load.seconds / 2 {
			now = now.Add(tick)
			sample := Sample{
				At: now, Pods: Answers{current, current}, Gateways: Answers{2, 2},
				Load: load.concurrency, Held: load.held, Active: load.concurrency+load.held > 0,
			}
			if load.silent {
				sample.Pods.Answered, sample.Load = 0, 0
			}
			if load.silentGateways {
				sample.Gateways.Answered = 1
			}
			if load.noGateway {
				sample.Gateways = Answers{}
			}
			var decision Decision
			decision, state = Decide(policy, state, current, sample)
			current = decision.Replicas
			counts = append(counts, current)
		}
	}
	return counts
}

func TestDecide(t *testing.T) {
	some, fromZero := policy(1, 10, 10), policy(0, 10, 10)
	quick := fromZero
	quick.Window, quick.Idle = 4*time.Second, 10*time.Second
	for _, test := range []struct {
		name   string
		policy Policy
		start  int32
		loads  []load
		last   int32
	}{
		{"idle stays at the minimum", some, 1, []load{{seconds: 120}}, 1},
		{"constant load gets ceil(load/7)", some, 1, []load{{seconds: 120, concurrency: 20}}, 3},
		{"a load of exactly one pod needs one", some, 1, []load{{seconds: 120, concurrency: 7}}, 1},
		{"load beyond the maximum stops there", some, 1, []load{{seconds: 120, concurrency: 1000}}, 10},
		{"a burst is met within the panic window", some, 1, []load{{seconds: 120}, {seconds: 6, concurrency: 40}}, 6},
		{"the load's end is believed only after the windows", some, 1, []load{{seconds: 120, concurrency: 40}, {seconds: 20}}, 6},
		{"and then falls to the minimum", some, 1, []load{{seconds: 120, concurrency: 40}, {seconds: 300}}, 1},
		{"silence never lowers", some, 6, []load{{seconds: 600, silent: true}}, 6},
		{"silence of a gateway never lowers", some, 6, []load{{seconds: 600, silentGateways: true}}, 6},
		{"after a start the count is a floor", some, 6, []load{{seconds: 56}}, 6},
		{"for one window only", some, 6, []load{{seconds: 300}}, 1},
		{"a minimum that was raised is met at once", policy(3, 10, 10), 1, []load{{seconds: 2}}, 3},

		{"zero after the idle time", fromZero, 1, []load{{seconds: 64}}, 0},
		{"not before it", fromZero, 1, []load{{seconds: 58}}, 1},
		{"not after a restart before the window is over", fromZero, 3, []load{{seconds: 58}}, 3},
		{"zero stays", fromZero, 0, []load{{seconds: 600}}, 0},
		{"zero even if nobody tells", fromZero, 0, []load{{seconds: 600, silentGateways: true}}, 0},
		{"one request in the idle time begins it anew", fromZero, 1, []load{{seconds: 50}, {seconds: 2, concurrency: 0.01}, {seconds: 50}}, 1},
		{"never zero while a pod is silent", fromZero, 2, []load{{seconds: 600, silent: true}}, 2},
		{"never zero while a gateway is silent", fromZero, 2, []load{{seconds: 600, silentGateways: true}}, 2},
		{"never zero without a gateway, which would have to wake it", fromZero, 1, []load{{seconds: 600, noGateway: true}}, 1},
		{"what gateways hold wakes", fromZero, 0, []load{{seconds: 120}, {seconds: 2, held: 1}}, 1},
		{"to as many as are needed for it", fromZero, 0, []load{{seconds: 120}, {seconds: 2, held: 40}}, 6},
		{"an idle time of seconds", quick, 1, []load{{seconds: 20}}, 0},
		{"which ends at a load", quick, 1, []load{{seconds: 20}, {seconds: 2, held: 3}, {seconds: 6, concurrency: 1}}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			counts := replay(test.policy, test.start, test.loads...)
			if last := counts[len(counts)-1]; last != test.last {
				t.Errorf("the last count is %d, want %d; all: %v", last, test.last, counts)
			}
		})
	}
}

// TestIdleTimeBeginsWithAPod has a pod take longer to start than the idle time:
// it is not taken away the moment that it is ready.
func TestIdleTimeBeginsWithAPod(t *testing.T) {
	quick := policy(0, 10, 10)
	quick.Window, quick.Idle = 4*time.Second, 6*time.Second
	var state State
	var decision Decision
	now := epoch
	for second := 0; second < 40; second += 2 {
		now = now.Add(tick)
		sample := Sample{At: now, Gateways: Answers{1, 1}}
		if second >= 20 {
			sample.Pods = Answers{1, 1}
		}
		if decision, state = Decide(quick, state, 1, sample); (decision.Replicas == 0) != (second >= 26) {
			t.Errorf("after %d s, with a pod since 20 s: %+v", second, decision)
		}
	}
}

func TestDecideNeverMoreThanHalvesInAStep(t *testing.T) {
	counts := replay(policy(1, 100, 1), 1, load{seconds: 120, concurrency: 60}, load{seconds: 400})
	for i := 1; i < len(counts); i++ {
		if counts[i] < (counts[i-1]+1)/2 {
			t.Fatalf("step %d goes from %d to %d", i, counts[i-1], counts[i])
		}
	}
	if last := counts[len(counts)-1]; last != 1 {
		t.Errorf("the load is gone, and %d pods remain", last)
	}
}

// TestDecideKeepsManyPodsWithoutData has more pods than the rate of growth
// allows for one: it bounds growth only, and takes no pod away.
func TestDecideKeepsManyPodsWithoutData(t *testing.T) {
	decision, _ := Decide(policy(1, 10000, 1), State{}, 5000, Sample{At: epoch})
	if decision.Replicas != 5000 {
		t.Errorf("%d of 5000 pods are left (%s), although nothing is known of them", decision.Replicas, decision.Message)
	}
}

// TestIdleTimeBeginsAnew has a service that has been idle for nearly long
// enough, and something that makes the past unknown.
func TestIdleTimeBeginsAnew(t *testing.T) {
	idle := func(at time.Time) Sample {
		return Sample{At: at, Pods: Answers{1, 1}, Gateways: Answers{1, 1}}
	}
	for _, test := range []struct {
		name string
		do   func(State, time.Time) (State, time.Time)
	}{
		{"a gap of more than two ticks", func(s State, now time.Time) (State, time.Time) { return s, now.Add(2*tick + time.Millisecond) }},
		{"a clock that is turned back", func(s State, now time.Time) (State, time.Time) { return s, now.Add(-time.Second) }},
		{"a gateway that woke it", func(s State, now time.Time) (State, time.Time) { return s.Woken(), now }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var state State
			var decision Decision
			now := epoch
			for range 60 {
				now = now.Add(tick)
				decision, state = Decide(policy(0, 10, 10), state, 1, idle(now))
				if now.Sub(epoch) == 60*time.Second {
					break
				}
			}
			if decision.Replicas != 1 {
				t.Fatalf("%+v after %s", decision, now.Sub(epoch))
			}
			state, now = test.do(state, now)
			if decision, _ = Decide(policy(0, 10, 10), state, 1, idle(now.Add(tick/2))); decision.Replicas != 1 {
				t.Errorf("%+v", decision)
			}
		})
	}
}
