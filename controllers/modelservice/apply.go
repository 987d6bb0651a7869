package modelservice

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/ownership"
	"trainyard.dev/trainyard/controllers/routing"
)

// application is how an object was last applied: the hash of what was wanted,
// the version that was there before, which the cache may go on showing for a
// while, and the one that it has since. While there is no other there is nothing
// to apply, so a service at rest costs the API server nothing.
type application struct {
	wanted        [sha256.Size]byte
	before, since string
}

func (a application) stands(wanted [sha256.Size]byte, version string) bool {
	return a.wanted == wanted && (version == a.before || version == a.since)
}

// child is an object that a ModelService owns: what is there, and what should
// be.
type child struct {
	live    client.Object
	desired runtime.ApplyConfiguration
	// since, if set, is the resourceVersion that the decision was made on: the
	// object is left alone if anyone changed it since.
	since string
	// scaled is the Deployment whose replicas the scaler decides.
	scaled bool
}

// childrenOf are the service's objects, in the order in which they are made; those
// of one step at the same time. Pods need their ConfigMap and are never without
// their policy. The slice comes last: by it the gateway gets the requests of a
// Service and scales a Deployment, which must be known to be ours.
func (r *Reconciler) childrenOf(service *v1alpha1.ModelService, seen observation) ([][]child, error) {
	configMap, err := buildConfigMap(service, servedModel(service, seen.resolution.model, r.Runtime.Registry), seen.resolution.model.Signature)
	if err != nil {
		return nil, err
	}
	servers, err := buildDeployment(service, r.Runtime, replicasFor(service, seen))
	if err != nil {
		return nil, err
	}
	name := metav1.ObjectMeta{Name: service.Name, Namespace: service.Namespace}
	deployment := child{live: &appsv1.Deployment{ObjectMeta: name}, desired: servers, scaled: true}
	if seen.decision.Replicas == 0 && seen.deployment != nil {
		deployment.since = seen.deployment.ResourceVersion
	}
	return [][]child{
		{
			{live: &corev1.Service{ObjectMeta: name}, desired: buildService(service)},
			{live: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: configMapName(service), Namespace: service.Namespace}}, desired: configMap},
			{live: &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: policyName(service), Namespace: service.Namespace}},
				desired: buildPolicy(service, r.Runtime.ManagerNamespace)},
		},
		{deployment},
		{{live: &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: sliceName(service), Namespace: service.Namespace}},
			desired: buildSlice(service, routing.Endpoints(gatewaysOf(seen.gateways), readyCount(seen.pods)))}},
	}, nil
}

// applyChildren brings the service's objects to what they should be.
func (r *Reconciler) applyChildren(ctx context.Context, service *v1alpha1.ModelService, seen observation) (obstacle, error) {
	steps, err := r.childrenOf(service, seen)
	if err != nil {
		return obstacle{}, err
	}
	for _, step := range steps {
		if blocked, err := r.applyAll(ctx, service, step); err != nil || blocked.reason != "" {
			return blocked, err
		}
	}
	for _, optional := range optionalChildren(service, seen) {
		if blocked, err := r.applyOptional(ctx, service, optional); err != nil || blocked.reason != "" {
			return blocked, err
		}
	}
	return obstacle{}, nil
}

// applyAll applies objects at the same time, and tells of the first obstacle.
func (r *Reconciler) applyAll(ctx context.Context, service *v1alpha1.ModelService, children []child) (obstacle, error) {
	obstacles, errs := make([]obstacle, len(children)), make([]error, len(children))
	var group sync.WaitGroup
	for i, child := range children {
		group.Go(func() { obstacles[i], errs[i] = r.apply(ctx, service, child) })
	}
	group.Wait()
	for i := range children {
		if errs[i] != nil || obstacles[i].reason != "" {
			return obstacles[i], errs[i]
		}
	}
	return obstacle{}, nil
}

