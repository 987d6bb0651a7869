package modelservice

import (
	"context"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	autoscalingapply "k8s.io/client-go/applyconfigurations/autoscaling/v2"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	policyapply "k8s.io/client-go/applyconfigurations/policy/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
)

// optional is an object that a ModelService has in some states only.
type optional struct {
	child
	wanted bool
}

// optionalChildren are a PodDisruptionBudget while there is more than one pod,
// as one for a single pod would keep a node from being drained, and a
// HorizontalPodAutoscaler for who scales by CPU.
func optionalChildren(service *v1alpha1.ModelService, seen observation) []optional {
	name := metav1.ObjectMeta{Name: service.Name, Namespace: service.Namespace}
	return []optional{
		{child{live: &policyv1.PodDisruptionBudget{ObjectMeta: name}, desired: buildBudget(service)}, seen.decision.Replicas > 1},
		{child{live: &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: name}, desired: buildAutoscaler(service)},
			service.Spec.Autoscaling.Metric == v1alpha1.MetricCPU && !service.Spec.Stopped},
	}
}

// applyOptional makes an object that is wanted, and deletes one that is not.
func (r *Reconciler) applyOptional(ctx context.Context, service *v1alpha1.ModelService, o optional) (obstacle, error) {
	if o.wanted {
		return r.apply(ctx, service, o.child)
	}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(o.live), o.live)
	if err != nil || !metav1.IsControlledBy(o.live, service) || !o.live.GetDeletionTimestamp().IsZero() {
		return obstacle{}, client.IgnoreNotFound(err)
	}
	uid := o.live.GetUID()
	if err := r.Client.Delete(ctx, o.live, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return obstacle{}, fmt.Errorf("deleting %s, which the service doesn't need any more: %w", nameOf(o.live, r.Client), err)
	}
	return obstacle{}, nil
}

// buildBudget lets a drain take one pod at a time.
func buildBudget(service *v1alpha1.ModelService) *policyapply.PodDisruptionBudgetApplyConfiguration {
	return policyapply.PodDisruptionBudget(service.Name, service.Namespace).
		WithLabels(labelsOf(service)).
		WithOwnerReferences(ownerOf(service)).
		WithSpec(policyapply.PodDisruptionBudgetSpec().
			WithSelector(metaapply.LabelSelector().WithMatchLabels(selectorOf(service))).
			WithMaxUnavailable(intstr.FromInt32(1)).
			WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow))
}

func buildAutoscaler(service *v1alpha1.ModelService) *autoscalingapply.HorizontalPodAutoscalerApplyConfiguration {
	policy := policyOf(service.Spec.Autoscaling)
	return autoscalingapply.HorizontalPodAutoscaler(service.Name, service.Namespace).
		WithLabels(labelsOf(service)).
		WithOwnerReferences(ownerOf(service)).
		WithSpec(autoscalingapply.HorizontalPodAutoscalerSpec().
			WithScaleTargetRef(autoscalingapply.CrossVersionObjectReference().
				WithAPIVersion("apps/v1").WithKind("Deployment").WithName(service.Name)).
			WithMinReplicas(max(policy.Min, 1)).
			WithMaxReplicas(policy.Max).
			WithMetrics(autoscalingapply.MetricSpec().
				WithType(autoscalingv2.ResourceMetricSourceType).
				WithResource(autoscalingapply.ResourceMetricSource().
					WithName(corev1.ResourceCPU).
					WithTarget(autoscalingapply.MetricTarget().
						WithType(autoscalingv2.UtilizationMetricType).
						WithAverageUtilization(ptr.Deref(service.Spec.Autoscaling.TargetCPUPercent, 80))))).
			WithBehavior(autoscalingapply.HorizontalPodAutoscalerBehavior().
				WithScaleDown(autoscalingapply.HPAScalingRules().
					WithStabilizationWindowSeconds(int32(policy.Window.Seconds())))))
}
