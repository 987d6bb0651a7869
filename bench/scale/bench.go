package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/test/prober"
)

// bench is a namespace in which digits are trained.
type bench struct {
	client.Client
	namespace string
	// starts is how often from-zero starts a pod, held how many requests are held.
	starts, held int
}

func selected(wanted, name string) bool {
	return wanted == "" || slices.Contains(strings.Split(wanted, ","), name)
}

// prepare trains the sample's model.
func (b *bench) prepare(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}
	if err := b.Create(ctx, namespace); err != nil {
		return err
	}
	b.namespace = namespace.Name
	content, err := os.ReadFile("config/samples/digits.csv.gz")
	if err != nil {
		return err
	}
	if err := b.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: b.namespace}, BinaryData: map[string][]byte{"digits.csv.gz": content}}); err != nil {
		return err
	}
	job := &v1alpha1.TrainingJob{}
	sample, err := os.ReadFile("config/samples/trainingjob.yaml")
	if err == nil {
		err = yaml.UnmarshalStrict(sample, job)
	}
	if err != nil {
		return err
	}
	job.Namespace, job.Spec.Training.Epochs = b.namespace, 1
	if err := b.Create(ctx, job); err != nil {
		return err
	}
	return b.until(ctx, "the model to be trained", 2*time.Minute, func(ctx context.Context) (bool, error) {
		err := b.Get(ctx, client.ObjectKeyFromObject(job), job)
		return job.Status.Model != nil, err
	})
}

func (b *bench) cleanUp() {
	if err := b.Delete(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}}); err != nil {
		fmt.Fprintln(os.Stderr, "removing namespace", b.namespace+":", err)
	}
}

func (b *bench) until(ctx context.Context, what string, limit time.Duration, holds wait.ConditionWithContextFunc) error {
	if err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, limit, true, holds); err != nil {
		return fmt.Errorf("waited %s for %s: %w", limit, what, err)
	}
	return nil
}

// serve makes a ModelService and waits until it answers.
func (b *bench) serve(ctx context.Context, name string, autoscaling v1alpha1.Autoscaling) (*v1alpha1.ModelService, error) {
	service := b.service(name, autoscaling)
	if err := b.Create(ctx, service); err != nil {
		return nil, err
	}
	return service, b.serves(ctx, service)
}

func (b *bench) service(name string, autoscaling v1alpha1.Autoscaling) *v1alpha1.ModelService {
	return &v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: b.namespace},
		Spec: v1alpha1.ModelServiceSpec{
			Model:       v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: "digits"}},
			Autoscaling: autoscaling,
		},
	}
}

// serves waits until a service has a pod.
func (b *bench) serves(ctx context.Context, service *v1alpha1.ModelService) error {
	return b.until(ctx, service.Name+" to serve", 2*time.Minute, func(ctx context.Context) (bool, error) {
		err := b.Get(ctx, client.ObjectKeyFromObject(service), service)
		return service.Status.Replicas != nil && service.Status.Replicas.Ready > 0, err
	})
}

// remove deletes a service and waits until its pods are gone.
func (b *bench) remove(ctx context.Context, service *v1alpha1.ModelService) error {
	if err := b.Delete(ctx, service); err != nil {
		return err
	}
	return b.gone(ctx, service.Name)
}

// gone waits until a service has no pods.
func (b *bench) gone(ctx context.Context, name string) error {
	return b.until(ctx, "the pods of "+name+" to be gone", 3*time.Minute, func(ctx context.Context) (bool, error) {
		pods, err := b.pods(ctx, name)
		return len(pods) == 0, err
	})
}

func (b *bench) pods(ctx context.Context, name string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := b.List(ctx, &pods, client.InNamespace(b.namespace), client.MatchingLabels{v1alpha1.ModelServiceLabel: name})
	return pods.Items, err
}