func (r *Reconciler) apply(ctx context.Context, service *v1alpha1.ModelService, child child) (obstacle, error) {
	kind := fmt.Sprintf("%T", child.live)
	exists, err := r.read(ctx, child.live)
	if err != nil {
		return obstacle{}, err
	}
	if exists {
		if blocked, err := r.contest(ctx, service, child.live); err != nil || blocked.reason != "" {
			return blocked, err
		}
	}
	wanted, err := json.Marshal(child.desired)
	if err != nil {
		return obstacle{}, fmt.Errorf("encoding %s: %w", kind, err)
	}
	now := application{wanted: sha256.Sum256(wanted), before: versionOf(child.live)}
	record, key := r.memory.of(client.ObjectKeyFromObject(service)), kind+"/"+child.live.GetName()
	if exists && record.appliedAs(key).stands(now.wanted, now.before) {
		return obstacle{}, nil
	}
	deployment, isDeployment := child.desired.(*appsapply.DeploymentApplyConfiguration)
	if isDeployment && child.since != "" {
		deployment.WithResourceVersion(child.since)
	}
	err = r.Client.Apply(ctx, child.desired, client.FieldOwner(v1alpha1.FieldOwner), client.ForceOwnership)
	if err != nil {
		return refusal(nameOf(child.live, r.Client), err)
	}
	if now.since, err = versionAfter(child.desired); err != nil {
		return obstacle{}, fmt.Errorf("applying %s %s: %w", kind, child.live.GetName(), err)
	}
	record.setApplied(key, now)
	if child.scaled && isDeployment && deployment.Generation != nil {
		record.written = *deployment.Generation
	}
	return obstacle{}, nil
}

// refusal is what a person has to put right before the API server takes an object,
// if it says so. In a namespace that is being deleted nothing is to be put right.
func refusal(name string, err error) (obstacle, error) {
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return obstacle{v1alpha1.ReasonForbidden, fmt.Sprintf("the API server refuses %s, which the service needs: %v", name, err)}, nil
	case apierrors.IsInternalError(err):
		// So it says that its range has no address left for a Service.
		return obstacle{v1alpha1.ReasonAPIServerFailing, fmt.Sprintf(
			"the API server can't make %s, which the service needs: %v. It is tried again; if addresses have run out, delete Services that nobody needs, or add a ServiceCIDR", name, err)}, nil
	}
	return obstacle{}, fmt.Errorf("applying %s: %w", name, err)
}

// read fills in the live object. What the cache does not show is looked up at
// the API server: the cache holds only objects with the operator's label, and
// an object of somebody else must not be taken over.
func (r *Reconciler) read(ctx context.Context, live client.Object) (bool, error) {
	key := client.ObjectKeyFromObject(live)
	err := r.Client.Get(ctx, key, live)
	if apierrors.IsNotFound(err) {
		err = r.Reader.Get(ctx, key, live)
	}
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %T %s: %w", live, key.Name, err)
	}
	return true, nil
}

// versionOf tells whether an object's wanted state changed: by its generation,
// or for kinds that have none, by any change.
func versionOf(live client.Object) string {
	if generation := live.GetGeneration(); generation > 0 {
		return string(live.GetUID()) + "/" + strconv.FormatInt(generation, 10)
	}
	return string(live.GetUID()) + "/" + live.GetResourceVersion()
}

// versionAfter is the version of what was applied: the API server's answer has
// taken the place of what it was told.
func versionAfter(applied runtime.ApplyConfiguration) (string, error) {
	var answer metav1.PartialObjectMetadata
	encoded, err := json.Marshal(applied)
	if err == nil {
		err = json.Unmarshal(encoded, &answer)
	}
	if err != nil {
		return "", fmt.Errorf("reading the API server's answer: %w", err)
	}
	return versionOf(&answer), nil
}

// contest tells what keeps an object that stands under the needed name from
// being the service's. One that a deleted ModelService left behind is cleared
// away.
func (r *Reconciler) contest(ctx context.Context, service *v1alpha1.ModelService, found client.Object) (obstacle, error) {
	name := nameOf(found, r.Client)
	switch ownership.Of(found, service, v1alpha1.GroupVersion.WithKind("ModelService").GroupKind()) {
	case ownership.Own:
		return obstacle{}, nil
	case ownership.Foreign:
		return obstacle{v1alpha1.ReasonNameTaken, name + " already exists and belongs to something else. Delete it, or give the ModelService another name"}, nil
	}
	uid := found.GetUID()
	err := r.Client.Delete(ctx, found, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if client.IgnoreNotFound(err) != nil {
		return obstacle{}, fmt.Errorf("deleting %s, which an earlier ModelService left behind: %w", name, err)
	}
	return obstacle{v1alpha1.ReasonStarting, "waiting until " + name + " is gone, which the ModelService left behind that had this name before"}, nil
}

// nameOf is what people call an object: Service default/digits.
func nameOf(object client.Object, kinds client.Client) string {
	kind := "object"
	if gvk, err := kinds.GroupVersionKindFor(object); err == nil {
		kind = gvk.Kind
	}
	return fmt.Sprintf("%s %s/%s", kind, object.GetNamespace(), object.GetName())
}
