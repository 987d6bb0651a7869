package modelservice

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestServes counts on a gateway of which one of two containers is there.
func TestServes(t *testing.T) {
	with := func(pod *corev1.Pod, ready ...bool) *corev1.Pod {
		for _, is := range ready {
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Ready: is})
		}
		return pod
	}
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"starts":          {with(podThat(false), false, false), false},
		"ready":           {with(podThat(true), true, true), true},
		"one was killed":  {with(podThat(false), false, true), true},
		"not known yet":   {podThat(false), false},
		"told by the pod": {podThat(true), true},
	} {
		if got := serves(test.pod); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
