package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/test/node"
	"trainyard.dev/trainyard/test/prober"
)

const operatorNamespace = "trainyard-system"

// TestUpgrades replaces manager and gateway while one service goes to zero and is
// woken, and another is asked all the time: no request fails. It changes what every
// other story needs, so it is told alone, before them.
func TestUpgrades(t *testing.T) {
	namespace := newNamespace(t)
	service := digitsFromZero(t, namespace)
	other := twoPods(t)
	steady := prober.New(address(t, other)+"/v2/models/digits/infer", inference(t), time.Minute)
	stop := runs(t, steady, 20)
	before := readyGateways(t)
	kubectl(t, "rollout", "restart", "deployment/gateway", "deployment/manager", "--namespace", operatorNamespace)
	fromZero := prober.New(address(t, service)+"/v2/models/digits/infer", inference(t), time.Minute)
	for replaced := false; !replaced; replaced = noneOf(before, readyGateways(t)) {
		wantsNone(t, service)
		second, cancel := context.WithTimeout(t.Context(), time.Second)
		fromZero.Run(second, 20)
		cancel()
	}
	stop()
	for what, probe := range map[string]*prober.Prober{"from zero": fromZero, "all the time": steady} {
		allAnswered(t, "manager and gateway replaced, asked "+what, probe.Count())
	}
}

// TestDrain takes a service's node out of use under load: pods go one at a time,
// each when there is another. It is told alone: nobody else's pods could start.
func TestDrain(t *testing.T) {
	service := twoPods(t)
	pods := podsOf(t, modelServicePods(service), service.Namespace)
	name := pods[0].Spec.NodeName
	mayGo := func(pod corev1.Pod) error {
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}}
		return cluster.SubResource("eviction").Create(t.Context(), &pod, eviction)
	}
	probe := prober.New(address(t, service)+"/v2/models/digits/infer", inference(t), time.Minute)
	stop := runs(t, probe, 50)
	kubectl(t, "cordon", name)
	uncordon := func() { kubectl(t, "uncordon", name) }
	defer uncordon()
	if err := mayGo(pods[0]); err != nil {
		t.Fatalf("the first pod: %v", err)
	}
	gone := func(pod corev1.Pod) {
		t.Helper()
		eventually(t, "pod "+pod.Name+" to be gone", 2*time.Minute, func(context.Context) error {
			for _, left := range podsOf(t, modelServicePods(service), service.Namespace) {
				if left.UID == pod.UID {
					return errors.New("it is there")
				}
			}
			return nil
		})
	}
	gone(pods[0])
	if err := mayGo(pods[1]); !apierrors.IsTooManyRequests(err) {
		t.Errorf("the second pod may go while there is no other: %v", err)
	}
	uncordon()
	eventually(t, "the second pod to be let go, as there is another", time.Minute, func(context.Context) error { return mayGo(pods[1]) })
	gone(pods[1])
	stop()
	allAnswered(t, "both pods evicted, one after the other", probe.Count())
}

// twoPods serves digits on two pods.
func twoPods(t *testing.T) *v1alpha1.ModelService {
	t.Helper()
	namespace := newNamespace(t)
	trainDigits(t, namespace)
	service := sampleService(t, namespace)
	service.Spec.Autoscaling = v1alpha1.Autoscaling{MinReplicas: new(int32(2)), MaxReplicas: new(int32(2))}
	create(t, service)
	eventually(t, "two pods to be ready", 2*time.Minute, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(service), service); err != nil {
			return err
		}
		if replicas := service.Status.Replicas; replicas == nil || replicas.Ready < 2 {
			return fmt.Errorf("replicas are %+v", replicas)
		}
		return nil
	})
	return service
}

// runs lets a prober ask that often in a second until it is told to stop.
func runs(t *testing.T, probe *prober.Prober, perSecond int) (stop func()) {
	t.Helper()
	loading, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); probe.Run(loading, perSecond) }()
	return func() { cancel(); <-ended }
}

