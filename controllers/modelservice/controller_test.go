package modelservice

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/runtime/spec"
)

// pods plays the servers in the pods: each holds a model, and is as busy as
// the test wants.
type pods struct {
	mutex  sync.Mutex
	models map[string]spec.ModelStatus
	stats  map[string]spec.Stats
	// passing tells whether a pass is made, which must not wait for pods.
	passing func() bool
}

func (p *pods) lock() {
	if p.passing() {
		panic("a pass asks a pod, and would wait if that were silent")
	}
	p.mutex.Lock()
}

func (p *pods) Models(_ context.Context, pod *corev1.Pod) ([]spec.ModelStatus, error) {
	p.lock()
	defer p.mutex.Unlock()
	if model, ok := p.models[pod.Name]; ok {
		return []spec.ModelStatus{model}, nil
	}
	return nil, errors.New("nobody listens")
}

func (p *pods) Load(_ context.Context, pod *corev1.Pod, model spec.ServedModel) error {
	p.lock()
	defer p.mutex.Unlock()
	p.models[pod.Name] = spec.ModelStatus{Name: model.Name, Digest: model.Digest, State: spec.StateReady}
	return nil
}

func (p *pods) Stats(_ context.Context, pod *corev1.Pod) (spec.Stats, error) {
	p.lock()
	defer p.mutex.Unlock()
	if stats, ok := p.stats[pod.Name]; ok {
		return stats, nil
	}
	return spec.Stats{}, errors.New("nobody listens")
}

// gateways plays the gateway's pods.
type gateways struct {
	mutex sync.Mutex
	// reports are by pod; one that is missing doesn't answer.
	reports map[string]routing.Report
}

func (g *gateways) Report(_ context.Context, pod *corev1.Pod) (routing.Report, error) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if report, ok := g.reports[pod.Name]; ok {
		return report, nil
	}
	return routing.Report{}, errors.New("nobody listens")
}

// bench is a reconciler on the real API server, with the Deployment
// controller, the kubelet and the servers played by the test.
type bench struct {
	*Reconciler
	t         *testing.T
	namespace string
	recorder  *events.FakeRecorder
	pods      *pods
	gateways  *gateways
	followers *followers
	writes    atomic.Int64
	now       time.Time
	// rounds are those in which pods are to be asked, and when.
	rounds []round
	// passing is set during a pass.
	passing bool
}

type round struct {
	at   time.Time
	make func()
}

func newBench(t *testing.T) *bench {
	b := &bench{
		t: t, namespace: server.Namespace(t), recorder: events.NewFakeRecorder(100),
		pods:     &pods{models: map[string]spec.ModelStatus{}, stats: map[string]spec.Stats{}},
		gateways: &gateways{reports: map[string]routing.Report{}}, followers: &followers{},
		now: time.Now(),
	}
	counting := interceptor.NewClient(server.Client, interceptor.Funcs{
		Apply: func(ctx context.Context, c client.WithWatch, object runtime.ApplyConfiguration, options ...client.ApplyOption) error {
			b.writes.Add(1)
			return c.Apply(ctx, object, options...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, object client.Object, options ...client.SubResourceUpdateOption) error {
			b.writes.Add(1)
			return c.SubResource(sub).Update(ctx, object, options...)
		},
		List: b.listWithIndices,
	})
	b.Reconciler = &Reconciler{
		Client: counting, Reader: server.Client, Recorder: b.recorder, Servers: b.pods, Followers: b.followers, Gateways: b.gateways, GatewayNamespace: b.namespace,
		Runtime: Runtime{Image: "runtime:test", Registry: spec.Repository{Name: "registry:5000/models", PlainHTTP: true, TokenFile: podToken}},
		Now:     func() time.Time { return b.now },
	}
	b.pods.passing = func() bool { return b.passing }
	b.start()
	return b
}

// start has pods asked when the test's clock says so, by a manager that knows
// nothing yet.
func (b *bench) start() {
	b.memory, b.rounds = memory{}, nil
	b.polls = b.newPoller()
	b.polls.After = func(wait time.Duration, call func()) { b.rounds = append(b.rounds, round{b.now.Add(wait), call}) }
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[ctrl.Request]())
	b.t.Cleanup(queue.ShutDown)
	if err := b.polls.Start(b.t.Context(), queue); err != nil {
		b.t.Fatal(err)
	}
}

