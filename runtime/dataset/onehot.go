package dataset

import (
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
	expanded := make([]float32, 0, len(t.labels)*len(names))
	for i := range t.labels {
		for k, v := range t.values[i*len(widths) : (i+1)*len(widths)] {
			expanded = appendExpanded(expanded, v, positions[k], widths[k])
		}
	}
	t.values, t.columns.names = expanded, names
	return nil
}

func (t *table) hasOneHot() bool {
	for _, categories := range t.categories {
		if categories != nil {
			return true
		}
	}
	return false
}

// checkExpanded finds names that stand for two columns, and tables that don't
// fit in memory any more.
func (t *table) checkExpanded(names []string) error {
	if len(names) == 0 {
		return invalidf("the features in oneHot have no values; the columns are empty")
	}
	if size := 4 * int64(len(t.labels)) * int64(len(names)); t.maxBytes > 0 && size > t.maxBytes {
		return invalidf("with a column for each category (%d columns in all), the table takes %d MiB of memory, but there are only %d MiB for it; give the training more memory, or use oneHot for features with fewer values", len(names), size>>20, t.maxBytes>>20)
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
