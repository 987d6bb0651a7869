package modelservice

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/polling"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/controllers/scaling"
	"trainyard.dev/trainyard/runtime/spec"
)

// observation is all that a pass has read, and so all that status depends on.
type observation struct {
	resolution resolution
	// address is where models are looked for; nil: they are a TrainingJob's.
	address *address
	// obstacle keeps the service's objects from being made; empty when there is
	// none.
	obstacle obstacle
	// deployment is nil while there is none.
	deployment *appsv1.Deployment
	pods       []podReport
	// gateways are the gateway's pods.
	gateways []corev1.Pod
	// follower is the pod that looks at the address; nil: there is none.
	follower *corev1.Pod
	// heard is what all these pods told last.
	heard    polling.Heard[answers]
	decision scaling.Decision
	now      time.Time
}

// obstacle is something that a person has to put right.
type obstacle struct {
	reason, message string
}

// podReport is a pod and what its server says of the model.
type podReport struct {
	pod *corev1.Pod
	// model is nil when the server did not answer.
	model *spec.ModelStatus
}

// holds tells whether the pod has the model of that digest loaded.
func (p podReport) holds(digest string) bool {
	return p.model != nil && p.model.Digest == digest && p.model.State == spec.StateReady
}

func (p podReport) ready() bool {
	return p.pod.DeletionTimestamp.IsZero() && isReady(p.pod)
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// verdict is one condition's value.
type verdict struct {
	status          metav1.ConditionStatus
	reason, message string
}

// statusOf is the status that follows from what was seen.
func statusOf(service *v1alpha1.ModelService, o observation) v1alpha1.ModelServiceStatus {
	status := *service.Status.DeepCopy()
	status.ObservedGeneration = service.Generation
	status.Model = o.resolution.model.DeepCopy()
	status.Source = sourceStatus(o)
	status.Versions = versionsOf(o.pods)
	if status.Model != nil {
		status.URL = fmt.Sprintf("http://%s.%s.svc", service.Name, service.Namespace)
		status.Replicas = replicasOf(o, status.Replicas)
	}
	if start := coldStartOf(o); start != nil {
		status.ColdStart = &v1alpha1.ColdStart{
			// A status holds whole seconds.
			Time: metav1.NewTime(time.Unix(0, start.At).Truncate(time.Second)),
			Took: metav1.Duration{Duration: time.Duration(start.Seconds * float64(time.Second)).Round(time.Millisecond)},
		}
	}
	for kind, v := range map[string]verdict{
		v1alpha1.ModelServiceReady:       readiness(o),
		v1alpha1.ModelServiceProgressing: progress(o),
	} {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: kind, Status: v.status, Reason: v.reason, Message: v.message,
			ObservedGeneration: service.Generation, LastTransitionTime: metav1.NewTime(o.now),
		})
	}
	sortConditions(status.Conditions)
	return status
}

// coldStartOf is the last that a gateway saw, nil if none saw one.
func coldStartOf(o observation) *routing.ColdStart {
	var last *routing.ColdStart
	for _, pod := range readyGateways(o.gateways) {
		start := o.heard.Answers.gateways[pod.UID].load.ColdStart
		if start != nil && (last == nil || start.At > last.At) {
			last = start
		}
	}
	return last
}

// sourceStatus is where the model was found, and when it was first seen there.
func sourceStatus(o observation) *v1alpha1.SourceStatus {
	source := o.resolution.source.DeepCopy()
	if source != nil && source.Found.IsZero() {
		source.Found = metav1.NewTime(o.now.Truncate(time.Second))
	}
	return source
}

// sortConditions puts Ready first, which is what people look for.
func sortConditions(conditions []metav1.Condition) {
	for i := range conditions {
		if conditions[i].Type == v1alpha1.ModelServiceReady {
			conditions[0], conditions[i] = conditions[i], conditions[0]
		}
	}
}

