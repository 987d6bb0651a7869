//go:build !linux

package group

import (
	"errors"
	"os"
)

func share(int) ([]byte, *os.File, error) {
	return nil, nil, errors.New("several workers can train together on Linux only")
}

func unshare([]byte) error { return nil }
