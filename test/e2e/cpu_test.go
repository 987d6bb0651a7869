package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
)

// installMetricsServer installs the real metrics-server for one test.
func installMetricsServer(t *testing.T) {
	t.Helper()
	const program = "../../hack/metrics-server/metrics-server"
	t.Cleanup(func() {
		if output, err := exec.CommandContext(context.Background(), program, "remove").CombinedOutput(); err != nil {
			t.Errorf("removing metrics-server: %v\n%s", err, output)
		}
	})
	if output, err := exec.CommandContext(t.Context(), program, "install").CombinedOutput(); err != nil {
		t.Fatalf("installing metrics-server: %v\n%s", err, output)
	}
}

// TestScalesByCPU has a HorizontalPodAutoscaler decide, by what metrics-server
// says of pods that are kept busy; the operator leaves its number alone, and no
// request fails.
func TestScalesByCPU(t *testing.T) {
	if os.Getenv("TRAINYARD_METRICS_SERVER") == "" {
		t.Skip("metrics-server takes minutes to build: run make test-cpu")
	}
	t.Parallel()
	namespace := newNamespace(t)
	calling := newCaller(t, namespace)
	installMetricsServer(t)
	create(t, digitsData(t, namespace))
	create(t, sampleJob(t, namespace, "digits"))
	service := sampleService(t, namespace)
	service.Spec.Autoscaling = v1alpha1.Autoscaling{Metric: v1alpha1.MetricCPU, MinReplicas: new(int32(1)), MaxReplicas: new(int32(2)), TargetCPUPercent: new(int32(20))}
	service.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
	rows := digitRows(t, 100)
	request := map[string]any{"inputs": []any{map[string]any{"name": "inputs", "datatype": "FP32", "shape": []int{100, 64}, "data": flatten(rows)}}}
	asking, err := calling.keepAsking(t.Context(), 2, "http://digits/v2/models/digits/infer", request)
	if err != nil {
		t.Fatal(err)
	}
	// metrics-server looks every 15 s and needs two looks, the controller of the
	// HorizontalPodAutoscaler decides every 15 s, and the pod has to start.
	took := eventually(t, "two pods to be ready", 3*time.Minute, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(service), service); err != nil {
			return err
		}
		if replicas := service.Status.Replicas; replicas == nil || replicas.Ready < 2 || replicas.Reason != "CPU" {
			var autoscaler autoscalingv2.HorizontalPodAutoscaler
			if err := cluster.Get(ctx, client.ObjectKeyFromObject(service), &autoscaler); err != nil {
				return err
			}
			return fmt.Errorf("replicas are %+v; the HorizontalPodAutoscaler says %+v", replicas, autoscaler.Status)
		}
		return nil
	})
	t.Logf("%s pods were ready %.1f s after the load began: %s\n%s", service.Status.Replicas.Summary, took.Seconds(), service.Status.Replicas.Message,
		kubectl(t, "get", "horizontalpodautoscalers,modelservices", "--namespace", namespace))
	noneFailed(t, asking)
}
