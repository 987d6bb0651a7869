package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"trainyard.dev/trainyard/hack/cluster/internal/host"
	"trainyard.dev/trainyard/hack/cluster/internal/process"
)

// clean removes the cluster, in whatever condition it is: running, half
// started, killed, or of another clone. Only the logs stay, until the next
// start. Doing it twice, or on a machine that never had a cluster, is fine.
func clean(ctx context.Context) error {
	if err := endProcesses(); err != nil {
		return err
	}
	if err := host.RemoveCgroup(cgroup); err != nil {
		return err
	}
	sockets := shimSockets()
	if err := host.UnmountBelow(stateDir, runDir); err != nil {
		return err
	}
	if err := clearNetwork(ctx); err != nil {
		return err
	}
	if st, err := loadState(); err == nil {
		if err := host.RestoreSysctls(st.Sysctls); err != nil {
			return fmt.Errorf("restoring kernel settings: %w", err)
		}
	}
	return removeFiles(sockets)
}

// endProcesses ends what was recorded and what carries the marker. It does not
// ask politely: nothing of this cluster is kept, and a kubelet or an API
// server that shuts down in order would take its time.
func endProcesses() error {
	if st, err := loadState(); err == nil {
		if err := process.Stop(st.Processes, 0); err != nil {
			return err
		}
	}
	const rounds = 10 // containerd may have been starting a shim just as it ended
	for range rounds {
		programs := process.Marked()
		if len(programs) == 0 {
			return nil
		}
		if err := process.Stop(programs, 0); err != nil {
			return err
		}
	}
	return errors.New("processes of the cluster keep appearing; is another program starting it?")
}

func clearNetwork(ctx context.Context) error {
	if err := host.RemoveLinks(ctx, nodeLink, podLink); err != nil {
		return fmt.Errorf("removing network links: %w", err)
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return nil // no cluster has ever been here
	}
	if err := host.ClearPacketFilter(ctx, cniNetwork); err != nil {
		return fmt.Errorf("removing packet filter rules: %w", err)
	}
	return nil
}

// shimSockets are the sockets that shims left in a directory which containerd
// shares among all its instances; each shim's bundle tells its own.
func shimSockets() []string {
	var sockets []string
	bundles, _ := filepath.Glob(runDir + "/containerd/io.containerd.runtime.v2.task/k8s.io/*/bootstrap.json")
	for _, file := range bundles {
		var bootstrap struct{ Address string }
		content, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(content, &bootstrap) != nil {
			continue // a start that was cut off; a socket without listener harms nobody
		}
		if socket, ok := strings.CutPrefix(bootstrap.Address, "unix:///"); ok {
			sockets = append(sockets, "/"+socket)
		}
	}
	return sockets
}

// removeFiles removes the state directories, but for the logs, and what the
// kubelet and the CNI library keep in places that cannot be configured.
func removeFiles(files []string) error {
	results, _ := filepath.Glob("/var/lib/cni/results/" + cniNetwork + "-*")
	files = append(files, results...)
	links, _ := filepath.Glob("/var/log/containers/*.log")
	for _, link := range links {
		if aim, err := os.Readlink(link); err == nil && strings.HasPrefix(aim, stateDir+"/") {
			files = append(files, link)
		}
	}
	entries, err := os.ReadDir(stateDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != "log" && entry.Name() != filepath.Base(stateFile) {
			files = append(files, path(entry.Name()))
		}
	}
	// The state goes last: as long as it is there, the work is not done.
	for _, file := range append(files, runDir, stateFile) {
		if err := os.RemoveAll(file); err != nil {
			return fmt.Errorf("removing files: %w", err)
		}
	}
	return nil
}
