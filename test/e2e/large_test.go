package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// TestDatasetLargerThanMemory trains on 320 MB of numbers in a pod that may use
// 128 MiB. The kernel would kill it if it took more.
func TestDatasetLargerThanMemory(t *testing.T) {
	t.Parallel()
	const rows, columns = 800_000, 100
	namespace := newNamespace(t)
	row := func(value, class string) string { return strings.Repeat(value+",", columns) + class }
	write := fmt.Sprintf(`{ busybox yes '%s
%s' | busybox head -n %d; } > /data/large.csv`, row("1", "yes"), row("0", "no"), rows)
	writeClaim(t, namespace, "data", write)

	job := flowersJob(namespace, "large")
	job.Spec.Network.Layers[0].Units = 2
	job.Spec.Dataset = spec.Dataset{
		Source: spec.DatasetSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "data", Path: "large.csv"}},
		Header: new(false), Label: fmt.Sprint(columns), ValidationFraction: 0.1,
	}
	job.Spec.Training.Epochs, job.Spec.Training.BatchSize, job.Spec.Training.Metrics = 1, 1024, []spec.Metric{spec.Accuracy}
	job.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")}
	create(t, job)
	took := jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", 3*time.Minute)
	t.Logf("complete after %.1f s, at %d rows a second", took.Seconds(), job.Status.Progress.SamplesPerSecond)

	var batchJob batchv1.Job
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(job), &batchJob); err != nil {
		t.Fatal(err)
	}
	if batchJob.Status.Failed > 0 {
		t.Errorf("%d attempts failed", batchJob.Status.Failed)
	}
	if accuracy := job.Status.Metrics["ValidationAccuracy"]; accuracy < 0.99 {
		t.Errorf("validation accuracy %v of classes that one number tells apart", accuracy)
	}
}

// writeClaim makes a claim and has a pod run a script that fills its /data.
func writeClaim(t *testing.T, namespace, name, script string) {
	t.Helper()
	create(t, smallClaim(namespace, name))
	writeVolume(t, namespace, name, script)
}

// writeVolume has a pod write to the volume of a claim at /data.
func writeVolume(t *testing.T, namespace, name, script string) {
	t.Helper()
	writer := callerPod(namespace, "")
	writer.GenerateName = "writer-"
	writer.Spec.RestartPolicy = corev1.RestartPolicyNever
	container := &writer.Spec.Containers[0]
	container.Command = []string{"busybox", "sh", "-c", script}
	container.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	writer.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
	create(t, writer)
	eventually(t, "the writing pod to end", time.Minute, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(writer), writer); err != nil {
			return err
		}
		if writer.Status.Phase != corev1.PodSucceeded {
			return fmt.Errorf("phase %s, %+v", writer.Status.Phase, writer.Status.ContainerStatuses)
		}
		return nil
	})
}
