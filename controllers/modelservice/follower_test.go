package modelservice

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// followers plays the pods that look at addresses: each says the same.
type followers struct {
	told  spec.Followed
	asked int
}

func (f *followers) Followed(context.Context, *corev1.Pod) (spec.Followed, error) {
	f.asked++
	if f.told == (spec.Followed{}) {
		return f.told, errors.New("nobody listens")
	}
	return f.told, nil
}

// startFollower plays the Deployment controller and the kubelet: the pod of the
// Deployment that looks at an address, which runs.
func (b *bench) startFollower() *corev1.Pod {
	b.t.Helper()
	var deployment appsv1.Deployment
	if !b.get("digits-follower", &deployment) {
		b.t.Fatal("nobody looks at the address")
	}
	template := deployment.Spec.Template
	template.Spec.ServiceAccountName = "default" // as the API server's admission does, which is off here
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "digits-follower-", Namespace: b.namespace, Labels: template.Labels}, Spec: template.Spec}
	b.create(pod)
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.2"}
	if err := server.Client.Status().Update(b.t.Context(), pod); err != nil {
		b.t.Fatal(err)
	}
	return pod
}

func (b *bench) change(change func(*v1alpha1.ModelServiceSpec)) {
	b.t.Helper()
	service := &v1alpha1.ModelService{}
	b.get("digits", service)
	change(&service.Spec)
	if err := server.Client.Update(b.t.Context(), service); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) loads(digest string) {
	b.t.Helper()
	var configMap corev1.ConfigMap
	var serve spec.Serve
	b.get("digits-serve", &configMap)
	if err := json.Unmarshal([]byte(configMap.Data[spec.ServeKey]), &serve); err != nil || len(serve.Models) != 1 || serve.Models[0].Digest != digest {
		b.t.Fatalf("servers are told to load %+v, %v; want %s", serve.Models, err, digest)
	}
}

func (b *bench) looks() bool { return b.get("digits-follower", &appsv1.Deployment{}) }

func found(digit string) *spec.Model {
	return &spec.Model{Reference: published(digit).Reference, Digest: published(digit).Digest, Bytes: 3, Parameters: 2}
}

func TestFollowsAnAddress(t *testing.T) {
	b := newBench(t)
	b.create(&v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace},
		Spec:       v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{S3: &spec.S3Source{Bucket: "models", Key: "digits.onnx", Endpoint: "minio:9000"}}},
	})
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonLooking, "waiting for a pod that looks at s3://models/digits.onnx at minio:9000")
	pod := b.startFollower()
	if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.EmptyDir != nil && v.EmptyDir.SizeLimit.String() == "3Gi" }) {
		t.Error("what is at the address may fill the node's disk")
	}
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonLooking, "waiting for pod "+pod.Name)
	b.followers.told = spec.Followed{Failure: &spec.Failure{Reason: spec.ReasonSourceRefused, Message: "there is no object"}}
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, spec.ReasonSourceRefused, "there is no object")
	b.told(spec.ReasonSourceRefused, "there is no object")
	if b.get("digits", &appsv1.Deployment{}) {
		t.Error("servers were started that have nothing to serve")
	}

	b.followers.told = spec.Followed{Model: found("a")}
	service := b.pass()
	b.loads(published("a").Digest)
	source := service.Status.Source
	if source == nil || source.Name != "s3://models/digits.onnx at minio:9000" || !source.Found.Time.Equal(b.now.Truncate(time.Second)) || service.Status.Model.Parameters != 2 {
		t.Errorf("the status says %+v, %+v", source, service.Status.Model)
	}
	b.startPod("p", published("a").Digest)
	b.expect(b.pass(), v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, v1alpha1.ReasonStable, "")
	if pods := len(b.podsOf(v1alpha1.ModelServiceLabel)); pods != 1 {
		t.Errorf("%d pods have the label that the Service selects by", pods)
	}
	before := b.writes.Load()
	for range 5 {
		b.pass()
	}
	if b.writes.Load() != before {
		t.Errorf("%d writes although nothing changed", b.writes.Load()-before)
	}

	// What can't be served leaves the model before, and is said.
	b.followers.told = spec.Followed{Model: found("a"), Failure: &spec.Failure{Reason: spec.ReasonContractBroken, Message: "it takes 5 inputs, not 4"}}
	service = b.pass()
	b.expect(service, v1alpha1.ModelServiceReady, metav1.ConditionTrue, v1alpha1.ReasonServing, "")
	b.expect(service, v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, spec.ReasonContractBroken, "it takes 5 inputs, not 4")
	b.told(spec.ReasonContractBroken, "it takes 5 inputs, not 4")
	b.loads(published("a").Digest)

	b.followers.told = spec.Followed{Model: found("b")}
	b.pass()
	b.loads(published("b").Digest)
	if held := b.pods.models["p"].Digest; held != published("b").Digest {
		t.Errorf("the pod holds %s", held)
	}

	// A follower that starts again, as on another node, says nothing for a while.
	b.followers.told = spec.Followed{}
	service = b.pass()
	b.expect(service, v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, v1alpha1.ReasonStable, "")
	if service.Status.Model.Digest != published("b").Digest {
		t.Errorf("the model is %s", service.Status.Model.Digest)
	}

	// Going back is one line, and so is to follow again.
	b.change(func(s *v1alpha1.ModelServiceSpec) { s.Model.Digest = published("a").Digest })
	b.pass()
	b.loads(published("a").Digest)
	if b.pass(); b.looks() {
		t.Error("somebody still looks at the address while a digest is pinned")
	}
	b.change(func(s *v1alpha1.ModelServiceSpec) { s.Model.Digest = "" })
	b.pass()
	if !b.looks() {
		t.Error("nobody looks at the address again")
	}

	// To be stopped is to be left in peace.
	b.change(func(s *v1alpha1.ModelServiceSpec) { s.Stopped = true })
	if b.pass(); b.looks() {
		t.Error("somebody looks for a service that is stopped")
	}
}

