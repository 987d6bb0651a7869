package trainingjob

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

func TestNextStep(t *testing.T) {
	training := func(suspend bool, queue string) *v1alpha1.TrainingJob {
		job := &v1alpha1.TrainingJob{Spec: v1alpha1.TrainingJobSpec{Suspend: suspend}}
		if queue != "" {
			job.Labels = map[string]string{v1alpha1.QueueLabel: queue}
		}
		return job
	}
	made := func(wish string, conditions ...batchv1.JobConditionType) *batchv1.Job {
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.SuspendAnnotation: wish}}}
		for _, kind := range conditions {
			job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue})
		}
		return job
	}
	byOthers := made("false")
	byOthers.Spec.Suspend = new(true)
	deleted := made("false")
	deleted.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	done := []corev1.Pod{ended("p", 0, "", result(t, spec.Result{Model: modelOf("a")}))}
	for _, test := range []struct {
		name string
		job  *v1alpha1.TrainingJob
		seen observation
		want step
	}{
		{"nothing yet", training(false, ""), observation{}, create},
		{"nothing yet, and suspended", training(true, ""), observation{}, create},
		{"nothing yet, in a queue", training(false, "q"), observation{}, create},
		{"withdrawn from its queue", training(true, "q"), observation{}, leave},
		{"an obstacle", training(false, ""), observation{obstacle: obstacle{reason: "r"}}, leave},
		{"under way", training(false, ""), observation{job: made("false")}, leave},
		{"made by an earlier version", training(false, ""), observation{job: made("")}, leave},
		{"to be suspended", training(true, ""), observation{job: made("false")}, suspendOrResume},
		{"suspended", training(true, ""), observation{job: made("true")}, leave},
		{"to be resumed", training(false, ""), observation{job: made("true")}, suspendOrResume},
		{"suspended by others", training(false, ""), observation{job: byOthers}, leave},
		{"waiting for Kueue", training(false, "q"), observation{job: byOthers}, leave},
		{"admitted by Kueue", training(false, "q"), observation{job: made("false")}, leave},
		{"to be withdrawn from its queue", training(true, "q"), observation{job: made("false")}, deleteJob},
		{"being deleted", training(true, "q"), observation{job: deleted}, leave},
		{"complete", training(true, ""), observation{job: made("false", batchv1.JobComplete), pods: done}, leave},
		{"complete, and its result is lost", training(false, ""), observation{job: made("false", batchv1.JobComplete)}, deleteJob},
		{"failed", training(true, ""), observation{job: made("false", batchv1.JobFailed)}, leave},
	} {
		if got := nextStep(test.job, test.seen); got != test.want {
			t.Errorf("%s: step %d, want %d", test.name, got, test.want)
		}
	}
}

func (b *bench) setSuspend(value bool) {
	b.t.Helper()
	job := b.read()
	job.Spec.Suspend = value
	if err := server.Client.Update(b.t.Context(), job); err != nil {
		b.t.Fatal(err)
	}
}

func TestSuspendAndResume(t *testing.T) {
	b := newBench(t)
	b.createData()
	job := sample(b.namespace)
	job.Spec.Suspend = true
	b.create(job)
	b.expect(b.pass(), v1alpha1.TrainingJobSuspended, v1alpha1.ReasonSuspended, "set it to false")
	b.expectEvent("Normal", "Suspended")
	if made := b.job(); made == nil || !*made.Spec.Suspend {
		t.Fatalf("the Job is %+v", made)
	}
	b.setSuspend(false)
	resumed := b.pass()
	b.expect(resumed, v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, "waiting for the run's pod")
	if *b.job().Spec.Suspend || meta.IsStatusConditionTrue(resumed.Status.Conditions, v1alpha1.TrainingJobSuspended) {
		t.Error("it is still suspended")
	}
	b.play("digits-1", pod("p", corev1.PodRunning))
	b.pass()
	b.setSuspend(true)
	b.expect(b.pass(), v1alpha1.TrainingJobSuspended, v1alpha1.ReasonSuspended, "(pod digits-1 is being stopped)")
	if !*b.job().Spec.Suspend {
		t.Error("the Job was not suspended")
	}
}

