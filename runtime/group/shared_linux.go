package group

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// share returns memory that another process can map, too, through the file.
func share(bytes int) (memory []byte, file *os.File, err error) {
	fd, err := unix.MemfdCreate("group", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("making memory to share: %w", err)
	}
	file = os.NewFile(uintptr(fd), "memory to share")
	if err := file.Truncate(int64(bytes)); err != nil {
		return nil, nil, fmt.Errorf("making memory to share: %w", err)
	}
	memory, err = unix.Mmap(fd, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("mapping memory to share: %w", err)
	}
	return memory, file, nil
}

// unshare gives the memory back.
func unshare(memory []byte) error { return unix.Munmap(memory) }
