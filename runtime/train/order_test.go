package train

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// takeAll takes an epoch's rows in batches of n.
func takeAll(o *order, n int) []int {
	var rows []int
	for more := o.next(n); len(more) > 0; more = o.next(n) {
		rows = append(rows, more...)
	}
	return rows
}

// An epoch's order is a permutation that follows from seed and epoch alone, and
// can be taken up anywhere, in batches of any size.
func TestOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []struct{ rows, columns int }{
		{1, 1}, {100, 3}, {5000, 1 << 16}, // blocks of one row
		{1<<20 + 5, 1}, {3<<20 + 1, 1}, // of the most rows: a window and more
	} {
		o := newOrder(size.rows, size.columns)
		o.start(7, 1)
		first := takeAll(o, 1+random.IntN(size.rows))
		sorted := slices.Sorted(slices.Values(first))
		for i, row := range sorted {
			if i != row {
				t.Fatalf("%v: row %d is missing or there twice", size, i)
			}
		}
		if len(first) != size.rows {
			t.Fatalf("%v: %d rows", size, len(first))
		}
		from := random.IntN(size.rows)
		o.start(7, 1)
		o.skip(from)
		if again := takeAll(o, 1+random.IntN(size.rows)); !slices.Equal(first[from:], again) {
			t.Errorf("%v: from row %d on, the order is another one", size, from)
		}
		for _, other := range []struct {
			seed  int64
			epoch int32
		}{{7, 2}, {8, 1}} {
			if o.start(other.seed, other.epoch); size.rows > 1 && slices.Equal(first, takeAll(o, size.rows)) {
				t.Errorf("%v: seed and epoch %v have the order of another", size, other)
			}
		}
	}
}

// Like rows that lie together are spread over the epoch: each tenth of it has a
// tenth of each tenth of the table, more or less.
func TestOrderMixesLargeTables(t *testing.T) {
	const rows, columns, parts = 2_000_000, 100, 10 // 12 windows
	o := newOrder(rows, columns)
	o.start(1, 1)
	order := takeAll(o, 512)
	for i := range parts {
		var counts [parts]int
		for _, row := range order[i*rows/parts : (i+1)*rows/parts] {
			counts[row*parts/rows]++
		}
		for j, n := range counts {
			if share := float64(n) / (rows / parts); share < 0.04 || share > 0.16 {
				t.Errorf("tenth %d of the epoch has %.0f%% of its rows from tenth %d of the table", i, 100*share, j)
			}
		}
	}
}

// Only the rows of one window are taken at a time: memory has to hold no more.
func TestOrderStaysInAWindow(t *testing.T) {
	const rows, columns = 655 * 1500, 100
	o := newOrder(rows, columns)
	o.start(1, 1)
	window := windowBlocks * o.blockRows
	for range rows / window {
		blocks := map[int]bool{}
		for _, row := range o.next(window) {
			blocks[row/o.blockRows] = true
		}
		if len(blocks) > windowBlocks+1 {
			t.Fatalf("a window has rows of %d blocks, want %d", len(blocks), windowBlocks)
		}
	}
}

// A table of one window is shuffled as a whole.
func TestOrderOfSmallTables(t *testing.T) {
	o := newOrder(6, 2)
	o.start(3, 4)
	want := []int{0, 1, 2, 3, 4, 5}
	shuffle(rand.New(stream(3, "order", 4)), want)
	if diff := cmp.Diff(want, takeAll(o, 4)); diff != "" {
		t.Error(diff)
	}
}
