package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/test/prober"
)

// fromEnvironment is a number that make soak sets.
func fromEnvironment(t *testing.T, variable string, unset int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return unset
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return number
}

// trainDigits trains the sample's model as fast as may be.
func trainDigits(t *testing.T, namespace string) {
	t.Helper()
	create(t, digitsData(t, namespace))
	job := sampleJob(t, namespace, "digits")
	job.Spec.Training.Epochs = 1
	create(t, job)
}

// digitsFromZero trains digits and serves them on no pods while nobody asks.
func digitsFromZero(t *testing.T, namespace string) *v1alpha1.ModelService {
	t.Helper()
	trainDigits(t, namespace)
	service := sampleService(t, namespace)
	service.Spec.Autoscaling = v1alpha1.Autoscaling{
		MinReplicas: new(int32(0)), MaxReplicas: new(int32(2)),
		IdleTime: &metav1.Duration{Duration: 2 * time.Second}, StabilizationTime: &metav1.Duration{Duration: 2 * time.Second},
	}
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", 2*time.Minute)
	return service
}

// address is where a ModelService answers. The test's own machine is a node,
// so requests take the way that kube-proxy gives to those of pods.
func address(t *testing.T, service *v1alpha1.ModelService) string {
	t.Helper()
	return "http://" + reachable(t, fmt.Sprintf("%s.%s.svc:80", service.Name, service.Namespace))
}

func inference(t *testing.T) map[string]any {
	t.Helper()
	return map[string]any{"inputs": []any{map[string]any{"name": "inputs", "datatype": "FP32", "shape": []int{1, 64}, "data": digitRows(t, 1)}}}
}

// wantsNone waits until the Deployment has no replicas.
func wantsNone(t *testing.T, service *v1alpha1.ModelService) {
	t.Helper()
	eventually(t, fmt.Sprintf("Deployment %s to want no pods", service.Name), time.Minute, func(ctx context.Context) error {
		var deployment appsv1.Deployment
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(service), &deployment); err != nil {
			return err
		}
		if *deployment.Spec.Replicas != 0 {
			return fmt.Errorf("it wants %d", *deployment.Spec.Replicas)
		}
		return nil
	})
}

func noPods(t *testing.T, service *v1alpha1.ModelService) {
	t.Helper()
	eventually(t, "the last pod to be gone", time.Minute, func(context.Context) error {
		if pods := podsOf(t, modelServicePods(service), service.Namespace); len(pods) > 0 {
			return fmt.Errorf("%d are left", len(pods))
		}
		return nil
	})
}

// processed notes what the pods that there are say they have answered, by pod.
// What pods said that are gone since stays.
func processed(t *testing.T, service *v1alpha1.ModelService, so map[types.UID]int64) {
	t.Helper()
	var mutex sync.Mutex
	var group sync.WaitGroup
	for _, pod := range podsOf(t, modelServicePods(service), service.Namespace) {
		// One that has ended, and is not gone yet, is not to keep the others waiting.
		group.Go(func() {
			var stats spec.Stats
			if err := readJSON(net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(spec.OperationsPort))+"/stats", &stats); err == nil {
				mutex.Lock()
				defer mutex.Unlock()
				so[pod.UID] = stats.Requests
			}
		})
	}
	group.Wait()
}

func readJSON(address string, into any) error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address)
	if err != nil {
		return err
	}
	return errors.Join(json.NewDecoder(response.Body).Decode(into), response.Body.Close())
}

// TestFromZero lets services go to zero and wakes each with twenty requests in a
// second, again and again. Sometimes the pod before is still being stopped. No
// request is lost, and none is answered twice. Then it wakes them over gRPC.
func TestFromZero(t *testing.T) {
	t.Parallel()
	services, cycles := fromEnvironment(t, "TRAINYARD_SERVICES", 2), fromEnvironment(t, "TRAINYARD_CYCLES", 20)
	for i := range services {
		t.Run(strconv.Itoa(i+1), func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t)
			service := digitsFromZero(t, namespace)
			toZeroAndBack(t, service, cycles/services)
			wantsNone(t, service)
			serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonAsleep, "", time.Minute)
			if service.Status.ColdStart == nil {
				t.Error("the status tells of no cold start")
			}
			hasEvent(t, service, "Scaled", "from 0 to 1 pods")
			t.Logf("%s", kubectl(t, "get", "modelservices", "--namespace", namespace))
			for range max(1, cycles/services/5) {
				wantsNone(t, service)
				noPods(t, service)
				wakesByGRPC(t, service)
			}
		})
	}
}