// ask makes the rounds whose time has come, and tells whether there were any.
func (b *bench) ask() bool {
	var due []round
	b.rounds = slices.DeleteFunc(b.rounds, func(r round) bool {
		if r.at.After(b.now) {
			return false
		}
		due = append(due, r)
		return true
	})
	for _, round := range due {
		round.make()
	}
	return len(due) > 0
}

func (b *bench) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: b.namespace, Name: name}
}

func (b *bench) create(object client.Object) {
	b.t.Helper()
	if err := server.Client.Create(b.t.Context(), object); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) get(name string, object client.Object) bool {
	b.t.Helper()
	err := server.Client.Get(b.t.Context(), b.key(name), object)
	if err != nil && !apierrors.IsNotFound(err) {
		b.t.Fatal(err)
	}
	return err == nil
}

func (b *bench) createService(autoscaling v1alpha1.Autoscaling) {
	b.t.Helper()
	b.create(&v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace},
		Spec: v1alpha1.ModelServiceSpec{
			Model:       v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: "training"}},
			Autoscaling: autoscaling,
		},
	})
}

// train makes a TrainingJob that is in a state.
func (b *bench) train(status v1alpha1.TrainingJobStatus) {
	b.t.Helper()
	job := &v1alpha1.TrainingJob{
		ObjectMeta: metav1.ObjectMeta{Name: "training", Namespace: b.namespace},
		Spec: v1alpha1.TrainingJobSpec{
			Network:  spec.Network{Layers: []spec.Layer{{Units: 1}}},
			Dataset:  spec.Dataset{Source: spec.DatasetSource{ConfigMap: &spec.KeyReference{Name: "n", Key: "k"}}, Label: "y"},
			Training: spec.Training{Loss: spec.MeanSquaredError},
		},
	}
	err := server.Client.Create(b.t.Context(), job)
	if apierrors.IsAlreadyExists(err) {
		err = server.Client.Get(b.t.Context(), b.key("training"), job)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	job.Status = status
	if err := server.Client.Status().Update(b.t.Context(), job); err != nil {
		b.t.Fatal(err)
	}
}

// startPod plays the ReplicaSet controller and the kubelet: a pod that runs,
// and whose server holds a model.
func (b *bench) startPod(name, digest string) {
	b.t.Helper()
	var deployment appsv1.Deployment
	b.get("digits", &deployment)
	template := deployment.Spec.Template
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: b.namespace, Labels: template.Labels}, Spec: template.Spec}
	pod.Spec.ServiceAccountName = "default" // as the API server's admission does, which is off here
	b.create(pod)
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: "10.0.0.1",
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	if err := server.Client.Status().Update(b.t.Context(), pod); err != nil {
		b.t.Fatal(err)
	}
	b.pods.models[name] = spec.ModelStatus{Name: "digits", Digest: digest, State: spec.StateReady}
	b.pods.stats[name] = spec.Stats{Started: 1}
}

// pass lets the reconciler look two seconds after it looked last, and again as
// often as that has pods asked at once.
func (b *bench) pass() *v1alpha1.ModelService {
	b.t.Helper()
	b.now = b.now.Add(samplePeriod)
	b.ask()
	b.reconcile()
	for b.ask() {
		b.reconcile()
	}
	service := &v1alpha1.ModelService{}
	b.get("digits", service)
	return service
}

