package modelservice

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/runtime/spec"
)

// TestPodsInTrouble has the kubelet, the scheduler and the Deployment controller
// say what is wrong with a service's first pod: the condition and an Event have
// their words, and what to do. While it goes on nothing is written again.
func TestPodsInTrouble(t *testing.T) {
	crashed := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	const image = `failed to resolve "example.com/runtime:v1": not found`
	for _, test := range []struct {
		name string
		// states are those that the pod's container goes to and fro between.
		states  []corev1.ContainerStatus
		pending string
		quota   string
		message string
	}{
		{name: "image missing", states: []corev1.ContainerStatus{
			{State: waiting("ErrImagePull", image)}, {State: waiting("ImagePullBackOff", `Back-off pulling image "example.com/runtime:v1": ErrImagePull: `+image)}},
			message: "pod p: ErrImagePull: " + image + ". See to the image that the manager's --runtime-image names"},
		{name: "crash loop", states: []corev1.ContainerStatus{
			{State: waiting("CrashLoopBackOff", "back-off 10s restarting"), LastTerminationState: crashed},
			{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, LastTerminationState: crashed, RestartCount: 1},
			{State: waiting("CrashLoopBackOff", "back-off 20s restarting"), LastTerminationState: crashed, RestartCount: 2}},
			message: "pod p: CrashLoopBackOff: its container ended with exit code 137, OOMKilled. Why, tells: kubectl logs --previous p --namespace NAMESPACE"},
		{name: "unschedulable", pending: "0/3 nodes are available: 3 Insufficient cpu.",
			message: "pod p can't be scheduled: 0/3 nodes are available: 3 Insufficient cpu. It starts when there is room; else change what spec.resources"},
		{name: "quota exceeded", quota: "pods \"p\" is forbidden: exceeded quota: team, requested: pods=1, used: pods=5, limited: pods=5",
			message: "exceeded quota: team, requested: pods=1, used: pods=5, limited: pods=5. It is tried again; if it is a quota, raise it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.createService(v1alpha1.Autoscaling{})
			b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
			b.pass()
			message := strings.ReplaceAll(test.message, "NAMESPACE", b.namespace)
			show := func(status corev1.PodStatus) {
				b.setPodStatus("p", status)
				b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonPodFailing, message)
			}
			switch {
			case test.quota != "":
				var deployment appsv1.Deployment
				b.get("digits", &deployment)
				deployment.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: test.quota}}
				if err := server.Client.Status().Update(t.Context(), &deployment); err != nil {
					t.Fatal(err)
				}
				b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonPodFailing, message)
			case test.pending != "":
				b.startPod("p", "")
				delete(b.pods.models, "p")
				show(corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: test.pending}}})
			default:
				b.startPod("p", "")
				delete(b.pods.models, "p")
				show(corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: test.states[:1]})
			}
			b.told(v1alpha1.ReasonPodFailing, message)
			before := b.writes.Load()
			for _, state := range test.states {
				show(corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{state}})
			}
			b.pass()
			if written := b.writes.Load() - before; written != 0 {
				t.Errorf("%d writes while the same went wrong again", written)
			}
		})
	}
}

func (b *bench) setPodStatus(name string, status corev1.PodStatus) {
	b.t.Helper()
	var pod corev1.Pod
	b.get(name, &pod)
	pod.Status = status
	for i := range pod.Status.ContainerStatuses {
		pod.Status.ContainerStatuses[i].Name = serverContainer
	}
	if err := server.Client.Status().Update(b.t.Context(), &pod); err != nil {
		b.t.Fatal(err)
	}
}

