package modelservice

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingapply "k8s.io/client-go/applyconfigurations/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/isolation"
	"trainyard.dev/trainyard/runtime/spec"
)

// lookout is what is known of an address by the pod that looks at it.
type lookout struct {
	// told is what the pod says; zero while it doesn't.
	told spec.Followed
	// trouble says why there is no pod that could say anything.
	trouble string
	// progress says what is waited for.
	progress string
}

// followerName of the Deployment that looks at an address.
func followerName(service *v1alpha1.ModelService) string { return service.Name + "-follower" }

// lookAt finds the pod that looks at the address, and what it told.
func (r *Reconciler) lookAt(ctx context.Context, service *v1alpha1.ModelService, seen *observation) (lookout, error) {
	at := seen.address
	if at == nil || !followerWanted(service, at) {
		return lookout{}, nil
	}
	var list corev1.PodList
	err := r.Client.List(ctx, &list, client.InNamespace(service.Namespace),
		client.MatchingLabels{v1alpha1.FollowerLabel: service.Name, v1alpha1.SourceLabel: at.fingerprint()})
	if err != nil {
		return lookout{}, fmt.Errorf("listing the pods that follow %s: %w", at.what.SourceName, err)
	}
	pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return !pod.DeletionTimestamp.IsZero() })
	if len(pods) == 0 {
		return r.withoutFollower(ctx, service, at)
	}
	newest := slices.MaxFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	seen.follower = &newest
	told, answered := seen.heard.Answers.followed[newest.UID]
	return lookoutOf(&newest, at, told, answered), nil
}

// withoutFollower says why there is no pod.
func (r *Reconciler) withoutFollower(ctx context.Context, service *v1alpha1.ModelService, at *address) (lookout, error) {
	l := lookout{progress: "waiting for a pod that looks at " + at.what.SourceName}
	var deployment appsv1.Deployment
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: service.Namespace, Name: followerName(service)}, &deployment)
	if client.IgnoreNotFound(err) != nil {
		return l, fmt.Errorf("reading Deployment %s: %w", followerName(service), err)
	}
	if message := refusedPods(&deployment); message != "" {
		l.trouble = fmt.Sprintf("nobody looks at %s: %s", at.what.SourceName, message)
	}
	return l, nil
}

// lookoutOf is what is known by a pod. That it didn't answer is no error: it may
// not listen yet, and its own status says more.
func lookoutOf(pod *corev1.Pod, at *address, told spec.Followed, answered bool) lookout {
	l := lookout{progress: fmt.Sprintf("waiting for pod %s, which looks at %s", pod.Name, at.what.SourceName)}
	if message := troubleOf(pod); message != "" {
		l.trouble = fmt.Sprintf("nobody looks at %s: %s", at.what.SourceName, message)
		return l
	}
	if !answered || !answersCalls(pod) {
		return l
	}
	l.told = told
	if told.Activity != "" {
		l.progress = fmt.Sprintf("pod %s %s", pod.Name, told.Activity)
	}
	return l
}

// bringFollower makes the Deployment that looks at the address, and what isolates
// its pod, or takes them away if nobody has to look.
func (r *Reconciler) bringFollower(ctx context.Context, service *v1alpha1.ModelService, at *address) (obstacle, error) {
	name := metav1.ObjectMeta{Name: followerName(service), Namespace: service.Namespace}
	policy, follower := child{live: &networkingv1.NetworkPolicy{ObjectMeta: name}}, child{live: &appsv1.Deployment{ObjectMeta: name}}
	if at == nil || !followerWanted(service, at) {
		_, err := r.applyOptional(ctx, service, optional{follower, false})
		_, also := r.applyOptional(ctx, service, optional{policy, false})
		return obstacle{}, errors.Join(err, also)
	}
	deployment, err := buildFollower(service, at, r.Runtime)
	if err != nil {
		return obstacle{}, err
	}
	policy.desired, follower.desired = buildFollowerPolicy(service, r.Runtime.ManagerNamespace), deployment
	for _, child := range []child{policy, follower} {
		if blocked, err := r.apply(ctx, service, child); err != nil || blocked.reason != "" {
			return blocked, err
		}
	}
	return obstacle{}, nil
}

func followerLabels(service *v1alpha1.ModelService) map[string]string {
	labels := labelsOf(service)
	delete(labels, v1alpha1.ModelServiceLabel)
	labels[v1alpha1.FollowerLabel], labels["app.kubernetes.io/component"] = service.Name, "follower"
	return labels
}

