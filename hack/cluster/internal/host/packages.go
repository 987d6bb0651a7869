// Package host prepares a Debian machine for a node and removes every trace of
// one. What it removes it finds by name or place, not by memory, so that it
// can clean up after a run that was killed.
package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// CNIBinDir is where Debian puts the CNI plugins.
const CNIBinDir = "/usr/lib/cni"

// needs maps a Debian package to a file whose presence shows that it, or an
// equal from elsewhere, is installed.
var needs = []struct{ pkg, file string }{
	{"runc", "/usr/sbin/runc"},
	{"containernetworking-plugins", CNIBinDir + "/bridge"},
	{"iptables", "/usr/sbin/iptables"},
	{"nftables", "/usr/sbin/nft"},
	{"conntrack", "/usr/sbin/conntrack"},
	{"ethtool", "/usr/sbin/ethtool"},
	{"socat", "/usr/bin/socat"},
	{"iproute2", "/usr/bin/ip"},
	{"kmod", "/usr/bin/kmod"},
	{"mount", "/usr/bin/mount"},
}

// InstallPackages installs what is missing with apt-get; when nothing is, it
// touches nothing.
func InstallPackages(ctx context.Context, log io.Writer) error {
	var missing []string
	for _, n := range needs {
		if _, err := os.Stat(n.file); err != nil {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(log, "  installing Debian packages: %s\n", strings.Join(missing, " "))
	if err := aptGet(ctx, "update"); err != nil {
		return err
	}
	return aptGet(ctx, append([]string{"install", "-y", "--no-install-recommends"}, missing...)...)
}

func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s (install the packages by other means if this machine is not a Debian): %w\n%s",
			strings.Join(args, " "), err, out)
	}
	return nil
}

// run executes a program of the machine and returns what it printed.
func run(ctx context.Context, stdin string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
