// Package v1alpha1 holds what users write and read: TrainingJob and
// ModelService, with their conditions, reasons and labels. Its field comments
// are the text of `kubectl explain`.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +groupName=trainyard.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion of both resources.
	GroupVersion = schema.GroupVersion{Group: "trainyard.dev", Version: "v1alpha1"}

	// SchemeGroupVersion is GroupVersion, under the name that generated code
	// expects.
	SchemeGroupVersion = GroupVersion

	// AddToScheme makes both resources known to a scheme.
	AddToScheme = schemeBuilder.AddToScheme

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &TrainingJob{}, &TrainingJobList{}, &ModelService{}, &ModelServiceList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// Labels on what the operator makes for a resource.
const (
	// TrainingJobLabel names the TrainingJob that an object belongs to.
	TrainingJobLabel = "trainyard.dev/training-job"
	// ModelServiceLabel names the ModelService that an object belongs to.
	ModelServiceLabel = "trainyard.dev/model-service"
	// FollowerLabel names the ModelService for which a pod looks at an address. It
	// is another label, as the Service's endpoints are chosen by the one above.
	FollowerLabel = "trainyard.dev/follower"
	// SourceLabel of such a pod is the fingerprint of the address.
	SourceLabel = "trainyard.dev/source"
)

// What the operator says to the gateway, in the EndpointSlice that it makes for
// each ModelService.
const (
	// GatewaySliceManager is the slice's endpointslice.kubernetes.io/managed-by:
	// who keeps it, so that Kubernetes' own controller leaves it alone.
	GatewaySliceManager = "trainyard.dev"
	// StoppedAnnotation is on the slice of a ModelService that is stopped.
	StoppedAnnotation = "trainyard.dev/stopped"
	// HTTPPortName and GRPCPortName are what the Service's ports are called.
	HTTPPortName = "http"
	GRPCPortName = "grpc"
)

// FieldOwner is the field manager under which the operator applies objects.
const FieldOwner = "trainyard"

// QueueLabel of a TrainingJob names the LocalQueue of Kueue that its Job is put
// into. All of its labels that begin with QueueLabelPrefix are the Job's, too.
const (
	QueueLabel       = QueueLabelPrefix + "queue-name"
	QueueLabelPrefix = "kueue.x-k8s.io/"
)

// SuspendAnnotation of a Job is the spec.suspend of its TrainingJob that was
// carried out last: the operator acts on changes of the wish, and leaves alone
// what others do to the Job's own spec.suspend.
const SuspendAnnotation = "trainyard.dev/suspend"
