// Package imports keeps who may import whom. The rules are those of
// docs/architecture.md: pod programs stay small and know nothing of
// Kubernetes, decisions depend on nothing but their arguments, and the two
// controllers share only the API and the contract with the pods.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "trainyard.dev/trainyard/"

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

func list(t *testing.T) map[string]listed {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", "./...")
	command.Dir = "../.."
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := map[string]listed{}
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
}

// under tells whether a package is in one of the folders.
func under(importPath string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		return importPath == folder || strings.HasPrefix(importPath, folder+"/")
	})
}

func ours(folders ...string) []string {
	var paths []string
	for _, folder := range folders {
		paths = append(paths, module+folder)
	}
	return paths
}

func TestImportRules(t *testing.T) {
	packages := list(t)
	for _, rule := range []struct {
		name string
		// folders are whom the rule binds.
		folders []string
		// allowed, if set, is all that they may reach beside the standard library
		// and themselves; forbidden is what they may not reach.
		allowed, forbidden []string
	}{
		{"the contract is the standard library's", ours("runtime/spec"), []string{}, nil},
		{"the numbers need gonum only", ours("runtime/nn"), []string{"gonum.org/v1/gonum", "gonum.org/v1/netlib"}, nil},
		{"decisions depend on their arguments", ours("controllers/scaling", "controllers/routing"), []string{}, nil},
		{"pods know nothing of Kubernetes", ours("runtime", "cmd/runtime", "cmd/trainer", "cmd/server", "cmd/follower"), nil, append(ours("api", "controllers"), "k8s.io", "sigs.k8s.io")},
		{"the gateway decides nothing", ours("gateway", "cmd/gateway"), nil, append(ours("controllers/modelservice", "controllers/trainingjob", "controllers/scaling"), "sigs.k8s.io/controller-runtime")},
		{"tokens depend on no controller", ours("tokens"), nil, ours("api", "controllers", "gateway")},
		{"the controllers are apart", ours("controllers/trainingjob"), nil, ours("controllers/modelservice")},
		{"and so the other way", ours("controllers/modelservice"), nil, ours("controllers/trainingjob")},
	} {
		t.Run(rule.name, func(t *testing.T) {
			for _, p := range packages {
				if !under(p.ImportPath, rule.folders...) {
					continue
				}
				for _, dependency := range p.Deps {
					if packages[dependency].Standard || under(dependency, rule.folders...) {
						continue
					}
					if under(dependency, rule.forbidden...) || (rule.allowed != nil && !under(dependency, rule.allowed...)) {
						t.Errorf("%s reaches %s", p.ImportPath, dependency)
					}
				}
			}
		})
	}
}

func TestControllersUseOnlyTheContract(t *testing.T) {
	for _, p := range list(t) {
		if !under(p.ImportPath, ours("controllers", "api", "cmd/manager", "gateway", "cmd/gateway", "tokens")...) {
			continue
		}
		for _, dependency := range p.Deps {
			if under(dependency, ours("runtime")...) && dependency != module+"runtime/spec" {
				t.Errorf("%s reaches %s; of runtime it may use spec only", p.ImportPath, dependency)
			}
		}
	}
}

// TestDecidersKnowNoKubernetes leaves what is Kubernetes' to gateway/cluster and
// tokens/cluster.
func TestDecidersKnowNoKubernetes(t *testing.T) {
	packages := list(t)
	for _, name := range []string{"gateway", "tokens"} {
		for _, dependency := range packages[module+name].Deps {
			if under(dependency, append(ours("api"), "k8s.io", "sigs.k8s.io")...) {
				t.Errorf("%s reaches %s", name, dependency)
			}
		}
	}
}

func TestNoCatchAllPackages(t *testing.T) {
	for _, p := range list(t) {
		if strings.HasPrefix(p.ImportPath, module+"cmd/") {
			continue // nobody imports a command, and its name is the image's
		}
		if strings.HasPrefix(p.ImportPath, module) && slices.Contains([]string{"runtime", "utils", "util", "common", "constants", "helpers"}, path.Base(p.ImportPath)) {
			t.Errorf("package %s says nothing of what is in it", p.ImportPath)
		}
	}
}
