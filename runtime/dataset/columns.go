package dataset

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"trainyard.dev/trainyard/runtime/spec"
)

// columns says which columns of a table matter.
type columns struct {
	features  []int    // positions in the table
	names     []string // of the features
	oneHot    []bool   // of the features
	labels    []int    // one; with one-hot labels, one for each class
	labelName string   // or names
	// classNames are the classes of one-hot labels; nil: the label is one column.
	classNames []string
}

// positions are those of the features, and last the labels'.
func (c *columns) positions() []int { return slices.Concat(c.features, c.labels) }

// chooseColumns finds label and features by name, or by position where there
// is no such name. Without features, all columns but the label are features.
func chooseColumns(h *header, d spec.Dataset) (columns, error) {
	var c columns
	err := c.findLabels(h, d)
	if err != nil {
		return c, err
	}
	if d.Features == nil {
		c.features = h.allBut(c.labels)
	} else if c.features, err = h.findFeatures(d.Features, c.labels); err != nil {
		return c, err
	}
	if len(c.features) == 0 {
		return c, invalidf("the only column is the label %s; a network needs at least one feature column%s", quote(c.labelName), h.separatorHint())
	}
	if err := c.takeNames(h); err != nil {
		return c, err
	}
	return c, c.markOneHot(h, d.OneHot)
}

// findLabels finds the label, or the labels if they are one-hot.
func (c *columns) findLabels(h *header, d spec.Dataset) error {
	if len(d.Labels) == 0 {
		label, err := h.findLabel(d.Label)
		if err != nil {
			return err
		}
		c.labels, c.labelName = []int{label}, h.names[label]
		return nil
	}
	for _, name := range d.Labels {
		found, err := h.find("labels", name)
		if err != nil {
			return err
		}
		for _, i := range found {
			if slices.Contains(c.labels, i) {
				return invalidf("labels: column %s is listed twice; list each class once", quote(h.names[i]))
			}
			c.labels, c.classNames = append(c.labels, i), append(c.classNames, h.names[i])
		}
	}
	if len(c.labels) < 2 {
		return invalidf("labels: %s is one column, but one-hot labels are a column for each class; to name the one column of a label, use label", quote(c.classNames[0]))
	}
	c.labelName = strings.Join(d.Labels, ", ")
	if len(d.Labels) == 1 { // an array, whose columns have no names of their own
		c.classNames = numbered(len(c.labels))
	}
	return nil
}

func (c *columns) takeNames(h *header) error {
	for _, i := range c.features {
		if h.names[i] == "" {
			return invalidf("column %d (counted from 0) has no name in the header; give it one, or list the features without it", i)
		}
		c.names = append(c.names, h.names[i])
	}
	return nil
}

func (c *columns) markOneHot(h *header, wanted []string) error {
	c.oneHot = make([]bool, len(c.features))
	for _, name := range wanted {
		found, err := h.find("oneHot", name)
		if err != nil {
			return err
		}
		for _, i := range found {
			k := slices.Index(c.features, i)
			if k < 0 {
				return invalidf("oneHot: column %s is not a feature; add it to features, or remove it from oneHot", quote(h.names[i]))
			}
			c.oneHot[k] = true
		}
	}
	return nil
}

// header is the names of a table's columns.
type header struct {
	names  []string
	byName map[string]int
	// groups are the columns of a name that stands for several.
	groups map[string][]int
	// fromFirstRow says that the names are the first row of a CSV file.
	fromFirstRow bool
}

// newHeader refuses names that stand for two columns.
func newHeader(names []string) (*header, error) {
	h := &header{names: names, byName: make(map[string]int, len(names))}
	for i, name := range names {
		if !utf8.ValidString(name) {
			return nil, invalidf("the name of column %d (counted from 0), %s, is not UTF-8; save the file as UTF-8", i, quote(name))
		}
		if other, taken := h.byName[name]; taken && name != "" {
			return nil, invalidf("columns %d and %d (counted from 0) are both named %s in the header; give each its own name", other, i, quote(name))
		}
		h.byName[name] = i
	}
	return h, nil
}

