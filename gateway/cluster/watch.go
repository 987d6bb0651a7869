// Package cluster tells the gateway which services there are and where their
// pods are, and wakes services. It reads nothing but EndpointSlices, and writes
// nothing but the scale of Deployments.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/gateway"
)

// byService indexes slices by the service they belong to.
const byService = "service"

// Cluster is what the gateway sees of Kubernetes.
type Cluster struct {
	slices cache.SharedIndexInformer
	apps   rest.Interface
}

// New prepares to reach the API server.
func New(config *rest.Config) (*Cluster, error) {
	discovery, err := clientFor(config, discoveryv1.SchemeGroupVersion.Group, "v1")
	if err != nil {
		return nil, err
	}
	apps, err := clientFor(config, "apps", "v1")
	if err != nil {
		return nil, err
	}
	ours := func(options *metav1.ListOptions) { options.LabelSelector = v1alpha1.ModelServiceLabel }
	slices := cache.NewSharedIndexInformer(
		cache.NewFilteredListWatchFromClient(discovery, "endpointslices", metav1.NamespaceAll, ours),
		&discoveryv1.EndpointSlice{}, 0, cache.Indexers{byService: keyOfSlice})
	return &Cluster{slices, apps}, nil
}

func clientFor(config *rest.Config, group, version string) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	if err := discoveryv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	config.GroupVersion = &schema.GroupVersion{Group: group, Version: version}
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("reaching the API server: %w", err)
	}
	return client, nil
}

// keyOf is the ModelService that a slice belongs to. The Service has the
// ModelService's name.
func keyOf(slice *discoveryv1.EndpointSlice) gateway.Key {
	return gateway.Key{Namespace: slice.Namespace, Name: slice.Labels[v1alpha1.ModelServiceLabel]}
}

func keyOfSlice(object any) ([]string, error) {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil, fmt.Errorf("%T is no EndpointSlice", object)
	}
	return []string{keyOf(slice).String()}, nil
}

// Watch tells the gateway of every service and every change, until ctx ends.
func (c *Cluster) Watch(ctx context.Context, g *gateway.Gateway) error {
	changed := func(object any) {
		if deleted, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = deleted.Obj
		}
		if slice, ok := object.(*discoveryv1.EndpointSlice); ok {
			c.tell(g, keyOf(slice))
		}
	}
	registration, err := c.slices.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: changed, DeleteFunc: changed, UpdateFunc: func(_, object any) { changed(object) },
	})
	if err != nil {
		return fmt.Errorf("watching EndpointSlices: %w", err)
	}
	go c.slices.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return errors.New("stopped before the API server told which services there are")
	}
	g.Synced()
	return nil
}

// tell tells of one service as all of its slices show it.
func (c *Cluster) tell(g *gateway.Gateway, key gateway.Key) {
	objects, err := c.slices.GetIndexer().ByIndex(byService, key.String())
	if err != nil {
		return
	}
	var all []*discoveryv1.EndpointSlice
	for _, object := range objects {
		all = append(all, object.(*discoveryv1.EndpointSlice))
	}
	if view, there := viewOf(all); there {
		g.Set(key, view)
	} else {
		g.Remove(key)
	}
}

// viewOf sums up the slices of one service: the operator's own says which ports
// it has, Kubernetes' say where its pods are. Without the former the gateway has
// nothing to do with it.
func viewOf(all []*discoveryv1.EndpointSlice) (view gateway.View, there bool) {
	for _, slice := range all {
		if slice.Labels[discoveryv1.LabelManagedBy] == v1alpha1.GatewaySliceManager {
			there = true
			view.Stopped = slice.Annotations[v1alpha1.StoppedAnnotation] != ""
			view.Ports.HTTP, view.Ports.GRPC = portOf(slice, v1alpha1.HTTPPortName), portOf(slice, v1alpha1.GRPCPortName)
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if ptr.Deref(endpoint.Conditions.Terminating, false) {
				continue
			}
			for _, address := range endpoint.Addresses {
				view.Pods = append(view.Pods, gateway.Pod{Address: address, Ready: ptr.Deref(endpoint.Conditions.Ready, true)})
			}
		}
	}
	slices.SortFunc(view.Pods, byAddress)
	view.Pods = slices.CompactFunc(view.Pods, func(a, b gateway.Pod) bool { return a.Address == b.Address })
	return view, there
}

// byAddress puts what is ready first among equal addresses, so that this is
// what stays: a pod may be in two slices while it moves from one to the other.
func byAddress(a, b gateway.Pod) int {
	if a.Address == b.Address && a.Ready != b.Ready {
		return map[bool]int{true: -1, false: 1}[a.Ready]
	}
	return cmp.Compare(a.Address, b.Address)
}

func portOf(slice *discoveryv1.EndpointSlice, name string) int32 {
	for _, port := range slice.Ports {
		if ptr.Deref(port.Name, "") == name {
			return ptr.Deref(port.Port, 0)
		}
	}
	return 0
}