func toZeroAndBack(t *testing.T, service *v1alpha1.ModelService, cycles int) {
	t.Helper()
	probe := prober.New(address(t, service)+"/v2/models/digits/infer", inference(t), time.Minute)
	answered := map[types.UID]int64{}
	for cycle := range cycles {
		wantsNone(t, service)
		if cycle%4 == 0 {
			noPods(t, service)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			burst, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			probe.Run(burst, 20)
		}()
		// A pod that is being stopped waits for three seconds without a request, so
		// the last that it answers is seen.
		looking := time.NewTicker(500 * time.Millisecond)
		for over := false; !over; {
			select {
			case <-ended:
				over = true
			case <-looking.C:
			}
			processed(t, service, answered)
		}
		looking.Stop()
		if count := probe.Count(); count.Failed > 0 {
			t.Fatalf("cycle %d: %d of %d requests failed: %q", cycle, count.Failed, count.Sent, count.Failures)
		}
	}
	count := probe.Count()
	if count.Answered != count.Sent || total(answered) != int64(count.Sent) {
		t.Errorf("%d requests were sent, %d answered, and pods answered %d", count.Sent, count.Answered, total(answered))
	}
	t.Logf("%d requests in %d cycles: %d answered, %d lost, the slowest after %s; %d pods tell of %d",
		count.Sent, cycles, count.Answered, count.Failed, prober.Percentile(count.Took, 1).Round(time.Millisecond), len(answered), total(answered))
}

func total(answered map[types.UID]int64) int64 {
	sum := int64(0)
	for _, requests := range answered {
		sum += requests
	}
	return sum
}

