package modelservice

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/controllers/scaling"
	"trainyard.dev/trainyard/runtime/spec"
)

// fromZero scales to zero after four seconds of nothing.
func fromZero() v1alpha1.Autoscaling {
	return v1alpha1.Autoscaling{
		MinReplicas: new(int32(0)), MaxReplicas: new(int32(3)),
		IdleTime: &metav1.Duration{Duration: 4 * time.Second}, StabilizationTime: &metav1.Duration{Duration: 2 * time.Second},
	}
}

// startGateway plays a pod of the gateway.
func (b *bench) startGateway(name, address string) {
	b.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: b.namespace, Labels: gatewayLabels},
		Spec:       corev1.PodSpec{NodeName: "node-0", Containers: []corev1.Container{{Name: "gateway", Image: "i"}}},
	}
	b.create(pod)
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	if err := server.Client.Status().Update(b.t.Context(), pod); err != nil {
		b.t.Fatal(err)
	}
	b.gateways.reports[name] = routing.Report{Started: 1}
}

func (b *bench) endPod(name string) {
	b.t.Helper()
	if err := server.Client.Delete(b.t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: b.namespace}}, client.GracePeriodSeconds(0)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) slice() discoveryv1.EndpointSlice {
	b.t.Helper()
	var slice discoveryv1.EndpointSlice
	b.get("digits-gateway", &slice)
	return slice
}

func (b *bench) replicas() int32 {
	b.t.Helper()
	var deployment appsv1.Deployment
	b.get("digits", &deployment)
	return *deployment.Spec.Replicas
}

// told waits for nothing: it looks through what was told until now.
func (b *bench) told(reason, message string) {
	b.t.Helper()
	var all []string
	for {
		select {
		case event := <-b.recorder.Events:
			all = append(all, event)
			if strings.Contains(event, reason) && strings.Contains(event, message) {
				return
			}
		default:
			b.t.Errorf("no Event %s ...%q...; there were %q", reason, message, all)
			return
		}
	}
}

// serving is a service that scales from zero, with a pod and a gateway.
func serving(t *testing.T) *bench {
	b := newBench(t)
	b.startGateway("g1", "10.0.1.1")
	b.startGateway("g2", "10.0.1.2")
	b.createService(fromZero())
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	b.pass()
	b.startPod("p", published("a").Digest)
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionTrue, v1alpha1.ReasonServing, "")
	return b
}

// TestToZeroAndBack lets nobody ask until there is no pod, then wakes the
// service as a gateway does.
func TestToZeroAndBack(t *testing.T) {
	b := serving(t)
	slice := b.slice()
	if len(slice.Endpoints) != 2 || *slice.Endpoints[0].Conditions.Ready || !*slice.Endpoints[0].Conditions.Serving || !*slice.Endpoints[0].Conditions.Terminating {
		t.Errorf("while a pod is ready the slice shows %+v", slice.Endpoints)
	}
	for range 3 {
		b.pass()
	}
	if got := b.replicas(); got != 0 {
		t.Fatalf("%d pods are wanted after the idle time", got)
	}
	b.endPod("p")
	service := b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionTrue, v1alpha1.ReasonAsleep, "the next request starts one")
	b.expect(service, v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, v1alpha1.ReasonStable, "")
	if service.Status.Replicas.Reason != "Idle" || service.Status.Replicas.Summary != "0/0" {
		t.Errorf("status says %+v", service.Status.Replicas)
	}
	if slice = b.slice(); len(slice.Endpoints) != 2 || !*slice.Endpoints[0].Conditions.Ready || *slice.Endpoints[0].Conditions.Terminating {
		t.Errorf("at zero the slice shows %+v", slice.Endpoints)
	}
	b.pass()
	before := b.writes.Load()
	for range 5 {
		b.pass()
	}
	if b.writes.Load() != before {
		t.Errorf("%d writes although nothing changed", b.writes.Load()-before)
	}

	b.wake()
	b.gateways.reports["g1"] = routing.Report{Started: 1, Services: []routing.Load{{Namespace: b.namespace, Name: "digits", Requests: 1, Held: 1}}}
	service = b.pass()
	if got := b.replicas(); got != 1 || service.Status.Replicas.Reason != "Woken" {
		t.Errorf("after a wake %d pods are wanted, and status says %+v", got, service.Status.Replicas)
	}
	b.startPod("p2", published("a").Digest)
	b.gateways.reports["g1"] = routing.Report{Started: 1, Services: []routing.Load{{Namespace: b.namespace, Name: "digits", Requests: 1,
		ColdStart: &routing.ColdStart{At: time.Now().UnixNano(), Seconds: 1.25}}}}
	service = b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionTrue, v1alpha1.ReasonServing, "")
	if start := service.Status.ColdStart; start == nil || start.Took.Duration != 1250*time.Millisecond {
		t.Errorf("the cold start is %+v", start)
	}
	b.told("Scaled", "from 0 to 1 pods: a request came while there was no pod")
}