func (b *bench) reconcile() {
	b.t.Helper()
	b.passing = true
	defer func() { b.passing = false }()
	if _, err := b.Reconcile(b.t.Context(), ctrl.Request{NamespacedName: b.key("digits")}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) expect(service *v1alpha1.ModelService, condition string, status metav1.ConditionStatus, reason, message string) {
	b.t.Helper()
	found := meta.FindStatusCondition(service.Status.Conditions, condition)
	if found == nil || found.Status != status || found.Reason != reason || !strings.Contains(found.Message, message) {
		b.t.Fatalf("condition %s is %+v, want %s, %s, ...%q...", condition, found, status, reason, message)
	}
}

func TestFromWaitingToServing(t *testing.T) {
	b := newBench(t)
	b.createService(v1alpha1.Autoscaling{MaxReplicas: new(int32(3))})
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonTrainingJobMissing, "there is no TrainingJob "+b.namespace+"/training")

	b.train(v1alpha1.TrainingJobStatus{State: v1alpha1.StateTraining})
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonTrainingJobRunning, "TrainingJob training, which is Training")
	if b.get("digits", &appsv1.Deployment{}) {
		t.Error("a Deployment was made that has nothing to serve")
	}

	b.train(v1alpha1.TrainingJobStatus{State: v1alpha1.StateComplete, Model: published("a")})
	service := b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonStarting, "")
	var deployment appsv1.Deployment
	var kubernetesService corev1.Service
	var configMap corev1.ConfigMap
	for _, child := range []struct {
		name   string
		object client.Object
	}{{"digits", &deployment}, {"digits", &kubernetesService}, {"digits-serve", &configMap}, {"digits-gateway", &discoveryv1.EndpointSlice{}}, {"digits-serve", &networkingv1.NetworkPolicy{}}} {
		if !b.get(child.name, child.object) || !metav1.IsControlledBy(child.object, service) {
			t.Errorf("%T %s is not there, or not owned", child.object, child.name)
		}
	}
	var serve spec.Serve
	if err := json.Unmarshal([]byte(configMap.Data[spec.ServeKey]), &serve); err != nil {
		t.Fatal(err)
	}
	want := spec.ServedModel{Name: "digits", Repository: spec.Repository{Name: "registry:5000/models/ns/digits", PlainHTTP: true, TokenFile: podToken}, Digest: published("a").Digest}
	if len(serve.Models) != 1 || serve.Models[0] != want {
		t.Errorf("servers are told to load %+v, want %+v", serve.Models, want)
	}

	b.startPod("p", published("a").Digest)
	service = b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionTrue, v1alpha1.ReasonServing, "")
	b.expect(service, v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, v1alpha1.ReasonStable, "")
	if service.Status.URL != "http://digits."+b.namespace+".svc" || service.Status.Replicas.Summary != "1/1" {
		t.Errorf("status is %+v", service.Status)
	}

	before := b.writes.Load()
	for range 5 {
		b.pass()
	}
	if b.writes.Load() != before {
		t.Errorf("%d writes although nothing changed", b.writes.Load()-before)
	}
}

// podToken is where a pod finds what the registry knows it by.
const podToken = spec.RegistryTokenDirectory + "/" + spec.RegistryTokenKey

// TestPodsCarryNoTokenButTheRegistrys looks at what a pod could show to whom.
func TestPodsCarryNoTokenButTheRegistrys(t *testing.T) {
	service := &v1alpha1.ModelService{ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: "ns"}}
	for _, test := range []struct {
		tokenFile string
		want      []string
	}{{podToken, []string{spec.RegistryAudience}}, {"", nil}} {
		pod, err := podSpec(service, Runtime{Registry: spec.Repository{TokenFile: test.tokenFile}})
		if err != nil {
			t.Fatal(err)
		}
		var audiences []string
		for _, volume := range pod.Volumes {
			if volume.Projected == nil {
				continue
			}
			for _, source := range volume.Projected.Sources {
				audiences = append(audiences, *source.ServiceAccountToken.Audience)
				at := slices.IndexFunc(pod.Containers[0].VolumeMounts, func(m coreapply.VolumeMountApplyConfiguration) bool { return *m.Name == *volume.Name })
				if at < 0 || *pod.Containers[0].VolumeMounts[at].MountPath+"/"+*source.ServiceAccountToken.Path != test.tokenFile {
					t.Errorf("the token is not at %s", test.tokenFile)
				}
			}
		}
		if !slices.Equal(audiences, test.want) || *pod.AutomountServiceAccountToken {
			t.Errorf("with token file %q, pods have tokens for %q, and for the API server: %v", test.tokenFile, audiences, *pod.AutomountServiceAccountToken)
		}
	}
}

