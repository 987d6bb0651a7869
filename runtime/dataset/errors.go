package dataset

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// InvalidError says that the data, or what was asked of it, is wrong: reading
// it again will fail again.
type InvalidError struct {
	// Source is what users call the data.
	Source string
	// Row is the number of the line in the (uncompressed) file, from 1; 0 if the
	// problem is not in one row. Column is a name in the header, or "".
	Row    int
	Column string
	// Problem says what is wrong and what to do about it.
	Problem string
}

// Error names source, row and column, as far as there are any, and the problem.
func (e *InvalidError) Error() string {
	var place []string
	if e.Row > 0 {
		place = append(place, fmt.Sprintf("row %d", e.Row))
	}
	if e.Column != "" {
		place = append(place, fmt.Sprintf("column %s", quote(e.Column)))
	}
	parts := []string{e.Problem}
	if len(place) > 0 {
		parts = append([]string{strings.Join(place, ", ")}, parts...)
	}
	if e.Source != "" {
		parts = append([]string{e.Source}, parts...)
	}
	return strings.Join(parts, ": ")
}

func invalidf(format string, args ...any) *InvalidError {
	return &InvalidError{Problem: fmt.Sprintf(format, args...)}
}

func (e *InvalidError) at(row int, column string) *InvalidError {
	e.Row, e.Column = row, column
	return e
}

// quote is for showing what stands in the file: always one short line.
func quote(s string) string {
	const longest = 40
	if utf8.RuneCountInString(s) > longest {
		s = string([]rune(s)[:longest]) + "..."
	}
	return fmt.Sprintf("%q", s)
}

// quoteList shows the first few names and how many more there are.
func quoteList(names []string) string {
	const most = 12
	shown := make([]string, 0, most)
	for _, name := range names[:min(most, len(names))] {
		shown = append(shown, quote(name))
	}
	list := strings.Join(shown, ", ")
	if more := len(names) - len(shown); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

// count is "1 row", "2 rows".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
