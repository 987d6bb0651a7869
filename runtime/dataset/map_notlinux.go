//go:build !linux

package dataset

import "os"

func adviseLargePages([]byte) {}

func adviseRandomReads(*os.File) {}
