package dataset

import (
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
)

// readCSV reads RFC 4180: commas, quotes that are doubled within quotes, LF or
// CRLF. Empty lines do not count as rows. The text is cut into chunks at the
// ends of rows; they are parsed at the same time and put together in order.
func readCSV(r io.Reader, o Options) (*table, error) {
	chunks := newChunks(r, chunkSize)
	first, err := chunks.next()
	if errors.Is(err, io.EOF) {
		err = invalidf("the file is empty; it needs a row of column names and rows of values")
	}
	if err != nil {
		return &table{}, err
	}
	hasHeader := o.Header == nil || *o.Header
	row, rest, err := firstRow(first)
	if err != nil {
		return &table{}, err
	}
	if !hasHeader {
		rest = first
	}
	h, err := firstRowHeader(row, hasHeader)
	if err != nil {
		return &table{}, err
	}
	c, err := chooseColumns(h, o.Dataset)
	if err != nil {
		return &table{}, err
	}
	t := newTable(c, o)
	rows, err := t.addChunks(rest, chunks, len(row))
	if err == nil && rows == 0 {
		err = noRows(h)
	}
	return t, err
}

// firstRow returns the cells of a chunk's first row, and the rest of the chunk.
func firstRow(c chunk) ([]string, chunk, error) {
	if c.tooLong {
		return nil, c, c.rowTooLong()
	}
	reader := newCSVReader(c.text)
	row, err := reader.Read()
	if errors.Is(err, io.EOF) { // only empty lines
		return nil, c, invalidf("the file is empty; it needs a row of column names and rows of values")
	}
	if err != nil {
		return nil, c, explainCSV(err, c.line)
	}
	end := int(reader.InputOffset())
	return row, chunk{text: c.text[end:], line: c.line + strings.Count(c.text[:end], "\n"), buffer: c.buffer}, nil
}

// parsed is what came of a chunk.
type parsed struct {
	part *table
	rows int
	err  error
}

// addChunks parses chunks and adds them in order. It returns the number of rows.
func (t *table) addChunks(first chunk, chunks *chunks, width int) (int, error) {
	// As many chunks are in memory as can wait here, and two more.
	queue := make(chan chan parsed, waitingChunks())
	stop, stopped := make(chan struct{}), make(chan struct{})
	// Parts are made of this one, since t changes meanwhile. Their numbers take
	// the room of parts that were added.
	empty, rooms := t.sameColumns(), make(spares[[]float32], cap(queue)+2)
	part := func() *table {
		part := empty.sameColumns()
		part.values.tail = rooms.take()[:0]
		return part
	}
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		defer close(queue)
		for c, err := first, error(nil); !errors.Is(err, io.EOF); c, err = chunks.next() {
			result := make(chan parsed, 1)
			select {
			case queue <- result:
			case <-stop:
				return
			}
			if err != nil {
				result <- parsed{part: part(), err: err}
				return
			}
			go func() {
				p := part().parse(c, width)
				chunks.reuse(c)
				result <- p
			}()
		}
	}()
	rows := 0
	for result := range queue {
		p := <-result
		rows += p.rows
		if err := t.append(p.part); err != nil {
			return rows, err
		}
		if p.err != nil {
			return rows, p.err
		}
		rooms.put(p.part.values.tail)
	}
	return rows, nil
}

func (t *table) parse(c chunk, width int) parsed {
	p := parsed{part: t}
	if c.tooLong {
		p.err = c.rowTooLong()
		return p
	}
	columns := newCSVColumns(t, width)
	if strings.IndexByte(c.text, '"') < 0 {
		p.err = plainRows(c.text, c.line, func(r *row) error {
			p.rows++
			return columns.addPlain(r)
		})
		return p
	}
	p.err = quotedRows(c.text, c.line, func(row []string, line int) error {
		p.rows++
		return columns.addRow(row, line)
	})
	return p
}

// csvColumns adds rows of text to a table.
type csvColumns struct {
	table *table
	width int
	// positions are those of the cells, which the table takes.
	positions []int
	cells     []cell
	row       []string
	// runs are the columns of numbers, and isNumber tells which they are.
	runs     []run
	isNumber []bool
	oneHot   []int // features that are not numbers
}

// run is features that stand side by side in the text and in a row of the table.
type run struct{ column, feature, width int }

