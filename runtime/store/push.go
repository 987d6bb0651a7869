package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trainyard.dev/trainyard/runtime/spec"
)

// Push stores the files of dir and returns where: the manifest's digest, and a
// tag that is the digest's first twelve hexadecimal digits. What the registry
// already has is not sent again. Names that start with a dot are left out.
// The upload of a large file that breaks goes on from what the registry has;
// where it stands is noted in dir, under a name with a dot, so that the next Push
// of dir goes on, too.
// Parameters of the result is left at 0, for the caller who knows the network.
func Push(ctx context.Context, repo spec.Repository, dir string) (spec.Model, error) {
	c, err := newClient(repo)
	if err != nil {
		return spec.Model{}, err
	}
	layers, err := describe(ctx, dir)
	if err != nil {
		return spec.Model{}, err
	}
	manifest, err := packManifest(layers)
	if err != nil {
		return spec.Model{}, err
	}
	if err := c.pushAll(ctx, dir, layers, manifest, tag(digest.FromBytes(manifest))); err != nil {
		return spec.Model{}, fmt.Errorf("pushing the model: %w", err)
	}
	pushed := spec.Model{Reference: repo.Name + ":" + tag(digest.FromBytes(manifest)), Digest: digest.FromBytes(manifest).String()}
	for _, layer := range layers {
		pushed.Bytes += layer.Size
	}
	return pushed, nil
}

// tag is the version that people see.
func tag(d digest.Digest) string { return d.Encoded()[:12] }

// describe returns a layer for each file of dir, in the order of their names.
func describe(ctx context.Context, dir string) ([]ocispec.Descriptor, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var layers []ocispec.Descriptor
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if !entry.Type().IsRegular() {
			return nil, fmt.Errorf("%s is not a regular file; a model has only files", filepath.Join(dir, entry.Name()))
		}
		layer, err := describeFile(ctx, filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	if len(layers) == 0 {
		return nil, fmt.Errorf("there are no files in %s to push", dir)
	}
	return layers, nil
}

func describeFile(ctx context.Context, path string) (ocispec.Descriptor, error) {
	file, err := os.Open(path)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer file.Close()
	digester := digest.SHA256.Digester()
	size, err := io.Copy(digester.Hash(), &contextReader{ctx, file})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("reading %s: %w", path, err)
	}
	name := filepath.Base(path)
	mediaType, known := mediaTypes[name]
	if !known {
		mediaType = otherMediaType
	}
	return ocispec.Descriptor{
		MediaType: mediaType, Digest: digester.Digest(), Size: size,
		Annotations: map[string]string{ocispec.AnnotationTitle: name},
	}, nil
}

// packManifest returns the same bytes for the same layers. oras.PackManifest
// would add the time.
func packManifest(layers []ocispec.Descriptor) ([]byte, error) {
	return json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Config:       ocispec.DescriptorEmptyJSON,
		Layers:       layers,
	})
}

// pushAll sends the manifest last, under a tag: whoever sees it can have all that
// it names.
func (c *client) pushAll(ctx context.Context, dir string, layers []ocispec.Descriptor, manifest []byte, tag string) error {
	for _, layer := range layers {
		if err := c.pushFile(ctx, dir, layer); err != nil {
			return err
		}
	}
	empty := ocispec.DescriptorEmptyJSON
	if err := c.pushBlob(ctx, empty, bytes.NewReader(empty.Data)); err != nil {
		return err
	}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	return c.try(ctx, func() error {
		return c.repository.PushReference(ctx, d, bytes.NewReader(manifest), tag)
	})
}

func (c *client) pushFile(ctx context.Context, dir string, layer ocispec.Descriptor) error {
	name := layer.Annotations[ocispec.AnnotationTitle]
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer file.Close()
	if layer.Size > pieceBytes {
		err := c.pushInPieces(ctx, layer, file, filepath.Join(dir, "."+name+".upload"))
		if !errors.Is(err, errNoPieces) {
			return err
		}
	}
	return c.pushBlob(ctx, layer, file)
}

// pushInPieces goes on with what the registry has of a blob.
func (c *client) pushInPieces(ctx context.Context, blob ocispec.Descriptor, content io.ReaderAt, note string) error {
	u := c.resumeUpload(blob, note)
	return c.tryOn(ctx, &u.sent, func() error {
		present, err := c.repository.Blobs().Exists(ctx, blob)
		if err != nil || present {
			return err
		}
		return u.send(ctx, content)
	})
}

// pushBlob sends a blob in one request.
func (c *client) pushBlob(ctx context.Context, blob ocispec.Descriptor, content io.ReaderAt) error {
	return c.try(ctx, func() error {
		present, err := c.repository.Blobs().Exists(ctx, blob)
		if err != nil || present {
			return err
		}
		return c.repository.Blobs().Push(ctx, blob, io.NewSectionReader(content, 0, blob.Size))
	})
}

// contextReader stops when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
