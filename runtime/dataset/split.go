package dataset

import (
	"cmp"
	"errors"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"
)

// split draws the validation rows and moves them out of the table.
func (t *table) split(o Options) (*Set, error) {
	rows, err := t.countRows()
	if err != nil {
		return nil, err
	}
	wanted := make([]int, len(rows))
	if o.ValidationFraction > 0 {
		if err := t.checkSplit(rows, o.ValidationFraction); err != nil {
			return nil, err
		}
		wanted = allot(rows, o.ValidationFraction)
	}
	random := rand.New(rand.NewPCG(uint64(o.Seed), 0x7472_6169_6e79_6172))
	set, err := t.part(&drawing{left: rows, wanted: wanted, random: random})
	if err != nil {
		return nil, errors.Join(err, set.Close())
	}
	return set, nil
}

// countRows counts the rows of each class; for numbers, all rows are one group.
func (t *table) countRows() ([]int, error) {
	labels, err := t.labels.all()
	counts := make([]int, max(1, len(t.classes.names)))
	for _, label := range labels {
		counts[t.group(label)]++
	}
	return counts, err
}

func (t *table) checkSplit(rows []int, fraction float64) error {
	for g, n := range rows {
		switch {
		case n > 1 || t.columns.classNames != nil && n == 0:
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
func allot(rows []int, fraction float64) []int {
	total, counts, order := 0, make([]int, len(rows)), make([]int, len(rows))
	remainders := make([]float64, len(rows))
	for g, n := range rows {
		exact := fraction * float64(n)
		counts[g] = min(int(exact), max(0, n-1))
		remainders[g] = exact - float64(counts[g])
		total += n
		order[g] = g
	}
	left := max(1, int(math.Round(fraction*float64(total))))
	for _, n := range counts {
		left -= n
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainders[b], remainders[a]) })
	for _, g := range order {
		if left > 0 && counts[g] < rows[g]-1 {
			counts[g]++
			left--
		}
	}
	return counts
}

// drawing draws exactly the wanted number of rows of each group, in one pass
// over the rows and without a list of them: every set of rows is as likely as
// any other (Knuth, The Art of Computer Programming 3.4.2, algorithm S).
type drawing struct {
	left, wanted []int // of each group
	random       *rand.Rand
}

// next tells whether the next row, which is of that group, is drawn.
func (d *drawing) next(group int) bool {
	if d.wanted[group] == 0 {
		return false
	}
	drawn := d.random.IntN(d.left[group]) < d.wanted[group]
	d.left[group]--
	if drawn {
		d.wanted[group]--
	}
	return drawn
}

// part copies the drawn rows out and closes the gaps in place, so that the
// table is never there twice.
func (t *table) part(d *drawing) (*Set, error) {
	x, y := &numbers{memory: t.values.memory}, &numbers{memory: t.values.memory}
	set := &Set{numbers: []*numbers{&t.values, &t.labels, x, y}}
	all, err := partOf(&t.values, &t.labels, len(t.columns.names))
	if err != nil {
		return set, err
	}
	values, labels := all.X.Data, all.Y
	width, kept := len(t.columns.names), 0
	for row, label := range labels {
		from := values[row*width : (row+1)*width]
		if d.next(t.group(label)) {
			if err := errors.Join(x.append(from...), y.append(label)); err != nil {
				return set, err
			}
			continue
		}
		if kept < row {
			copy(values[kept*width:], from)
			labels[kept] = label
		}
		kept++
	}
	set.Train = Part{X: general(kept, width, values[:kept*width]), Y: labels[:kept], file: t.values.file}
	set.Validation, err = partOf(x, y, width)
	return set, err
}

func (t *table) group(label float32) int {
	if t.target == Classes {
		return int(label)
	}
	return 0
}

func partOf(x, y *numbers, width int) (p Part, err error) {
	if p.Y, err = y.all(); err != nil {
		return p, err
	}
	data, err := x.all()
	p.X, p.file = general(y.len(), width, data), x.file
	return p, err
}

func general(rows, columns int, data []float32) blas32.General {
	return blas32.General{Rows: rows, Cols: columns, Stride: columns, Data: data}
}
