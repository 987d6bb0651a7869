package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"trainyard.dev/trainyard/hack/cluster/internal/binaries"
	"trainyard.dev/trainyard/hack/cluster/internal/host"
)

const defaultProxyMode = "nftables"

// up leaves a cluster running that was built from this clone's sources.
func up(ctx context.Context, proxyMode string) error {
	unlock, err := lockMachine()
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := moduleDir()
	if err != nil {
		return err
	}
	key, err := binaries.Key(dir)
	if err != nil {
		return err
	}
	reason, err := whyStart(ctx, key, proxyMode)
	if err != nil {
		return err
	}
	if reason == "" {
		fmt.Println("the cluster is up")
		return nil
	}
	fmt.Println(reason)
	if proxyMode == "" {
		proxyMode = defaultProxyMode
	}
	config, err := configDigest(proxyMode)
	if err != nil {
		return err
	}
	s := &starter{begin: time.Now(), state: &state{Key: key, Config: config, ProxyMode: proxyMode, Started: time.Now()}}
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("%w\nwhat runs is left for you to look at; the next up or down cleans it away", err)
	}
	fmt.Printf("the cluster is up after %.1fs; export KUBECONFIG=%s\n", time.Since(s.begin).Seconds(), adminKubeconfig)
	return nil
}

// whyStart says why the cluster has to be started, or nothing if it need not.
func whyStart(ctx context.Context, key, proxyMode string) (string, error) {
	st, err := loadState()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "starting the cluster", nil
	case err != nil:
		return fmt.Sprintf("starting anew: %v", err), nil
	case st.Key != key:
		return fmt.Sprintf("restarting: the cluster was built from other sources (%s, these are %s)", st.Key, key), nil
	case proxyMode != "" && st.ProxyMode != proxyMode:
		return fmt.Sprintf("restarting: kube-proxy works with %s", st.ProxyMode), nil
	}
	config, err := configDigest(st.ProxyMode)
	if err != nil {
		return "", err
	}
	if st.Config != config {
		return "restarting: this clone configures the cluster in another way", nil
	}
	if err := healthy(ctx, st); err != nil {
		return fmt.Sprintf("restarting: the cluster that was up is not healthy: %v", err), nil
	}
	return "", nil
}

// healthy is nil when everything runs and answers.
func healthy(ctx context.Context, st *state) error {
	if !st.Ready {
		return errors.New("its start did not come to an end")
	}
	if name, ok := st.ended(); ok {
		return fmt.Errorf("%s has ended; see %s", name, logFile(name))
	}
	client, err := newAPIClient()
	if err != nil {
		return err
	}
	if err := client.get(ctx, apiServer+"/readyz", nil); err != nil {
		return err
	}
	if err := client.nodeReady(ctx); err != nil {
		return err
	}
	return dnsAnswers(ctx)
}

// run is the order of a start.
func (s *starter) run(ctx context.Context) error {
	var binDir string
	var client *apiClient
	for _, part := range []struct {
		what string
		do   func() error
	}{
		{"Debian packages", func() error { return host.InstallPackages(ctx, os.Stdout) }},
		{"programs", func() (err error) { binDir, err = build(ctx); return err }},
		{"remains of earlier runs removed", func() error { return clean(ctx) }},
		{"directories and configuration", func() (err error) {
			if err = s.lay(binDir); err == nil {
				client, err = newAPIClient()
			}
			return err
		}},
		{"network and kernel", func() error { return s.prepareKernel(ctx) }},
		{"etcd and containerd", func() error { return s.startFoundation(ctx) }},
		{"system images", func() error { return importSystemImages(ctx, binDir) }},
		{"API server", func() error { return s.awaitAPI(ctx, client) }},
		{"node ready", func() error { return s.startClients(ctx, client) }},
	} {
		if err := s.step(part.what, part.do); err != nil {
			return err
		}
	}
	if err := s.awaitServices(ctx, client); err != nil {
		return err
	}
	s.state.Ready = true
	return s.state.save()
}

// lay makes the state directory. The programs are put there too, so that the
// cluster does not depend on the clone that started it.
func (s *starter) lay(binDir string) error {
	if err := os.RemoveAll(path("log")); err != nil { // of the last cluster; components append
		return fmt.Errorf("removing old logs: %w", err)
	}
	for _, dir := range []string{path("log"), path("bin"), path("volumes"), path("kubelet"), runDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making directories: %w", err)
		}
	}
	if err := s.state.save(); err != nil {
		return err
	}
	if err := installPrograms(binDir, path("bin")); err != nil {
		return err
	}
	config, err := renderConfig(s.state.ProxyMode)
	if err != nil {
		return err
	}
	if err := writeFiles(config); err != nil {
		return err
	}
	credentials, err := issueCredentials()
	if err != nil {
		return err
	}
	return writeFiles(credentials)
}