// TestModelsInTrouble has a server say what is wrong with the model: one that no
// registry has, or a registry that is away when a service wakes.
func TestModelsInTrouble(t *testing.T) {
	for _, reason := range []string{
		"registry registry:5000 has no model of digest sha256:cccc in models/ns/digits",
		"registry registry:5000 does not answer: nothing listens there",
	} {
		b := serving(t)
		for range 3 {
			b.pass()
		}
		b.endPod("p")
		b.pass()
		b.change(func(s *v1alpha1.ModelServiceSpec) { s.Model.Digest = published("c").Digest })
		b.wake()
		b.pass()
		b.startPod("p2", published("c").Digest)
		b.setPodStatus("p2", corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.2", PodIPs: []corev1.PodIP{{IP: "10.0.0.2"}}})
		b.pods.models["p2"] = spec.ModelStatus{Name: "digits", Digest: published("c").Digest, State: spec.StateLoading, Reason: reason}
		service := b.pass()
		b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonModelUnavailable, "the model can't be loaded: "+reason)
		b.told(v1alpha1.ReasonModelUnavailable, reason)
		if got := b.replicas(); got != 1 {
			t.Errorf("%d pods are wanted while the model is waited for", got)
		}
	}
}

// TestRefusedObjects has the API server refuse what a service needs.
func TestRefusedObjects(t *testing.T) {
	b := newBench(t)
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "team", Namespace: b.namespace},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceServices: resource.MustParse("0")}},
	}
	b.create(quota)
	// What the controller of quotas does, which is not here.
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{corev1.ResourceServices: resource.MustParse("0")}}
	if err := server.Client.Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	b.eventually("the quota to be in force", func(ctx context.Context) bool {
		return apierrors.IsForbidden(server.Client.Create(ctx, plainService(b.namespace, "probe"), client.DryRunAll))
	})
	b.createService(v1alpha1.Autoscaling{})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	service := b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonForbidden, "the API server refuses Service "+b.namespace+"/digits, which the service needs: ")
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonForbidden, "exceeded quota: team, requested: services=1, used: services=0, limited: services=0")
	b.told(v1alpha1.ReasonForbidden, "exceeded quota: team")
	if b.get("digits", &appsv1.Deployment{}) {
		t.Error("pods were started for a service that nobody can call")
	}
	if err := server.Client.Delete(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	b.eventually("the service to be made", func(context.Context) bool {
		return isStarting(b.pass())
	})
}

func isStarting(service *v1alpha1.ModelService) bool {
	ready := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ModelServiceReady)
	return ready != nil && ready.Reason == v1alpha1.ReasonStarting
}

func plainService(namespace, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1}}}}
}

// eventually waits for what the API server takes a moment for.
func (b *bench) eventually(what string, holds func(context.Context) bool) {
	b.t.Helper()
	err := wait.PollUntilContextTimeout(b.t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		return holds(ctx), nil
	})
	if err != nil {
		b.t.Fatalf("waited 30 s for %s", what)
	}
}

// TestNoAddressLeft takes all addresses that the API server has for Services.
func TestNoAddressLeft(t *testing.T) {
	b := newBench(t)
	taken := 0
	for ; ; taken++ {
		err := server.Client.Create(t.Context(), plainService(b.namespace, fmt.Sprint("s", taken)))
		if apierrors.IsInternalError(err) {
			break
		}
		if err != nil || taken > 1000 {
			t.Fatalf("after %d Services: %v", taken, err)
		}
	}
	free := func(i int) {
		if err := server.Client.Delete(context.Background(), plainService(b.namespace, fmt.Sprint("s", i))); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		for i := 1; i < taken; i++ {
			free(i)
		}
	})
	b.createService(v1alpha1.Autoscaling{})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	service := b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonAPIServerFailing, "the API server can't make Service "+b.namespace+"/digits")
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonAPIServerFailing, "if addresses have run out, delete Services that nobody needs, or add a ServiceCIDR")
	b.told(v1alpha1.ReasonAPIServerFailing, "which the service needs")
	before := b.pass().Status
	if after := b.pass().Status; !meta.FindStatusCondition(after.Conditions, v1alpha1.ModelServiceReady).LastTransitionTime.Equal(&meta.FindStatusCondition(before.Conditions, v1alpha1.ModelServiceReady).LastTransitionTime) {
		t.Error("the condition goes to and fro")
	}
	free(0)
	b.eventually("the service to be made", func(context.Context) bool { return isStarting(b.pass()) })
}

