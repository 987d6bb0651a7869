// Package ownership tells whose an object is that stands where a resource
// needs one of its own.
package ownership

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Claim is a resource's relation to an object.
type Claim int

const (
	// Foreign objects belong to something else, or to nothing.
	Foreign Claim = iota
	// Own objects are controlled by the resource.
	Own
	// LeftBehind objects were controlled by a resource of the same name that was
	// deleted before this one was made. Kubernetes collects them in the end, and
	// may take its time.
	LeftBehind
)

// Of tells what an object is to a resource of that kind.
func Of(object, resource client.Object, kind schema.GroupKind) Claim {
	controller := metav1.GetControllerOf(object)
	if controller == nil {
		return Foreign
	}
	version, err := schema.ParseGroupVersion(controller.APIVersion)
	switch {
	case controller.UID == resource.GetUID():
		return Own
	case err == nil && version.Group == kind.Group && controller.Kind == kind.Kind && controller.Name == resource.GetName():
		return LeftBehind
	}
	return Foreign
}
