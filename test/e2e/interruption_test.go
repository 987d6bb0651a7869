package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
)

// interruptedEpochs take some seconds, in which a run can be interrupted.
const interruptedEpochs = 1500

// TestInterruptions trains the same several times, once undisturbed, and takes
// the pod away from the others in every way that a platform has. Each goes on
// from a checkpoint, and all end in the same weights.
func TestInterruptions(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	create(t, smallClaim(namespace, "scratch"))
	onVolume := v1alpha1.Checkpoint{PersistentVolumeClaim: &v1alpha1.CheckpointClaim{ClaimName: "scratch", Path: "checkpoints"}, EverySteps: 500}
	undisturbed := longJob(t, namespace, "undisturbed", interruptedEpochs)
	create(t, undisturbed)
	jobReaches(t, undisturbed, v1alpha1.TrainingJobComplete, "", "", 2*time.Minute)
	want := weightsOf(t, undisturbed)

	for name, interruption := range map[string]struct {
		checkpoint v1alpha1.Checkpoint
		interrupt  func(*testing.T, *v1alpha1.TrainingJob, *corev1.Pod)
	}{
		"suspended":      {v1alpha1.Checkpoint{}, suspendAndResume},
		"evicted":        {onVolume, evict},
		"deleted":        {v1alpha1.Checkpoint{}, removePod(30)},
		"killed":         {onVolume, removePod(0)},
		"operatorkilled": {v1alpha1.Checkpoint{}, killOperator},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := longJob(t, namespace, name, interruptedEpochs)
			job.Spec.Checkpoint = interruption.checkpoint
			create(t, job)
			first := runningPod(t, job)
			interruption.interrupt(t, job, first)
			jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", 2*time.Minute)
			if !bytes.Equal(weightsOf(t, job), want) {
				t.Error("the weights are not those of the run that was left alone")
			}
			if name != "operatorkilled" { // its pod trained on
				wentOnFromCheckpoint(t, job, first)
			}
		})
	}
}

func smallClaim(namespace, name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Mi")}},
		},
	}
}

func weightsOf(t *testing.T, job *v1alpha1.TrainingJob) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(pull(t, job), "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// suspendAndResume suspends the run until its pod is gone.
func suspendAndResume(t *testing.T, job *v1alpha1.TrainingJob, pod *corev1.Pod) {
	t.Helper()
	setSuspend(t, job, true)
	jobReaches(t, job, v1alpha1.TrainingJobSuspended, v1alpha1.ReasonSuspended, "set it to false to go on", 30*time.Second)
	hasEvent(t, job, v1alpha1.ReasonSuspended, "spec.suspend")
	isGone(t, pod)
	setSuspend(t, job, false)
}

func setSuspend(t *testing.T, job *v1alpha1.TrainingJob, value bool) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec": {"suspend": %v}}`, value)
	kubectl(t, "patch", "trainingjob", job.Name, "--namespace", job.Namespace, "--type=merge", "--patch", patch)
}

func isGone(t *testing.T, object client.Object) {
	t.Helper()
	eventually(t, fmt.Sprintf("%T %s to be gone", object, object.GetName()), time.Minute, func(ctx context.Context) error {
		err := cluster.Get(ctx, client.ObjectKeyFromObject(object), object)
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		if err == nil {
			return errors.New("it is there")
		}
		return nil
	})
}

// evict does to a pod what kubectl drain does.
func evict(t *testing.T, _ *v1alpha1.TrainingJob, pod *corev1.Pod) {
	t.Helper()
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}}
	if err := cluster.SubResource("eviction").Create(t.Context(), pod, eviction); err != nil {
		t.Fatal(err)
	}
}

// removePod deletes a pod; without any grace, the trainer gets SIGKILL.
func removePod(grace int64) func(*testing.T, *v1alpha1.TrainingJob, *corev1.Pod) {
	return func(t *testing.T, _ *v1alpha1.TrainingJob, pod *corev1.Pod) {
		t.Helper()
		if err := cluster.Delete(t.Context(), pod, client.GracePeriodSeconds(grace)); err != nil {
			t.Fatal(err)
		}
	}
}

// killOperator takes the manager's pod away, and waits for another.
func killOperator(t *testing.T, _ *v1alpha1.TrainingJob, _ *corev1.Pod) {
	t.Helper()
	managers := client.MatchingLabels{"app.kubernetes.io/component": "manager"}
	for _, pod := range podsOf(t, managers, "trainyard-system") {
		if err := cluster.Delete(t.Context(), &pod, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
	}
	kubectl(t, "rollout", "status", "deployment/manager", "--namespace", "trainyard-system", "--timeout=60s")
}
