package trainingjob

import (
	"fmt"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// attempt is a pod that failed.
type attempt struct {
	v1alpha1.AttemptFailure
	// final says that trying again would change nothing.
	final bool
	// counts says that the attempt is one of those that backoffLimit allows.
	counts bool
	result spec.Result
}

// lastFailure is the newest pod that failed, and how many failed in a way that
// counts.
func lastFailure(job *v1alpha1.TrainingJob, pods []corev1.Pod) (*attempt, int) {
	var last *attempt
	count := 0
	for i := range pods {
		if pods[i].Status.Phase != corev1.PodFailed {
			continue
		}
		failed := explain(job, &pods[i])
		last = &failed
		if failed.counts {
			count++
		}
	}
	return last, count
}

// explain tells why a pod failed: in the trainer's own words when it left
// some, else by what the kubelet says.
func explain(job *v1alpha1.TrainingJob, pod *corev1.Pod) attempt {
	terminated := terminatedTrainer(pod)
	disrupted := podCondition(pod, corev1.DisruptionTarget)
	if terminated == nil {
		return attempt{AttemptFailure: v1alpha1.AttemptFailure{
			Pod: pod.Name, Reason: v1alpha1.ReasonCrashed,
			Message: strings.TrimSpace(fmt.Sprintf("pod %s failed: %s %s", pod.Name, pod.Status.Reason, pod.Status.Message)),
		}, counts: !disrupted}
	}
	a := attempt{
		AttemptFailure: v1alpha1.AttemptFailure{Pod: pod.Name, ExitCode: new(terminated.ExitCode)},
		final:          terminated.ExitCode == spec.ExitInvalid,
		counts:         terminated.ExitCode != spec.ExitInterrupted && !disrupted,
	}
	if !terminated.FinishedAt.IsZero() {
		a.Time = terminated.FinishedAt.DeepCopy()
	}
	result, ok := readResult(terminated)
	a.LastLog = result.Log
	switch {
	case ok && result.Failure != nil:
		a.Reason, a.Message, a.result = result.Failure.Reason, result.Failure.Message, result
		return a
	case !ok:
		// Without a result, the kubelet puts the end of the log in its place.
		a.LastLog = strings.TrimSpace(terminated.Message)
	}
	a.Reason, a.Message = wordless(pod, terminated, neededMemory(job, result))
	return a
}

// wordless tells why a trainer ended that left no result.
func wordless(pod *corev1.Pod, terminated *corev1.ContainerStateTerminated, needed string) (reason, message string) {
	switch {
	case terminated.Reason == "OOMKilled":
		return v1alpha1.ReasonOutOfMemory, fmt.Sprintf("pod %s was killed because it needed more memory than %s%s: raise spec.resources.limits.memory", pod.Name, memoryLimit(pod), needed)
	case terminated.ExitCode == 137:
		return v1alpha1.ReasonCrashed, fmt.Sprintf("pod %s was killed (exit code 137)", pod.Name)
	}
	return v1alpha1.ReasonCrashed, fmt.Sprintf("pod %s ended with exit code %d and left no result: see status.lastFailure.lastLog, or kubectl logs %s", pod.Name, terminated.ExitCode, pod.Name)
}

func memoryLimit(pod *corev1.Pod) string {
	if limit := pod.Spec.Containers[0].Resources.Limits.Memory(); !limit.IsZero() {
		return "its limit of " + limit.String()
	}
	return "the node has"
}

// neededMemory is what the trainer estimated before it was killed, for the
// middle of a sentence.
func neededMemory(job *v1alpha1.TrainingJob, left spec.Result) string {
	needed := ""
	if p := job.Status.Progress; p != nil {
		needed = p.Memory
	}
	if p := left.Progress; p != nil && p.MemoryBytes > 0 {
		needed = inMebibytes(p.MemoryBytes)
	}
	if needed == "" {
		return ""
	}
	return fmt.Sprintf("; about %s should be enough", needed)
}

// inMebibytes is a quantity as people write it, rounded up.
func inMebibytes(bytes int64) string {
	const mebi = 1 << 20
	return resource.NewQuantity((bytes+mebi-1)/mebi*mebi, resource.BinarySI).String()
}

func failed(job *batchv1.Job, last *attempt, attempts int) outcome {
	if last == nil {
		condition := jobFailed(job)
		return outcome{state: v1alpha1.StateFailed, reason: v1alpha1.ReasonCrashed, message: strings.TrimSpace(fmt.Sprintf("the Job failed: %s: %s", condition.Reason, condition.Message))}
	}
	message := last.Message
	if attempts > 1 {
		message = fmt.Sprintf("%s (given up after %d attempts)", message, attempts)
	}
	return outcome{v1alpha1.StateFailed, last.Reason, message, last.result}
}

// deadlineMessage says how far the run got.
func deadlineMessage(job *v1alpha1.TrainingJob) string {
	where := "it had not begun to train"
	if p := job.Status.Progress; p != nil {
		where = fmt.Sprintf("it was in epoch %d of %d", p.Epoch, p.Epochs)
	}
	limit := int64(0)
	if job.Spec.ActiveDeadlineSeconds != nil {
		limit = *job.Spec.ActiveDeadlineSeconds
	}
	return fmt.Sprintf("the run took longer than the %d seconds that spec.activeDeadlineSeconds gives it: %s. Apply another TrainingJob with a later deadline, fewer epochs or more CPU", limit, where)
}

func retryMessage(job *batchv1.Job, last *attempt, attempts int) string {
	if !last.counts {
		return fmt.Sprintf("pod %s was interrupted, another follows, and this attempt doesn't count: %s", last.Pod, last.Message)
	}
	if job == nil || job.Spec.BackoffLimit == nil {
		return fmt.Sprintf("attempt %d failed, another follows: %s", attempts, last.Message)
	}
	return fmt.Sprintf("attempt %d of %d failed, another follows: %s", attempts, *job.Spec.BackoffLimit+1, last.Message)
}
