package cluster

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"trainyard.dev/trainyard/gateway"
)

// fromZero raises a count from zero, and refuses to do anything to another: a
// count of zero is left out of a Scale's spec. It is one request, so nobody can
// come in between.
const fromZero = `[{"op":"test","path":"/spec","value":{}},{"op":"add","path":"/spec/replicas","value":1}]`

// Wake implements [gateway.Wake]: it gives a Deployment that has no pods one.
func (c *Cluster) Wake(ctx context.Context, service gateway.Key) error {
	err := c.apps.Patch(types.JSONPatchType).
		Namespace(service.Namespace).Resource("deployments").Name(service.Name).SubResource("scale").
		Param("fieldManager", "trainyard-gateway").
		Body([]byte(fromZero)).Do(ctx).Error()
	switch {
	case apierrors.IsInvalid(err):
		// It isn't zero: somebody was faster.
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("there is no Deployment %s; is the manager running?", service)
	case err != nil:
		return fmt.Errorf("raising the scale of Deployment %s: %w", service, err)
	}
	return nil
}
