package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"trainyard.dev/trainyard/runtime/spec"
)

// CheckpointType is the type of a checkpoint's manifest.
const CheckpointType = "application/vnd.trainyard.checkpoint.v1"

// PushCheckpoint stores the files of dir under a tag, in place of what the tag
// named before. That is deleted, if the registry allows it.
func PushCheckpoint(ctx context.Context, repo spec.Repository, tag, dir string) error {
	c, err := newClient(repo)
	if err != nil {
		return err
	}
	layers, err := describe(ctx, dir)
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: CheckpointType, Config: ocispec.DescriptorEmptyJSON, Layers: layers,
	})
	if err != nil {
		return err
	}
	if err := c.replaceCheckpoint(ctx, tag, dir, layers, manifest); err != nil {
		return fmt.Errorf("pushing a checkpoint: %w", err)
	}
	return nil
}

// replaceCheckpoint sends the manifest last: whoever follows the tag finds one
// checkpoint or the other, whole.
func (c *client) replaceCheckpoint(ctx context.Context, tag, dir string, layers []ocispec.Descriptor, manifest []byte) error {
	before, err := c.resolve(ctx, tag)
	if missing := (*NotFoundError)(nil); err != nil && !errors.As(err, &missing) {
		return err
	}
	err = c.pushAll(ctx, dir, layers, manifest, tag)
	if err == nil && before.Digest != "" && before.Digest != digest.FromBytes(manifest) {
		// Many registries don't delete: then it stays, without a name.
		_ = c.repository.Delete(ctx, before)
	}
	return err
}

// PullCheckpoint makes dir hold the files that were pushed under a tag, verified
// as [Pull] does. There may be none: that is a [NotFoundError].
func PullCheckpoint(ctx context.Context, repo spec.Repository, tag, dir string) error {
	c, err := newClient(repo)
	if err != nil {
		return err
	}
	found, err := c.resolve(ctx, tag)
	if err == nil {
		err = c.pull(ctx, found.Digest, dir)
	}
	if err != nil {
		return fmt.Errorf("pulling the checkpoint: %w", err)
	}
	return nil
}

// DeleteCheckpoint deletes what was pushed under a tag. That there is nothing is
// no error.
func DeleteCheckpoint(ctx context.Context, repo spec.Repository, tag string) error {
	c, err := newClient(repo)
	if err != nil {
		return err
	}
	missing := (*NotFoundError)(nil)
	found, err := c.resolve(ctx, tag)
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil {
		err = c.try(ctx, func() error { return c.repository.Delete(ctx, found) })
	}
	if err != nil {
		return fmt.Errorf("deleting the checkpoint %s: %w", tag, err)
	}
	return nil
}

// resolve finds the manifest that a tag names.
func (c *client) resolve(ctx context.Context, tag string) (found ocispec.Descriptor, err error) {
	err = c.try(ctx, func() error {
		found, err = c.repository.Resolve(ctx, tag)
		if errors.Is(err, errdef.ErrNotFound) {
			return &NotFoundError{Repository: c.name, Digest: tag}
		}
		return err
	})
	return found, err
}
