package trainingjob

import (
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

func withWorkers(namespace string, workers int32) *v1alpha1.TrainingJob {
	job := sample(namespace)
	job.Spec.Workers = workers
	return job
}

// service reads the workers' Service; nil: there is none.
func (b *bench) service() *corev1.Service {
	b.t.Helper()
	service := &corev1.Service{}
	err := server.Client.Get(b.t.Context(), client.ObjectKey{Namespace: b.namespace, Name: "digits-workers"}, service)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return service
}

// Several workers are an Indexed Job, whose first pod decides how it ends, and a
// headless Service that gives them names.
func TestWorkersGetJobAndService(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(withWorkers(b.namespace, 3))
	job := b.pass()
	b.expect(job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, "waiting for the run's pod")

	service := b.service()
	if service == nil || !metav1.IsControlledBy(service, job) || service.Spec.ClusterIP != corev1.ClusterIPNone || !service.Spec.PublishNotReadyAddresses {
		t.Fatalf("the Service is %+v, want a headless one that the TrainingJob owns", service)
	}
	made := b.job().Spec
	if *made.CompletionMode != batchv1.IndexedCompletion || *made.Completions != 3 || *made.Parallelism != 3 || *made.SuccessPolicy.Rules[0].SucceededIndexes != "0" {
		t.Errorf("the Job is %+v", made)
	}
	for key, value := range service.Spec.Selector {
		if made.Template.Labels[key] != value {
			t.Errorf("the Service looks for %s=%s, which pods don't have", key, value)
		}
	}
	if made.Template.Spec.Subdomain != service.Name {
		t.Errorf("pods are in the subdomain %q", made.Template.Spec.Subdomain)
	}
	told := made.Template.Spec.Containers[0].Env
	recipe := slices.IndexFunc(told, func(v corev1.EnvVar) bool { return v.Name == spec.TrainVariable })
	if want := `"workers":{"count":3,"leader":"digits-0.digits-workers.` + b.namespace + `.svc:8080"}`; !strings.Contains(told[recipe].Value, want) {
		t.Errorf("workers are told %s, want %s in it", told[recipe].Value, want)
	}
	if !slices.ContainsFunc(told, func(v corev1.EnvVar) bool {
		return v.Name == spec.AddressVariable && v.ValueFrom.FieldRef.FieldPath == "status.podIP"
	}) {
		t.Error("workers aren't told their address")
	}
}

// One worker needs nothing of that.
func TestOneWorkerIsAlone(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	if job := b.pass(); job.Spec.Workers != 1 {
		t.Errorf("there are %d workers by default", job.Spec.Workers)
	}
	if made := b.job().Spec; *made.CompletionMode != batchv1.NonIndexedCompletion || made.SuccessPolicy != nil || b.service() != nil {
		t.Errorf("the Job is %+v, the Service %+v", made, b.service())
	}
}

func TestWorkersServiceIsNeeded(t *testing.T) {
	b := newBench(t)
	b.createData()
	foreign := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "digits-workers", Namespace: b.namespace}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	b.create(foreign)
	b.create(withWorkers(b.namespace, 2))
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonNameTaken, "digits-workers already exists and belongs to something else")
	if b.job() != nil {
		t.Error("a Job was made whose pods have no names")
	}
	remove := func() {
		if err := server.Client.Delete(t.Context(), b.service()); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	first := b.pass()
	if b.job() == nil || b.service() == nil {
		t.Fatal("the run doesn't go on when the name is free")
	}
	remove()
	b.pass()
	if b.service() == nil {
		t.Error("a Service that somebody deleted isn't made again")
	}

	// Deleted and applied again: nothing collects what is left behind here.
	if err := server.Client.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	b.create(withWorkers(b.namespace, 2))
	for range 4 { // the Job, the Service, then both anew
		b.pass()
	}
	if job := b.read(); !metav1.IsControlledBy(b.service(), job) || !metav1.IsControlledBy(b.job(), job) {
		t.Error("what the first TrainingJob left behind isn't replaced")
	}
}