// wake is what a gateway does.
func (b *bench) wake() {
	b.t.Helper()
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace}}
	patch := client.RawPatch("application/json-patch+json", []byte(`[{"op":"test","path":"/spec","value":{}},{"op":"add","path":"/spec/replicas","value":1}]`))
	if err := server.Client.SubResource("scale").Patch(b.t.Context(), deployment, patch); err != nil {
		b.t.Fatal(err)
	}
}

// TestAWakeWins has a gateway wake the service after the controller read the
// Deployment and before it writes it: what it writes then is refused.
func TestAWakeWins(t *testing.T) {
	b := serving(t)
	for range 3 {
		b.pass()
	}
	service := b.pass()
	seen, err := b.observe(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	b.wake()
	seen.decision = scaling.Decision{Replicas: 0, Reason: scaling.Idle}
	b.memory.of(b.key("digits")).applied = map[string]application{}
	if _, err := b.applyChildren(t.Context(), service, seen); err == nil {
		t.Error("the count was written although somebody had changed it since")
	}
	if got := b.replicas(); got != 1 {
		t.Errorf("%d pods are wanted", got)
	}
}

// TestNoZeroWithoutEverybodysWord has one pod or gateway that doesn't answer.
func TestNoZeroWithoutEverybodysWord(t *testing.T) {
	for name, silence := range map[string]func(*bench){
		"a gateway": func(b *bench) { delete(b.gateways.reports, "g2") },
		"a pod":     func(b *bench) { delete(b.pods.stats, "p") },
		"a held request": func(b *bench) {
			b.gateways.reports["g2"] = routing.Report{Started: 1, Services: []routing.Load{{Namespace: b.namespace, Name: "digits", Held: 1}}}
		},
		"no gateway at all": func(b *bench) { b.endPod("g1"); b.endPod("g2") },
	} {
		t.Run(name, func(t *testing.T) {
			b := serving(t)
			silence(b)
			for range 10 {
				b.pass()
			}
			if got := b.replicas(); got != 1 {
				t.Errorf("%d pods are wanted", got)
			}
		})
	}
}

// TestARestartKeepsTheCount lets a new manager find three pods, of which it
// knows nothing: for a window it takes none away.
func TestARestartKeepsTheCount(t *testing.T) {
	b := serving(t)
	var deployment appsv1.Deployment
	b.get("digits", &deployment)
	deployment.Spec.Replicas = new(int32(3))
	if err := server.Client.Update(t.Context(), &deployment); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.pass()
	if got := b.replicas(); got != 3 {
		t.Errorf("%d pods are left", got)
	}
}

func TestStopped(t *testing.T) {
	b := serving(t)
	service := b.pass()
	service.Spec.Stopped = true
	if err := server.Client.Update(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	service = b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonStopped, "set it to false")
	if got := b.replicas(); got != 0 {
		t.Errorf("%d pods are wanted", got)
	}
	if b.slice().Annotations[v1alpha1.StoppedAnnotation] == "" {
		t.Error("the gateway isn't told")
	}
	b.endPod("p")
	service.Spec.Stopped = false
	if err := server.Client.Update(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionTrue, v1alpha1.ReasonAsleep, "")
	if b.slice().Annotations[v1alpha1.StoppedAnnotation] != "" {
		t.Error("the gateway still refuses")
	}
}

func TestGatewayMissing(t *testing.T) {
	b := serving(t)
	for range 3 {
		b.pass()
	}
	b.endPod("p")
	b.endPod("g1")
	b.endPod("g2")
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonGatewayMissing, "no pod of the gateway is ready")
}

// TestBudgetWhileThereIsMoreThanOnePod raises the minimum and lowers it again.
func TestBudgetWhileThereIsMoreThanOnePod(t *testing.T) {
	b := newBench(t)
	b.startGateway("g1", "10.0.1.1")
	autoscaling := fromZero()
	autoscaling.MinReplicas = new(int32(2))
	b.createService(autoscaling)
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	service := b.pass()
	if !b.get("digits", &policyv1.PodDisruptionBudget{}) {
		t.Error("two pods have no PodDisruptionBudget")
	}
	b.startPod("p", published("a").Digest)
	b.pods.stats["p"] = spec.Stats{Started: 1}
	b.get("digits", service)
	service.Spec.Autoscaling.MinReplicas = new(int32(1))
	if err := server.Client.Update(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		b.pass()
	}
	if b.get("digits", &policyv1.PodDisruptionBudget{}) {
		t.Error("one pod has a PodDisruptionBudget, which would keep its node from being drained")
	}
}

