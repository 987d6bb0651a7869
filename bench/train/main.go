// Command train measures how fast this project trains beside its peers: the
// same data, the same recipe, the same machine, in turns. See bench/README.md.
//
//	train PYTHON PEERS.PY WITHOUT_OPENBLAS DIR    run the cases, with data in DIR
//	train side RECIPE                             be this project's side of one case
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal("bench: ", err)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "side":
		return serve(args[1])
	case len(args) == 4:
		return compare(args[0], args[1], args[2], args[3])
	}
	return errors.New("usage: train PYTHON PEERS.PY WITHOUT_OPENBLAS DIR")
}

// bench is one case.
type bench struct {
	recipe
	draw  func(r *recipe, path string) error
	peers []peer
}

// peer is who this project is measured against.
type peer struct {
	name string
	// target is the ratio to reach. 0: none is set.
	target float64
}

// withoutOpenBLAS is this project, built without the tag openblas.
const withoutOpenBLAS = "ours-without-openblas"

func cases(csvMegabytes int) []bench {
	plain := func(r *recipe, path string) error { return draw(*r, path) }
	return []bench{
		{
			recipe{Name: "small", Layers: []int{100, 64, 32, 10}, Batch: 32, LearningRate: 0.001, Epochs: 5, Seeds: 1, Rows: 20_000, Held: 5_000},
			plain, []peer{{withoutOpenBLAS, 0}, {"keras", 10}, {"pytorch", 4}, {"scikit-learn", 2}},
		},
		{
			recipe{Name: "medium", Layers: []int{784, 512, 256, 10}, Batch: 128, LearningRate: 0.001, Epochs: 2, Seeds: 1, Rows: 25_600, Held: 5_000},
			plain, []peer{{withoutOpenBLAS, 0}, {"keras", 0}, {"pytorch", 1.1}, {"scikit-learn", 0}},
		},
		{
			recipe{Name: "large", Layers: []int{1024, 4096, 4096, 10}, Batch: 512, LearningRate: 0.0001, Epochs: 1, Seeds: 1, Rows: 2_048, Held: 1_024},
			plain, []peer{{withoutOpenBLAS, 0}, {"pytorch", 1}, {sgemm, 0.85}},
		},
		{
			recipe{Name: "leastsquares", Layers: []int{20, 1}, LearningRate: 0.1, Epochs: 100, Seeds: 1, Rows: 1_000_000},
			plain, []peer{{withoutOpenBLAS, 0}, {"pytorch", 1}},
		},
		{
			recipe{Name: "csv", Layers: []int{20, 1}},
			func(r *recipe, path string) error { return drawCSV(r, path, csvMegabytes, 6) },
			[]peer{{"pandas", 2}},
		},
		{
			recipe{Name: "csv-float64", Layers: []int{20, 1}},
			func(r *recipe, path string) error { return drawCSV(r, path, csvMegabytes, shortest) },
			[]peer{{"pandas", 0}},
		},
		{
			recipe{Name: "digits", Layers: []int{64, 64, 32, 10}, Batch: 32, LearningRate: 0.001, Epochs: 20, Seeds: 10},
			drawDigits, []peer{{"keras", 0}, {"pytorch", 0}},
		},
	}
}

// compare runs the cases that BENCH_CASES names (all by default).
func compare(python, script, without, dir string) error {
	runs, err := number("BENCH_RUNS", 5)
	if err != nil {
		return err
	}
	megabytes, err := number("BENCH_CSV_MB", 1000)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := func(peer, recipe string) []string {
		switch peer {
		case "ours":
			return []string{self, "side", recipe}
		case withoutOpenBLAS:
			return []string{without, "side", recipe}
		}
		return []string{python, script, peer, recipe}
	}
	wanted := strings.FieldsFunc(os.Getenv("BENCH_CASES"), func(c rune) bool { return c == ',' || c == ' ' })
	for _, c := range cases(megabytes) {
		if len(wanted) > 0 && !slices.Contains(wanted, c.Name) {
			continue
		}
		r, path, err := prepare(c, dir)
		if err != nil {
			return err
		}
		c.recipe = r
		if err := c.measure(runs, func(peer string) []string { return command(peer, path) }); err != nil {
			return err
		}
		if err := os.Remove(r.Data); err != nil {
			return err
		}
	}
	return nil
}

// number returns the environment variable's value.
func number(variable string, otherwise int) (int, error) {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s is %q; it must be a whole number above 0", variable, text)
	}
	return n, nil
}