// listWithIndices lists what the manager's cache has indices for, and the API
// server has not.
func (b *bench) listWithIndices(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
	var fields client.MatchingFields
	for _, option := range options {
		if found, ok := option.(client.MatchingFields); ok {
			fields = found
		}
	}
	if fields == nil {
		return c.List(ctx, list, options...)
	}
	err := c.List(ctx, list, client.InNamespace(b.namespace))
	switch list := list.(type) {
	case *v1alpha1.ModelServiceList:
		list.Items = slices.DeleteFunc(list.Items, func(service v1alpha1.ModelService) bool {
			return !slices.Contains(gatewayPortOf(&service), fields[gatewayPortField])
		})
	case *corev1.PodList:
		list.Items = slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool {
			return !slices.Contains(podServiceOf(&pod), fields[podServiceField])
		})
	}
	return err
}

// What a pass has made, the next one finds as it should be.
func TestAppliesOnce(t *testing.T) {
	b := newBench(t)
	b.createService(v1alpha1.Autoscaling{})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	b.pass()
	before := b.writes.Load()
	b.pass()
	if b.writes.Load() != before {
		t.Errorf("%d writes although nothing changed", b.writes.Load()-before)
	}
}

func TestFollowsAnotherModelWithoutAnotherPod(t *testing.T) {
	b := newBench(t)
	b.createService(v1alpha1.Autoscaling{})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	b.pass()
	b.startPod("p", published("a").Digest)
	b.pass()
	var before, after appsv1.Deployment
	b.get("digits", &before)

	b.train(v1alpha1.TrainingJobStatus{Model: published("b")})
	b.pass()
	service := b.pass()
	if held := b.pods.models["p"].Digest; held != published("b").Digest {
		t.Errorf("the pod holds %s", held)
	}
	b.expect(service, v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, v1alpha1.ReasonStable, "")
	if b.get("digits", &after); after.Generation != before.Generation {
		t.Error("the Deployment changed, which restarts pods")
	}
	var configMap corev1.ConfigMap
	if b.get("digits-serve", &configMap); !strings.Contains(configMap.Data[spec.ServeKey], published("b").Digest) {
		t.Error("a pod that starts now would load the model before")
	}
}

// TestKeepsTheContract trains again with other inputs: neither a pod that runs nor
// one that starts gets the model, until the spec says that clients know.
func TestKeepsTheContract(t *testing.T) {
	b := newBench(t)
	b.createService(v1alpha1.Autoscaling{})
	of := func(digit string, inputs int) *v1alpha1.PublishedModel {
		model := published(digit)
		model.Signature = spec.NewSignature(inputs, 3, nil, nil)
		return model
	}
	b.train(v1alpha1.TrainingJobStatus{Model: of("a", 4)})
	b.pass()
	b.startPod("p", published("a").Digest)
	b.pass()

	b.train(v1alpha1.TrainingJobStatus{Model: of("b", 5)})
	service := b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionTrue, v1alpha1.ReasonServing, "")
	b.expect(service, v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, spec.ReasonContractBroken, "it takes 5 inputs, not 4. If those who call the service know, set spec.model.newContract to true")
	b.told(spec.ReasonContractBroken, "it takes 5 inputs, not 4")
	b.loads(published("a").Digest)
	if held := b.pods.models["p"].Digest; held != published("a").Digest {
		t.Errorf("the pod was told of %s", held)
	}

	b.change(func(s *v1alpha1.ModelServiceSpec) { s.Model.NewContract = true })
	b.pass()
	b.expect(b.pass(), v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, v1alpha1.ReasonStable, "")
	b.loads(published("b").Digest)
	b.change(func(s *v1alpha1.ModelServiceSpec) { s.Model.NewContract = false })
	service = b.pass()
	b.expect(service, v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, v1alpha1.ReasonStable, "")
	if service.Status.Model.Digest != published("b").Digest {
		t.Errorf("it went back to %s", service.Status.Model.Digest)
	}
}

