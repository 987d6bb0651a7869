package trainingjob

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

const someURL = "https://data.example.com/iris.csv"

// secretKeys are the environment variables that come from Secrets, as
// variable=secret/key.
func secretKeys(container corev1.Container) []string {
	var found []string
	for _, e := range container.Env {
		if e.ValueFrom != nil {
			found = append(found, fmt.Sprintf("%s=%s/%s", e.Name, e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Key))
		}
	}
	for _, e := range container.EnvFrom {
		found = append(found, fmt.Sprintf("%s*=%s", e.Prefix, e.SecretRef.Name))
	}
	return found
}

func TestSources(t *testing.T) {
	for _, test := range []struct {
		name           string
		source         spec.DatasetSource
		called, opened string
		volume         *corev1.VolumeSource
		secrets        []string
	}{
		{"ConfigMap", spec.DatasetSource{ConfigMap: &spec.KeyReference{Name: "flowers", Key: "iris.csv"}},
			"ConfigMap default/flowers, key iris.csv", "/dataset/iris.csv",
			&corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "flowers"},
				Items:                []corev1.KeyToPath{{Key: "iris.csv", Path: "iris.csv"}},
			}}, nil},
		{"Secret", spec.DatasetSource{Secret: &spec.KeyReference{Name: "patients", Key: "p.csv"}},
			"Secret default/patients, key p.csv", "/dataset/p.csv",
			&corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
				SecretName: "patients", Items: []corev1.KeyToPath{{Key: "p.csv", Path: "p.csv"}},
			}}, nil},
		{"claim", spec.DatasetSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "disk", Path: "a/b.csv"}},
			"PersistentVolumeClaim default/disk, path a/b.csv", "/dataset/a/b.csv",
			&corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk", ReadOnly: true}}, nil},
		{"https", spec.DatasetSource{HTTPS: &spec.HTTPSSource{URL: someURL + "?signature=secret"}},
			someURL, someURL + "?signature=secret", nil, nil},
		{"https with credentials", spec.DatasetSource{HTTPS: &spec.HTTPSSource{URL: someURL, CredentialsSecret: &spec.SecretName{Name: "web"}}},
			someURL, someURL, nil, []string{"TRAINYARD_SOURCE_*=web"}},
		{"s3", spec.DatasetSource{S3: &spec.S3Source{Bucket: "data", Key: "a/b.csv", Endpoint: "minio:9000", CredentialsSecret: &spec.SecretName{Name: "keys"}}},
			"s3://data/a/b.csv at minio:9000", "s3://data/a/b.csv", nil,
			[]string{"TRAINYARD_SOURCE_accessKey=keys/accessKey", "TRAINYARD_SOURCE_secretKey=keys/secretKey", "TRAINYARD_SOURCE_ca.crt=keys/ca.crt"}},
		{"s3 in public", spec.DatasetSource{S3: &spec.S3Source{Bucket: "data", Key: "b.csv", Endpoint: "minio:9000"}},
			"s3://data/b.csv at minio:9000", "s3://data/b.csv", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			job := sample("default")
			job.Spec.Dataset.Source = test.source
			made, err := buildJob(job, Runtime{Image: "i"})
			if err != nil {
				t.Fatal(err)
			}
			pod := made.Spec.Template.Spec
			var told spec.Train
			if err := json.Unmarshal([]byte(pod.Containers[0].Env[0].Value), &told); err != nil {
				t.Fatal(err)
			}
			if told.SourceName != test.called || told.Source != test.opened {
				t.Errorf("the trainer opens %q, called %q; want %q, called %q", told.Source, told.SourceName, test.opened, test.called)
			}
			if diff := cmp.Diff(test.secrets, secretKeys(pod.Containers[0])); diff != "" {
				t.Error(diff)
			}
			checkDatasetVolume(t, pod, test.volume)
		})
	}
}

func checkDatasetVolume(t *testing.T, pod corev1.PodSpec, want *corev1.VolumeSource) {
	t.Helper()
	var got *corev1.VolumeSource
	for _, v := range pod.Volumes {
		if v.Name == "dataset" {
			got = &v.VolumeSource
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, mount := range pod.Containers[0].VolumeMounts {
		if mount.Name == "dataset" && !mount.ReadOnly {
			t.Error("the dataset can be written to")
		}
	}
	if len(pod.Containers[0].VolumeMounts) != len(pod.Volumes) {
		t.Errorf("%d mounts of %d volumes", len(pod.Containers[0].VolumeMounts), len(pod.Volumes))
	}
}

func TestWaitsForClaim(t *testing.T) {
	b := newBench(t)
	job := sample(b.namespace)
	job.Spec.Dataset.Source = spec.DatasetSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "disk", Path: "digits.csv"}}
	b.create(job)
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonDatasetMissing, "there is no PersistentVolumeClaim "+b.namespace+"/disk")

	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "disk", Namespace: b.namespace},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	b.create(claim)
	claim.Status.Phase = corev1.ClaimLost
	if err := server.Client.Status().Update(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonDatasetMissing, "has lost its volume")

	claim.Status.Phase = corev1.ClaimPending
	if err := server.Client.Status().Update(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	b.pass()
	if b.job() == nil {
		t.Error("the run waits for a claim that may be bound only when a pod uses it")
	}
}