// TestTakenNames leaves alone what stands under a needed name.
func TestTakenNames(t *testing.T) {
	labels := map[string]string{"app": "other"}
	deployment := func(name, namespace string) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
			Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
	}
	cpu := v1alpha1.Autoscaling{Metric: v1alpha1.MetricCPU, MinReplicas: new(int32(1))}
	for _, test := range []struct {
		name        string
		foreign     func(namespace string) client.Object
		autoscaling v1alpha1.Autoscaling
		message     string
	}{
		{"a Service", func(ns string) client.Object { return plainService(ns, "digits") }, v1alpha1.Autoscaling{}, "Service NAMESPACE/digits already exists"},
		{"a Deployment", func(ns string) client.Object { return deployment("digits", ns) }, v1alpha1.Autoscaling{}, "Deployment NAMESPACE/digits already exists"},
		{"a ConfigMap", func(ns string) client.Object {
			return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "digits-serve", Namespace: ns}}
		}, v1alpha1.Autoscaling{}, "ConfigMap NAMESPACE/digits-serve already exists"},
		{"a HorizontalPodAutoscaler", func(ns string) client.Object {
			return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: ns},
				Spec: autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "other"}, MaxReplicas: 3}}
		}, cpu, "HorizontalPodAutoscaler NAMESPACE/digits already exists"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			foreign := test.foreign(b.namespace)
			b.create(foreign)
			b.createService(test.autoscaling)
			b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
			message := strings.ReplaceAll(test.message, "NAMESPACE", b.namespace) + " and belongs to something else. Delete it, or give the ModelService another name"
			service := b.pass()
			b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonNameTaken, message)
			b.told(v1alpha1.ReasonNameTaken, message)
			was := foreign.GetResourceVersion()
			if b.get(foreign.GetName(), foreign); foreign.GetResourceVersion() != was {
				t.Error("it was changed")
			}
			if _, optional := foreign.(*autoscalingv2.HorizontalPodAutoscaler); !optional && b.get("digits-gateway", &discoveryv1.EndpointSlice{}) {
				t.Error("the gateway gets requests of a foreign Service, or scales a foreign Deployment")
			}
		})
	}
}

// TestTwoAfterOneName has a service whose Deployment is called as the one that
// looks at another's address.
func TestTwoAfterOneName(t *testing.T) {
	b := newBench(t)
	b.create(&v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace},
		Spec:       v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "example.com/digits:v1"}}},
	})
	b.pass()
	other := &v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "digits-follower", Namespace: b.namespace},
		Spec:       v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: "training"}}},
	}
	b.create(other)
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	seen, err := b.observe(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.bring(t.Context(), other, &seen); err != nil {
		t.Fatal(err)
	}
	if want := "Deployment " + b.namespace + "/digits-follower already exists"; seen.obstacle.reason != v1alpha1.ReasonNameTaken || !strings.Contains(seen.obstacle.message, want) {
		t.Errorf("the obstacle is %+v, want %s", seen.obstacle, want)
	}
	var follower appsv1.Deployment
	if b.get("digits-follower", &follower); follower.Labels[v1alpha1.FollowerLabel] != "digits" {
		t.Error("the Deployment of the first was taken over")
	}
}

// TestNamespaceGoes is left with objects to make in a namespace that takes none.
func TestNamespaceGoes(t *testing.T) {
	b := newBench(t)
	b.createService(v1alpha1.Autoscaling{})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	before := b.pass()
	if err := server.Client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}}); err != nil {
		t.Fatal(err)
	}
	if err := server.Client.Delete(t.Context(), plainService(b.namespace, "digits")); err != nil {
		t.Fatal(err)
	}
	for len(b.recorder.Events) > 0 {
		<-b.recorder.Events
	}
	after := b.pass()
	if before.ResourceVersion != after.ResourceVersion || len(b.recorder.Events) > 0 {
		t.Errorf("the status was written, or %d Events told, for a namespace that goes", len(b.recorder.Events))
	}
	if len(b.rounds) > 0 {
		t.Error("its pods are asked again")
	}
}

