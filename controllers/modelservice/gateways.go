package modelservice

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
)

// Gateways talks to the gateway's pods.
type Gateways interface {
	// Report tells what the pod holds, of all services.
	Report(ctx context.Context, pod *corev1.Pod) (routing.Report, error)
}

// gatewayLabels are on the gateway's pods, as config/gateway has them.
var gatewayLabels = client.MatchingLabels{
	"app.kubernetes.io/name":       v1alpha1.FieldOwner,
	"app.kubernetes.io/component":  "gateway",
	"app.kubernetes.io/managed-by": v1alpha1.FieldOwner,
}

func (r *Reconciler) isGateway(pod client.Object) bool {
	for label, value := range gatewayLabels {
		if pod.GetLabels()[label] != value {
			return false
		}
	}
	return pod.GetNamespace() == r.GatewayNamespace
}

func (r *Reconciler) gatewayPods(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := r.Client.List(ctx, &list, client.InNamespace(r.GatewayNamespace), gatewayLabels); err != nil {
		return nil, fmt.Errorf("listing the gateway's pods: %w", err)
	}
	return list.Items, nil
}

// gatewaysOf are pods as routing sees them.
func gatewaysOf(pods []corev1.Pod) []routing.GatewayPod {
	var gateways []routing.GatewayPod
	for i := range pods {
		pod := &pods[i]
		gateways = append(gateways, routing.GatewayPod{
			Name: pod.Name, Node: pod.Spec.NodeName, Address: pod.Status.PodIP,
			Ready: serves(pod), Stopping: !pod.DeletionTimestamp.IsZero(),
		})
	}
	return gateways
}

// serves tells whether a pod of the gateway can be counted on. Of its two
// containers one serves and the other stands by, so it is not needed that both are
// ready, as it is for the pod to be: one that was killed may take long to be back.
func serves(pod *corev1.Pod) bool {
	return isReady(pod) || slices.ContainsFunc(pod.Status.ContainerStatuses, func(status corev1.ContainerStatus) bool { return status.Ready })
}

// readyGateways are the pods that may be holding requests.
func readyGateways(pods []corev1.Pod) []*corev1.Pod {
	var ready []*corev1.Pod
	for i := range pods {
		if serves(&pods[i]) {
			ready = append(ready, &pods[i])
		}
	}
	return ready
}

// reading is what one gateway told of one service.
type reading struct {
	// started tells processes apart.
	started int64
	load    routing.Load
}

// poll is what all gateways told of all services, asked once for all of them.
type poll struct {
	mutex   sync.Mutex
	at      time.Time
	reports map[types.UID]map[types.NamespacedName]reading
}

// askGateways tells what the gateways hold for a service, by gateway. One that
// did not answer is missing; one that doesn't know the service holds nothing.
func (r *Reconciler) askGateways(ctx context.Context, q question) map[types.UID]reading {
	r.polled.mutex.Lock()
	defer r.polled.mutex.Unlock()
	if now := r.Now(); now.Sub(r.polled.at) >= samplePeriod/2 {
		r.polled.at, r.polled.reports = now, r.pollGateways(ctx, q.gateways)
	}
	readings := map[types.UID]reading{}
	for _, pod := range q.gateways {
		if services, answered := r.polled.reports[pod.UID]; answered {
			readings[pod.UID] = services[q.service]
		}
	}
	return readings
}

func (r *Reconciler) pollGateways(ctx context.Context, pods []*corev1.Pod) map[types.UID]map[types.NamespacedName]reading {
	return eachOf(pods, func(pod *corev1.Pod) (map[types.NamespacedName]reading, bool) {
		report, err := r.Gateways.Report(ctx, pod)
		if err != nil {
			log.FromContext(ctx).Info("a gateway doesn't tell what it holds", "pod", pod.Name, "reason", err.Error())
			return nil, false
		}
		services := map[types.NamespacedName]reading{}
		for _, load := range report.Services {
			services[types.NamespacedName{Namespace: load.Namespace, Name: load.Name}] = reading{report.Started, load}
		}
		return services, true
	})
}