// buildFollowerPolicy lets only the manager ask what was found.
func buildFollowerPolicy(service *v1alpha1.ModelService, managerNamespace string) *networkingapply.NetworkPolicyApplyConfiguration {
	return networkingapply.NetworkPolicy(followerName(service), service.Namespace).
		WithLabels(followerLabels(service)).
		WithOwnerReferences(ownerOf(service)).
		WithSpec(isolation.Pods{
			Labels:           map[string]string{v1alpha1.FollowerLabel: service.Name},
			Guarded:          []int32{spec.OperationsPort},
			ManagerNamespace: managerNamespace,
		}.Spec())
}

// buildFollower runs the pod that looks at an address. It is labelled apart from
// the servers, among which the Service would find it otherwise.
func buildFollower(service *v1alpha1.ModelService, at *address, runtime Runtime) (*appsapply.DeploymentApplyConfiguration, error) {
	pod, err := followerPod(service, at, runtime)
	if err != nil {
		return nil, err
	}
	labels := followerLabels(service)
	return appsapply.Deployment(followerName(service), service.Namespace).
		WithLabels(labels).
		WithOwnerReferences(ownerOf(service)).
		WithSpec(appsapply.DeploymentSpec().
			WithReplicas(1).
			WithRevisionHistoryLimit(1).
			WithSelector(metaapply.LabelSelector().WithMatchLabels(map[string]string{v1alpha1.FollowerLabel: service.Name})).
			// One at a time: the volume of a claim may be for one pod only.
			WithStrategy(appsapply.DeploymentStrategy().WithType(appsv1.RecreateDeploymentStrategyType)).
			WithTemplate(coreapply.PodTemplateSpec().
				WithLabels(service.Spec.PodTemplate.Labels).
				WithLabels(labels).
				WithLabels(map[string]string{v1alpha1.SourceLabel: at.fingerprint()}).
				WithAnnotations(service.Spec.PodTemplate.Annotations).
				WithSpec(pod))), nil
}

func followerPod(service *v1alpha1.ModelService, at *address, runtime Runtime) (*coreapply.PodSpecApplyConfiguration, error) {
	pod, err := placed(service.Spec.PodTemplate)
	if err != nil {
		return nil, err
	}
	what, err := json.Marshal(at.what)
	if err != nil {
		return nil, fmt.Errorf("encoding the address for the follower: %w", err)
	}
	follower := coreapply.Container()
	if err := asApplied(service.Spec.PodTemplate.Env, &follower.Env); err != nil {
		return nil, err
	}
	follower.
		WithName("follower").
		WithImage(runtime.Image).
		WithCommand("/follower").
		WithArgs("--serving="+configDirectory+"/"+spec.ServeKey).
		WithEnv(coreapply.EnvVar().WithName(spec.FollowVariable).WithValue(string(what))).
		WithPorts(coreapply.ContainerPort().WithName("operations").WithContainerPort(spec.OperationsPort).WithProtocol(corev1.ProtocolTCP)).
		WithResources(coreapply.ResourceRequirements().WithRequests(corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi"),
		})).
		WithSecurityContext(unprivileged()).
		WithVolumeMounts(
			coreapply.VolumeMount().WithName("config").WithMountPath(configDirectory).WithReadOnly(true),
			coreapply.VolumeMount().WithName("cache").WithMountPath(cacheDirectory))
	withRegistryToken(pod, follower, runtime.Registry)
	withPullCredentials(pod, follower, service.Spec.Model.OCI)
	if at.volume != nil {
		follower.WithVolumeMounts(coreapply.VolumeMount().WithName("source").WithMountPath(at.mount).WithReadOnly(true))
		volume := *at.volume
		pod.WithVolumes(volume.WithName("source"))
	}
	restricted(pod).
		WithTerminationGracePeriodSeconds(10).
		WithContainers(follower).
		WithVolumes(
			// It isn't there while the service has no model.
			coreapply.Volume().WithName("config").WithConfigMap(
				coreapply.ConfigMapVolumeSource().WithName(configMapName(service)).WithOptional(true)),
			coreapply.Volume().WithName("cache").WithEmptyDir(followerCache(at)))
	return pod, nil
}

// followerCache is where a follower opens what it finds, one model at a time. An
// ONNX file has 2 GiB at most, so what goes on and on at an address ends there
// before the node's disk is full. What a tag names may be of any size.
func followerCache(at *address) *coreapply.EmptyDirVolumeSourceApplyConfiguration {
	cache := coreapply.EmptyDirVolumeSource()
	if at.what.Tag == "" {
		cache.WithSizeLimit(resource.MustParse("3Gi"))
	}
	return cache
}
