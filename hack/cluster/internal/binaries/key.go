// Package binaries builds the cluster's programs and packs those that run in
// containers into images.
package binaries

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// mains are the commands that are built. The cluster program itself is not
// among them: it changes often, and what it runs does not depend on it.
var mains = []string{"./cmd/node", "./cmd/containerd-shim-runc-v2", "./cmd/registry", "./cmd/pause"}

// Key names a build by all that goes into it: versions, sources, flags and
// the Go that compiles. Equal keys mean equal binaries, in every clone.
func Key(moduleDir string) (string, error) {
	files := []string{"go.mod", "go.sum"}
	for _, main := range mains {
		sources, err := filepath.Glob(filepath.Join(moduleDir, main, "*.go"))
		if err != nil {
			return "", err
		}
		for _, source := range sources {
			files = append(files, filepath.Join(main, filepath.Base(source)))
		}
	}
	slices.Sort(files)
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH, buildFlags())
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(moduleDir, file))
		if err != nil {
			return "", fmt.Errorf("computing the build's key: %w", err)
		}
		// The length keeps the end of one file apart from the start of the next.
		fmt.Fprintln(hash, filepath.ToSlash(file), len(content))
		hash.Write(content)
	}
	return hex.EncodeToString(hash.Sum(nil))[:12], nil
}
