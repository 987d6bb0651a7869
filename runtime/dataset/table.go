package dataset

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// table is what was read so far: the features as numbers, row after row, and
// the labels.
type table struct {
	columns  columns
	target   Target
	maxBytes int64

	values  []float32
	labels  []float32 // numbers, or positions in classes.names
	classes classes
}

func (t *table) rowCount() int { return len(t.labels) }

func (t *table) add(cells []string, line int) error {
	c := &t.columns
	if len(cells) != c.width {
		return invalidf("it has %s, but the first row has %d; every row needs the same number (a cell with a comma in it must be quoted)", count(len(cells), "cell"), c.width).at(line, "")
	}
	if t.maxBytes > 0 && 4*int64(len(t.values)+len(t.labels)) > t.maxBytes {
		return invalidf("the table up to here takes %d MiB of memory, which is all there is for it; give the training more memory, or use fewer rows or columns", t.maxBytes>>20).at(line, "")
	}
	for k, i := range c.features {
		v, err := parseNumber(cells[i])
		if err != nil {
			return err.at(line, c.names[k])
		}
		t.values = append(t.values, v)
	}
	return t.addLabel(cells[c.label], line)
}

func (t *table) addLabel(cell string, line int) error {
	var y float32
	var err *InvalidError
	if t.target == Classes {
		y, err = t.classes.index(strings.TrimSpace(cell), line)
	} else if y, err = parseNumber(cell); err != nil {
		err.Problem += ". It is the label, and the loss is for numbers; for classes use the loss CategoricalCrossentropy or BinaryCrossentropy"
	}
	if err != nil {
		return err.at(line, t.columns.labelName)
	}
	t.labels = append(t.labels, y)
	return nil
}

// finishLabels puts the classes in order. It returns nil for Numbers.
func (t *table) finishLabels() ([]string, error) {
	if t.target != Classes {
		return nil, nil
	}
	if len(t.classes.names) == 1 {
		return nil, invalidf("every row has the same label %s; there is nothing to learn", quote(t.classes.names[0])).at(0, t.columns.labelName)
	}
	position := t.classes.sort()
	for i, y := range t.labels {
		t.labels[i] = float32(position[int(y)])
	}
	return t.classes.names, nil
}

// parseNumber reads a finite float32.
func parseNumber(cell string) (float32, *InvalidError) {
	text := strings.TrimSpace(cell)
	v, err := strconv.ParseFloat(text, 32)
	switch {
	case err == nil && !math.IsNaN(v) && !math.IsInf(v, 0):
		return float32(v), nil
	case text == "":
		return 0, invalidf("the value is missing; fill it in, or leave the row or the column out")
	case err == nil:
		return 0, invalidf("%s is not a finite number; fill it in, or leave the row or the column out", quote(text))
	case errors.Is(err, strconv.ErrRange):
		return 0, invalidf("%s is too large: 32-bit numbers end at 3.4e38", quote(text))
	}
	return 0, invalidf("%s is not a number; write it as 12.5 or 1e-3, encode text as numbers, or leave the row or the column out", quote(text))
}
