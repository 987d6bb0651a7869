package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
)

// TestWorkers trains with one pod and with two that share its batches, which
// gives the same model to 1e-5. Then either of two pods is lost, in the ways that
// pods are lost: the group starts again from its last checkpoint, and the model
// is the same bit for bit.
func TestWorkers(t *testing.T) {
	t.Parallel()
	const epochs = 100
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	alone := longJob(t, namespace, "alone", epochs)
	together := longJob(t, namespace, "together", epochs)
	together.Spec.Workers = 2
	create(t, alone)
	create(t, together)
	for _, job := range []*v1alpha1.TrainingJob{alone, together} {
		jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", 3*time.Minute)
	}
	if together.Status.LastFailure != nil {
		t.Errorf("nothing happened to it, but it failed: %+v", together.Status.LastFailure)
	}
	want := weightsOf(t, together)
	t.Logf("one pod and two differ by %.2g at most", largestDifference(t, weightsOf(t, alone), want, 1e-5))
	jobEndsWell(t, together)

	for name, loss := range map[string]struct {
		worker string
		lose   func(*testing.T, *v1alpha1.TrainingJob, *corev1.Pod)
	}{
		"firstkilled":   {"0", removePod(0)},
		"secondkilled":  {"1", removePod(0)},
		"secondevicted": {"1", evict},
		"suspendedboth": {"0", suspendAndResume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := longJob(t, namespace, name, epochs)
			job.Spec.Workers, job.Spec.Checkpoint.EverySteps = 2, 200
			create(t, job)
			runningPod(t, job) // by then both train
			loss.lose(t, job, workerPod(t, job, loss.worker))
			jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", 4*time.Minute)
			if !bytes.Equal(weightsOf(t, job), want) {
				t.Error("the weights are not those of the run that was left alone")
			}
		})
	}
}

// workerPod is the running pod of a worker.
func workerPod(t *testing.T, job *v1alpha1.TrainingJob, index string) *corev1.Pod {
	t.Helper()
	labels := client.MatchingLabels{v1alpha1.TrainingJobLabel: job.Name, batchv1.JobCompletionIndexAnnotation: index}
	for _, pod := range podsOf(t, labels, job.Namespace) {
		if pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp.IsZero() {
			return &pod
		}
	}
	t.Fatalf("worker %s of %s doesn't run", index, job.Name)
	return nil
}

// jobEndsWell waits until the Job is complete and none of its pods runs on.
func jobEndsWell(t *testing.T, job *v1alpha1.TrainingJob) {
	t.Helper()
	eventually(t, "the Job of "+job.Name+" to stop its pods and complete", time.Minute, func(ctx context.Context) error {
		var made batchv1.Job
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(job), &made); err != nil {
			return err
		}
		if made.Status.CompletionTime == nil || made.Status.Active > 0 {
			return fmt.Errorf("%+v", made.Status)
		}
		return nil
	})
}

// largestDifference compares the numbers of two model.safetensors.
func largestDifference(t *testing.T, a, b []byte, limit float64) float64 {
	t.Helper()
	numbers := func(file []byte) []float32 {
		data := file[8+binary.LittleEndian.Uint64(file):]
		values := make([]float32, len(data)/4)
		if err := binary.Read(bytes.NewReader(data), binary.LittleEndian, values); err != nil {
			t.Fatal(err)
		}
		return values
	}
	first, second := numbers(a), numbers(b)
	if len(first) != len(second) || len(first) == 0 {
		t.Fatalf("%d and %d numbers are not the same tensors", len(first), len(second))
	}
	var largest float64
	for i, v := range first {
		d := math.Abs(float64(v - second[i]))
		if !(d <= limit) {
			t.Fatalf("number %d is %v in one and %v in the other", i, v, second[i])
		}
		largest = max(largest, d)
	}
	return largest
}