// TestTellsWhatTheKubeletSays has a pod whose Secret is missing: a container
// that needs it says so itself, and a volume only in Events.
func TestTellsWhatTheKubeletSays(t *testing.T) {
	b := newBench(t)
	job := sample(b.namespace)
	job.Spec.Dataset.Source = spec.DatasetSource{Secret: &spec.KeyReference{Name: "patients", Key: "p.csv"}}
	b.create(job)
	b.pass()
	b.play("digits-1", pod("p", corev1.PodPending))
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending, "pod digits-1 ")

	made := &corev1.Pod{}
	if err := server.Client.Get(t.Context(), client.ObjectKey{Namespace: b.namespace, Name: "digits-1"}, made); err != nil {
		t.Fatal(err)
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: made.Name, Namespace: made.Namespace}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := server.Client.SubResource("binding").Create(t.Context(), made, binding); err != nil {
		t.Fatal(err)
	}
	for i, message := range []string{"an older trouble", `MountVolume.SetUp failed for volume "dataset" : secret "patients" not found`} {
		b.create(&corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: fmt.Sprintf("e%d", i), Namespace: b.namespace},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: b.namespace, Name: made.Name, UID: made.UID},
			Type:           corev1.EventTypeWarning, Reason: "FailedMount", Message: message,
			LastTimestamp: metav1.NewTime(time.Now().Add(time.Duration(i) * time.Minute)),
		})
	}
	b.Now = func() time.Time { return time.Now().Add(time.Minute) }
	b.expect(b.pass(), v1alpha1.TrainingJobProgressing, v1alpha1.ReasonPodPending,
		`pod digits-1 can't start: FailedMount: MountVolume.SetUp failed for volume "dataset" : secret "patients" not found`)
}

func TestSchemaOfSources(t *testing.T) {
	namespace := server.Namespace(t)
	configMap := &spec.KeyReference{Name: "data", Key: "digits.csv"}
	for _, test := range []struct {
		name    string
		source  spec.DatasetSource
		message string // empty: it is accepted
	}{
		{"none", spec.DatasetSource{}, "name a source for the dataset, exactly one"},
		{"two", spec.DatasetSource{ConfigMap: configMap, Secret: configMap}, "name a source for the dataset, exactly one"},
		{"a Secret", spec.DatasetSource{Secret: configMap}, ""},
		{"a file", claimPath("a/b..c/..d.csv"), ""},
		{"a path upwards", claimPath("a/../../etc/passwd"), "stays inside"},
		{"only upwards", claimPath(".."), "stays inside"},
		{"a path from the root", claimPath("/etc/passwd"), "stays inside"},
		{"a URL", spec.DatasetSource{HTTPS: &spec.HTTPSSource{URL: "https://h/a@b?c=@"}}, ""},
		{"http", spec.DatasetSource{HTTPS: &spec.HTTPSSource{URL: "http://h/a"}}, "starts with https://"},
		{"no host", spec.DatasetSource{HTTPS: &spec.HTTPSSource{URL: "https:///a"}}, "starts with https://"},
		{"a password", spec.DatasetSource{HTTPS: &spec.HTTPSSource{URL: "https://me:secret@h/a"}}, "leave user and password out"},
		{"a password and no path", spec.DatasetSource{HTTPS: &spec.HTTPSSource{URL: "https://me:secret@h"}}, "leave user and password out"},
		{"a short hash", spec.DatasetSource{HTTPS: &spec.HTTPSSource{URL: someURL, SHA256: "abc"}}, "sha256"},
		{"an object", spec.DatasetSource{S3: &spec.S3Source{Bucket: "data", Key: "k", Endpoint: "minio.storage:9000"}}, ""},
		{"an endpoint that is a URL", spec.DatasetSource{S3: &spec.S3Source{Bucket: "data", Key: "k", Endpoint: "https://minio"}}, "endpoint"},
	} {
		t.Run(test.name, func(t *testing.T) {
			job := sample(namespace)
			job.Spec.Dataset.Source = test.source
			expectRefusal(t, server.Client.Create(t.Context(), job, client.DryRunAll), test.message)
		})
	}
}

func claimPath(path string) spec.DatasetSource {
	return spec.DatasetSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "disk", Path: path}}
}

func TestSchemaOfMissing(t *testing.T) {
	namespace := server.Namespace(t)
	for _, test := range []struct {
		missing spec.Missing
		message string
	}{
		{spec.Missing{Policy: spec.DropRow}, ""},
		{spec.Missing{Policy: spec.FillConstant, Value: -1}, ""},
		{spec.Missing{Policy: spec.FillMean, Value: 1}, "value is for policy: Constant"},
		{spec.Missing{Policy: "Median"}, `Unsupported value: "Median"`},
	} {
		job := sample(namespace)
		job.Spec.Dataset.Missing, job.Spec.Dataset.OneHot = &test.missing, []string{"color"}
		expectRefusal(t, server.Client.Create(t.Context(), job, client.DryRunAll), test.message)
	}
}

func expectRefusal(t *testing.T, err error, message string) {
	t.Helper()
	switch {
	case message == "" && err != nil:
		t.Errorf("got %v", err)
	case message != "" && (err == nil || !strings.Contains(err.Error(), message)):
		t.Errorf("got %v, want ...%q...", err, message)
	}
}
