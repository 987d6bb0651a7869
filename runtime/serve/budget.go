package serve

import (
	"io"
	"sync/atomic"
	"time"
)

// budget bounds the bytes of all bodies that are in memory at once. It counts
// what has arrived, not what a request claims to be: who sends nothing takes
// nothing from others.
type budget struct {
	most int64
	used atomic.Int64
}

// take returns an error, and takes nothing, when n bytes more are too many.
func (b *budget) take(n int64) error {
	if b.used.Add(n) <= b.most {
		return nil
	}
	b.used.Add(-n)
	return unavailable(time.Second, "the server has as many bytes of requests in memory as it may (%d); try again", b.most)
}

func (b *budget) giveBack(n int64) { b.used.Add(-n) }

// charged reads a body at the cost of a budget.
type charged struct {
	io.Reader
	budget *budget
	taken  int64
}

// Read implements [io.Reader].
func (c *charged) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if over := c.take(n); over != nil {
		return 0, over
	}
	return n, err
}

func (c *charged) take(n int) error {
	if over := c.budget.take(int64(n)); over != nil {
		return over
	}
	c.taken += int64(n)
	return nil
}

func (c *charged) giveBack() {
	c.budget.giveBack(c.taken)
	c.taken = 0
}
