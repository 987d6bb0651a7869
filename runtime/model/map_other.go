//go:build !unix

package model

import (
	"io"
	"os"
)

// mapBytes reads a file where files cannot be mapped.
func mapBytes(file *os.File, _ int64) ([]byte, error) { return io.ReadAll(file) }

func unmap([]byte) error { return nil }