// TestClocksThatDiffer has pods, gateways and the manager disagree by a minute
// about what time it is. Nothing is decided by it, and nothing goes to and fro.
func TestClocksThatDiffer(t *testing.T) {
	for name, skew := range map[string]time.Duration{"ahead": time.Minute, "behind": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			b := serving(t)
			theirs := func() time.Time { return b.now.Add(skew) }
			started, uptime := theirs().Add(-time.Hour).UnixNano(), time.Hour.Seconds()
			busy := func() {
				uptime += samplePeriod.Seconds()
				stats := b.pods.stats["p"]
				b.pods.stats["p"] = spec.Stats{Started: started, UptimeSeconds: uptime, Requests: stats.Requests + 1}
			}
			start := &routing.ColdStart{At: theirs().UnixNano(), Seconds: 1}
			for i, gateway := range []string{"g1", "g2"} {
				b.gateways.reports[gateway] = routing.Report{Started: started, Services: []routing.Load{{Namespace: b.namespace, Name: "digits", Requests: int64(i), ColdStart: start}}}
			}
			busy()
			b.pass()
			before := b.writes.Load()
			for range 10 {
				busy()
				b.pass()
			}
			if got := b.replicas(); got != 1 {
				t.Errorf("%d pods are wanted, and somebody asks", got)
			}
			// The manager's own clock is put forward: for all that is known nobody asked
			// for a minute.
			b.now = b.now.Add(time.Minute)
			b.pass()
			if got := b.replicas(); got != 1 {
				t.Errorf("%d pods are wanted after a gap of a minute", got)
			}
			if written := b.writes.Load() - before; written != 0 {
				t.Errorf("%d writes, and nothing changed", written)
			}
			for range 4 {
				b.pass()
			}
			if got := b.replicas(); got != 0 {
				t.Errorf("%d pods are wanted after nobody asked for the idle time", got)
			}
		})
	}
}

// TestSomeAreSilent has load fall while one of three pods doesn't tell its own, and
// then while nobody does.
func TestSomeAreSilent(t *testing.T) {
	b := newBench(t)
	b.startGateway("g1", "10.0.1.1")
	b.createService(v1alpha1.Autoscaling{MinReplicas: new(int32(1)), MaxReplicas: new(int32(3)), TargetConcurrency: new(int32(1)),
		StabilizationTime: &metav1.Duration{Duration: 4 * time.Second}})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	b.pass()
	uptime := 0.0
	load := func(inFlight float64, pods ...string) {
		uptime += samplePeriod.Seconds()
		clear(b.pods.stats)
		for _, pod := range pods {
			b.pods.stats[pod] = spec.Stats{Started: 1, UptimeSeconds: uptime, BusySeconds: inFlight * uptime, InFlight: int64(inFlight)}
		}
		b.pass()
	}
	for _, pod := range []string{"p", "q", "r"} {
		b.startPod(pod, published("a").Digest)
	}
	for range 4 {
		load(5, "p", "q", "r")
	}
	if got := b.replicas(); got != 3 {
		t.Fatalf("%d pods are wanted under load", got)
	}
	for range 5 {
		load(0, "p", "q")
	}
	for range 5 {
		load(0)
	}
	if got := b.replicas(); got != 3 {
		t.Errorf("%d pods are wanted, and not all have told their load", got)
	}
	for range 10 {
		load(0, "p", "q", "r")
	}
	if got := b.replicas(); got != 1 {
		t.Errorf("%d pods are wanted after all have told that they have nothing to do", got)
	}
}
