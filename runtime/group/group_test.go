package group

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// program is the collective, which the tests build.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "group-")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if out, err := exec.Command("../../hack/gloo", filepath.Join(dir, "gloo")).CombinedOutput(); err != nil {
			log.Printf("%v: %s", err, out)
			return 1
		}
		program = filepath.Join(dir, "gloo", "collective")
		return m.Run()
	}())
}

// limit is far beyond what anything here takes.
const limit = 2 * time.Minute

// workers are who can form a group, each with a collective of its own.
type workers struct {
	t    testing.TB
	ctx  context.Context
	size int
	url  string
	roll *Roll
}

func newWorkers(t testing.TB, size int) *workers {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	roll := NewRoll()
	server := httptest.NewServer(roll)
	t.Cleanup(server.Close)
	return &workers{t, ctx, size, server.URL, roll}
}

func (w *workers) member(rank int) Member {
	return Member{Rank: rank, Size: w.size, Address: "127.0.0.1", Run: "run", Program: program}
}

// join makes a worker part of a group.
func (w *workers) join(m Member) (*Group, error) {
	if m.Rank == 0 {
		return w.roll.Call(w.ctx, m)
	}
	return Join(w.ctx, w.url, m)
}

// form lets all workers form a group.
func (w *workers) form() []*Group {
	w.t.Helper()
	groups, failures := make([]*Group, w.size), make([]error, w.size)
	together(w.size, func(rank int) { groups[rank], failures[rank] = w.join(w.member(rank)) })
	if err := errors.Join(failures...); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		for _, g := range groups {
			g.Close()
		}
	})
	return groups
}

// together does something as each worker at the same time.
func together(size int, do func(rank int)) {
	var all sync.WaitGroup
	for rank := range size {
		all.Go(func() { do(rank) })
	}
	all.Wait()
}

// Sums are right for any lengths, over any number of workers, and every worker
// has the same bits.
func TestAdd(t *testing.T) {
	t.Parallel()
	const full = window / 4
	for _, size := range []int{2, 3, 5} {
		for _, lengths := range [][]int{{1}, {0, 3, 0}, {1, 2, 3}, {1000}, {full}, {full + 1}, {7, full, 9, full - 5, 20}} {
			t.Run(fmt.Sprint(size, lengths), func(t *testing.T) {
				groups := newWorkers(t, size).form()
				parts := make([][][]float32, size)
				together(size, func(rank int) {
					random := rand.New(rand.NewPCG(1, uint64(rank)))
					for _, n := range lengths {
						parts[rank] = append(parts[rank], drawn(random, n))
					}
				})
				want := sumOf(parts)
				together(size, func(rank int) { groups[rank].Add(parts[rank]...) })
				for rank, g := range groups {
					if g.Err() != nil {
						t.Fatal(g.Err())
					}
					for i, part := range parts[rank] {
						if !slices.Equal(part, parts[0][i]) {
							t.Errorf("worker %d has other bits than worker 0 in part %d", rank, i)
						}
						for j, v := range part {
							if d := float64(v) - want[i][j]; d > 1e-5 || d < -1e-5 {
								t.Fatalf("worker %d, part %d: %v at %d, want %v", rank, i, v, j, want[i][j])
							}
						}
					}
				}
			})
		}
	}
}

func drawn(random *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = random.Float32()
	}
	return v
}

func sumOf(parts [][][]float32) [][]float64 {
	sums := make([][]float64, len(parts[0]))
	for i := range sums {
		sums[i] = make([]float64, len(parts[0][i]))
		for _, worker := range parts {
			for j, v := range worker[i] {
				sums[i][j] += float64(v)
			}
		}
	}
	return sums
}

// The same numbers give the same bits, however often.
func TestAddRepeats(t *testing.T) {
	t.Parallel()
	const size, numbers = 3, 10_001
	var first []float32
	for range 3 {
		groups := newWorkers(t, size).form()
		values := make([][]float32, size)
		together(size, func(rank int) {
			values[rank] = drawn(rand.New(rand.NewPCG(2, uint64(rank))), numbers)
			groups[rank].Add(values[rank])
		})
		if first == nil {
			first = values[0]
		}
		if !slices.Equal(values[0], first) {
			t.Fatal("the same numbers have another sum")
		}
	}
}

func TestAddDoublesAndBroadcast(t *testing.T) {
	t.Parallel()
	const size = 3
	groups := newWorkers(t, size).form()
	together(size, func(rank int) {
		doubles := []float64{1e-12 * float64(rank+1), 7}
		groups[rank].AddDoubles(doubles)
		if d := doubles[0] - 6e-12; d > 1e-20 || d < -1e-20 || doubles[1] != 21 {
			t.Errorf("worker %d has %v", rank, doubles)
		}
		values := slices.Repeat([]float32{float32(rank) + 0.5}, window/4+3)
		groups[rank].Broadcast(values)
		if values[0] != 0.5 || values[len(values)-1] != 0.5 {
			t.Errorf("worker %d has %v and %v", rank, values[0], values[len(values)-1])
		}
		for _, given := range []string{"", "what worker 0 says"} {
			mine := given
			if rank > 0 {
				mine = "nothing of use"
			}
			if got := groups[rank].BroadcastBytes([]byte(mine)); string(got) != given {
				t.Errorf("worker %d hears %q, want %q", rank, got, given)
			}
		}
	})
}

