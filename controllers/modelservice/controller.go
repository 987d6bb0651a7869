// Package modelservice carries out ModelServices: each becomes a Deployment of
// servers behind a Service, on as many pods as the load needs, which follow
// their model.
package modelservice

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/scaling"
	"trainyard.dev/trainyard/controllers/story"
	"trainyard.dev/trainyard/runtime/spec"
)

// samplePeriod is how often pods are asked for their load.
const samplePeriod = 2 * time.Second

// Runtime says what server pods run.
type Runtime struct {
	// Image holds the server.
	Image string
	// PlainHTTP is set when the registry does not speak TLS.
	PlainHTTP bool
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
	// Servers talks to the pods.
	Servers Servers
	// Now is the clock.
	Now func() time.Time

	memory memory
}

// +kubebuilder:rbac:groups=trainyard.dev,resources=modelservices,verbs=get;list;watch
// +kubebuilder:rbac:groups=trainyard.dev,resources=modelservices/status,verbs=get;update;patch
// +kubebuilder:rbac:groups=trainyard.dev,resources=modelservices/finalizers,verbs=update
// +kubebuilder:rbac:groups=trainyard.dev,resources=trainingjobs,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=services;configmaps,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// trainingJobField indexes ModelServices by the TrainingJob they follow.
const trainingJobField = "spec.model.trainingJob.name"

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.ModelService{}, trainingJobField, func(object client.Object) []string {
		if source := object.(*v1alpha1.ModelService).Spec.Model.TrainingJob; source != nil {
			return []string{source.Name}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("indexing ModelServices by TrainingJob: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("modelservice").
		For(&v1alpha1.ModelService{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.Service{}).
		Owns(&corev1.ConfigMap{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(serviceOfPod)).
		Watches(&v1alpha1.TrainingJob{}, handler.EnqueueRequestsFromMapFunc(r.followersOf)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

func serviceOfPod(_ context.Context, pod client.Object) []reconcile.Request {
	name := pod.GetLabels()[v1alpha1.ModelServiceLabel]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: pod.GetNamespace(), Name: name}}}
}

func (r *Reconciler) followersOf(ctx context.Context, training client.Object) []reconcile.Request {
	var followers v1alpha1.ModelServiceList
	err := r.Client.List(ctx, &followers, client.InNamespace(training.GetNamespace()), client.MatchingFields{trainingJobField: training.GetName()})
	if err != nil {
		log.FromContext(ctx).Error(err, "listing the ModelServices that follow a TrainingJob", "trainingJob", training.GetName())
		return nil
	}
	var requests []reconcile.Request
	for i := range followers.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&followers.Items[i])})
	}
	return requests
}

// Reconcile finds the model, decides how many pods serve it, applies the
// objects, tells running pods of the model, and writes what is seen into the
// status.
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
	if seen.resolution.model != nil {
		r.scale(ctx, service, &seen)
		if seen.obstacle, err = r.applyChildren(ctx, service, seen); err != nil {
			return ctrl.Result{}, err
		}
		r.teach(ctx, service, seen)
	}
	if err := r.writeStatus(ctx, service, statusOf(service, seen)); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: pause(seen)}, nil
}

// pause is when to look again, for what no watch tells: the pods' load, and
// whether an obstacle is gone. A service without a model waits for its
// TrainingJob, which is watched.
func pause(seen observation) time.Duration {
	if seen.resolution.model == nil {
		return 0
	}
	return samplePeriod
}

func (r *Reconciler) observe(ctx context.Context, service *v1alpha1.ModelService) (observation, error) {
	seen := observation{now: r.Now()}
	training, err := r.trainingJob(ctx, service)
	if err != nil {
		return seen, err
	}
	seen.resolution = resolve(service, training)
	var deployment appsv1.Deployment
	err = r.Client.Get(ctx, client.ObjectKeyFromObject(service), &deployment)
	if client.IgnoreNotFound(err) != nil {
		return seen, fmt.Errorf("reading Deployment %s: %w", service.Name, err)
	}
	if err == nil {
		seen.deployment = &deployment
	}
	seen.pods, err = r.listPods(ctx, service)
	return seen, err
}

