package trainingjob

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

func sample(namespace string) *v1alpha1.TrainingJob {
	return &v1alpha1.TrainingJob{
		ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: namespace},
		Spec: v1alpha1.TrainingJobSpec{
			Network: spec.Network{Layers: []spec.Layer{{Units: 8, Activation: spec.ReLU}, {Units: 3, Activation: spec.Softmax}}},
			Dataset: spec.Dataset{
				Source: spec.DatasetSource{ConfigMap: &spec.KeyReference{Name: "data", Key: "digits.csv"}},
				Label:  "digit",

				ValidationFraction: 0.2,
			},
			Training: spec.Training{Loss: spec.CategoricalCrossentropy, Metrics: []spec.Metric{spec.Accuracy}, Epochs: 2},
		},
	}
}

// bench is a reconciler on the real API server, whose pods are played by the
// test.
type bench struct {
	*Reconciler
	t         *testing.T
	namespace string
	recorder  *events.FakeRecorder
	writes    int
	progress  *spec.Progress
	// round is the next in which the pod is to be asked, and atOnce tells whether
	// it is to be made at once.
	round  func()
	atOnce bool
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, namespace: server.Namespace(t), recorder: events.NewFakeRecorder(100)}
	counting := interceptor.NewClient(server.Client, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			b.writes++
			return c.Create(ctx, object, options...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			b.writes++
			return c.Patch(ctx, object, patch, options...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, object client.Object, options ...client.SubResourceUpdateOption) error {
			b.writes++
			return c.SubResource(sub).Update(ctx, object, options...)
		},
	})
	b.Reconciler = &Reconciler{
		Client: counting, Reader: server.Client, Recorder: b.recorder,
		Runtime: Runtime{Image: "runtime:test", Registry: spec.Repository{Name: "registry:5000/models", PlainHTTP: true, TokenFile: podToken}},
		Progress: func(context.Context, *corev1.Pod) (*spec.Progress, error) {
			if b.progress == nil {
				return nil, errors.New("nobody listens")
			}
			return b.progress, nil
		},
		Now: time.Now,
	}
	b.polls = b.newPoller()
	b.polls.After = func(wait time.Duration, call func()) {
		b.round, b.atOnce = call, wait == 0
	}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[ctrl.Request]())
	t.Cleanup(queue.ShutDown)
	if err := b.polls.Start(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	return b
}

// ask has the pod asked now, whenever that was to be, and tells whether it was to
// be at once.
func (b *bench) ask() bool {
	round, atOnce := b.round, b.atOnce
	b.round, b.atOnce = nil, false
	if round != nil {
		round()
	}
	return atOnce
}

func (b *bench) create(object client.Object) {
	b.t.Helper()
	if err := server.Client.Create(b.t.Context(), object); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) createData() {
	b.t.Helper()
	b.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: b.namespace}, Data: map[string]string{"digits.csv": "a,digit\n1,2\n"}})
}

// pass lets the reconciler look once, and reads what came of it.
func (b *bench) pass() *v1alpha1.TrainingJob {
	b.t.Helper()
	b.ask()
	for again := true; again; again = b.ask() {
		if _, err := b.Reconcile(b.t.Context(), b.read()); err != nil {
			b.t.Fatal(err)
		}
	}
	return b.read()
}

func (b *bench) read() *v1alpha1.TrainingJob {
	b.t.Helper()
	job := &v1alpha1.TrainingJob{}
	if err := server.Client.Get(b.t.Context(), client.ObjectKey{Namespace: b.namespace, Name: "digits"}, job); err != nil {
		b.t.Fatal(err)
	}
	return job
}

