package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/test/prober"
)

const (
	starts   = 20
	services = 25
)

// fromZero asks a service that has no pods, again and again, beside the same
// pod that is started by kubectl scale and asked directly.
func fromZero(ctx context.Context, b *bench) error {
	service, err := b.serve(ctx, "digits", none())
	if err != nil {
		return err
	}
	twin, err := b.twin(ctx, "digits")
	if err != nil {
		return err
	}
	var ours, theirs []time.Duration
	for range starts {
		if err := b.gone(ctx, "digits"); err != nil {
			return err
		}
		probe, err := b.probe(ctx, "digits")
		if err != nil {
			return err
		}
		probe.Ask()
		count := probe.Count()
		if count.Failed > 0 {
			return fmt.Errorf("a request from zero failed: %q", count.Failures)
		}
		ours = append(ours, count.Took[0])
		if err := b.gone(ctx, "digits"); err != nil {
			return err
		}
		direct, err := b.startTwin(ctx, twin)
		if err != nil {
			return err
		}
		theirs = append(theirs, direct)
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	report("from-zero", "p50 <= 1.5 s, p95 <= 3 s", fmt.Sprintf("p50 %s, p95 %s of %d", seconds(prober.Percentile(ours, 0.5)), seconds(prober.Percentile(ours, 0.95)), starts))
	report("over-kubectl-scale", "<= 0.20 s", fmt.Sprintf("%.2f s at p50, %.2f s at p95 (directly: p50 %s, p95 %s)",
		(prober.Percentile(ours, 0.5)-prober.Percentile(theirs, 0.5)).Seconds(), (prober.Percentile(ours, 0.95)-prober.Percentile(theirs, 0.95)).Seconds(),
		seconds(prober.Percentile(theirs, 0.5)), seconds(prober.Percentile(theirs, 0.95))))
	return errors.Join(b.Delete(ctx, twin), b.remove(ctx, service))
}

// steady counts the requests that pass a gateway while a pod is ready.
func steady(ctx context.Context, b *bench) error {
	service, err := b.serve(ctx, "steady", v1alpha1.Autoscaling{MinReplicas: new(int32(1))})
	if err != nil {
		return err
	}
	probe, err := b.probe(ctx, "steady")
	if err != nil {
		return err
	}
	probe.Ask()
	before, err := b.passed(ctx, "steady")
	if err != nil {
		return err
	}
	second, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	probe.Run(second, 100)
	after, err := b.passed(ctx, "steady")
	if err != nil {
		return err
	}
	count := probe.Count()
	report("steady", "no request passes a gateway", fmt.Sprintf("%d of %d did; p50 %s; %d failed", after-before, count.Sent-1, prober.Percentile(count.Took, 0.5), count.Failed))
	return b.remove(ctx, service)
}

// passed is how many requests of a service all gateways have seen.
func (b *bench) passed(ctx context.Context, name string) (int64, error) {
	var gateways corev1.PodList
	if err := b.List(ctx, &gateways, client.InNamespace("trainyard-system"), client.MatchingLabels{"app.kubernetes.io/component": "gateway"}); err != nil {
		return 0, err
	}
	total := int64(0)
	for _, pod := range gateways.Items {
		response, err := http.Get("http://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(routing.ReportPort)) + "/report")
		if err != nil {
			return 0, err
		}
		var told routing.Report
		err = json.NewDecoder(response.Body).Decode(&told)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			return 0, err
		}
		for _, load := range told.Services {
			if load.Namespace == b.namespace && load.Name == name {
				total += load.Requests
			}
		}
	}
	return total, nil
}

// step goes from nothing to a load that needs two pods at once.
func step(ctx context.Context, b *bench) error {
	autoscaling := none()
	autoscaling.Metric, autoscaling.TargetRequestsPerSecond = v1alpha1.MetricRequestsPerSecond, new(int32(100))
	service, err := b.serve(ctx, "step", autoscaling)
	if err != nil {
		return err
	}
	if err := b.gone(ctx, "step"); err != nil {
		return err
	}
	probe, err := b.probe(ctx, "step")
	if err != nil {
		return err
	}
	began := time.Now()
	loading, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); probe.Run(loading, 120) }()
	err = b.until(ctx, "two pods to be ready", 20*time.Second, func(ctx context.Context) (bool, error) {
		err := b.Get(ctx, client.ObjectKeyFromObject(service), service)
		return service.Status.Replicas.Ready >= 2, err
	})
	took := time.Since(began)
	<-ended
	if err != nil {
		return err
	}
	count := probe.Count()
	report("step", "zero errors, two replicas within 10 s", fmt.Sprintf("%d of %d failed, two replicas after %s; p95 %s", count.Failed, count.Sent, seconds(took), seconds(prober.Percentile(count.Took, 0.95))))
	return b.remove(ctx, service)
}

// many wakes many services at once.
func many(ctx context.Context, b *bench) error {
	var all []*v1alpha1.ModelService
	for i := range services {
		autoscaling := none()
		autoscaling.MaxReplicas = new(int32(1))
		autoscaling.IdleTime = &metav1.Duration{Duration: 5 * time.Second}
		service, err := b.serve(ctx, fmt.Sprintf("many-%d", i), autoscaling)
		if err != nil {
			return err
		}
		all = append(all, service)
	}
	probes := make([]*prober.Prober, len(all))
	for i, service := range all {
		if err := b.gone(ctx, service.Name); err != nil {
			return err
		}
		var err error
		if probes[i], err = b.probe(ctx, service.Name); err != nil {
			return err
		}
	}
	var group sync.WaitGroup
	for _, probe := range probes {
		group.Go(probe.Ask)
	}
	group.Wait()
	var took []time.Duration
	failed := 0
	for _, probe := range probes {
		count := probe.Count()
		took, failed = append(took, count.Took...), failed+count.Failed
	}
	slices.Sort(took)
	report("many", fmt.Sprintf("%d services woken at once: p95 <= 15 s, zero errors", services), fmt.Sprintf("p50 %s, p95 %s, %d failed",
		seconds(prober.Percentile(took, 0.5)), seconds(prober.Percentile(took, 0.95)), failed))
	return nil
}
