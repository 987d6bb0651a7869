package dataset

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"unsafe"
)

// chunk is a run of whole rows.
type chunk struct {
	// text is valid until the chunk is given back.
	text string
	line int // number of its first line
	// tooLong says that the text is the beginning of a row that is too long.
	tooLong bool
	buffer  []byte // that holds the text
}

// maxRowBytes is enough for a million columns. It bounds what an endless line,
// or a quote that is never closed, can take.
const maxRowBytes = 32 << 20

// chunkSize is large enough that starting to parse a chunk costs nothing, and
// small enough for a chunk to stay in a core's cache while it is hashed, cut and
// parsed, and for many of them to fit in any memory.
const chunkSize = 1 << 19

// rowTooLong looks for a stray quote, which may be why no row ends.
func (c chunk) rowTooLong() error {
	reader := newCSVReader(c.text)
	for {
		_, err := reader.Read()
		if errors.Is(err, csv.ErrBareQuote) {
			return explainCSV(err, c.line)
		}
		if err != nil {
			return invalidf("a row is longer than %d MiB; is a line end or a closing quote missing?", maxRowBytes>>20)
		}
	}
}

// waitingChunks is how many chunks may wait to be added in order, so that no core
// is idle while one of them takes longer.
func waitingChunks() int { return 4 * runtime.GOMAXPROCS(0) }

// chunks cuts text at the ends of rows.
type chunks struct {
	r      io.Reader
	size   int
	buffer []byte // what was read and is not in a chunk yet
	line   int    // of its first byte
	err    error  // that ended reading
	spare  spares[[]byte]
}

func newChunks(r io.Reader, size int) *chunks {
	return &chunks{r: r, size: size, line: 1, spare: make(spares[[]byte], waitingChunks()+2)}
}

// spares keeps what can be used again. Other than a sync.Pool it does not
// forget, nor keep more than it has room for.
type spares[T any] chan T

// take returns what was put, or else the zero value.
func (s spares[T]) take() (v T) {
	select {
	case v = <-s:
	default:
	}
	return v
}

func (s spares[T]) put(v T) {
	select {
	case s <- v:
	default:
	}
}

// reuse takes the memory of a chunk back. Nothing may hold a part of its text.
func (c *chunks) reuse(old chunk) { c.spare.put(old.buffer) }

// next returns the next chunk, which is not empty. What could be read before an
// error is returned first, as far as it is whole rows.
func (c *chunks) next() (chunk, error) {
	for c.err == nil {
		c.read()
		if end := endOfRows(c.buffer); end > 0 && (c.err == nil || !errors.Is(c.err, io.EOF)) {
			return c.cut(end), nil
		}
		if len(c.buffer) > maxRowBytes {
			c.err = io.EOF
			return chunk{text: string(c.buffer), line: c.line, tooLong: true}, nil
		}
	}
	if errors.Is(c.err, io.EOF) && len(c.buffer) > 0 {
		return c.cut(len(c.buffer)), nil
	}
	return chunk{}, c.err
}

// read fills the buffer up by another size bytes.
func (c *chunks) read() {
	start := len(c.buffer)
	c.buffer = slices.Grow(c.buffer, c.size)[:start+c.size]
	var n int
	for n < c.size && c.err == nil {
		var more int
		more, c.err = c.r.Read(c.buffer[start+n:])
		n += more
	}
	c.buffer = c.buffer[:start+n]
}

// cut gives the buffer away, and begins another one with what follows.
func (c *chunks) cut(end int) chunk {
	cut := chunk{text: unsafe.String(unsafe.SliceData(c.buffer), end), line: c.line, buffer: c.buffer}
	c.line += strings.Count(cut.text, "\n")
	c.buffer = append(c.spare.take()[:0], c.buffer[end:]...)
	return cut
}

// endOfRows returns where the last whole row ends: behind the last line end
// that is not within quotes. 0 if no row ends.
func endOfRows(text []byte) int {
	if bytes.IndexByte(text, '"') < 0 {
		return bytes.LastIndexByte(text, '\n') + 1
	}
	end, quoted := 0, false
	for i, b := range text {
		switch b {
		case '"':
			quoted = !quoted
		case '\n':
			if !quoted {
				end = i + 1
			}
		}
	}
	return end
}
