// Package node does what only a program on the node can do.
package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

// KillGateway ends, without a warning, the process of a gateway's pod that serves.
func KillGateway(pod *corev1.Pod) error { return kill(pod, leads) }

// KillStandby ends the other one, which stands by.
func KillStandby(pod *corev1.Pod) error {
	return kill(pod, func(process string) (bool, error) {
		leading, err := leads(process)
		return !leading, err
	})
}

// leads tells whether a gateway's process has bound the socket at which the two
// of a pod meet, as package gateway/pair has it.
func leads(process string) (bool, error) {
	sockets, err := os.ReadFile(filepath.Join(process, "net/unix"))
	if err != nil {
		return false, err
	}
	descriptors, err := filepath.Glob(filepath.Join(process, "fd/*"))
	if err != nil {
		return false, err
	}
	const listens = "00010000"
	for line := range strings.Lines(string(sockets)) {
		fields := strings.Fields(line)
		if fields[len(fields)-1] != "@gateway" || fields[3] != listens {
			continue
		}
		socket := "socket:[" + fields[6] + "]"
		return slices.ContainsFunc(descriptors, func(path string) bool {
			target, _ := os.Readlink(path)
			return target == socket
		}), nil
	}
	return false, nil
}

// kill finds a process of a gateway's pod by its control group.
func kill(pod *corev1.Pod, which func(process string) (bool, error)) error {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return err
	}
	for _, path := range groups {
		process := filepath.Dir(path)
		group, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(group), string(pod.UID)) {
			continue
		}
		command, err := os.ReadFile(filepath.Join(process, "cmdline"))
		if err != nil || !strings.HasPrefix(string(command), "/gateway\x00") {
			continue
		}
		found, err := which(process)
		if err != nil {
			return err
		}
		if found {
			id, err := strconv.Atoi(filepath.Base(process))
			return errors.Join(err, syscall.Kill(id, syscall.SIGKILL))
		}
	}
	return fmt.Errorf("no such process of pod %s is on this machine", pod.Name)
}
