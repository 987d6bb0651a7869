package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"trainyard.dev/trainyard/runtime/dataset/remote"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
)

// graphFile is what an ONNX file is called in a model.
const graphFile = "model.onnx"

// field is where users write a model's source.
const field = "spec.model"

func sourceOf(what spec.Follow, o Options) source {
	switch {
	case what.HTTPS != nil || what.S3 != nil:
		return &remoteFile{what: what, options: o}
	case what.File != "":
		return &localFile{path: what.File, repository: what.Repository}
	}
	return &tag{repository: what.Repository, name: what.Tag}
}

// remoteFile is an ONNX file on a web server or in a bucket.
type remoteFile struct {
	what    spec.Follow
	options Options
	known   remote.Version
}

func (r *remoteFile) fetch(ctx context.Context, dir string) (judged func(), err error) {
	credentials, err := remote.DirectoryCredentials(r.options.CredentialsDirectory)
	if err != nil {
		return nil, err
	}
	from := remote.Source{HTTPS: r.what.HTTPS, S3: r.what.S3, Credentials: credentials, Field: field}
	fetched, now, err := remote.FetchNew(ctx, from, r.known, r.options.Directory)
	judged = func() { r.known = now }
	switch {
	case errors.Is(err, remote.ErrUnchanged):
		return nil, errUnchanged
	case err != nil && now != r.known:
		return judged, err // all of it came, and it is not the file that was meant
	case err != nil:
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, errors.Join(err, os.Remove(fetched))
	}
	if err := os.Rename(fetched, filepath.Join(dir, graphFile)); err != nil {
		return nil, err
	}
	return judged, nil
}

func (r *remoteFile) publish(ctx context.Context, dir string) (spec.Model, error) {
	return push(ctx, r.what.Repository, dir)
}

func push(ctx context.Context, repository spec.Repository, dir string) (spec.Model, error) {
	model, err := store.Push(ctx, repository, dir)
	if err != nil {
		return model, &registryError{err}
	}
	return model, nil
}

// localFile is an ONNX file on a volume.
type localFile struct {
	path       string
	repository spec.Repository
	known      state
}

// state tells one content of a file from another.
type state struct {
	size     int64
	modified time.Time
	inode    uint64
}

func stateOf(info fs.FileInfo) state {
	s := state{size: info.Size(), modified: info.ModTime()}
	if system, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = system.Ino
	}
	return s
}

// fetch copies the file: what is opened must not change.
func (l *localFile) fetch(ctx context.Context, dir string) (judged func(), err error) {
	file, err := openRegular(l.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return nil, err
	}
	now := stateOf(before)
	if now == l.known {
		return nil, errUnchanged
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := copyTo(ctx, filepath.Join(dir, graphFile), file); err != nil {
		return nil, err
	}
	if after, err := os.Stat(l.path); err != nil || stateOf(after) != now {
		return nil, &remote.UnavailableError{Problem: "the file changed while it was read; write a new file under another name, and rename it when it is complete", Err: err}
	}
	return func() { l.known = now }, nil
}

// openRegular opens a file, or says what is wrong with the path.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return nil, &remote.RefusedError{Problem: "there is no such file; check " + field + ".persistentVolumeClaim.path"}
	case err == nil && info.IsDir():
		return nil, &remote.RefusedError{Problem: "this is a folder; name a file in it"}
	case err == nil && !info.Mode().IsRegular():
		return nil, &remote.RefusedError{Problem: "this is not a regular file"}
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, &remote.RefusedError{Problem: fmt.Sprintf("the file may not be read by user %d, as whom pods run; let everyone read it", os.Getuid())}
	}
	return file, err
}

func copyTo(ctx context.Context, path string, from io.Reader) error {
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, &interruptible{ctx, from})
	return errors.Join(err, to.Close())
}

// interruptible stops when its context ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

func (l *localFile) publish(ctx context.Context, dir string) (spec.Model, error) {
	return push(ctx, l.repository, dir)
}

// tag is a model in a registry. Servers pull it from there themselves, so it is
// only looked at.
type tag struct {
	repository spec.Repository
	name       string
	// known is the digest that was judged last, and found that of now.
	known, found string
}

func (t *tag) fetch(ctx context.Context, dir string) (judged func(), err error) {
	now, err := store.Resolve(ctx, t.repository, t.name)
	if err != nil {
		return nil, t.refusal(err)
	}
	if now == t.known {
		return nil, errUnchanged
	}
	if err := store.Pull(ctx, t.repository, now, dir); err != nil {
		return nil, t.refusal(err)
	}
	t.found = now
	return func() { t.known = now }, nil
}

// refusal adds where users say as whom to ask.
func (t *tag) refusal(err error) error {
	if refused := (*store.RefusedError)(nil); errors.As(err, &refused) && t.repository.CredentialsFile == "" && (refused.Status == 401 || refused.Status == 403) {
		return fmt.Errorf("%w, and name a Secret with credentials in %s.oci.credentialsSecret", err, field)
	}
	return err
}

func (t *tag) publish(_ context.Context, dir string) (spec.Model, error) {
	model := spec.Model{Reference: t.repository.Name + ":" + t.name, Digest: t.found}
	if t.name == t.found {
		model.Reference = t.repository.Name + "@" + t.name
	}
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && entry.Name()[0] != '.' {
			model.Bytes += info.Size()
		}
	}
	return model, err
}