func (b *bench) job() *batchv1.Job {
	b.t.Helper()
	job := &batchv1.Job{}
	err := server.Client.Get(b.t.Context(), client.ObjectKey{Namespace: b.namespace, Name: "digits"}, job)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

// play puts a pod of the job into a phase, as the kubelet would.
func (b *bench) play(name string, like corev1.Pod) {
	b.t.Helper()
	job := b.job()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: b.namespace, Labels: job.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))},
		},
		Spec: job.Spec.Template.Spec,
	}
	p.Spec.ServiceAccountName = "default" // as the API server's admission does, which is off here
	err := server.Client.Create(b.t.Context(), p)
	if apierrors.IsAlreadyExists(err) {
		err = server.Client.Get(b.t.Context(), client.ObjectKeyFromObject(p), p)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	p.Status = like.Status
	if err := server.Client.Status().Update(b.t.Context(), p); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) expect(job *v1alpha1.TrainingJob, condition, reason, message string) {
	b.t.Helper()
	found := meta.FindStatusCondition(job.Status.Conditions, condition)
	if found == nil || found.Status != metav1.ConditionTrue || found.Reason != reason || !strings.Contains(found.Message, message) {
		b.t.Fatalf("condition %s is %+v, want true, %s, ...%q...", condition, found, reason, message)
	}
	if found.ObservedGeneration != job.Generation {
		b.t.Errorf("condition %s observed generation %d of %d", condition, found.ObservedGeneration, job.Generation)
	}
}

// expectEvent checks the next Event that was told.
func (b *bench) expectEvent(words ...string) {
	b.t.Helper()
	select {
	case event := <-b.recorder.Events:
		for _, word := range words {
			if !strings.Contains(event, word) {
				b.t.Errorf("the Event is %q, want it to say %q", event, word)
			}
		}
	default:
		b.t.Errorf("no Event was told, want one that says %q", words)
	}
}

func TestRunFromStartToModel(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))

	job := b.pass()
	b.expect(job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, "waiting for the run's pod")
	b.expectEvent("Normal", "PodPending")
	made := b.job()
	if made == nil || !metav1.IsControlledBy(made, job) {
		t.Fatalf("the Job is %+v, want one that the TrainingJob owns", made)
	}

	running := pod("p", corev1.PodRunning)
	running.Status.PodIP = "10.0.0.1"
	b.play("digits-1", running)
	b.progress = &spec.Progress{Epoch: 1, Epochs: 2, Loss: 0.5, Metrics: map[string]float64{"ValidationAccuracy": 0.75}}
	job = b.pass()
	b.expect(job, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonTraining, "digits-1")
	b.expectEvent("Normal", "Training")
	if job.Status.Progress == nil || job.Status.Progress.Epoch != 1 || *job.Status.Progress.Loss != 0.5 {
		t.Errorf("progress is %+v", job.Status.Progress)
	}

	b.play("digits-1", ended("p", 0, "Completed", result(t, spec.Result{Model: modelOf("a"), DatasetDigest: "sha256:d", Metrics: map[string]float64{"ValidationAccuracy": 0.96}})))
	job = b.pass()
	b.expect(job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "validation accuracy 0.96")
	b.expectEvent("Normal", "Published", "sha256:aaaa")
	if job.Status.Model.ShortDigest != "aaaaaaaaaaaa" || job.Status.DatasetDigest != "sha256:d" || job.Status.CompletionTime == nil {
		t.Errorf("status is %+v", job.Status)
	}

	b.play("digits-2", ended("q", 0, "Completed", result(t, spec.Result{Model: modelOf("b")})))
	if after := b.pass(); after.ResourceVersion != job.ResourceVersion {
		t.Error("a second pod changed a finished TrainingJob")
	}
}

// podToken is where a pod finds what the registry knows it by.
const podToken = spec.RegistryTokenDirectory + "/" + spec.RegistryTokenKey

// TestPodsCarryNoTokenButTheRegistrys looks at what a pod could show to whom.
func TestPodsCarryNoTokenButTheRegistrys(t *testing.T) {
	for _, test := range []struct {
		tokenFile string
		want      []string
	}{{podToken, []string{spec.RegistryAudience}}, {"", nil}} {
		job := &v1alpha1.TrainingJob{Spec: v1alpha1.TrainingJobSpec{Dataset: spec.Dataset{Source: spec.DatasetSource{ConfigMap: &spec.KeyReference{}}}}}
		pod := podSpec(job, Runtime{Registry: spec.Repository{TokenFile: test.tokenFile}}, "")
		var audiences []string
		for _, volume := range pod.Volumes {
			if volume.Projected == nil {
				continue
			}
			for _, source := range volume.Projected.Sources {
				audiences = append(audiences, source.ServiceAccountToken.Audience)
				at := slices.IndexFunc(pod.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume.Name })
				if at < 0 || pod.Containers[0].VolumeMounts[at].MountPath+"/"+source.ServiceAccountToken.Path != test.tokenFile {
					t.Errorf("the token is not at %s", test.tokenFile)
				}
			}
		}
		if !slices.Equal(audiences, test.want) || *pod.AutomountServiceAccountToken {
			t.Errorf("with token file %q, pods have tokens for %q, and for the API server: %v", test.tokenFile, audiences, *pod.AutomountServiceAccountToken)
		}
	}
}

