package main

import (
	"cmp"
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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/test/node"
	"trainyard.dev/trainyard/test/prober"
)

// services are woken at once.
const services = 25

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
	for range b.starts {
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
	report("from-zero", "p50 <= 1.5 s, p95 <= 3 s", fmt.Sprintf("p50 %s, p95 %s of %d", seconds(prober.Percentile(ours, 0.5)), seconds(prober.Percentile(ours, 0.95)), b.starts))
	report("over-kubectl-scale", "<= 0.20 s", fmt.Sprintf("%.2f s at p50, %.2f s at p95 (directly: p50 %s, p95 %s)",
		(prober.Percentile(ours, 0.5)-prober.Percentile(theirs, 0.5)).Seconds(), (prober.Percentile(ours, 0.95)-prober.Percentile(theirs, 0.95)).Seconds(),
		seconds(prober.Percentile(theirs, 0.5)), seconds(prober.Percentile(theirs, 0.95))))
	return errors.Join(b.Delete(ctx, twin), b.remove(ctx, service))
}

// fromZeroByGRPC does so over gRPC.
func fromZeroByGRPC(ctx context.Context, b *bench) error {
	service, err := b.serve(ctx, "grpc", none())
	if err != nil {
		return err
	}
	address, err := b.address(ctx, "grpc", strconv.Itoa(spec.GRPCPort))
	if err != nil {
		return err
	}
	var took []time.Duration
	for range b.starts {
		if err := b.gone(ctx, "grpc"); err != nil {
			return err
		}
		began := time.Now()
		if err := call(ctx, address); err != nil {
			return fmt.Errorf("a call from zero failed after %s: %w", seconds(time.Since(began)), err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	report("grpc", "p50 <= 1.5 s, p95 <= 3 s", fmt.Sprintf("p50 %s, p95 %s, the slowest %s of %d",
		seconds(prober.Percentile(took, 0.5)), seconds(prober.Percentile(took, 0.95)), seconds(prober.Percentile(took, 1)), b.starts))
	return b.remove(ctx, service)
}

// call asks once over gRPC.
func call(ctx context.Context, address string) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = healthgrpc.NewHealthClient(connection).Check(ctx, &healthgrpc.HealthCheckRequest{})
	return err
}

// steady counts the requests that pass a gateway while a pod is ready. Until
// proxies know of the pod, they go either way.
func steady(ctx context.Context, b *bench) error {
	service, err := b.serve(ctx, "steady", v1alpha1.Autoscaling{MinReplicas: new(int32(1))})
	if err != nil {
		return err
	}
	probe, err := b.probe(ctx, "steady")
	if err != nil {
		return err
	}
	learning := time.Now()
	if err := b.until(ctx, "20 answers in a row from the pod", time.Minute, func(context.Context) (bool, error) {
		probe.Ask()
		return probe.Count().Row >= 20, nil
	}); err != nil {
		return err
	}
	before, learned := probe.Count(), time.Since(learning)
	measured, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	probe.Run(measured, 100)
	count := probe.Count()
	report("steady", "no request passes a gateway", fmt.Sprintf("%d of %d did, %d failed; p50 %s (in the %s before, %d of %d did)",
		count.Passed-before.Passed, count.Sent-before.Sent, count.Failed, prober.Percentile(count.Took, 0.5), seconds(learned), before.Passed, before.Sent))
	return b.remove(ctx, service)
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
		service := b.service(fmt.Sprintf("many-%d", i), autoscaling)
		// All of them have to fit on a node with two processors.
		service.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("40m")}
		if err := b.Create(ctx, service); err != nil {
			return err
		}
		all = append(all, service)
	}
	for _, service := range all {
		if err := b.serves(ctx, service); err != nil {
			return err
		}
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

// killed kills a gateway while it holds requests.
func killed(ctx context.Context, b *bench) error {
	service, err := b.serve(ctx, "killed", none())
	if err != nil {
		return err
	}
	if err := b.gone(ctx, "killed"); err != nil {
		return err
	}
	before, err := b.probe(ctx, "killed")
	if err != nil {
		return err
	}
	after, err := b.probe(ctx, "killed")
	if err != nil {
		return err
	}
	gateways, err := b.gateways(ctx)
	if err != nil {
		return err
	}
	if len(gateways) == 0 {
		return errors.New("no gateway is ready")
	}
	victim := slices.MinFunc(gateways, func(a, b corev1.Pod) int { return cmp.Compare(restarts(&a), restarts(&b)) })

	const rate = 100
	first, stopFirst := context.WithCancel(ctx)
	defer stopFirst()
	second, stopSecond := context.WithCancel(ctx)
	defer stopSecond()
	var group sync.WaitGroup
	group.Go(func() { before.Run(first, rate) })
	if err := b.until(ctx, "requests to be held", time.Minute, func(context.Context) (bool, error) { return before.Count().Sent >= 20, nil }); err != nil {
		return err
	}
	stopFirst()
	if err := node.KillGateway(&victim); err != nil {
		return err
	}
	at := time.Now()
	hand := before.Count()
	group.Go(func() { after.Run(second, rate) })
	err = b.until(ctx, "the gateway that was killed to be there again", time.Minute, func(ctx context.Context) (bool, error) {
		pod := victim.DeepCopy()
		err := b.Get(ctx, client.ObjectKeyFromObject(pod), pod)
		return restarts(pod) > restarts(&victim) && isReady(pod), err
	})
	ready := time.Since(at)
	stopSecond()
	group.Wait()
	if err != nil {
		return err
	}
	of, later := before.Count(), after.Count()
	report("killed", "errors at most those in flight, recovered within 5 s", fmt.Sprintf(
		"%d of %d in flight failed; of %d that came later %d failed, the slowest took %s; what was killed was there again after %s (restart %d)",
		of.Failed, hand.Sent-hand.Answered, later.Sent, later.Failed, seconds(prober.Percentile(later.Took, 1)), seconds(ready), restarts(&victim)+1))
	return b.remove(ctx, service)
}

// heldRequests lets requests gather while no pod can start.
func heldRequests(ctx context.Context, b *bench) error {
	service, err := b.serve(ctx, "held", none())
	if err != nil {
		return err
	}
	if err := b.gone(ctx, "held"); err != nil {
		return err
	}
	probe, err := b.probe(ctx, "held")
	if err != nil {
		return err
	}
	if err := b.cordon(ctx, true); err != nil {
		return err
	}
	defer func() { _ = b.cordon(context.Background(), false) }()
	// Fewer than a client may have, so that they are all there before the first has
	// waited for as long as it may.
	var group sync.WaitGroup
	pause := time.NewTicker(time.Second)
	defer pause.Stop()
	for sent := 0; sent < b.held; {
		for range min(1000, b.held-sent) {
			group.Go(probe.Ask)
			sent++
		}
		<-pause.C
	}
	began := time.Now()
	most := int64(0)
	err = b.until(ctx, "all to be held", 20*time.Second, func(ctx context.Context) (bool, error) {
		held, err := b.heldNow(ctx, "held")
		most = max(most, held)
		return held+int64(probe.Count().Failed) >= int64(b.held), err
	})
	gathered := time.Since(began)
	if err := errors.Join(err, b.cordon(ctx, false)); err != nil {
		return err
	}
	began = time.Now()
	group.Wait()
	count := probe.Count()
	report("held", fmt.Sprintf("%d requests held, each answered", b.held), fmt.Sprintf("%d held (%s after the last was sent), %d answered, %d failed, the last %s after a pod could start%s",
		most, seconds(gathered), count.Answered, count.Failed, seconds(time.Since(began)), firstOf(count.Failures)))
	return b.remove(ctx, service)
}

// firstOf is the first failure, if there is one.
func firstOf(failures []string) string {
	if len(failures) == 0 {
		return ""
	}
	return "; the first failure: " + failures[0]
}

// heldNow is how many requests of a service all gateways hold.
func (b *bench) heldNow(ctx context.Context, name string) (int64, error) {
	gateways, err := b.gateways(ctx)
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, pod := range gateways {
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
				total += load.Held
			}
		}
	}
	return total, nil
}

// cordon has all nodes take no new pods, or take them again.
func (b *bench) cordon(ctx context.Context, unschedulable bool) error {
	var nodes corev1.NodeList
	if err := b.List(ctx, &nodes); err != nil {
		return err
	}
	for i := range nodes.Items {
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, unschedulable))
		if err := b.Patch(ctx, &nodes.Items[i], patch); err != nil {
			return err
		}
	}
	return nil
}
