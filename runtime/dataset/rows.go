package dataset

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
)

// rows reads a table a row at a time.
type rows interface {
	// next returns the cells of the next row, which are valid until the next
	// call, and the number of the line on which it starts. io.EOF ends the table.
	next() (cells []string, line int, err error)
}

// csvRows reads RFC 4180: commas, quotes that are doubled within quotes, LF or
// CRLF. Empty lines do not count as rows.
type csvRows struct {
	csv   *csv.Reader
	limit *rowLimit
}

// maxRowBytes is enough for a million columns. It bounds what an endless line,
// or a quote that is never closed, can take.
const maxRowBytes = 32 << 20

var errRowTooLong = errors.New("row too long")

func newCSVRows(r io.Reader) *csvRows {
	limit := &rowLimit{r: r}
	reader := csv.NewReader(bufio.NewReaderSize(limit, readSize))
	reader.ReuseRecord = true
	reader.FieldsPerRecord = -1
	return &csvRows{csv: reader, limit: limit}
}

func (r *csvRows) next() ([]string, int, error) {
	r.limit.used = 0
	cells, err := r.csv.Read()
	if err != nil {
		return nil, 0, r.explain(err)
	}
	line, _ := r.csv.FieldPos(0)
	return cells, line, nil
}

func (r *csvRows) explain(err error) error {
	if errors.Is(err, errRowTooLong) {
		return invalidf("a row is longer than %d MiB; is a line end or a closing quote missing?", maxRowBytes>>20)
	}
	var parse *csv.ParseError
	if !errors.As(err, &parse) {
		return err
	}
	switch {
	case errors.Is(parse.Err, csv.ErrBareQuote):
		return invalidf(`a quote stands within a cell that does not start with one; write the cell as "...", with quotes in it doubled`).at(parse.Line, "")
	case errors.Is(parse.Err, csv.ErrQuote) && parse.Line > parse.StartLine:
		return invalidf(`a quoted cell that starts in this row is not closed, or is followed by more text before the next comma (line %d)`, parse.Line).at(parse.StartLine, "")
	case errors.Is(parse.Err, csv.ErrQuote):
		return invalidf(`a quoted cell is not closed, or is followed by more text before the next comma; double the quotes within a cell`).at(parse.Line, "")
	}
	return parse.Err
}

// rowLimit fails when too much is read for one row.
type rowLimit struct {
	r    io.Reader
	used int
}

func (l *rowLimit) Read(p []byte) (int, error) {
	if l.used > maxRowBytes {
		return 0, errRowTooLong
	}
	n, err := l.r.Read(p)
	l.used += n
	return n, err
}