// TestPodsAreIsolatedBeforeTheyStart looks for the NetworkPolicy beside the Job.
func TestPodsAreIsolatedBeforeTheyStart(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	job := b.pass()
	var policies networkingv1.NetworkPolicyList
	if err := server.Client.List(t.Context(), &policies, client.InNamespace(b.namespace)); err != nil {
		t.Fatal(err)
	}
	if len(policies.Items) != 1 || !metav1.IsControlledBy(&policies.Items[0], job) {
		t.Fatalf("there are %d NetworkPolicies: %+v", len(policies.Items), policies.Items)
	}
	selector, labels := policies.Items[0].Spec.PodSelector.MatchLabels, b.job().Spec.Template.Labels
	for key, value := range selector {
		if labels[key] != value {
			t.Errorf("the policy selects %v, the pods have %v", selector, labels)
		}
	}
	if policies.Items[0].CreationTimestamp.After(b.job().CreationTimestamp.Time) {
		t.Error("the Job was there before the policy")
	}
}

func TestRestCostsNoWrites(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	b.pass()
	b.play("digits-1", pod("p", corev1.PodRunning))
	b.pass()
	before := b.writes
	for range 5 {
		b.pass()
	}
	if b.writes != before {
		t.Errorf("%d writes although nothing changed", b.writes-before)
	}
}

func TestWaitsForDataset(t *testing.T) {
	b := newBench(t)
	b.create(sample(b.namespace))

	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonDatasetMissing, "there is no ConfigMap "+b.namespace+"/data")
	b.expectEvent("Warning", "DatasetMissing", "kubectl create configmap data")
	if b.job() != nil {
		t.Error("a Job was made that could only wait")
	}

	b.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: b.namespace}, BinaryData: map[string][]byte{"iris.csv.gz": {1}}})
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonDatasetMissing, `no key "digits.csv", which spec.dataset.source names (it has iris.csv.gz)`)
	b.expectEvent("Warning", "DatasetMissing", "digits.csv")

	data := &corev1.ConfigMap{}
	if err := server.Client.Get(t.Context(), client.ObjectKey{Namespace: b.namespace, Name: "data"}, data); err != nil {
		t.Fatal(err)
	}
	data.Data = map[string]string{"digits.csv": "x"}
	if err := server.Client.Update(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	b.pass()
	if b.job() == nil {
		t.Error("the dataset is there, and no Job was made")
	}
}

func TestWrongInputFailsAtOnce(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	b.pass()
	b.play("digits-1", ended("p", spec.ExitInvalid, "Error", result(t, spec.Result{Failure: &spec.Failure{Reason: spec.ReasonDatasetInvalid, Message: `row 17, column "age": "n/a" is not a number`}})))
	b.expect(b.pass(), v1alpha1.TrainingJobFailed, spec.ReasonDatasetInvalid, `row 17, column "age"`)
	b.expectEvent("Normal", "PodPending")
	b.expectEvent("Warning", "DatasetInvalid", "row 17")
}

func TestForeignJobIsLeftAlone(t *testing.T) {
	b := newBench(t)
	b.createData()
	foreign := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace}}
	foreign.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}
	b.create(foreign)
	b.create(sample(b.namespace))
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonNameTaken, "belongs to something else")
	if metav1.IsControlledBy(b.job(), b.read()) {
		t.Error("a foreign Job was taken over")
	}
}

// TestSameNameAgain deletes a TrainingJob and applies it again before anything
// has collected the first one's Job: nothing does so on a bare API server.
func TestSameNameAgain(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	first := b.pass()
	left := b.job().UID
	if err := server.Client.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	b.create(sample(b.namespace))
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, "until the Job of the TrainingJob that had this name before is gone")
	b.pass()
	if made := b.job(); made == nil || made.UID == left || !metav1.IsControlledBy(made, b.read()) {
		t.Errorf("the Job is %+v, want a new one of the new TrainingJob", made)
	}
}

