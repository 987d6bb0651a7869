package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// TestDatasetFromSecret waits for a Secret that isn't there, says so in the
// kubelet's words, and trains when it is.
func TestDatasetFromSecret(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	job := flowersJob(namespace, "flowers")
	job.Spec.Dataset.Source = spec.DatasetSource{Secret: &spec.KeyReference{Name: "flowers", Key: "flowers.csv"}}
	create(t, job)
	took := jobReaches(t, job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, `secret "flowers" not found`, time.Minute)
	t.Logf("said after %.1f s: %s", took.Seconds(), job.Status.Conditions[0].Message)
	create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "flowers", Namespace: namespace}, StringData: map[string]string{"flowers.csv": flowers()}})
	jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", 3*time.Minute)
}

// TestDatasetFromClaim trains on a file of a volume that another pod wrote.
func TestDatasetFromClaim(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	job := flowersJob(namespace, "flowers")
	job.Spec.Dataset.Source = spec.DatasetSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "data", Path: "2026/flowers.csv"}}
	create(t, job)
	jobReaches(t, job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonDatasetMissing, "data", 10*time.Second)

	create(t, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: namespace},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Mi")}},
		},
	})
	writer := callerPod(namespace, "writer")
	writer.Spec.RestartPolicy = corev1.RestartPolicyNever
	container := &writer.Spec.Containers[0]
	container.Command = []string{"busybox", "sh", "-c", `busybox mkdir -p /data/2026 && printf %s "$FLOWERS" > /data/2026/flowers.csv`}
	container.Env = []corev1.EnvVar{{Name: "FLOWERS", Value: flowers()}}
	container.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	writer.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
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
	// A run that came before the file found none, and doesn't try again.
	err := cluster.Get(t.Context(), client.ObjectKeyFromObject(job), job)
	if err == nil && job.Status.State == v1alpha1.StateFailed {
		remove(t, job)
		job = flowersJob(namespace, "again")
		job.Spec.Dataset.Source = spec.DatasetSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "data", Path: "2026/flowers.csv"}}
		create(t, job)
	}
	jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", time.Minute)
}
