package e2e

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// TestDeadline lets a run take too long: it fails, says how far it got, and is
// deleted with all that belongs to it when its time has come.
func TestDeadline(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	job := longJob(t, namespace, "digits", 1_000_000)
	job.Spec.ActiveDeadlineSeconds = new(int64(6))
	job.Spec.TTLSecondsAfterFinished = new(int32(10))
	create(t, job)
	pod := runningPod(t, job)
	took := jobReaches(t, job, v1alpha1.TrainingJobFailed, v1alpha1.ReasonDeadlineExceeded, "it was in epoch", time.Minute)
	t.Logf("%.1f s: %s", took.Seconds(), job.Status.Conditions[0].Message)
	hasEvent(t, job, v1alpha1.ReasonDeadlineExceeded, "of 1000000")
	isGone(t, job)
	isGone(t, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: job.Name, Namespace: namespace}})
	isGone(t, pod)
}

// TestOutOfMemory wants a network that is too large for its pod, and keeps the
// trainer from knowing its limit, so that it isn't refused before.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	job := sampleJob(t, namespace, "digits")
	job.Spec.BackoffLimit = new(int32(0))
	job.Spec.Network.Layers = []spec.Layer{{Units: 4096, Activation: spec.ReLU}, {Units: 4096, Activation: spec.ReLU}, {Units: 10, Activation: spec.Softmax}}
	memory := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	job.Spec.Resources = corev1.ResourceRequirements{Requests: memory, Limits: memory}
	job.Spec.PodTemplate.Env = []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: "off"}}
	create(t, job)
	took := jobReaches(t, job, v1alpha1.TrainingJobFailed, v1alpha1.ReasonOutOfMemory, "its limit of 64Mi; about ", time.Minute)
	t.Logf("%.1f s: %s", took.Seconds(), job.Status.Conditions[0].Message)
	failure := job.Status.LastFailure
	if failure == nil || failure.ExitCode == nil || *failure.ExitCode != 137 || !strings.Contains(failure.LastLog, "Training starts") {
		t.Errorf("the last failure is %+v", failure)
	}
}

// TestPodTemplate wants a ServiceAccount that isn't there: that is said, and
// when it is there the run goes on, with all that was wanted of its pod.
func TestPodTemplate(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	job := sampleJob(t, namespace, "digits")
	job.Spec.PodTemplate = v1alpha1.PodTemplate{
		Labels:             map[string]string{"team": "vision"},
		NodeSelector:       map[string]string{"kubernetes.io/os": "linux"},
		Tolerations:        []corev1.Toleration{{Key: "training", Operator: corev1.TolerationOpExists}},
		PriorityClassName:  "system-cluster-critical",
		ServiceAccountName: "trainer",
		Env:                []corev1.EnvVar{{Name: "GOMAXPROCS", Value: "1"}},
	}
	create(t, job)
	took := jobReaches(t, job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, `serviceaccount "trainer" not found`, time.Minute)
	t.Logf("said after %.1f s: %s", took.Seconds(), job.Status.Conditions[0].Message)
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "trainer", Namespace: namespace}})
	// The Job controller has waited longer each time.
	jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", 2*time.Minute)
	pods := podsOf(t, client.MatchingLabels{"team": "vision"}, namespace)
	if len(pods) != 1 || pods[0].Spec.ServiceAccountName != "trainer" || pods[0].Spec.PriorityClassName != "system-cluster-critical" || pods[0].Spec.NodeSelector["kubernetes.io/os"] != "linux" {
		t.Fatalf("the pods are %+v", pods)
	}
	if log := kubectl(t, "logs", "--namespace", namespace, pods[0].Name); !strings.Contains(log, "processors=1") {
		t.Errorf("the variable did not reach the trainer, which logs:\n%s", log)
	}
}

// TestLastFailure reads what a failed attempt left: reason, exit code and log.
func TestLastFailure(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "flowers", Namespace: namespace}, Data: map[string]string{"flowers.csv": flowers()}})
	job := flowersJob(namespace, "flowers")
	job.Spec.Dataset.Label = "kind"
	create(t, job)
	jobReaches(t, job, v1alpha1.TrainingJobFailed, spec.ReasonDatasetInvalid, `"kind"`, time.Minute)
	failure := job.Status.LastFailure
	if failure == nil || failure.Reason != spec.ReasonDatasetInvalid || *failure.ExitCode != spec.ExitInvalid || failure.Time == nil || !strings.Contains(failure.LastLog, "Training failed") {
		t.Errorf("the last failure is %+v", failure)
	}
}

// TestColumns reads what kubectl prints, and waits as scripts do.
func TestColumns(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	job := sampleJob(t, namespace, "digits")
	create(t, job)
	kubectl(t, "wait", "--for=condition=Complete", "trainingjob/digits", "--namespace", namespace, "--timeout=60s")
	jobReaches(t, job, v1alpha1.TrainingJobComplete, "", "", time.Second)
	table := kubectl(t, "get", "tj", "--namespace", namespace)
	t.Logf("\n%s", table)
	lines := strings.Split(table, "\n")
	if got, want := strings.Fields(lines[0]), "NAME STATE EPOCH LOSS ACCURACY MODEL AGE"; strings.Join(got, " ") != want {
		t.Errorf("the columns are %q, want %s", got, want)
	}
	if cells := strings.Fields(lines[1]); len(cells) != 7 || cells[1] != "Complete" || cells[2] != "10/10" || cells[5] != job.Status.Model.ShortDigest {
		t.Errorf("the row is %q", lines[1])
	}
}