func TestByCPU(t *testing.T) {
	b := newBench(t)
	b.createService(v1alpha1.Autoscaling{Metric: v1alpha1.MetricCPU, MinReplicas: new(int32(1)), MaxReplicas: new(int32(4))})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	b.pass()
	var autoscaler autoscalingv2.HorizontalPodAutoscaler
	if !b.get("digits", &autoscaler) || autoscaler.Spec.MaxReplicas != 4 || *autoscaler.Spec.Metrics[0].Resource.Target.AverageUtilization != 80 {
		t.Errorf("the HorizontalPodAutoscaler is %+v", autoscaler.Spec)
	}
	b.pass()
	var deployment appsv1.Deployment
	b.get("digits", &deployment)
	deployment.Spec.Replicas = new(int32(3))
	if err := server.Client.Update(t.Context(), &deployment, client.FieldOwner("horizontal-pod-autoscaler")); err != nil {
		t.Fatal(err)
	}
	service := b.pass()
	if got := b.replicas(); got != 3 || service.Status.Replicas.Desired != 3 || service.Status.Replicas.Reason != "CPU" {
		t.Errorf("%d pods are wanted after the HorizontalPodAutoscaler wrote 3; status says %+v", got, service.Status.Replicas)
	}
}

func TestPodTemplate(t *testing.T) {
	b := newBench(t)
	b.create(&v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace},
		Spec: v1alpha1.ModelServiceSpec{
			Model: v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: "training"}},
			PodTemplate: v1alpha1.PodTemplate{
				Labels: map[string]string{"team": "vision", v1alpha1.ModelServiceLabel: "other"}, Annotations: map[string]string{"a": "b"},
				NodeSelector: map[string]string{"disk": "ssd"}, PriorityClassName: "high",
				Tolerations: []corev1.Toleration{{Key: "serving", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}},
				Affinity:    &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "rack"}}}},
				Env:         []corev1.EnvVar{{Name: "HTTPS_PROXY", Value: "http://proxy"}},
			},
		},
	})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	b.pass()
	var deployment appsv1.Deployment
	b.get("digits", &deployment)
	template := deployment.Spec.Template
	if template.Labels["team"] != "vision" || template.Labels[v1alpha1.ModelServiceLabel] != "digits" || template.Annotations["a"] != "b" {
		t.Errorf("labels %v, annotations %v", template.Labels, template.Annotations)
	}
	pod := template.Spec
	if pod.NodeSelector["disk"] != "ssd" || pod.PriorityClassName != "high" || len(pod.Tolerations) != 1 || pod.Tolerations[0].Key != "serving" || len(pod.TopologySpreadConstraints) != 2 ||
		pod.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].TopologyKey != "rack" || pod.Containers[0].Env[0].Name != "HTTPS_PROXY" {
		t.Errorf("the pod is %+v", pod)
	}
}

// TestPortsAreKept gives two services ports, and takes them from the younger
// when both have the same.
func TestPortsAreKept(t *testing.T) {
	b := serving(t)
	first := *b.pass().Status.Gateway
	if again := *b.pass().Status.Gateway; again != first {
		t.Errorf("the ports change from %+v to %+v", first, again)
	}
	if ports := b.slice().Ports; *ports[0].Port != first.HTTP || *ports[1].Port != first.GRPC || *ports[0].Name != "http" {
		t.Errorf("the slice has %+v", ports)
	}
	other := &v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: b.namespace},
		Spec:       v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: "training"}}},
	}
	b.create(other)
	other.Status.Gateway = &first
	if err := server.Client.Status().Update(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	digits := &v1alpha1.ModelService{}
	b.get("digits", digits)
	// Of one second, the smaller UID is the older.
	younger := other
	if digits.CreationTimestamp.Equal(&other.CreationTimestamp) && digits.UID > other.UID {
		younger = digits
	}
	for _, service := range []*v1alpha1.ModelService{digits, other} {
		seen, err := b.observe(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.ensurePorts(t.Context(), service, seen); err != nil {
			t.Fatal(err)
		}
		if lost := *service.Status.Gateway != first; lost != (service == younger) {
			t.Errorf("%s has %+v, both had %+v, and the younger is %s", service.Name, service.Status.Gateway, first, younger.Name)
		}
	}
}
