package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/template"

	"trainyard.dev/trainyard/hack/cluster/internal/binaries"
	"trainyard.dev/trainyard/hack/cluster/internal/host"
	"trainyard.dev/trainyard/hack/cluster/internal/pki"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*"))

// configPlace is where a template goes within the config directory, if not
// under its own name: containerd wants a directory for networks.
var configPlace = map[string]string{"network.conflist": "cni/10-trainyard.conflist"}

// values are what the templates name.
func values(proxyMode string) map[string]string {
	return map[string]string{
		"State": stateDir, "Run": runDir,
		"NodeName": nodeName, "NodeIP": nodeIP, "PodRange": podRange, "Domain": domain,
		"Network": cniNetwork, "PodLink": podLink, "Cgroup": cgroup,
		"CNIBinDir": host.CNIBinDir, "PauseImage": binaries.PauseImage, "ProxyMode": proxyMode,
	}
}

// renderConfig returns the configuration files by their place.
func renderConfig(proxyMode string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, t := range templates.Templates() {
		var out bytes.Buffer
		if err := t.Option("missingkey=error").Execute(&out, values(proxyMode)); err != nil {
			return nil, fmt.Errorf("rendering the configuration: %w", err)
		}
		place := t.Name()
		if other, ok := configPlace[place]; ok {
			place = other
		}
		files[filepath.Join("config", place)] = out.Bytes()
	}
	return files, nil
}

// configDigest changes with everything but the programs themselves that makes
// a cluster what it is: flags, configuration files and first objects.
func configDigest(proxyMode string) (string, error) {
	hash := sha256.New()
	for _, c := range append(clients(), storage(), containerRuntime(), api()) {
		fmt.Fprintf(hash, "%q %q\n", c.name, c.args)
	}
	files, err := renderConfig(proxyMode)
	if err != nil {
		return "", err
	}
	for _, o := range objects {
		if files[o.file], err = object(o.file); err != nil {
			return "", err
		}
	}
	for _, place := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(hash, "%q %q\n", place, files[place])
	}
	return hex.EncodeToString(hash.Sum(nil))[:12], nil
}

// identities are the users of the API among the components, and their groups.
var identities = []struct{ component, user, group string }{
	{"admin", "kubernetes-admin", "system:masters"},
	{"kube-controller-manager", "system:kube-controller-manager", ""},
	{"kube-scheduler", "system:kube-scheduler", ""},
	{"kube-proxy", "system:kube-proxy", ""},
	{"kubelet", "system:node:" + nodeName, "system:nodes"},
	{"coredns", "cluster:coredns", ""},
	{"hostpath-provisioner", "cluster:hostpath-provisioner", ""},
}

// issueCredentials returns all keys, certificates and kubeconfigs by their place.
func issueCredentials() (map[string][]byte, error) {
	c := credentials{files: map[string][]byte{}}
	ca := c.authority("ca")
	frontProxy := c.authority("front-proxy-ca")
	if c.err != nil {
		return nil, c.err
	}
	for _, id := range identities {
		c.kubeconfig(ca, id.component, id.user, id.group)
	}
	c.keep("kube-apiserver-kubelet-client")(ca.Client("kube-apiserver-kubelet-client", "system:masters"))
	c.keep("front-proxy-client")(frontProxy.Client("front-proxy-client"))
	c.keep("kubelet")(ca.Server("system:node:"+nodeName, nodeName, nodeIP))
	c.keep("kube-apiserver")(ca.Server("kube-apiserver", apiServiceIP, nodeIP, "127.0.0.1", "localhost",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc."+domain))
	if c.err == nil {
		c.files["pki/service-accounts.key"], c.err = pki.ServiceAccountKey()
	}
	return c.files, c.err
}

// credentials gathers files and the first error.
type credentials struct {
	files map[string][]byte
	err   error
}

// keep returns a function that takes what issues a pair return.
func (c *credentials) keep(name string) func(pki.Pair, error) {
	return func(pair pki.Pair, err error) {
		if c.err != nil || err != nil {
			c.err = firstError(c.err, err)
			return
		}
		c.files["pki/"+name+".crt"], c.files["pki/"+name+".key"] = pair.Cert, pair.Key
	}
}

func (c *credentials) authority(name string) *pki.Authority {
	a, err := pki.NewAuthority("trainyard-cluster-" + name)
	if err != nil {
		c.err = firstError(c.err, err)
		return nil
	}
	c.keep(name)(a.Pair, nil)
	return a
}

func (c *credentials) kubeconfig(ca *pki.Authority, component, user, group string) {
	var groups []string
	if group != "" {
		groups = []string{group}
	}
	pair, err := ca.Client(user, groups...)
	place := "config/" + component + ".kubeconfig"
	if component == "admin" {
		place = "admin.kubeconfig"   // where callers look for it
		c.keep(component)(pair, err) // for this program's own requests
	}
	if err == nil {
		c.files[place], err = pki.Kubeconfig(apiServer, user, ca.Cert, pair)
	}
	c.err = firstError(c.err, err)
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// objects are what the cluster holds from the start, by the place in the API
// to post them to.
var objects = []struct{ place, file string }{
	{"/apis/rbac.authorization.k8s.io/v1/clusterroles", "objects/coredns-role.yaml"},
	{"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "objects/coredns-binding.yaml"},
	{"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "objects/hostpath-binding.yaml"},
	{"/apis/storage.k8s.io/v1/storageclasses", "objects/storageclass.yaml"},
}

//go:embed objects
var objectFiles embed.FS

func object(file string) ([]byte, error) { return fs.ReadFile(objectFiles, file) }

// writeFiles writes files below the state directory, for root's eyes only:
// most of them hold keys.
func writeFiles(files map[string][]byte) error {
	for place, content := range files {
		file := path(place)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("writing the configuration: %w", err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return fmt.Errorf("writing the configuration: %w", err)
		}
	}
	return nil
}
