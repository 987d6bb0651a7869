//go:build unix

package serve

import (
	"io"
	"syscall"
)

func (c *connection) prepare() {
	from, ok := c.Conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := from.SyscallConn(); err == nil {
		c.raw, c.step = raw, c.readOnce
	}
}

// more adds to what has been read. It takes room for it when there is something
// to put there.
func (c *connection) more() error {
	if c.raw == nil {
		return c.moreAtOnce()
	}
	if err := c.raw.Read(c.step); err != nil {
		return err
	}
	return c.arriving
}

// readOnce is false when nothing has arrived.
func (c *connection) readOnce(fd uintptr) bool {
	n, err := syscall.Read(int(fd), c.grow())
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		if len(c.read) == 0 {
			c.forget()
		}
		return err == syscall.EINTR && c.readOnce(fd)
	case err == nil && n == 0:
		err = io.EOF
	case err == nil:
		c.read = c.room[:len(c.read)+n]
	}
	c.arriving = err
	return true
}
