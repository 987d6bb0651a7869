package modelservice

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/scaling"
	"trainyard.dev/trainyard/controllers/story"
	"trainyard.dev/trainyard/runtime/spec"
)

// Reasons of decisions that are not the scaler's.
const (
	// woken: a gateway started a pod for a request.
	woken scaling.Reason = "Woken"
	// stopped: the spec parks the service.
	stopped scaling.Reason = "Stopped"
	// byCPU: a HorizontalPodAutoscaler decides.
	byCPU scaling.Reason = "CPU"
)

// scale decides how many pods there should be.
func (r *Reconciler) scale(ctx context.Context, service *v1alpha1.ModelService, seen *observation) {
	record := r.memory.of(client.ObjectKeyFromObject(service))
	switch {
	case service.Spec.Stopped:
		record.decision = scaling.Decision{Replicas: 0, Reason: stopped, Message: "spec.stopped is true"}
	case service.Spec.Autoscaling.Metric == v1alpha1.MetricCPU:
		record.decision = byHPA(service, seen.deployment)
	default:
		r.follow(ctx, service, seen, record)
	}
	seen.decision = record.decision
}

// follow decides by what pods and gateways told, once for each time that they
// were asked.
func (r *Reconciler) follow(ctx context.Context, service *v1alpha1.ModelService, seen *observation, record *record) {
	policy := policyOf(service.Spec.Autoscaling)
	stand := standOf(seen.deployment, record, policy)
	switch stand.by {
	case byGateway:
		record.state = record.state.Woken()
		record.decision = scaling.Decision{Replicas: stand.count, Reason: woken, Message: "a request came while there was no pod"}
	case byHand:
		r.tellByHand(ctx, service, *seen.deployment.Spec.Replicas, stand.count)
	}
	if fresh, at := record.news(seen); fresh {
		measure := concurrency
		if service.Spec.Autoscaling.Metric == v1alpha1.MetricRequestsPerSecond {
			measure = rate
		}
		decision, state := scaling.Decide(policy, record.state, stand.count, record.sample(at, measure, toldIn(seen)))
		record.state = state
		if stand.by != byGateway || decision.Replicas > stand.count {
			record.decision = decision
		}
	}
}

// news tells whether there is something to decide on that was not decided on
// before, and when it was. A pass that comes before anybody was asked decides
// without data, which never lowers the count.
func (r *record) news(seen *observation) (fresh bool, at time.Time) {
	if r.sampled.IsZero() && seen.heard.At.IsZero() {
		return true, seen.now
	}
	return seen.heard.At.After(r.sampled), seen.heard.At
}

// writer is who wrote the number of pods last.
type writer int

const (
	// byUs: the operator did, or nobody yet.
	byUs writer = iota
	// byGateway: the number was zero, and is not any more.
	byGateway
	// byHand: anything else.
	byHand
)

// stand is the count to decide from, and who wrote it.
type stand struct {
	count int32
	by    writer
}

// standOf tells how many pods are wanted now.
//
//	the Deployment                     what stands     written
//	isn't there                        the minimum     by us
//	was not applied by this process    what it says    by us
//	is as this process applied it      the decision    by us
//	says the same number               the decision    by us
//	was applied with 0, and has pods   1               by a gateway
//	says another number                the decision    by hand
//
// "As this process applied it" is told by the generation, and includes what the
// cache does not show yet.
func standOf(deployment *appsv1.Deployment, record *record, policy scaling.Policy) stand {
	switch {
	case deployment == nil:
		return stand{max(policy.Min, 1), byUs}
	case record.written == 0:
		return stand{ptr.Deref(deployment.Spec.Replicas, 1), byUs}
	case deployment.Generation <= record.written || ptr.Deref(deployment.Spec.Replicas, 1) == record.decision.Replicas:
		return stand{record.decision.Replicas, byUs}
	case record.decision.Replicas == 0:
		return stand{1, byGateway}
	}
	return stand{record.decision.Replicas, byHand}
}

// tellByHand tells who owns the number of pods.
func (r *Reconciler) tellByHand(ctx context.Context, service *v1alpha1.ModelService, said, owned int32) {
	story.Tell(ctx, r.Recorder, service, story.Turn{
		Kind: corev1.EventTypeWarning, Reason: "ScaledByHand", Action: "Scale",
		Message: fmt.Sprintf("Deployment %s was scaled to %d by somebody else and is set back to %d: ModelService %s owns the number; change its spec.autoscaling.minReplicas and maxReplicas",
			service.Name, said, owned, service.Name),
	})
}

// byHPA is what a HorizontalPodAutoscaler decided.
func byHPA(service *v1alpha1.ModelService, deployment *appsv1.Deployment) scaling.Decision {
	count := max(ptr.Deref(service.Spec.Autoscaling.MinReplicas, 1), 1)
	if deployment != nil {
		count = max(count, ptr.Deref(deployment.Spec.Replicas, 1))
	}
	return scaling.Decision{Replicas: count, Reason: byCPU, Message: "HorizontalPodAutoscaler " + service.Name + " decides by CPU"}
}

// replicasFor is what the Deployment is applied with. What a
// HorizontalPodAutoscaler writes is not ours to write, but from zero it does
// nothing.
func replicasFor(service *v1alpha1.ModelService, seen observation) *int32 {
	if service.Spec.Autoscaling.Metric == v1alpha1.MetricCPU && !service.Spec.Stopped &&
		seen.deployment != nil && ptr.Deref(seen.deployment.Spec.Replicas, 1) > 0 {
		return nil
	}
	return &seen.decision.Replicas
}

func policyOf(autoscaling v1alpha1.Autoscaling) scaling.Policy {
	least := ptr.Deref(autoscaling.MinReplicas, 1)
	policy := scaling.Policy{
		Min:    least,
		Max:    ptr.Deref(autoscaling.MaxReplicas, max(least, 10)),
		Target: float64(ptr.Deref(autoscaling.TargetConcurrency, 10)),
		Unit:   "concurrency",
		Window: durationOr(autoscaling.StabilizationTime, time.Minute),
		Idle:   durationOr(autoscaling.IdleTime, time.Minute),
		Tick:   samplePeriod,
	}
	if autoscaling.Metric == v1alpha1.MetricRequestsPerSecond {
		policy.Target, policy.Unit = float64(ptr.Deref(autoscaling.TargetRequestsPerSecond, 200)), "requests per second"
	}
	return policy
}

func durationOr(duration *metav1.Duration, otherwise time.Duration) time.Duration {
	if duration == nil {
		return otherwise
	}
	return duration.Duration
}

// toldIn is what those pods and gateways told who are ready.
func toldIn(seen *observation) told {
	t := told{
		pods: map[types.UID]spec.Stats{}, ready: readyCount(seen.pods),
		gateways: map[types.UID]reading{}, readyGateways: int32(len(readyGateways(seen.gateways))),
	}
	for _, report := range seen.pods {
		if stats, answered := seen.heard.Answers.stats[report.pod.UID]; answered && report.ready() {
			t.pods[report.pod.UID] = stats
		}
	}
	for _, pod := range readyGateways(seen.gateways) {
		if reading, answered := seen.heard.Answers.gateways[pod.UID]; answered {
			t.gateways[pod.UID] = reading
		}
	}
	return t
}