// address is a service's, for one of its ports: this machine's programs don't know
// the cluster's names.
func (b *bench) address(ctx context.Context, name, port string) (string, error) {
	var service corev1.Service
	err := b.Get(ctx, client.ObjectKey{Namespace: b.namespace, Name: name}, &service)
	return net.JoinHostPort(service.Spec.ClusterIP, port), err
}

func (b *bench) probe(ctx context.Context, name string) (*prober.Prober, error) {
	address, err := b.address(ctx, name, "80")
	row := make([]float64, 64)
	body := map[string]any{"inputs": []any{map[string]any{"name": "inputs", "datatype": "FP32", "shape": []int{1, 64}, "data": row}}}
	return prober.New("http://"+address+"/v2/models/"+name+"/infer", body, time.Minute), err
}

// gateways are the gateway's pods that are ready.
func (b *bench) gateways(ctx context.Context) ([]corev1.Pod, error) {
	var all corev1.PodList
	err := b.List(ctx, &all, client.InNamespace("trainyard-system"), client.MatchingLabels{"app.kubernetes.io/component": "gateway"})
	return slices.DeleteFunc(all.Items, func(pod corev1.Pod) bool { return !isReady(&pod) }), err
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
		return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
	})
}

// restarts counts how often containers of a pod were started again.
func restarts(pod *corev1.Pod) (count int32) {
	for _, status := range pod.Status.ContainerStatuses {
		count += status.RestartCount
	}
	return count
}

// none is an autoscaling that has no pods after two seconds of nothing.
func none() v1alpha1.Autoscaling {
	return v1alpha1.Autoscaling{
		MinReplicas: new(int32(0)), MaxReplicas: new(int32(2)),
		IdleTime: &metav1.Duration{Duration: 2 * time.Second}, StabilizationTime: &metav1.Duration{Duration: 2 * time.Second},
	}
}

// twin is a Deployment of the same pods that nobody but the bench scales.
func (b *bench) twin(ctx context.Context, name string) (*appsv1.Deployment, error) {
	var original appsv1.Deployment
	if err := b.Get(ctx, client.ObjectKey{Namespace: b.namespace, Name: name}, &original); err != nil {
		return nil, err
	}
	labels := map[string]string{v1alpha1.ModelServiceLabel: "twin"}
	twin := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "twin", Namespace: b.namespace}, Spec: original.Spec}
	twin.Spec.Replicas, twin.Spec.Selector = new(int32(0)), &metav1.LabelSelector{MatchLabels: labels}
	twin.Spec.Template.Labels = labels
	return twin, b.Create(ctx, twin)
}

// startTwin scales the twin to one as kubectl does, and asks the pod itself
// until it is ready.
func (b *bench) startTwin(ctx context.Context, twin *appsv1.Deployment) (time.Duration, error) {
	began := time.Now()
	if err := b.scale(ctx, twin, 1); err != nil {
		return 0, err
	}
	asking := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	err := b.until(ctx, "the twin to answer", time.Minute, func(ctx context.Context) (bool, error) {
		pods, err := b.pods(ctx, "twin")
		if err != nil || len(pods) == 0 || pods[0].Status.PodIP == "" {
			return false, err
		}
		response, err := asking.Get("http://" + net.JoinHostPort(pods[0].Status.PodIP, "8080") + "/v2/health/ready")
		if err != nil {
			return false, nil
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
	took := time.Since(began)
	return took, errors.Join(err, b.scale(ctx, twin, 0), b.killTwin(ctx), b.gone(ctx, "twin"))
}

// killTwin spares the bench the time that a server takes to stop without loss.
func (b *bench) killTwin(ctx context.Context) error {
	return b.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(b.namespace), client.MatchingLabels{v1alpha1.ModelServiceLabel: "twin"}, client.GracePeriodSeconds(0))
}

func (b *bench) scale(ctx context.Context, deployment *appsv1.Deployment, replicas int) error {
	// What comes back is a Scale, and is written into the object that is given.
	deployment = &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: deployment.Name, Namespace: deployment.Namespace}}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas))
	return b.SubResource("scale").Patch(ctx, deployment, patch)
}
