package dataset

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// columns says which cells of a row matter.
type columns struct {
	width     int // cells in every row
	features  []int
	names     []string // of the features
	label     int
	labelName string
}

// chooseColumns finds label and features by name, or by position where there
// is no such name. Without features, all columns but the label are features.
func chooseColumns(first []string, hasHeader bool, label string, features []string) (columns, error) {
	h, err := readHeader(first, hasHeader)
	if err != nil {
		return columns{}, err
	}
	c := columns{width: len(h.names)}
	if c.label, err = h.find("label", label); err != nil {
		return c, err
	}
	c.labelName = h.names[c.label]
	if features == nil {
		c.features = h.allBut(c.label)
	} else if c.features, err = h.findFeatures(features, c.label); err != nil {
		return c, err
	}
	if len(c.features) == 0 {
		return c, invalidf("the only column is the label %s; a network needs at least one feature column%s", quote(c.labelName), h.separatorHint())
	}
	return c, c.takeNames(h)
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

// header is the names of a file's columns.
type header struct {
	names  []string
	byName map[string]int
	inFile bool
}

func readHeader(first []string, inFile bool) (*header, error) {
	h := &header{byName: make(map[string]int, len(first)), inFile: inFile}
	for i, cell := range first {
		name := strconv.Itoa(i)
		if inFile {
			name = strings.Clone(strings.TrimSpace(cell))
		}
		if !utf8.ValidString(name) {
			return nil, invalidf("the name of column %d (counted from 0), %s, is not UTF-8; save the file as UTF-8", i, quote(name)).at(1, "")
		}
		if other, taken := h.byName[name]; taken && name != "" {
			return nil, invalidf("columns %d and %d (counted from 0) are both named %s in the header; give each its own name%s", other, i, quote(name), headerHint(first)).at(1, "")
		}
		h.byName[name] = i
		h.names = append(h.names, name)
	}
	return h, nil
}

// find returns the position of the column that a field of the spec asks for.
func (h *header) find(field, wanted string) (int, error) {
	if i, ok := h.byName[wanted]; ok {
		return i, nil
	}
	i, err := strconv.Atoi(wanted)
	if err != nil || i < 0 || i >= len(h.names) {
		return 0, h.notFound(field, wanted)
	}
	// A position in a file whose "names" are numbers: the first row would be
	// lost as a header, and nobody would notice.
	if hint := headerHint(h.names); h.inFile && hint != "" {
		return 0, invalidf("%s: there is no column named %s%s", field, quote(wanted), hint)
	}
	return i, nil
}

func (h *header) notFound(field, wanted string) error {
	suggestion := "."
	if near := nearest(wanted, h.names); near != "" {
		suggestion = "; did you mean " + quote(near) + "?"
	}
	return invalidf("%s: there is no column %s%s The columns are %s%s",
		field, quote(wanted), suggestion, quoteList(h.names), h.separatorHint())
}

func (h *header) findFeatures(wanted []string, label int) ([]int, error) {
	features := make([]int, 0, len(wanted))
	seen := make(map[int]string, len(wanted))
	for _, name := range wanted {
		i, err := h.find("features", name)
		if err != nil {
			return nil, err
		}
		if i == label {
			return nil, invalidf("features: %s is the label, which is what is to be predicted; remove it from the features", quote(name))
		}
		if earlier, taken := seen[i]; taken {
			return nil, invalidf("features: column %s is listed twice (as %s and %s)", quote(h.names[i]), quote(earlier), quote(name))
		}
		seen[i] = name
		features = append(features, i)
	}
	return features, nil
}

func (h *header) allBut(label int) []int {
	var others []int
	for i := range h.names {
		if i != label {
			others = append(others, i)
		}
	}
	return others
}

// separatorHint is for files that use something else than commas.
func (h *header) separatorHint() string {
	if len(h.names) != 1 {
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
