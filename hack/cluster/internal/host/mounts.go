package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// UnmountBelow unmounts everything below the directories.
func UnmountBelow(dirs ...string) error {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("listing mounts: %w", err)
	}
	mounts := mountsBelow(string(mountinfo), dirs)
	var errs []error
	for i := len(mounts) - 1; i >= 0; i-- { // the last mounted may stand in the others
		// Detached, not forced: a mount in use by a dying process goes with it.
		if err := syscall.Unmount(mounts[i], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", mounts[i], err))
		}
	}
	return errors.Join(errs...)
}

func mountsBelow(mountinfo string, dirs []string) []string {
	const mountPoint = 4
	var found []string
	for _, line := range strings.Split(mountinfo, "\n") {
		fields := strings.Fields(line)
		if len(fields) <= mountPoint {
			continue
		}
		path := unescape(fields[mountPoint])
		for _, dir := range dirs {
			if strings.HasPrefix(path, dir+"/") {
				found = append(found, path)
				break
			}
		}
	}
	return found
}

// unescape undoes the kernel's octal escapes for blanks.
func unescape(path string) string {
	for i := 0; i+3 < len(path); i++ {
		if path[i] != '\\' {
			continue
		}
		if code, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
			path = path[:i] + string(rune(code)) + path[i+4:]
		}
	}
	return path
}
