package modelservice

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

func TestBatchingIsTheServers(t *testing.T) {
	delay := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	for _, c := range []struct {
		batching *v1alpha1.Batching
		want     []string
	}{
		{nil, nil},
		{&v1alpha1.Batching{}, nil},
		{&v1alpha1.Batching{MaxBatchSize: new(int32(0))}, []string{"--max-batch-size=0"}},
		{&v1alpha1.Batching{MaxBatchSize: new(int32(128)), MaxDelay: delay(5 * time.Millisecond)}, []string{"--max-batch-size=128", "--max-batch-delay=5ms"}},
		{&v1alpha1.Batching{MaxDelay: delay(0)}, []string{"--max-batch-delay=0s"}},
	} {
		server, err := serverOf(&v1alpha1.ModelService{Spec: v1alpha1.ModelServiceSpec{Batching: c.batching}}, "image")
		if err != nil {
			t.Fatal(err)
		}
		if got := server.Args[2:]; !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, want %v", c.batching, got, c.want)
		}
	}
}

// TestAServerIsToldOfANewContract has servers that refused a model before they
// were told to take it all the same.
func TestAServerIsToldOfANewContract(t *testing.T) {
	for _, c := range []struct {
		status spec.ModelStatus
		model  spec.ServedModel
		want   bool
	}{
		{spec.ModelStatus{Digest: "a", State: spec.StateReady}, spec.ServedModel{Digest: "a"}, true},
		{spec.ModelStatus{Digest: "a", State: spec.StateReady}, spec.ServedModel{Digest: "b"}, false},
		{spec.ModelStatus{Digest: "a", State: spec.StateLoading}, spec.ServedModel{Digest: "a"}, true},
		{spec.ModelStatus{Digest: "a", State: spec.StateUnavailable}, spec.ServedModel{Digest: "a"}, true},
		{spec.ModelStatus{Digest: "a", State: spec.StateUnavailable}, spec.ServedModel{Digest: "a", NewContract: true}, false},
		{spec.ModelStatus{Digest: "a", State: spec.StateUnavailable, NewContract: true}, spec.ServedModel{Digest: "a", NewContract: true}, true},
		{spec.ModelStatus{Digest: "a", State: spec.StateReady}, spec.ServedModel{Digest: "a", NewContract: true}, true},
	} {
		if got := isAt(c.status, c.model); got != c.want {
			t.Errorf("%+v for %+v: got %v", c.status, c.model, got)
		}
	}
}
