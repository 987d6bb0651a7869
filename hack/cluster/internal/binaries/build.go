package binaries

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Versions that no program knows of itself unless the linker tells it.
const (
	KubernetesVersion = "v1.37.2"
	containerdVersion = "v2.4.2"
	registryVersion   = "v3.1.2"
)

// programs are the names under which the node binary is called. Those for
// envtest stand in a directory of their own as well.
var (
	programs = []string{
		"containerd", "coredns", "ctr", "etcd", "hostpath-provisioner", "kube-apiserver",
		"kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet",
	}
	envtestPrograms = []string{"kube-apiserver", "etcd", "kubectl"}
)

func buildFlags() []string {
	var ld strings.Builder
	ld.WriteString("-s -w")
	for _, v := range [][2]string{
		{"k8s.io/component-base/version.gitVersion", KubernetesVersion},
		{"k8s.io/component-base/version.gitMajor", "1"},
		{"k8s.io/component-base/version.gitMinor", "37"},
		{"k8s.io/component-base/version.gitTreeState", "clean"},
		{"k8s.io/client-go/pkg/version.gitVersion", KubernetesVersion},
		{"github.com/containerd/containerd/v2/version.Version", containerdVersion},
		{"github.com/distribution/distribution/v3/version.version", registryVersion},
	} {
		fmt.Fprintf(&ld, " -X %s=%s", v[0], v[1])
	}
	return []string{
		"-trimpath",
		"-buildvcs=false",           // a commit elsewhere in the repository changes nothing here
		"-gcflags=all=-dwarf=false", // nobody debugs these binaries; less to compile
		"-tags=" + strings.Join(tags, ","),
		"-ldflags=" + ld.String(),
	}
}

// tags: cluster_components is this module's own (see cmd/node); the others
// leave out snapshotters that need kernel features or C libraries.
var tags = []string{"cluster_components", "no_btrfs", "no_zfs", "no_devmapper"}

// Build returns the directory with the binaries of the module as it is now,
// below outDir, and builds them if they are not there yet. Progress goes to log.
func Build(ctx context.Context, moduleDir, outDir string, log io.Writer) (string, error) {
	key, err := Key(moduleDir)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(outDir, key)
	if exists(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(outDir, 0o755); err != nil {
		return "", fmt.Errorf("making room for binaries: %w", err)
	}
	unlock, err := lock(filepath.Join(outDir, ".lock"), log)
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) {
		return dir, nil // the build that held the lock made it
	}
	// Of a build that was killed, or of sources that have changed since. A
	// cluster that still runs them has links of its own.
	if err := removeEarlier(outDir); err != nil {
		return "", fmt.Errorf("removing earlier builds: %w", err)
	}
	fmt.Fprintf(log, "building the cluster's programs into %s\n", dir)
	temporary, err := os.MkdirTemp(outDir, ".building-")
	if err != nil {
		return "", fmt.Errorf("making room for binaries: %w", err)
	}
	defer os.RemoveAll(temporary)
	if err := compile(ctx, moduleDir, temporary, log); err != nil {
		return "", err
	}
	if err := link(temporary); err != nil {
		return "", fmt.Errorf("linking program names: %w", err)
	}
	if err := os.Rename(temporary, dir); err != nil {
		return "", fmt.Errorf("putting the binaries in place: %w", err)
	}
	return dir, nil
}

func removeEarlier(outDir string) error {
	entries, err := os.ReadDir(outDir)
	errs := []error{err}
	for _, entry := range entries {
		if entry.IsDir() {
			errs = append(errs, os.RemoveAll(filepath.Join(outDir, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

// EnvtestDir is the directory within a build that suits KUBEBUILDER_ASSETS.
func EnvtestDir(dir string) string { return filepath.Join(dir, "envtest") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lock keeps two builds from compiling the same packages twice at once.
func lock(path string, log io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the build: %w", err)
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		fmt.Fprintln(log, "another build is running; waiting for it")
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
			return nil, fmt.Errorf("locking the build: %w", err)
		}
	}
	return func() { file.Close() }, nil
}

func compile(ctx context.Context, moduleDir, out string, log io.Writer) error {
	total, err := countPackages(ctx, moduleDir)
	if err != nil {
		return err
	}
	args := append([]string{"build", "-v", "-o", out + "/"}, buildFlags()...)
	cmd := goCommand(ctx, moduleDir, append(args, mains...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting go build: %w", err)
	}
	p := &progress{total: total, start: time.Now()}
	stop := p.report(log)
	complaints := p.read(stderr)
	err = cmd.Wait()
	stop()
	if err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", moduleDir, err, complaints)
	}
	fmt.Fprintf(log, "  built in %s (%d packages compiled; the others were in Go's build cache)\n",
		p.elapsed(), p.compiled.Load())
	return nil
}

func countPackages(ctx context.Context, moduleDir string) (int, error) {
	args := append([]string{"list", "-deps", "-tags=" + strings.Join(tags, ",")}, mains...)
	cmd := goCommand(ctx, moduleDir, args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("listing packages (is the Go module proxy reachable?): %w\n%s", err, complaints.String())
	}
	return bytes.Count(out, []byte("\n")), nil
}

// goCommand runs go free of the caller's flags and workspace, which would make
// binaries that the key does not speak of.
func goCommand(ctx context.Context, moduleDir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = moduleDir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd
}

// link gives the node binary the names of its programs.
func link(dir string) error {
	var errs []error
	for _, name := range programs {
		errs = append(errs, os.Symlink("node", filepath.Join(dir, name)))
	}
	errs = append(errs, os.Mkdir(EnvtestDir(dir), 0o755), os.Chmod(dir, 0o755))
	for _, name := range envtestPrograms {
		errs = append(errs, os.Symlink("../node", filepath.Join(EnvtestDir(dir), name)))
	}
	return errors.Join(errs...)
}

// progress counts what `go build -v` names: one line for a package.
type progress struct {
	total    int
	start    time.Time
	compiled atomic.Int64
}

// read counts packages until the build ends and returns every other line.
func (p *progress) read(stderr io.Reader) string {
	var complaints strings.Builder
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if line := lines.Text(); isPackage(line) {
			p.compiled.Add(1)
		} else {
			fmt.Fprintln(&complaints, line)
		}
	}
	return complaints.String()
}

// isPackage tells an import path from a message.
func isPackage(line string) bool { return line != "" && !strings.ContainsAny(line, " \t:#") }

// report prints a line every few seconds until the returned function is called.
func (p *progress) report(log io.Writer) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(5 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				fmt.Fprintf(log, "  %5s: %s\n", p.elapsed(), p.phase())
			}
		}
	}()
	return func() { close(done); <-ended }
}

// phase says what the build is at. go does not name packages that it finds in
// its cache, nor does it say when it links.
func (p *progress) phase() string {
	n := p.compiled.Load()
	if n == 0 {
		return "looking into Go's build cache, or linking"
	}
	return fmt.Sprintf("compiled %d of at most %d packages", n, p.total)
}

func (p *progress) elapsed() time.Duration { return time.Since(p.start).Round(time.Second) }
