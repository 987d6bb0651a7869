package binaries

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Image is a container image with a single program, from scratch.
type Image struct {
	Name  string
	Files []File
	Config
}

// Config is how the image runs; the fields are those of the OCI image
// configuration.
type Config struct {
	User         string
	Env          []string
	Entrypoint   []string
	Cmd          []string
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
}

// File is an entry of the image; a path that ends in a slash is a directory.
type File struct {
	Path    string
	Mode    int64
	Content []byte
}

// PauseImage is what every pod's sandbox runs.
const PauseImage = "cluster.trainyard.dev/pause:1"

//go:embed registry.yml
var registryConfig []byte

// Images returns the images made of the binaries in dir. They are the ones
// that a cluster without access to a registry cannot pull.
func Images(dir string) ([]Image, error) {
	pause, err := os.ReadFile(filepath.Join(dir, "pause"))
	if err != nil {
		return nil, fmt.Errorf("packing images: %w", err)
	}
	registry, err := os.ReadFile(filepath.Join(dir, "registry"))
	if err != nil {
		return nil, fmt.Errorf("packing images: %w", err)
	}
	return []Image{
		{
			Name:   PauseImage,
			Files:  []File{{"pause", 0o755, pause}},
			Config: Config{User: "65535:65535", Entrypoint: []string{"/pause"}},
		},
		{
			// The exact name, paths and defaults of the image that other
			// clusters pull, so that one manifest serves both.
			Name: "docker.io/library/registry:3.1.2",
			Files: []File{
				{"bin/", 0o755, nil},
				{"bin/registry", 0o755, registry},
				{"etc/", 0o755, nil},
				{"etc/distribution/", 0o755, nil},
				{"etc/distribution/config.yml", 0o644, registryConfig},
				{"tmp/", 0o1777, nil},
				{"var/", 0o755, nil},
				{"var/lib/", 0o755, nil},
				{"var/lib/registry/", 0o777, nil},
			},
			Config: Config{
				Env:          []string{"PATH=/bin", "OTEL_TRACES_EXPORTER=none"},
				Entrypoint:   []string{"registry"},
				Cmd:          []string{"serve", "/etc/distribution/config.yml"},
				ExposedPorts: map[string]struct{}{"5000/tcp": {}},
				Volumes:      map[string]struct{}{"/var/lib/registry": {}},
			},
		},
	}, nil
}

// epoch stands in for the time of creation, so that equal content has equal digests.
var epoch = time.Unix(0, 0).UTC()

// Archive packs the image as a docker archive, as `docker save` would.
func (i Image) Archive() ([]byte, error) {
	layer, err := archive(i.Files)
	if err != nil {
		return nil, fmt.Errorf("packing %s: %w", i.Name, err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      epoch,
		"config":       i.Config,
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
		"history":      []any{map[string]any{"created": epoch, "created_by": "hack/cluster"}},
	})
	if err != nil {
		return nil, fmt.Errorf("packing %s: %w", i.Name, err)
	}
	configName, layerName := digest(config)+".json", digest(layer)+".tar"
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": configName, "RepoTags": []string{i.Name}, "Layers": []string{layerName},
	}})
	if err != nil {
		return nil, fmt.Errorf("packing %s: %w", i.Name, err)
	}
	out, err := archive([]File{
		{configName, 0o644, config}, {layerName, 0o644, layer}, {"manifest.json", 0o644, manifest},
	})
	if err != nil {
		return nil, fmt.Errorf("packing %s: %w", i.Name, err)
	}
	return out, nil
}

func archive(files []File) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		header := &tar.Header{Name: f.Path, Mode: f.Mode, Size: int64(len(f.Content)), ModTime: epoch, Typeflag: tar.TypeReg}
		if f.Path[len(f.Path)-1] == '/' {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
