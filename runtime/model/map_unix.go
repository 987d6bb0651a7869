//go:build unix

package model

import (
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// mapBytes maps a file's bytes, read only.
func mapBytes(file *os.File, size int64) ([]byte, error) {
	if size == 0 || size > math.MaxInt {
		return nil, nil
	}
	return unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
}

func unmap(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	return unix.Munmap(data)
}
