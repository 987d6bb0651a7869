package binaries

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// newModule lays out the files that a key is made of.
func newModule(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "go.mod", "module m")
	write(t, dir, "go.sum", "sums")
	for _, main := range mains {
		write(t, dir, filepath.Join(main, "main.go"), "package main")
	}
	return dir
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func key(t *testing.T, dir string) string {
	t.Helper()
	k, err := Key(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyIsTheSameInEveryClone(t *testing.T) {
	if a, b := key(t, newModule(t)), key(t, newModule(t)); a != b {
		t.Errorf("%s in one directory, %s in another", a, b)
	}
}

func TestKeyFollowsWhatIsBuilt(t *testing.T) {
	for _, test := range []struct {
		file    string
		changes bool
	}{
		{"go.mod", true},
		{"go.sum", true},
		{"cmd/node/main.go", true},
		{"cmd/pause/another.go", true},
		{"cmd/cluster/main.go", false},
		{"README.md", false},
	} {
		t.Run(test.file, func(t *testing.T) {
			dir := newModule(t)
			before := key(t, dir)
			write(t, dir, test.file, "something else")
			if changed := key(t, dir) != before; changed != test.changes {
				t.Errorf("key changed: %t, want %t", changed, test.changes)
			}
		})
	}
}

func TestKeyNeedsTheModule(t *testing.T) {
	if _, err := Key(t.TempDir()); err == nil {
		t.Error("a key was made of nothing")
	}
}

func TestProgressTellsPackagesFromMessages(t *testing.T) {
	p := &progress{}
	got := p.read(strings.NewReader("internal/abi\nk8s.io/api/core/v1\n# example.com/x\nx.go:1:2: undefined: y\n"))
	if n := p.compiled.Load(); n != 2 {
		t.Errorf("counted %d packages, want 2", n)
	}
	if want := "# example.com/x\nx.go:1:2: undefined: y\n"; got != want {
		t.Errorf("messages %q, want %q", got, want)
	}
}

// TestPrograms keeps the links that are made in step with what the binary knows.
func TestPrograms(t *testing.T) {
	source, err := os.ReadFile("../../cmd/node/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, m := range regexp.MustCompile(`(?m)^\t"([a-z-]+)": `).FindAllSubmatch(source, -1) {
		known = append(known, string(m[1]))
	}
	if !slices.Equal(programs, known) {
		t.Errorf("links are made for %v, but cmd/node runs as %v", programs, known)
	}
	for _, name := range envtestPrograms {
		if !slices.Contains(programs, name) {
			t.Errorf("envtest's %s is no program", name)
		}
	}
}

func TestImageIsADockerArchive(t *testing.T) {
	image := Image{Name: "example.com/x:1", Files: []File{{"x", 0o755, []byte("program")}}, Config: Config{Entrypoint: []string{"/x"}}}
	out, err := image.Archive()
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, out)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if got := manifest[0].RepoTags[0]; got != image.Name {
		t.Errorf("name %q", got)
	}
	layer := files[manifest[0].Layers[0]]
	if got := untar(t, layer)["x"]; string(got) != "program" {
		t.Errorf("the layer's file is %q", got)
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
		Config Config
	}
	if err := json.Unmarshal(files[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	if got, want := config.RootFS.DiffIDs[0], "sha256:"+digest(layer); got != want {
		t.Errorf("diff id %s, want %s", got, want)
	}
	if got := config.Config.Entrypoint[0]; got != "/x" {
		t.Errorf("entrypoint %q", got)
	}
}

func untar(t *testing.T, content []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
