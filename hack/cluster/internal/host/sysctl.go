package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Sysctl is a kernel setting: its path below /proc/sys and its value.
type Sysctl struct{ Path, Value string }

// LoadModules loads what a kernel may have as modules. Failure is no error: a
// kernel that has them built in has nothing to load.
func LoadModules(ctx context.Context, modules ...string) {
	_, _ = run(ctx, "", "modprobe", append([]string{"-a"}, modules...)...)
}

// SetSysctls changes kernel settings and returns what has to be set to change
// them back.
func SetSysctls(settings []Sysctl) (before []Sysctl, err error) {
	for _, s := range settings {
		path := "/proc/sys/" + s.Path
		old, err := os.ReadFile(path)
		if err != nil {
			return before, fmt.Errorf("reading a kernel setting: %w", err)
		}
		value := strings.TrimSpace(string(old))
		if value == s.Value {
			continue
		}
		if err := os.WriteFile(path, []byte(s.Value), 0); err != nil {
			return before, fmt.Errorf("changing a kernel setting: %w", err)
		}
		before = append(before, Sysctl{s.Path, value})
	}
	return before, nil
}

// RestoreSysctls sets what SetSysctls returned.
func RestoreSysctls(before []Sysctl) error {
	var errs []error
	for _, s := range before {
		errs = append(errs, os.WriteFile("/proc/sys/"+s.Path, []byte(s.Value), 0))
	}
	return errors.Join(errs...)
}
