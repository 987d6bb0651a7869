package modelservice

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

var ourRegistry = spec.Repository{Name: "registry:5000/models", PlainHTTP: true}

func serviceOf(source v1alpha1.ModelSource) *v1alpha1.ModelService {
	return &v1alpha1.ModelService{ObjectMeta: metav1.ObjectMeta{Name: "iris", Namespace: "ns"}, Spec: v1alpha1.ModelServiceSpec{Model: source}}
}

func TestAddresses(t *testing.T) {
	ours := spec.Repository{Name: "registry:5000/models/ns/iris", PlainHTTP: true}
	digest := published("a").Digest
	web := &spec.HTTPSSource{URL: "https://example.com/iris.onnx?signature=hidden"}
	bucket := &spec.S3Source{Bucket: "models", Key: "iris.onnx", Endpoint: "minio:9000"}
	secret := &spec.SecretName{Name: "keys"}
	for _, test := range []struct {
		name   string
		source v1alpha1.ModelSource
		want   spec.Follow
	}{
		{"a web server", v1alpha1.ModelSource{HTTPS: web},
			spec.Follow{SourceName: "https://example.com/iris.onnx", HTTPS: web, Repository: ours, EverySeconds: 60}},
		{"a bucket", v1alpha1.ModelSource{S3: bucket, PollInterval: &metav1.Duration{Duration: time.Hour}},
			spec.Follow{SourceName: "s3://models/iris.onnx at minio:9000", S3: bucket, Repository: ours, EverySeconds: 3600}},
		{"a volume, once", v1alpha1.ModelSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "models", Path: "x/iris.onnx"}, PollInterval: &metav1.Duration{}},
			spec.Follow{SourceName: "PersistentVolumeClaim ns/models, path x/iris.onnx", File: "/source/x/iris.onnx", Repository: ours}},
		{"a tag elsewhere", v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "example.com:5000/team/iris:v1", CredentialsSecret: secret}},
			spec.Follow{SourceName: "example.com:5000/team/iris:v1", Tag: "v1", EverySeconds: 60,
				Repository: spec.Repository{Name: "example.com:5000/team/iris", CredentialsFile: spec.RegistryCredentialsFile}}},
		{"a tag for everyone", v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "example.com/iris:v1", PlainHTTP: true}},
			spec.Follow{SourceName: "example.com/iris:v1", Tag: "v1", EverySeconds: 60, Repository: spec.Repository{Name: "example.com/iris", PlainHTTP: true}}},
		{"a tag in our registry", v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "registry:5000/models/ns/other:v1"}},
			spec.Follow{SourceName: "registry:5000/models/ns/other:v1", Tag: "v1", EverySeconds: 60, Repository: spec.Repository{Name: "registry:5000/models/ns/other", PlainHTTP: true}}},
		{"a digest is looked at once", v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "example.com/iris:v1@" + digest}, NewContract: true},
			spec.Follow{SourceName: "example.com/iris:v1@" + digest, Tag: digest, NewContract: true, Repository: spec.Repository{Name: "example.com/iris"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.want.Name = "iris"
			service := serviceOf(test.source)
			at := addressOf(service, ourRegistry)
			if diff := cmp.Diff(test.want, at.what); diff != "" {
				t.Error(diff)
			}
			if at.once() != (test.want.EverySeconds == 0) {
				t.Errorf("once: %v", at.once())
			}
		})
	}
	if at := addressOf(serviceOf(v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: "iris"}}), ourRegistry); at != nil {
		t.Errorf("a TrainingJob is looked for at %+v", at.what)
	}
}

// TestReached shows what is the pod's own to our registry only.
func TestReached(t *testing.T) {
	elsewhere := &v1alpha1.OCISource{Reference: "example.com/iris:v1", CredentialsSecret: &spec.SecretName{Name: "keys"}}
	for _, test := range []struct {
		name string
		oci  *v1alpha1.OCISource
		want spec.Repository
	}{
		{"registry:5000/models/ns/iris", nil, spec.Repository{PlainHTTP: true}},
		{"registry:5000/models/ns/iris", elsewhere, spec.Repository{PlainHTTP: true}},
		// The model before, from where spec.model does not point any more.
		{"other.example.com/iris", elsewhere, spec.Repository{}},
		{"other.example.com/iris", nil, spec.Repository{}},
		{"example.com/iris", elsewhere, spec.Repository{CredentialsFile: spec.RegistryCredentialsFile}},
		{"registry:5000/models/ns/iris", &v1alpha1.OCISource{Reference: "registry:5000/models/ns/iris:v1", CredentialsSecret: &spec.SecretName{Name: "keys"}, PlainHTTP: true},
			spec.Repository{PlainHTTP: true, CredentialsFile: spec.RegistryCredentialsFile}},
	} {
		test.want.Name = test.name
		if got := reached(test.oci, test.name, ourRegistry); got != test.want {
			t.Errorf("%s of %+v is reached by %+v, want %+v", test.name, test.oci, got, test.want)
		}
	}
}

