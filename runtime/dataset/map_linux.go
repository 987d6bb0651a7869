package dataset

import (
	"os"

	"golang.org/x/sys/unix"
)

// adviseLargePages is a wish: a kernel without large pages has small ones.
func adviseLargePages(data []byte) { _ = unix.Madvise(data, unix.MADV_HUGEPAGE) }

// adviseRandomReads keeps the kernel from reading on behind what is asked for. The
// mapping is not concerned: that is read ahead.
func adviseRandomReads(file *os.File) { _ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_RANDOM) }
