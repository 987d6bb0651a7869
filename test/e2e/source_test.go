package e2e

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
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

	writeClaim(t, namespace, "data", "busybox mkdir -p /data/2026 && printf %s '"+flowers()+"' > /data/2026/flowers.csv")
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
