// Command kwok measures the operator with many resources: make bench-kwok. The
// control plane, the manager and the gateway are the real ones; KWOK plays the
// kubelets of the nodes, and this program the servers and trainers in their
// pods. Each line says what was asked for, and what was seen.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// cases are the measurements, in order. Each has a control plane of its own, so
// that none finds what another left behind.
var cases = []struct {
	name string
	run  func(context.Context, *bench) error
}{
	{"trainingjobs", trainingJobs},
	{"modelservices", modelServices},
}

// caseLimit bounds a case, whatever it waits for.
const caseLimit = 12 * time.Minute

func main() {
	log.SetLogger(logr.Discard())
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench/kwok:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(arguments) != 4 {
		return errors.New("usage: kwok CLUSTER-PROGRAMS KWOK OPERATOR-PROGRAMS OUTPUT; make bench-kwok gives these folders")
	}
	for i := range arguments {
		arguments[i], _ = filepath.Abs(arguments[i])
	}
	from := programs{cluster: arguments[0], kwok: arguments[1], operator: arguments[2]}
	wanted := os.Getenv("BENCH_CASES")
	for _, c := range cases {
		if wanted != "" && !slices.Contains(strings.Split(wanted, ","), c.name) {
			continue
		}
		if err := runCase(ctx, c.run, from, filepath.Join(arguments[3], c.name)); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func runCase(ctx context.Context, measure func(context.Context, *bench) error, from programs, output string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, caseLimit, fmt.Errorf("it took longer than %s", caseLimit))
	defer cancel()
	if err := os.RemoveAll(output); err != nil {
		return err
	}
	if err := os.MkdirAll(output, 0o755); err != nil {
		return err
	}
	b := &bench{programs: from, output: output}
	err := b.up(ctx)
	if err == nil {
		err = measure(b.ctx, b)
	}
	// That a program ended may be why something else went wrong.
	if cause := context.Cause(b.ctx); err != nil && !errors.Is(err, cause) {
		err = errors.Join(err, cause)
	}
	return errors.Join(err, b.down())
}

// report prints one line of the table.
func report(what, asked, format string, seen ...any) {
	fmt.Printf("BENCH kwok/%s asked=%q seen=%q\n", what, asked, fmt.Sprintf(format, seen...))
}
