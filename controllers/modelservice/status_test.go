package modelservice

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/scaling"
	"trainyard.dev/trainyard/runtime/spec"
)

func published(digit string) *v1alpha1.PublishedModel {
	digest := "sha256:" + strings.Repeat(digit, 64)
	return &v1alpha1.PublishedModel{Reference: "registry:5000/models/ns/digits:" + digit, Digest: digest, ShortDigest: strings.Repeat(digit, 12)}
}

func podThat(ready bool) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	if ready {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return pod
}

func waitingPod(reason, message string) *corev1.Pod {
	pod := podThat(false)
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2, Reason: "Error"}},
	}}
	return pod
}

func TestReadinessAndProgress(t *testing.T) {
	model := resolution{model: published("a")}
	one := scaling.Decision{Replicas: 1, Reason: "minReplicas"}
	has := func(digit, state, reason string) *spec.ModelStatus {
		return &spec.ModelStatus{Name: "digits", Digest: published(digit).Digest, State: state, Reason: reason}
	}
	refused := &appsv1.Deployment{Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{
		{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota"}}}}
	const (
		yes = metav1.ConditionTrue
		no  = metav1.ConditionFalse
	)
	for _, test := range []struct {
		name                         string
		seen                         observation
		ready                        metav1.ConditionStatus
		readyReason, readyMessage    string
		progressing                  metav1.ConditionStatus
		progressReason, progressText string
	}{
		{"no model yet", observation{resolution: resolution{model: nil, reason: v1alpha1.ReasonTrainingJobRunning, message: "waiting for the model"}},
			no, v1alpha1.ReasonTrainingJobRunning, "waiting for the model", no, v1alpha1.ReasonTrainingJobRunning, ""},
		{"an obstacle", observation{resolution: model, obstacle: obstacle{v1alpha1.ReasonNameTaken, "taken"}, decision: one},
			no, v1alpha1.ReasonNameTaken, "taken", no, v1alpha1.ReasonNameTaken, "taken"},
		{"no pod yet", observation{resolution: model, decision: one},
			no, v1alpha1.ReasonStarting, "", yes, v1alpha1.ReasonStarting, ""},
		{"the registry is down", observation{resolution: model, decision: one, pods: []podReport{{podThat(false), has("a", spec.StateLoading, "the registry doesn't answer")}}},
			no, v1alpha1.ReasonModelUnavailable, "the registry doesn't answer", yes, v1alpha1.ReasonStarting, ""},
		{"no image", observation{resolution: model, decision: one, pods: []podReport{{pod: waitingPod("ErrImagePull", "no such image")}}},
			no, v1alpha1.ReasonPodFailing, "ErrImagePull: no such image", yes, v1alpha1.ReasonStarting, ""},
		{"a crash loop", observation{resolution: model, decision: one, pods: []podReport{{pod: waitingPod("CrashLoopBackOff", "back-off")}}},
			no, v1alpha1.ReasonPodFailing, "exit code 2", yes, v1alpha1.ReasonStarting, ""},
		{"no quota", observation{resolution: model, decision: one, deployment: refused},
			no, v1alpha1.ReasonPodFailing, "exceeded quota", yes, v1alpha1.ReasonStarting, ""},
		{"serving", observation{resolution: model, decision: one, pods: []podReport{{podThat(true), has("a", spec.StateReady, "")}}},
			yes, v1alpha1.ReasonServing, "", no, v1alpha1.ReasonStable, ""},
		{"serving the model before", observation{resolution: model, decision: one, pods: []podReport{{podThat(true), has("b", spec.StateReady, "")}}},
			yes, v1alpha1.ReasonServing, "", yes, v1alpha1.ReasonUpdating, "aaaaaaaaaaaa"},
		{"the new model is broken", observation{resolution: model, decision: one, pods: []podReport{{podThat(true), has("a", spec.StateUnavailable, "corrupt")}}},
			yes, v1alpha1.ReasonServing, "", yes, v1alpha1.ReasonModelUnavailable, "corrupt"},
		{"growing", observation{resolution: model, decision: scaling.Decision{Replicas: 2}, pods: []podReport{{podThat(true), has("a", spec.StateReady, "")}}},
			yes, v1alpha1.ReasonServing, "", yes, v1alpha1.ReasonScaling, "2 pods"},
		{"the job is gone, its model stays", observation{resolution: resolution{model: published("a"), reason: v1alpha1.ReasonTrainingJobMissing, message: "there is no TrainingJob"}, decision: one, pods: []podReport{{podThat(true), has("a", spec.StateReady, "")}}},
			yes, v1alpha1.ReasonServing, "", no, v1alpha1.ReasonTrainingJobMissing, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			check := func(name string, got verdict, status metav1.ConditionStatus, reason, message string) {
				if got.status != status || got.reason != reason || !strings.Contains(got.message, message) {
					t.Errorf("%s is %+v, want %s, %s, ...%q...", name, got, status, reason, message)
				}
			}
			check("Ready", readiness(test.seen), test.ready, test.readyReason, test.readyMessage)
			check("Progressing", progress(test.seen), test.progressing, test.progressReason, test.progressText)
		})
	}
}

func TestRepositoryOf(t *testing.T) {
	for reference, want := range map[string]string{
		"registry:5000/models/ns/digits:abc": "registry:5000/models/ns/digits",
		"registry:5000/models/ns/digits":     "registry:5000/models/ns/digits",
		"registry/digits:abc":                "registry/digits",
		"":                                   "",
	} {
		if got := repositoryOf(reference); got != want {
			t.Errorf("the repository of %q is %q, want %q", reference, got, want)
		}
	}
}

func TestConcurrency(t *testing.T) {
	before := spec.Stats{Started: 1, UptimeSeconds: 10, BusySeconds: 5, InFlight: 9}
	for _, test := range []struct {
		name string
		now  spec.Stats
		want float64
	}{
		{"the average since the last reading", spec.Stats{Started: 1, UptimeSeconds: 12, BusySeconds: 8}, 1.5},
		{"another process: what is in flight", spec.Stats{Started: 2, UptimeSeconds: 1, BusySeconds: 1, InFlight: 3}, 3},
		{"the same instant: what is in flight", spec.Stats{Started: 1, UptimeSeconds: 10, BusySeconds: 5, InFlight: 4}, 4},
	} {
		if got := concurrency(before, test.now); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}