func TestScalesWithLoadAndOwnsTheNumber(t *testing.T) {
	b := newBench(t)
	b.createService(v1alpha1.Autoscaling{MaxReplicas: new(int32(3)), TargetConcurrency: new(int32(10))})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	b.pass()
	b.startPod("p", published("a").Digest)
	replicas := func() int32 {
		var deployment appsv1.Deployment
		b.get("digits", &deployment)
		return *deployment.Spec.Replicas
	}
	for i := range 5 {
		seconds := float64(2 * (i + 1))
		b.pods.stats["p"] = spec.Stats{Started: 1, UptimeSeconds: seconds, BusySeconds: 20 * seconds, InFlight: 20}
		b.pass()
	}
	if got := replicas(); got != 3 {
		t.Errorf("%d replicas under a concurrency of 20, want 3", got)
	}

	var deployment appsv1.Deployment
	b.get("digits", &deployment)
	deployment.Spec.Replicas = new(int32(1))
	if err := server.Client.Update(t.Context(), &deployment); err != nil {
		t.Fatal(err)
	}
	b.pass()
	if got := replicas(); got != 3 {
		t.Errorf("%d replicas after somebody scaled by hand, want 3 again", got)
	}
	b.told("ScaledByHand", "scaled to 1 by somebody else and is set back to 3")
}

func TestForeignObjectsAreLeftAlone(t *testing.T) {
	b := newBench(t)
	b.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1}}}})
	b.createService(v1alpha1.Autoscaling{})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	service := b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonNameTaken, "Service "+b.namespace+"/digits already exists")
	var foreign corev1.Service
	if b.get("digits", &foreign); foreign.Spec.Ports[0].Port != 1 || metav1.IsControlledBy(&foreign, service) {
		t.Error("a foreign Service was taken over")
	}
	if b.get("digits", &appsv1.Deployment{}) {
		t.Error("pods were started for a name that is taken")
	}
}

// TestSameNameAgain deletes a ModelService and applies it again before anything
// has collected the first one's objects.
func TestSameNameAgain(t *testing.T) {
	b := newBench(t)
	b.createService(v1alpha1.Autoscaling{})
	b.train(v1alpha1.TrainingJobStatus{Model: published("a")})
	if err := server.Client.Delete(t.Context(), b.pass()); err != nil {
		t.Fatal(err)
	}
	b.createService(v1alpha1.Autoscaling{})
	var service *v1alpha1.ModelService
	for range 6 { // each pass clears one of five objects away
		service = b.pass()
	}
	for _, child := range []struct {
		name   string
		object client.Object
	}{{"digits", &appsv1.Deployment{}}, {"digits", &corev1.Service{}}, {"digits-serve", &corev1.ConfigMap{}}, {"digits-serve", &networkingv1.NetworkPolicy{}}} {
		if !b.get(child.name, child.object) || !metav1.IsControlledBy(child.object, service) {
			t.Errorf("%T %s is not there, or not the new service's", child.object, child.name)
		}
	}
}

func TestFailedTrainingIsSaid(t *testing.T) {
	b := newBench(t)
	b.createService(v1alpha1.Autoscaling{})
	b.train(v1alpha1.TrainingJobStatus{State: v1alpha1.StateFailed, Conditions: []metav1.Condition{{
		Type: v1alpha1.TrainingJobFailed, Status: metav1.ConditionTrue, Reason: spec.ReasonDatasetInvalid, Message: "row 3 is short", LastTransitionTime: metav1.Now()}}})
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonTrainingJobFailed, "row 3 is short")
	select {
	case event := <-b.recorder.Events:
		if !strings.Contains(event, "Warning TrainingJobFailed") || !strings.Contains(event, "row 3 is short") {
			t.Errorf("the Event is %q", event)
		}
	default:
		t.Error("no Event was told")
	}
}

