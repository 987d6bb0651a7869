package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/test/prober"
)

// enforcePolicies lets NetworkPolicies be enforced until the returned function is
// called.
func enforcePolicies(t *testing.T) (stop func()) {
	t.Helper()
	program := os.Getenv("TRAINYARD_NETWORKPOLICIES")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("TRAINYARD_NETWORKPOLICIES does not name what enforces NetworkPolicies: run make test-e2e: %v", err)
	}
	log, err := os.CreateTemp(t.TempDir(), "networkpolicies")
	if err != nil {
		t.Fatal(err)
	}
	var nodes corev1.NodeList
	if err := cluster.List(t.Context(), &nodes); err != nil || len(nodes.Items) != 1 {
		t.Fatalf("there are %d nodes, %v", len(nodes.Items), err)
	}
	command := exec.Command(program, nodes.Items[0].Name, "10.96.0.0/16")
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		err := command.Process.Signal(syscall.SIGTERM)
		if err := errors.Join(err, command.Wait()); err != nil {
			said, _ := os.ReadFile(log.Name())
			t.Errorf("what enforces NetworkPolicies ended: %v\n%s", err, said)
		}
	}
	t.Cleanup(stop)
	return stop
}

// reaches tells whether something listens at an address, as the calling pod sees
// it.
func (c caller) reaches(ctx context.Context, host string, port int) error {
	_, err := c.exec(ctx, "busybox", "nc", "-w", patience, host, fmt.Sprint(port), "-e", "busybox", "true")
	return err
}

// expectReach waits until the ports are reached by the calling pod as wanted.
func (c caller) expectReach(t *testing.T, who string, want map[string]bool) {
	t.Helper()
	for target, reached := range want {
		host, port, err := net.SplitHostPort(target)
		if err != nil {
			t.Fatal(err)
		}
		number, err := net.LookupPort("tcp", port)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("%s to reach %s: %v", who, target, reached), 30*time.Second, func(ctx context.Context) error {
			err := c.reaches(ctx, host, number)
			if err == nil && !reached {
				return errors.New("it is reached")
			}
			if err != nil && reached {
				return err
			}
			return nil
		})
	}
}

// TestNetworkPolicies lets kube-router's controller enforce the policies, and looks
// who reaches what, and that the operator goes on as before. It changes the whole
// network, so it is told alone.
func TestNetworkPolicies(t *testing.T) {
	namespace, monitoring := newNamespace(t), newNamespace(t)
	label := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"labels": {"metrics": "enabled"}}}`))
	if err := cluster.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: monitoring}}, label); err != nil {
		t.Fatal(err)
	}
	shop, prometheus := newCaller(t, namespace), newCaller(t, monitoring)
	service := digitsFromZero(t, namespace)
	awake := client.RawPatch(types.MergePatchType, []byte(`{"spec": {"autoscaling": {"minReplicas": 1}}}`))
	if err := cluster.Patch(t.Context(), service, awake); err != nil {
		t.Fatal(err)
	}
	wantReady(t, service, 1)
	server := podsOf(t, modelServicePods(service), namespace)[0].Status.PodIP
	gateway := podsOf(t, client.MatchingLabels{"app.kubernetes.io/component": "gateway"}, operatorNamespace)[0].Status.PodIP
	manager := podsOf(t, client.MatchingLabels{"app.kubernetes.io/component": "manager"}, operatorNamespace)[0].Status.PodIP
	registry := podsOf(t, client.MatchingLabels{"app.kubernetes.io/component": "registry"}, operatorNamespace)[0].Status.PodIP

	guarded := map[string]bool{server + ":8081": true, gateway + ":8081": true, manager + ":8080": true}
	shop.expectReach(t, "a program, while nothing is enforced,", guarded)
	stop := enforcePolicies(t)
	shop.expectReach(t, "a program", map[string]bool{
		server + ":8080": true, server + ":9000": true, server + ":8081": false,
		gateway + ":8081": false, manager + ":8080": false, manager + ":8082": true, registry + ":5000": true,
	})
	prometheus.expectReach(t, "who reads metrics", guarded)

	t.Run("training", func(t *testing.T) { progressIsSeen(t, namespace, shop) })
	t.Run("waking", func(t *testing.T) {
		asleep := client.RawPatch(types.MergePatchType, []byte(`{"spec": {"autoscaling": {"minReplicas": 0}}}`))
		if err := cluster.Patch(t.Context(), service, asleep); err != nil {
			t.Fatal(err)
		}
		wantsNone(t, service) // so the manager hears pods and gateways
		noPods(t, service)
		probe := prober.New(address(t, service)+"/v2/models/digits/infer", inference(t), time.Minute)
		probe.Ask()
		if count := probe.Count(); count.Failed > 0 {
			t.Errorf("a request that wakes it ends in %q", count.Failures)
		}
	})
	stop()
	shop.expectReach(t, "a program, when nothing is enforced any more,", map[string]bool{gateway + ":8081": true, manager + ":8080": true})
}

// progressIsSeen trains: the manager hears how far it is, and nobody else does.
func progressIsSeen(t *testing.T, namespace string, shop caller) {
	t.Helper()
	job := sampleJob(t, namespace, "long")
	job.Spec.Training.Epochs = 2000
	create(t, job)
	eventually(t, "the manager to hear of progress", time.Minute, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return err
		}
		if job.Status.State != v1alpha1.StateTraining || job.Status.Progress == nil || job.Status.Progress.Epoch == 0 {
			return fmt.Errorf("it is %s, %+v", job.Status.State, job.Status.Progress)
		}
		return nil
	})
	pods := podsOf(t, client.MatchingLabels{v1alpha1.TrainingJobLabel: job.Name}, namespace)
	shop.expectReach(t, "a program", map[string]bool{net.JoinHostPort(pods[0].Status.PodIP, "8080"): false})
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(&pods[0]), &pods[0]); err != nil || pods[0].Status.Phase != corev1.PodRunning {
		t.Errorf("the trainer did not run all that time: %s, %v", pods[0].Status.Phase, err)
	}
	remove(t, job)
}