// Whoever is killed, all others get an error, and can form the group anew.
func TestLostWorker(t *testing.T) {
	t.Parallel()
	const size = 3
	for victim := range size {
		t.Run(fmt.Sprint(victim), func(t *testing.T) {
			w := newWorkers(t, size)
			groups := w.form()
			running := make(chan int, size)
			var added sync.WaitGroup // the first to leave ends the group
			added.Add(size)
			go func() {
				for range size {
					<-running // all have added something up
				}
				// Its process alone knows whether it is still there.
				_ = groups[victim].process.Process.Kill()
			}()
			together(size, func(rank int) {
				g := groups[rank]
				for sums := 0; g.Err() == nil; sums++ {
					g.Add([]float32{1})
					if sums == 100 {
						running <- rank
					}
				}
				if lost := (*LostError)(nil); !errors.As(g.Err(), &lost) {
					t.Errorf("worker %d: %v", rank, g.Err())
				}
				g.Close()
				g.Add([]float32{1}) // does nothing
				g.Broadcast([]float32{1})
				defer added.Wait()
				defer added.Done()
				again, err := w.join(w.member(rank))
				if err != nil {
					t.Errorf("worker %d does not come back: %v", rank, err)
					return
				}
				w.t.Cleanup(again.Close)
				one := []float32{1}
				again.Add(one)
				if one[0] != size {
					t.Errorf("worker %d has %v, want %d: %v", rank, one[0], size, again.Err())
				}
			})
		})
	}
}

// A worker whose machine is gone says nothing. Another in its place ends the
// group for all.
func TestSilentWorkerIsReplaced(t *testing.T) {
	t.Parallel()
	const size = 3
	w := newWorkers(t, size)
	groups := w.form()
	var added sync.WaitGroup // the first to leave ends the group
	added.Add(size)
	joinAndAdd := func(rank int) {
		defer added.Wait()
		defer added.Done()
		g, err := w.join(w.member(rank))
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(g.Close)
		one := []float32{1}
		g.Add(one)
		if one[0] != size {
			t.Errorf("worker %d has %v, want %d: %v", rank, one[0], size, g.Err())
		}
	}
	together(size, func(rank int) {
		if rank < size-1 {
			groups[rank].Add([]float32{1}) // worker 2 never does
			if groups[rank].Err() == nil {
				t.Errorf("worker %d waits for nobody", rank)
			}
			groups[rank].Close()
		}
		joinAndAdd(rank)
	})
}

// Workers of another run are turned away, and worker 0 says so, too.
func TestOtherRun(t *testing.T) {
	t.Parallel()
	w := newWorkers(t, 2)
	together(2, func(rank int) {
		m := w.member(rank)
		m.Run = fmt.Sprintf("run %d", rank)
		if _, err := w.join(m); err == nil || !strings.Contains(err.Error(), "worker 1 has another recipe or other data") {
			t.Errorf("worker %d: %v", rank, err)
		}
	})
}

// A worker that is asked to stop doesn't wait for those who never come.
func TestStopWhileWaiting(t *testing.T) {
	t.Parallel()
	for rank := range 2 {
		w := newWorkers(t, 2)
		ctx, stop := context.WithCancelCause(w.ctx)
		asked := errors.New("asked to stop")
		m := w.member(rank)
		m.Waiting = func(string) { stop(asked) }
		var err error
		if rank == 0 {
			_, err = w.roll.Call(ctx, m)
		} else {
			_, err = Join(ctx, "http://127.0.0.1:1/", m)
		}
		if !errors.Is(err, asked) {
			t.Errorf("worker %d: %v", rank, err)
		}
	}
}

func TestMissingProgram(t *testing.T) {
	w := newWorkers(t, 2)
	m := w.member(0)
	m.Program = filepath.Join(t.TempDir(), "collective")
	if _, err := w.join(m); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// BenchmarkAdd tells what a sum over two or three workers of this machine takes.
func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{2, 3} {
		for _, bytes := range []int{10_000, 1_000_000, 100_000_000} {
			b.Run(fmt.Sprintf("%d workers, %d bytes", size, bytes), func(b *testing.B) {
				groups := newWorkers(b, size).form()
				values := make([][]float32, size)
				for i := range values {
					values[i] = make([]float32, bytes/4)
				}
				b.SetBytes(int64(bytes))
				b.ResetTimer()
				together(size, func(rank int) {
					for range b.N {
						groups[rank].Add(values[rank])
					}
				})
				if err := groups[0].Err(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
