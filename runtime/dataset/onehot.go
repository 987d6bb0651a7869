package dataset

import (
	"errors"
	"math"
	"unicode/utf8"
)

// A one-hot feature with more categories than these is hardly one.
const (
	maxCategories    = 1000
	maxCategoryBytes = 256
)

// category returns the position of a feature's value, which is new or was seen
// before.
func (c *classes) category(name string, line int) (float32, *InvalidError) {
	if i, ok := c.positions[name]; ok {
		return float32(i), nil
	}
	switch {
	case len(c.names) >= maxCategories:
		return 0, invalidf("the feature has more than %d different values, too many for oneHot; leave the column out, or put its values into groups", maxCategories)
	case len(name) > maxCategoryBytes:
		return 0, invalidf("%s has more than %d bytes, too many for a category; leave the column out of oneHot and features", quote(name), maxCategoryBytes)
	case !utf8.ValidString(name):
		return 0, invalidf("%s is not UTF-8; save the file as UTF-8", quote(name))
	}
	return float32(c.add(name, line)), nil
}

// expand puts a column for each category in the place of each one-hot feature.
func (t *table) expand() error {
	var names []string
	var widths []int // of each feature, in columns
	var positions [][]int
	for k, categories := range t.categories {
		if categories == nil {
			names, widths, positions = append(names, t.columns.names[k]), append(widths, 1), append(positions, nil)
			continue
		}
		positions = append(positions, categories.sort())
		widths = append(widths, len(categories.names))
		for _, category := range categories.names {
			names = append(names, t.columns.names[k]+"="+category)
		}
	}
	if len(positions) == 0 || len(names) == len(widths) && !t.hasOneHot() {
		return nil
	}
	if err := t.checkExpanded(names); err != nil {
		return err
	}
	t.columns.names = names
	return t.replaceValues(func(values []float32, expanded *numbers) error {
		var row []float32
		for ; len(values) > 0; values = values[len(widths):] {
			row = row[:0]
			for k, v := range values[:len(widths)] {
				row = appendExpanded(row, v, positions[k], widths[k])
			}
			if err := expanded.append(row...); err != nil {
				return err
			}
		}
		return nil
	})
}

// replaceValues puts new numbers, which are made from the old ones, in their
// place.
func (t *table) replaceValues(from func(values []float32, to *numbers) error) error {
	values, err := t.values.all()
	if err != nil {
		return err
	}
	to := numbers{memory: t.values.memory}
	err = errors.Join(from(values, &to), t.values.close())
	t.values = to
	return err
}

func (t *table) hasOneHot() bool {
	for _, categories := range t.categories {
		if categories != nil {
			return true
		}
	}
	return false
}

// checkExpanded finds names that stand for two columns.
func (t *table) checkExpanded(names []string) error {
	if len(names) == 0 {
		return invalidf("the features in oneHot have no values; the columns are empty")
	}
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if seen[name] {
			return invalidf("two columns would have the name %s, one of them from oneHot; rename one", quote(name))
		}
		seen[name] = true
	}
	return nil
}

// appendExpanded appends a number as it is, and a category (positions are not
// nil) as a 1 among zeros. A missing category is missing in all its columns.
func appendExpanded(values []float32, v float32, positions []int, width int) []float32 {
	if positions == nil {
		return append(values, v)
	}
	start := len(values)
	missing := math.IsNaN(float64(v))
	for range width {
		if missing {
			values = append(values, v)
		} else {
			values = append(values, 0)
		}
	}
	if !missing {
		values[start+positions[int(v)]] = 1
	}
	return values
}
