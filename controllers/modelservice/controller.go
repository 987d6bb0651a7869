// Package modelservice carries out ModelServices: each becomes a Deployment of
// servers behind a Service, on as many pods as the load needs, which follow
// their model.
package modelservice

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/polling"
	"trainyard.dev/trainyard/controllers/story"
	"trainyard.dev/trainyard/runtime/spec"
)

// samplePeriod is how often pods are asked for their load.
const samplePeriod = 2 * time.Second

// Runtime says what server pods run.
type Runtime struct {
	// Image holds the server.
	Image string
	// ManagerNamespace is where the manager asks from.
	ManagerNamespace string
	// Registry is where TrainingJobs publish: its name, and how pods reach it.
	Registry spec.Repository
}

// Reconciler brings ModelServices about.
type Reconciler struct {
	// Client reads from the manager's cache and writes to the API server.
	Client client.Client
	// Reader reads from the API server itself, for objects that are not cached.
	Reader client.Reader
	// Recorder writes Events.
	Recorder events.EventRecorder
	// Runtime says what the pods run.
	Runtime Runtime
	// Servers talks to the pods, Followers to those that look at an address, and
	// Gateways to those of the gateway.
	Servers   Servers
	Followers Followers
	Gateways  Gateways
	// GatewayNamespace is where the gateway's pods are.
	GatewayNamespace string
	// Now is the clock.
	Now func() time.Time

	memory memory
	// polls asks pods, and wakes Reconcile when they have told something.
	polls *polling.Poller[question, answers]
	// polled is what the gateways told last, of all services.
	polled poll
}

// +kubebuilder:rbac:groups=trainyard.dev,resources=modelservices,verbs=list;watch
// +kubebuilder:rbac:groups=trainyard.dev,resources=modelservices/status,verbs=update
// +kubebuilder:rbac:groups=trainyard.dev,resources=modelservices/finalizers,verbs=update
// +kubebuilder:rbac:groups=trainyard.dev,resources=trainingjobs,verbs=list;watch
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=services;configmaps,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// trainingJobField indexes ModelServices by the TrainingJob they follow, and
// those that select among several by what no TrainingJob is called.
const (
	trainingJobField = "spec.model.trainingJob.name"
	anyTrainingJob   = "*"
)

// podServiceField indexes pods by the ModelService that they serve. A namespace
// may hold thousands, and each service's are looked up every two seconds.
const podServiceField = "metadata.labels." + v1alpha1.ModelServiceLabel

func podServiceOf(pod client.Object) []string {
	if name := pod.GetLabels()[v1alpha1.ModelServiceLabel]; name != "" {
		return []string{name}
	}
	return nil
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.ModelService{}, trainingJobField, func(object client.Object) []string {
		source := object.(*v1alpha1.ModelService).Spec.Model
		switch {
		case source.TrainingJob != nil:
			return []string{source.TrainingJob.Name}
		case source.TrainingJobs != nil:
			return []string{anyTrainingJob}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("indexing ModelServices by TrainingJob: %w", err)
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.ModelService{}, gatewayPortField, gatewayPortOf); err != nil {
		return fmt.Errorf("indexing ModelServices by gateway port: %w", err)
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, podServiceField, podServiceOf); err != nil {
		return fmt.Errorf("indexing pods by ModelService: %w", err)
	}
	r.polls = r.newPoller()
	return ctrl.NewControllerManagedBy(mgr).
		Named("modelservice").
		For(&v1alpha1.ModelService{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.Service{}).
		Owns(&corev1.ConfigMap{}).
		Owns(&discoveryv1.EndpointSlice{}).
		Owns(&networkingv1.NetworkPolicy{}).
		Owns(&policyv1.PodDisruptionBudget{}).
		Owns(&autoscalingv2.HorizontalPodAutoscaler{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.servicesOfPod)).
		Watches(&v1alpha1.TrainingJob{}, handler.EnqueueRequestsFromMapFunc(r.followersOf)).
		WatchesRawSource(r.polls).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

// servicesOfPod are all services for a pod of the gateway, which stands in each
// one's slice, and the pod's own service otherwise.
func (r *Reconciler) servicesOfPod(ctx context.Context, pod client.Object) []reconcile.Request {
	if r.isGateway(pod) {
		return r.allServices(ctx)
	}
	name := cmp.Or(pod.GetLabels()[v1alpha1.ModelServiceLabel], pod.GetLabels()[v1alpha1.FollowerLabel])
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: pod.GetNamespace(), Name: name}}}
}

func (r *Reconciler) allServices(ctx context.Context) []reconcile.Request {
	var all v1alpha1.ModelServiceList
	if err := r.Client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "listing the ModelServices for a change of the gateway")
		return nil
	}
	return requestsFor(all.Items)
}

func requestsFor(services []v1alpha1.ModelService) []reconcile.Request {
	var requests []reconcile.Request
	for i := range services {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&services[i])})
	}
	return requests
}

func (r *Reconciler) followersOf(ctx context.Context, training client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, name := range []string{training.GetName(), anyTrainingJob} {
		var followers v1alpha1.ModelServiceList
		err := r.Client.List(ctx, &followers, client.InNamespace(training.GetNamespace()), client.MatchingFields{trainingJobField: name})
		if err != nil {
			log.FromContext(ctx).Error(err, "listing the ModelServices that follow a TrainingJob", "trainingJob", training.GetName())
			return nil
		}
		requests = append(requests, requestsFor(followers.Items)...)
	}
	return requests
}