// TestStoppedIsRefused parks a service: whoever asks is told so, and nothing is
// woken.
func TestStoppedIsRefused(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	service := digitsFromZero(t, namespace)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"stopped":true}}`))
	if err := cluster.Patch(t.Context(), service, patch); err != nil {
		t.Fatal(err)
	}
	serviceReaches(t, service, metav1.ConditionFalse, v1alpha1.ReasonStopped, "", time.Minute)
	noPods(t, service)
	probe := prober.New(address(t, service)+"/v2/models/digits/infer", inference(t), time.Minute)
	eventually(t, "requests to be refused with the reason", time.Minute, func(context.Context) error {
		probe.Ask()
		failures := probe.Count().Failures
		if !slices.ContainsFunc(failures, func(failure string) bool { return strings.Contains(failure, namespace+"/digits is stopped") }) {
			return fmt.Errorf("they end in %q", failures)
		}
		return nil
	})
	if pods := podsOf(t, modelServicePods(service), namespace); len(pods) > 0 {
		t.Errorf("%d pods were started", len(pods))
	}
}

// TestNothingPassesTheGateway asks a service from zero on: with a connection for
// each request, with connections that are kept, and over gRPC with one that is
// kept. When the pod is ready and proxies know, no request passes a gateway. While
// they learn of it, requests go either way; so 20 in a row have gone to the pod
// before any other counts.
func TestNothingPassesTheGateway(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	service := digitsFromZero(t, namespace)
	wantsNone(t, service)
	noPods(t, service)
	url := address(t, service) + "/v2/models/digits/infer"
	health := healthOf(t, service)
	probes := map[string]*prober.Prober{
		"with a connection each":         prober.New(url, inference(t), time.Minute),
		"over connections that are kept": prober.Keeping(url, inference(t), time.Minute),
		"over gRPC": prober.Of(func(id string) (string, bool, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var header metadata.MD
			_, err := health.Check(ctx, &healthgrpc.HealthCheckRequest{}, grpc.Header(&header))
			return id, strings.Contains(strings.Join(header.Get("via"), ""), routing.Via), err
		}),
	}
	loading, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	for _, probe := range probes {
		group.Go(func() { probe.Run(loading, 20) })
	}
	answers := func(way, what string, enough func(prober.Count) bool) {
		t.Helper()
		eventually(t, what+" "+way, time.Minute, func(context.Context) error {
			if count := probes[way].Count(); !enough(count) {
				return fmt.Errorf("of %d answers %d came through a gateway, and the last %d did not; %d failed: %q", count.Answered, count.Passed, count.Row, count.Failed, count.Failures)
			}
			return nil
		})
	}
	before := map[string]prober.Count{}
	for way, probe := range probes {
		answers(way, "20 answers in a row from the pod to requests", func(count prober.Count) bool { return count.Row >= 20 })
		before[way] = probe.Count()
	}
	for way := range probes {
		answers(way, "another 100 answers to requests", func(count prober.Count) bool { return count.Answered >= before[way].Answered+100 })
	}
	stop()
	group.Wait()
	for way, probe := range probes {
		count := probe.Count()
		t.Logf("%s: %d requests, %d through a gateway at first, %d later, %d failed", way, count.Sent, before[way].Passed, count.Passed-before[way].Passed, count.Failed)
		if count.Failed > 0 || before[way].Passed == 0 || count.Passed > before[way].Passed {
			t.Errorf("%s: of %d requests %d passed a gateway at first, %d when the pod was ready, and %d failed: %q", way,
				count.Sent, before[way].Passed, count.Passed-before[way].Passed, count.Failed, count.Failures)
		}
	}
}

// healthOf asks a service over gRPC.
func healthOf(t *testing.T, service *v1alpha1.ModelService) healthgrpc.HealthClient {
	t.Helper()
	host := reachable(t, fmt.Sprintf("%s.%s.svc:%d", service.Name, service.Namespace, spec.GRPCPort))
	connection, err := grpc.NewClient(host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return healthgrpc.NewHealthClient(connection)
}

// wakesByGRPC asks over gRPC while there is no pod.
func wakesByGRPC(t *testing.T, service *v1alpha1.ModelService) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	health := healthOf(t, service)
	began := time.Now()
	stream, err := health.Watch(ctx, &healthgrpc.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := health.Check(ctx, &healthgrpc.HealthCheckRequest{})
	if err != nil || answer.GetStatus() != healthgrpc.HealthCheckResponse_SERVING {
		t.Errorf("a call from zero ends in %v, %v", answer, err)
	}
	if answer, err := stream.Recv(); err != nil || answer.GetStatus() != healthgrpc.HealthCheckResponse_SERVING {
		t.Errorf("a stream from zero ends in %v, %v", answer, err)
	}
	t.Logf("a call and a stream over gRPC from zero took %.2f s", time.Since(began).Seconds())
}

// TestRollingUpdate changes the pods' template under load: each pod is replaced
// by another before it goes, and no request fails.
func TestRollingUpdate(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	trainDigits(t, namespace)
	service := sampleService(t, namespace)
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", 2*time.Minute)
	before := podsOf(t, modelServicePods(service), namespace)

	probe := prober.New(address(t, service)+"/v2/models/digits/infer", inference(t), time.Minute)
	stop := runs(t, probe, 20)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"podTemplate":{"annotations":{"changed":"once"}}}}`))
	if err := cluster.Patch(t.Context(), service, patch); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pods to be replaced", time.Minute, func(context.Context) error {
		for _, pod := range podsOf(t, modelServicePods(service), namespace) {
			if pod.Annotations["changed"] == "" {
				return fmt.Errorf("pod %s is from before", pod.Name)
			}
		}
		return nil
	})
	stop()
	allAnswered(t, fmt.Sprintf("%d pods replaced", len(before)), probe.Count())
}
