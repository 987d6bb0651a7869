package trainingjob

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

func pod(name string, phase corev1.PodPhase) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: trainerContainer}}},
		Status:     corev1.PodStatus{Phase: phase},
	}
}

func ended(name string, code int32, reason, message string) corev1.Pod {
	p := pod(name, corev1.PodFailed)
	if code == 0 {
		p.Status.Phase = corev1.PodSucceeded
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name:  trainerContainer,
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}},
	}}
	return p
}

func result(t *testing.T, r spec.Result) string {
	t.Helper()
	encoded, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func modelOf(digit string) *spec.Model {
	return &spec.Model{Reference: "registry/models/ns/digits:" + digit, Digest: "sha256:" + strings.Repeat(digit, 64), Bytes: 10, Parameters: 5}
}

func withLimit(p corev1.Pod, memory string) corev1.Pod {
	p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
	return p
}

func TestJudge(t *testing.T) {
	job := &batchv1.Job{Spec: batchv1.JobSpec{BackoffLimit: new(int32(3))}}
	over := func(kind batchv1.JobConditionType) *batchv1.Job {
		done := job.DeepCopy()
		done.Status.Conditions = []batchv1.JobCondition{{Type: kind, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded", Message: "too often"}}
		return done
	}
	good := result(t, spec.Result{Model: modelOf("a")})
	second := result(t, spec.Result{Model: modelOf("b")})
	invalid := result(t, spec.Result{Failure: &spec.Failure{Reason: spec.ReasonDatasetInvalid, Message: "row 3 is short"}})
	registry := result(t, spec.Result{Failure: &spec.Failure{Reason: spec.ReasonRegistryUnavailable, Message: "the registry doesn't answer"}})
	foreseen := result(t, spec.Result{Progress: &spec.Progress{MemoryBytes: 300 << 20}, Log: "it reads"})
	waiting := pod("p", corev1.PodPending)
	waiting.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such image"}}}}
	unscheduled := pod("p", corev1.PodPending)
	unscheduled.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available"}}

	for _, test := range []struct {
		name                   string
		seen                   observation
		state, reason, message string
	}{
		{"nothing yet", observation{job: job}, v1alpha1.StatePending, v1alpha1.ReasonPodPending, "waiting for the run's pod"},
		{"an obstacle", observation{obstacle: obstacle{v1alpha1.ReasonDatasetMissing, "no such thing"}}, v1alpha1.StatePending, v1alpha1.ReasonDatasetMissing, "no such thing"},
		{"starting", observation{job: job, pods: []corev1.Pod{pod("p", corev1.PodPending)}}, v1alpha1.StatePending, v1alpha1.ReasonPodPending, "pod p is starting"},
		{"no image", observation{job: job, pods: []corev1.Pod{waiting}}, v1alpha1.StatePending, v1alpha1.ReasonPodPending, "ErrImagePull: no such image"},
		{"no room", observation{job: job, pods: []corev1.Pod{unscheduled}}, v1alpha1.StatePending, v1alpha1.ReasonPodPending, "0/1 nodes are available"},
		{"training", observation{job: job, pods: []corev1.Pod{pod("p", corev1.PodRunning)}}, v1alpha1.StateTraining, v1alpha1.ReasonTraining, "pod p trains"},
		{"published", observation{job: job, pods: []corev1.Pod{ended("p", 0, "", good)}}, v1alpha1.StateComplete, v1alpha1.ReasonPublished, "sha256:aaaa"},
		{"published twice: the first counts", observation{job: job, pods: []corev1.Pod{ended("p", 0, "", good), ended("q", 0, "", second)}}, v1alpha1.StateComplete, v1alpha1.ReasonPublished, "sha256:aaaa"},
		{"published after a crash", observation{job: job, pods: []corev1.Pod{ended("p", 2, "Error", ""), ended("q", 0, "", good)}}, v1alpha1.StateComplete, v1alpha1.ReasonPublished, "sha256:aaaa"},
		{"wrong input", observation{job: job, pods: []corev1.Pod{ended("p", spec.ExitInvalid, "Error", invalid)}}, v1alpha1.StateFailed, spec.ReasonDatasetInvalid, "row 3 is short"},
		{"crashed, none yet after it", observation{job: job, pods: []corev1.Pod{ended("p", 2, "Error", "")}}, v1alpha1.StateRetrying, v1alpha1.ReasonRetrying, "attempt 1 of 4 failed, another follows: pod p ended with exit code 2"},
		{"crashed, another starts", observation{job: job, pods: []corev1.Pod{ended("p", 1, "Error", registry), pod("q", corev1.PodPending)}}, v1alpha1.StateRetrying, v1alpha1.ReasonRetrying, "the registry doesn't answer"},
		{"crashed, another trains", observation{job: job, pods: []corev1.Pod{ended("p", 1, "Error", registry), pod("q", corev1.PodRunning)}}, v1alpha1.StateTraining, v1alpha1.ReasonTraining, "pod q trains"},
		{"given up", observation{job: over(batchv1.JobFailed), pods: []corev1.Pod{ended("p", 1, "Error", registry), ended("q", 1, "Error", registry)}}, v1alpha1.StateFailed, spec.ReasonRegistryUnavailable, "the registry doesn't answer (given up after 2 attempts)"},
		{"killed for memory", observation{job: over(batchv1.JobFailed), pods: []corev1.Pod{withLimit(ended("p", 137, "OOMKilled", ""), "64Mi")}}, v1alpha1.StateFailed, v1alpha1.ReasonOutOfMemory, "64Mi: raise spec.resources.limits.memory"},
		{"killed for memory that was foreseen", observation{job: over(batchv1.JobFailed), pods: []corev1.Pod{withLimit(ended("p", 137, "OOMKilled", foreseen), "64Mi")}}, v1alpha1.StateFailed, v1alpha1.ReasonOutOfMemory, "64Mi; about 300Mi should be enough: raise"},
		{"interrupted, none yet after it", observation{job: job, pods: []corev1.Pod{ended("p", spec.ExitInterrupted, "Error", "")}}, v1alpha1.StateRetrying, v1alpha1.ReasonRetrying, "was interrupted, another follows, and this attempt doesn't count"},
		{"crashed after an interruption", observation{job: job, pods: []corev1.Pod{ended("p", spec.ExitInterrupted, "Error", ""), ended("q", 2, "Error", "")}}, v1alpha1.StateRetrying, v1alpha1.ReasonRetrying, "attempt 1 of 4 failed"},
		{"killed", observation{job: over(batchv1.JobFailed), pods: []corev1.Pod{ended("p", 137, "Error", "")}}, v1alpha1.StateFailed, v1alpha1.ReasonCrashed, "was killed"},
		{"failed without a pod", observation{job: over(batchv1.JobFailed)}, v1alpha1.StateFailed, v1alpha1.ReasonCrashed, "BackoffLimitExceeded: too often"},
		{"evicted", observation{job: over(batchv1.JobFailed), pods: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory"}}}}, v1alpha1.StateFailed, v1alpha1.ReasonCrashed, "Evicted low on memory"},
		{"complete, and nobody knows of what", observation{job: over(batchv1.JobComplete)}, v1alpha1.StateRetrying, v1alpha1.ReasonResultLost, "gives the same model"},
		{"termination message is no JSON", observation{job: job, pods: []corev1.Pod{ended("p", 0, "", "garbage")}}, v1alpha1.StatePending, v1alpha1.ReasonPodPending, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := judge(&v1alpha1.TrainingJob{}, test.seen)
			if got.state != test.state || got.reason != test.reason || !strings.Contains(got.message, test.message) {
				t.Errorf("judged as %s, %s, %q; want %s, %s, ...%q...", got.state, got.reason, got.message, test.state, test.reason, test.message)
			}
		})
	}
}

// TestStatusIsFinal checks that what comes after the end changes nothing: not
// another model, not a failure.
func TestStatusIsFinal(t *testing.T) {
	training := &v1alpha1.TrainingJob{ObjectMeta: metav1.ObjectMeta{Name: "digits", Generation: 1}}
	first := []corev1.Pod{ended("p", 0, "", result(t, spec.Result{Model: modelOf("a")}))}
	training.Status = statusOf(training, observation{job: &batchv1.Job{}, pods: first, now: time.Unix(1, 0)})
	if training.Status.Model == nil || training.Status.Model.ShortDigest != "aaaaaaaaaaaa" {
		t.Fatalf("no model in %+v", training.Status)
	}
	later := []corev1.Pod{ended("q", 0, "", result(t, spec.Result{Model: modelOf("b")}))}
	after := statusOf(training, observation{job: &batchv1.Job{}, pods: later, now: time.Unix(2, 0)})
	if after.Model.Digest != training.Status.Model.Digest {
		t.Errorf("the model went from %s to %s", training.Status.Model.Digest, after.Model.Digest)
	}
}

func TestProgressReachesStatus(t *testing.T) {
	training := &v1alpha1.TrainingJob{}
	seen := observation{
		job:  &batchv1.Job{},
		pods: []corev1.Pod{pod("p", corev1.PodRunning)},
		progress: &spec.Progress{Epoch: 3, Epochs: 10, Loss: 0.123456789, SamplesPerSecond: 1234.5, SecondsLeft: 61.2, MemoryBytes: 64<<20 + 1,
			Metrics: map[string]float64{"Accuracy": 0.98765432, "Broken": math.NaN()}},
	}
	got, err := json.Marshal(statusOf(training, seen).Progress)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"summary":"3/10","epoch":3,"epochs":10,"loss":0.123457,"accuracy":0.987654,"metrics":{"Accuracy":0.987654},"samplesPerSecond":1234,"remaining":"1m1s","memory":"65Mi"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTurnsAreToldOnce(t *testing.T) {
	training := &v1alpha1.TrainingJob{}
	seen := observation{job: &batchv1.Job{}, pods: []corev1.Pod{pod("p", corev1.PodRunning)}}
	first := statusOf(training, seen)
	if _, ok := turnOf(training.Status, first); !ok {
		t.Error("the start of training is not told")
	}
	training.Status = first
	for epoch := range int32(3) {
		seen.progress = &spec.Progress{Epoch: epoch + 1, Epochs: 10}
		next := statusOf(training, seen)
		if told, ok := turnOf(training.Status, next); ok {
			t.Errorf("progress is told as %+v", told)
		}
		training.Status = next
	}
}

func TestSourceName(t *testing.T) {
	job := &v1alpha1.TrainingJob{ObjectMeta: metav1.ObjectMeta{Name: "iris", Namespace: "default"}}
	job.Spec.Dataset.Source.ConfigMap = &spec.KeyReference{Name: "flowers", Key: "iris.csv"}
	if got, want := sourceOf(job).name, "ConfigMap default/flowers, key iris.csv"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The last words of an attempt are its own, or the end of its log.
func TestLastFailureIsKept(t *testing.T) {
	told := result(t, spec.Result{Failure: &spec.Failure{Reason: spec.ReasonDiverged, Message: "NaN"}, Log: "line 1\nline 2"})
	for _, test := range []struct {
		name, message, reason, log string
		code                       int32
	}{
		{"it says why", told, spec.ReasonDiverged, "line 1\nline 2", 10},
		{"it panicked", "panic: oh\ngoroutine 1\n", v1alpha1.ReasonCrashed, "panic: oh\ngoroutine 1", 2},
		{"nothing is left", "", v1alpha1.ReasonCrashed, "", 137},
	} {
		training := &v1alpha1.TrainingJob{}
		training.Status = statusOf(training, observation{job: &batchv1.Job{}, pods: []corev1.Pod{ended("p", test.code, "Error", test.message)}})
		got := training.Status.LastFailure
		if got == nil || got.Pod != "p" || got.Reason != test.reason || *got.ExitCode != test.code || got.LastLog != test.log {
			t.Errorf("%s: the last failure is %+v", test.name, got)
		}
		// Its pod is gone, and another is there.
		if after := statusOf(training, observation{job: &batchv1.Job{}, pods: []corev1.Pod{pod("q", corev1.PodRunning)}}); after.LastFailure == nil {
			t.Errorf("%s: the last failure is forgotten", test.name)
		}
	}
}

// While a pod doesn't answer, what it said is not taken back: it would be told
// again and again.
func TestRunningPodIsQuiet(t *testing.T) {
	training, seen := &v1alpha1.TrainingJob{}, observation{job: &batchv1.Job{}, pods: []corev1.Pod{pod("p", corev1.PodRunning)}}
	for _, test := range []struct {
		progress        *spec.Progress
		reason, message string
	}{
		{nil, v1alpha1.ReasonTraining, "pod p trains"},
		{&spec.Progress{Activity: "reads data"}, v1alpha1.ReasonTraining, "pod p reads data"},
		{nil, v1alpha1.ReasonTraining, "pod p reads data"},
		{&spec.Progress{Activity: "waits", Warning: "nothing listens"}, v1alpha1.ReasonHindered, "pod p waits; nothing listens"},
		{nil, v1alpha1.ReasonHindered, "pod p waits; nothing listens"},
		{&spec.Progress{Epoch: 1, Epochs: 2}, v1alpha1.ReasonTraining, "pod p trains"},
	} {
		seen.progress = test.progress
		training.Status = statusOf(training, seen)
		if got := training.Status.Conditions[0]; got.Reason != test.reason || got.Message != test.message {
			t.Errorf("after %+v: %s, %q", test.progress, got.Reason, got.Message)
		}
	}
}
