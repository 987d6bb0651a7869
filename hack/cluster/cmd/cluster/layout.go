package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// There is one cluster per machine. It stands in the same places for every
// clone of the repository, so each can see, use and stop it.
const (
	stateDir = "/var/lib/trainyard-cluster"
	runDir   = "/run/trainyard-cluster" // sockets, whose paths have to be short
	lockFile = "/run/trainyard-cluster.lock"

	adminKubeconfig  = stateDir + "/admin.kubeconfig"
	containerdSocket = runDir + "/containerd.sock"
)

// Names and addresses within the cluster.
const (
	nodeName     = "node-0"
	nodeIP       = "10.97.0.1"
	serviceRange = "10.96.0.0/16"
	apiServiceIP = "10.96.0.1" // the first of the range: the Service "kubernetes"
	podRange     = "10.244.0.0/22"
	domain       = "cluster.local"
	apiServer    = "https://" + nodeIP + ":6443"
	issuer       = "https://kubernetes.default.svc." + domain

	nodeLink   = "trainyard0" // idle; carries nodeIP
	podLink    = "trainyard1" // the bridge of the pods' network
	cniNetwork = "trainyard"
	cgroup     = "trainyard-cluster"

	provisioner = "cluster.trainyard.dev/hostpath"
)

func path(elements ...string) string {
	return filepath.Join(append([]string{stateDir}, elements...)...)
}

func program(name string) string      { return path("bin", name) }
func logFile(component string) string { return path("log", component+".log") }
func kubeconfigOf(user string) string { return path("config", user+".kubeconfig") }
func configFile(name string) string   { return path("config", name) }
func certificate(name string) string  { return path("pki", name+".crt") }
func keyOf(name string) string        { return path("pki", name+".key") }

func baseNames(files []string) string {
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".log"))
	}
	return strings.Join(names, ", ")
}

// lockMachine keeps two runs from starting and stopping at once.
func lockMachine() (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the cluster needs root: it makes network links, mounts and control groups")
	}
	file, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the machine's cluster: %w", err)
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		fmt.Fprintln(os.Stderr, "another run starts or stops the cluster; waiting for it")
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
			return nil, fmt.Errorf("locking the machine's cluster: %w", err)
		}
	}
	return func() { file.Close() }, nil
}
