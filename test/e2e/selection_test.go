package e2e

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// selected makes a run of the model that the service selects by its label.
func selected(t *testing.T, namespace, name string, change func(*v1alpha1.TrainingJob)) *v1alpha1.TrainingJob {
	t.Helper()
	job := sampleJob(t, namespace, name)
	job.Labels = map[string]string{"model": "digits"}
	change(job)
	create(t, job)
	jobReaches(t, job, v1alpha1.TrainingJobComplete, "", "", time.Minute)
	t.Logf("TrainingJob %s: %s, validation accuracy %.3f", name, job.Status.Model.ShortDigest, job.Status.Metrics["ValidationAccuracy"])
	return job
}

// TestNewestThatIsGoodEnough selects by label with a gate, while a client asks
// without a pause: a newer model is taken, one that is not good enough and one
// that clients could not use are passed over and said, a digest pins and is let
// go, and a pod that starts serves what the others do.
func TestNewestThatIsGoodEnough(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	calling := newCaller(t, namespace)
	create(t, digitsData(t, namespace))
	first := selected(t, namespace, "first", func(*v1alpha1.TrainingJob) {})
	service := sampleService(t, namespace)
	service.Spec.Model = v1alpha1.ModelSource{TrainingJobs: &v1alpha1.TrainingJobSelection{
		Selector: metav1.LabelSelector{MatchLabels: map[string]string{"model": "digits"}},
		Require:  &v1alpha1.MetricRequirement{Metric: "ValidationAccuracy", AtLeast: new(0.9)},
	}}
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
	request := map[string]any{"inputs": []any{map[string]any{"name": "inputs", "datatype": "FP32", "shape": []int{1, 64}, "data": digitRows(t, 1)}}}
	asking, err := calling.keepAsking(t.Context(), 1, "http://digits/v2/models/digits/infer", request)
	if err != nil {
		t.Fatal(err)
	}
	answers := func(job *v1alpha1.TrainingJob) {
		t.Helper()
		took := calling.answers(t, request, job.Status.Model.ShortDigest)
		t.Logf("the model of %s answered after %.1f s", job.Name, took.Seconds())
	}
	answers(first)

	selected(t, namespace, "poor", func(j *v1alpha1.TrainingJob) {
		j.Spec.Training.Epochs, j.Spec.Training.Optimizer.LearningRate = 1, 1e-6
	})
	second := selected(t, namespace, "second", func(j *v1alpha1.TrainingJob) { j.Spec.Training.Seed = 8 })
	answers(second)
	kubectl(t, "patch", "modelservice", "digits", "--namespace", namespace, "--type=merge", "--patch", fmt.Sprintf(`{"spec": {"model": {"digest": %q}}}`, first.Status.Model.Digest))
	answers(first)
	kubectl(t, "patch", "modelservice", "digits", "--namespace", namespace, "--type=merge", "--patch", `{"spec": {"model": {"digest": null}}}`)
	answers(second)

	selected(t, namespace, "narrow", func(j *v1alpha1.TrainingJob) {
		j.Spec.Network.Inputs = 63
		for i := range 63 {
			j.Spec.Dataset.Features = append(j.Spec.Dataset.Features, strconv.Itoa(i))
		}
	})
	broken := metav1.Condition{Type: v1alpha1.ModelServiceProgressing, Status: metav1.ConditionFalse, Reason: spec.ReasonContractBroken, Message: "it takes 63 inputs, not 64"}
	reaches(t, service, func() []metav1.Condition { return service.Status.Conditions }, broken, 10*time.Second)
	t.Logf("%s", meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ModelServiceProgressing).Message)
	hasEvent(t, service, spec.ReasonContractBroken, "it takes 63 inputs, not 64")
	noneFailed(t, asking)
	for _, pod := range podsOf(t, modelServicePods(service), namespace) {
		remove(t, &pod)
	}
	eventually(t, "another pod to be ready alone", 2*time.Minute, func(context.Context) error {
		for _, pod := range podsOf(t, modelServicePods(service), namespace) {
			if pod.DeletionTimestamp != nil {
				return fmt.Errorf("pod %s is still there", pod.Name)
			}
		}
		return nil
	})
	answers(second)
	t.Logf("\n%s", kubectl(t, "get", "modelservices,trainingjobs", "--namespace", namespace))
}

// answers waits until the service digits answers with that version.
func (c caller) answers(t *testing.T, request any, version string) time.Duration {
	t.Helper()
	return eventually(t, "version "+version+" to answer", 30*time.Second, func(ctx context.Context) error {
		var answer struct {
			ModelVersion string `json:"model_version"`
		}
		if err := c.post(ctx, "http://digits/v2/models/digits/infer", request, &answer); err != nil {
			return err
		}
		if answer.ModelVersion != version {
			return fmt.Errorf("version %s answered", answer.ModelVersion)
		}
		return nil
	})
}

// TestScaledByHand runs kubectl scale, as people do, and sees who owns the number.
func TestScaledByHand(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	create(t, sampleJob(t, namespace, "digits"))
	service := sampleService(t, namespace)
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
	kubectl(t, "scale", "deployment/digits", "--replicas=3", "--namespace", namespace)
	hasEvent(t, service, "ScaledByHand", "was scaled to 3 by somebody else and is set back to 1: ModelService digits owns the number; change its spec.autoscaling.minReplicas and maxReplicas")
	eventually(t, "the Deployment to be set back", 10*time.Second, func(ctx context.Context) error {
		var deployment appsv1.Deployment
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(service), &deployment); err != nil {
			return err
		}
		if *deployment.Spec.Replicas != 1 {
			return fmt.Errorf("it has %d replicas", *deployment.Spec.Replicas)
		}
		return nil
	})
}
