// Package routing tells how requests reach a service whether it has pods or
// not. It is pure: values in, values out.
//
// Kubernetes keeps the endpoints of a service's pods. Beside them the operator
// keeps one slice of its own, in which the gateway's pods stand as a fallback:
// not ready, serving, terminating. A kube-proxy sends nobody to such an
// endpoint while a ready one exists, and everybody when the last of them is
// gone, without a controller in the loop. While there are no pods, the gateway's
// are ready, too, for proxies that read only that.
//
//	the gateway's pod    while pods are ready             while none is ready
//	                     ready  serving  terminating      ready  serving  terminating
//	ready                no     yes      yes              yes    yes      no
//	stopping, the last   no     yes      yes              no     yes      yes
//	stopping, others     left out                         left out
//	not ready            left out                         left out
//
// "Stopping, the last" is a pod that is being stopped while no other is ready:
// it goes on answering until it ends.
package routing

import (
	"cmp"
	"slices"
)

// GatewayPod is a pod of the gateway.
type GatewayPod struct {
	// Name, Node and Address are the pod's.
	Name, Node, Address string
	// Ready is set when it answers requests; Stopping when it is being stopped,
	// which it may be and still be ready.
	Ready, Stopping bool
}

// Endpoint is one element of the operator's own slice.
type Endpoint struct {
	GatewayPod
	// ShownReady, Serving and Terminating are the endpoint's conditions.
	ShownReady, Serving, Terminating bool
}

// Endpoints is what the operator's own slice shows, in the order of addresses:
// the same pods in another order give the same slice.
func Endpoints(pods []GatewayPod, readyPods int32) []Endpoint {
	staying := slices.ContainsFunc(pods, func(pod GatewayPod) bool { return pod.Ready && !pod.Stopping })
	var endpoints []Endpoint
	for _, pod := range pods {
		if pod.Address == "" || !pod.Ready || (pod.Stopping && staying) {
			continue
		}
		ready := readyPods == 0 && !pod.Stopping
		endpoints = append(endpoints, Endpoint{GatewayPod: pod, ShownReady: ready, Serving: true, Terminating: !ready})
	}
	slices.SortFunc(endpoints, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Name, b.Name))
	})
	return endpoints
}
