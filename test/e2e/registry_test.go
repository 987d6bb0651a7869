package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/test/prober"
)

// orasPull pulls what a reference names, as `oras pull` does it, with a token of
// the namespace's ServiceAccount default as the password.
func orasPull(t *testing.T, reference, namespace, directory string) error {
	t.Helper()
	repository, err := remote.NewRepository(reference)
	if err != nil {
		t.Fatal(err)
	}
	repository.PlainHTTP = true
	repository.Client = &auth.Client{
		Client:     &http.Client{Transport: &http.Transport{DialContext: dialService}},
		Credential: auth.StaticCredential(repository.Reference.Host(), auth.Credential{Username: "anybody", Password: registryToken(t, namespace)}),
	}
	files, err := file.New(directory)
	if err != nil {
		t.Fatal(err)
	}
	_, err = oras.Copy(t.Context(), repository, repository.Reference.Reference, files, "", oras.DefaultCopyOptions)
	return errors.Join(err, files.Close())
}

// dialService reaches Services by their names, which mean nothing outside of the
// cluster. An HTTP transport may still dial when what it dialed for has been
// answered over another connection, and the test is over: that fails nothing.
func dialService(ctx context.Context, network, address string) (net.Conn, error) {
	at, err := addressOf(ctx, address)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, at)
}

// registryToken is what `kubectl create token default --audience` prints.
func registryToken(t *testing.T, namespace string) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: namespace}}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{spec.RegistryAudience}}}
	eventually(t, "a token of ServiceAccount default", 10*time.Second, func(ctx context.Context) error {
		return cluster.SubResource("token").Create(ctx, account, request)
	})
	return request.Status.Token
}

// modelsOf asks a server's operations port what it holds.
func modelsOf(pod *corev1.Pod) ([]spec.ModelStatus, error) {
	response, err := http.Post("http://"+net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(spec.OperationsPort))+"/v2/repository/index", "application/json", nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var models []spec.ModelStatus
	return models, json.NewDecoder(response.Body).Decode(&models)
}

// saysOfModel waits until a server tells why it can't load its model.
func saysOfModel(t *testing.T, pod *corev1.Pod, reason string) {
	t.Helper()
	took := eventually(t, fmt.Sprintf("pod %s to say of its model %q", pod.Name, reason), time.Minute, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Status.PodIP == "" {
			return errors.New("it has no address yet")
		}
		models, err := modelsOf(pod)
		if err != nil {
			return err
		}
		if len(models) != 1 || models[0].State == spec.StateReady || !strings.Contains(models[0].Reason, reason) {
			return fmt.Errorf("it tells %+v", models)
		}
		return nil
	})
	t.Logf("said after %.1f s", took.Seconds())
}

// TestRegistryKeepsNamespacesApart lets pods of one namespace use the repositories
// of another, with the very images, recipes and tokens that pods have.
func TestRegistryKeepsNamespacesApart(t *testing.T) {
	t.Parallel()
	red, blue := newNamespace(t), newNamespace(t)
	create(t, digitsData(t, red))
	create(t, digitsData(t, blue))
	job := sampleJob(t, red, "digits")
	job.Spec.Training.Epochs = 1
	create(t, job)
	jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", 2*time.Minute)
	service := sampleService(t, red)
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", 2*time.Minute)

	denied := fmt.Sprintf("denied: system:serviceaccount:%s:default may use only repositories below models/%s/, and asks for models/%s/digits", blue, blue, red)
	t.Run("trainer", func(t *testing.T) {
		var made batchv1.Job
		if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(job), &made); err != nil {
			t.Fatal(err)
		}
		pod := podLike(made.Spec.Template, blue, "trainer")
		create(t, pod)
		eventually(t, "the trainer of another namespace to be refused", time.Minute, func(ctx context.Context) error {
			if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return err
			}
			if pod.Status.Phase != corev1.PodFailed {
				return fmt.Errorf("it is %s", pod.Status.Phase)
			}
			return nil
		})
		var result spec.Result
		message := pod.Status.ContainerStatuses[0].State.Terminated.Message
		if err := json.Unmarshal([]byte(message), &result); err != nil || result.Failure == nil || result.Failure.Reason != spec.ReasonPushRefused || !strings.Contains(result.Failure.Message, denied) {
			t.Errorf("it leaves %q, %v", message, err)
		}
	})

	var deployment appsv1.Deployment
	var config corev1.ConfigMap
	if err := errors.Join(cluster.Get(t.Context(), client.ObjectKeyFromObject(service), &deployment),
		cluster.Get(t.Context(), client.ObjectKey{Namespace: red, Name: service.Name + "-serve"}, &config)); err != nil {
		t.Fatal(err)
	}
	create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: config.Name, Namespace: blue}, Data: config.Data})
	t.Run("server", func(t *testing.T) {
		pod := podLike(deployment.Spec.Template, blue, "server")
		create(t, pod)
		saysOfModel(t, pod, denied)
	})
	t.Run("server without a token", func(t *testing.T) {
		var serve spec.Serve
		if err := json.Unmarshal([]byte(config.Data[spec.ServeKey]), &serve); err != nil {
			t.Fatal(err)
		}
		serve.Models[0].Repository.TokenFile = ""
		encoded, err := json.Marshal(serve)
		if err != nil {
			t.Fatal(err)
		}
		create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "tokenless", Namespace: red}, Data: map[string]string{spec.ServeKey: string(encoded)}})
		pod := podLike(deployment.Spec.Template, red, "tokenless")
		for i := range pod.Spec.Volumes {
			if from := pod.Spec.Volumes[i].ConfigMap; from != nil {
				from.Name = "tokenless"
			}
		}
		create(t, pod)
		saysOfModel(t, pod, "401 Unauthorized: unauthorized: there is no password; give the token of a ServiceAccount for the audience "+spec.RegistryAudience)
	})
	t.Run("oras", func(t *testing.T) {
		if err := orasPull(t, job.Status.Model.Reference, red, t.TempDir()); err != nil {
			t.Errorf("pulling one's own: %v", err)
		}
		if err := orasPull(t, job.Status.Model.Reference, blue, t.TempDir()); err == nil || !strings.Contains(err.Error(), denied) {
			t.Errorf("pulling another's ends in %v", err)
		}
	})
}