func newCSVColumns(t *table, width int) *csvColumns {
	c := &csvColumns{table: t, width: width, positions: t.columns.positions(), isNumber: make([]bool, width)}
	c.cells = make([]cell, len(c.positions))
	for k, column := range t.columns.features {
		if t.categories[k] != nil {
			c.oneHot = append(c.oneHot, k)
			continue
		}
		c.isNumber[column] = true
		if n := len(c.runs) - 1; n >= 0 && c.runs[n].column+c.runs[n].width == column && c.runs[n].feature+c.runs[n].width == k {
			c.runs[n].width++
			continue
		}
		c.runs = append(c.runs, run{column: column, feature: k, width: 1})
	}
	if t.target == Numbers {
		c.isNumber[t.columns.labels[0]] = true
	}
	return c
}

// addRow adds the cells of a row.
func (c *csvColumns) addRow(row []string, line int) error {
	if len(row) != c.width {
		return invalidf("it has %s, but the first row has %d; every row needs the same number (a cell with a comma in it must be quoted)", count(len(row), "cell"), c.width).at(line, "")
	}
	for k, i := range c.positions {
		c.cells[k] = textCell(row[i])
	}
	return c.table.add(c.cells, line)
}

// addPlain adds a row of text without quotes.
func (c *csvColumns) addPlain(r *row) error {
	if !c.readNumbers(r) {
		c.row = c.row[:0]
		for i := range r.width() {
			c.row = append(c.row, r.cell(i))
		}
		return c.addRow(c.row, r.line)
	}
	t := c.table
	start := len(t.values.tail)
	t.values.tail = slices.Grow(t.values.tail, len(t.columns.names))[:start+len(t.columns.names)]
	features := t.values.tail[start:]
	for _, run := range c.runs {
		copy(features[run.feature:], r.numbers[run.column:run.column+run.width])
	}
	for _, k := range c.oneHot {
		var err *InvalidError
		if features[k], err = t.categories[k].category(textCell(r.cell(t.columns.features[k])).name(), r.line); err != nil {
			return err.at(r.line, t.columns.names[k])
		}
	}
	label := t.columns.labels[0]
	if t.target == Numbers {
		return t.labels.append(r.numbers[label])
	}
	return t.addLabel(textCell(r.cell(label)), r.line)
}

// readNumbers makes sure that all numbers of a row are read. It returns false for a
// row that has anything unusual: another number of cells, a missing value, a number
// that is none, labels in more than one column.
func (c *csvColumns) readNumbers(r *row) bool {
	t := c.table
	if r.width() != c.width || t.columns.classNames != nil {
		return false
	}
	for _, i := range r.odd {
		column := int(i) - r.first
		if !c.isNumber[column] {
			continue
		}
		var ok bool
		if r.numbers[column], ok = parseDecimal(r.cell(column)); !ok {
			return false
		}
	}
	for _, k := range c.oneHot {
		if textCell(r.cell(t.columns.features[k])).missing() {
			return false
		}
	}
	return t.target == Numbers || !textCell(r.cell(t.columns.labels[0])).missing()
}

// quotedRows calls yield with the cells of each row, and the number of the line
// on which it starts; the first line has the number line.
func quotedRows(text string, line int, yield func(row []string, line int) error) error {
	reader := newCSVReader(text)
	for {
		cells, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return explainCSV(err, line)
		}
		at, _ := reader.FieldPos(0)
		if err := yield(cells, line+at-1); err != nil {
			return err
		}
	}
}

func newCSVReader(text string) *csv.Reader {
	reader := csv.NewReader(strings.NewReader(text))
	reader.ReuseRecord = true
	reader.FieldsPerRecord = -1
	return reader
}

// explainCSV says what is wrong in text that starts on a line.
func explainCSV(err error, line int) error {
	var parse *csv.ParseError
	if !errors.As(err, &parse) {
		return err
	}
	at, start := parse.Line+line-1, parse.StartLine+line-1
	switch {
	case errors.Is(parse.Err, csv.ErrBareQuote):
		return invalidf(`a quote stands within a cell that does not start with one; write the cell as "...", with quotes in it doubled`).at(at, "")
	case errors.Is(parse.Err, csv.ErrQuote) && at > start:
		return invalidf(`a quoted cell that starts in this row is not closed, or is followed by more text before the next comma (line %d)`, at).at(start, "")
	case errors.Is(parse.Err, csv.ErrQuote):
		return invalidf(`a quoted cell is not closed, or is followed by more text before the next comma; double the quotes within a cell`).at(at, "")
	}
	return parse.Err
}