// What others do to the Job's own suspend is left alone, and said.
func TestSuspendedByOthers(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	b.pass()
	made := b.job()
	made.Spec.Suspend = new(true)
	if err := server.Client.Update(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	b.expect(b.pass(), v1alpha1.TrainingJobSuspended, v1alpha1.ReasonSuspended, "not by this TrainingJob")
	if !*b.job().Spec.Suspend {
		t.Error("the operator fights about suspend")
	}
}

// A run in a queue waits for Kueue, which alone starts and stops it. A user who
// suspends it takes it out of the queue.
func TestQueue(t *testing.T) {
	b := newBench(t)
	b.createData()
	job := sample(b.namespace)
	job.Labels = map[string]string{v1alpha1.QueueLabel: "team", "kueue.x-k8s.io/priority-class": "high", "other": "label"}
	b.create(job)
	b.expect(b.pass(), v1alpha1.TrainingJobSuspended, v1alpha1.ReasonQueued, "LocalQueue team")
	b.expectEvent("Normal", "Queued")
	made := b.job()
	if !*made.Spec.Suspend || made.Labels[v1alpha1.QueueLabel] != "team" || made.Labels["kueue.x-k8s.io/priority-class"] != "high" || made.Labels["other"] != "" {
		t.Errorf("the Job is suspended %v, with labels %v", *made.Spec.Suspend, made.Labels)
	}
	requests := made.Spec.Template.Spec.Containers[0].Resources.Requests
	if requests.Cpu().IsZero() || requests.Memory().IsZero() {
		t.Errorf("requests are %v", requests)
	}

	// As Kueue does: admit, then take back.
	made.Spec.Template.Spec.NodeSelector = map[string]string{"flavor": "spot"}
	made.Spec.Suspend = new(false)
	if err := server.Client.Update(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, "")
	made = b.job()
	if *made.Spec.Suspend || made.Spec.Template.Spec.NodeSelector["flavor"] != "spot" {
		t.Errorf("the operator fights Kueue: %+v", made.Spec)
	}
	made.Spec.Suspend = new(true)
	if err := server.Client.Update(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	b.expect(b.pass(), v1alpha1.TrainingJobSuspended, v1alpha1.ReasonQueued, "")

	b.setSuspend(true)
	b.expect(b.pass(), v1alpha1.TrainingJobSuspended, v1alpha1.ReasonSuspended, "")
	made = b.job()
	if made.DeletionTimestamp.IsZero() {
		t.Fatal("the Job is still in the queue")
	}
	b.collect(made)
	b.pass()
	if b.job() != nil {
		t.Error("a Job was made for a suspended run")
	}
	b.setSuspend(false)
	b.expect(b.pass(), v1alpha1.TrainingJobSuspended, v1alpha1.ReasonQueued, "")
}

// collect plays the garbage collector, which a bare API server lacks.
func (b *bench) collect(job *batchv1.Job) {
	b.t.Helper()
	job.Finalizers = nil
	if err := server.Client.Update(b.t.Context(), job); err != nil {
		b.t.Fatal(err)
	}
}

// finish plays the Job controller.
func (b *bench) finish(condition batchv1.JobConditionType, reason string) {
	b.t.Helper()
	job := b.job()
	now := metav1.Now()
	job.Status.StartTime = &now
	first := batchv1.JobFailureTarget
	if condition == batchv1.JobComplete {
		first, job.Status.CompletionTime = batchv1.JobSuccessCriteriaMet, &now
	}
	for _, kind := range []batchv1.JobConditionType{first, condition} {
		job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, LastTransitionTime: now})
	}
	if err := server.Client.Status().Update(b.t.Context(), job); err != nil {
		b.t.Fatal(err)
	}
}

