package trainingjob

import (
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// running tells what a pod does that runs: what the trainer says, or, while it
// doesn't answer, what it said before.
func running(job *v1alpha1.TrainingJob, pod *corev1.Pod, progress *spec.Progress) outcome {
	is := outcome{state: v1alpha1.StateTraining, reason: v1alpha1.ReasonTraining}
	pods := "pod " + pod.Name + " "
	before := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.TrainingJobProgressing)
	switch {
	case progress == nil && before != nil && job.Status.State == v1alpha1.StateTraining && strings.HasPrefix(before.Message, pods):
		is.reason, is.message = before.Reason, before.Message
	case progress == nil || progress.Activity == "":
		is.message = pods + "trains"
	default:
		is.message = pods + progress.Activity
	}
	if progress != nil && progress.Warning != "" {
		is.reason = v1alpha1.ReasonHindered
		is.message += "; " + progress.Warning
	}
	return is
}

// stopping names the pods that are still being stopped, for the end of a
// sentence.
func stopping(pods []corev1.Pod) string {
	var names []string
	for i := range pods {
		if phase := pods[i].Status.Phase; phase == corev1.PodRunning || phase == corev1.PodPending {
			names = append(names, pods[i].Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (pod " + strings.Join(names, ", ") + " is being stopped)"
}

// troubled is the object whose Events may tell why nothing runs: a pod or the
// Job, when it has had time to start or to make one and hasn't. Not before: to
// find one object's Events the API server reads those of the whole namespace,
// which of hundreds of runs are many.
func troubled(o observation) client.Object {
	hadTime := func(object client.Object) bool { return o.now.Sub(object.GetCreationTimestamp().Time) > 2*time.Second }
	switch pod := tellingPod(o.pods); {
	case pod != nil && pod.Status.Phase == corev1.PodPending && pod.Spec.NodeName != "" && hadTime(pod):
		return pod
	case pod == nil && expectsPod(o.job) && hadTime(o.job):
		return o.job
	}
	return nil
}

func expectsPod(job *batchv1.Job) bool {
	return job != nil && !ptr.Deref(job.Spec.Suspend, false) && job.DeletionTimestamp.IsZero() && !jobComplete(job) && jobFailed(job) == nil
}

// pendingMessage says what keeps a pod from running.
func pendingMessage(pod *corev1.Pod, warning string) string {
	for _, status := range pod.Status.ContainerStatuses {
		if waiting := status.State.Waiting; waiting != nil && waiting.Message != "" {
			return fmt.Sprintf("pod %s can't start: %s: %s", pod.Name, waiting.Reason, waiting.Message)
		}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return fmt.Sprintf("pod %s can't be scheduled: %s", pod.Name, condition.Message)
		}
	}
	if warning != "" {
		return fmt.Sprintf("pod %s can't start: %s", pod.Name, warning)
	}
	return fmt.Sprintf("pod %s is starting", pod.Name)
}

// newestWarning is reason and message of the Event that was seen last.
func newestWarning(events []corev1.Event) string {
	var newest *corev1.Event
	for i := range events {
		if newest == nil || lastSeen(&events[i]).After(lastSeen(newest)) {
			newest = &events[i]
		}
	}
	if newest == nil {
		return ""
	}
	return newest.Reason + ": " + newest.Message
}

func lastSeen(event *corev1.Event) time.Time {
	if event.Series != nil {
		return event.Series.LastObservedTime.Time
	}
	if !event.LastTimestamp.IsZero() {
		return event.LastTimestamp.Time
	}
	return event.EventTime.Time
}

func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == kind {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
