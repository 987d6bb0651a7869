package ownership

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func TestOf(t *testing.T) {
	resource := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "digits", UID: "new"}}
	kind := schema.GroupKind{Group: "trainyard.dev", Kind: "TrainingJob"}
	owner := func(version, kind, name string, uid types.UID, controller bool) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: name, UID: uid, Controller: new(controller)}}
	}
	for _, test := range []struct {
		name   string
		owners []metav1.OwnerReference
		want   Claim
	}{
		{"nobody's", nil, Foreign},
		{"own", owner("trainyard.dev/v1alpha1", "TrainingJob", "digits", "new", true), Own},
		{"own, but another controls it", owner("trainyard.dev/v1alpha1", "TrainingJob", "digits", "new", false), Foreign},
		{"of the one before", owner("trainyard.dev/v1alpha1", "TrainingJob", "digits", "old", true), LeftBehind},
		{"of one before of another version", owner("trainyard.dev/v1", "TrainingJob", "digits", "old", true), LeftBehind},
		{"of another name", owner("trainyard.dev/v1alpha1", "TrainingJob", "letters", "old", true), Foreign},
		{"of another kind", owner("trainyard.dev/v1alpha1", "ModelService", "digits", "old", true), Foreign},
		{"of another group", owner("apps/v1", "TrainingJob", "digits", "old", true), Foreign},
		{"of a malformed group", owner("a/b/c", "TrainingJob", "digits", "old", true), Foreign},
	} {
		object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{OwnerReferences: test.owners}}
		if got := Of(object, resource, kind); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}
