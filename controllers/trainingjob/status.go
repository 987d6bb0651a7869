package trainingjob

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// observation is all that a pass has read, and so all that status depends on.
type observation struct {
	// obstacle keeps the Job from being made; empty when there is none.
	obstacle obstacle
	// job is nil while there is none.
	job *batchv1.Job
	// pods of the job, the oldest first.
	pods []corev1.Pod
	// progress that the running pod reports; nil when none does.
	progress *spec.Progress
	// warning is what the kubelet says last of the newest pod while it doesn't
	// start; empty when it says nothing.
	warning string
	now     time.Time
}

// obstacle is something that a person has to put right before the run starts.
type obstacle struct {
	reason, message string
}

// outcome is where a run stands. Of its states only Complete and Failed are
// final.
//
//	what is seen (first row that fits)                    state     reason
//	a pod that left a model                               Complete  Published
//	the Job failed, or a pod failed for wrong input       Failed    the trainer's, or what the pod died of
//	an obstacle, and no Job                               Pending   the obstacle's
//	no pod, or the newest failed; and one failed before   Retrying  Retrying
//	the newest pod runs                                   Training  Training
//	anything else                                         Pending   PodPending
type outcome struct {
	state, reason, message string
	result                 spec.Result
}

// judge tells where a run stands.
func judge(o observation) outcome {
	if result, ok := published(o.pods); ok {
		return outcome{v1alpha1.StateComplete, v1alpha1.ReasonPublished, publishedMessage(result), result}
	}
	last, attempts := lastFailure(o.pods)
	switch {
	case last != nil && last.final, jobFailed(o.job) != nil:
		return failed(o.job, last, attempts)
	case jobComplete(o.job):
		return outcome{state: v1alpha1.StateFailed, reason: v1alpha1.ReasonCrashed, message: "the run ended well, but the pod that knew the model's digest was deleted before it could be read: delete this TrainingJob and apply it again"}
	case o.job == nil && o.obstacle.reason != "":
		return outcome{state: v1alpha1.StatePending, reason: o.obstacle.reason, message: o.obstacle.message}
	}
	newest := newestPod(o.pods)
	switch {
	case last != nil && (newest == nil || newest.Status.Phase == corev1.PodFailed || newest.Status.Phase == corev1.PodPending):
		return outcome{state: v1alpha1.StateRetrying, reason: v1alpha1.ReasonRetrying, message: retryMessage(o.job, last, attempts)}
	case newest != nil && newest.Status.Phase == corev1.PodRunning:
		return outcome{state: v1alpha1.StateTraining, reason: v1alpha1.ReasonTraining, message: fmt.Sprintf("pod %s trains", newest.Name)}
	case newest != nil:
		return outcome{state: v1alpha1.StatePending, reason: v1alpha1.ReasonPodPending, message: pendingMessage(newest, o.warning)}
	}
	return outcome{state: v1alpha1.StatePending, reason: v1alpha1.ReasonPodPending, message: "waiting for the run's pod to be created"}
}

// statusOf is the status that follows from what was seen. A model that was
// published before stays what it was.
func statusOf(job *v1alpha1.TrainingJob, o observation) v1alpha1.TrainingJobStatus {
	status := *job.Status.DeepCopy()
	if Finished(job) {
		return status
	}
	result := judge(o)
	status.ObservedGeneration = job.Generation
	status.State = result.state
	status.Progress = progressOf(o, result, status.Progress)
	if o.job != nil && status.StartTime == nil {
		status.StartTime = o.job.CreationTimestamp.DeepCopy()
	}
	if result.result.DatasetDigest != "" {
		status.DatasetDigest = result.result.DatasetDigest
	}
	if result.state == v1alpha1.StateComplete {
		status.Model = publishedModel(result.result.Model)
		status.Metrics = rounded(result.result.Metrics)
	}
	if result.state == v1alpha1.StateComplete || result.state == v1alpha1.StateFailed {
		status.CompletionTime = &metav1.Time{Time: o.now}
	}
	setConditions(&status, result, job.Generation, o.now)
	return status
}

