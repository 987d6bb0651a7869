package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const cgroupMount = "/sys/fs/cgroup"

// cgroupRoots are the directories that make up one control group: one with
// cgroup v2, one in each hierarchy with v1.
func cgroupRoots(name string) []string {
	if _, err := os.Stat(cgroupMount + "/cgroup.controllers"); err == nil {
		return []string{filepath.Join(cgroupMount, name)}
	}
	var roots []string
	entries, _ := os.ReadDir(cgroupMount)
	for _, entry := range entries {
		if entry.IsDir() { // not the links, such as cpu -> cpu,cpuacct
			roots = append(roots, filepath.Join(cgroupMount, entry.Name(), name))
		}
	}
	return roots
}

// CreateCgroup makes the control group in which all pods live. The kubelet
// wants it to be there, and it tells the cluster's containers from others.
func CreateCgroup(name string) error {
	// With cgroup v2 children have only the controllers that the parent lends.
	for _, controller := range []string{"cpuset", "cpu", "memory", "pids", "hugetlb"} {
		_ = os.WriteFile(cgroupMount+"/cgroup.subtree_control", []byte("+"+controller), 0)
	}
	for _, root := range cgroupRoots(name) {
		if err := os.MkdirAll(root, 0o755); err != nil {
			return fmt.Errorf("creating the pods' control group: %w", err)
		}
	}
	return nil
}

// RemoveCgroup kills every process in the control group and removes it.
func RemoveCgroup(name string) error {
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		err = nil
		for _, root := range cgroupRoots(name) {
			err = errors.Join(err, removeTree(root))
		}
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("removing the pods' control group: %w", err)
}

// removeTree removes control groups from the leaves up. It fails as long as
// killed processes are still on their way out.
func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	errs := []error{err}
	slices.Reverse(dirs)
	for _, dir := range dirs {
		killIn(dir)
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func killIn(cgroup string) {
	procs, _ := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	for _, field := range strings.Fields(string(procs)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended just now
		}
	}
}