// podLike is a pod as the template makes them, which nobody looks after.
func podLike(template corev1.PodTemplateSpec, namespace, name string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Spec: template.Spec}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	return pod
}

// TestManagerDown takes the manager away, which issues the registry's tokens.
// Servers go on; one that starts says what it waits for, and starts when the
// manager is back. It changes what every other story needs, so it is told alone,
// before them.
func TestManagerDown(t *testing.T) {
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	job := sampleJob(t, namespace, "digits")
	job.Spec.Training.Epochs = 1
	create(t, job)
	service := sampleService(t, namespace)
	service.Spec.Autoscaling = v1alpha1.Autoscaling{MinReplicas: new(int32(2)), MaxReplicas: new(int32(2))}
	create(t, service)
	wantReady(t, service, 2)

	probe := prober.New(address(t, service)+"/v2/models/digits/infer", inference(t), time.Minute)
	loading, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); probe.Run(loading, 10) }()
	scale(t, "manager", 0)
	defer scale(t, "manager", 1)
	before := podsOf(t, modelServicePods(service), namespace)
	remove(t, &before[0])
	var starting *corev1.Pod
	eventually(t, "another pod in the place of one that was deleted", time.Minute, func(context.Context) error {
		for _, pod := range podsOf(t, modelServicePods(service), namespace) {
			if pod.UID != before[0].UID && pod.UID != before[1].UID {
				starting = &pod
				return nil
			}
		}
		return errors.New("there is none")
	})
	saysOfModel(t, starting, "registry registry.trainyard-system.svc:5000 does not answer: it wants a token from registry-tokens.trainyard-system.svc, and there:")

	scale(t, "manager", 1)
	back := time.Now()
	wantReady(t, service, 2)
	t.Logf("%.1f s after the manager is back, both pods are ready", time.Since(back).Seconds())
	stop()
	<-ended
	count := probe.Count()
	t.Logf("%d requests while the manager was away, %d failed", count.Sent, count.Failed)
	if count.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", count.Failed, count.Sent, count.Failures)
	}
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(starting), starting); err != nil || starting.Status.ContainerStatuses[0].RestartCount > 0 {
		t.Errorf("the pod that waited is %+v, %v", starting.Status.ContainerStatuses, err)
	}
}

// wantReady waits until a service's Deployment has that many ready pods.
func wantReady(t *testing.T, service *v1alpha1.ModelService, replicas int32) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d ready pods of %s", replicas, service.Name), 2*time.Minute, func(ctx context.Context) error {
		var deployment appsv1.Deployment
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(service), &deployment); err != nil {
			return err
		}
		if deployment.Status.ReadyReplicas != replicas {
			return errors.New(deployment.Status.String())
		}
		return nil
	})
}

// TestAnotherSigningKey takes the current key away, as docs/registry.md has it.
// The registry runs on: the key that signs from then on is one that it trusts. A
// registry that starts later trusts the old one no more.
func TestAnotherSigningKey(t *testing.T) {
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	train := func(name string) {
		t.Helper()
		job := sampleJob(t, namespace, name)
		job.Spec.Training.Epochs = 1
		create(t, job)
		jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "", 2*time.Minute)
	}
	train("before")
	keys := func() map[string][]byte {
		t.Helper()
		var secret corev1.Secret
		if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: operatorNamespace, Name: "registry-tokens"}, &secret); err != nil {
			t.Fatal(err)
		}
		return secret.Data
	}
	before := keys()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "registry-tokens", Namespace: operatorNamespace}}
	if err := cluster.Patch(t.Context(), secret, client.RawPatch(types.MergePatchType, []byte(`{"data": {"current.json": null}}`))); err != nil {
		t.Fatal(err)
	}
	restart(t, "manager")
	after := keys()
	if string(after["current.json"]) != string(before["next.json"]) || len(after["next.json"]) == 0 || string(after["next.json"]) == string(before["next.json"]) {
		t.Error("the next key did not take the place of the current one")
	}
	train("signed-by-the-next")
	restart(t, "registry")
	train("after")
}

// restart replaces the pods of one of the operator's Deployments, and waits until
// the new ones are ready.
func restart(t *testing.T, deployment string) {
	t.Helper()
	kubectl(t, "rollout", "restart", "deployment/"+deployment, "--namespace", operatorNamespace)
	kubectl(t, "rollout", "status", "deployment/"+deployment, "--namespace", operatorNamespace, "--timeout=120s")
}