// Finished tells whether the run is over, for good or bad.
func Finished(job *v1alpha1.TrainingJob) bool {
	return meta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.TrainingJobComplete) ||
		meta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.TrainingJobFailed)
}

func setConditions(status *v1alpha1.TrainingJobStatus, o outcome, generation int64, now time.Time) {
	complete, failed := o.state == v1alpha1.StateComplete, o.state == v1alpha1.StateFailed
	for _, condition := range []struct {
		kind string
		true bool
	}{
		{v1alpha1.TrainingJobProgressing, !complete && !failed},
		{v1alpha1.TrainingJobComplete, complete},
		{v1alpha1.TrainingJobFailed, failed},
	} {
		value := metav1.ConditionFalse
		if condition.true {
			value = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: condition.kind, Status: value, Reason: o.reason, Message: o.message,
			ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(now),
		})
	}
}

func progressOf(o observation, result outcome, before *v1alpha1.TrainingProgress) *v1alpha1.TrainingProgress {
	progress := result.result.Progress
	if progress == nil {
		progress = o.progress
	}
	if progress == nil {
		return before
	}
	metrics := progress.Metrics
	if result.result.Metrics != nil {
		metrics = result.result.Metrics
	}
	after := &v1alpha1.TrainingProgress{
		Epoch:            progress.Epoch,
		Epochs:           progress.Epochs,
		Metrics:          rounded(metrics),
		SamplesPerSecond: int64(progress.SamplesPerSecond),
		BestEpoch:        progress.BestEpoch,
		StoppedEarly:     progress.StoppedEarly,
	}
	if loss, ok := round(progress.Loss); ok && progress.Epoch > 0 {
		after.Loss = &loss
	}
	if left := time.Duration(progress.SecondsLeft * float64(time.Second)).Round(time.Second); left > 0 {
		after.Remaining = left.String()
	}
	return after
}

func publishedModel(model *spec.Model) *v1alpha1.PublishedModel {
	return &v1alpha1.PublishedModel{
		Reference:   model.Reference,
		Digest:      model.Digest,
		ShortDigest: spec.ServedModel{Digest: model.Digest}.Version(),
		Bytes:       model.Bytes,
		Parameters:  model.Parameters,
	}
}

// published finds the first model that a pod left. The oldest pod wins, so
// that a second pod of the same job changes nothing.
func published(pods []corev1.Pod) (spec.Result, bool) {
	for i := range pods {
		terminated := terminatedTrainer(&pods[i])
		if terminated == nil || terminated.ExitCode != 0 {
			continue
		}
		if result, ok := readResult(terminated); ok && result.Model != nil {
			return result, true
		}
	}
	return spec.Result{}, false
}

func publishedMessage(result spec.Result) string {
	message := fmt.Sprintf("published %s (%s)", result.Model.Reference, result.Model.Digest)
	if accuracy, ok := result.Metrics["ValidationAccuracy"]; ok {
		message += fmt.Sprintf(", validation accuracy %.4g", accuracy)
	}
	if progress := result.Progress; progress != nil && progress.StoppedEarly {
		message += fmt.Sprintf("; stopped early in epoch %d of %d", progress.Epoch, progress.Epochs)
	}
	return message
}

// attempt is a pod that failed.
type attempt struct {
	reason, message string
	// final says that trying again would change nothing.
	final  bool
	result spec.Result
}

// lastFailure is the newest pod that failed, and how many did.
func lastFailure(pods []corev1.Pod) (*attempt, int) {
	var last *attempt
	count := 0
	for i := range pods {
		if pods[i].Status.Phase != corev1.PodFailed {
			continue
		}
		failed := explain(&pods[i])
		last, count = &failed, count+1
	}
	return last, count
}

