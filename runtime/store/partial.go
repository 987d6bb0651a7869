package store

import (
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
)

const partialPrefix = ".pull-"

// keptFor is how long the files of a Pull that was broken off wait for the next.
const keptFor = time.Hour

// partial is a folder in which a Pull gathers files.
type partial struct {
	path   string
	folder os.FileInfo
	unlock func()
}

// openPartial returns the folder for a model that is to appear at dir, beside
// it, since a rename cannot cross file systems. What a Pull of the same model
// left there is in it, unless another is at it right now.
func openPartial(dir string, model digest.Digest) (*partial, error) {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	sweepPartials(parent)
	path := filepath.Join(parent, partialPrefix+model.Encoded())
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		return nil, err
	}
	if unlock, ok := lockFolder(path); ok {
		return newPartial(path, unlock)
	}
	path, err := os.MkdirTemp(parent, partialPrefix+"*")
	if err != nil {
		return nil, err
	}
	unlock, ok := lockFolder(path)
	if !ok {
		unlock = func() {}
	}
	return newPartial(path, unlock)
}

func newPartial(path string, unlock func()) (*partial, error) {
	folder, err := os.Stat(path)
	if err != nil {
		unlock()
		return nil, err
	}
	return &partial{path, folder, unlock}, nil
}

// isThere tells that the folder was not renamed. If it was, another Pull may by now
// have a folder at this path.
func (p *partial) isThere() bool {
	there, err := os.Stat(p.path)
	return err == nil && os.SameFile(there, p.folder)
}

// close lets the next Pull have the folder, if it can go on with it.
func (p *partial) close(keep bool) {
	if !keep && p.isThere() {
		// What cannot be removed costs disk and nothing else.
		_ = os.RemoveAll(p.path)
	}
	p.unlock()
}

// sweepPartials removes what nobody went on with.
func sweepPartials(parent string) {
	old, _ := filepath.Glob(filepath.Join(parent, partialPrefix+"*")) // the pattern is sound
	for _, path := range old {
		info, err := os.Stat(path)
		if err != nil || time.Since(info.ModTime()) < keptFor {
			continue
		}
		if unlock, ok := lockFolder(path); ok {
			_ = os.RemoveAll(path)
			unlock()
		}
	}
}