// TestCrashBetweenWrites stops after the Job was made and before the status
// was written: the next pass finds the Job and goes on.
func TestCrashBetweenWrites(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	job := b.read()
	if _, _, err := b.createJob(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	uid := b.job().UID
	if _, _, err := b.createJob(t.Context(), job); err != nil {
		t.Fatalf("making the Job again: %v", err)
	}
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, "")
	if b.job().UID != uid {
		t.Error("another Job was made")
	}
}

// TestStatusWriteIsCompareAndSwap lets two managers see the same run end in
// two models: the second write is refused.
func TestStatusWriteIsCompareAndSwap(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	b.pass()
	mine, other := b.read(), b.read()
	done := func(job *v1alpha1.TrainingJob, digit string) error {
		pods := []corev1.Pod{ended("p", 0, "", result(t, spec.Result{Model: modelOf(digit)}))}
		return b.writeStatus(t.Context(), job, statusOf(job, observation{job: b.job(), pods: pods, now: time.Now()}))
	}
	if err := done(mine, "a"); err != nil {
		t.Fatal(err)
	}
	if err := done(other, "b"); !apierrors.IsConflict(errors.Unwrap(err)) {
		t.Fatalf("the second writer got %v, want a conflict", err)
	}
	if digest := b.read().Status.Model.Digest; digest != modelOf("a").Digest {
		t.Errorf("the model is %s", digest)
	}
}