func TestDeadline(t *testing.T) {
	b := newBench(t)
	b.createData()
	job := sample(b.namespace)
	job.Spec.ActiveDeadlineSeconds = new(int64(60))
	b.create(job)
	b.pass()
	if made := b.job(); *made.Spec.ActiveDeadlineSeconds != 60 {
		t.Errorf("the Job's deadline is %d", *made.Spec.ActiveDeadlineSeconds)
	}
	running := pod("p", corev1.PodRunning)
	running.Status.PodIP = "10.0.0.1"
	b.play("digits-1", running)
	b.progress = &spec.Progress{Epoch: 1, Epochs: 2}
	b.pass()
	b.play("digits-1", ended("p", spec.ExitInterrupted, "Error", result(t, spec.Result{Failure: &spec.Failure{Reason: spec.ReasonInterrupted, Message: "stopped"}})))
	b.finish(batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded)
	job = b.pass()
	b.expect(job, v1alpha1.TrainingJobFailed, v1alpha1.ReasonDeadlineExceeded, "60 seconds that spec.activeDeadlineSeconds gives it: it was in epoch 1 of 2")
	if failure := job.Status.LastFailure; failure == nil || failure.Reason != spec.ReasonInterrupted || *failure.ExitCode != spec.ExitInterrupted {
		t.Errorf("the last failure is %+v", failure)
	}
}

// A pod that published and was deleted before it was read: the run is made
// again rather than said to have failed.
func TestResultLost(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	b.pass()
	b.finish(batchv1.JobComplete, batchv1.JobReasonCompletionsReached)
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonResultLost, "gives the same model")
	first := b.job()
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonResultLost, "")
	b.collect(first)
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, "")
	if again := b.job(); again == nil || again.UID == first.UID {
		t.Errorf("the Job is %+v", again)
	}
}

func TestCheckpointClaimIsMissing(t *testing.T) {
	b := newBench(t)
	b.createData()
	job := sample(b.namespace)
	job.Spec.Checkpoint = v1alpha1.Checkpoint{PersistentVolumeClaim: &v1alpha1.CheckpointClaim{ClaimName: "scratch", Path: "runs"}, EverySteps: 100}
	b.create(job)
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonCheckpointClaimMissing, "there is no PersistentVolumeClaim "+b.namespace+"/scratch, which spec.checkpoint names")
	b.expectEvent("Warning", "CheckpointClaimMissing")
	b.create(&corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "scratch", Namespace: b.namespace},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	})
	b.pass()
	made := b.job()
	if made == nil {
		t.Fatal("the claim is there, and no Job was made")
	}
	mounts := made.Spec.Template.Spec.Containers[0].VolumeMounts
	at := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/checkpoint" })
	if at < 0 || mounts[at].ReadOnly {
		t.Errorf("mounts are %+v", mounts)
	}
	checkpoint := trainSpec(b.read(), spec.Repository{}).Checkpoint
	if want := "/checkpoint/runs/digits-" + string(b.read().UID); checkpoint.Directory != want || checkpoint.Tag != "" || checkpoint.EverySteps != 100 {
		t.Errorf("the trainer is told %+v, want %s", checkpoint, want)
	}
}

// What keeps the Job controller from making a pod is told in its words.
func TestPodCantBeCreated(t *testing.T) {
	b := newBench(t)
	b.createData()
	b.create(sample(b.namespace))
	b.pass()
	made := b.job()
	b.create(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "e", Namespace: b.namespace},
		InvolvedObject: corev1.ObjectReference{Kind: "Job", Namespace: b.namespace, Name: made.Name, UID: made.UID},
		Type:           corev1.EventTypeWarning, Reason: "FailedCreate", Message: `pods "digits-" is forbidden: exceeded quota`,
		LastTimestamp: metav1.Now(),
	})
	b.Now = func() time.Time { return time.Now().Add(time.Minute) }
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, "the run's pod can't be created: FailedCreate: pods \"digits-\" is forbidden: exceeded quota")
}

