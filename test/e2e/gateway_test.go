package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/test/prober"
)

const operatorNamespace = "trainyard-system"

// TestUpgradesAndKilledGateway replaces manager and gateway while a service
// goes to zero and is woken: no request fails. Then it kills a gateway that holds
// requests. It changes what every other story needs, so it is told alone, before
// them.
func TestUpgradesAndKilledGateway(t *testing.T) {
	namespace := newNamespace(t)
	service := digitsFromZero(t, namespace)
	url := address(t, service) + "/v2/models/digits/infer"

	before := readyGateways(t)
	kubectl(t, "rollout", "restart", "deployment/gateway", "deployment/manager", "--namespace", operatorNamespace)
	probe := prober.New(url, inference(t), time.Minute)
	for replaced := false; !replaced; replaced = noneOf(before, readyGateways(t)) {
		wantsNone(t, service)
		second, cancel := context.WithTimeout(t.Context(), time.Second)
		probe.Run(second, 20)
		cancel()
	}
	count := probe.Count()
	t.Logf("manager and gateway replaced: %d requests, %d failed", count.Sent, count.Failed)
	if count.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", count.Failed, count.Sent, count.Failures)
	}

	wantsNone(t, service)
	noPods(t, service)
	probe = prober.New(url, inference(t), time.Minute)
	loading, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); probe.Run(loading, 20) }()
	eventually(t, "requests to be held", 10*time.Second, func(context.Context) error {
		if probe.Count().Sent < 5 {
			return errors.New("none yet")
		}
		return nil
	})
	kill(t, readyGateways(t)[0])
	held := probe.Count().Sent - probe.Count().Answered
	eventually(t, "the service to answer", time.Minute, func(context.Context) error {
		if probe.Count().Answered < 40 {
			return fmt.Errorf("%d answers", probe.Count().Answered)
		}
		return nil
	})
	stop()
	<-ended
	count = probe.Count()
	t.Logf("a gateway killed with %d requests in hand: %d requests, %d failed: %q", held, count.Sent, count.Failed, count.Failures)

	after := prober.New(url, inference(t), time.Minute)
	wantsNone(t, service)
	second, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	after.Run(second, 20)
	if count := after.Count(); count.Failed > 0 {
		t.Errorf("afterwards %d of %d requests failed: %q", count.Failed, count.Sent, count.Failures)
	}
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
}

func readyGateways(t *testing.T) []corev1.Pod {
	t.Helper()
	var ready []corev1.Pod
	for _, pod := range podsOf(t, client.MatchingLabels{"app.kubernetes.io/component": "gateway"}, operatorNamespace) {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp.IsZero() {
				ready = append(ready, pod)
			}
		}
	}
	return ready
}

// noneOf tells whether the pods now are two, and none of those before.
func noneOf(before, now []corev1.Pod) bool {
	for _, old := range before {
		for _, pod := range now {
			if pod.UID == old.UID {
				return false
			}
		}
	}
	return len(now) == 2
}

// kill ends the process of a pod without a warning. The test's own machine is
// the node, so it finds the process by its control group.
func kill(t *testing.T, pod corev1.Pod) {
	t.Helper()
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range groups {
		group, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(group), string(pod.UID)) {
			continue
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil || !strings.HasPrefix(string(command), "/gateway") {
			continue
		}
		process, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil {
			err = syscall.Kill(process, syscall.SIGKILL)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no process of pod %s is on this machine", pod.Name)
}
