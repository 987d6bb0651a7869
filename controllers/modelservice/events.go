package modelservice

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"trainyard.dev/trainyard/api/v1alpha1"
)

// tell says each turn of the story in the same words in an Event and the log
// as in the condition.
func (r *Reconciler) tell(ctx context.Context, service *v1alpha1.ModelService, before v1alpha1.ModelServiceStatus) {
	for _, turn := range turnsOf(before, service.Status) {
		log.FromContext(ctx).Info(turn.message, "reason", turn.reason)
		r.Recorder.Eventf(service, nil, turn.kind, turn.reason, turn.action, "%s", turn.message)
	}
}

// turn is what an Event says.
type turn struct {
	kind, reason, action, message string
}

// turnsOf tells what changed between two statuses, if a person would want to
// know: readiness, the model, and the number of pods.
func turnsOf(before, after v1alpha1.ModelServiceStatus) []turn {
	var turns []turn
	was := meta.FindStatusCondition(before.Conditions, v1alpha1.ModelServiceReady)
	is := meta.FindStatusCondition(after.Conditions, v1alpha1.ModelServiceReady)
	if is != nil && (was == nil || was.Reason != is.Reason || was.Message != is.Message) {
		turns = append(turns, turn{kindOf(is), is.Reason, "Serve", is.Message})
	}
	if after.Model != nil && (before.Model == nil || before.Model.Digest != after.Model.Digest) {
		turns = append(turns, turn{corev1.EventTypeNormal, "ModelResolved", "Resolve", "serving " + after.Model.Reference})
	}
	if before.Replicas != nil && after.Replicas != nil && before.Replicas.Desired != after.Replicas.Desired {
		turns = append(turns, scaled(before.Replicas.Desired, after.Replicas))
	}
	return turns
}

// kindOf is Warning for what a person has to look at, and Normal for waiting
// that ends by itself.
func kindOf(ready *metav1.Condition) string {
	switch {
	case ready.Status == metav1.ConditionTrue,
		ready.Reason == v1alpha1.ReasonStarting,
		ready.Reason == v1alpha1.ReasonTrainingJobRunning:
		return corev1.EventTypeNormal
	}
	return corev1.EventTypeWarning
}

func scaled(before int32, after *v1alpha1.ReplicaStatus) turn {
	return turn{corev1.EventTypeNormal, "Scaled", "Scale", fmt.Sprintf("from %d to %d pods: %s", before, after.Desired, after.Reason)}
}
