package isolation

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// pod is who asks: its labels, and its namespace's.
type pod struct {
	namespace               string
	labels, namespaceLabels map[string]string
}

func in(namespace string, podLabels map[string]string) pod {
	return pod{namespace, podLabels, map[string]string{corev1.LabelMetadataName: namespace}}
}

func component(name string) map[string]string {
	return map[string]string{"app.kubernetes.io/name": "trainyard", "app.kubernetes.io/component": name}
}

var (
	manager  = in("trainyard-system", component("manager"))
	gateway  = in("trainyard-system", component("gateway"))
	impostor = in("elsewhere", component("manager"))
	anybody  = in("elsewhere", map[string]string{"app": "shop"})
	sibling  = in("here", map[string]string{"run": "digits"})
	scraper  = pod{"monitoring", map[string]string{"app": "prometheus"}, map[string]string{corev1.LabelMetadataName: "monitoring", MetricsLabel: MetricsEnabled}}
)

// admits reads a policy as a cluster's network does: pods in namespace, with the
// named ports, are asked by another pod.
func admits(t *testing.T, policy networkingv1.NetworkPolicySpec, namespace string, named map[string]int32, from pod, port int32) bool {
	t.Helper()
	for _, rule := range policy.Ingress {
		if matchesPort(rule.Ports, named, port) && matchesPeer(t, rule.From, namespace, from) {
			return true
		}
	}
	return false
}

func matchesPort(ports []networkingv1.NetworkPolicyPort, named map[string]int32, port int32) bool {
	for _, p := range ports {
		number := p.Port.IntVal
		if p.Port.Type == intstr.String {
			number = named[p.Port.StrVal]
		}
		if port == number || p.EndPort != nil && number < port && port <= *p.EndPort {
			return true
		}
	}
	return len(ports) == 0
}

func matchesPeer(t *testing.T, peers []networkingv1.NetworkPolicyPeer, namespace string, from pod) bool {
	t.Helper()
	for _, peer := range peers {
		if peer.NamespaceSelector == nil && from.namespace != namespace {
			continue
		}
		if matches(t, peer.NamespaceSelector, from.namespaceLabels) && matches(t, peer.PodSelector, from.labels) {
			return true
		}
	}
	return len(peers) == 0
}

func matches(t *testing.T, selector *metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	if selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(of))
}

func TestWhoReachesPods(t *testing.T) {
	server := Pods{Labels: map[string]string{"run": "digits"}, Open: []int32{8080, 9000}, Guarded: []int32{8081}, ManagerNamespace: "trainyard-system"}
	trainer := Pods{Labels: map[string]string{"run": "digits"}, Guarded: []int32{8080}, Together: true, ManagerNamespace: "trainyard-system"}
	for _, test := range []struct {
		name string
		pods Pods
		from pod
		port int32
		want bool
	}{
		{"anybody asks for predictions", server, anybody, 8080, true},
		{"and over gRPC", server, anybody, 9000, true},
		{"anybody changes models", server, anybody, 8081, false},
		{"the manager changes models", server, manager, 8081, true},
		{"the gateway forwards", server, gateway, 8080, true},
		{"the gateway changes models", server, gateway, 8081, false},
		{"who calls itself manager in another namespace", server, impostor, 8081, false},
		{"metrics are read", server, scraper, 8081, true},
		{"another pod of the service changes models", server, sibling, 8081, false},
		{"a port that nobody thought of", server, manager, 22, false},
		{"the manager asks for progress", trainer, manager, 8080, true},
		{"anybody asks for progress", trainer, anybody, 8080, false},
		{"metrics of a trainer are read", trainer, scraper, 8080, true},
		{"trainers of a run add up", trainer, sibling, 7000, true},
		{"anybody adds something", trainer, anybody, 7000, false},
	} {
		var policy networkingv1.NetworkPolicySpec
		encoded, err := json.Marshal(test.pods.Spec())
		if err == nil {
			err = json.Unmarshal(encoded, &policy)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := admits(t, policy, "here", nil, test.from, test.port); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// read decodes a file of config/.
func read(t *testing.T, component, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../../config", component, file))
	if err == nil {
		err = yaml.UnmarshalStrict(content, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhoReachesTheOperator reads the policies of config/ beside the Deployments
// that they are for.
func TestWhoReachesTheOperator(t *testing.T) {
	for _, test := range []struct {
		component, name string
		from            pod
		port            int32
		want            bool
	}{
		{"manager", "pods fetch tokens", anybody, 8082, true},
		{"manager", "metrics are read", scraper, 8080, true},
		{"manager", "anybody reads metrics", anybody, 8080, false},
		{"gateway", "anybody asks for predictions", anybody, 10000, true},
		{"gateway", "and on the last port", anybody, 29999, true},
		{"gateway", "beyond it", anybody, 30000, false},
		{"gateway", "the manager asks what is held", manager, 8081, true},
		{"gateway", "anybody asks what is held", anybody, 8081, false},
		{"gateway", "who calls itself manager", impostor, 8081, false},
		{"gateway", "metrics are read", scraper, 8081, true},
		{"registry", "pods pull", anybody, 5000, true},
		{"registry", "another port", anybody, 5001, false},
	} {
		var deployment appsv1.Deployment
		var policy networkingv1.NetworkPolicy
		read(t, test.component, "deployment.yaml", &deployment)
		read(t, test.component, "networkpolicy.yaml", &policy)
		named := map[string]int32{}
		for _, port := range deployment.Spec.Template.Spec.Containers[0].Ports {
			named[port.Name] = port.ContainerPort
		}
		if !matches(t, &policy.Spec.PodSelector, deployment.Spec.Template.Labels) {
			t.Errorf("%s's policy is not for its pods", test.component)
		}
		for _, rule := range policy.Spec.Ingress {
			for _, port := range rule.Ports {
				if port.Port.Type == intstr.String && named[port.Port.StrVal] == 0 {
					t.Errorf("%s has no port %q", test.component, port.Port.StrVal)
				}
			}
		}
		if got := admits(t, policy.Spec, "trainyard-system", named, test.from, test.port); got != test.want {
			t.Errorf("%s: %s: %v", test.component, test.name, got)
		}
	}
}
