//go:build cluster_components

package main

import (
	"context"
	"os"
	_ "time/tzdata" // CronJobs name time zones, and the host may have no zone files

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl's credential plugins
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of API clients
	_ "k8s.io/component-base/metrics/prometheus/version"  // the version as a metric
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
)

func kubeAPIServer()         { runCobra(apiserver.NewAPIServerCommand()) }
func kubeControllerManager() { runCobra(controllermanager.NewControllerManagerCommand()) }
func kubeProxy()             { runCobra(proxy.NewProxyCommand()) }
func kubeScheduler()         { runCobra(scheduler.NewSchedulerCommand()) }
func kubelet()               { runCobra(kubeletapp.NewKubeletCommand(context.Background())) }

func runCobra(command *cobra.Command) { os.Exit(cli.Run(command)) }

func kubectl() {
	// kubectl logs while it assembles its commands, before flags are parsed;
	// a verbosity that cannot be set then is reported when they are.
	_, _ = logs.GlogSetter(kubectlcmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err) // prints as kubectl does and exits
	}
}
