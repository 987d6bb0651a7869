package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/test/prober"
)

const (
	// services are how many there are, sleepers how many of them go to zero, and
	// models how many TrainingJobs they follow.
	services = 1000
	sleepers = 100
	models   = 100
	// wakes are how many are woken one after the other; the other sleepers are
	// woken at once.
	wakes = 50
)

// modelServices makes many services, leaves them alone, and wakes some.
func modelServices(ctx context.Context, b *bench) error {
	const controller = "modelservice"
	if err := b.train(ctx, models); err != nil {
		return err
	}
	before, err := b.manager.read(ctx, controller)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.serveAll(ctx); err != nil {
		return err
	}
	after, err := b.manager.read(ctx, controller)
	if err != nil {
		return err
	}
	writes, reads, err := b.requests("manager", began, time.Now())
	if err != nil {
		return err
	}
	report("modelservices", fmt.Sprintf("%d applied at once, all ready", services), "all ready after %.1f s", after.at.Sub(began).Seconds())
	report("modelservices-reconcile", "p99 < 1 s", "%s", after.passes(before))
	report("modelservices-requests", "", "%.1f writes and %.1f reads a service: %s; %s",
		float64(writes.total())/services, float64(reads.total())/services, writes, reads)
	if err := b.asleep(ctx); err != nil {
		return err
	}
	if err := b.rest(ctx, "modelservices-at-rest", controller); err != nil {
		return err
	}
	before, err = b.manager.read(ctx, controller)
	if err != nil {
		return err
	}
	if err := errors.Join(b.wakeInTurn(ctx), b.wakeAtOnce(ctx)); err != nil {
		return err
	}
	after, err = b.manager.read(ctx, controller)
	if err != nil {
		return err
	}
	now, peak, err := b.manager.memory()
	report("modelservices-wake-reconcile", "p99 < 1 s", "%s", after.passes(before))
	report("modelservices-memory", "manager < 300 MB", "%d MiB at most, %d MiB now", peak, now)
	return err
}

func nameOf(service int) string { return fmt.Sprintf("service-%d", service) }

// serveAll makes the services, and waits until all are ready. Each follows one
// of the TrainingJobs.
func (b *bench) serveAll(ctx context.Context) error {
	var trained v1alpha1.TrainingJobList
	if err := b.List(ctx, &trained, client.InNamespace(namespace)); err != nil {
		return err
	}
	err := inParallel(services, func(i int) error {
		followed := trained.Items[i%len(trained.Items)]
		b.pods.digests.Store(nameOf(i), followed.Status.Model.Digest)
		service := &v1alpha1.ModelService{
			ObjectMeta: metav1.ObjectMeta{Name: nameOf(i), Namespace: namespace},
			Spec:       v1alpha1.ModelServiceSpec{Model: v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: followed.Name}}},
		}
		if i < sleepers {
			service.Spec.Autoscaling = v1alpha1.Autoscaling{
				MinReplicas: new(int32(0)), IdleTime: &metav1.Duration{Duration: 10 * time.Second}, StabilizationTime: &metav1.Duration{Duration: 10 * time.Second},
			}
		}
		return b.Create(ctx, service)
	})
	if err != nil {
		return fmt.Errorf("applying the ModelServices: %w", err)
	}
	return b.untilAll(ctx, "all ModelServices to be ready", 6*time.Minute, services, func(s *v1alpha1.ModelService) bool {
		return meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ModelServiceReady)
	})
}

// asleep waits until those have no pods that may have none.
func (b *bench) asleep(ctx context.Context) error {
	return b.untilAll(ctx, "the idle ModelServices to have no pods", 3*time.Minute, sleepers, func(s *v1alpha1.ModelService) bool {
		replicas := s.Status.Replicas
		return replicas != nil && replicas.Desired == 0 && replicas.Ready == 0
	})
}

