package trainingjob

import (
	"encoding/json"
	"fmt"
	"maps"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// trainerContainer is the name of the container that trains.
const trainerContainer = "trainer"

const (
	datasetDirectory = "/dataset"
	scratchDirectory = "/tmp"
)

// Runtime says what trainer pods run and where they publish.
type Runtime struct {
	// Image holds the trainer.
	Image string
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
	labels := map[string]string{
		v1alpha1.TrainingJobLabel:      job.Name,
		"app.kubernetes.io/name":       job.Name,
		"app.kubernetes.io/component":  "trainer",
		"app.kubernetes.io/managed-by": v1alpha1.FieldOwner,
	}
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name:            job.Name,
			Namespace:       job.Namespace,
			Labels:          labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, v1alpha1.GroupVersion.WithKind("TrainingJob"))},
		},
		Spec: batchv1.JobSpec{
			BackoffLimit:         new(ptr.Deref(job.Spec.BackoffLimit, 3)),
			PodReplacementPolicy: new(batchv1.Failed),
			PodFailurePolicy:     failurePolicy(),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: maps.Clone(labels)},
				Spec:       podSpec(job, runtime.Image, string(train)),
			},
		},
	}, nil
}

// trainSpec is what the trainer is told.
func trainSpec(job *v1alpha1.TrainingJob, registry spec.Repository) spec.Train {
	source := sourceOf(job)
	return spec.Train{
		Name:       job.Name,
		Source:     source.location,
		SourceName: source.name,
		Dataset:    job.Spec.Dataset,
		Network:    job.Spec.Network,
		Training:   job.Spec.Training,
		Repository: spec.Repository{
			Name:      fmt.Sprintf("%s/%s/%s", registry.Name, job.Namespace, job.Name),
			PlainHTTP: registry.PlainHTTP,
		},
		Lineage: spec.Lineage{Namespace: job.Namespace, Job: job.Name, UID: string(job.UID)},
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

func podSpec(job *v1alpha1.TrainingJob, image, train string) corev1.PodSpec {
	source := sourceOf(job)
	volumes, mounts := podVolumes(source)
	return corev1.PodSpec{
		RestartPolicy:                corev1.RestartPolicyNever,
		AutomountServiceAccountToken: new(false),
		EnableServiceLinks:           new(false),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot:   new(true),
			RunAsUser:      new(int64(65532)),
			RunAsGroup:     new(int64(65532)),
			FSGroup:        new(int64(65532)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name:    trainerContainer,
			Image:   image,
			Command: []string{"/trainer"},
			Env: append([]corev1.EnvVar{
				{Name: spec.TrainVariable, Value: train},
				{Name: "TMPDIR", Value: scratchDirectory},
			}, source.env...),
			EnvFrom:   source.envFrom,
			Ports:     []corev1.ContainerPort{{Name: "progress", ContainerPort: spec.ProgressPort, Protocol: corev1.ProtocolTCP}},
			Resources: trainerResources(job),
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false),
				ReadOnlyRootFilesystem:   new(true),
				Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
			VolumeMounts: mounts,
		}},
		Volumes: volumes,
	}
}

// podVolumes are the dataset, unless the trainer fetches it, and room for what
// the trainer fetches and writes.
func podVolumes(s source) ([]corev1.Volume, []corev1.VolumeMount) {
	volumes := []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	mounts := []corev1.VolumeMount{{Name: "scratch", MountPath: scratchDirectory}}
	if s.volume != nil {
		volumes = append(volumes, corev1.Volume{Name: "dataset", VolumeSource: *s.volume})
		mounts = append(mounts, corev1.VolumeMount{Name: "dataset", MountPath: datasetDirectory, ReadOnly: true})
	}
	return volumes, mounts
}

func trainerResources(job *v1alpha1.TrainingJob) corev1.ResourceRequirements {
	resources := job.Spec.Resources
	if resources.Requests == nil && resources.Limits == nil {
		resources.Requests = corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("100m"),
			corev1.ResourceMemory: resource.MustParse("128Mi"),
		}
	}
	return resources
}
