package trainingjob

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/story"
)

// turnOf tells what changed between two statuses, if a person would want to
// know. Progress within a state is no turn.
func turnOf(before, after v1alpha1.TrainingJobStatus) (story.Turn, bool) {
	was := meta.FindStatusCondition(before.Conditions, v1alpha1.TrainingJobProgressing)
	is := meta.FindStatusCondition(after.Conditions, v1alpha1.TrainingJobProgressing)
	if is == nil || (was != nil && was.Reason == is.Reason && was.Message == is.Message) {
		return story.Turn{}, false
	}
	kind := corev1.EventTypeNormal
	switch {
	case after.State == v1alpha1.StateFailed, after.State == v1alpha1.StateRetrying, is.Reason == v1alpha1.ReasonHindered:
		kind = corev1.EventTypeWarning
	case after.State == v1alpha1.StatePending && is.Reason != v1alpha1.ReasonPodPending:
		kind = corev1.EventTypeWarning
	}
	return story.Turn{Kind: kind, Reason: is.Reason, Action: "Train", Message: is.Message}, true
}

func expired(ttl int32) story.Turn {
	return story.Turn{
		Kind: corev1.EventTypeNormal, Reason: v1alpha1.ReasonExpired, Action: "Delete",
		Message: fmt.Sprintf("deleted, as ttlSecondsAfterFinished says, %d seconds after its end; its model stays in the registry", ttl),
	}
}