func (b *bench) podsOf(label string) []corev1.Pod {
	b.t.Helper()
	var list corev1.PodList
	if err := server.Client.List(b.t.Context(), &list, client.InNamespace(b.namespace)); err != nil {
		b.t.Fatal(err)
	}
	var pods []corev1.Pod
	for _, pod := range list.Items {
		if pod.Labels[label] != "" {
			pods = append(pods, pod)
		}
	}
	return pods
}

// TestLooksOnce has no pod stay behind when the model was found, until the
// address is another.
func TestLooksOnce(t *testing.T) {
	b := newBench(t)
	b.create(&v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace},
		Spec: v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{
			PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "models", Path: "1.onnx"}, PollInterval: &metav1.Duration{}}},
	})
	b.pass()
	first := b.startFollower()
	b.followers.told = spec.Followed{Model: found("a")}
	b.pass()
	service := b.pass()
	if b.looks() || service.Status.Model.Digest != published("a").Digest {
		t.Errorf("somebody still looks: %v, and the model is %+v", b.looks(), service.Status.Model)
	}
	b.loads(published("a").Digest)

	b.change(func(s *v1alpha1.ModelServiceSpec) { s.Model.PollInterval.Duration = time.Hour })
	if b.pass(); !b.looks() {
		t.Error("nobody looks every hour")
	}
	b.change(func(s *v1alpha1.ModelServiceSpec) { s.Model.PollInterval.Duration = 0 })
	if b.pass(); b.looks() {
		t.Error("the address is looked at again, although the model is from there")
	}

	// The pod of the other address has to come first, whatever the one of before
	// says.
	b.change(func(s *v1alpha1.ModelServiceSpec) { s.Model.PersistentVolumeClaim.Path = "2.onnx" })
	service = b.pass()
	b.expect(service, v1alpha1.ModelServiceProgressing, metav1.ConditionFalse, v1alpha1.ReasonLooking, "waiting for a pod that looks at PersistentVolumeClaim "+b.namespace+"/models, path 2.onnx")
	b.loads(published("a").Digest)
	if err := server.Client.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	b.followers.told = spec.Followed{Model: found("b")}
	b.startFollower()
	b.pass()
	b.loads(published("b").Digest)
}

// TestFollowerInTrouble says why nobody looks, in the words of those who know.
func TestFollowerInTrouble(t *testing.T) {
	b := newBench(t)
	b.create(&v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace},
		Spec:       v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "example.com/digits:v1"}}},
	})
	b.pass()
	var deployment appsv1.Deployment
	b.get("digits-follower", &deployment)
	deployment.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota"}}
	if err := server.Client.Status().Update(t.Context(), &deployment); err != nil {
		t.Fatal(err)
	}
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonFollowerFailing, "nobody looks at example.com/digits:v1: pods can't be created: exceeded quota")

	pod := b.startFollower()
	pod.Status.Phase = corev1.PodPending
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: `persistentvolumeclaim "models" not found`}}
	if err := server.Client.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonFollowerFailing, `can't be scheduled: persistentvolumeclaim "models" not found`)
}

// TestForeignFollower doesn't take over what is somebody else's.
func TestForeignFollower(t *testing.T) {
	b := newBench(t)
	labels := map[string]string{"app": "other"}
	b.create(&appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "digits-follower", Namespace: b.namespace},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}},
	})
	b.create(&v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace},
		Spec:       v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "example.com/digits:v1"}}},
	})
	b.expect(b.pass(), v1alpha1.ModelServiceReady, metav1.ConditionFalse, v1alpha1.ReasonNameTaken, "Deployment "+b.namespace+"/digits-follower already exists")
	b.change(func(s *v1alpha1.ModelServiceSpec) { s.Stopped = true })
	if b.pass(); !b.looks() {
		t.Error("somebody else's Deployment was deleted")
	}
}