func TestSchemaRefuses(t *testing.T) {
	namespace := server.Namespace(t)
	for _, test := range []struct {
		name    string
		change  func(*v1alpha1.ModelService)
		message string
	}{
		{"no source", func(s *v1alpha1.ModelService) { s.Spec.Model.TrainingJob = nil }, "name a source for the model"},
		{"two sources", func(s *v1alpha1.ModelService) { s.Spec.Model.TrainingJobs = &v1alpha1.TrainingJobSelection{} }, "exactly one of trainingJob, trainingJobs, oci,"},
		{"a TrainingJob and an address", func(s *v1alpha1.ModelService) {
			s.Spec.Model.HTTPS = &spec.HTTPSSource{URL: "https://example.com/iris.onnx"}
		}, "exactly one of"},
		{"an address without TLS", func(s *v1alpha1.ModelService) {
			s.Spec.Model = v1alpha1.ModelSource{HTTPS: &spec.HTTPSSource{URL: "http://example.com/iris.onnx"}}
		}, "starts with https://"},
		{"a path out of the volume", func(s *v1alpha1.ModelService) {
			s.Spec.Model = v1alpha1.ModelSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "models", Path: "../iris.onnx"}}
		}, "stays inside it"},
		{"a reference without a tag", func(s *v1alpha1.ModelService) {
			s.Spec.Model = v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "registry.example.com:5000/models/iris"}}
		}, "reference must be registry/repository:tag"},
		{"a reference without a registry", func(s *v1alpha1.ModelService) {
			s.Spec.Model = v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "iris:v1"}}
		}, "reference must be registry/repository:tag"},
		{"a digest that is too short", func(s *v1alpha1.ModelService) {
			s.Spec.Model = v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "registry.example.com/iris@sha256:12"}}
		}, "reference must be registry/repository:tag"},
		{"looking all the time", func(s *v1alpha1.ModelService) {
			s.Spec.Model = v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "registry.example.com/iris:v1"}, PollInterval: &metav1.Duration{Duration: time.Millisecond}}
		}, "pollInterval must be from 1s to 24h, or 0s to look once"},
		{"looking at a TrainingJob", func(s *v1alpha1.ModelService) {
			s.Spec.Model.PollInterval = &metav1.Duration{Duration: time.Minute}
		}, "pollInterval is for addresses"},
		{"a digest that is none", func(s *v1alpha1.ModelService) { s.Spec.Model.Digest = "sha256:1" }, "spec.model.digest"},
		{"a requirement of nothing", func(s *v1alpha1.ModelService) {
			s.Spec.Model = v1alpha1.ModelSource{TrainingJobs: &v1alpha1.TrainingJobSelection{Require: &v1alpha1.MetricRequirement{Metric: "Loss"}}}
		}, "atLeast, atMost or both"},
		{"bounds the wrong way round", func(s *v1alpha1.ModelService) {
			s.Spec.Autoscaling = v1alpha1.Autoscaling{MinReplicas: new(int32(3)), MaxReplicas: new(int32(2))}
		}, "minReplicas must not be above maxReplicas"},
		{"an idle time that is none", func(s *v1alpha1.ModelService) {
			s.Spec.Autoscaling.IdleTime = &metav1.Duration{Duration: time.Millisecond}
		}, "idleTime must be from 1s to 24h"},
		{"no window", func(s *v1alpha1.ModelService) {
			s.Spec.Autoscaling.StabilizationTime = &metav1.Duration{}
		}, "stabilizationTime must be from 1s to 1h"},
		{"a long delay", func(s *v1alpha1.ModelService) {
			s.Spec.Batching = &v1alpha1.Batching{MaxDelay: &metav1.Duration{Duration: time.Minute}}
		}, "spec.batching.maxDelay"},
		{"a delay above a second", func(s *v1alpha1.ModelService) {
			s.Spec.Batching = &v1alpha1.Batching{MaxDelay: &metav1.Duration{Duration: 1500 * time.Millisecond}}
		}, "maxDelay must be from 0s to 1s"},
		{"a batch of too many", func(s *v1alpha1.ModelService) {
			s.Spec.Batching = &v1alpha1.Batching{MaxBatchSize: new(int32(257))}
		}, "spec.batching.maxBatchSize"},
		{"zero by CPU", func(s *v1alpha1.ModelService) {
			s.Spec.Autoscaling = v1alpha1.Autoscaling{Metric: v1alpha1.MetricCPU, MinReplicas: new(int32(0))}
		}, "can't scale to zero"},
		{"an unknown metric", func(s *v1alpha1.ModelService) { s.Spec.Autoscaling.Metric = "Memory" }, "Unsupported value"},
		{"a name that no Service can have", func(s *v1alpha1.ModelService) { s.Name = "9digits" }, "beginning with a letter"},
		{"a name with a dot", func(s *v1alpha1.ModelService) { s.Name = "my.digits" }, "lower-case letters"},
	} {
		t.Run(test.name, func(t *testing.T) {
			service := &v1alpha1.ModelService{
				ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: namespace},
				Spec:       v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: "t"}}},
			}
			test.change(service)
			err := server.Client.Create(t.Context(), service, client.DryRunAll)
			if err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got %v, want ...%q...", err, test.message)
			}
		})
	}
}
