package trainingjob

import (
	"context"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/ownership"
	"trainyard.dev/trainyard/runtime/spec"
)

// hasWorkers tells whether several pods train together.
func hasWorkers(job *v1alpha1.TrainingJob) bool { return job.Spec.Workers > 1 }

// groupName is the name of the Service by which the workers find each other. The
// run's own name is left to the ModelService that serves its model.
func groupName(job *v1alpha1.TrainingJob) string { return job.Name + "-workers" }

// workersOf is what each worker is told of the others.
func workersOf(job *v1alpha1.TrainingJob) *spec.Workers {
	if !hasWorkers(job) {
		return nil
	}
	return &spec.Workers{
		Count:  job.Spec.Workers,
		Leader: fmt.Sprintf("%s-0.%s.%s.svc:%d", job.Name, groupName(job), job.Namespace, spec.ProgressPort),
	}
}

// forWorkers makes a Job's pods the workers of a group: each has an index, and by
// it a name in the group's Service. The run is over when the first worker has
// published the model; the others are stopped then, and not before, since they
// are needed again if it fails.
func forWorkers(job *v1alpha1.TrainingJob, made *batchv1.JobSpec) {
	made.CompletionMode = new(batchv1.IndexedCompletion)
	made.Completions, made.Parallelism = new(job.Spec.Workers), new(job.Spec.Workers)
	made.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: new("0")}}}
	pod := &made.Template.Spec
	pod.Subdomain = groupName(job)
	pod.Containers[0].Env = append(pod.Containers[0].Env, corev1.EnvVar{
		Name: spec.AddressVariable, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}},
	})
}

// buildService makes the headless Service that gives the workers names. It has
// them from when they start: nobody waits for them to be ready.
func buildService(job *v1alpha1.TrainingJob) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: groupName(job), Namespace: job.Namespace, Labels: labelsOf(job),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, v1alpha1.GroupVersion.WithKind("TrainingJob"))},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP:                corev1.ClusterIPNone,
			Selector:                 map[string]string{v1alpha1.TrainingJobLabel: job.Name},
			PublishNotReadyAddresses: true,
			Ports:                    []corev1.ServicePort{{Name: "progress", Port: spec.ProgressPort, Protocol: corev1.ProtocolTCP}},
		},
	}
}

// connect makes the workers' Service, if it isn't there.
func (r *Reconciler) connect(ctx context.Context, job *v1alpha1.TrainingJob) (obstacle, error) {
	var found corev1.Service
	key := client.ObjectKey{Namespace: job.Namespace, Name: groupName(job)}
	err := r.Client.Get(ctx, key, &found)
	if apierrors.IsNotFound(err) {
		if err = r.Client.Create(ctx, buildService(job), client.FieldOwner(v1alpha1.FieldOwner)); err == nil {
			return obstacle{}, nil
		}
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			return obstacle{v1alpha1.ReasonForbidden, fmt.Sprintf("the API server refuses the workers' Service: %v", err)}, nil
		}
		if apierrors.IsAlreadyExists(err) { // it is another's, or was made a moment ago
			err = r.Reader.Get(ctx, key, &found)
		}
	}
	if err != nil {
		return obstacle{}, fmt.Errorf("making Service %s: %w", key.Name, err)
	}
	return r.contestService(ctx, job, &found)
}

// contestService tells what keeps a Service from being the workers'.
func (r *Reconciler) contestService(ctx context.Context, job *v1alpha1.TrainingJob, found *corev1.Service) (obstacle, error) {
	switch ownership.Of(found, job, v1alpha1.GroupVersion.WithKind("TrainingJob").GroupKind()) {
	case ownership.Own:
		return obstacle{}, nil
	case ownership.Foreign:
		return obstacle{v1alpha1.ReasonNameTaken, fmt.Sprintf(
			"Service %s/%s already exists and belongs to something else, and the workers need one of that name; the run waits. Delete that Service, or use another name for the TrainingJob",
			found.Namespace, found.Name)}, nil
	}
	if err := client.IgnoreNotFound(r.Client.Delete(ctx, found, client.Preconditions{UID: &found.UID})); err != nil {
		return obstacle{}, fmt.Errorf("deleting Service %s, which an earlier TrainingJob left behind: %w", found.Name, err)
	}
	return obstacle{v1alpha1.ReasonPodPending, "waiting until the Service of the TrainingJob that had this name before is gone"}, nil
}

// indexOf is the number of the worker whose pod it is; empty: there are no
// others.
func indexOf(pod *corev1.Pod) string { return pod.Labels[batchv1.JobCompletionIndexAnnotation] }

// leads tells whether the pod keeps checkpoints and publishes the model.
func leads(pod *corev1.Pod) bool { return indexOf(pod) == "" || indexOf(pod) == "0" }

// leadingPod is the newest pod that leads.
func leadingPod(pods []corev1.Pod) *corev1.Pod {
	for i := range slices.Backward(pods) {
		if leads(&pods[i]) {
			return &pods[i]
		}
	}
	return nil
}

// tellingPod is the pod by which a run stands or waits: a worker's newest that
// doesn't run, or the one that leads.
func tellingPod(pods []corev1.Pod) *corev1.Pod {
	seen := map[string]bool{}
	for i := range slices.Backward(pods) {
		pod := &pods[i]
		if seen[indexOf(pod)] {
			continue
		}
		seen[indexOf(pod)] = true
		if pod.Status.Phase != corev1.PodRunning {
			return pod
		}
	}
	return leadingPod(pods)
}

// attempts are the pods whose end tells something of the run: workers that are
// stopped because the model is published don't.
func attempts(pods []corev1.Pod) []corev1.Pod {
	if _, ok := published(pods); !ok {
		return pods
	}
	return slices.DeleteFunc(slices.Clone(pods), func(pod corev1.Pod) bool {
		terminated := terminatedTrainer(&pod)
		return !leads(&pod) && terminated != nil && terminated.ExitCode == spec.ExitInterrupted
	})
}
