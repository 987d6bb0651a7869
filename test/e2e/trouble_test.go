package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/test/prober"
)

// flowers is a small table of three classes.
func flowers() string {
	var table strings.Builder
	table.WriteString("length,width,species\n")
	for i := range 30 {
		fmt.Fprintf(&table, "%d.5,%d,%s\n", i%10, i%7, []string{"rose", "lily", "iris"}[i%3])
	}
	return table.String()
}

// flowersJob trains on a ConfigMap that holds the content under the key
// flowers.csv.
func flowersJob(namespace, name string) *v1alpha1.TrainingJob {
	return &v1alpha1.TrainingJob{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: v1alpha1.TrainingJobSpec{
			Network: spec.Network{Layers: []spec.Layer{{Units: 3, Activation: spec.Softmax}}},
			Dataset: spec.Dataset{
				Source: spec.DatasetSource{ConfigMap: &spec.KeyReference{Name: name, Key: "flowers.csv"}},
				Label:  "species",
			},
			Training: spec.Training{Loss: spec.CategoricalCrossentropy, Epochs: 2},
		},
	}
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	if _, err := writer.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.String()
}

// TestBadInput gives the trainer what cannot be trained on. Each ends in the
// condition Failed and an Event that name the thing and the place, after one
// attempt.
func TestBadInput(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	for _, test := range []struct {
		name, content string
		change        func(*v1alpha1.TrainingJob)
		reason        string
		message       []string
	}{
		{"units", flowers(), func(j *v1alpha1.TrainingJob) { j.Spec.Network.Layers[0].Units = 5 },
			spec.ReasonNetworkInvalid, []string{"5 units", "3 classes", "species"}},
		{"inputs", flowers(), func(j *v1alpha1.TrainingJob) { j.Spec.Network.Inputs = 7 },
			spec.ReasonNetworkInvalid, []string{"7", "2"}},
		{"label", flowers(), func(j *v1alpha1.TrainingJob) { j.Spec.Dataset.Label = "specie" },
			spec.ReasonDatasetInvalid, []string{`"specie"`, "length", "species"}},
		{"cell", strings.Replace(flowers(), "3.5,3,", "3.5,wide,", 1), nil,
			spec.ReasonDatasetInvalid, []string{"row 5", `"width"`, `"wide"`}},
		{"ragged", strings.Replace(flowers(), "3.5,3,", "3.5,", 1), nil,
			spec.ReasonDatasetInvalid, []string{"row 5"}},
		{"empty", "", nil, spec.ReasonDatasetInvalid, []string{"empty"}},
		{"headeronly", "length,width,species\n", nil, spec.ReasonDatasetInvalid, []string{"no rows"}},
		{"truncated", zipped(t, strings.Repeat(flowers(), 1))[:60], nil, spec.ReasonDatasetInvalid, []string{"truncated"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: test.name, Namespace: namespace}, BinaryData: map[string][]byte{"flowers.csv": []byte(test.content)}})
			job := flowersJob(namespace, test.name)
			if test.change != nil {
				test.change(job)
			}
			create(t, job)
			took := jobReaches(t, job, v1alpha1.TrainingJobFailed, test.reason, "", time.Minute)
			message := job.Status.Conditions[0].Message
			t.Logf("%.1f s: %s: %s", took.Seconds(), test.reason, message)
			for _, word := range test.message {
				if !strings.Contains(message, word) {
					t.Errorf("the message is %q, want it to say %q", message, word)
				}
			}
			hasEvent(t, job, test.reason, message)
			if pods := podsOf(t, client.MatchingLabels{v1alpha1.TrainingJobLabel: job.Name}, namespace); len(pods) != 1 {
				t.Errorf("%d attempts at what can't succeed", len(pods))
			}
		})
	}
}

func podsOf(t *testing.T, labels client.MatchingLabels, namespace string) []corev1.Pod {
	t.Helper()
	var pods corev1.PodList
	if err := cluster.List(t.Context(), &pods, client.InNamespace(namespace), labels); err != nil {
		t.Fatal(err)
	}
	return pods.Items
}

// TestWaiting applies everything in the wrong order: each resource says what
// it waits for, and goes on when it is there.
func TestWaiting(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	service := &v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "flowers", Namespace: namespace},
		Spec:       v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: "flowers"}}},
	}
	create(t, service)
	serviceReaches(t, service, metav1.ConditionFalse, v1alpha1.ReasonTrainingJobMissing, "there is no TrainingJob "+namespace+"/flowers", 10*time.Second)
	hasEvent(t, service, v1alpha1.ReasonTrainingJobMissing, "there is no TrainingJob")

	job := flowersJob(namespace, "flowers")
	create(t, job)
	jobReaches(t, job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonDatasetMissing, "there is no ConfigMap "+namespace+"/flowers", 10*time.Second)
	hasEvent(t, job, v1alpha1.ReasonDatasetMissing, "there is no ConfigMap")
	serviceReaches(t, service, metav1.ConditionFalse, v1alpha1.ReasonTrainingJobRunning, "there is no ConfigMap", 10*time.Second)

	data := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "flowers", Namespace: namespace}, Data: map[string]string{"other.csv": ""}}
	create(t, data)
	jobReaches(t, job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonDatasetMissing, `no key "flowers.csv"`, 10*time.Second)
	hasEvent(t, job, v1alpha1.ReasonDatasetMissing, "it has other.csv")

	data.Data["flowers.csv"] = flowers()
	if err := cluster.Update(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	jobReaches(t, job, v1alpha1.TrainingJobComplete, "", "", time.Minute)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
}

