package trainingjob

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/isolation"
	"trainyard.dev/trainyard/controllers/polling"
	"trainyard.dev/trainyard/runtime/spec"
)

// telling is a pod, and how far it says that it is; nil: it doesn't answer.
type telling struct {
	pod      types.UID
	progress *spec.Progress
}

func (r *Reconciler) newPoller() *polling.Poller[*corev1.Pod, telling] {
	return &polling.Poller[*corev1.Pod, telling]{Every: progressPause, Now: r.Now, Round: r.ask}
}

// ask asks the pod how far it is. That a pod does not answer is no error: it may
// not listen yet, or no more.
func (r *Reconciler) ask(ctx context.Context, pod *corev1.Pod) telling {
	progress, err := r.Progress(ctx, pod)
	if err != nil {
		log.FromContext(ctx).V(1).Info("the trainer doesn't tell its progress", "namespace", pod.Namespace, "pod", pod.Name, "reason", err.Error())
	}
	return telling{pod.UID, progress}
}

// progressOfPod is how far the pod said last that it is. It is asked once more;
// pending tells that it was not asked before, and that the pass that follows will
// know.
func (r *Reconciler) progressOfPod(job *v1alpha1.TrainingJob, pod *corev1.Pod) (progress *spec.Progress, pending bool) {
	if pod == nil || pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" {
		return nil, false
	}
	object := ctrl.Request{NamespacedName: client.ObjectKeyFromObject(job)}
	pending = !r.polls.Ask(object, string(pod.UID), pod)
	if told := r.polls.Latest(object).Answers; told.pod == pod.UID {
		progress = told.progress
	}
	return progress, pending
}

// HTTPProgress asks trainers over HTTP. An answer that takes longer than the
// timeout is none: it is asked again.
func HTTPProgress(timeout time.Duration) func(context.Context, *corev1.Pod) (*spec.Progress, error) {
	client := isolation.Client(timeout)
	return func(ctx context.Context, pod *corev1.Pod) (*spec.Progress, error) {
		url := "http://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(spec.ProgressPort)) + "/progress"
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answered %s", url, response.Status)
		}
		var progress spec.Progress
		if err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&progress); err != nil {
			return nil, fmt.Errorf("reading %s: %w", url, err)
		}
		return &progress, nil
	}
}
