// Package trainingjob carries out TrainingJobs: each becomes a batch/v1 Job
// whose pod trains the network and publishes the model, and each thing that
// happens to it ends in its status.
package trainingjob

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
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
	"trainyard.dev/trainyard/controllers/ownership"
	"trainyard.dev/trainyard/controllers/polling"
	"trainyard.dev/trainyard/controllers/story"
	"trainyard.dev/trainyard/runtime/spec"
)

const (
	// obstaclePause is how long a run waits before it looks again for something
	// that nothing tells it of.
	obstaclePause = 3 * time.Second
	// progressPause is how often a running pod is asked how far it is.
	progressPause = 2 * time.Second
)

// Reconciler brings TrainingJobs about.
type Reconciler struct {
	// Client reads from the manager's cache and writes to the API server.
	Client client.Client
	// Reader reads from the API server itself, for objects that are not cached.
	Reader client.Reader
	// Recorder writes Events.
	Recorder events.EventRecorder
	// Runtime says what the pods run.
	Runtime Runtime
	// Progress asks the trainer in a running pod how far it is.
	Progress func(ctx context.Context, pod *corev1.Pod) (*spec.Progress, error)
	// Now is the clock.
	Now func() time.Time

	// polls asks trainers, and wakes Reconcile when they have told something.
	polls *polling.Poller[*corev1.Pod, telling]
}

// +kubebuilder:rbac:groups=trainyard.dev,resources=trainingjobs,verbs=list;watch;delete
// +kubebuilder:rbac:groups=trainyard.dev,resources=trainingjobs/status,verbs=update
// +kubebuilder:rbac:groups=trainyard.dev,resources=trainingjobs/finalizers,verbs=update
// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=create;patch
// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=services,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups="",resources=configmaps;persistentvolumeclaims,verbs=get
// +kubebuilder:rbac:groups="",resources=events,verbs=list
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.polls = r.newPoller()
	return ctrl.NewControllerManagedBy(mgr).
		Named("trainingjob").
		For(&v1alpha1.TrainingJob{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&batchv1.Job{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(jobOfPod)).
		WatchesRawSource(r.polls).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(reconcile.AsReconciler(r.Client, r))
}

func jobOfPod(_ context.Context, pod client.Object) []reconcile.Request {
	name := pod.GetLabels()[v1alpha1.TrainingJobLabel]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: pod.GetNamespace(), Name: name}}}
}

// conflictPause lets the cache hear of what another wrote.
const conflictPause = 50 * time.Millisecond

// Reconcile brings the Job to what the run needs, and writes what is seen into
// the status. That somebody wrote in between is no error: what is there now is
// looked at soon. It may be this controller's own last write, when the cache is
// behind.
func (r *Reconciler) Reconcile(ctx context.Context, job *v1alpha1.TrainingJob) (ctrl.Result, error) {
	result, err := r.carryOut(ctx, job)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: conflictPause}, nil
	}
	return result, err
}

func (r *Reconciler) carryOut(ctx context.Context, job *v1alpha1.TrainingJob) (ctrl.Result, error) {
	switch {
	case !job.DeletionTimestamp.IsZero():
		return ctrl.Result{}, nil
	case Finished(job):
		return r.expire(ctx, job)
	}
	seen, err := r.observe(ctx, job)
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.steer(ctx, job, &seen); err != nil {
		return ctrl.Result{}, err
	}
	if seen.pending {
		return ctrl.Result{}, nil
	}
	if err := r.writeStatus(ctx, job, statusOf(job, seen)); err != nil {
		return ctrl.Result{}, err
	}
	if Finished(job) {
		return r.expire(ctx, job)
	}
	return ctrl.Result{RequeueAfter: pause(job)}, nil
}

// pause is when to look again, for what no watch tells, nor a pod that trains.
func pause(job *v1alpha1.TrainingJob) time.Duration {
	if job.Status.State == v1alpha1.StateTraining {
		return 0
	}
	return obstaclePause
}

func (r *Reconciler) observe(ctx context.Context, job *v1alpha1.TrainingJob) (observation, error) {
	seen := observation{now: r.Now()}
	var found batchv1.Job
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(job), &found)
	switch {
	case apierrors.IsNotFound(err):
		seen.obstacle, err = r.findObstacle(ctx, job)
		return seen, err
	case err != nil:
		return seen, fmt.Errorf("reading Job %s: %w", job.Name, err)
	}
	if seen.obstacle, err = r.contest(ctx, job, &found); err != nil || seen.obstacle.reason != "" {
		return seen, err
	}
	seen.job = &found
	if seen.pods, err = r.readPods(ctx, &found); err != nil {
		return seen, err
	}
	seen.progress, seen.pending = r.progressOfPod(job, leadingPod(seen.pods))
	seen.warning = r.findWarning(ctx, troubled(seen))
	return seen, nil
}