func (r *Reconciler) trainingJob(ctx context.Context, service *v1alpha1.ModelService) (*v1alpha1.TrainingJob, error) {
	var training v1alpha1.TrainingJob
	name := service.Spec.Model.TrainingJob.Name
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: service.Namespace, Name: name}, &training)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading TrainingJob %s: %w", name, err)
	}
	return &training, nil
}

// listPods lists the pods that are not being stopped, the oldest first, and
// asks each for its model.
func (r *Reconciler) listPods(ctx context.Context, service *v1alpha1.ModelService) ([]podReport, error) {
	var list corev1.PodList
	err := r.Client.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingLabels{v1alpha1.ModelServiceLabel: service.Name})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of ModelService %s: %w", service.Name, err)
	}
	pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return !pod.DeletionTimestamp.IsZero() })
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	reports := make([]podReport, len(pods))
	var group sync.WaitGroup
	for i := range pods {
		group.Go(func() { reports[i] = r.report(ctx, service, &pods[i]) })
	}
	group.Wait()
	return reports, nil
}

// report asks a pod for its model. That a pod does not answer is no error: it
// may not listen yet, and its own status says more.
func (r *Reconciler) report(ctx context.Context, service *v1alpha1.ModelService, pod *corev1.Pod) podReport {
	report := podReport{pod: pod}
	if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" {
		return report
	}
	models, err := r.Servers.Models(ctx, pod)
	if err != nil {
		log.FromContext(ctx).V(1).Info("a server doesn't tell its models", "pod", pod.Name, "reason", err.Error())
		return report
	}
	for i := range models {
		if models[i].Name == service.Name {
			report.model = &models[i]
		}
	}
	return report
}

// scale samples the pods' load when it is time, and decides how many pods
// there should be.
func (r *Reconciler) scale(ctx context.Context, service *v1alpha1.ModelService, seen *observation) {
	record := r.memory.of(client.ObjectKeyFromObject(service))
	policy := policyOf(service.Spec.Autoscaling)
	current := policy.Min
	if service.Status.Replicas != nil {
		current = service.Status.Replicas.Desired
	}
	if seen.now.Sub(record.sampled) >= samplePeriod/2 {
		sample := record.sample(r.readings(ctx, seen.pods), readyCount(seen.pods), seen.now)
		record.decision, record.state = scaling.Decide(policy, record.state, current, sample)
		record.sampled = seen.now
	}
	seen.decision = record.decision
}

func policyOf(autoscaling v1alpha1.Autoscaling) scaling.Policy {
	least := ptr.Deref(autoscaling.MinReplicas, 1)
	return scaling.Policy{
		Min:    least,
		Max:    ptr.Deref(autoscaling.MaxReplicas, max(least, 10)),
		Target: float64(ptr.Deref(autoscaling.TargetConcurrency, 10)),
	}
}

// readings asks the ready pods for their load. A pod that does not answer is
// missing from the result.
func (r *Reconciler) readings(ctx context.Context, pods []podReport) map[types.UID]spec.Stats {
	readings := map[types.UID]spec.Stats{}
	var mutex sync.Mutex
	var group sync.WaitGroup
	for _, report := range pods {
		if !report.ready() {
			continue
		}
		group.Go(func() {
			stats, err := r.Servers.Stats(ctx, report.pod)
			if err != nil {
				log.FromContext(ctx).V(1).Info("a server doesn't tell its load", "pod", report.pod.Name, "reason", err.Error())
				return
			}
			mutex.Lock()
			defer mutex.Unlock()
			readings[report.pod.UID] = stats
		})
	}
	group.Wait()
	return readings
}

// teach tells running pods of the model, if they have another. A server that
// is at it, or that failed and tries again by itself, is left alone.
func (r *Reconciler) teach(ctx context.Context, service *v1alpha1.ModelService, seen observation) {
	model := servedModel(service, seen.resolution.model, r.Runtime.PlainHTTP)
	var group sync.WaitGroup
	for _, report := range seen.pods {
		if report.model == nil || report.model.Digest == model.Digest {
			continue
		}
		group.Go(func() {
			if err := r.Servers.Load(ctx, report.pod, model); err != nil {
				log.FromContext(ctx).Info("a server doesn't take the model yet", "pod", report.pod.Name, "model", model.Digest, "reason", err.Error())
			}
		})
	}
	group.Wait()
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
