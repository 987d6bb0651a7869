package modelservice

import (
	"encoding/json"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingapply "k8s.io/client-go/applyconfigurations/networking/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/isolation"
	"trainyard.dev/trainyard/runtime/spec"
)

// serverContainer is the name of the container that answers predictions.
const serverContainer = "server"

const (
	configDirectory = "/etc/trainyard"
	cacheDirectory  = "/tmp"
)

// configMapName of the ConfigMap that says what a starting pod loads. It has a
// suffix because users name their datasets' ConfigMaps as they please.
func configMapName(service *v1alpha1.ModelService) string { return service.Name + "-serve" }

func labelsOf(service *v1alpha1.ModelService) map[string]string {
	return map[string]string{
		v1alpha1.ModelServiceLabel:     service.Name,
		"app.kubernetes.io/name":       service.Name,
		"app.kubernetes.io/component":  "server",
		"app.kubernetes.io/managed-by": v1alpha1.FieldOwner,
	}
}

func selectorOf(service *v1alpha1.ModelService) map[string]string {
	return map[string]string{v1alpha1.ModelServiceLabel: service.Name}
}

func ownerOf(service *v1alpha1.ModelService) *metaapply.OwnerReferenceApplyConfiguration {
	return metaapply.OwnerReference().
		WithAPIVersion(v1alpha1.GroupVersion.String()).
		WithKind("ModelService").
		WithName(service.Name).
		WithUID(service.UID).
		WithController(true).
		WithBlockOwnerDeletion(true)
}

// buildConfigMap says what a starting pod loads, and what clients rely on.
func buildConfigMap(service *v1alpha1.ModelService, model spec.ServedModel, signature *spec.Signature) (*coreapply.ConfigMapApplyConfiguration, error) {
	serve, err := json.MarshalIndent(spec.Serve{Models: []spec.ServedModel{model}, Signature: signature}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding what the server loads: %w", err)
	}
	return coreapply.ConfigMap(configMapName(service), service.Namespace).
		WithLabels(labelsOf(service)).
		WithOwnerReferences(ownerOf(service)).
		WithData(map[string]string{spec.ServeKey: string(serve)}), nil
}

// buildService is the name that programs call. It has a selector, so that
// Kubernetes itself keeps the endpoints and no request passes the operator.
func buildService(service *v1alpha1.ModelService) *coreapply.ServiceApplyConfiguration {
	return coreapply.Service(service.Name, service.Namespace).
		WithLabels(labelsOf(service)).
		WithOwnerReferences(ownerOf(service)).
		WithSpec(coreapply.ServiceSpec().
			WithSelector(selectorOf(service)).
			WithPorts(
				coreapply.ServicePort().
					WithName(v1alpha1.HTTPPortName).
					WithProtocol(corev1.ProtocolTCP).
					WithPort(80).
					WithTargetPort(intstr.FromInt32(spec.ServePort)),
				coreapply.ServicePort().
					WithName(v1alpha1.GRPCPortName).
					WithProtocol(corev1.ProtocolTCP).
					// Tells gateways and meshes to speak HTTP/2 in the clear.
					WithAppProtocol("kubernetes.io/h2c").
					WithPort(spec.GRPCPort).
					WithTargetPort(intstr.FromInt32(spec.GRPCPort))))
}

// policyName has a suffix because users name their policies as they please.
func policyName(service *v1alpha1.ModelService) string { return service.Name + "-serve" }

// buildPolicy lets everyone ask for predictions, and only the manager change
// models.
func buildPolicy(service *v1alpha1.ModelService, managerNamespace string) *networkingapply.NetworkPolicyApplyConfiguration {
	return networkingapply.NetworkPolicy(policyName(service), service.Namespace).
		WithLabels(labelsOf(service)).
		WithOwnerReferences(ownerOf(service)).
		WithSpec(isolation.Pods{
			Labels:           selectorOf(service),
			Open:             []int32{spec.ServePort, spec.GRPCPort},
			Guarded:          []int32{spec.OperationsPort},
			ManagerNamespace: managerNamespace,
		}.Spec())
}

