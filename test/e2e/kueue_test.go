package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
)

// installKueue installs the real Kueue for one test.
func installKueue(t *testing.T) {
	t.Helper()
	const kueue = "../../hack/kueue/kueue"
	started := time.Now()
	if output, err := exec.CommandContext(t.Context(), kueue, "install").CombinedOutput(); err != nil {
		t.Fatalf("installing Kueue: %v\n%s", err, output)
	}
	t.Logf("Kueue is installed after %.1f s", time.Since(started).Seconds())
	t.Cleanup(func() {
		if output, err := exec.CommandContext(context.Background(), kueue, "remove").CombinedOutput(); err != nil {
			t.Errorf("removing Kueue: %v\n%s", err, output)
		}
	})
}

// queues have quota for one of our pods, which ask for 100m CPU and 128Mi.
const queues = `
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: NAMESPACE}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: NAMESPACE}
spec:
  namespaceSelector: {}
  preemption: {withinClusterQueue: LowerPriority}
  resourceGroups:
  - coveredResources: [cpu, memory]
    flavors:
    - name: NAMESPACE
      resources:
      - {name: cpu, nominalQuota: 150m}
      - {name: memory, nominalQuota: 250Mi}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: team, namespace: NAMESPACE}
spec: {clusterQueue: NAMESPACE}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: WorkloadPriorityClass
metadata: {name: NAMESPACE}
value: 1000
`

// TestKueue puts two runs into a queue that has quota for one, and then one
// that is more urgent: Kueue lets one after the other train, takes the second
// back for the urgent one, and lets it go on. The operator follows, and the
// model is that of the run that was left alone.
func TestKueue(t *testing.T) {
	t.Parallel()
	installKueue(t)
	namespace := newNamespace(t)
	kubectl(t, "label", "namespace", namespace, "hack.trainyard.dev/kueue=")
	create(t, digitsData(t, namespace))
	objects := strings.ReplaceAll(queues, "NAMESPACE", namespace)
	if _, err := tryKubectl(t.Context(), objects, "apply", "--filename", "-"); err != nil {
		t.Fatal(err)
	}

	first := queued(t, namespace, "first", interruptedEpochs)
	create(t, first)
	runningPod(t, first)
	second := queued(t, namespace, "second", interruptedEpochs)
	create(t, second)
	jobReaches(t, second, v1alpha1.TrainingJobSuspended, v1alpha1.ReasonQueued, "LocalQueue team", 30*time.Second)
	hasEvent(t, second, v1alpha1.ReasonQueued, "LocalQueue team")
	if pods := podsOf(t, client.MatchingLabels{v1alpha1.TrainingJobLabel: second.Name}, namespace); len(pods) > 0 {
		t.Errorf("there are %d pods of a run that is not admitted", len(pods))
	}
	withdraw(t, queued(t, namespace, "withdrawn", interruptedEpochs))
	jobReaches(t, first, v1alpha1.TrainingJobComplete, "", "", 2*time.Minute)
	preempted := runningPod(t, second)

	urgent := queued(t, namespace, "urgent", 10)
	urgent.Labels["kueue.x-k8s.io/priority-class"] = namespace
	create(t, urgent)
	jobReaches(t, second, v1alpha1.TrainingJobSuspended, v1alpha1.ReasonQueued, "", 30*time.Second)
	jobReaches(t, urgent, v1alpha1.TrainingJobComplete, "", "", 2*time.Minute)
	jobReaches(t, second, v1alpha1.TrainingJobComplete, "", "", 2*time.Minute)
	t.Logf("\n%s", kubectl(t, "get", "tj,workloads", "--namespace", namespace))
	wentOnFromCheckpoint(t, second, preempted)
	if !bytes.Equal(weightsOf(t, second), weightsOf(t, first)) {
		t.Error("the weights are not those of the run that was left alone")
	}
}

func queued(t *testing.T, namespace, name string, epochs int32) *v1alpha1.TrainingJob {
	t.Helper()
	job := longJob(t, namespace, name, epochs)
	job.Labels = map[string]string{v1alpha1.QueueLabel: "team"}
	return job
}

// withdraw suspends a run that waits in a queue: its Job is gone, and so its place.
func withdraw(t *testing.T, job *v1alpha1.TrainingJob) {
	t.Helper()
	create(t, job)
	jobReaches(t, job, v1alpha1.TrainingJobSuspended, v1alpha1.ReasonQueued, "LocalQueue team", 30*time.Second)
	setSuspend(t, job, true)
	jobReaches(t, job, v1alpha1.TrainingJobSuspended, v1alpha1.ReasonSuspended, "set it to false to go on", 30*time.Second)
	eventually(t, "the Job of a run that left its queue to be gone", 30*time.Second, func(ctx context.Context) error {
		err := cluster.Get(ctx, client.ObjectKeyFromObject(job), new(batchv1.Job))
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there, or not known: %w", err)
		}
		return nil
	})
}

// wentOnFromCheckpoint checks that another pod than the first ended the run, and
// did not begin anew.
func wentOnFromCheckpoint(t *testing.T, job *v1alpha1.TrainingJob, first *corev1.Pod) {
	t.Helper()
	var last corev1.Pod
	eventually(t, "a pod of "+job.Name+" that ended well", 10*time.Second, func(context.Context) error {
		pods := podsOf(t, client.MatchingLabels{v1alpha1.TrainingJobLabel: job.Name}, job.Namespace)
		for _, last = range pods {
			if last.Status.Phase == corev1.PodSucceeded {
				return nil
			}
		}
		return fmt.Errorf("%d pods, none of them", len(pods))
	})
	if log := kubectl(t, "logs", "--namespace", job.Namespace, last.Name); last.UID == first.UID || !strings.Contains(log, "goes on from a checkpoint") {
		t.Errorf("pod %s, which published, did not go on from a checkpoint:\n%s", last.Name, log)
	}
}
