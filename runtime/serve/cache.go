package serve

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"trainyard.dev/trainyard/runtime/spec"
)

// cache is a directory of pulled models, by digest. What is there stays while
// somebody holds it, so a disk keeps no more than what is served.
type cache struct {
	dir string
	// pull is [store.Pull]: it verifies what is there, and transfers the rest.
	pull func(ctx context.Context, repo spec.Repository, digest, dir string) error

	mu      sync.Mutex
	entries map[string]*entry
}

// entry is a digest that somebody holds.
type entry struct {
	holders int // guarded by cache.mu
	// pulling lets one of several holders pull. The others then find it there.
	pulling sync.Mutex
}

// hold returns the directory of a model, pulled if need be, and the function
// that gives it back.
func (c *cache) hold(ctx context.Context, m spec.ServedModel) (dir string, giveBack func(), err error) {
	dir = filepath.Join(c.dir, strings.TrimPrefix(m.Digest, "sha256:"))
	e := c.enter(m.Digest)
	giveBack = func() { c.leave(m.Digest, dir) }
	e.pulling.Lock()
	defer e.pulling.Unlock()
	if err := c.pull(ctx, m.Repository, m.Digest, dir); err != nil {
		giveBack()
		return "", nil, err
	}
	return dir, giveBack, nil
}

func (c *cache) enter(digest string) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[digest]
	if !ok {
		e = &entry{}
		c.entries[digest] = e
	}
	e.holders++
	return e
}

// leave removes the directory after its last holder. Under the lock, so that
// nobody finds it half removed.
func (c *cache) leave(digest, dir string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[digest]
	if e.holders--; e.holders == 0 {
		delete(c.entries, digest)
		// What cannot be removed costs disk and nothing else.
		_ = os.RemoveAll(dir)
	}
}