func (b *bench) untilAll(ctx context.Context, what string, limit time.Duration, wanted int, holds func(*v1alpha1.ModelService) bool) error {
	return until(ctx, what, limit, func(ctx context.Context) (bool, error) {
		var list v1alpha1.ModelServiceList
		err := b.seen.List(ctx, &list, client.UnsafeDisableDeepCopy)
		count := 0
		for i := range list.Items {
			if holds(&list.Items[i]) {
				count++
			}
		}
		return count == wanted, err
	})
}

// wakeInTurn asks services that have no pods, one after the other.
func (b *bench) wakeInTurn(ctx context.Context) error {
	var decided, answered []time.Duration
	for i := range wakes {
		w, err := b.wake(ctx, nameOf(i))
		if err != nil {
			return err
		}
		decided, answered = append(decided, w.decided), append(answered, w.answered)
	}
	reportWakes("modelservices-wake", "a wake decided within 0.25 s", decided, answered)
	return nil
}

// wakeAtOnce asks the others, all at the same time.
func (b *bench) wakeAtOnce(ctx context.Context) error {
	var decided, answered []time.Duration
	var mutex sync.Mutex
	var failed error
	var group sync.WaitGroup
	for i := wakes; i < sleepers; i++ {
		group.Go(func() {
			w, err := b.wake(ctx, nameOf(i))
			mutex.Lock()
			defer mutex.Unlock()
			decided, answered = append(decided, w.decided), append(answered, w.answered)
			failed = errors.Join(failed, err)
		})
	}
	group.Wait()
	if failed == nil {
		reportWakes(fmt.Sprintf("modelservices-wake-%d-at-once", sleepers-wakes), "", decided, answered)
	}
	return failed
}

func reportWakes(what, asked string, decided, answered []time.Duration) {
	slices.Sort(decided)
	slices.Sort(answered)
	report(what, asked, "decided after p50 %.0f ms, p95 %.0f ms, at most %.0f ms; answered after p50 %.2f s, at most %.2f s; %d services",
		milliseconds(decided, 0.5), milliseconds(decided, 0.95), milliseconds(decided, 1),
		milliseconds(answered, 0.5)/1000, milliseconds(answered, 1)/1000, len(decided))
}

func milliseconds(sorted []time.Duration, part float64) float64 {
	return float64(prober.Percentile(sorted, part)) / float64(time.Millisecond)
}

// woken is how long it took from a request until its Deployment was told to have
// a pod, and until the answer.
type woken struct {
	decided, answered time.Duration
}

// wake sends one request to the gateway's port of a service that has no pods.
func (b *bench) wake(ctx context.Context, name string) (woken, error) {
	service := &v1alpha1.ModelService{}
	if err := b.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, service); err != nil {
		return woken{}, err
	}
	watching, stop := context.WithTimeoutCause(ctx, time.Minute, errors.New("waited 1 min for "+name+" to be woken"))
	defer stop()
	deployments, err := b.Watch(watching, &appsv1.DeploymentList{}, client.InNamespace(namespace), client.MatchingFields{"metadata.name": name})
	if err != nil {
		return woken{}, err
	}
	defer deployments.Stop()
	var w woken
	var failed error
	var asking sync.WaitGroup
	began := time.Now()
	asking.Go(func() {
		failed = ask(watching, fmt.Sprintf("http://127.0.0.1:%d/v2/models/%s/infer", service.Status.Gateway.HTTP, name))
		w.answered = time.Since(began)
	})
	for event := range deployments.ResultChan() {
		deployment, ok := event.Object.(*appsv1.Deployment)
		if ok && ptr.Deref(deployment.Spec.Replicas, 1) > 0 {
			w.decided = time.Since(began)
			break
		}
	}
	asking.Wait()
	if w.decided == 0 {
		failed = errors.Join(failed, context.Cause(watching))
	}
	return w, failed
}

func ask(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	said, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", url, response.Status, said)
	}
	return nil
}
