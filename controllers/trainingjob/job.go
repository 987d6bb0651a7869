package trainingjob

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingapply "k8s.io/client-go/applyconfigurations/networking/v1"
	"k8s.io/utils/ptr"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/isolation"
	"trainyard.dev/trainyard/runtime/spec"
)

// Runtime says what trainer pods run and where they publish.
type Runtime struct {
	// Image holds the trainer.
	Image string
	// ManagerNamespace is where the manager asks from.
	ManagerNamespace string
	// Registry is host[:port]/path; a job's models go to
	// <Registry>/<namespace>/<name>.
	Registry spec.Repository
}

// buildJob makes the batch/v1 Job that carries out a TrainingJob. It is pure:
// the same TrainingJob gives the same Job.
func buildJob(job *v1alpha1.TrainingJob, runtime Runtime) (*batchv1.Job, error) {
	train, err := json.Marshal(trainSpec(job, runtime.Registry))
	if err != nil {
		return nil, fmt.Errorf("encoding the run for the trainer: %w", err)
	}
	labels := labelsOf(job)
	made := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name:            job.Name,
			Namespace:       job.Namespace,
			Labels:          union(queueLabels(job), labels),
			Annotations:     map[string]string{v1alpha1.SuspendAnnotation: strconv.FormatBool(job.Spec.Suspend)},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, v1alpha1.GroupVersion.WithKind("TrainingJob"))},
		},
		Spec: batchv1.JobSpec{
			// What is in a queue starts when Kueue says so.
			Suspend:               new(job.Spec.Suspend || inQueue(job)),
			ActiveDeadlineSeconds: job.Spec.ActiveDeadlineSeconds,
			BackoffLimit:          new(ptr.Deref(job.Spec.BackoffLimit, 3)),
			PodReplacementPolicy:  new(batchv1.Failed),
			PodFailurePolicy:      failurePolicy(),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{
					Labels:      union(job.Spec.PodTemplate.Labels, labels),
					Annotations: job.Spec.PodTemplate.Annotations,
				},
				Spec: podSpec(job, runtime, string(train)),
			},
		},
	}
	if hasWorkers(job) {
		forWorkers(job, &made.Spec)
	}
	return made, nil
}

// labelsOf are on all that the operator makes for a run.
func labelsOf(job *v1alpha1.TrainingJob) map[string]string {
	return map[string]string{
		v1alpha1.TrainingJobLabel:      job.Name,
		"app.kubernetes.io/name":       job.Name,
		"app.kubernetes.io/component":  "trainer",
		"app.kubernetes.io/managed-by": v1alpha1.FieldOwner,
	}
}

// buildPolicy lets only the manager, and who reads metrics, reach the run's pods.
// Its name has the UID in it, so that no other object needs it.
func buildPolicy(job *v1alpha1.TrainingJob, runtime Runtime) *networkingapply.NetworkPolicyApplyConfiguration {
	owner := metav1.NewControllerRef(job, v1alpha1.GroupVersion.WithKind("TrainingJob"))
	return networkingapply.NetworkPolicy(fmt.Sprintf("%s-%.8s", job.Name, job.UID), job.Namespace).
		WithLabels(map[string]string{v1alpha1.TrainingJobLabel: job.Name, "app.kubernetes.io/managed-by": v1alpha1.FieldOwner}).
		WithOwnerReferences(metaapply.OwnerReference().
			WithAPIVersion(owner.APIVersion).WithKind(owner.Kind).WithName(owner.Name).WithUID(owner.UID).
			WithController(true).WithBlockOwnerDeletion(true)).
		WithSpec(isolation.Pods{
			Labels:           map[string]string{v1alpha1.TrainingJobLabel: job.Name},
			Guarded:          []int32{spec.ProgressPort},
			Together:         true,
			ManagerNamespace: runtime.ManagerNamespace,
		}.Spec())
}

// union is both; where a key is in both, second's value counts.
func union(first, second map[string]string) map[string]string {
	both := make(map[string]string, len(first)+len(second))
	maps.Copy(both, first)
	maps.Copy(both, second)
	return both
}

// inQueue tells whether Kueue decides when the run starts and stops.
func inQueue(job *v1alpha1.TrainingJob) bool { return job.Labels[v1alpha1.QueueLabel] != "" }

// queueLabels say to Kueue what is to happen with the Job.
func queueLabels(job *v1alpha1.TrainingJob) map[string]string {
	labels := map[string]string{}
	for key, value := range job.Labels {
		if strings.HasPrefix(key, v1alpha1.QueueLabelPrefix) {
			labels[key] = value
		}
	}
	return labels
}

// trainSpec is what the trainer is told.
func trainSpec(job *v1alpha1.TrainingJob, registry spec.Repository) spec.Train {
	source := sourceOf(job)
	registry.Name = fmt.Sprintf("%s/%s/%s", registry.Name, job.Namespace, job.Name)
	return spec.Train{
		Name:       job.Name,
		Source:     source.location,
		SourceName: source.name,
		Dataset:    job.Spec.Dataset,
		Network:    job.Spec.Network,
		Training:   job.Spec.Training,
		Repository: registry,
		Lineage:    spec.Lineage{Namespace: job.Namespace, Job: job.Name, UID: string(job.UID)},
		Checkpoint: checkpointOf(job),
		Workers:    workersOf(job),
	}
}

// failurePolicy tells what is worth another try: nothing, when the trainer
// says that the input is wrong; always, and without counting, when it was
// interrupted. Everything else counts towards the backoff limit.
func failurePolicy() *batchv1.PodFailurePolicy {
	onExit := func(action batchv1.PodFailurePolicyAction, code int32) batchv1.PodFailurePolicyRule {
		return batchv1.PodFailurePolicyRule{
			Action: action,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				ContainerName: new(trainerContainer),
				Operator:      batchv1.PodFailurePolicyOnExitCodesOpIn,
				Values:        []int32{code},
			},
		}
	}
	return &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		onExit(batchv1.PodFailurePolicyActionFailJob, spec.ExitInvalid),
		onExit(batchv1.PodFailurePolicyActionIgnore, spec.ExitInterrupted),
		{
			Action: batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
				{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
			},
		},
	}}
}
