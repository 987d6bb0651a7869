// Package isolation says who may reach the pods that run for users:
//
//	| port                                | who reaches it                          |
//	|-------------------------------------|-----------------------------------------|
//	| open: predictions, health           | everyone                                |
//	| guarded: models, load, progress     | the manager, and who reads metrics      |
//	| any                                 | pods of the same run, if it has several |
//	| any other                           | nobody                                  |
//
// Who reads metrics is in a namespace with the label of [MetricsLabel]. Where pods
// connect to is not restricted: datasets and models may be anywhere.
package isolation

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingapply "k8s.io/client-go/applyconfigurations/networking/v1"
)

// MetricsLabel and MetricsEnabled mark the namespaces whose pods may read metrics.
// config/ uses them for the operator's own pods, and Kubebuilder's projects for
// theirs.
const (
	MetricsLabel   = "metrics"
	MetricsEnabled = "enabled"
)

// Pods says which pods are isolated, and from whom.
type Pods struct {
	// Labels that they have.
	Labels map[string]string
	// Open ports and Guarded ports.
	Open, Guarded []int32
	// Together says that the pods reach each other, on any port.
	Together bool
	// ManagerNamespace is where the manager runs.
	ManagerNamespace string
}

// Spec is the NetworkPolicy's.
func (p Pods) Spec() *networkingapply.NetworkPolicySpecApplyConfiguration {
	spec := networkingapply.NetworkPolicySpec().
		WithPodSelector(metaapply.LabelSelector().WithMatchLabels(p.Labels)).
		WithPolicyTypes(networkingv1.PolicyTypeIngress).
		WithIngress(networkingapply.NetworkPolicyIngressRule().
			WithPorts(ports(p.Guarded)...).
			WithFrom(
				networkingapply.NetworkPolicyPeer().
					WithNamespaceSelector(metaapply.LabelSelector().WithMatchLabels(map[string]string{corev1.LabelMetadataName: p.ManagerNamespace})).
					WithPodSelector(metaapply.LabelSelector().WithMatchLabels(map[string]string{
						"app.kubernetes.io/name": "trainyard", "app.kubernetes.io/component": "manager",
					})),
				networkingapply.NetworkPolicyPeer().
					WithNamespaceSelector(metaapply.LabelSelector().WithMatchLabels(map[string]string{MetricsLabel: MetricsEnabled}))))
	if len(p.Open) > 0 {
		spec.WithIngress(networkingapply.NetworkPolicyIngressRule().WithPorts(ports(p.Open)...))
	}
	if p.Together {
		spec.WithIngress(networkingapply.NetworkPolicyIngressRule().WithFrom(networkingapply.NetworkPolicyPeer().
			WithPodSelector(metaapply.LabelSelector().WithMatchLabels(p.Labels))))
	}
	return spec
}

func ports(numbers []int32) []*networkingapply.NetworkPolicyPortApplyConfiguration {
	var list []*networkingapply.NetworkPolicyPortApplyConfiguration
	for _, number := range numbers {
		list = append(list, networkingapply.NetworkPolicyPort().WithProtocol(corev1.ProtocolTCP).WithPort(intstr.FromInt32(number)))
	}
	return list
}
