package dataset

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"
)

// split draws the validation rows and moves them out of the table.
func (t *table) split(o Options) (train, validation Part, err error) {
	groups := t.groups()
	var counts []int
	if o.ValidationFraction > 0 {
		if err := t.checkSplit(groups, o.ValidationFraction); err != nil {
			return Part{}, Part{}, err
		}
		counts = allot(groups, o.ValidationFraction)
	}
	drawn := draw(groups, counts, t.rowCount(), o.Seed)
	train, validation = t.part(drawn)
	return train, validation, nil
}

// groups are the rows of each class; for numbers, all rows are one group.
func (t *table) groups() [][]int {
	groups := make([][]int, max(1, len(t.classes.names)))
	for row, y := range t.labels {
		g := 0
		if t.target == Classes {
			g = int(y)
		}
		groups[g] = append(groups[g], row)
	}
	return groups
}

func (t *table) checkSplit(groups [][]int, fraction float64) error {
	for g, rows := range groups {
		switch {
		case len(rows) > 1:
		case t.target == Classes:
			return invalidf("class %s has only this row, so it cannot be both trained and validated on; add rows, remove this one, or set validationFraction to 0", quote(t.classes.names[g])).at(t.classes.firstLine[g], t.columns.labelName)
		default:
			return invalidf("the table has only 1 row, so it cannot be split by validationFraction %v; add rows, or set it to 0", fraction)
		}
	}
	return nil
}

// allot says how many rows of each group are for validation: the fraction of
// all rows, shared out by largest remainder, and never all rows of a group.
func allot(groups [][]int, fraction float64) []int {
	total, counts, order := 0, make([]int, len(groups)), make([]int, len(groups))
	remainders := make([]float64, len(groups))
	for g, rows := range groups {
		exact := fraction * float64(len(rows))
		counts[g] = min(int(exact), len(rows)-1)
		remainders[g] = exact - float64(counts[g])
		total += len(rows)
		order[g] = g
	}
	left := max(1, int(math.Round(fraction*float64(total))))
	for _, n := range counts {
		left -= n
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainders[b], remainders[a]) })
	for _, g := range order {
		if left > 0 && counts[g] < len(groups[g])-1 {
			counts[g]++
			left--
		}
	}
	return counts
}

// draw marks counts[g] random rows of each group. It shuffles the groups.
func draw(groups [][]int, counts []int, rows int, seed int64) []bool {
	drawn := make([]bool, rows)
	random := rand.New(rand.NewPCG(uint64(seed), 0x7472_6169_6e79_6172))
	for g, n := range counts {
		rows := groups[g]
		random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		for _, row := range rows[:n] {
			drawn[row] = true
		}
	}
	return drawn
}

// part copies the drawn rows out and closes the gaps in place, so that the
// table is never in memory twice.
func (t *table) part(drawn []bool) (train, validation Part) {
	width := len(t.columns.names)
	kept := 0
	for row, out := range drawn {
		values, label := t.values[row*width:(row+1)*width], t.labels[row]
		if out {
			validation.X.Data = append(validation.X.Data, values...)
			validation.Y = append(validation.Y, label)
			continue
		}
		copy(t.values[kept*width:], values)
		t.labels[kept] = label
		kept++
	}
	train.X = general(kept, width, t.values[:kept*width])
	train.Y = t.labels[:kept]
	validation.X = general(len(validation.Y), width, validation.X.Data)
	return train, validation
}

func general(rows, columns int, data []float32) blas32.General {
	return blas32.General{Rows: rows, Cols: columns, Stride: columns, Data: data}
}