// replicasOf keeps the last decision's reason until there is another decision:
// a reason holds measurements, and writing each of them down would never end.
// To be stopped, and not to be any more, is another decision for no pods.
func replicasOf(o observation, before *v1alpha1.ReplicaStatus) *v1alpha1.ReplicaStatus {
	ready := readyCount(o.pods)
	decided := metav1.NewTime(o.now.Truncate(time.Second))
	after := &v1alpha1.ReplicaStatus{
		Desired: o.decision.Replicas,
		Ready:   ready,
		Summary: fmt.Sprintf("%d/%d", ready, o.decision.Replicas),
		Reason:  string(o.decision.Reason),
		Message: o.decision.Message,
		Decided: &decided,
	}
	same := before != nil && before.Desired == after.Desired && (before.Reason == string(stopped)) == (after.Reason == string(stopped))
	if same && before.Reason != "" {
		after.Reason, after.Message, after.Decided = before.Reason, before.Message, before.Decided
	}
	return after
}

// versionsOf counts the ready pods by the model that they answer with.
func versionsOf(pods []podReport) []v1alpha1.VersionStatus {
	counts := map[string]int32{}
	for _, report := range pods {
		if report.ready() && report.model != nil && report.model.State == spec.StateReady {
			counts[spec.ServedModel{Digest: report.model.Digest}.Version()]++
		}
	}
	var versions []v1alpha1.VersionStatus
	for _, version := range slices.Sorted(maps.Keys(counts)) {
		versions = append(versions, v1alpha1.VersionStatus{Version: version, Pods: counts[version]})
	}
	return versions
}

// readiness judges whether the URL answers, or would after a wake.
//
//	what is seen (first row that fits)        Ready   reason
//	stopped                                   False   Stopped
//	ready pods                                True    Serving
//	an obstacle                               False   the obstacle's
//	no model                                  False   what the service waits for
//	no pods wanted, and a gateway             True    Asleep
//	no pods wanted, and no gateway            False   GatewayMissing
//	a pod that can't load the model           False   ModelUnavailable
//	a pod that can't start or stay up         False   PodFailing
//	anything else                             False   Starting
func readiness(o observation) verdict {
	ready := readyCount(o.pods)
	switch {
	case o.decision.Reason == stopped:
		return verdict{metav1.ConditionFalse, v1alpha1.ReasonStopped, "spec.stopped is true; set it to false to start the service"}
	case ready > 0:
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonServing, "the URL answers"}
	case o.obstacle.reason != "":
		return verdict{metav1.ConditionFalse, o.obstacle.reason, o.obstacle.message}
	case o.resolution.model == nil:
		return verdict{metav1.ConditionFalse, o.resolution.reason, o.resolution.message}
	case o.decision.Replicas == 0 && len(readyGateways(o.gateways)) > 0:
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonAsleep, "no pod runs, as nobody asks; the next request starts one, and is answered by it"}
	case o.decision.Replicas == 0:
		return verdict{metav1.ConditionFalse, v1alpha1.ReasonGatewayMissing, "no pod runs, and no pod of the gateway is ready that would start one: see deployment/gateway in the operator's namespace"}
	}
	if message := loadFailure(o.pods); message != "" {
		return verdict{metav1.ConditionFalse, v1alpha1.ReasonModelUnavailable, message}
	}
	if message := podFailure(o); message != "" {
		return verdict{metav1.ConditionFalse, v1alpha1.ReasonPodFailing, message}
	}
	return verdict{metav1.ConditionFalse, v1alpha1.ReasonStarting, "waiting for the first pod to be ready"}
}

// progress judges whether everything is as the spec wants it.
func progress(o observation) verdict {
	switch {
	case o.obstacle.reason != "":
		return verdict{metav1.ConditionFalse, o.obstacle.reason, o.obstacle.message}
	case o.resolution.reason != "":
		return verdict{metav1.ConditionFalse, o.resolution.reason, o.resolution.message}
	}
	lagging := 0
	for _, report := range o.pods {
		if report.ready() && !report.holds(o.resolution.model.Digest) {
			lagging++
		}
	}
	ready := readyCount(o.pods)
	switch message := loadFailure(o.pods); {
	case lagging > 0 && message != "":
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonModelUnavailable, message}
	case lagging > 0:
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonUpdating, fmt.Sprintf("pods are taking model %s", o.resolution.model.ShortDigest)}
	case o.decision.Replicas == 0 && len(o.pods) == 0:
		return verdict{metav1.ConditionFalse, v1alpha1.ReasonStable, "no pod is wanted"}
	case ready == 0 && o.decision.Replicas > 0:
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonStarting, "waiting for the first pod to be ready"}
	case ready != o.decision.Replicas || int(o.decision.Replicas) != len(o.pods):
		if message := podFailure(o); message != "" {
			return verdict{metav1.ConditionTrue, v1alpha1.ReasonPodFailing, message}
		}
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonScaling, fmt.Sprintf("on the way to %d pods", o.decision.Replicas)}
	}
	return verdict{metav1.ConditionFalse, v1alpha1.ReasonStable, "every pod serves the model"}
}