// buildDeployment runs the servers. The number of replicas is decided
// elsewhere and has this one writer; nil leaves it to a HorizontalPodAutoscaler.
// The model is not part of the pod template:
// another model is another ConfigMap, and pods that run are told of it.
func buildDeployment(service *v1alpha1.ModelService, runtime Runtime, replicas *int32) (*appsapply.DeploymentApplyConfiguration, error) {
	pod, err := podSpec(service, runtime)
	if err != nil {
		return nil, err
	}
	deployment := appsapply.Deployment(service.Name, service.Namespace).
		WithLabels(labelsOf(service)).
		WithOwnerReferences(ownerOf(service)).
		WithSpec(appsapply.DeploymentSpec().
			WithRevisionHistoryLimit(2).
			WithSelector(metaapply.LabelSelector().WithMatchLabels(selectorOf(service))).
			WithStrategy(appsapply.DeploymentStrategy().
				WithType("RollingUpdate").
				WithRollingUpdate(appsapply.RollingUpdateDeployment().
					WithMaxUnavailable(intstr.FromInt32(0)).
					WithMaxSurge(intstr.FromInt32(1)))).
			WithTemplate(coreapply.PodTemplateSpec().
				WithLabels(service.Spec.PodTemplate.Labels).
				WithLabels(labelsOf(service)).
				WithAnnotations(map[string]string{
					"prometheus.io/scrape": "true",
					"prometheus.io/port":   strconv.Itoa(spec.OperationsPort),
				}).
				WithAnnotations(service.Spec.PodTemplate.Annotations).
				WithSpec(pod)))
	deployment.Spec.Replicas = replicas
	return deployment, nil
}

func podSpec(service *v1alpha1.ModelService, runtime Runtime) (*coreapply.PodSpecApplyConfiguration, error) {
	pod, err := placed(service.Spec.PodTemplate)
	if err != nil {
		return nil, err
	}
	server, err := serverOf(service, runtime.Image)
	if err != nil {
		return nil, err
	}
	withRegistryToken(pod, server, runtime.Registry)
	withPullCredentials(pod, server, service.Spec.Model.OCI)
	restricted(pod).
		WithTerminationGracePeriodSeconds(60).
		WithContainers(server).
		WithVolumes(
			coreapply.Volume().WithName("config").WithConfigMap(
				coreapply.ConfigMapVolumeSource().WithName(configMapName(service))),
			coreapply.Volume().WithName("cache").WithEmptyDir(coreapply.EmptyDirVolumeSource())).
		WithTopologySpreadConstraints(spreadOver(service, corev1.LabelHostname), spreadOver(service, corev1.LabelTopologyZone))
	return pod, nil
}

// withRegistryToken shows a pod what the registry knows it by, if it asks for
// that. It opens nothing else.
func withRegistryToken(pod *coreapply.PodSpecApplyConfiguration, container *coreapply.ContainerApplyConfiguration, registry spec.Repository) {
	if registry.TokenFile == "" {
		return
	}
	const volume = "registry-token"
	container.WithVolumeMounts(coreapply.VolumeMount().WithName(volume).WithMountPath(spec.RegistryTokenDirectory).WithReadOnly(true))
	pod.WithVolumes(coreapply.Volume().WithName(volume).WithProjected(coreapply.ProjectedVolumeSource().
		WithSources(coreapply.VolumeProjection().WithServiceAccountToken(coreapply.ServiceAccountTokenProjection().
			WithAudience(spec.RegistryAudience).
			WithExpirationSeconds(spec.RegistryTokenSeconds).
			WithPath(spec.RegistryTokenKey)))))
}

// restricted is a pod as the restricted Pod Security Standard wants it, without
// a token for the API server.
func restricted(pod *coreapply.PodSpecApplyConfiguration) *coreapply.PodSpecApplyConfiguration {
	return pod.WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithSecurityContext(coreapply.PodSecurityContext().
			WithRunAsNonRoot(true).
			WithRunAsUser(65532).
			WithRunAsGroup(65532).
			WithFSGroup(65532).
			WithSeccompProfile(coreapply.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault)))
}

// unprivileged is what such a pod's container may do.
func unprivileged() *coreapply.SecurityContextApplyConfiguration {
	return coreapply.SecurityContext().
		WithAllowPrivilegeEscalation(false).
		WithReadOnlyRootFilesystem(true).
		WithCapabilities(coreapply.Capabilities().WithDrop("ALL"))
}