func TestResolveAddress(t *testing.T) {
	bucket := v1alpha1.ModelSource{S3: &spec.S3Source{Bucket: "models", Key: "iris.onnx"}}
	once, pinnedTo := *bucket.DeepCopy(), *bucket.DeepCopy()
	once.PollInterval = &metav1.Duration{}
	pinnedTo.Digest = published("c").Digest
	found := func(digit string) *spec.Model {
		return &spec.Model{Reference: published(digit).Reference, Digest: published(digit).Digest}
	}
	refused := &spec.Failure{Reason: spec.ReasonSourceRefused, Message: "there is no object"}
	for _, test := range []struct {
		name   string
		source v1alpha1.ModelSource
		// before is the model of the status, and here whether it was found at this
		// address.
		before          string
		here            bool
		lookout         lookout
		stopped         bool
		model           string
		reason, message string
		wanted          bool
	}{
		{"no pod yet", bucket, "", false, lookout{progress: "waiting for a pod"}, false, "", v1alpha1.ReasonLooking, "waiting for a pod", true},
		{"another model until then", bucket, "a", false, lookout{progress: "waiting for a pod"}, false, "a", v1alpha1.ReasonLooking, "waiting for a pod", true},
		{"a pod that starts again", bucket, "a", true, lookout{progress: "waiting for a pod"}, false, "a", "", "", true},
		{"a pod that can't start", bucket, "a", true, lookout{trouble: "nobody looks: no room"}, false, "a", v1alpha1.ReasonFollowerFailing, "no room", true},
		{"the first", bucket, "", false, lookout{told: spec.Followed{Model: found("b")}}, false, "b", "", "", true},
		{"a new one", bucket, "a", true, lookout{told: spec.Followed{Model: found("b")}}, false, "b", "", "", true},
		{"none, and why", bucket, "a", false, lookout{told: spec.Followed{Failure: refused}}, false, "a", spec.ReasonSourceRefused, "there is no object", true},
		{"none any more", bucket, "a", true, lookout{told: spec.Followed{Model: found("a"), Failure: refused}}, false, "a", spec.ReasonSourceRefused, "there is no object", true},
		{"once, not yet", once, "a", false, lookout{}, false, "a", v1alpha1.ReasonLooking, "", true},
		{"once, and found", once, "a", true, lookout{}, false, "a", "", "", false},
		{"stopped", bucket, "a", true, lookout{}, true, "a", "", "", false},
		{"stopped before it began", bucket, "", false, lookout{}, true, "", v1alpha1.ReasonStopped, "", false},
		{"pinned", pinnedTo, "a", true, lookout{}, false, "c", "", "", false},
		{"pinned, and nothing was served before", pinnedTo, "", false, lookout{}, false, "c", "", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			service := serviceOf(test.source)
			service.Spec.Stopped = test.stopped
			at := addressOf(service, ourRegistry)
			if test.before != "" {
				service.Status.Model = published(test.before)
			}
			if test.here {
				service.Status.Source = &v1alpha1.SourceStatus{Name: "s3://models/iris.onnx", Fingerprint: at.fingerprint(), Found: metav1.Unix(1, 0)}
			}
			got := resolve(service, nil, at, test.lookout)
			want := ""
			if test.model != "" {
				want = published(test.model).Digest
			}
			if (got.model == nil) != (want == "") || (got.model != nil && got.model.Digest != want) || got.reason != test.reason || !strings.Contains(got.message, test.message) {
				t.Errorf("got %+v, %s, %q; want %s, %s, ...%q...", got.model, got.reason, got.message, want, test.reason, test.message)
			}
			if wanted := followerWanted(service, at); wanted != test.wanted {
				t.Errorf("a pod that looks is wanted: %v", wanted)
			}
			kept := test.here && test.model == test.before
			if from := got.source; test.source.Digest == "" && test.lookout.told.Model != nil && (from == nil || from.Fingerprint != at.fingerprint() || from.Found.IsZero() == kept) {
				t.Errorf("found at %+v", from)
			}
			if test.source.Digest != "" && (got.source != nil || repositoryOf(got.model.Reference) != "registry:5000/models/ns/iris") {
				t.Errorf("a pinned model is looked for in %s, and found at %+v", got.model.Reference, got.source)
			}
		})
	}
}

