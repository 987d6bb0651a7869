package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/test/apiserver"
)

const (
	// system is the operator's namespace.
	system = "trainyard-system"
	// namespace is where what is measured is made.
	namespace = "bench"
	// nodes that KWOK plays.
	nodes = 20
)

var (
	//go:embed audit.yaml
	auditPolicy []byte
	// trainerStage ends the pods of TrainingJobs as a trainer does.
	//
	//go:embed trainer-stage.yaml
	trainerStage []byte
)

// bench is a control plane whose nodes are KWOK's, with the operator.
type bench struct {
	programs
	client.WithWatch
	// output is the folder of logs and of the audit log.
	output string
	// ctx ends when a program ends that should not; life when the bench goes
	// down.
	ctx     context.Context
	fail    context.CancelCauseFunc
	life    context.Context
	end     context.CancelFunc
	running sync.WaitGroup
	config  *rest.Config

	// seen is kept by watches: to ask the API server for everything again and
	// again would be most of its work.
	seen        client.Reader
	environment *envtest.Environment
	admin       string
	manager     *manager
	pods        *pods
}

func (b *bench) file(name string) string { return filepath.Join(b.output, name) }

// up starts everything, and waits until the operator works.
func (b *bench) up(ctx context.Context) error {
	b.life, b.end = context.WithCancel(context.Background())
	b.ctx, b.fail = context.WithCancelCause(ctx)
	for _, step := range []func() error{b.startAPIServer, b.startControllers, b.startKWOK, b.startPods, b.install, b.watch, b.startOperator} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// down stops all programs.
func (b *bench) down() error {
	b.end()
	b.running.Wait()
	b.fail(nil)
	if b.environment == nil {
		return nil
	}
	return b.environment.Stop()
}

func (b *bench) startAPIServer() error {
	if err := os.WriteFile(b.file("audit-policy.yaml"), auditPolicy, 0o600); err != nil {
		return err
	}
	b.environment = &envtest.Environment{
		BinaryAssetsDirectory: filepath.Join(b.cluster, "envtest"),
		CRDDirectoryPaths:     []string{"config/crd/bases"},
		ErrorIfCRDPathMissing: true,
	}
	log, err := os.Create(b.file("kube-apiserver.log"))
	if err != nil {
		return err
	}
	apiServer := b.environment.ControlPlane.GetAPIServer()
	apiServer.Out, apiServer.Err = log, log
	apiServer.Configure().
		Disable("disable-admission-plugins").
		// It looks for one behind the default route, and there is none.
		Set("advertise-address", nodeAddress).
		Set("service-cluster-ip-range", "10.96.0.0/16").
		Set("audit-policy-file", b.file("audit-policy.yaml")).
		Set("audit-log-path", b.file("audit.log"))
	config, err := b.environment.Start()
	if err != nil {
		return fmt.Errorf("starting the API server: %w", err)
	}
	config.QPS = -1 // without a limit of the client's own
	b.config = config
	b.admin = b.file("admin.kubeconfig")
	if err := os.WriteFile(b.admin, b.environment.KubeConfig, 0o600); err != nil {
		return err
	}
	b.WithWatch, err = client.NewWithWatch(config, client.Options{Scheme: apiserver.Scheme()})
	return err
}

// startControllers starts what Kubernetes runs itself, with the settings of
// hack/cluster.
func (b *bench) startControllers() error {
	_, err := b.start("kube-controller-manager", filepath.Join(b.cluster, "kube-controller-manager"), nil,
		"--kubeconfig="+b.admin, "--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir="+b.output,
		"--kube-api-qps=500", "--kube-api-burst=1000")
	if err != nil {
		return err
	}
	const schedulerConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {kubeconfig: %q, qps: 500, burst: 1000}
leaderElection: {leaderElect: false}
`
	if err := os.WriteFile(b.file("kube-scheduler.yaml"), fmt.Appendf(nil, schedulerConfig, b.admin), 0o600); err != nil {
		return err
	}
	_, err = b.start("kube-scheduler", filepath.Join(b.cluster, "kube-scheduler"), nil,
		"--config="+b.file("kube-scheduler.yaml"), "--bind-address=127.0.0.1", "--cert-dir="+b.output)
	return err
}

func (b *bench) startKWOK() error {
	stages, err := os.ReadFile(filepath.Join(b.kwok, "stages.yaml"))
	if err != nil {
		return err
	}
	stages = append(stages, "\n---\n"...)
	if err := os.WriteFile(b.file("stages.yaml"), append(stages, trainerStage...), 0o600); err != nil {
		return err
	}
	_, err = b.start("kwok", filepath.Join(b.kwok, "kwok"), nil,
		"--kubeconfig="+b.admin, "--config="+b.file("stages.yaml"), "--manage-all-nodes",
		"--node-lease-duration-seconds=40", "--cidr="+podRange, "--node-ip="+nodeAddress)
	if err != nil {
		return err
	}
	for i := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name:   fmt.Sprintf("kwok-%d", i),
			Labels: map[string]string{corev1.LabelHostname: fmt.Sprintf("kwok-%d", i), corev1.LabelOSStable: "linux"},
		}}
		if err := b.Create(b.ctx, node); err != nil {
			return err
		}
	}
	return until(b.ctx, "the nodes to be ready", time.Minute, func(ctx context.Context) (bool, error) {
		var list corev1.NodeList
		err := b.List(ctx, &list)
		ready := 0
		for i := range list.Items {
			for _, condition := range list.Items[i].Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		return ready == nodes, err
	})
}

// install applies the operator's permissions, and makes the gateway's pod. KWOK
// plays it; the process that answers for it is the gateway's own.
func (b *bench) install() error {
	for _, arguments := range []string{"-f config/manager/namespace.yaml", "-k config/rbac", "-f config/gateway/rbac.yaml"} {
		kubectl := exec.CommandContext(b.ctx, filepath.Join(b.cluster, "kubectl"),
			append([]string{"--kubeconfig=" + b.admin, "apply", "--server-side"}, strings.Fields(arguments)...)...)
		if out, err := kubectl.CombinedOutput(); err != nil {
			return fmt.Errorf("applying %s: %w\n%s", arguments, err, out)
		}
	}
	gateway := &appsv1.Deployment{}
	content, err := os.ReadFile("config/gateway/deployment.yaml")
	if err == nil {
		// It begins with a comment and is one document.
		err = yaml.UnmarshalStrict(content, gateway)
	}
	if err != nil {
		return err
	}
	gateway.Spec.Replicas = new(int32(1))
	return errors.Join(b.Create(b.ctx, gateway),
		b.Create(b.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
}

// watch begins to follow what is measured.
func (b *bench) watch() error {
	following, err := cache.New(b.config, cache.Options{Scheme: apiserver.Scheme()})
	if err != nil {
		return err
	}
	b.seen = following
	b.running.Go(func() {
		if err := following.Start(b.life); err != nil {
			b.fail(fmt.Errorf("watching: %w", err))
		}
	})
	for _, kind := range []client.Object{&v1alpha1.TrainingJob{}, &v1alpha1.ModelService{}} {
		if _, err := following.GetInformer(b.ctx, kind); err != nil {
			return err
		}
	}
	return nil
}

// kubeconfigOf makes the file with which a program is a service account.
func (b *bench) kubeconfigOf(account string) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))}}
	who := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: system}}
	if err := b.SubResource("token").Create(b.ctx, who, request); err != nil {
		return "", fmt.Errorf("getting a token for %s: %w", account, err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["bench"] = &clientcmdapi.Cluster{Server: b.config.Host, CertificateAuthorityData: b.config.CAData}
	config.AuthInfos[account] = &clientcmdapi.AuthInfo{Token: request.Status.Token}
	config.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: account}
	config.CurrentContext = "bench"
	path := b.file(account + ".kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}
