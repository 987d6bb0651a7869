package train

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rowsIn returns the rows of an epoch in its order.
func rowsIn(o *order, seed int64, epoch int32) []int {
	o.start(seed, epoch)
	var rows []int
	for w := new(window); o.draw(w); {
		for _, p := range w.picks {
			rows = append(rows, w.rows[p])
		}
	}
	return rows
}

// An epoch's order is a permutation that follows from seed and epoch alone.
func TestOrder(t *testing.T) {
	for _, size := range []struct{ rows, columns int }{
		{1, 1}, {100, 3}, {5000, 1 << 16}, // blocks of one row
		{1 << 18, 1}, {1<<18 + 5, 1}, {1<<20 + 1, 1}, // a window and more
	} {
		o := newOrder(size.rows, size.columns)
		first := rowsIn(o, 7, 1)
		if len(first) != size.rows {
			t.Fatalf("%v: %d rows", size, len(first))
		}
		for i, row := range slices.Sorted(slices.Values(first)) {
			if i != row {
				t.Fatalf("%v: row %d is missing or there twice", size, i)
			}
		}
		if !slices.Equal(first, rowsIn(o, 7, 1)) {
			t.Errorf("%v: the same epoch has another order the second time", size)
		}
		if size.rows > 1 && (slices.Equal(first, rowsIn(o, 7, 2)) || slices.Equal(first, rowsIn(o, 8, 1))) {
			t.Errorf("%v: another seed or epoch has the same order", size)
		}
	}
}

// Like rows that lie together are spread over the epoch: each tenth of it has a
// tenth of each tenth of the table, more or less.
func TestOrderMixesLargeTables(t *testing.T) {
	const rows, columns, parts = 2_000_000, 100, 10 // 48 windows
	order := rowsIn(newOrder(rows, columns), 1, 1)
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

// A table of one window is shuffled as a whole.
func TestOrderOfSmallTables(t *testing.T) {
	o := newOrder(6, 2)
	want := []int{0, 1, 2, 3, 4, 5}
	shuffle(rand.New(stream(3, "order", 4)), want)
	if diff := cmp.Diff(want, rowsIn(o, 3, 4)); diff != "" {
		t.Error(diff)
	}
}
