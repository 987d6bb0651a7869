package dataset

import (
	"errors"
	"math"
	"slices"
	"strings"

	"trainyard.dev/trainyard/runtime/spec"
)

// table is what was read so far: the features as numbers, row after row, and
// the labels. Of a one-hot feature, the number is the position of its category;
// a NaN stands for a missing value that is filled in later.
type table struct {
	columns columns
	target  Target
	missing *spec.Missing

	values  numbers
	labels  numbers // or positions in classes.names
	classes classes
	row     []float32 // that is being added
	// categories has for each feature the categories, if it is one-hot.
	categories []*classes
}

func newTable(c columns, o Options) *table {
	m := &memory{limit: o.MemoryBytes, dir: o.TemporaryDir}
	t := &table{columns: c, target: o.Target, missing: o.Missing, values: numbers{memory: m}, labels: numbers{memory: m}, categories: make([]*classes, len(c.names))}
	for k, oneHot := range c.oneHot {
		if oneHot {
			t.categories[k] = &classes{}
		}
	}
	for _, name := range c.classNames {
		t.classes.add(name, 1)
	}
	return t
}

func (t *table) rowCount() int { return t.labels.len() }

func (t *table) close() error { return errors.Join(t.values.close(), t.labels.close()) }

// add takes a row: the cells of the features, and last the label's.
func (t *table) add(cells []cell, line int) error {
	if t.missing != nil && t.missing.Policy == spec.DropRow && slices.ContainsFunc(cells, cell.missing) {
		return nil
	}
	features := cells[:len(t.columns.names)]
	t.row = t.row[:0]
	for k := range features {
		v, err := t.feature(k, features[k], line)
		if err != nil {
			return err.at(line, t.columns.names[k])
		}
		t.row = append(t.row, v)
	}
	if err := t.values.append(t.row...); err != nil {
		return err
	}
	label, err := t.label(cells[len(features):])
	if err != nil {
		return err.at(line, t.columns.labelName)
	}
	return t.addLabel(label, line)
}

// sameColumns returns an empty table that can be appended to t.
func (t *table) sameColumns() *table {
	part := *t
	part.values, part.labels, part.row = numbers{}, numbers{}, nil
	// How many classes of numbers are too many is known of the whole only.
	part.classes = classes{text: true}
	part.categories = make([]*classes, len(t.categories))
	for k, c := range t.categories {
		if c != nil {
			part.categories[k] = &classes{}
		}
	}
	return &part
}

// append adds the rows of a part, whose classes and categories may have other
// positions.
func (t *table) append(part *table) error {
	values, labels := part.values.tail, part.labels.tail
	for k, categories := range part.categories {
		if categories == nil {
			continue
		}
		positions, err := renumber(categories, t.categories[k].category)
		if err != nil {
			return err.at(err.Row, t.columns.names[k])
		}
		for i := k; i < len(values); i += len(part.categories) {
			if v := values[i]; !math.IsNaN(float64(v)) {
				values[i] = positions[int(v)]
			}
		}
	}
	if t.target == Classes {
		positions, err := renumber(&part.classes, t.classes.index)
		if err != nil {
			return err.at(err.Row, t.columns.labelName)
		}
		for i, y := range labels {
			labels[i] = positions[int(y)]
		}
	}
	if err := t.values.append(values...); err != nil {
		return err
	}
	return t.labels.append(labels...)
}

// renumber finds the position of each name of a part in the whole.
func renumber(part *classes, index func(name string, line int) (float32, *InvalidError)) ([]float32, *InvalidError) {
	positions := make([]float32, len(part.names))
	for i, name := range part.names {
		var err *InvalidError
		if positions[i], err = index(name, part.firstLine[i]); err != nil {
			return nil, err.at(part.firstLine[i], "")
		}
	}
	return positions, nil
}

func (t *table) feature(k int, c cell, line int) (float32, *InvalidError) {
	if c.isText && t.categories[k] == nil {
		if v, ok := parseDecimal(c.text); ok { // most cells
			return v, nil
		}
	}
	switch {
	case c.missing() && t.missing == nil:
		return 0, missingValue()
	case c.missing():
		return float32(math.NaN()), nil
	case t.categories[k] != nil:
		return t.categories[k].category(c.name(), line)
	}
	return c.value()
}

// label is the cell of the label. Of one-hot labels, it is made of the class whose
// cell is 1, where all others are 0.
func (t *table) label(cells []cell) (cell, *InvalidError) {
	if t.columns.classNames == nil {
		return cells[0], nil
	}
	class := -1
	for i, c := range cells {
		if c.missing() {
			return c, nil
		}
		v, err := c.value()
		switch {
		case err != nil:
			return cell{}, err
		case v == 0:
		case v == 1 && class < 0:
			class = i
		default:
			return cell{}, invalidf("column %s is %s, but one-hot labels are 1 in the column of the row's class and 0 in all others", quote(t.columns.classNames[i]), quote(c.name()))
		}
	}
	if class < 0 {
		return cell{}, invalidf("all of the one-hot labels are 0; one has to be 1, in the column of the row's class")
	}
	return textCell(t.columns.classNames[class]), nil
}

func (t *table) addLabel(c cell, line int) error {
	var y float32
	var err *InvalidError
	switch {
	case c.missing():
		err = invalidf("the label is missing; fill it in, leave the row out, or set missing: {policy: DropRow}")
	case t.target == Classes:
		y, err = t.classes.index(c.name(), line)
	default:
		if y, err = c.value(); err != nil {
			err.Problem = strings.Replace(err.Problem, "list the column in oneHot if its values name categories, ", "", 1) +
				". It is the label, and the loss is for numbers; for classes use the loss CategoricalCrossentropy or BinaryCrossentropy"
		}
	}
	if err != nil {
		return err.at(line, t.columns.labelName)
	}
	return t.labels.append(y)
}

// finishLabels puts the classes in order. It returns nil for Numbers.
func (t *table) finishLabels() ([]string, error) {
	if t.rowCount() == 0 {
		return nil, invalidf("every row misses a value, so missing.policy DropRow leaves none; leave columns out, or use another policy")
	}
	if t.target != Classes {
		return nil, nil
	}
	if t.columns.classNames != nil {
		return t.classes.names, nil // in the order of the columns
	}
	if len(t.classes.names) == 1 {
		return nil, invalidf("every row has the same label %s; there is nothing to learn", quote(t.classes.names[0])).at(0, t.columns.labelName)
	}
	position := t.classes.sort()
	labels, err := t.labels.all()
	for i, y := range labels {
		labels[i] = float32(position[int(y)])
	}
	return t.classes.names, err
}
