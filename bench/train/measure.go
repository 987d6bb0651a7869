package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// side is a process that takes part in a case. It waits, idle, for its turns.
type side struct {
	name    string
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	quality float64
	rates   []float64
	slow    bool
	err     error
}

// slowRun is when one run has to be enough.
const slowRun = 8 * time.Second

// measure lets all sides learn, one after the other, then has them do the same
// work in turns, and prints a line for each pair.
func (c bench) measure(runs int, command func(peer string) []string) error {
	logs := filepath.Dir(c.Data)
	ours := start("ours", command("ours"), logs)
	sides := []*side{ours}
	for _, p := range c.peers {
		sides = append(sides, start(p.name, command(p.name), logs))
	}
	defer func() {
		for _, s := range sides {
			s.stop()
		}
	}()
	if c.Seeds > 1 { // the quality alone matters
		runs = 0
	}
	for range runs {
		for _, s := range sides {
			s.run()
		}
	}
	if ours.err != nil {
		return fmt.Errorf("%s: this project's side failed: %w", c.Name, ours.err)
	}
	for i, p := range c.peers {
		c.print(ours, sides[i+1], p.target)
	}
	return nil
}

// start starts a side and waits until it has learnt. What the side says on
// standard error is in a file in the directory logs.
func start(name string, command []string, logs string) *side {
	s := &side{name: name, command: exec.Command(command[0], command[1:]...)}
	s.err = s.launch(filepath.Join(logs, name+".log"))
	s.quality = s.answer().Quality
	if s.err != nil {
		s.err = fmt.Errorf("%w; see %s", s.err, filepath.Join(logs, name+".log"))
	}
	return s
}

func (s *side) launch(logFile string) error {
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	s.command.Stderr = log
	out, err := s.command.StdoutPipe()
	if err != nil {
		return err
	}
	s.out = bufio.NewReader(out)
	if s.in, err = s.command.StdinPipe(); err != nil {
		return err
	}
	return s.command.Start()
}

// answer reads a line. Text that is no answer, as libraries print it, is passed
// over.
func (s *side) answer() answer {
	for s.err == nil {
		var line []byte
		var a answer
		line, s.err = s.out.ReadBytes('\n')
		if strings.HasPrefix(string(line), "{") {
			s.err = json.Unmarshal(line, &a)
			return a
		}
	}
	return answer{}
}

func (s *side) run() {
	if s.err != nil || s.slow {
		return
	}
	begin := time.Now()
	if _, s.err = io.WriteString(s.in, "run\n"); s.err != nil {
		return
	}
	if rate := s.answer().Rate; s.err == nil {
		s.rates = append(s.rates, rate)
	}
	s.slow = time.Since(begin) > slowRun
}

// stop lets the side's process end.
func (s *side) stop() {
	if s.in != nil {
		_ = s.in.Close()
	}
	if s.command.Process != nil {
		_ = s.command.Wait() // what it has to say is in its log
	}
}

func (c bench) print(ours, other *side, target float64) {
	if other.err != nil {
		fmt.Printf("BENCH train/%s peer=%s: not measured, it did not run (%v)\n", c.Name, other.name, other.err)
		return
	}
	line := fmt.Sprintf("BENCH train/%s ", c.Name)
	if len(ours.rates) > 0 {
		us, them := median(ours.rates), median(other.rates)
		line += fmt.Sprintf("ours=%.0f peer=%s:%.0f ratio=%.2f", us, other.name, them, us/them)
	} else {
		line += fmt.Sprintf("peer=%s", other.name)
	}
	if target > 0 {
		line += fmt.Sprintf(" target=%v", target)
	}
	fmt.Println(line + c.describeQuality(ours, other))
}

// describeQuality shows that both learnt (or read) the same.
func (c bench) describeQuality(ours, other *side) string {
	switch {
	case other.name == sgemm:
		return fmt.Sprintf(" GFLOP/s=%.0f:%.0f", c.flops(ours), c.flops(other))
	case c.outputs() == 1 && c.Batch == 0 && c.Epochs == 0:
		return fmt.Sprintf(" mean=%.6f:%.6f", ours.quality, other.quality)
	case c.outputs() == 1:
		return fmt.Sprintf(" loss=%.5f:%.5f", ours.quality, other.quality)
	}
	return fmt.Sprintf(" accuracy=%.2f%%:%.2f%%", 100*ours.quality, 100*other.quality)
}

// sgemm is the side that does only the matrix products of a step.
const sgemm = "sgemm-of-openblas"

// flops is the speed of the matrix products, in GFLOP/s, if they were all that
// took time.
func (c bench) flops(s *side) float64 {
	return median(s.rates) / float64(c.batch()) * 2 * c.multiplications() / 1e9
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
