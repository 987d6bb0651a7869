// Command cluster runs a real Kubernetes on one bare Debian machine, from
// programs that it compiles itself. See the README two directories up.
//
// It must stay quick to compile: it imports the standard library only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"trainyard.dev/trainyard/hack/cluster/internal/binaries"
)

const usage = `usage: hack/cluster/cluster COMMAND

  up [--proxy-mode iptables|nftables]  start the cluster, or do nothing if it runs
  down                                 stop it and remove every trace of it
  status                               say what runs
  logs COMPONENT                       print the log of a component
  kubectl ...                          run kubectl as the cluster's administrator
  kubeconfig [--path]                  print the administrator's kubeconfig, or its path
  load FILE.tar ...                    import container images (docker or OCI archives)
  build                                build the cluster's programs and print their directory
  envtest                              the same, and print the directory for KUBEBUILDER_ASSETS
`

// commands other than kubectl take no input and end on an interrupt.
var commands = map[string]func(ctx context.Context, args []string) error{
	"build":      runBuild,
	"down":       runDown,
	"envtest":    runEnvtest,
	"kubeconfig": runKubeconfig,
	"kubectl":    runKubectl,
	"load":       runLoad,
	"logs":       runLogs,
	"status":     runStatus,
	"up":         runUp,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "cluster %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

var errNotUp = errors.New("the cluster is not up; start it with: hack/cluster/cluster up")

// moduleDir is told by the wrapper script; `go run` starts in it.
func moduleDir() (string, error) {
	dir := os.Getenv("TRAINYARD_CLUSTER_MODULE")
	if dir == "" {
		dir = "."
	}
	if _, err := os.Stat(filepath.Join(dir, "cmd", "node")); err != nil {
		return "", errors.New("cannot find the sources of the cluster's programs; call the script hack/cluster/cluster")
	}
	return filepath.Abs(dir)
}

// build returns the directory of the cluster's programs.
func build(ctx context.Context) (string, error) {
	dir, err := moduleDir()
	if err != nil {
		return "", err
	}
	return binaries.Build(ctx, dir, filepath.Join(dir, "..", "..", "bin", "cluster"), os.Stderr)
}

func runBuild(ctx context.Context, _ []string) error {
	dir, err := build(ctx)
	if err == nil {
		fmt.Println(dir)
	}
	return err
}

func runEnvtest(ctx context.Context, _ []string) error {
	dir, err := build(ctx)
	if err == nil {
		fmt.Println(binaries.EnvtestDir(dir))
	}
	return err
}

func runUp(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	mode := flags.String("proxy-mode", "", "how kube-proxy routes: iptables or nftables (the default)")
	_ = flags.Parse(args) // ExitOnError
	switch *mode {
	case "", "iptables", "nftables":
		return up(ctx, *mode)
	}
	return fmt.Errorf("--proxy-mode is %q, not iptables or nftables", *mode)
}

func runDown(ctx context.Context, _ []string) error {
	unlock, err := lockMachine()
	if err != nil {
		return err
	}
	defer unlock()
	return clean(ctx)
}

func runKubeconfig(_ context.Context, args []string) error {
	content, err := os.ReadFile(adminKubeconfig)
	if err != nil {
		return errNotUp
	}
	if len(args) > 0 && args[0] == "--path" {
		content = []byte(adminKubeconfig + "\n")
	}
	_, err = os.Stdout.Write(content)
	return err
}

// runKubectl replaces this program by kubectl, so that interrupts, input and
// the exit status are kubectl's own affair.
func runKubectl(_ context.Context, args []string) error {
	if _, err := os.Stat(adminKubeconfig); err != nil {
		return errNotUp
	}
	env := append(os.Environ(), "KUBECONFIG="+adminKubeconfig)
	return syscall.Exec(program("kubectl"), append([]string{"kubectl"}, args...), env)
}

func runLoad(ctx context.Context, files []string) error {
	if len(files) == 0 {
		return errors.New("name at least one image archive")
	}
	if _, err := loadState(); err != nil {
		return errNotUp
	}
	for _, file := range files {
		if err := importImage(ctx, file); err != nil {
			return err
		}
		fmt.Printf("imported %s\n", file)
	}
	return nil
}

// importImage puts the images of an archive where the kubelet looks for them.
func importImage(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, program("ctr"), "--address", containerdSocket, "--namespace", "k8s.io",
		"images", "import", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("importing %s: %w\n%s", file, err, out)
	}
	return nil
}

func runLogs(_ context.Context, args []string) error {
	names, _ := filepath.Glob(logFile("*"))
	if len(args) == 1 {
		content, err := os.ReadFile(logFile(filepath.Base(args[0])))
		if err == nil {
			_, err = os.Stdout.Write(content)
			return err
		}
	}
	return fmt.Errorf("name one component; there are logs of: %s", baseNames(names))
}

func runStatus(ctx context.Context, _ []string) error {
	st, err := loadState()
	if err != nil {
		return errNotUp
	}
	fmt.Printf("key %s, kube-proxy with %s, up since %s\n", st.Key, st.ProxyMode, st.Started.Format("15:04:05"))
	for _, p := range st.Processes {
		condition := "running"
		if !p.Alive() {
			condition = "ENDED"
		}
		fmt.Printf("  %-24s %-8s pid %-8d %s\n", p.Name, condition, p.PID, p.Log)
	}
	if err := healthy(ctx, st); err != nil {
		return fmt.Errorf("not healthy: %w; restart it with: hack/cluster/cluster up", err)
	}
	fmt.Println("healthy")
	return nil
}
