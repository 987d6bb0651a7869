//go:build !unix

package dataset

import (
	"errors"
	"os"
)

func mapFile(*os.File, int64) ([]byte, error) {
	return nil, errors.New("this system does not map files")
}

func mapMemory(int64) ([]byte, error) {
	return nil, errors.New("this system does not map memory")
}

func unmap([]byte) error { return nil }