func readyCount(pods []podReport) int32 {
	count := int32(0)
	for _, report := range pods {
		if report.ready() {
			count++
		}
	}
	return count
}

// loadFailure is what a server says that cannot load the model. It does not
// name the pod: the next one would fail in the same way, and one message is
// better than many.
func loadFailure(pods []podReport) string {
	for _, report := range pods {
		if report.model != nil && report.model.Reason != "" {
			return "the model can't be loaded: " + report.model.Reason
		}
	}
	return ""
}

// podFailure says what keeps pods from running, by the kubelet's, the
// scheduler's or the Deployment's own words.
func podFailure(o observation) string {
	for _, report := range o.pods {
		if message := troubleOf(report.pod); message != "" {
			return message
		}
	}
	if o.deployment == nil {
		return ""
	}
	return refusedPods(o.deployment)
}

// refusedPods says why a Deployment gets no pods, as for a quota.
func refusedPods(deployment *appsv1.Deployment) string {
	for _, condition := range deployment.Status.Conditions {
		if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue {
			return "pods can't be created: " + condition.Message + ". It is tried again; if it is a quota, raise it, or ask for less in spec.resources or spec.autoscaling"
		}
	}
	return ""
}

// troubleOf says what keeps a pod from running, and what to do about it. While the
// same goes wrong again and again, it is the same text.
func troubleOf(pod *corev1.Pod) string {
	for i := range pod.Status.ContainerStatuses {
		if message := containerTrouble(pod, &pod.Status.ContainerStatuses[i]); message != "" {
			return fmt.Sprintf("pod %s: %s", pod.Name, message)
		}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return fmt.Sprintf("pod %s can't be scheduled: %s It starts when there is room; else change what spec.resources and spec.podTemplate ask for",
				pod.Name, sentence(condition.Message))
		}
	}
	return ""
}

// containerTrouble is what the kubelet says of a container.
func containerTrouble(pod *corev1.Pod, status *corev1.ContainerStatus) string {
	waiting, last := status.State.Waiting, status.LastTerminationState.Terminated
	switch {
	case waiting != nil && slices.Contains([]string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}, waiting.Reason):
		return imageTrouble(waiting) + " See to the image that the manager's --runtime-image names, or give credentials for it in spec.podTemplate.imagePullSecrets"
	case last != nil && !status.Ready:
		return fmt.Sprintf("CrashLoopBackOff: its container ended with exit code %d, %s. Why, tells: kubectl logs --previous %s --namespace %s",
			last.ExitCode, last.Reason, pod.Name, pod.Namespace)
	case waiting == nil || waiting.Reason == "ContainerCreating" || waiting.Reason == "PodInitializing":
		return ""
	}
	return waiting.Reason + ": " + waiting.Message
}

// imageTrouble is one text for a pull that failed and for the pause before the
// next, between which the kubelet goes to and fro.
func imageTrouble(waiting *corev1.ContainerStateWaiting) string {
	const failed = "ErrImagePull"
	if _, why, ok := strings.Cut(waiting.Message, failed+": "); ok && waiting.Reason == "ImagePullBackOff" {
		return failed + ": " + sentence(why)
	}
	return waiting.Reason + ": " + sentence(waiting.Message)
}

// sentence ends a text of somebody else, so that another can follow.
func sentence(text string) string {
	return strings.TrimRight(strings.TrimSpace(text), ".") + "."
}
