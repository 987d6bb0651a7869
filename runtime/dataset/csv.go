package dataset

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
)

// csvTable reads RFC 4180: commas, quotes that are doubled within quotes, LF or
// CRLF. Empty lines do not count as rows.
type csvTable struct {
	csv   *csv.Reader
	limit *rowLimit

	hasHeader bool
	first     []string // the header, or the first row
	firstLine int
	pending   bool // first is a row that was not read yet
	positions []int
	cells     []cell
}

// maxRowBytes is enough for a million columns. It bounds what an endless line,
// or a quote that is never closed, can take.
const maxRowBytes = 32 << 20

var errRowTooLong = errors.New("row too long")

func newCSVTable(r io.Reader, hasHeader bool) *csvTable {
	limit := &rowLimit{r: r}
	reader := csv.NewReader(bufio.NewReaderSize(limit, readSize))
	reader.ReuseRecord = true
	reader.FieldsPerRecord = -1
	return &csvTable{csv: reader, limit: limit, hasHeader: hasHeader}
}

// header reads the first row.
func (r *csvTable) header() (*header, error) {
	first, line, err := r.read()
	if errors.Is(err, io.EOF) {
		return nil, invalidf("the file is empty; it needs a row of column names and rows of values")
	}
	if err != nil {
		return nil, err
	}
	r.first, r.firstLine, r.pending = append([]string(nil), first...), line, !r.hasHeader
	return firstRowHeader(r.first, r.hasHeader)
}

func (r *csvTable) choose(positions []int) error {
	r.positions, r.cells = positions, make([]cell, len(positions))
	return nil
}

func (r *csvTable) next() ([]cell, int, error) {
	row, line, err := r.first, r.firstLine, error(nil)
	if !r.pending {
		row, line, err = r.read()
	}
	r.pending = false
	if err != nil {
		return nil, 0, err
	}
	if len(row) != len(r.first) {
		return nil, 0, invalidf("it has %s, but the first row has %d; every row needs the same number (a cell with a comma in it must be quoted)", count(len(row), "cell"), len(r.first)).at(line, "")
	}
	for k, i := range r.positions {
		r.cells[k] = textCell(row[i])
	}
	return r.cells, line, nil
}

func (r *csvTable) read() ([]string, int, error) {
	r.limit.used = 0
	row, err := r.csv.Read()
	if err != nil {
		return nil, 0, r.explain(err)
	}
	line, _ := r.csv.FieldPos(0)
	return row, line, nil
}

func (r *csvTable) explain(err error) error {
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
