// Command serve measures how fast this project answers predictions beside its
// peers: the same model, the same requests, the same load generator, one after
// the other, each alone on the same core. See bench/README.md.
//
//	serve SERVER FLOOR FORTIO PEERS DIR
//
// SERVER is this project's program, FLOOR the bare server of floor.c, FORTIO the
// program of hack/fortio, PEERS the folder of the peers' environments, and DIR is
// where models and logs go.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal("bench: ", err)
	}
}

// bench is what all cases share.
type bench struct {
	server, floor, fortio, peers, dir string

	registry *registry
	models   map[string]*served
}

// cases by name, in the order in which they run.
var cases = []struct {
	name string
	run  func(*bench) error
}{
	{"digits-json", (*bench).digitsJSON},
	{"digits-json-half", (*bench).half},
	{"digits-json-bursts", (*bench).bursts},
	{"digits-grpc", (*bench).digitsGRPC},
	{"rows64-binary", (*bench).rows64Images},
	{"rows64-dense", (*bench).rows64Dense},
	{"overhead-grpc", (*bench).overhead},
	{"batching", (*bench).batching},
	{"swap", (*bench).swap},
	{"stop", (*bench).stop},
	{"stop-grpc", (*bench).stopGRPC},
	{"start", (*bench).start},
	{"memory", (*bench).memory},
	{"connections", (*bench).connections},
}

func run(args []string) error {
	if len(args) != 5 {
		return errors.New("usage: serve SERVER FLOOR FORTIO PEERS DIR")
	}
	var b bench
	for i, to := range []*string{&b.server, &b.floor, &b.fortio, &b.peers, &b.dir} {
		path, err := filepath.Abs(args[i])
		if err != nil {
			return err
		}
		*to = path
	}
	b.registry = startRegistry()
	defer b.registry.Close()
	var err error
	if b.models, err = b.registry.pushAll(context.Background(), b.dir); err != nil {
		return err
	}
	wanted := strings.FieldsFunc(os.Getenv("BENCH_CASES"), func(c rune) bool { return c == ',' || c == ' ' })
	for _, c := range cases {
		if len(wanted) > 0 && !slices.Contains(wanted, c.name) {
			continue
		}
		if err := c.run(&b); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// print prints a pair, or why there is none.
func print(name string, ours load, peer string, theirs load, err error, more string) {
	if err != nil {
		fmt.Printf("BENCH serve/%s ours=%s peer=%s: not measured: %v\n", name, ours, peer, err)
		return
	}
	fmt.Printf("BENCH serve/%s ours=%s peer=%s:%s ratio=%.2f%s\n", name, ours, peer, theirs, ours.rate/theirs.rate, more)
}
