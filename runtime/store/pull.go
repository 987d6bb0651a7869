package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"trainyard.dev/trainyard/runtime/spec"
)

// manifestFile lies beside the model's files and says what they must be.
const manifestFile = ".manifest.json"

// maxManifestBytes is what registries take.
const maxManifestBytes = 4 << 20

// Pull makes dir hold the files of the model with that digest. Every byte is
// verified against the digest. dir appears whole or not at all; if it is there
// already and holds this model undamaged, nothing is transferred. A dir that
// Pull made and that holds something else is replaced; any other dir that is not
// empty is an error.
//
// A transfer that breaks goes on where it broke. What a Pull that gave up, or
// whose process was ended, has got already stays beside dir, in a folder named
// .pull- and the digest, for a Pull within the next hour.
func Pull(ctx context.Context, repo spec.Repository, modelDigest string, dir string) error {
	c, err := newClient(repo)
	if err != nil {
		return err
	}
	d, err := digest.Parse(modelDigest)
	if err != nil || d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%q is not the digest of a model: it must be sha256: and 64 hexadecimal digits", modelDigest)
	}
	if holds(ctx, dir, d) {
		return nil
	}
	if err := c.pull(ctx, d, dir); err != nil {
		return fmt.Errorf("pulling model %s: %w", tag(d), err)
	}
	return nil
}

func (c *client) pull(ctx context.Context, d digest.Digest, dir string) error {
	manifest, err := c.fetchManifest(ctx, d)
	if err != nil {
		return err
	}
	files, err := modelFiles(manifest)
	if err != nil {
		return fmt.Errorf("%s in repository %s: %w", d, c.name, err)
	}
	place, err := openPartial(dir, d)
	if err != nil {
		return err
	}
	err = c.gather(ctx, files, manifest, place.path)
	if err == nil {
		err = appear(ctx, place.path, dir, d)
	}
	place.close(err != nil && (ctx.Err() != nil || worthAnotherTry(err)))
	return err
}

// gather makes a folder hold a model's files and its manifest.
func (c *client) gather(ctx context.Context, files []ocispec.Descriptor, manifest []byte, dir string) error {
	for _, file := range files {
		if err := c.fetchFile(ctx, file, dir); err != nil {
			return err
		}
	}
	return writeFile(filepath.Join(dir, manifestFile), manifest)
}

func (c *client) fetchManifest(ctx context.Context, d digest.Digest) (manifest []byte, err error) {
	err = c.try(ctx, func() error {
		found, body, err := c.repository.Manifests().FetchReference(ctx, d.String())
		if errors.Is(err, errdef.ErrNotFound) {
			return &NotFoundError{Repository: c.name, Digest: d.String()}
		}
		if err != nil {
			return err
		}
		defer body.Close()
		if found.Size > maxManifestBytes {
			return fmt.Errorf("the manifest has %d bytes, but %d at most are a manifest", found.Size, maxManifestBytes)
		}
		manifest, err = content.ReadAll(body, ocispec.Descriptor{Digest: d, Size: found.Size})
		return err
	})
	return manifest, err
}

// modelFiles returns the layers that are files, with the names they are to have.
func modelFiles(manifest []byte) ([]ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, fmt.Errorf("the manifest is not JSON: %w", err)
	}
	seen := map[string]bool{}
	var files []ocispec.Descriptor
	for _, layer := range m.Layers {
		name, titled := layer.Annotations[ocispec.AnnotationTitle]
		switch {
		case !titled:
			continue
		case !isPlainName(name):
			return nil, fmt.Errorf("a layer is titled %.80q, which is not a plain file name", name)
		case seen[name]:
			return nil, fmt.Errorf("two layers are titled %.80q", name)
		case layer.Size < 0 || layer.Digest.Validate() != nil:
			return nil, fmt.Errorf("layer %.80q has size %d and digest %.80q, which cannot be", name, layer.Size, layer.Digest)
		}
		seen[name] = true
		files = append(files, layer)
	}
	if len(files) == 0 {
		return nil, errors.New("this is no model: none of its layers is titled with a file name")
	}
	return files, nil
}

