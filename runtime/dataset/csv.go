package dataset

import (
	"encoding/csv"
	"errors"
	"io"
	"runtime"
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
	c, err := chooseColumns(h, o.Label, o.Features, o.OneHot)
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
	return row, chunk{text: c.text[end:], line: c.line + strings.Count(c.text[:end], "\n")}, nil
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
	queue := make(chan chan parsed, runtime.GOMAXPROCS(0))
	stop, stopped := make(chan struct{}), make(chan struct{})
	// Parts are made of this one, since t changes meanwhile.
	empty := t.sameColumns()
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
				result <- parsed{part: empty.sameColumns(), err: err}
				return
			}
			go func() { result <- empty.sameColumns().parse(c, width) }()
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
	p.err = records(c.text, c.line, func(record string, line int) error {
		p.rows++
		return columns.addRecord(record, line)
	}, func(row []string, line int) error {
		p.rows++
		return columns.addRow(row, line)
	})
	return p
}

// csvColumns adds rows of text to a table.
type csvColumns struct {
	table *table
	width int
	cells []cell
	row   []string
	// slots has for each column its position among the features, if it is one.
	slots []int
	// plain says that all features are numbers.
	plain bool
}

const notAFeature = -1

func newCSVColumns(t *table, width int) *csvColumns {
	c := &csvColumns{table: t, width: width, cells: make([]cell, len(t.columns.features)+1), slots: make([]int, width), plain: !t.hasOneHot()}
	for i := range c.slots {
		c.slots[i] = notAFeature
	}
	for k, i := range t.columns.features {
		c.slots[i] = k
	}
	return c
}

// addRow adds the cells of a row.
func (c *csvColumns) addRow(row []string, line int) error {
	if len(row) != c.width {
		return invalidf("it has %s, but the first row has %d; every row needs the same number (a cell with a comma in it must be quoted)", count(len(row), "cell"), c.width).at(line, "")
	}
	for k, i := range c.table.columns.features {
		c.cells[k] = textCell(row[i])
	}
	c.cells[len(c.cells)-1] = textCell(row[c.table.columns.label])
	return c.table.add(c.cells, line)
}

// addRecord adds a row without quotes.
func (c *csvColumns) addRecord(record string, line int) error {
	if c.plain {
		if label, ok := c.readPlain(record); ok {
			return c.table.addLabel(label, line)
		}
	}
	c.row = splitCells(c.row[:0], record)
	return c.addRow(c.row, line)
}

// readPlain appends the features of a row that has nothing unusual: the right
// number of cells, short decimals as features, and a label. It looks at each
// byte once, which is what makes it fast. If it is not ok, nothing has changed.
func (c *csvColumns) readPlain(record string) (label cell, ok bool) {
	t := c.table
	start := len(t.values.tail)
	t.values.tail = slices.Grow(t.values.tail, len(t.columns.names))[:start+len(t.columns.names)]
	values := t.values.tail[start:]
	for i, slot := range c.slots {
		var length int
		if slot >= 0 {
			if values[slot], length, ok = shortDecimal(record); !ok {
				t.values.tail = t.values.tail[:start]
				return label, false
			}
		} else if length = strings.IndexByte(record, ','); length < 0 {
			length = len(record)
		}
		if i == t.columns.label {
			label = textCell(record[:length])
		}
		if last := i == len(c.slots)-1; last != (length == len(record)) {
			t.values.tail = t.values.tail[:start]
			return label, false
		}
		record = record[min(len(record), length+1):]
	}
	if label.missing() {
		t.values.tail = t.values.tail[:start]
		return label, false
	}
	return label, true
}

// records calls record with each row of text that has no quotes, or row with
// the cells of each row of other text, and the number of the line on which the
// row starts; the first line has the number line.
func records(text string, line int, record func(record string, line int) error, row func(row []string, line int) error) error {
	if strings.IndexByte(text, '"') < 0 {
		return unquotedRecords(text, line, record)
	}
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
		if err := row(cells, line+at-1); err != nil {
			return err
		}
	}
}

// unquotedRecords is encoding/csv for text without quotes, and much faster.
func unquotedRecords(text string, line int, yield func(record string, line int) error) error {
	for ; text != ""; line++ {
		record, rest, _ := strings.Cut(text, "\n")
		text = rest
		if record = strings.TrimSuffix(record, "\r"); record == "" {
			continue
		}
		if err := yield(record, line); err != nil {
			return err
		}
	}
	return nil
}

// splitCells appends the cells of a row. Most are short, so looking at each
// byte is faster than to search for the next comma.
func splitCells(row []string, record string) []string {
	start := 0
	for i := 0; i < len(record); i++ {
		if record[i] == ',' {
			row = append(row, record[start:i])
			start = i + 1
		}
	}
	return append(row, record[start:])
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
