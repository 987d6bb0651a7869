package modelservice

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/story"
)

// turnsOf tells what changed between two statuses, if a person would want to
// know: readiness, what keeps the service from its newest model, the model, and
// the number of pods.
func turnsOf(before, after v1alpha1.ModelServiceStatus) []story.Turn {
	var turns []story.Turn
	was := meta.FindStatusCondition(before.Conditions, v1alpha1.ModelServiceReady)
	is := meta.FindStatusCondition(after.Conditions, v1alpha1.ModelServiceReady)
	begins := was == nil && is != nil && is.Reason == v1alpha1.ReasonStarting // which applying it says already
	if is != nil && !begins && (was == nil || was.Reason != is.Reason || was.Message != is.Message) {
		turns = append(turns, story.Turn{Kind: kindOf(is), Reason: is.Reason, Action: "Serve", Message: is.Message})
	}
	if turn, ok := held(before, after, is); ok {
		turns = append(turns, turn)
	}
	if after.Model != nil && (before.Model == nil || before.Model.Digest != after.Model.Digest) {
		turns = append(turns, story.Turn{Kind: corev1.EventTypeNormal, Reason: "ModelResolved", Action: "Resolve", Message: fmt.Sprintf("serving %s, %s", after.Model.Reference, after.Model.Digest)})
	}
	if before.Replicas != nil && after.Replicas != nil && before.Replicas.Desired != after.Replicas.Desired {
		turns = append(turns, scaled(before.Replicas.Desired, after.Replicas))
	}
	return turns
}

// held tells what keeps a service that does well from its newest model. Of one
// that isn't ready, that is told already.
func held(before, after v1alpha1.ModelServiceStatus, ready *metav1.Condition) (story.Turn, bool) {
	was := meta.FindStatusCondition(before.Conditions, v1alpha1.ModelServiceProgressing)
	is := meta.FindStatusCondition(after.Conditions, v1alpha1.ModelServiceProgressing)
	if is == nil || ready == nil || is.Reason == ready.Reason || (was != nil && was.Reason == is.Reason && was.Message == is.Message) {
		return story.Turn{}, false
	}
	stuck := is.Status == metav1.ConditionFalse && is.Reason != v1alpha1.ReasonStable && kindOf(is) == corev1.EventTypeWarning
	if !stuck && is.Reason != v1alpha1.ReasonModelUnavailable {
		return story.Turn{}, false
	}
	return story.Turn{Kind: corev1.EventTypeWarning, Reason: is.Reason, Action: "Follow", Message: is.Message}, true
}

// kindOf is Warning for what a person has to look at, and Normal for waiting
// that ends by itself.
func kindOf(ready *metav1.Condition) string {
	switch {
	case ready.Status == metav1.ConditionTrue,
		ready.Reason == v1alpha1.ReasonStarting,
		ready.Reason == v1alpha1.ReasonLooking,
		ready.Reason == v1alpha1.ReasonStopped,
		ready.Reason == v1alpha1.ReasonTrainingJobRunning:
		return corev1.EventTypeNormal
	}
	return corev1.EventTypeWarning
}

func scaled(before int32, after *v1alpha1.ReplicaStatus) story.Turn {
	return story.Turn{
		Kind: corev1.EventTypeNormal, Reason: "Scaled", Action: "Scale",
		Message: fmt.Sprintf("from %d to %d pods: %s", before, after.Desired, after.Message),
	}
}
