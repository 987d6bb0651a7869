package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// TestScalesWithLoad asks more of one pod than it is meant to bear: others
// come, and no request fails meanwhile.
func TestScalesWithLoad(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	calling := newCaller(t, namespace)
	create(t, digitsData(t, namespace))
	job := sampleJob(t, namespace, "digits")
	job.Spec.Training.Epochs = 1
	job.Spec.Network.Layers = []spec.Layer{{Units: 2048, Activation: spec.ReLU}, {Units: 1024, Activation: spec.ReLU}, {Units: 10, Activation: spec.Softmax}}
	create(t, job)
	service := sampleService(t, namespace)
	service.Spec.Autoscaling.TargetConcurrency = new(int32(1))
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", 2*time.Minute)

	rows := digitRows(t, 64)
	request := map[string]any{"inputs": []any{map[string]any{"name": "inputs", "datatype": "FP32", "shape": []int{64, 64}, "data": flatten(rows)}}}
	asking, err := calling.keepAsking(t.Context(), 4, "http://digits/v2/models/digits/infer", request)
	if err != nil {
		t.Fatal(err)
	}
	took := eventually(t, "another pod to be ready", time.Minute, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(service), service); err != nil {
			return err
		}
		if service.Status.Replicas == nil || service.Status.Replicas.Ready < 2 {
			return fmt.Errorf("replicas are %+v", service.Status.Replicas)
		}
		return nil
	})
	t.Logf("%s pods were ready %.1f s after the load began: %s", service.Status.Replicas.Summary, took.Seconds(), service.Status.Replicas.Reason)
	noneFailed(t, asking)
	hasEvent(t, service, "Scaled", "from 1 to")
}

// noneFailed ends the asking and checks that every request was answered.
func noneFailed(t *testing.T, asking asking) {
	t.Helper()
	asked, failed, err := asking.stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d requests, %d of them failed", asked, failed)
	if failed > 0 || asked == 0 {
		t.Errorf("%d of %d requests failed", failed, asked)
	}
}
