package modelservice

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/polling"
	"trainyard.dev/trainyard/runtime/spec"
)

// question is what is asked for a service, every samplePeriod: its servers, which
// are also told of the model if they have another, the gateway, and the pod that
// looks at an address.
type question struct {
	service  types.NamespacedName
	servers  []*corev1.Pod
	model    spec.ServedModel
	gateways []*corev1.Pod
	// follower is nil if nobody looks.
	follower *corev1.Pod
}

// answers are what pods told, by their UID. One that didn't is missing.
type answers struct {
	models   map[types.UID]spec.ModelStatus
	stats    map[types.UID]spec.Stats
	followed map[types.UID]spec.Followed
	gateways map[types.UID]reading
}

func (r *Reconciler) newPoller() *polling.Poller[question, answers] {
	return &polling.Poller[question, answers]{Round: r.ask, Every: samplePeriod, Now: r.Now}
}

// questionOf is what to ask after a pass.
func (r *Reconciler) questionOf(service *v1alpha1.ModelService, seen observation) question {
	q := question{service: client.ObjectKeyFromObject(service), gateways: readyGateways(seen.gateways)}
	if seen.resolution.model != nil {
		q.model = servedModel(service, seen.resolution.model, r.Runtime.Registry)
	}
	for _, report := range seen.pods {
		if answersCalls(report.pod) {
			q.servers = append(q.servers, report.pod)
		}
	}
	if seen.follower != nil && answersCalls(seen.follower) {
		q.follower = seen.follower
	}
	return q
}

func answersCalls(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodRunning && pod.Status.PodIP != ""
}

// subject changes when there is somebody new to ask, or something new to tell.
// Who becomes ready is new: until then it may not have listened.
func (q question) subject() string {
	var parts []string
	for _, pod := range q.servers {
		parts = append(parts, fmt.Sprintf("%s %t %s %t", pod.UID, isReady(pod), q.model.Digest, q.model.NewContract))
	}
	if q.follower != nil {
		parts = append(parts, string(q.follower.UID))
	}
	return strings.Join(parts, ",")
}

// ask makes one round. Who doesn't answer is no error: a pod may not listen yet,
// and its own status says more.
func (r *Reconciler) ask(ctx context.Context, q question) answers {
	var heard answers
	var group sync.WaitGroup
	group.Go(func() {
		heard.models = eachOf(q.servers, func(pod *corev1.Pod) (spec.ModelStatus, bool) { return r.askModel(ctx, q, pod) })
	})
	group.Go(func() {
		heard.stats = eachOf(q.servers, func(pod *corev1.Pod) (spec.Stats, bool) { return answerOf(ctx, pod, r.Servers.Stats) })
	})
	group.Go(func() { heard.gateways = r.askGateways(ctx, q) })
	if q.follower != nil {
		heard.followed = eachOf([]*corev1.Pod{q.follower}, func(pod *corev1.Pod) (spec.Followed, bool) { return answerOf(ctx, pod, r.Followers.Followed) })
	}
	group.Wait()
	return heard
}

// eachOf asks all pods at the same time.
func eachOf[Answer any](pods []*corev1.Pod, ask func(*corev1.Pod) (Answer, bool)) map[types.UID]Answer {
	answers := make(map[types.UID]Answer, len(pods))
	var mutex sync.Mutex
	var group sync.WaitGroup
	for _, pod := range pods {
		group.Go(func() {
			answer, ok := ask(pod)
			if !ok {
				return
			}
			mutex.Lock()
			defer mutex.Unlock()
			answers[pod.UID] = answer
		})
	}
	group.Wait()
	return answers
}

// answerOf is what one pod answers, if it does.
func answerOf[Answer any](ctx context.Context, pod *corev1.Pod, ask func(context.Context, *corev1.Pod) (Answer, error)) (Answer, bool) {
	answer, err := ask(ctx, pod)
	if err != nil {
		log.FromContext(ctx).V(1).Info("a pod doesn't answer", "namespace", pod.Namespace, "pod", pod.Name, "reason", err.Error())
	}
	return answer, err == nil
}

// askModel asks a server for its model, and tells it of the one that it should
// have if it has another. A server that is at it, or that failed and tries again
// by itself, is left alone.
func (r *Reconciler) askModel(ctx context.Context, q question, pod *corev1.Pod) (spec.ModelStatus, bool) {
	models, ok := answerOf(ctx, pod, r.Servers.Models)
	at := slices.IndexFunc(models, func(model spec.ModelStatus) bool { return model.Name == q.service.Name })
	if !ok || at < 0 {
		return spec.ModelStatus{}, false
	}
	if q.model.Digest != "" && !isAt(models[at], q.model) {
		if err := r.Servers.Load(ctx, pod, q.model); err != nil {
			log.FromContext(ctx).Info("a server doesn't take the model yet", "namespace", pod.Namespace, "pod", pod.Name, "model", q.model.Digest, "reason", err.Error())
		}
	}
	return models[at], true
}

// isAt tells whether a server has the model, or tries to have it as it shall.
func isAt(status spec.ModelStatus, model spec.ServedModel) bool {
	return status.Digest == model.Digest && (status.State == spec.StateReady || status.NewContract == model.NewContract)
}