// spreadOver asks that pods be spread over nodes or zones, if there is room.
func spreadOver(service *v1alpha1.ModelService, topology string) *coreapply.TopologySpreadConstraintApplyConfiguration {
	return coreapply.TopologySpreadConstraint().
		WithMaxSkew(1).
		WithTopologyKey(topology).
		WithWhenUnsatisfiable(corev1.ScheduleAnyway).
		WithLabelSelector(metaapply.LabelSelector().WithMatchLabels(selectorOf(service)))
}

// placed is a pod with what the user adds to it. The API's types and those that
// are applied have the same JSON.
func placed(template v1alpha1.PodTemplate) (*coreapply.PodSpecApplyConfiguration, error) {
	pod := coreapply.PodSpec()
	err := asApplied(corev1.PodSpec{
		NodeSelector: template.NodeSelector, Tolerations: template.Tolerations, Affinity: template.Affinity,
		PriorityClassName: template.PriorityClassName, ServiceAccountName: template.ServiceAccountName,
		ImagePullSecrets: template.ImagePullSecrets,
	}, pod)
	return pod, err
}

func asApplied(from, to any) error {
	encoded, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(encoded, to)
	}
	if err != nil {
		return fmt.Errorf("taking over spec.podTemplate: %w", err)
	}
	return nil
}

func serverOf(service *v1alpha1.ModelService, image string) (*coreapply.ContainerApplyConfiguration, error) {
	server := coreapply.Container()
	if err := asApplied(service.Spec.PodTemplate.Env, &server.Env); err != nil {
		return nil, err
	}
	return server.
		WithName(serverContainer).
		WithImage(image).
		WithCommand("/server").
		WithArgs("--config="+configDirectory+"/"+spec.ServeKey, "--cache-dir="+cacheDirectory+"/models").
		WithArgs(batchingArgs(service.Spec.Batching)...).
		WithPorts(
			coreapply.ContainerPort().WithName("http").WithContainerPort(spec.ServePort).WithProtocol(corev1.ProtocolTCP),
			coreapply.ContainerPort().WithName("grpc").WithContainerPort(spec.GRPCPort).WithProtocol(corev1.ProtocolTCP),
			coreapply.ContainerPort().WithName("operations").WithContainerPort(spec.OperationsPort).WithProtocol(corev1.ProtocolTCP)).
		WithReadinessProbe(coreapply.Probe().
			WithHTTPGet(coreapply.HTTPGetAction().WithPath("/v2/health/ready").WithPort(intstr.FromInt32(spec.ServePort))).
			WithPeriodSeconds(1).
			WithTimeoutSeconds(2).
			WithFailureThreshold(3)).
		WithLivenessProbe(coreapply.Probe().
			WithHTTPGet(coreapply.HTTPGetAction().WithPath("/v2/health/live").WithPort(intstr.FromInt32(spec.ServePort))).
			WithPeriodSeconds(10).
			WithTimeoutSeconds(5).
			WithFailureThreshold(6)).
		WithResources(serverResources(service)).
		WithSecurityContext(unprivileged()).
		WithVolumeMounts(
			coreapply.VolumeMount().WithName("config").WithMountPath(configDirectory).WithReadOnly(true),
			coreapply.VolumeMount().WithName("cache").WithMountPath(cacheDirectory)), nil
}

// batchingArgs leaves to the server's defaults what the user leaves out.
func batchingArgs(batching *v1alpha1.Batching) []string {
	var args []string
	if batching == nil {
		return nil
	}
	if size := batching.MaxBatchSize; size != nil {
		args = append(args, "--max-batch-size="+strconv.Itoa(int(*size)))
	}
	if delay := batching.MaxDelay; delay != nil {
		args = append(args, "--max-batch-delay="+delay.Duration.String())
	}
	return args
}

func serverResources(service *v1alpha1.ModelService) *coreapply.ResourceRequirementsApplyConfiguration {
	resources := service.Spec.Resources
	if resources.Requests == nil && resources.Limits == nil {
		resources.Requests = corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("100m"),
			corev1.ResourceMemory: resource.MustParse("64Mi"),
		}
	}
	apply := coreapply.ResourceRequirements()
	if resources.Requests != nil {
		apply.WithRequests(resources.Requests)
	}
	if resources.Limits != nil {
		apply.WithLimits(resources.Limits)
	}
	return apply
}
