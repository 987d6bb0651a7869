package dataset

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"trainyard.dev/trainyard/runtime/spec"
)

// values compares sets by what they hold, wherever they hold it.
var values = cmpopts.IgnoreUnexported(Set{}, Part{})

// A table that memory has no room for becomes the same matrices.
func TestTablesInFiles(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var data strings.Builder
	data.WriteString("a,color,b,y\n")
	for i := range 20_000 {
		b := fmt.Sprint(random.NormFloat64())
		if random.IntN(10) == 0 {
			b = ""
		}
		fmt.Fprintf(&data, "%d,%s,%s,c%d\n", i, []string{"red", "green", "blue"}[random.IntN(3)], b, random.IntN(4))
	}
	path := write(t, data.String())
	o := labelled("y")
	o.Target, o.OneHot, o.ValidationFraction = Classes, []string{"color"}, 0.3
	o.Scaling, o.Missing = spec.StandardScaling, &spec.Missing{Policy: spec.FillMean}
	want, err := Read(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	// The rows that were read, and a copy of those for validation.
	if want.MemoryBytes() != 4*6*(20_000+6_000) {
		t.Errorf("%d bytes in memory", want.MemoryBytes())
	}
	for _, limit := range []int64{1, 100_000, 300_000, 400_000} {
		o.MemoryBytes, o.TemporaryDir = limit, t.TempDir()
		got, err := Read(t.Context(), path, o)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, values); diff != "" {
			t.Errorf("%d bytes of memory: %s", limit, diff)
		}
		if got.MemoryBytes() > limit {
			t.Errorf("%d bytes in memory, more than %d", got.MemoryBytes(), limit)
		}
		if left, err := os.ReadDir(o.TemporaryDir); len(left) > 0 || err != nil {
			t.Errorf("%d bytes of memory: files have names: %v, %v", limit, left, err)
		}
		if err := errors.Join(got.Close(), got.Close()); err != nil {
			t.Error(err)
		}
	}
}

// Numbers are what was appended, in whatever pieces, in memory and in files.
func TestNumbers(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		m := &memory{limit: 1 + random.Int64N(4_000_000), dir: t.TempDir()}
		n := numbers{memory: m}
		var want []float32
		for len(want) < 1_000_000 {
			piece := make([]float32, random.IntN(50_000))
			for i := range piece {
				piece[i] = float32(random.NormFloat64())
			}
			want = append(want, piece...)
			if err := n.append(piece...); err != nil {
				t.Fatal(err)
			}
		}
		got, err := n.all()
		if err != nil || !slices.Equal(want, got) || n.len() != len(want) {
			t.Fatalf("%d numbers became %d (%v)", len(want), len(got), err)
		}
		got[0] = float32(math.Pi)
		if again, _ := n.all(); again[0] != float32(math.Pi) {
			t.Error("a change is lost")
		}
		if err := n.close(); err != nil || m.used != 0 {
			t.Errorf("%d bytes are in use after the end (%v)", m.used, err)
		}
	}
}

// A place without room is said, as what it is.
func TestTablesWithoutRoom(t *testing.T) {
	o := labelled("y")
	o.MemoryBytes, o.TemporaryDir = 1, t.TempDir()+"/missing"
	_, err := Read(t.Context(), write(t, "x,y\n1,2\n3,4\n"), o)
	want := "reading the source: the table takes more than the 0 MiB of memory that are for it, and its rows can't be kept in a file: "
	if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("this system has no full device:", err)
	}
	n := numbers{memory: &memory{limit: 1}, file: full}
	if err := n.append(make([]float32, flushAt)...); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
}