// firstRowHeader takes the names from the first row of a file, or the
// positions if it has no header.
func firstRowHeader(first []string, hasHeader bool) (*header, error) {
	if !hasHeader {
		return newHeader(numbered(len(first)))
	}
	names := make([]string, len(first))
	for i, cell := range first {
		names[i] = strings.Clone(strings.TrimSpace(cell))
	}
	h, err := newHeader(names)
	if invalid := (*InvalidError)(nil); errors.As(err, &invalid) {
		invalid.Problem += headerHint(first)
		return nil, invalid.at(1, "")
	}
	h.fromFirstRow = true
	return h, nil
}

// numbered names columns by their positions.
func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	return names
}

// find returns the positions of the columns that a field of the spec asks for:
// several if the name stands for a group.
func (h *header) find(field, wanted string) ([]int, error) {
	if group, ok := h.groups[wanted]; ok {
		return group, nil
	}
	if i, ok := h.byName[wanted]; ok {
		return []int{i}, nil
	}
	i, err := strconv.Atoi(wanted)
	if err != nil || i < 0 || i >= len(h.names) {
		return nil, h.notFound(field, wanted)
	}
	// A position in a file whose "names" are numbers: the first row would be
	// lost as a header, and nobody would notice.
	if hint := headerHint(h.names); h.fromFirstRow && hint != "" {
		return nil, invalidf("%s: there is no column named %s%s", field, quote(wanted), hint)
	}
	return []int{i}, nil
}

func (h *header) findLabel(wanted string) (int, error) {
	found, err := h.find("label", wanted)
	if err != nil {
		return 0, err
	}
	if len(found) != 1 {
		return 0, invalidf("label: %s has %d columns, but the label is one column, with the name or number of the class; if it is one-hot, with a column for each class, use labels: [%s] instead", quote(wanted), len(found), wanted)
	}
	return found[0], nil
}

func (h *header) notFound(field, wanted string) error {
	suggestion := "."
	if near := nearest(wanted, h.names); near != "" {
		suggestion = "; did you mean " + quote(near) + "?"
	}
	return invalidf("%s: there is no column %s%s The columns are %s%s",
		field, quote(wanted), suggestion, quoteList(h.names), h.separatorHint())
}

func (h *header) findFeatures(wanted []string, labels []int) ([]int, error) {
	features := make([]int, 0, len(wanted))
	seen := make(map[int]string, len(wanted))
	for _, name := range wanted {
		found, err := h.find("features", name)
		if err != nil {
			return nil, err
		}
		for _, i := range found {
			if slices.Contains(labels, i) {
				return nil, invalidf("features: %s is the label, which is what is to be predicted; remove it from the features", quote(name))
			}
			if earlier, taken := seen[i]; taken {
				return nil, invalidf("features: column %s is listed twice (as %s and %s)", quote(h.names[i]), quote(earlier), quote(name))
			}
			seen[i] = name
			features = append(features, i)
		}
	}
	return features, nil
}

func (h *header) allBut(labels []int) []int {
	var others []int
	for i := range h.names {
		if !slices.Contains(labels, i) {
			others = append(others, i)
		}
	}
	return others
}

// separatorHint is for files that use something else than commas.
func (h *header) separatorHint() string {
	if len(h.names) != 1 || !h.fromFirstRow {
		return ""
	}
	for _, separator := range []struct{ text, name string }{{";", "semicolons"}, {"\t", "tabs"}, {"|", "bars"}} {
		if strings.Contains(h.names[0], separator.text) {
			return "; the cells seem to be separated by " + separator.name + ": save the file with commas"
		}
	}
	return ""
}

// headerHint is for files without a header: a first row that holds numbers.
func headerHint(first []string) string {
	i := slices.IndexFunc(first, func(cell string) bool {
		_, err := strconv.ParseFloat(strings.TrimSpace(cell), 64)
		return err == nil
	})
	if i < 0 {
		return ""
	}
	return "; the first row (" + quote(strings.TrimSpace(first[i])) + ") looks like data: if the file has no header, set header: false, else use the columns' names"
}

// nearest is the name that takes the fewest edits from wanted, if that is few
// enough to be a slip. It looks at a bounded number of names.
func nearest(wanted string, names []string) string {
	const mostNames, longest = 1000, 64
	best, bestDistance := "", len(wanted)/3+2
	if len(wanted) > longest {
		return ""
	}
	for _, name := range names[:min(mostNames, len(names))] {
		if len(name) == 0 || len(name) > longest {
			continue
		}
		if d := editDistance(strings.ToLower(wanted), strings.ToLower(name)); d < bestDistance && d < len(name) {
			best, bestDistance = name, d
		}
	}
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
