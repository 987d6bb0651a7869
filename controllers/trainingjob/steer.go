package trainingjob

import (
	"context"
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/story"
)

// step is what a pass does about the Job.
type step int

const (
	leave step = iota
	create
	deleteJob
	suspendOrResume
)

// nextStep decides what to do. Whether a Job of a queue is suspended is Kueue's
// affair: a run that its user suspends leaves the queue. Of any other Job, it is
// whoever changed it last: the operator acts when the user's wish changes.
//
//	Job                           spec.suspend, in a queue   step
//	none, with an obstacle                                   leave
//	none                          suspended, queued          leave
//	none                                                     create
//	being deleted                                            leave
//	ended well, result lost                                  deleteJob: the run is made again, to the same model
//	ended                                                    leave
//	there                         suspended, queued          deleteJob
//	there                         wish changed, not queued   suspendOrResume
func nextStep(job *v1alpha1.TrainingJob, seen observation) step {
	withdrawn := job.Spec.Suspend && inQueue(job)
	switch made := seen.job; {
	case made == nil && (seen.obstacle.reason != "" || withdrawn):
		return leave
	case made == nil:
		return create
	case !made.DeletionTimestamp.IsZero():
		return leave
	case resultLost(seen):
		return deleteJob
	case jobComplete(made) || jobFailed(made) != nil:
		return leave
	case withdrawn:
		return deleteJob
	case !inQueue(job) && job.Spec.Suspend != wishOf(made):
		return suspendOrResume
	}
	return leave
}

// wishOf is the spec.suspend that was carried out last.
func wishOf(made *batchv1.Job) bool { return made.Annotations[v1alpha1.SuspendAnnotation] == "true" }

// steer takes the step, and shows its outcome in what was seen.
func (r *Reconciler) steer(ctx context.Context, job *v1alpha1.TrainingJob, seen *observation) (err error) {
	next := nextStep(job, *seen)
	if hasWorkers(job) && (next == create || expectsPod(seen.job)) {
		seen.obstacle, err = r.connect(ctx, job)
		if err != nil || (next == create && seen.obstacle.reason != "") {
			return err
		}
	}
	switch next {
	case create:
		seen.job, seen.obstacle, err = r.createJob(ctx, job)
	case suspendOrResume:
		seen.job, err = r.suspendOrResume(ctx, job, seen.job)
	case deleteJob:
		// In the foreground: the Job is there until its pods are gone, so that no
		// two train at once.
		err = r.Client.Delete(ctx, seen.job, client.Preconditions{UID: &seen.job.UID}, client.PropagationPolicy(metav1.DeletePropagationForeground))
		if err = client.IgnoreNotFound(err); err != nil {
			err = fmt.Errorf("deleting Job %s: %w", seen.job.Name, err)
		}
	}
	return err
}

// suspendOrResume passes the user's wish on, and records in the same write that
// it did.
func (r *Reconciler) suspendOrResume(ctx context.Context, job *v1alpha1.TrainingJob, made *batchv1.Job) (*batchv1.Job, error) {
	changed := made.DeepCopy()
	changed.Spec.Suspend = new(job.Spec.Suspend)
	if changed.Annotations == nil {
		changed.Annotations = map[string]string{}
	}
	changed.Annotations[v1alpha1.SuspendAnnotation] = strconv.FormatBool(job.Spec.Suspend)
	unless := client.MergeFromWithOptions(made, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, changed, unless, client.FieldOwner(v1alpha1.FieldOwner)); err != nil {
		return made, fmt.Errorf("changing spec.suspend of Job %s to %v: %w", made.Name, job.Spec.Suspend, err)
	}
	return changed, nil
}

// expire deletes a finished TrainingJob when its time has come.
func (r *Reconciler) expire(ctx context.Context, job *v1alpha1.TrainingJob) (ctrl.Result, error) {
	ttl, ended := job.Spec.TTLSecondsAfterFinished, job.Status.CompletionTime
	if ttl == nil || ended == nil {
		return ctrl.Result{}, nil
	}
	if left := ended.Add(time.Duration(*ttl) * time.Second).Sub(r.Now()); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	err := r.Client.Delete(ctx, job, client.Preconditions{UID: &job.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	switch {
	case apierrors.IsNotFound(err):
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("deleting TrainingJob %s, whose ttlSecondsAfterFinished has passed: %w", job.Name, err)
	}
	story.Tell(ctx, r.Recorder, job, expired(*ttl))
	return ctrl.Result{}, nil
}