func TestSchemaRefuses(t *testing.T) {
	namespace := server.Namespace(t)
	for _, test := range []struct {
		name    string
		change  func(*v1alpha1.TrainingJob)
		message string
	}{
		{"no layers", func(j *v1alpha1.TrainingJob) { j.Spec.Network.Layers = nil }, "spec.network.layers"},
		{"a layer without units", func(j *v1alpha1.TrainingJob) { j.Spec.Network.Layers[0].Units = 0 }, "a Dense layer needs units"},
		{"an unknown activation", func(j *v1alpha1.TrainingJob) { j.Spec.Network.Layers[0].Activation = "Relu6" }, `Unsupported value: "Relu6"`},
		{"classes without Softmax", func(j *v1alpha1.TrainingJob) { j.Spec.Network.Layers[1].Activation = spec.Linear }, "the last layer needs activation: Softmax"},
		{"two classes on three units", func(j *v1alpha1.TrainingJob) { j.Spec.Training.Loss = spec.BinaryCrossentropy }, "units: 1 and activation: Sigmoid"},
		{"accuracy of numbers", func(j *v1alpha1.TrainingJob) { j.Spec.Training.Loss = spec.MeanSquaredError }, "metric Accuracy needs a loss for classes"},
		{"no source", func(j *v1alpha1.TrainingJob) { j.Spec.Dataset.Source.ConfigMap = nil }, "name a source for the dataset"},
		{"nothing to train on", func(j *v1alpha1.TrainingJob) { j.Spec.Dataset.ValidationFraction = 1 }, "validationFraction"},
		{"numbers of several units", func(j *v1alpha1.TrainingJob) {
			j.Spec.Training.Loss, j.Spec.Training.Metrics = spec.MeanSquaredError, nil
		}, "the last layer needs units: 1"},
		{"early stopping without rows to look at", func(j *v1alpha1.TrainingJob) {
			j.Spec.Dataset.ValidationFraction = 0
			j.Spec.Training.EarlyStopping = &spec.EarlyStopping{Monitor: "ValidationLoss"}
		}, "set dataset.validationFraction"},
		{"a negative rate", func(j *v1alpha1.TrainingJob) { j.Spec.Training.Optimizer.LearningRate = -1 }, "learningRate"},
		{"numbers of classes", func(j *v1alpha1.TrainingJob) { j.Spec.Training.Metrics = []spec.Metric{spec.R2} }, "MAE, RMSE and R2 need a loss for numbers"},
		{"the area under a curve of numbers", func(j *v1alpha1.TrainingJob) {
			j.Spec.Training.Loss, j.Spec.Training.Metrics = spec.Huber, []spec.Metric{spec.MAE, spec.AUC}
		}, "F1 and AUC; for numbers use MAE, RMSE or R2"},
		{"the first few of two classes", func(j *v1alpha1.TrainingJob) {
			j.Spec.Training.Loss, j.Spec.Training.Metrics = spec.BinaryCrossentropy, []spec.Metric{spec.TopKAccuracy}
			j.Spec.Network.Layers[1] = spec.Layer{Units: 1, Activation: spec.Sigmoid}
		}, "metric TopKAccuracy needs loss CategoricalCrossentropy"},
		{"topK of nothing", func(j *v1alpha1.TrainingJob) { j.Spec.Training.TopK = 3 }, "topK belongs to the metric TopKAccuracy"},
		{"lambda of classes", func(j *v1alpha1.TrainingJob) { j.Spec.Training.Regularization.Lambda = 1 }, "regularization.lambda belongs to loss LeastSquares"},
		{"a negative penalty", func(j *v1alpha1.TrainingJob) { j.Spec.Training.Regularization.L2 = -1 }, "spec.training.regularization.l2"},
		{"two sizes of a batch", func(j *v1alpha1.TrainingJob) {
			j.Spec.Training.BatchSize, j.Spec.Training.FullBatch = 64, true
		}, "leave batchSize out, or fullBatch"},
		{"class weights of numbers", func(j *v1alpha1.TrainingJob) {
			j.Spec.Training.Loss, j.Spec.Training.Metrics = spec.Huber, nil
			j.Spec.Training.ClassWeights = map[string]spec.ClassWeight{"1": 2}
		}, "classWeights and balanceClasses need a loss for classes"},
		{"two kinds of class weights", func(j *v1alpha1.TrainingJob) {
			j.Spec.Training.BalanceClasses, j.Spec.Training.ClassWeights = true, map[string]spec.ClassWeight{"1": 2}
		}, "leave classWeights out, or balanceClasses"},
		{"a negative class weight", func(j *v1alpha1.TrainingJob) {
			j.Spec.Training.ClassWeights = map[string]spec.ClassWeight{"1": -2}
		}, "spec.training.classWeights.1"},
		{"stopping for what is not measured", func(j *v1alpha1.TrainingJob) {
			j.Spec.Training.EarlyStopping = &spec.EarlyStopping{Monitor: "ValidationF1"}
		}, "earlyStopping.monitor names a metric that is not measured"},
		{"stopping for what nobody knows", func(j *v1alpha1.TrainingJob) {
			j.Spec.Training.EarlyStopping = &spec.EarlyStopping{Monitor: "val_loss"}
		}, `Unsupported value: "val_loss"`},
		{"dropout at the end", func(j *v1alpha1.TrainingJob) {
			j.Spec.Network.Layers = append(j.Spec.Network.Layers, spec.Layer{Type: spec.Dropout, Rate: 0.5})
		}, "it has to be a Dense layer"},
		{"units of dropout", first(spec.Layer{Type: spec.Dropout, Rate: 0.5, Units: 3}), "regularization belong to a Dense layer"},
		{"dropout without a rate", first(spec.Layer{Type: spec.Dropout}), "a Dropout layer needs rate"},
		{"dropout of everything", first(spec.Layer{Type: spec.Dropout, Rate: 1}), "layers[0].rate"},
		{"the rate of a Dense layer", first(spec.Layer{Units: 3, Rate: 0.5}), "rate belongs to a Dropout layer"},
		{"the momentum of a Dense layer", first(spec.Layer{Units: 3, Momentum: 0.5}), "belong to a BatchNormalization layer"},
		{"alpha of ReLU", first(spec.Layer{Units: 3, Activation: spec.ReLU, Alpha: 0.5}), "alpha belongs to activation LeakyReLU or ELU"},
		{"an unknown initializer", first(spec.Layer{Units: 3, Initializer: "Zeros"}), `Unsupported value: "Zeros"`},
		{"momentum of Adam", optimizer(spec.Optimizer{Momentum: 0.9}), "momentum belongs to the optimizers SGD and RMSprop"},
		{"Nesterov and RMSprop", optimizer(spec.Optimizer{Name: spec.RMSprop, Momentum: 0.9, Nesterov: true}), "nesterov belongs to the optimizer SGD"},
		{"Nesterov without momentum", optimizer(spec.Optimizer{Name: spec.SGD, Nesterov: true}), "set momentum, too"},
		{"momentum of 1", optimizer(spec.Optimizer{Name: spec.SGD, Momentum: 1}), "optimizer.momentum"},
		{"rho of SGD", optimizer(spec.Optimizer{Name: spec.SGD, Rho: 0.9}), "rho and centered belong to the optimizer RMSprop"},
		{"beta1 of SGD", optimizer(spec.Optimizer{Name: spec.SGD, Beta1: new(0.9)}), "beta1 and beta2 belong to the optimizers Adam and AdamW"},
		{"epsilon of SGD", optimizer(spec.Optimizer{Name: spec.SGD, Epsilon: 1e-7}), "SGD divides by nothing"},
		{"decay of Adam", optimizer(spec.Optimizer{WeightDecay: new(0.01)}), "weightDecay belongs to the optimizer AdamW"},
		{"two ways to clip", optimizer(spec.Optimizer{ClipNorm: 1, ClipValue: 1}), "keep one of clipNorm, globalClipNorm and clipValue"},
		{"Step without a factor", optimizer(spec.Optimizer{Schedule: spec.Schedule{Name: spec.StepSchedule}}), "Exponential and Step need decayRate"},
		{"Cosine with a factor", optimizer(spec.Optimizer{Schedule: spec.Schedule{Name: spec.CosineSchedule, DecayRate: 0.5}}), "the others have none"},
		{"steps of Constant", optimizer(spec.Optimizer{Schedule: spec.Schedule{Name: spec.ConstantSchedule, DecaySteps: 5}}), "the schedule Constant changes nothing"},
		{"warm-up of Step", optimizer(spec.Optimizer{Schedule: spec.Schedule{Name: spec.StepSchedule, DecayRate: 0.5, WarmupSteps: 5}}), "belong to the schedule Cosine"},
		{"a path out of the volume", func(j *v1alpha1.TrainingJob) {
			j.Spec.Checkpoint.PersistentVolumeClaim = &v1alpha1.CheckpointClaim{ClaimName: "c", Path: "../other"}
		}, "stays inside it"},
		{"a deadline of nothing", func(j *v1alpha1.TrainingJob) { j.Spec.ActiveDeadlineSeconds = new(int64(0)) }, "spec.activeDeadlineSeconds"},
		{"more workers than rows", func(j *v1alpha1.TrainingJob) { j.Spec.Training.BatchSize, j.Spec.Workers = 3, 4 }, "raise training.batchSize, or lower workers"},
		{"workers of a name that no Service has", func(j *v1alpha1.TrainingJob) { j.Name, j.Spec.Workers = "2d.digits", 2 }, "begin it with a letter"},
		{"too many workers", func(j *v1alpha1.TrainingJob) { j.Spec.Workers = 65 }, "spec.workers"},
		{"a long name", func(j *v1alpha1.TrainingJob) { j.Name = strings.Repeat("x", 60) }, "52 characters at most"},
	} {
		t.Run(test.name, func(t *testing.T) {
			job := sample(namespace)
			test.change(job)
			err := server.Client.Create(t.Context(), job, client.DryRunAll)
			if err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got %v, want ...%q...", err, test.message)
			}
		})
	}
}

