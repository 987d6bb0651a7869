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
		p.rows, p.err = columns.addText(c.text, c.line)
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
	// runs are the columns, if all features are numbers and the label is one
	// column; else there are none.
	runs []run
}

// run is columns that stand side by side in the text and in a row of the table.
type run struct {
	width int
	slot  int  // of the first one in a row of the table, or aText
	isEnd bool // of the row
}

// aText stands for a column that is not read as a number.
const aText = -1

func newCSVColumns(t *table, width int) *csvColumns {
	c := &csvColumns{table: t, width: width, positions: t.columns.positions(), cells: make([]cell, len(t.columns.features)+len(t.columns.labels))}
	if !t.hasOneHot() && t.columns.classNames == nil {
		c.runs = t.runs(width)
	}
	return c
}

// runs puts columns together as far as they can be. The label, if it is a number,
// goes behind the features.
func (t *table) runs(width int) []run {
	slots := slices.Clone(t.columns.features)
	if t.target == Numbers {
		slots = append(slots, t.columns.labels[0])
	}
	var runs []run
	for i := range width {
		slot, isEnd := slices.Index(slots, i), i == width-1
		if n := len(runs) - 1; n >= 0 && runs[n].follows(slot) {
			runs[n].width++
			runs[n].isEnd = isEnd
			continue
		}
		runs = append(runs, run{width: 1, slot: slot, isEnd: isEnd})
	}
	return runs
}

// follows tells that a column of that slot continues the run.
func (r run) follows(slot int) bool { return r.slot != aText && slot == r.slot+r.width }

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

// addText adds the rows of text without quotes, which starts on a line, and
// returns their number.
func (c *csvColumns) addText(text string, line int) (rows int, err error) {
	for at := 0; at < len(text) && err == nil; line++ {
		var end int
		if end, err = c.addPlain(text, at, line); end > at {
			rows, at = rows+1, end
			continue
		}
		record, rest := cutRecord(text[at:])
		at = len(text) - len(rest)
		if record != "" {
			rows++
			c.row = splitCells(c.row[:0], record)
			err = c.addRow(c.row, line)
		}
	}
	return rows, err
}

// addPlain adds the row that starts there if it has nothing unusual: the right
// number of cells, decimals as features, and a label. It returns where the next
// row starts, or 0 if it has added nothing.
func (c *csvColumns) addPlain(text string, at, line int) (next int, err error) {
	if c.runs == nil || text[at] == '\n' || text[at] == '\r' {
		return 0, nil
	}
	t := c.table
	start, width := len(t.values.tail), len(t.columns.names)
	t.values.tail = slices.Grow(t.values.tail, width+1)
	row := t.values.tail[start : start+width+1]
	var label cell
	column := 0
	for _, r := range c.runs {
		var ok bool
		if r.slot != aText {
			next, ok = readDecimals(text, at, r.isEnd, row[r.slot:r.slot+r.width])
		} else {
			next, ok = endOfCell(text, at, delimiter(r.isEnd))
			next++
		}
		if !ok {
			return 0, nil
		}
		if r.slot == aText && column == t.columns.labels[0] {
			label = textCell(text[at : next-1])
		}
		column += r.width
		at = next
	}
	if t.target == Numbers {
		t.values.tail = t.values.tail[:start+width]
		return at, t.labels.append(row[width])
	}
	if label.missing() {
		return 0, nil
	}
	t.values.tail = t.values.tail[:start+width]
	return at, t.addLabel(label, line)
}

// delimiter is the byte behind a cell.
func delimiter(isEnd bool) byte {
	if isEnd {
		return '\n'
	}
	return ','
}

// endOfCell returns where the cell that starts there ends, if it ends with that
// delimiter: a comma, or a line end, which the end of the text may stand for.
func endOfCell(text string, at int, delimiter byte) (end int, ok bool) {
	length, other := strings.IndexByte(text[at:], delimiter), byte('\n')
	if delimiter == '\n' {
		other = ','
		if length < 0 {
			length = len(text) - at
		}
	}
	if length < 0 || strings.IndexByte(text[at:at+length], other) >= 0 {
		return 0, false
	}
	return at + length, true
}

// cutRecord returns the first line of text, without its end, and the rest.
func cutRecord(text string) (record, rest string) {
	record, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(record, "\r"), rest
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
