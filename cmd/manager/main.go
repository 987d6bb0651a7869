// Command manager is Trainyard's operator: it carries out TrainingJobs and
// ModelServices.
package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/modelservice"
	"trainyard.dev/trainyard/controllers/trainingjob"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/tokens"
	"trainyard.dev/trainyard/tokens/cluster"
)

// podTimeout bounds how long a pod may take to tell its progress or load.
const podTimeout = time.Second

func main() {
	if err := run(); err != nil {
		slog.Error("the manager stops", "reason", err)
		os.Exit(1)
	}
}

type options struct {
	metricsAddress, probeAddress string
	pprofAddress                 string
	leaderElection               bool
	runtimeImage                 string
	gatewayNamespace             string
	registry                     spec.Repository
	tokenAddress, tokenSecret    string
	verbose                      bool
}

func parseFlags() options {
	var o options
	pflag.StringVar(&o.runtimeImage, "runtime-image", "trainyard/runtime:dev", "image that holds the trainer, the server and the follower")
	pflag.StringVar(&o.registry.Name, "registry", "registry.trainyard-system.svc:5000/models", "host[:port]/path of the OCI registry that models are pushed to, as pods reach it")
	pflag.BoolVar(&o.registry.PlainHTTP, "registry-plain-http", false, "the registry does not speak TLS")
	pflag.StringVar(&o.tokenAddress, "registry-token-address", "", "where tokens for the registry are issued, if it is one that asks for them, as that of config/registry does; empty: nowhere")
	pflag.StringVar(&o.tokenSecret, "registry-token-secret", "registry-tokens", "Secret of the manager's namespace that keeps the keys of these tokens")
	pflag.StringVar(&o.gatewayNamespace, "gateway-namespace", ownNamespace(), "namespace of the gateway's pods")
	pflag.StringVar(&o.metricsAddress, "metrics-address", ":8080", "where Prometheus metrics are served; 0 for nowhere")
	pflag.StringVar(&o.probeAddress, "probe-address", ":8081", "where /healthz and /readyz are served")
	pflag.StringVar(&o.pprofAddress, "pprof-address", "", "where Go's profiles are served; empty for nowhere")
	pflag.BoolVar(&o.leaderElection, "leader-election", false, "let only one of several managers work at a time")
	pflag.BoolVar(&o.verbose, "verbose", false, "log also what is usual")
	pflag.Parse()
	if o.tokenAddress != "" {
		o.registry.TokenFile = spec.RegistryTokenDirectory + "/" + spec.RegistryTokenKey
	}
	return o
}

// ownNamespace is where the manager runs.
func ownNamespace() string { return cmp.Or(os.Getenv("POD_NAMESPACE"), "trainyard-system") }

func run() error {
	o := parseFlags()
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))

	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	mgr, err := ctrl.NewManager(config, managerOptions(o))
	if err != nil {
		return fmt.Errorf("setting up: %w", err)
	}
	ctx := ctrl.SetupSignalHandler()
	recorder := mgr.GetEventRecorder(v1alpha1.FieldOwner)
	jobs := &trainingjob.Reconciler{
		Client:   mgr.GetClient(),
		Reader:   mgr.GetAPIReader(),
		Recorder: recorder,
		Runtime:  trainingjob.Runtime{Image: o.runtimeImage, Registry: o.registry, ManagerNamespace: ownNamespace()},
		Progress: trainingjob.HTTPProgress(podTimeout),
		Now:      time.Now,
	}
	if err := jobs.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the TrainingJob controller: %w", err)
	}
	pods := modelservice.NewHTTPServers(podTimeout)
	services := &modelservice.Reconciler{
		Client:   mgr.GetClient(),
		Reader:   mgr.GetAPIReader(),
		Recorder: recorder,
		Runtime:  modelservice.Runtime{Image: o.runtimeImage, Registry: o.registry, ManagerNamespace: ownNamespace()},
		Servers:  pods,
		Gateways: pods,
		Now:      time.Now,

		Followers:        pods,
		GatewayNamespace: o.gatewayNamespace,
	}
	if err := services.SetupWithManager(ctx, mgr); err != nil {
		return fmt.Errorf("setting up the ModelService controller: %w", err)
	}
	if err := addProbes(mgr); err != nil {
		return err
	}
	if o.tokenAddress != "" {
		if err := addTokens(mgr, o); err != nil {
			return err
		}
	}
	return mgr.Start(ctx)
}

// addTokens lets the manager issue the tokens that the registry asks for. It
// speaks to the API server through a client of its own, which bounds how often
// pods can make it ask.
func addTokens(mgr ctrl.Manager, o options) error {
	config := rest.CopyConfig(mgr.GetConfig())
	config.QPS, config.Burst = 50, 200
	direct, err := client.New(config, client.Options{Scheme: mgr.GetScheme()})
	if err != nil {
		return fmt.Errorf("setting up the issuing of tokens: %w", err)
	}
	_, path, _ := strings.Cut(o.registry.Name, "/")
	server := &cluster.Server{
		Address: o.tokenAddress,
		Client:  direct,
		Secret:  client.ObjectKey{Namespace: ownNamespace(), Name: o.tokenSecret},
		Service: &tokens.Service{
			Issuer: &tokens.Issuer{Name: tokens.IssuerName, Service: spec.RegistryAudience},
			Prefix: path,
			Review: cluster.Review(direct, spec.RegistryAudience),
			Now:    time.Now,
			Log:    slog.New(logr.ToSlogHandler(mgr.GetLogger().WithName("tokens"))),
		},
	}
	if err := mgr.Add(server); err != nil {
		return fmt.Errorf("setting up the issuing of tokens: %w", err)
	}
	if err := mgr.AddReadyzCheck("tokens", server.Ready); err != nil {
		return fmt.Errorf("adding /readyz: %w", err)
	}
	return nil
}

func addProbes(mgr ctrl.Manager) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding /healthz: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding /readyz: %w", err)
	}
	return nil
}

func managerOptions(o options) ctrl.Options {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return ctrl.Options{
		Scheme:                        scheme,
		Metrics:                       metricsserver.Options{BindAddress: o.metricsAddress},
		HealthProbeBindAddress:        o.probeAddress,
		PprofBindAddress:              o.pprofAddress,
		LeaderElection:                o.leaderElection,
		LeaderElectionID:              "trainyard.dev",
		LeaderElectionReleaseOnCancel: true,
		Cache:                         cacheOptions(),
	}
}

// cacheOptions keep in memory only what the operator made, however much else
// the cluster holds, and leave out what no one reads.
func cacheOptions() cache.Options {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{"app.kubernetes.io/managed-by": v1alpha1.FieldOwner})}
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:        ours,
			&corev1.Service{}:    ours,
			&corev1.ConfigMap{}:  ours,
			&appsv1.Deployment{}: ours,
			&batchv1.Job{}:       ours,

			&networkingv1.NetworkPolicy{}:            ours,
			&policyv1.PodDisruptionBudget{}:          ours,
			&autoscalingv2.HorizontalPodAutoscaler{}: ours,
			// Kubernetes' own slices carry the labels of their Service.
			&discoveryv1.EndpointSlice{}: {Label: labels.SelectorFromSet(labels.Set{discoveryv1.LabelManagedBy: v1alpha1.GatewaySliceManager})},
		},
	}
}