// first changes the first layer of a TrainingJob, and optimizer its optimizer.
func first(l spec.Layer) func(*v1alpha1.TrainingJob) {
	return func(j *v1alpha1.TrainingJob) { j.Spec.Network.Layers[0] = l }
}

func optimizer(o spec.Optimizer) func(*v1alpha1.TrainingJob) {
	return func(j *v1alpha1.TrainingJob) { j.Spec.Training.Optimizer = o }
}

// Everything that a recipe for classes, or for numbers, can say at once.
func TestSchemaAccepts(t *testing.T) {
	classes := sample(server.Namespace(t))
	classes.Spec.Network.Layers = []spec.Layer{
		{Units: 8, Activation: spec.LeakyReLU, Alpha: 0.01, Initializer: spec.HeNormal, Bias: new(false), Regularization: spec.Penalty{L1: 1e-4}},
		{Type: spec.BatchNormalization, Momentum: 0.9, Epsilon: 1e-5},
		{Type: spec.Dropout, Rate: 0.5},
		{Units: 8, Activation: spec.Softmax},
	}
	training := &classes.Spec.Training
	training.Optimizer = spec.Optimizer{
		Name: spec.AdamW, LearningRate: 1, Beta1: new(0.0), Beta2: new(0.99), Epsilon: 1, WeightDecay: new(0.0), GlobalClipNorm: 1,
		Schedule: spec.Schedule{Name: spec.CosineSchedule, DecaySteps: 1000, WarmupSteps: 10, Alpha: 1},
	}
	training.Metrics = []spec.Metric{spec.Accuracy, spec.TopKAccuracy, spec.Precision, spec.Recall, spec.F1, spec.AUC}
	training.TopK, training.FullBatch = 3, true
	training.Regularization.L2 = 1e-3
	training.ClassWeights = map[string]spec.ClassWeight{"0": 0, "1": 20}
	training.EarlyStopping = &spec.EarlyStopping{Monitor: "ValidationF1", Patience: 3, MinDelta: 1e-3, RestoreBestWeights: new(false)}

	numbers := sample(server.Namespace(t))
	numbers.Spec.Network.Layers = []spec.Layer{{Units: 1}}
	numbers.Spec.Training = spec.Training{
		Loss: spec.LeastSquares, Regularization: spec.Regularization{Lambda: 1}, Metrics: []spec.Metric{spec.MAE, spec.RMSE, spec.R2},
		Optimizer:     spec.Optimizer{Name: spec.SGD, Momentum: 0.9, Nesterov: true, ClipValue: 1, Schedule: spec.Schedule{Name: spec.ExponentialSchedule, DecayRate: 0.9}},
		EarlyStopping: &spec.EarlyStopping{},
	}
	for _, job := range []*v1alpha1.TrainingJob{classes, numbers} {
		if err := server.Client.Create(t.Context(), job, client.DryRunAll); err != nil {
			t.Error(err)
		}
	}
	stopping := numbers.Spec.Training.EarlyStopping
	if stopping.Monitor != spec.MonitorValidationLoss || stopping.Patience != 5 || !*stopping.RestoreBestWeights {
		t.Errorf("defaults are %+v", stopping)
	}
}

