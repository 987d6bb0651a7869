package trainingjob

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"trainyard.dev/trainyard/api/v1alpha1"
)

// tell says a turn of the story in the same words in an Event and the log as
// in the condition. Progress within a state is no turn.
func (r *Reconciler) tell(ctx context.Context, job *v1alpha1.TrainingJob, before v1alpha1.TrainingJobStatus) {
	turn, ok := turnOf(before, job.Status)
	if !ok {
		return
	}
	log.FromContext(ctx).Info(turn.message, "state", job.Status.State, "reason", turn.reason)
	r.Recorder.Eventf(job, nil, turn.kind, turn.reason, turn.action, "%s", turn.message)
}

// turn is what an Event says.
type turn struct {
	kind, reason, action, message string
}

// turnOf tells what changed between two statuses, if a person would want to
// know.
func turnOf(before, after v1alpha1.TrainingJobStatus) (turn, bool) {
	was := meta.FindStatusCondition(before.Conditions, v1alpha1.TrainingJobProgressing)
	is := meta.FindStatusCondition(after.Conditions, v1alpha1.TrainingJobProgressing)
	if is == nil || (was != nil && was.Reason == is.Reason && was.Message == is.Message) {
		return turn{}, false
	}
	kind := corev1.EventTypeNormal
	switch {
	case after.State == v1alpha1.StateFailed, after.State == v1alpha1.StateRetrying:
		kind = corev1.EventTypeWarning
	case after.State == v1alpha1.StatePending && is.Reason != v1alpha1.ReasonPodPending:
		kind = corev1.EventTypeWarning
	}
	return turn{kind, is.Reason, "Train", is.Message}, true
}