// longJob trains on the digits until something happens to it.
func longJob(t *testing.T, namespace, name string, epochs int32) *v1alpha1.TrainingJob {
	t.Helper()
	job := sampleJob(t, namespace, name)
	job.Spec.Training.Epochs = epochs
	return job
}

// runningPod waits until the job's pod trains.
func runningPod(t *testing.T, job *v1alpha1.TrainingJob) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	eventually(t, "the pod of "+job.Name+" to report an epoch", time.Minute, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return err
		}
		for _, pod := range podsOf(t, client.MatchingLabels{v1alpha1.TrainingJobLabel: job.Name}, job.Namespace) {
			if pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp.IsZero() {
				found = &pod
			}
		}
		if found == nil || job.Status.Progress == nil || job.Status.Progress.Epoch == 0 {
			return fmt.Errorf("state %s, progress %+v", job.Status.State, job.Status.Progress)
		}
		return nil
	})
	return found
}

// TestRegistryDown takes the registry away from a run, and then from a
// starting server. Both say so, and both go on when it is back. It changes what
// every other story needs, so it is told alone, before them.
func TestRegistryDown(t *testing.T) {
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	scale(t, "registry", 0)
	defer scale(t, "registry", 1)

	hopeless := sampleJob(t, namespace, "hopeless")
	hopeless.Spec.BackoffLimit = new(int32(0))
	create(t, hopeless)
	job := sampleJob(t, namespace, "digits")
	create(t, job)
	took := jobReaches(t, job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonHindered, "registry.trainyard-system.svc:5000", time.Minute)
	t.Logf("said after %.1f s: %s", took.Seconds(), job.Status.Conditions[0].Message)
	hasEvent(t, job, v1alpha1.ReasonHindered, "registry.trainyard-system.svc:5000")
	jobReaches(t, job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonRetrying, "registry.trainyard-system.svc:5000", 2*time.Minute)
	jobReaches(t, hopeless, v1alpha1.TrainingJobFailed, spec.ReasonRegistryUnavailable, "registry.trainyard-system.svc:5000", 2*time.Minute)
	hasEvent(t, hopeless, spec.ReasonRegistryUnavailable, "registry.trainyard-system.svc:5000")

	scale(t, "registry", 1)
	jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", 3*time.Minute)

	scale(t, "registry", 0)
	service := sampleService(t, namespace)
	create(t, service)
	took = serviceReaches(t, service, metav1.ConditionFalse, v1alpha1.ReasonModelUnavailable, "registry.trainyard-system.svc:5000", 2*time.Minute)
	t.Logf("said after %.1f s: %s", took.Seconds(), service.Status.Conditions[0].Message)
	scale(t, "registry", 1)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", 2*time.Minute)
	for _, pod := range podsOf(t, modelServicePods(service), namespace) {
		for _, container := range pod.Status.ContainerStatuses {
			if container.RestartCount > 0 {
				t.Errorf("pod %s restarted %d times while it waited", pod.Name, container.RestartCount)
			}
		}
	}
}

// TestRegistryDownAtWake takes the registry away while a service has no pods. Who
// asks then waits until it is back, and the service says what for. It is told alone,
// too.
func TestRegistryDownAtWake(t *testing.T) {
	service := digitsFromZero(t, newNamespace(t))
	wantsNone(t, service)
	noPods(t, service)
	scale(t, "registry", 0)
	defer scale(t, "registry", 1)
	probe := prober.New(address(t, service)+"/v2/models/digits/infer", inference(t), time.Minute)
	stop := runs(t, probe, 5)
	took := serviceReaches(t, service, metav1.ConditionFalse, v1alpha1.ReasonModelUnavailable, "registry.trainyard-system.svc:5000", time.Minute)
	t.Logf("said after %.1f s: %s", took.Seconds(), service.Status.Conditions[0].Message)
	scale(t, "registry", 1)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
	stop()
	allAnswered(t, "the registry away at a wake", probe.Count())
}

// scale sets the number of pods of one of the operator's Deployments, and waits
// for it.
func scale(t *testing.T, name string, replicas int32) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var deployment appsv1.Deployment
	key := client.ObjectKey{Namespace: operatorNamespace, Name: name}
	if err := cluster.Get(ctx, key, &deployment); err != nil {
		t.Fatal(err)
	}
	deployment.Spec.Replicas = &replicas
	if err := cluster.Update(ctx, &deployment); err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("%d pods of the %s", replicas, name), time.Minute, func(ctx context.Context) error {
		if err := cluster.Get(ctx, key, &deployment); err != nil {
			return err
		}
		if deployment.Status.ReadyReplicas != replicas || deployment.Status.Replicas != replicas {
			return errors.New(deployment.Status.String())
		}
		// A pod that is being stopped is not counted, and still answers.
		if pods := podsOf(t, client.MatchingLabels{"app.kubernetes.io/component": name}, key.Namespace); len(pods) != int(replicas) {
			return fmt.Errorf("%d pods are there", len(pods))
		}
		return nil
	})
}