// The schema takes every example of docs/jobs.md, and the samples.
func TestSchemaAcceptsTheJobs(t *testing.T) {
	text, err := os.ReadFile("../../docs/jobs.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(examples) < 4 {
		t.Errorf("there are %d examples", len(examples))
	}
	for _, example := range examples {
		job := sample(server.Namespace(t))
		err := yaml.UnmarshalStrict([]byte(example[1]), job)
		if err == nil {
			err = server.Client.Create(t.Context(), job, client.DryRunAll)
		}
		if err != nil {
			t.Errorf("%v in:\n%s", err, example[1])
		}
	}
	for _, file := range []string{"trainingjob.yaml", "trainingjob-platform.yaml"} {
		text, err := os.ReadFile("../../config/samples/" + file)
		if err != nil {
			t.Fatal(err)
		}
		documents := strings.Split(string(text), "\n---\n")
		job := &v1alpha1.TrainingJob{}
		if err := yaml.UnmarshalStrict([]byte(documents[len(documents)-1]), job); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		job.Namespace = server.Namespace(t)
		if err := server.Client.Create(t.Context(), job, client.DryRunAll); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// The schema takes every example of docs/recipes.md.
func TestSchemaAcceptsTheRecipes(t *testing.T) {
	text, err := os.ReadFile("../../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(examples) < 5 {
		t.Errorf("there are %d examples", len(examples))
	}
	for _, example := range examples {
		job := sample(server.Namespace(t))
		var recipe v1alpha1.TrainingJobSpec
		if err := yaml.UnmarshalStrict([]byte(example[1]), &recipe); err != nil {
			t.Errorf("%v in:\n%s", err, example[1])
			continue
		}
		job.Spec.Training = recipe.Training
		if recipe.Network.Layers != nil {
			job.Spec.Network = recipe.Network
		}
		if err := server.Client.Create(t.Context(), job, client.DryRunAll); err != nil {
			t.Errorf("%v in:\n%s", err, example[1])
		}
	}
}
