//go:build cluster_components

// Command node is every program of a Kubernetes node and its control plane in
// one binary. Linking one large binary takes about as long as linking the
// largest of its parts, so seven programs for the price of one.
//
// It runs as the program whose name it was called by (through a symbolic
// link), or else as the one its first argument names.
//
// The build tag keeps `go test ./...` and `go vet ./...` in this module from
// compiling all of Kubernetes: only `cluster build` sets it.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// programs maps a program's name to its main function. A further component
// (metrics-server, kwok, kueue) is a file beside this one and a line here.
var programs = map[string]func(){
	"containerd":              containerd,
	"coredns":                 coredns,
	"ctr":                     ctr,
	"etcd":                    etcd,
	"hostpath-provisioner":    hostpathProvisioner,
	"kube-apiserver":          kubeAPIServer,
	"kube-controller-manager": kubeControllerManager,
	"kube-proxy":              kubeProxy,
	"kube-scheduler":          kubeScheduler,
	"kubectl":                 kubectl,
	"kubelet":                 kubelet,
}

func main() {
	run, ok := programs[filepath.Base(os.Args[0])]
	if !ok && len(os.Args) > 1 {
		// The programs read os.Args themselves; give them what they expect.
		os.Args = os.Args[1:]
		run, ok = programs[os.Args[0]]
	}
	if !ok {
		names := slices.Sorted(maps.Keys(programs))
		fmt.Fprintf(os.Stderr, "usage: %s PROGRAM [arguments]\nprograms: %s\n",
			filepath.Base(os.Args[0]), strings.Join(names, ", "))
		os.Exit(2)
	}
	run()
}
