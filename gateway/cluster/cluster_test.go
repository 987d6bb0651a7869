package cluster

import (
	"context"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	rbacv1 "k8s.io/api/rbac/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/routing"
	"trainyard.dev/trainyard/gateway"
	"trainyard.dev/trainyard/test/apiserver"
)

var server apiserver.Server

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m, &server)) }

func slice(namespace, name, manager string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{
			v1alpha1.ModelServiceLabel: "digits", discoveryv1.LabelServiceName: "digits", discoveryv1.LabelManagedBy: manager,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
	}
}

func own(namespace string) *discoveryv1.EndpointSlice {
	s := slice(namespace, "digits-gateway", v1alpha1.GatewaySliceManager, endpoint("10.0.1.1", false, true))
	s.Ports = []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(10000))}, {Name: new("grpc"), Port: new(int32(10001))}}
	return s
}

func endpoint(address string, ready, terminating bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Terminating: &terminating}}
}

func TestViewOf(t *testing.T) {
	const kubernetes = "endpointslice-controller.k8s.io"
	ports := routing.Ports{HTTP: 10000, GRPC: 10001}
	parked := own("ns")
	parked.Annotations = map[string]string{v1alpha1.StoppedAnnotation: "true"}
	for name, test := range map[string]struct {
		slices []*discoveryv1.EndpointSlice
		want   gateway.View
		there  bool
	}{
		"nothing":                       {nil, gateway.View{}, false},
		"pods, and no slice of our own": {[]*discoveryv1.EndpointSlice{slice("ns", "a", kubernetes, endpoint("10.0.0.1", true, false))}, gateway.View{Pods: []gateway.Pod{{Address: "10.0.0.1", Ready: true}}}, false},
		"no pods":                       {[]*discoveryv1.EndpointSlice{own("ns")}, gateway.View{Ports: ports}, true},
		"stopped":                       {[]*discoveryv1.EndpointSlice{parked}, gateway.View{Ports: ports, Stopped: true}, true},
		"pods that start, run and end": {[]*discoveryv1.EndpointSlice{own("ns"),
			slice("ns", "a", kubernetes, endpoint("10.0.0.3", false, false), endpoint("10.0.0.1", true, false), endpoint("10.0.0.2", false, true))},
			gateway.View{Ports: ports, Pods: []gateway.Pod{{Address: "10.0.0.1", Ready: true}, {Address: "10.0.0.3"}}}, true},
		"a pod in two slices": {[]*discoveryv1.EndpointSlice{own("ns"),
			slice("ns", "a", kubernetes, endpoint("10.0.0.1", false, false)), slice("ns", "b", kubernetes, endpoint("10.0.0.1", true, false))},
			gateway.View{Ports: ports, Pods: []gateway.Pod{{Address: "10.0.0.1", Ready: true}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got, there := viewOf(test.slices); there != test.there || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v; want %+v, %v", got, there, test.want, test.there)
			}
		})
	}
}

// asGateway is the API server as the gateway sees it: with the permissions of
// config/gateway and no others.
func asGateway(t *testing.T) *rest.Config {
	t.Helper()
	content, err := os.ReadFile("../../config/gateway/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(string(content), "\n---\n") {
		var object client.Object
		switch {
		case strings.Contains(document, "kind: ClusterRoleBinding"):
			object = &rbacv1.ClusterRoleBinding{}
		case strings.Contains(document, "kind: ClusterRole"):
			object = &rbacv1.ClusterRole{}
		default:
			continue
		}
		if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
			t.Fatal(err)
		}
		if err := server.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Client.Delete(context.Background(), object) })
	}
	config := rest.CopyConfig(server.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:trainyard-system:gateway"}
	return config
}

// TestWatchAndWake follows a service on a real API server, with no more than
// the gateway's own permissions.
func TestWatchAndWake(t *testing.T) {
	cluster, err := New(asGateway(t))
	if err != nil {
		t.Fatal(err)
	}
	namespace := server.Namespace(t)
	options := gateway.Defaults()
	options.Log = slog.New(slog.DiscardHandler)
	g := gateway.New(options, cluster.Wake)
	create(t, own(namespace))
	if err := cluster.Watch(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	known := func() int {
		count := 0
		for _, load := range g.Report().Services {
			if load.Namespace == namespace && load.Name == "digits" {
				count++
			}
		}
		return count
	}
	if known() != 1 {
		t.Errorf("at the start the gateway knows %+v", g.Report().Services)
	}

	labels := map[string]string{"app": "digits"}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: namespace},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
		},
	}
	key := gateway.Key{Namespace: namespace, Name: "digits"}
	if err := cluster.Wake(t.Context(), key); err == nil || !strings.Contains(err.Error(), "there is no Deployment "+namespace+"/digits") {
		t.Errorf("without a Deployment: %v", err)
	}
	create(t, deployment)
	for _, count := range []int32{0, 3} {
		deployment.Spec.Replicas = &count
		if err := server.Client.Update(t.Context(), deployment); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Wake(t.Context(), key); err != nil {
			t.Errorf("waking %d pods: %v", count, err)
		}
		if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(deployment), deployment); err != nil {
			t.Fatal(err)
		}
		if got := *deployment.Spec.Replicas; got != max(count, 1) {
			t.Errorf("waking %d pods gives %d", count, got)
		}
	}

	if err := server.Client.Delete(t.Context(), own(namespace)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); known() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited 20 s for the gateway to forget a service that was deleted")
		}
	}
}

// TestMayDoNothingElse asks for what the gateway has no business with.
func TestMayDoNothingElse(t *testing.T) {
	config := asGateway(t)
	powerless, err := client.New(config, client.Options{Scheme: apiserver.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	namespace := server.Namespace(t)
	for name, try := range map[string]func() error{
		"read pods":        func() error { return powerless.List(t.Context(), &corev1.PodList{}) },
		"read secrets":     func() error { return powerless.List(t.Context(), &corev1.SecretList{}) },
		"read deployments": func() error { return powerless.List(t.Context(), &appsv1.DeploymentList{}) },
		"write slices":     func() error { return powerless.Create(t.Context(), own(namespace)) },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), "forbidden") {
			t.Errorf("the gateway may %s: %v", name, err)
		}
	}
}

func create(t *testing.T, object client.Object) {
	t.Helper()
	if err := server.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}
