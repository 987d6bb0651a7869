package trainingjob

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// trainerContainer is the name of the container that trains.
const trainerContainer = "trainer"

const (
	datasetDirectory    = "/dataset"
	checkpointDirectory = "/checkpoint"
	scratchDirectory    = "/tmp"
)

func podSpec(job *v1alpha1.TrainingJob, runtime Runtime, train string) corev1.PodSpec {
	source, template := sourceOf(job), job.Spec.PodTemplate
	volumes, mounts := podVolumes(job, source, runtime.Registry)
	return corev1.PodSpec{
		NodeSelector:                 template.NodeSelector,
		Tolerations:                  template.Tolerations,
		Affinity:                     template.Affinity,
		PriorityClassName:            template.PriorityClassName,
		ServiceAccountName:           template.ServiceAccountName,
		ImagePullSecrets:             template.ImagePullSecrets,
		RestartPolicy:                corev1.RestartPolicyNever,
		AutomountServiceAccountToken: new(false),
		EnableServiceLinks:           new(false),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true),
			RunAsUser:    new(int64(65532)),
			RunAsGroup:   new(int64(65532)),
			FSGroup:      new(int64(65532)),
			// To hand all files of a large volume over would take minutes.
			FSGroupChangePolicy: new(corev1.FSGroupChangeOnRootMismatch),
			SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name:    trainerContainer,
			Image:   runtime.Image,
			Command: []string{"/trainer"},
			// Of two variables of a name, the last counts.
			Env: slices.Concat(template.Env, []corev1.EnvVar{
				{Name: spec.TrainVariable, Value: train},
				{Name: "TMPDIR", Value: scratchDirectory},
			}, source.env),
			EnvFrom:   source.envFrom,
			Ports:     []corev1.ContainerPort{{Name: "progress", ContainerPort: spec.ProgressPort, Protocol: corev1.ProtocolTCP}},
			Resources: trainerResources(job),
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false),
				ReadOnlyRootFilesystem:   new(true),
				Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
			VolumeMounts: mounts,
			// Of a trainer that was killed, its last words are in the log.
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		}},
		Volumes: volumes,
	}
}

// podVolumes are the dataset, unless the trainer fetches it, the checkpoints, if
// they are on a volume, what the registry knows the pod by, if it asks for that,
// and room for what the trainer fetches and writes.
func podVolumes(job *v1alpha1.TrainingJob, s source, registry spec.Repository) (volumes []corev1.Volume, mounts []corev1.VolumeMount) {
	add := func(name, path string, readOnly bool, from corev1.VolumeSource) {
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: from})
		mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: path, ReadOnly: readOnly})
	}
	add("scratch", scratchDirectory, false, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	if s.volume != nil {
		add("dataset", datasetDirectory, true, *s.volume)
	}
	if claim := job.Spec.Checkpoint.PersistentVolumeClaim; claim != nil {
		add("checkpoint", checkpointDirectory, false, corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.ClaimName},
		})
	}
	if registry.TokenFile != "" {
		add("registry-token", spec.RegistryTokenDirectory, true, corev1.VolumeSource{Projected: registryToken()})
	}
	return volumes, mounts
}

// registryToken opens the registry and nothing else.
func registryToken() *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
		ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience:          spec.RegistryAudience,
			ExpirationSeconds: new(int64(spec.RegistryTokenSeconds)),
			Path:              spec.RegistryTokenKey,
		},
	}}}
}

// checkpointOf is where the run keeps its state. Both places carry the UID:
// another TrainingJob of the same name begins anew.
func checkpointOf(job *v1alpha1.TrainingJob) *spec.Checkpoint {
	c := &spec.Checkpoint{
		EverySteps:   job.Spec.Checkpoint.EverySteps,
		EverySeconds: float64(job.Spec.Checkpoint.EverySeconds),
	}
	if claim := job.Spec.Checkpoint.PersistentVolumeClaim; claim != nil {
		c.Directory = path.Join(checkpointDirectory, claim.Path, fmt.Sprintf("%s-%s", job.Name, job.UID))
	} else {
		c.Tag = fmt.Sprintf("checkpoint-%s", job.UID)
	}
	return c
}

// trainerResources asks for some CPU and memory where the user says nothing of
// it, so that schedulers and quotas see what runs.
func trainerResources(job *v1alpha1.TrainingJob) corev1.ResourceRequirements {
	resources := *job.Spec.Resources.DeepCopy()
	for name, quantity := range map[corev1.ResourceName]string{corev1.ResourceCPU: "100m", corev1.ResourceMemory: "128Mi"} {
		_, requested := resources.Requests[name]
		_, limited := resources.Limits[name]
		if requested || limited {
			continue
		}
		if resources.Requests == nil {
			resources.Requests = corev1.ResourceList{}
		}
		resources.Requests[name] = resource.MustParse(quantity)
	}
	return resources
}
