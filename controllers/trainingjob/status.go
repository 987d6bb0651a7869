package trainingjob

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

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
	// progress that the running pod reports; nil when none does, and pending while
	// it was not asked yet.
	progress *spec.Progress
	pending  bool
	// warning is what Kubernetes says last of what doesn't start, a pod or the
	// Job without one; empty when it says nothing.
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
//	what is seen (first row that fits)                    state      reason
//	a pod that left a model                               Complete   Published
//	the Job failed for its deadline                       Failed     DeadlineExceeded
//	the Job failed, or a pod failed for wrong input       Failed     the trainer's, or what the pod died of
//	the Job ended well, and no pod says with what         Retrying   ResultLost
//	spec.suspend                                          Suspended  Suspended
//	an obstacle, and no Job                               Pending    the obstacle's
//	the Job is being deleted                              Pending    PodPending
//	the Job is suspended, and in a queue                  Queued     Queued
//	the Job is suspended                                  Suspended  Suspended
//	no pod, or the newest failed; and one failed before   Retrying   Retrying
//	the newest pod runs, and complains                    Training   Hindered
//	the newest pod runs                                   Training   Training
//	anything else                                         Pending    PodPending
//
// Of several workers, the newest pod of each is looked at: one that doesn't run
// tells where the run stands, or, if all do, the one that leads.
type outcome struct {
	state, reason, message string
	result                 spec.Result
}

// judge tells where a run stands.
func judge(job *v1alpha1.TrainingJob, o observation) outcome {
	if result, ok := published(o.pods); ok {
		return outcome{v1alpha1.StateComplete, v1alpha1.ReasonPublished, publishedMessage(result), result}
	}
	last, attempts := lastFailure(job, o.pods)
	switch failure := jobFailed(o.job); {
	case failure != nil && failure.Reason == batchv1.JobReasonDeadlineExceeded:
		return outcome{state: v1alpha1.StateFailed, reason: v1alpha1.ReasonDeadlineExceeded, message: deadlineMessage(job)}
	case last != nil && last.final, failure != nil:
		return failed(o.job, last, attempts)
	case resultLost(o):
		return outcome{state: v1alpha1.StateRetrying, reason: v1alpha1.ReasonResultLost, message: "the run ended well, but its pod was deleted before its result was read; it is made again, which gives the same model"}
	}
	if held, ok := heldBack(job, o); ok {
		return held
	}
	return underWay(job, o, last, attempts)
}

// resultLost tells that a model was published and nobody knows which.
func resultLost(o observation) bool {
	_, known := published(o.pods)
	return jobComplete(o.job) && !known
}

// heldBack tells what keeps a run from having a pod at all.
func heldBack(job *v1alpha1.TrainingJob, o observation) (outcome, bool) {
	pending := func(reason, message string) (outcome, bool) {
		return outcome{state: v1alpha1.StatePending, reason: reason, message: message}, true
	}
	switch {
	case job.Spec.Suspend:
		return outcome{state: v1alpha1.StateSuspended, reason: v1alpha1.ReasonSuspended, message: "suspended, as spec.suspend says; set it to false to go on" + stopping(o.pods)}, true
	case o.job == nil && o.obstacle.reason != "":
		return pending(o.obstacle.reason, o.obstacle.message)
	case o.job == nil:
		return pending(v1alpha1.ReasonPodPending, "waiting for the run's Job to be created")
	case !o.job.DeletionTimestamp.IsZero():
		return pending(v1alpha1.ReasonPodPending, "waiting until the run's Job, which was deleted, and its pods are gone")
	case !ptr.Deref(o.job.Spec.Suspend, false):
		return outcome{}, false
	case inQueue(job):
		return outcome{state: v1alpha1.StateQueued, reason: v1alpha1.ReasonQueued, message: fmt.Sprintf(
			"waiting for Kueue to admit it to LocalQueue %s: see kubectl describe workloads --namespace %s --selector kueue.x-k8s.io/job-uid=%s%s",
			job.Labels[v1alpha1.QueueLabel], job.Namespace, o.job.UID, stopping(o.pods))}, true
	}
	return outcome{state: v1alpha1.StateSuspended, reason: v1alpha1.ReasonSuspended, message: fmt.Sprintf(
		"its Job was suspended, and not by this TrainingJob; go on with: kubectl patch job %s --namespace %s --type=merge --patch '{\"spec\": {\"suspend\": false}}'%s",
		job.Name, job.Namespace, stopping(o.pods))}, true
}

// underWay tells where a run stands whose Job may have a pod.
func underWay(job *v1alpha1.TrainingJob, o observation, last *attempt, attempts int) outcome {
	newest := tellingPod(o.pods)
	switch {
	case last != nil && (newest == nil || newest.Status.Phase == corev1.PodFailed || newest.Status.Phase == corev1.PodPending):
		return outcome{state: v1alpha1.StateRetrying, reason: v1alpha1.ReasonRetrying, message: retryMessage(o.job, last, attempts)}
	case newest != nil && newest.Status.Phase == corev1.PodRunning:
		return running(job, newest, o.progress)
	case newest != nil:
		return outcome{state: v1alpha1.StatePending, reason: v1alpha1.ReasonPodPending, message: pendingMessage(newest, o.warning)}
	case o.warning != "":
		return outcome{state: v1alpha1.StatePending, reason: v1alpha1.ReasonPodPending, message: "the run's pod can't be created: " + o.warning}
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
	result := judge(job, o)
	status.ObservedGeneration = job.Generation
	status.State = result.state
	status.Progress = progressOf(o, result, status.Progress)
	if o.job != nil && status.StartTime == nil {
		status.StartTime = o.job.CreationTimestamp.DeepCopy()
	}
	if last, _ := lastFailure(job, attempts(o.pods)); last != nil {
		status.LastFailure = &last.AttemptFailure
	}
	if result.result.DatasetDigest != "" {
		status.DatasetDigest = result.result.DatasetDigest
	}
	if result.state == v1alpha1.StateComplete {
		status.Model = v1alpha1.Published(result.result.Model)
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
	held := o.state == v1alpha1.StateSuspended || o.state == v1alpha1.StateQueued
	for _, condition := range []struct {
		kind string
		true bool
	}{
		{v1alpha1.TrainingJobProgressing, !complete && !failed && !held},
		{v1alpha1.TrainingJobSuspended, held},
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
	if progress == nil || progress.Epochs == 0 { // it doesn't train yet
		return before
	}
	metrics := progress.Metrics
	if result.result.Metrics != nil {
		metrics = result.result.Metrics
	}
	after := &v1alpha1.TrainingProgress{
		Summary:          fmt.Sprintf("%d/%d", progress.Epoch, progress.Epochs),
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
	for _, name := range []string{"ValidationAccuracy", "Accuracy"} {
		if value, ok := after.Metrics[name]; ok {
			after.Accuracy = &value
			break
		}
	}
	if progress.MemoryBytes > 0 {
		after.Memory = inMebibytes(progress.MemoryBytes)
	}
	if left := time.Duration(progress.SecondsLeft * float64(time.Second)).Round(time.Second); left > 0 {
		after.Remaining = left.String()
	}
	return after
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