// allAnswered checks that no request failed.
func allAnswered(t *testing.T, story string, count prober.Count) {
	t.Helper()
	t.Logf("%s: %d requests, %d failed, the slowest took %s", story, count.Sent, count.Failed, prober.Percentile(count.Took, 1).Round(time.Millisecond))
	if count.Failed > 0 || count.Answered != count.Sent || count.Sent == 0 {
		t.Errorf("%s: of %d requests %d were answered and %d failed: %q", story, count.Sent, count.Answered, count.Failed, count.Failures)
	}
}

// TestKilledGateway kills a gateway that holds requests, then the process that took
// over from it, then the one that stands by, and lets no pod start meanwhile: what
// a gateway had in hand is lost, and nobody who came after that. It is told alone,
// too.
func TestKilledGateway(t *testing.T) {
	namespace := newNamespace(t)
	service := digitsFromZero(t, namespace)
	wantsNone(t, service)
	noPods(t, service)
	name := readyGateways(t)[0].Spec.NodeName
	kubectl(t, "cordon", name)
	uncordon := func() { kubectl(t, "uncordon", name) }
	defer uncordon()

	probe := prober.New(address(t, service)+"/v2/models/digits/infer", inference(t), time.Minute)
	stop := runs(t, probe, 50)
	sent := func(count int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d requests to be sent", count), time.Minute, func(context.Context) error {
			if sent := probe.Count().Sent; sent < count {
				return fmt.Errorf("%d are", sent)
			}
			return nil
		})
	}
	sent(50)
	victim := readyGateways(t)[0]
	holds, killed := 0, time.Time{}
	for range 2 {
		holds += heldBy(t, victim, service)
		if err := node.KillGateway(&victim); err != nil {
			t.Fatal(err)
		}
		killed = time.Now()
		victim = startedAgain(t, victim)
		sent(probe.Count().Sent + 50)
	}
	if err := node.KillStandby(&victim); err != nil {
		t.Fatal(err)
	}
	startedAgain(t, victim)
	sent(probe.Count().Sent + 50)
	uncordon()
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
	stop()

	count := probe.Count()
	t.Logf("a gateway killed with %d requests in hand: %d requests, %d failed", holds, count.Sent, count.Failed)
	if holds == 0 {
		t.Error("the gateway that was killed held nothing")
	}
	if late := count.LastFailed.Sub(killed); count.Failed > 0 && late > 0 {
		t.Errorf("a request failed that was sent %s after the gateway was killed: %q", late, count.Failures)
	}
	// Between the report and the end more may have come, of which each gateway
	// gets half.
	if most := holds + 5; count.Failed > most {
		t.Errorf("%d requests failed; the gateway that was killed had %d in hand: %q", count.Failed, holds, count.Failures)
	}
	if count.Answered+count.Failed != count.Sent {
		t.Errorf("of %d requests %d were answered and %d failed", count.Sent, count.Answered, count.Failed)
	}
}

// heldBy is how many requests of a service a gateway holds.
func heldBy(t *testing.T, pod corev1.Pod, service *v1alpha1.ModelService) int {
	t.Helper()
	var report routing.Report
	if err := readJSON(net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(routing.ReportPort))+"/report", &report); err != nil {
		t.Fatal(err)
	}
	for _, load := range report.Services {
		if load.Namespace == service.Namespace && load.Name == service.Name {
			return int(load.Held)
		}
	}
	return 0
}

// startedAgain waits until a container of a gateway's pod was started again, and
// the pod is ready, and returns it as it is then.
func startedAgain(t *testing.T, pod corev1.Pod) (now corev1.Pod) {
	t.Helper()
	eventually(t, "the process that was killed to be started again, and the pod to be ready", time.Minute, func(context.Context) error {
		for _, now = range readyGateways(t) {
			if now.UID == pod.UID && restarts(now) > restarts(pod) {
				return nil
			}
		}
		return errors.New("it isn't")
	})
	return now
}

// restarts is how often containers of a pod were started again.
func restarts(pod corev1.Pod) (count int32) {
	for _, status := range pod.Status.ContainerStatuses {
		count += status.RestartCount
	}
	return count
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
