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

// keepsSockets is the argument by which the gateway's two processes differ.
const keepsSockets = "keep-sockets"

// KillGateway ends the gateway's process in a pod without a warning. The process
// that keeps its sockets stays.
func KillGateway(pod *corev1.Pod) error {
	return kill(pod, func(arguments []string) bool {
		return arguments[0] == "/gateway" && !slices.Contains(arguments, keepsSockets)
	})
}

// KillSockets ends the process that keeps a gateway's sockets.
func KillSockets(pod *corev1.Pod) error {
	return kill(pod, func(arguments []string) bool { return slices.Contains(arguments, keepsSockets) })
}

// kill finds a pod's process by its control group.
func kill(pod *corev1.Pod, which func(arguments []string) bool) error {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return err
	}
	for _, path := range groups {
		group, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(group), string(pod.UID)) {
			continue
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil || !which(strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")) {
			continue
		}
		process, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		return errors.Join(err, syscall.Kill(process, syscall.SIGKILL))
	}
	return fmt.Errorf("no such process of pod %s is on this machine", pod.Name)
}
