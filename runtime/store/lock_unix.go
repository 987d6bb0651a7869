//go:build unix

package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFolder makes a folder this caller's alone until it unlocks it or its
// process ends.
func lockFolder(path string) (unlock func(), ok bool) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	if unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !isStillAt(path, folder) {
		folder.Close()
		return nil, false
	}
	return func() { folder.Close() }, true
}

// isStillAt tells whether an open folder has not been renamed meanwhile.
func isStillAt(path string, folder *os.File) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	open, err := folder.Stat()
	return err == nil && os.SameFile(there, open)
}
