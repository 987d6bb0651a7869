package routing

import (
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"
)

// TestEndpoints is the truth table in the package's comment.
func TestEndpoints(t *testing.T) {
	ready := GatewayPod{Name: "a", Address: "10.0.0.1", Ready: true}
	stopping := GatewayPod{Name: "b", Address: "10.0.0.2", Ready: true, Stopping: true}
	unready := GatewayPod{Name: "c", Address: "10.0.0.3"}
	homeless := GatewayPod{Name: "d", Ready: true}
	fallback := func(pod GatewayPod) Endpoint { return Endpoint{pod, false, true, true} }
	first := func(pod GatewayPod) Endpoint { return Endpoint{pod, true, true, false} }
	for _, test := range []struct {
		name      string
		pods      []GatewayPod
		readyPods int32
		want      []Endpoint
	}{
		{"ready, while pods are", []GatewayPod{ready}, 1, []Endpoint{fallback(ready)}},
		{"ready, while none is", []GatewayPod{ready}, 0, []Endpoint{first(ready)}},
		{"stopping and the last, while pods are ready", []GatewayPod{stopping}, 1, []Endpoint{fallback(stopping)}},
		{"stopping and the last, while none is", []GatewayPod{stopping}, 0, []Endpoint{fallback(stopping)}},
		{"stopping beside another, while pods are ready", []GatewayPod{stopping, ready}, 1, []Endpoint{fallback(ready)}},
		{"stopping beside another, while none is", []GatewayPod{stopping, ready}, 0, []Endpoint{first(ready)}},
		{"stopping beside one that isn't ready", []GatewayPod{stopping, unready}, 0, []Endpoint{fallback(stopping)}},
		{"not ready, while pods are", []GatewayPod{unready}, 1, nil},
		{"not ready, while none is", []GatewayPod{unready}, 0, nil},
		{"without an address", []GatewayPod{homeless}, 0, nil},
		{"no gateway", nil, 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Endpoints(test.pods, test.readyPods); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestEndpointsProperties checks what must hold of every slice.
func TestEndpointsProperties(t *testing.T) {
	for seed := range uint64(100_000) {
		random := rand.New(rand.NewPCG(seed, 1))
		pods := make([]GatewayPod, random.IntN(6))
		answering := false
		for i := range pods {
			pods[i] = GatewayPod{Name: strconv.Itoa(i), Address: "10.0.0." + strconv.Itoa(i), Ready: random.IntN(2) == 0, Stopping: random.IntN(3) == 0}
			answering = answering || pods[i].Ready
		}
		readyPods := random.Int32N(2)
		endpoints := Endpoints(pods, readyPods)
		random.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
		if again := Endpoints(pods, readyPods); !reflect.DeepEqual(endpoints, again) {
			t.Fatalf("seed %d: another order of pods gives another slice: %+v and %+v", seed, endpoints, again)
		}
		if answering != (len(endpoints) > 0) {
			t.Fatalf("seed %d: %d endpoints of %+v", seed, len(endpoints), pods)
		}
		for _, endpoint := range endpoints {
			switch {
			case !endpoint.Serving || !endpoint.Ready:
				t.Fatalf("seed %d: requests would go to %+v", seed, endpoint)
			case endpoint.ShownReady && readyPods > 0:
				t.Fatalf("seed %d: requests would pass the gateway while pods are ready: %+v", seed, endpoint)
			case endpoint.ShownReady == endpoint.Terminating:
				t.Fatalf("seed %d: no proxy knows what to make of %+v", seed, endpoint)
			}
		}
	}
}

// TestPortsProperties lets services come and go, each allotted by a manager
// that may not have seen the last of the others: in the end no two have the same
// ports, and nobody lost ports but to an older service.
func TestPortsProperties(t *testing.T) {
	few := Range{10000, 10019}
	for seed := range uint64(100_000) {
		random := rand.New(rand.NewPCG(seed, 2))
		claims := make([]Claim, 1+random.IntN(10))
		for i := range claims {
			claims[i] = Claim{UID: strconv.Itoa(int(seed)) + "-" + strconv.Itoa(i), Created: time.Unix(random.Int64N(3), 0)}
		}
		for round := 0; ; round++ {
			stale := make([]Claim, len(claims))
			copy(stale, claims)
			settled := true
			for i, mine := range claims {
				if Keeps(few, mine, claims) {
					continue
				}
				settled = false
				// Some see what the others just did, some do not.
				seen := claims
				if random.IntN(2) == 0 {
					seen = stale
				}
				ports, err := Allot(few, mine, seen)
				if err != nil || !few.holds(ports) {
					t.Fatalf("seed %d: %+v, %v", seed, ports, err)
				}
				if mine.Ports != (Ports{}) && !older(claims, mine) {
					t.Fatalf("seed %d: %+v lost its ports to a younger service", seed, mine)
				}
				claims[i].Ports = ports
			}
			if settled {
				break
			}
			if round > 30 {
				t.Fatalf("seed %d: not settled: %+v", seed, claims)
			}
		}
		taken := map[Ports]bool{}
		for _, claim := range claims {
			if taken[claim.Ports] {
				t.Fatalf("seed %d: two services have %+v", seed, claim.Ports)
			}
			taken[claim.Ports] = true
		}
	}
}

func older(claims []Claim, mine Claim) bool {
	for _, other := range claims {
		if other.UID != mine.UID && other.Ports == mine.Ports && other.before(mine) {
			return true
		}
	}
	return false
}

func TestAllotWhenAllAreTaken(t *testing.T) {
	one := Range{10000, 10001}
	_, err := Allot(one, Claim{UID: "b"}, []Claim{{UID: "a", Ports: Ports{10000, 10001}}})
	if err == nil {
		t.Error("ports were given out twice")
	}
	if ports, err := Allot(one, Claim{UID: "a", Ports: Ports{10000, 10001}}, []Claim{{UID: "a", Ports: Ports{10000, 10001}}}); err != nil || ports.HTTP != 10000 {
		t.Errorf("a service is in its own way: %v %v", ports, err)
	}
}

func TestKeeps(t *testing.T) {
	young, old := Claim{"b", time.Unix(2, 0), Ports{10000, 10001}}, Claim{"a", time.Unix(1, 0), Ports{10000, 10001}}
	for name, test := range map[string]struct {
		mine   Claim
		others []Claim
		want   bool
	}{
		"alone":                            {young, []Claim{young}, true},
		"the older of two":                 {old, []Claim{young, old}, true},
		"the younger of two":               {young, []Claim{young, old}, false},
		"none yet":                         {Claim{UID: "a"}, nil, false},
		"out of the range":                 {Claim{UID: "a", Ports: Ports{9000, 9001}}, nil, false},
		"no pair":                          {Claim{UID: "a", Ports: Ports{10000, 10003}}, nil, false},
		"between two pairs of the range's": {Claim{UID: "a", Ports: Ports{10001, 10002}}, nil, false},
	} {
		if got := Keeps(GatewayRange, test.mine, test.others); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