func worker(p corev1.Pod, index string) corev1.Pod {
	p.Labels = map[string]string{batchv1.JobCompletionIndexAnnotation: index}
	return p
}

// A run of several pods stands where its hindmost pod stands.
func TestJudgeWorkers(t *testing.T) {
	job := &batchv1.Job{Spec: batchv1.JobSpec{BackoffLimit: new(int32(3))}}
	running := func(name, index string) corev1.Pod { return worker(pod(name, corev1.PodRunning), index) }
	unschedulable := worker(pod("w1", corev1.PodPending), "1")
	unschedulable.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no node has 64 CPUs"}}
	killed := worker(ended("w1", 137, "Error", ""), "1")
	published := worker(ended("w0", 0, "Completed", result(t, spec.Result{Model: modelOf("a")})), "0")
	stopped := worker(ended("w1", spec.ExitInterrupted, "Error", result(t, spec.Result{Failure: &spec.Failure{Reason: spec.ReasonInterrupted, Message: "stopped"}})), "1")
	wrong := worker(ended("w1", spec.ExitInvalid, "Error", result(t, spec.Result{Failure: &spec.Failure{Reason: spec.ReasonDatasetInvalid, Message: "row 17"}})), "1")
	for _, test := range []struct {
		name                   string
		pods                   []corev1.Pod
		state, reason, message string
		lastFailure            bool
	}{
		{"all train", []corev1.Pod{running("w1", "1"), running("w0", "0"), running("w2", "2")}, v1alpha1.StateTraining, v1alpha1.ReasonTraining, "pod w0 reads", false},
		{"one can't start", []corev1.Pod{running("w0", "0"), unschedulable, running("w2", "2")}, v1alpha1.StatePending, v1alpha1.ReasonPodPending, "no node has 64 CPUs", false},
		{"one was killed", []corev1.Pod{running("w0", "0"), killed, running("w2", "2")}, v1alpha1.StateRetrying, v1alpha1.ReasonRetrying, "attempt 1 of 4 failed, another follows: pod w1 was killed", true},
		{"its successor starts", []corev1.Pod{running("w0", "0"), killed, worker(pod("w1b", corev1.PodPending), "1")}, v1alpha1.StateRetrying, v1alpha1.ReasonRetrying, "pod w1 was killed", true},
		{"its successor trains", []corev1.Pod{running("w0", "0"), killed, running("w1b", "1")}, v1alpha1.StateTraining, v1alpha1.ReasonTraining, "pod w0 reads", true},
		{"one is told to stop", []corev1.Pod{running("w0", "0"), stopped}, v1alpha1.StateRetrying, v1alpha1.ReasonRetrying, "doesn't count", true},
		{"one finds wrong input", []corev1.Pod{running("w0", "0"), wrong}, v1alpha1.StateFailed, spec.ReasonDatasetInvalid, "row 17", true},
		{"the first has published", []corev1.Pod{published, running("w1", "1")}, v1alpha1.StateComplete, v1alpha1.ReasonPublished, "", false},
		{"and the others are stopped", []corev1.Pod{published, stopped}, v1alpha1.StateComplete, v1alpha1.ReasonPublished, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			training := &v1alpha1.TrainingJob{}
			seen := observation{job: job, pods: test.pods, progress: &spec.Progress{Activity: "reads data"}}
			got := judge(training, seen)
			if got.state != test.state || got.reason != test.reason || !strings.Contains(got.message, test.message) {
				t.Errorf("judged as %s, %s, %q; want %s, %s, ...%q...", got.state, got.reason, got.message, test.state, test.reason, test.message)
			}
			if last := statusOf(training, seen).LastFailure; (last != nil) != test.lastFailure {
				t.Errorf("the last failure is %+v", last)
			}
		})
	}
}