// installPrograms links or, across file systems, copies.
func installPrograms(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("installing programs: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		source, target := filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())
		if os.Link(source, target) == nil { // of a symbolic link it links the link
			continue
		}
		if err := install(source, target); err != nil {
			return fmt.Errorf("installing %s: %w", entry.Name(), err)
		}
	}
	return nil
}

func install(source, target string) error {
	if aim, err := os.Readlink(source); err == nil {
		return os.Symlink(aim, target)
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

func (s *starter) prepareKernel(ctx context.Context) error {
	host.LoadModules(ctx, "overlay", "br_netfilter", "nf_conntrack")
	before, err := host.SetSysctls([]host.Sysctl{
		{Path: "net/ipv4/ip_forward", Value: "1"},
		{Path: "net/bridge/bridge-nf-call-iptables", Value: "1"}, // a pod reaches its neighbours by Service too
		{Path: "fs/inotify/max_user_instances", Value: "8192"},   // all pods of a user share them
	})
	s.state.Sysctls = before
	if err := errors.Join(err, s.state.save()); err != nil {
		return err
	}
	if err := host.CreateCgroup(cgroup); err != nil {
		return err
	}
	return host.CreateNodeLink(ctx, nodeLink, nodeIP, serviceRange)
}

func (s *starter) startFoundation(ctx context.Context) error {
	for _, c := range []component{storage(), containerRuntime()} {
		if err := s.state.start(c); err != nil {
			return err
		}
	}
	err := s.await(ctx, "etcd", 30*time.Second, func(ctx context.Context) error {
		return answersOK(ctx, "http://127.0.0.1:2379/health")
	})
	if err != nil {
		return err
	}
	// It takes longest, so it comes up while the images are imported.
	if err := s.state.start(api()); err != nil {
		return err
	}
	return s.await(ctx, "containerd", 30*time.Second, func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "unix", containerdSocket)
		if err == nil {
			connection.Close()
		}
		return err
	})
}

func answersOK(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

func importSystemImages(ctx context.Context, binDir string) error {
	images, err := binaries.Images(binDir)
	if err != nil {
		return err
	}
	for _, image := range images {
		archive, err := image.Archive()
		if err != nil {
			return err
		}
		file := path("image.tar")
		if err := os.WriteFile(file, archive, 0o600); err != nil {
			return fmt.Errorf("packing %s: %w", image.Name, err)
		}
		if err := importImage(ctx, file); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

func (s *starter) awaitAPI(ctx context.Context, client *apiClient) error {
	return s.await(ctx, "kube-apiserver", 2*time.Minute, func(ctx context.Context) error {
		return client.get(ctx, apiServer+"/readyz", nil)
	})
}

func (s *starter) startClients(ctx context.Context, client *apiClient) error {
	for _, o := range objects {
		content, err := object(o.file)
		if err != nil {
			return err
		}
		if err := client.create(ctx, apiServer+o.place, content); err != nil {
			return fmt.Errorf("creating what stands in %s: %w", o.file, err)
		}
	}
	for _, c := range clients() {
		if err := s.state.start(c); err != nil {
			return err
		}
	}
	return s.await(ctx, "kubelet", 2*time.Minute, client.nodeReady)
}

func (s *starter) awaitServices(ctx context.Context, client *apiClient) error {
	for _, w := range []struct {
		what, component string
		ask             func(context.Context) error
	}{
		{"node takes pods", "kube-controller-manager", client.untainted},
		{"API server answers behind its Service", "kube-proxy", client.serviceAnswers},
		{"DNS answers", "coredns", dnsAnswers},
		{"default service account exists", "kube-controller-manager", func(ctx context.Context) error {
			return client.get(ctx, apiServer+"/api/v1/namespaces/default/serviceaccounts/default", nil)
		}},
		{"storage class exists", "kube-apiserver", func(ctx context.Context) error {
			return client.get(ctx, apiServer+"/apis/storage.k8s.io/v1/storageclasses/standard", nil)
		}},
	} {
		err := s.step(w.what, func() error { return s.await(ctx, w.component, time.Minute, w.ask) })
		if err != nil {
			return err
		}
	}
	return nil
}
