package modelservice

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	discoveryapply "k8s.io/client-go/applyconfigurations/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
)

// gatewayPortField indexes ModelServices by the port that they have at the
// gateway.
const gatewayPortField = "status.gateway.http"

func gatewayPortOf(object client.Object) []string {
	if gateway := object.(*v1alpha1.ModelService).Status.Gateway; gateway != nil {
		return []string{strconv.Itoa(int(gateway.HTTP))}
	}
	return nil
}

// claimOf is the service as routing sees it.
func claimOf(service *v1alpha1.ModelService) routing.Claim {
	claim := routing.Claim{UID: string(service.UID), Created: service.CreationTimestamp.Time}
	if gateway := service.Status.Gateway; gateway != nil {
		claim.Ports = routing.Ports{HTTP: gateway.HTTP, GRPC: gateway.GRPC}
	}
	return claim
}

// ensurePorts gives the service ports at the gateway, if it has none or has to
// leave them to an older service. They are in the status, with the
// resourceVersion that was read, before anything else tells of them: two
// managers can't give one service two pairs. The rest of the status is written
// with them, which spares a new service another write.
func (r *Reconciler) ensurePorts(ctx context.Context, service *v1alpha1.ModelService, seen observation) (obstacle, error) {
	mine := claimOf(service)
	same, err := r.claims(ctx, client.MatchingFields{gatewayPortField: strconv.Itoa(int(mine.Ports.HTTP))})
	if err != nil || routing.Keeps(routing.GatewayRange, mine, same) {
		return obstacle{}, err
	}
	all, err := r.claims(ctx)
	if err != nil {
		return obstacle{}, err
	}
	ports, err := routing.Allot(routing.GatewayRange, mine, all)
	if err != nil {
		return obstacle{v1alpha1.ReasonPortsExhausted, err.Error()}, nil
	}
	status := statusOf(service, seen)
	status.Gateway = &v1alpha1.GatewayPorts{HTTP: ports.HTTP, GRPC: ports.GRPC}
	return obstacle{}, r.writeStatus(ctx, service, status)
}

func (r *Reconciler) claims(ctx context.Context, options ...client.ListOption) ([]routing.Claim, error) {
	var list v1alpha1.ModelServiceList
	if err := r.Client.List(ctx, &list, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		return nil, fmt.Errorf("listing ModelServices for their ports at the gateway: %w", err)
	}
	claims := make([]routing.Claim, len(list.Items))
	for i := range list.Items {
		claims[i] = claimOf(&list.Items[i])
	}
	return claims, nil
}

// sliceName of the slice in which the gateway stands beside the pods.
func sliceName(service *v1alpha1.ModelService) string { return service.Name + "-gateway" }

// buildSlice is the operator's own slice of the Service's endpoints. Its ports
// have the names of the Service's, so that each finds its counterpart.
func buildSlice(service *v1alpha1.ModelService, endpoints []routing.Endpoint) *discoveryapply.EndpointSliceApplyConfiguration {
	slice := discoveryapply.EndpointSlice(sliceName(service), service.Namespace).
		WithLabels(labelsOf(service)).
		WithLabels(map[string]string{
			discoveryv1.LabelServiceName: service.Name,
			discoveryv1.LabelManagedBy:   v1alpha1.GatewaySliceManager,
		}).
		WithOwnerReferences(ownerOf(service)).
		WithAddressType(addressType(endpoints)).
		WithPorts(
			port(v1alpha1.HTTPPortName, service.Status.Gateway.HTTP),
			port(v1alpha1.GRPCPortName, service.Status.Gateway.GRPC).WithAppProtocol("kubernetes.io/h2c"))
	if service.Spec.Stopped {
		slice.WithAnnotations(map[string]string{v1alpha1.StoppedAnnotation: "true"})
	}
	for _, endpoint := range endpoints {
		apply := discoveryapply.Endpoint().
			WithAddresses(endpoint.Address).
			WithConditions(discoveryapply.EndpointConditions().
				WithReady(endpoint.ShownReady).WithServing(endpoint.Serving).WithTerminating(endpoint.Terminating))
		if endpoint.Node != "" {
			apply.WithNodeName(endpoint.Node)
		}
		slice.WithEndpoints(apply)
	}
	return slice
}

func port(name string, number int32) *discoveryapply.EndpointPortApplyConfiguration {
	return discoveryapply.EndpointPort().WithName(name).WithProtocol(corev1.ProtocolTCP).WithPort(number)
}

// addressType is that of the first address: pods of one cluster have the same
// kind of first address.
func addressType(endpoints []routing.Endpoint) discoveryv1.AddressType {
	if len(endpoints) > 0 && strings.Contains(endpoints[0].Address, ":") {
		return discoveryv1.AddressTypeIPv6
	}
	return discoveryv1.AddressTypeIPv4
}
