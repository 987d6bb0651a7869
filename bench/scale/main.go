// Command scale measures how a ModelService goes from zero to many and back, on
// the cluster of the current kubeconfig: make bench-scale. Each line says what
// was asked for, and what was seen.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"trainyard.dev/trainyard/test/apiserver"
)

// cases are the measurements, in order.
var cases = []struct {
	name string
	run  func(context.Context, *bench) error
}{
	{"from-zero", fromZero},
	{"grpc", fromZeroByGRPC},
	{"steady", steady},
	{"step", step},
	{"many", many},
	{"killed", killed},
	{"held", heldRequests},
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench/scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	kubeconfig, err := config.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the cluster: %w", err)
	}
	kubeconfig.QPS, kubeconfig.Burst = 200, 400
	cluster, err := client.New(kubeconfig, client.Options{Scheme: apiserver.Scheme()})
	if err != nil {
		return err
	}
	b := &bench{Client: cluster}
	if b.starts, err = number("BENCH_STARTS", 20); err != nil {
		return err
	}
	if b.held, err = number("BENCH_HELD", 10_000); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer b.cleanUp()
	wanted := os.Getenv("BENCH_CASES")
	for _, c := range cases {
		if !selected(wanted, c.name) {
			continue
		}
		if err := c.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// number is what a variable says, if it is set.
func number(variable string, unset int) (int, error) {
	text := os.Getenv(variable)
	if text == "" {
		return unset, nil
	}
	n, err := strconv.Atoi(text)
	if err == nil && n < 1 {
		err = errors.New("it must be above 0")
	}
	if err != nil {
		return 0, fmt.Errorf("%s=%s: %w", variable, text, err)
	}
	return n, nil
}

// report prints one line of the table.
func report(what, asked, seen string) {
	fmt.Printf("BENCH scale/%s asked=%q seen=%q\n", what, asked, seen)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