// Reconcile finds the model, decides how many pods serve it, applies the
// objects, has pods asked and told, and writes what is seen into the status.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	service := &v1alpha1.ModelService{}
	err := r.Client.Get(ctx, request.NamespacedName, service)
	if apierrors.IsNotFound(err) || (err == nil && !service.DeletionTimestamp.IsZero()) {
		r.memory.forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading ModelService %s: %w", request.Name, err)
	}
	seen, err := r.observe(ctx, service)
	if err != nil {
		return ctrl.Result{}, err
	}
	err = r.bring(ctx, service, &seen)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return ctrl.Result{}, nil // the service goes, too
	}
	if r.asksPods(service, seen) && err == nil {
		err = r.writeStatus(ctx, service, statusOf(service, seen))
	}
	return again(err)
}

// asksPods has pods asked, and tells whether what they told last is about what
// there is now. If not, the status waits for the next pass, which comes as soon
// as they were asked: it would say of a pod that just became ready that it has
// no model.
//
// The rounds go on for what no watch tells: the pods' load, whether an obstacle
// is gone, and what is at an address. A service without a model waits for its
// TrainingJob, which is watched.
func (r *Reconciler) asksPods(service *v1alpha1.ModelService, seen observation) bool {
	if seen.resolution.model == nil && seen.address == nil {
		return true
	}
	q := r.questionOf(service, seen)
	return r.polls.Ask(ctrl.Request{NamespacedName: q.service}, q.subject(), q)
}

// conflictPause lets the cache hear of what another wrote.
const conflictPause = 50 * time.Millisecond

// again looks again soon if somebody wrote in between, as a gateway that woke
// the service, or this controller when the cache is behind. That is no error:
// what is there now is what to decide on.
func again(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: conflictPause}, nil
	}
	return ctrl.Result{}, err
}

// bring decides how many pods there should be, and makes the service's objects
// what they should be.
func (r *Reconciler) bring(ctx context.Context, service *v1alpha1.ModelService, seen *observation) error {
	var err error
	if seen.obstacle, err = r.bringFollower(ctx, service, seen.address); err != nil || seen.resolution.model == nil {
		return err
	}
	r.scale(ctx, service, seen)
	blocked, err := r.ensurePorts(ctx, service, *seen)
	if err == nil && blocked.reason == "" {
		blocked, err = r.applyChildren(ctx, service, *seen)
	}
	if blocked.reason != "" {
		seen.obstacle = blocked
	}
	return err
}

func (r *Reconciler) observe(ctx context.Context, service *v1alpha1.ModelService) (observation, error) {
	seen := observation{now: r.Now(), heard: r.polls.Latest(ctrl.Request{NamespacedName: client.ObjectKeyFromObject(service)})}
	jobs, err := r.trainingJobs(ctx, service)
	if err != nil {
		return seen, err
	}
	seen.address = addressOf(service, r.Runtime.Registry)
	lookout, err := r.lookAt(ctx, service, &seen)
	if err != nil {
		return seen, err
	}
	seen.resolution = resolve(service, jobs, seen.address, lookout)
	var deployment appsv1.Deployment
	err = r.Client.Get(ctx, client.ObjectKeyFromObject(service), &deployment)
	if client.IgnoreNotFound(err) != nil {
		return seen, fmt.Errorf("reading Deployment %s: %w", service.Name, err)
	}
	if err == nil {
		seen.deployment = &deployment
	}
	if seen.gateways, err = r.gatewayPods(ctx); err != nil {
		return seen, err
	}
	seen.pods, err = r.listPods(ctx, service, seen.heard.Answers)
	return seen, err
}

// trainingJobs are those that the spec names or selects.
func (r *Reconciler) trainingJobs(ctx context.Context, service *v1alpha1.ModelService) ([]v1alpha1.TrainingJob, error) {
	if selection := service.Spec.Model.TrainingJobs; selection != nil {
		selector, err := metav1.LabelSelectorAsSelector(&selection.Selector)
		if err != nil {
			return nil, reconcile.TerminalError(fmt.Errorf("reading spec.model.trainingJobs.selector of ModelService %s: %w", service.Name, err))
		}
		var jobs v1alpha1.TrainingJobList
		if err := r.Client.List(ctx, &jobs, client.InNamespace(service.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
			return nil, fmt.Errorf("listing the TrainingJobs that ModelService %s selects: %w", service.Name, err)
		}
		return jobs.Items, nil
	}
	if service.Spec.Model.TrainingJob == nil {
		return nil, nil
	}
	var training v1alpha1.TrainingJob
	name := service.Spec.Model.TrainingJob.Name
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: service.Namespace, Name: name}, &training)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading TrainingJob %s: %w", name, err)
	}
	return []v1alpha1.TrainingJob{training}, nil
}

// listPods lists the pods that are not being stopped, the oldest first, with
// what each told.
func (r *Reconciler) listPods(ctx context.Context, service *v1alpha1.ModelService, heard answers) ([]podReport, error) {
	var list corev1.PodList
	err := r.Client.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingFields{podServiceField: service.Name})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of ModelService %s: %w", service.Name, err)
	}
	pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return !pod.DeletionTimestamp.IsZero() })
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	reports := make([]podReport, len(pods))
	for i := range pods {
		reports[i].pod = &pods[i]
		if model, ok := heard.models[pods[i].UID]; ok {
			reports[i].model = &model
		}
	}
	return reports, nil
}

// writeStatus writes the status once, if it changed, and tells of the change.
func (r *Reconciler) writeStatus(ctx context.Context, service *v1alpha1.ModelService, status v1alpha1.ModelServiceStatus) error {
	before := service.Status
	if equality.Semantic.DeepEqual(before, status) {
		return nil
	}
	service.Status = status
	if err := r.Client.Status().Update(ctx, service); err != nil {
		service.Status = before
		return fmt.Errorf("writing the status of ModelService %s: %w", service.Name, err)
	}
	story.Tell(ctx, r.Recorder, service, turnsOf(before, status)...)
	return nil
}
