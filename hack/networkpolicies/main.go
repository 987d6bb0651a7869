// Command networkpolicies enforces the NetworkPolicies of the cluster of
// hack/cluster, whose network does not, while it runs: with kube-router's
// controller, which makes iptables rules and ipsets of them. When it is asked to
// stop, it takes them away.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: networkpolicies NODE SERVICE-RANGE, with KUBECONFIG set")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "networkpolicies:", err)
		os.Exit(1)
	}
}

func run(node, serviceRange string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()

	o := options.NewKubeRouterConfig()
	o.EnableIPv4, o.HostnameOverride, o.ClusterIPCIDRs = true, node, []string{serviceRange}
	iptables, ipsets, err := netpol.NewIPTablesHandlers(o)
	if err != nil {
		return err
	}
	controller, err := netpol.NewNetworkPolicyController(client, o, pods, policies, namespaces, new(sync.Mutex), iptables, ipsets)
	if err != nil {
		return err
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods: controller.PodEventHandler, namespaces: controller.NamespaceEventHandler, policies: controller.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	stopped := make(chan struct{})
	factory.Start(stopped)
	factory.WaitForCacheSync(stopped)

	var group sync.WaitGroup
	group.Add(1)
	// Nobody listens to how it is.
	health := make(chan *healthcheck.ControllerHeartbeat, 1)
	go func() {
		for range health {
			continue
		}
	}()
	go controller.Run(health, stopped, &group)
	<-stop
	close(stopped)
	group.Wait()
	controller.Cleanup()
	return nil
}