// TestFollowerPod has what its address needs, and nothing that a follower must
// not have.
func TestFollowerPod(t *testing.T) {
	secret := &spec.SecretName{Name: "keys"}
	for _, test := range []struct {
		name    string
		source  v1alpha1.ModelSource
		volumes []string
	}{
		{"public", v1alpha1.ModelSource{HTTPS: &spec.HTTPSSource{URL: "https://example.com/iris.onnx"}}, nil},
		{"web", v1alpha1.ModelSource{HTTPS: &spec.HTTPSSource{URL: "https://example.com/iris.onnx", CredentialsSecret: secret}}, []string{"/var/run/secrets/trainyard.dev/source: Secret keys"}},
		{"bucket", v1alpha1.ModelSource{S3: &spec.S3Source{Bucket: "models", Key: "iris.onnx", CredentialsSecret: secret}}, []string{"/var/run/secrets/trainyard.dev/source: Secret keys"}},
		{"claim", v1alpha1.ModelSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "models", Path: "iris.onnx"}}, []string{"/source: claim models"}},
		{"registry", v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: "example.com/iris:v1", CredentialsSecret: secret}}, []string{"/var/run/secrets/trainyard.dev/pull: Secret keys"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			service := serviceOf(test.source)
			service.Spec.PodTemplate.Env = []corev1.EnvVar{{Name: "HTTPS_PROXY", Value: "http://proxy:3128"}}
			at := addressOf(service, ourRegistry)
			deployment, err := buildFollower(service, at, Runtime{Image: "runtime:test", Registry: ourRegistry})
			if err != nil {
				t.Fatal(err)
			}
			template := decoded[corev1.PodTemplateSpec](t, deployment.Spec.Template)
			pod := template.Spec
			var volumes []string
			for _, volume := range pod.Volumes {
				for _, mount := range pod.Containers[0].VolumeMounts {
					switch {
					case mount.Name != volume.Name:
					case volume.Secret != nil && *volume.Secret.Optional && mount.ReadOnly:
						volumes = append(volumes, mount.MountPath+": Secret "+volume.Secret.SecretName)
					case volume.PersistentVolumeClaim != nil && volume.PersistentVolumeClaim.ReadOnly && mount.ReadOnly:
						volumes = append(volumes, mount.MountPath+": claim "+volume.PersistentVolumeClaim.ClaimName)
					}
				}
			}
			if diff := cmp.Diff(test.volumes, volumes); diff != "" {
				t.Error(diff)
			}
			if template.Labels[v1alpha1.ModelServiceLabel] != "" || template.Labels[v1alpha1.FollowerLabel] != "iris" || template.Labels[v1alpha1.SourceLabel] != at.fingerprint() {
				t.Errorf("its labels are %v", template.Labels)
			}
			if *pod.AutomountServiceAccountToken || !*pod.SecurityContext.RunAsNonRoot || !*pod.Containers[0].SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("it may do more than it has to: %+v", pod)
			}
			env := map[string]string{}
			for _, variable := range pod.Containers[0].Env {
				env[variable.Name] = variable.Value
			}
			var told spec.Follow
			if err := json.Unmarshal([]byte(env[spec.FollowVariable]), &told); err != nil || told.SourceName != at.what.SourceName || env["HTTPS_PROXY"] == "" {
				t.Errorf("it is told %v, %v", env, err)
			}
		})
	}
}

// decoded turns what is applied into the API's type: they have the same JSON.
func decoded[T any](t *testing.T, applied any) T {
	t.Helper()
	var object T
	encoded, err := json.Marshal(applied)
	if err == nil {
		err = json.Unmarshal(encoded, &object)
	}
	if err != nil {
		t.Fatal(err)
	}
	return object
}
