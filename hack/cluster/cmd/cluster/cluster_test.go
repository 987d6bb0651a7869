package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestImports keeps this program quick to compile: callers compile it each
// time they run it.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		if !strings.HasPrefix(pkg, "trainyard.dev/trainyard/hack/cluster/") {
			t.Errorf("imports %s", pkg)
		}
	}
}

// TestEveryFileThatIsNamedIsWritten looks through flags and configuration for
// files below the state directory.
func TestEveryFileThatIsNamedIsWritten(t *testing.T) {
	written, err := renderConfig("nftables")
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := issueCredentials()
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, c := range append(clients(), storage(), containerRuntime(), api()) {
		named = append(named, c.args...)
	}
	for place, content := range written {
		named = append(named, string(content))
		if strings.Contains(string(content), "<no value>") {
			t.Errorf("%s has an unknown value:\n%s", place, content)
		}
	}
	for place, content := range credentials {
		written[place] = content
	}
	file := regexp.MustCompile(regexp.QuoteMeta(stateDir) + `/((?:pki|config)/[\w.-]+)`)
	for _, m := range file.FindAllStringSubmatch(strings.Join(named, "\n"), -1) {
		if _, ok := written[m[1]]; !ok && m[1] != "config/cni" { // the directory
			t.Errorf("%s is named but not written", m[1])
		}
	}
	if _, ok := written["admin.kubeconfig"]; !ok {
		t.Error("there is no kubeconfig for the administrator")
	}
}

func TestNetworkIsJSON(t *testing.T) {
	files, err := renderConfig("iptables")
	if err != nil {
		t.Fatal(err)
	}
	var network struct{ Name string }
	if err := json.Unmarshal(files["config/cni/10-trainyard.conflist"], &network); err != nil {
		t.Fatal(err)
	}
	if network.Name != cniNetwork {
		t.Errorf("the network is called %q; its rules would not be found again", network.Name)
	}
}

func TestConfigDigestFollowsTheProxyMode(t *testing.T) {
	digests := map[string]bool{}
	for _, mode := range []string{"iptables", "nftables", "iptables"} {
		digest, err := configDigest(mode)
		if err != nil {
			t.Fatal(err)
		}
		digests[digest] = true
	}
	if len(digests) != 2 {
		t.Errorf("two modes have %d digests", len(digests))
	}
}

func TestStorageClassNamesTheProvisioner(t *testing.T) {
	content, err := object("objects/storageclass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), "\nprovisioner: "+provisioner+"\n") {
		t.Errorf("the provisioner is not %s in:\n%s", provisioner, content)
	}
}

func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte(strings.Repeat("early\n", 20)+strings.Repeat("late\n", 15)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(file); strings.Contains(got, "early") || strings.Count(got, "late") != 15 {
		t.Errorf("got %s", got)
	}
	if got := tail(file + "-missing"); !strings.Contains(got, "no such file") {
		t.Errorf("got %s", got)
	}
}
