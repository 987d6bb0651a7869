// Package apiserver gives controller tests a real kube-apiserver with the
// project's resources installed.
package apiserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"trainyard.dev/trainyard/api/v1alpha1"
)

// Server is a running API server.
type Server struct {
	// Config reaches it with every permission.
	Config *rest.Config
	// Client reads from and writes to it, without a cache.
	Client client.WithWatch
}

// Run starts a server, sets *server, runs the tests of a package and stops the
// server. Call it from TestMain.
func Run(m *testing.M, server *Server) int {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		fmt.Fprintln(os.Stderr, "these tests need a kube-apiserver: run make test-unit, or set KUBEBUILDER_ASSETS to what hack/cluster/cluster envtest prints")
		return 1
	}
	environment := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join(root(), "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	config, err := environment.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the API server:", err)
		return 1
	}
	defer func() {
		if err := environment.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the API server:", err)
		}
	}()
	config.QPS, config.Burst = 1000, 1000
	server.Config = config
	if server.Client, err = client.NewWithWatch(config, client.Options{Scheme: Scheme()}); err != nil {
		fmt.Fprintln(os.Stderr, "reaching the API server:", err)
		return 1
	}
	return m.Run()
}

// Scheme knows the kinds that the project uses.
func Scheme() *kruntime.Scheme {
	scheme := kruntime.NewScheme()
	for _, add := range []func(*kruntime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return scheme
}

// Namespace makes a namespace for one test.
func (s *Server) Namespace(t *testing.T) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := s.Client.Create(context.Background(), namespace); err != nil {
		t.Fatal(err)
	}
	return namespace.Name
}

// root is the repository's folder.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}