// isPlainName tells names that stay in their folder, on every system.
func isPlainName(name string) bool {
	return filepath.IsLocal(name) && !strings.HasPrefix(name, ".") && !strings.ContainsAny(name, "/\\:\x00") && len(name) <= 255
}

// fetchFile goes on with what dir has of a file.
func (c *client) fetchFile(ctx context.Context, blob ocispec.Descriptor, dir string) error {
	name := blob.Annotations[ocispec.AnnotationTitle]
	path, have := filepath.Join(dir, name), int64(0)
	err := c.tryOn(ctx, &have, func() error {
		err := c.fetchRest(ctx, blob, path, &have)
		if errors.Is(err, content.ErrMismatchedDigest) || errors.Is(err, content.ErrTrailingData) {
			return errors.Join(err, os.Remove(path))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("file %s: %w", name, err)
	}
	return nil
}

// fetchRest appends to a file what it lacks, and verifies the whole. It sets
// have to the bytes that are there.
func (c *client) fetchRest(ctx context.Context, blob ocispec.Descriptor, path string, have *int64) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	verifier := blob.Digest.Verifier()
	if *have, err = io.Copy(verifier, &contextReader{ctx, file}); err != nil {
		return err
	}
	if *have < blob.Size {
		body, err := c.fetchFrom(ctx, blob, *have)
		if err != nil {
			return err
		}
		defer body.Close()
		n, err := io.Copy(io.MultiWriter(file, verifier), io.LimitReader(body, blob.Size-*have+1))
		if *have += n; err != nil {
			return err
		}
	}
	switch {
	case *have < blob.Size:
		return io.ErrUnexpectedEOF
	case *have > blob.Size:
		return content.ErrTrailingData
	case !verifier.Verified():
		return content.ErrMismatchedDigest
	}
	return errors.Join(file.Sync(), file.Close())
}

// fetchFrom returns a blob's bytes from an offset on. What a registry that
// knows no ranges sends before it is skipped.
func (c *client) fetchFrom(ctx context.Context, blob ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	body, err := c.repository.Blobs().Fetch(ctx, blob)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, &NotFoundError{Repository: c.name, Digest: blob.Digest.String()}
	}
	if err != nil {
		return nil, err
	}
	if seeker, ok := body.(io.Seeker); ok && offset > 0 {
		if _, err := seeker.Seek(offset, io.SeekStart); err == nil {
			return body, nil
		}
	}
	if _, err := io.CopyN(io.Discard, body, offset); err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

// appear renames a complete folder to dir.
func appear(ctx context.Context, temporary, dir string, d digest.Digest) error {
	if err := errors.Join(os.Chmod(temporary, 0o755), syncDir(temporary)); err != nil {
		return err
	}
	err := os.Rename(temporary, dir)
	if errors.Is(err, fs.ErrExist) {
		// Another Pull may have been faster.
		if holds(ctx, dir, d) {
			return nil
		}
		err = replace(temporary, dir)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// replace takes a folder's place, if it is empty or was made by Pull. Who still
// maps the old files keeps them.
func replace(temporary, dir string) error {
	if os.Remove(dir) == nil {
		return os.Rename(temporary, dir)
	}
	if _, err := os.Stat(filepath.Join(dir, manifestFile)); err != nil {
		return fmt.Errorf("%s is there already and holds something else than a pulled model; remove it, or pull to another folder", dir)
	}
	old := temporary + ".old"
	defer os.RemoveAll(old)
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	return os.Rename(temporary, dir)
}

// holds tells whether dir holds, undamaged, the model with that digest.
func holds(ctx context.Context, dir string, d digest.Digest) bool {
	manifest, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil || digest.FromBytes(manifest) != d {
		return false
	}
	files, err := modelFiles(manifest)
	if err != nil {
		return false
	}
	for _, want := range files {
		got, err := describeFile(ctx, filepath.Join(dir, want.Annotations[ocispec.AnnotationTitle]))
		if err != nil || got.Digest != want.Digest || got.Size != want.Size {
			return false
		}
	}
	return true
}

func writeFile(path string, data []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
