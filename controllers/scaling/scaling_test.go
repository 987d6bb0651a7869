package scaling

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// load is a stretch of time under the same concurrency.
type load struct {
	seconds     int
	concurrency float64
	silent      bool
}

// replay feeds a sample every two seconds; pods are ready as soon as they are
// wanted.
func replay(policy Policy, start int32, loads ...load) []int32 {
	var counts []int32
	var state State
	now, current := epoch, start
	for _, load := range loads {
		for range load.seconds / 2 {
			now = now.Add(2 * time.Second)
			sample := Sample{At: now, Ready: current, Answered: current, Concurrency: load.concurrency}
			if load.silent {
				sample.Answered, sample.Concurrency = 0, 0
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
	policy := Policy{Min: 1, Max: 10, Target: 10}
	for _, test := range []struct {
		name  string
		start int32
		loads []load
		last  int32
	}{
		{"idle stays at the minimum", 1, []load{{seconds: 120}}, 1},
		{"constant load gets ceil(load/7)", 1, []load{{seconds: 120, concurrency: 20}}, 3},
		{"a load of exactly one pod needs one", 1, []load{{seconds: 120, concurrency: 7}}, 1},
		{"load beyond the maximum stops there", 1, []load{{seconds: 120, concurrency: 1000}}, 10},
		{"a burst is met within the panic window", 1, []load{{seconds: 120}, {seconds: 6, concurrency: 40}}, 6},
		{"the load's end is believed only after the windows", 1, []load{{seconds: 120, concurrency: 40}, {seconds: 20}}, 6},
		{"and then falls to the minimum", 1, []load{{seconds: 120, concurrency: 40}, {seconds: 300}}, 1},
		{"silence never lowers", 6, []load{{seconds: 600, silent: true}}, 6},
		{"after a start the count is a floor", 6, []load{{seconds: 56}}, 6},
		{"for one window only", 6, []load{{seconds: 300}}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			counts := replay(policy, test.start, test.loads...)
			if last := counts[len(counts)-1]; last != test.last {
				t.Errorf("the last count is %d, want %d; all: %v", last, test.last, counts)
			}
		})
	}
}

func TestDecideNeverMoreThanHalvesInAStep(t *testing.T) {
	counts := replay(Policy{Min: 1, Max: 100, Target: 1}, 1, load{seconds: 120, concurrency: 60}, load{seconds: 400})
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
	decision, _ := Decide(Policy{Min: 1, Max: 10000, Target: 1}, State{}, 5000, Sample{At: epoch})
	if decision.Replicas != 5000 {
		t.Errorf("%d of 5000 pods are left (%s), although nothing is known of them", decision.Replicas, decision.Reason)
	}
}

// TestDecideProperties checks, over random traces, what must hold of each
// decision whatever the load does.
func TestDecideProperties(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 0))
		policy := Policy{Min: 1 + random.Int32N(3), Target: 0.5 + 20*random.Float64()}
		policy.Max = policy.Min + random.Int32N(20)
		var state State
		now, current := epoch, policy.Min
		for range 60 {
			now = now.Add(time.Duration(random.Int64N(int64(5 * time.Second))))
			ready := random.Int32N(current + 1)
			sample := Sample{At: now, Ready: ready, Concurrency: random.ExpFloat64() * 10}
			if ready > 0 {
				sample.Answered = random.Int32N(ready + 1)
			}
			decision, next := Decide(policy, state, current, sample)
			again, _ := Decide(policy, state, current, sample)
			switch {
			case !reflect.DeepEqual(decision, again):
				t.Fatalf("seed %d: the same inputs gave %+v and %+v", seed, decision, again)
			case decision.Replicas < policy.Min || decision.Replicas > policy.Max:
				t.Fatalf("seed %d: %+v is outside of %+v", seed, decision, policy)
			case (sample.Answered < sample.Ready || ready == 0) && decision.Replicas < current:
				t.Fatalf("seed %d: missing data lowered the count from %d to %d", seed, current, decision.Replicas)
			case decision.Reason == "":
				t.Fatalf("seed %d: a decision without a reason", seed)
			}
			state, current = next, decision.Replicas
		}
	}
}
