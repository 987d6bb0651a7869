package dataset

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// classes are the different labels, in the order in which they appear.
type classes struct {
	names     []string
	firstLine []int // where each class appears first
	positions map[string]int
	text      bool // not all names are numbers
}

// Past these many, the label column is hardly one of classes. They also bound
// what a wrong column can take.
const (
	maxNumericClasses = 1000
	maxClasses        = 10000
	maxClassBytes     = 1024
)

// index returns the position of a label, which is new or was seen before.
func (c *classes) index(label string, line int) (float32, *InvalidError) {
	if i, ok := c.positions[label]; ok {
		return float32(i), nil
	}
	if err := checkLabel(label); err != nil {
		return 0, err
	}
	if _, isNumber := labelNumber(label); !isNumber {
		c.text = true
	}
	i := len(c.names)
	if i >= maxNumericClasses && !c.text {
		return 0, invalidf("the label has more than %d different numbers, too many for classes; to predict a number, use a loss for numbers (MeanSquaredError, MeanAbsoluteError, Huber)", maxNumericClasses)
	}
	if i >= maxClasses {
		return 0, invalidf("the label has more than %d different values, too many for classes; is it the right column?", maxClasses)
	}
	return float32(c.add(label, line)), nil
}

// add appends a name that is new and returns its position.
func (c *classes) add(name string, line int) int {
	if c.positions == nil {
		c.positions = make(map[string]int)
	}
	if _, isNumber := labelNumber(name); !isNumber {
		c.text = true
	}
	// A copy, so that the text of the whole row is not kept with it.
	name = strings.Clone(name)
	i := len(c.names)
	c.positions[name] = i
	c.names = append(c.names, name)
	c.firstLine = append(c.firstLine, line)
	return i
}

func checkLabel(label string) *InvalidError {
	switch {
	case len(label) > maxClassBytes:
		return invalidf("the label %s has more than %d bytes; is it the right column?", quote(label), maxClassBytes)
	case !utf8.ValidString(label):
		return invalidf("the label %s is not UTF-8; save the file as UTF-8", quote(label))
	}
	return nil
}

// labelNumber returns the label as a number, if it is one.
func labelNumber(label string) (float64, bool) {
	v, err := strconv.ParseFloat(label, 64)
	return v, err == nil && !math.IsInf(v, 0) && !math.IsNaN(v)
}

// sort orders the names, by value if all are numbers, and returns the new
// position of each old one.
func (c *classes) sort() []int {
	old := make([]int, len(c.names))
	for i := range old {
		old[i] = i
	}
	slices.SortFunc(old, func(a, b int) int { return c.compare(c.names[a], c.names[b]) })

	names, lines, position := make([]string, len(old)), make([]int, len(old)), make([]int, len(old))
	for i, o := range old {
		names[i], lines[i], position[o] = c.names[o], c.firstLine[o], i
	}
	c.names, c.firstLine = names, lines
	return position
}

func (c *classes) compare(a, b string) int {
	if c.text {
		return cmp.Compare(a, b)
	}
	x, _ := labelNumber(a)
	y, _ := labelNumber(b)
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
}