// contest tells what keeps a Job that stands under the needed name from being
// this run's. One that a deleted TrainingJob left behind is cleared away.
func (r *Reconciler) contest(ctx context.Context, job *v1alpha1.TrainingJob, found *batchv1.Job) (obstacle, error) {
	switch ownership.Of(found, job, v1alpha1.GroupVersion.WithKind("TrainingJob").GroupKind()) {
	case ownership.Own:
		return obstacle{}, nil
	case ownership.Foreign:
		return obstacle{v1alpha1.ReasonNameTaken, fmt.Sprintf(
			"Job %s/%s already exists and belongs to something else; the run waits. Delete that Job, or use another name",
			found.Namespace, found.Name)}, nil
	}
	err := r.Client.Delete(ctx, found, client.Preconditions{UID: &found.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if client.IgnoreNotFound(err) != nil {
		return obstacle{}, fmt.Errorf("deleting Job %s, which an earlier TrainingJob left behind: %w", found.Name, err)
	}
	return obstacle{v1alpha1.ReasonPodPending, "waiting until the Job of the TrainingJob that had this name before is gone"}, nil
}

// readPods lists the pods of a Job, the oldest first. The cache may show the end
// of a Job before the end of its pod, which holds the result, so then the API
// server is asked.
func (r *Reconciler) readPods(ctx context.Context, job *batchv1.Job) ([]corev1.Pod, error) {
	pods, err := listPods(ctx, r.Client, job)
	if _, known := published(pods); err != nil || known || !jobComplete(job) && jobFailed(job) == nil {
		return pods, err
	}
	return listPods(ctx, r.Reader, job)
}

func listPods(ctx context.Context, from client.Reader, job *batchv1.Job) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := from.List(ctx, &list, client.InNamespace(job.Namespace), client.MatchingLabels{v1alpha1.TrainingJobLabel: job.Name})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of Job %s: %w", job.Name, err)
	}
	pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return !metav1.IsControlledBy(&pod, job) })
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return pods, nil
}

// findWarning reads what Kubernetes says of an object: that a Secret is missing,
// a claim can't be mounted or a quota is used up is only in Events.
func (r *Reconciler) findWarning(ctx context.Context, about client.Object) string {
	if about == nil {
		return ""
	}
	var list corev1.EventList
	err := r.Reader.List(ctx, &list, client.InNamespace(about.GetNamespace()),
		client.MatchingFields{"involvedObject.uid": string(about.GetUID()), "type": corev1.EventTypeWarning})
	if err != nil {
		log.FromContext(ctx).V(1).Info("Events can't be read", "about", about.GetName(), "reason", err.Error())
		return ""
	}
	return newestWarning(list.Items)
}

// createJob makes the Job, and before it what isolates its pods. A refusal that
// only a person can change is an obstacle, not an error that is tried again and
// again in silence.
func (r *Reconciler) createJob(ctx context.Context, job *v1alpha1.TrainingJob) (*batchv1.Job, obstacle, error) {
	desired, err := buildJob(job, r.Runtime)
	if err != nil {
		return nil, obstacle{}, err
	}
	err = r.Client.Apply(ctx, buildPolicy(job, r.Runtime), client.FieldOwner(v1alpha1.FieldOwner), client.ForceOwnership)
	if err == nil {
		err = r.Client.Create(ctx, desired, client.FieldOwner(v1alpha1.FieldOwner))
	}
	switch {
	case err == nil:
		return desired, obstacle{}, nil
	case apierrors.IsAlreadyExists(err):
		return r.existingJob(ctx, job)
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return nil, obstacle{v1alpha1.ReasonForbidden, fmt.Sprintf("the API server refuses what the run needs: %v", err)}, nil
	}
	return nil, obstacle{}, fmt.Errorf("creating Job %s and its NetworkPolicy: %w", desired.Name, err)
}

// existingJob reads a Job that the cache does not show: one that was made a
// moment ago, or one that is not ours.
func (r *Reconciler) existingJob(ctx context.Context, job *v1alpha1.TrainingJob) (*batchv1.Job, obstacle, error) {
	var found batchv1.Job
	if err := r.Reader.Get(ctx, client.ObjectKeyFromObject(job), &found); err != nil {
		return nil, obstacle{}, fmt.Errorf("reading Job %s: %w", job.Name, err)
	}
	blocked, err := r.contest(ctx, job, &found)
	if err != nil || blocked.reason != "" {
		return nil, blocked, err
	}
	return &found, obstacle{}, nil
}

// writeStatus writes the status once, if it changed, and tells of the change.
// The write carries the resourceVersion that was read, so that of two writers
// only one publishes a model.
func (r *Reconciler) writeStatus(ctx context.Context, job *v1alpha1.TrainingJob, status v1alpha1.TrainingJobStatus) error {
	before := job.Status
	if equality.Semantic.DeepEqual(before, status) {
		return nil
	}
	job.Status = status
	if err := r.Client.Status().Update(ctx, job); err != nil {
		job.Status = before
		return fmt.Errorf("writing the status of TrainingJob %s: %w", job.Name, err)
	}
	if turn, ok := turnOf(before, status); ok {
		story.Tell(ctx, r.Recorder, job, turn)
	}
	return nil
}