func TestPodTemplateReachesThePod(t *testing.T) {
	b := newBench(t)
	b.createData()
	job := sample(b.namespace)
	job.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
	job.Spec.PodTemplate = v1alpha1.PodTemplate{
		Labels:             map[string]string{"team": "vision", v1alpha1.TrainingJobLabel: "mine"},
		Annotations:        map[string]string{"note": "x"},
		NodeSelector:       map[string]string{"disktype": "ssd"},
		Tolerations:        []corev1.Toleration{{Key: "training", Operator: corev1.TolerationOpExists}},
		Affinity:           &corev1.Affinity{NodeAffinity: affinityTo("a")},
		PriorityClassName:  "batch",
		ServiceAccountName: "trainer",
		ImagePullSecrets:   []corev1.LocalObjectReference{{Name: "registry"}},
		Env:                []corev1.EnvVar{{Name: "HTTPS_PROXY", Value: "http://proxy"}, {Name: spec.TrainVariable, Value: "mine"}},
	}
	b.create(job)
	b.pass()
	got, want := b.job().Spec.Template, job.Spec.PodTemplate
	if got.Labels["team"] != "vision" || got.Labels[v1alpha1.TrainingJobLabel] != "digits" || got.Annotations["note"] != "x" {
		t.Errorf("metadata is %+v", got.ObjectMeta)
	}
	s := got.Spec
	if !reflect.DeepEqual(s.NodeSelector, want.NodeSelector) || !reflect.DeepEqual(s.Tolerations, want.Tolerations) || !reflect.DeepEqual(s.Affinity, want.Affinity) ||
		s.PriorityClassName != "batch" || s.ServiceAccountName != "trainer" || !reflect.DeepEqual(s.ImagePullSecrets, want.ImagePullSecrets) || *s.AutomountServiceAccountToken {
		t.Errorf("the pod's spec is %+v", s)
	}
	container := s.Containers[0]
	env := map[string]string{}
	for _, variable := range container.Env {
		env[variable.Name] = variable.Value
	}
	if env["HTTPS_PROXY"] != "http://proxy" || !strings.HasPrefix(env[spec.TrainVariable], "{") {
		t.Errorf("the environment is %v", env)
	}
	if _, limited := container.Resources.Requests[corev1.ResourceMemory]; limited || container.Resources.Requests.Cpu().String() != "100m" {
		t.Errorf("resources are %+v", container.Resources)
	}
}

// Every field but suspend is in the rule that keeps the spec as it is, and the
// rule sees changes deep inside.
func TestSpecIsImmutable(t *testing.T) {
	b := newBench(t)
	job := sample(b.namespace)
	job.Spec.PodTemplate.Affinity = &corev1.Affinity{NodeAffinity: affinityTo("a")}
	b.create(job)
	job = b.read()
	if job.Spec.Training.BatchSize != 32 || job.Spec.Training.Optimizer.Name != spec.Adam || *job.Spec.BackoffLimit != 3 {
		t.Errorf("defaults are %+v", job.Spec)
	}
	changes := map[string]func(*v1alpha1.TrainingJobSpec){
		"Network":                 func(s *v1alpha1.TrainingJobSpec) { s.Network.Layers[0].Units = 9 },
		"Dataset":                 func(s *v1alpha1.TrainingJobSpec) { s.Dataset.Source.ConfigMap.Key = "other" },
		"Training":                func(s *v1alpha1.TrainingJobSpec) { s.Training.Epochs = 5 },
		"ActiveDeadlineSeconds":   func(s *v1alpha1.TrainingJobSpec) { s.ActiveDeadlineSeconds = new(int64(5)) },
		"BackoffLimit":            func(s *v1alpha1.TrainingJobSpec) { s.BackoffLimit = new(int32(5)) },
		"TTLSecondsAfterFinished": func(s *v1alpha1.TrainingJobSpec) { s.TTLSecondsAfterFinished = new(int32(5)) },
		"Workers":                 func(s *v1alpha1.TrainingJobSpec) { s.Workers = 5 },
		"Checkpoint":              func(s *v1alpha1.TrainingJobSpec) { s.Checkpoint.EverySteps = 5 },
		"Resources": func(s *v1alpha1.TrainingJobSpec) {
			s.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
		},
		"PodTemplate": func(s *v1alpha1.TrainingJobSpec) { s.PodTemplate.Affinity.NodeAffinity = affinityTo("b") },
	}
	for field := range reflect.TypeFor[v1alpha1.TrainingJobSpec]().Fields() {
		if field.Name == "Suspend" {
			continue
		}
		change, ok := changes[field.Name]
		if !ok {
			t.Errorf("nothing says whether %s can be changed", field.Name)
			continue
		}
		changed := job.DeepCopy()
		change(&changed.Spec)
		err := server.Client.Update(t.Context(), changed, client.DryRunAll)
		if err == nil || !strings.Contains(err.Error(), "a TrainingJob's spec can't be changed, but for suspend") {
			t.Errorf("changing %s gives %v", field.Name, err)
		}
	}
	b.setSuspend(true)
}

func affinityTo(zone string) *corev1.NodeAffinity {
	return &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{zone}}}}},
	}}
}