// explain tells why a pod failed: in the trainer's own words when it left
// some, else by what the kubelet says.
func explain(pod *corev1.Pod) attempt {
	terminated := terminatedTrainer(pod)
	if terminated == nil {
		return attempt{reason: v1alpha1.ReasonCrashed, message: strings.TrimSpace(fmt.Sprintf("pod %s failed: %s %s", pod.Name, pod.Status.Reason, pod.Status.Message))}
	}
	result, ok := readResult(terminated)
	switch {
	case ok && result.Failure != nil:
		return attempt{result.Failure.Reason, result.Failure.Message, terminated.ExitCode == spec.ExitInvalid, result}
	case terminated.Reason == "OOMKilled":
		return attempt{reason: v1alpha1.ReasonOutOfMemory, message: fmt.Sprintf("pod %s was killed because it needed more memory than its limit of %s: raise spec.resources.limits.memory", pod.Name, memoryLimit(pod))}
	case terminated.ExitCode == 137:
		return attempt{reason: v1alpha1.ReasonCrashed, message: fmt.Sprintf("pod %s was killed (exit code 137)", pod.Name)}
	}
	return attempt{reason: v1alpha1.ReasonCrashed, message: fmt.Sprintf("pod %s ended with exit code %d and said nothing: see kubectl logs %s", pod.Name, terminated.ExitCode, pod.Name), final: terminated.ExitCode == spec.ExitInvalid}
}

func memoryLimit(pod *corev1.Pod) string {
	if limit := pod.Spec.Containers[0].Resources.Limits.Memory(); !limit.IsZero() {
		return limit.String()
	}
	return "the node's memory"
}

func failed(job *batchv1.Job, last *attempt, attempts int) outcome {
	if last == nil {
		condition := jobFailed(job)
		return outcome{state: v1alpha1.StateFailed, reason: v1alpha1.ReasonCrashed, message: strings.TrimSpace(fmt.Sprintf("the Job failed: %s: %s", condition.Reason, condition.Message))}
	}
	message := last.message
	if attempts > 1 {
		message = fmt.Sprintf("%s (given up after %d attempts)", message, attempts)
	}
	return outcome{v1alpha1.StateFailed, last.reason, message, last.result}
}

func retryMessage(job *batchv1.Job, last *attempt, attempts int) string {
	if job == nil || job.Spec.BackoffLimit == nil {
		return fmt.Sprintf("attempt %d failed, another follows: %s", attempts, last.message)
	}
	return fmt.Sprintf("attempt %d of %d failed, another follows: %s", attempts, *job.Spec.BackoffLimit+1, last.message)
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

func terminatedTrainer(pod *corev1.Pod) *corev1.ContainerStateTerminated {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == trainerContainer {
			return status.State.Terminated
		}
	}
	return nil
}

func readResult(terminated *corev1.ContainerStateTerminated) (spec.Result, bool) {
	var result spec.Result
	err := json.Unmarshal([]byte(terminated.Message), &result)
	return result, err == nil
}

func newestPod(pods []corev1.Pod) *corev1.Pod {
	if len(pods) == 0 {
		return nil
	}
	return &pods[len(pods)-1]
}

func jobFailed(job *batchv1.Job) *batchv1.JobCondition {
	return jobCondition(job, batchv1.JobFailed)
}

func jobComplete(job *batchv1.Job) bool {
	return jobCondition(job, batchv1.JobComplete) != nil
}

func jobCondition(job *batchv1.Job, kind batchv1.JobConditionType) *batchv1.JobCondition {
	if job == nil {
		return nil
	}
	for i := range job.Status.Conditions {
		if c := &job.Status.Conditions[i]; c.Type == kind && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// rounded leaves out what is not finite: JSON has no word for it.
func rounded(metrics map[string]float64) map[string]float64 {
	var result map[string]float64
	for name, value := range metrics {
		short, ok := round(value)
		if !ok {
			continue
		}
		if result == nil {
			result = make(map[string]float64, len(metrics))
		}
		result[name] = short
	}
	return result
}

// round keeps six significant digits, which is as much as anyone reads in a
// table. It is not ok for NaN and infinity.
func round(value float64) (float64, bool) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return 0, false
	}
	short, err := strconv.ParseFloat(strconv.FormatFloat(value, 'g', 6, 64), 64)
	return short, err == nil
}
