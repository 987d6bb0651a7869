//go:build !unix

package serve

func (c *connection) prepare() {}

func (c *connection) more() error { return c.moreAtOnce() }
