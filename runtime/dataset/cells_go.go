//go:build !openblas

package dataset

// read cuts text from there on, which ends with a line end, into as many cells as
// there is room for.
func (c *cells) read(text string, at int) { c.readPlainly(text, at) }
