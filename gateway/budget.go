package gateway

import (
	"io"
	"sync"
)

// budget bounds what is in hand at once.
type budget struct {
	maxRequests int
	maxBytes    int64

	mutex    sync.Mutex
	requests int
	bytes    int64
}

// admit takes one request in, if there is room.
func (b *budget) admit() bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.requests >= b.maxRequests {
		return false
	}
	b.requests++
	return true
}

// take takes bytes in, if there is room.
func (b *budget) take(bytes int64) bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.bytes+bytes > b.maxBytes {
		return false
	}
	b.bytes += bytes
	return true
}

// leave gives back one request with its bytes.
func (b *budget) leave(bytes int64) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.requests--
	b.bytes -= bytes
}

// charged counts what is read against the budget as it comes: a client may
// announce more than it sends.
type charged struct {
	from   io.Reader
	budget *budget
	// bytes were taken so far.
	bytes int64
}

// Read implements [io.Reader].
func (c *charged) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if !c.budget.take(int64(n)) {
		return 0, errFull
	}
	c.bytes += int64(n)
	return n, err
}
