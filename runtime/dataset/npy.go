package dataset

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/x448/float16"
)

// npyArray is an array in NumPy's format
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), with
// one row for each element of its first dimension.
type npyArray struct {
	rows, columns int
	// columnMajor says that the array's columns are stored one after the other.
	columnMajor bool
	width       int // bytes of an element
	decode      func([]byte) cell
	headerSize  int64
}

// maxColumns bounds what a shape that is merely claimed can take.
const maxColumns = 1 << 20

// maxNPYHeader is far more than NumPy writes: the header says type and shape.
const maxNPYHeader = 64 << 10

// readNPYHeader reads what comes before the elements. size is that of the whole
// array with its header.
func readNPYHeader(r io.Reader, size int64) (*npyArray, error) {
	start := make([]byte, len(npyMagic)+2)
	if _, err := io.ReadFull(r, start); err != nil {
		return nil, npyEnd(err)
	}
	if string(start[:len(npyMagic)]) != npyMagic {
		return nil, invalidf("the array is not in NPY format; save it with numpy.save or numpy.savez")
	}
	major := start[len(npyMagic)]
	lengthSize := map[byte]int{1: 2, 2: 4, 3: 4}[major]
	if lengthSize == 0 {
		return nil, invalidf("the array is in version %d of the NPY format; versions 1 to 3 can be read", major)
	}
	length := make([]byte, 4)
	if _, err := io.ReadFull(r, length[:lengthSize]); err != nil {
		return nil, npyEnd(err)
	}
	n := binary.LittleEndian.Uint32(length)
	if n > maxNPYHeader {
		return nil, invalidf("the array's header claims to have %d bytes, more than the %d that any needs; the file is damaged", n, maxNPYHeader)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, npyEnd(err)
	}
	a, err := parseNPYHeader(string(text))
	if err != nil {
		return nil, err
	}
	a.headerSize = int64(len(start)+lengthSize) + int64(n)
	return a, a.check(size - a.headerSize)
}

func npyEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalidf("the array ends in the middle; store the whole file again")
	}
	return err
}

// The header is a literal of a Python dictionary with these three keys.
var (
	npyType  = regexp.MustCompile(`'descr'\s*:\s*['"]([^'"]*)['"]`)
	npyOrder = regexp.MustCompile(`'fortran_order'\s*:\s*(True|False)`)
	npyShape = regexp.MustCompile(`'shape'\s*:\s*\(([0-9,\sL]*)\)`)
)

func parseNPYHeader(text string) (*npyArray, error) {
	order, shape := npyOrder.FindStringSubmatch(text), npyShape.FindStringSubmatch(text)
	if order == nil || shape == nil || !strings.Contains(text, "'descr'") {
		return nil, invalidf("the array's header %s is not one of NPY; the file is damaged", quote(text))
	}
	kind := npyType.FindStringSubmatch(text)
	if kind == nil {
		return nil, invalidf("the array has named fields; save its numbers as an array of one type, for example numpy.save(file, numpy.lib.recfunctions.structured_to_unstructured(a))")
	}
	a := &npyArray{columnMajor: order[1] == "True"}
	if err := a.setType(kind[1]); err != nil {
		return nil, err
	}
	return a, a.setShape(shape[1])
}

// setShape takes the first dimension as rows, and all others as columns.
func (a *npyArray) setShape(text string) error {
	var dimensions []int
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimRight(strings.TrimSpace(part), "L"); part == "" {
			continue
		}
		n, err := strconv.Atoi(part)
		if err != nil {
			return invalidf("the array's shape (%s) can't be: the file is damaged", text)
		}
		dimensions = append(dimensions, n)
	}
	if len(dimensions) == 0 {
		return invalidf("the array is a single value; a table needs rows and columns")
	}
	if len(dimensions) > 2 && a.columnMajor {
		return invalidf("the array has %d dimensions in Fortran order; save it with numpy.ascontiguousarray(a)", len(dimensions))
	}
	a.rows, a.columns = dimensions[0], 1
	for _, n := range dimensions[1:] {
		if n == 0 || n > maxColumns || a.columns*n > maxColumns {
			return invalidf("the array has the shape (%s); rows may have between 1 and %d numbers", text, maxColumns)
		}
		a.columns *= n
	}
	return nil
}

// check compares the shape with the bytes that there are.
func (a *npyArray) check(size int64) error {
	row := int64(a.columns) * int64(a.width)
	switch {
	case row > maxRowBytes:
		return invalidf("a row of the array has %d bytes; at most %d MiB can be read", row, maxRowBytes>>20)
	case size < 0 || int64(a.rows) > size/row:
		return invalidf("the array ends in the middle: it should have %d rows of %d bytes, but there are only %d bytes; store the whole file again", a.rows, row, max(0, size))
	case int64(a.rows)*row != size:
		return invalidf("something follows the array: it should have %d rows of %d bytes, but there are %d bytes; the file is damaged", a.rows, row, size)
	}
	return nil
}

// setType understands NumPy's names of types: byte order, kind, size.
func (a *npyArray) setType(name string) error {
	if len(name) < 3 {
		return unknownNPYType(name)
	}
	if name[0] == '>' {
		return invalidf("the array is big-endian (%s); save it with a.astype(a.dtype.newbyteorder('<'))", quote(name))
	}
	if decode, ok := npyNumbers[name[1:]]; ok {
		a.decode, a.width = decode, int(name[2]-'0')
		return nil
	}
	n, err := strconv.Atoi(name[2:])
	if err != nil || n < 1 || n > maxRowBytes {
		return unknownNPYType(name)
	}
	switch name[1] {
	case 'S':
		a.decode, a.width = npyBytes, n
	case 'U':
		a.decode, a.width = npyText, 4*n
	default:
		return unknownNPYType(name)
	}
	return nil
}

func unknownNPYType(name string) error {
	advice := "save it as numbers, for example a.astype('<f4')"
	if strings.Contains(name, "O") {
		advice = "it holds Python objects, which can't be read: save it as numbers or text, for example a.astype('<f4') or a.astype(str)"
	}
	return invalidf("the array has the type %s; %s", quote(name), advice)
}

// npyNumbers decode one element, by kind and size.
var npyNumbers = map[string]func([]byte) cell{
	"b1": func(b []byte) cell { return cell{number: min(1, float64(b[0]))} },
	"i1": func(b []byte) cell { return cell{number: float64(int8(b[0]))} },
	"u1": func(b []byte) cell { return cell{number: float64(b[0])} },
	"i2": func(b []byte) cell { return cell{number: float64(int16(binary.LittleEndian.Uint16(b)))} },
	"u2": func(b []byte) cell { return cell{number: float64(binary.LittleEndian.Uint16(b))} },
	"i4": func(b []byte) cell { return cell{number: float64(int32(binary.LittleEndian.Uint32(b)))} },
	"u4": func(b []byte) cell { return cell{number: float64(binary.LittleEndian.Uint32(b))} },
	"i8": func(b []byte) cell { return integerCell(int64(binary.LittleEndian.Uint64(b))) },
	"u8": func(b []byte) cell { return unsignedCell(binary.LittleEndian.Uint64(b)) },
	"f2": func(b []byte) cell {
		return cell{number: float64(float16.Frombits(binary.LittleEndian.Uint16(b)).Float32())}
	},
	"f4": func(b []byte) cell { return float32Cell(math.Float32frombits(binary.LittleEndian.Uint32(b))) },
	"f8": func(b []byte) cell { return cell{number: math.Float64frombits(binary.LittleEndian.Uint64(b))} },
}

func float32Cell(v float32) cell { return cell{number: float64(v)} }

// npyBytes are padded with zeros.
func npyBytes(b []byte) cell { return textCell(strings.TrimRight(string(b), "\x00")) }

// npyText is UTF-32, padded with zeros.
func npyText(b []byte) cell {
	var text strings.Builder
	for ; len(b) >= 4; b = b[4:] {
		r := rune(binary.LittleEndian.Uint32(b))
		if r == 0 {
			break
		}
		text.WriteRune(r)
	}
	return textCell(text.String())
}

// npyRows reads chosen columns of an array, a row at a time.
type npyRows struct {
	array    *npyArray
	columns  []int
	elements []*bufio.Reader // of each chosen column, or one of all
	buffer   []byte
	left     int
}

// readRowMajor reads elements that come row after row from r.
func (a *npyArray) readRowMajor(r io.Reader, columns []int) *npyRows {
	return &npyRows{
		array: a, columns: columns, left: a.rows, buffer: make([]byte, a.columns*a.width),
		elements: []*bufio.Reader{bufio.NewReaderSize(r, readSize)},
	}
}

// readColumnMajor reads elements that come column after column; they start at
// an offset of r.
func (a *npyArray) readColumnMajor(r io.ReaderAt, offset int64, columns []int) *npyRows {
	rows := &npyRows{array: a, columns: columns, left: a.rows, buffer: make([]byte, a.width)}
	bufferSize := max(64, min(64<<10, (16<<20)/len(columns)))
	size := int64(a.rows) * int64(a.width)
	for _, j := range columns {
		section := io.NewSectionReader(r, offset+int64(j)*size, size)
		rows.elements = append(rows.elements, bufio.NewReaderSize(section, bufferSize))
	}
	return rows
}

// next appends the chosen cells of the next row.
func (r *npyRows) next(cells []cell) ([]cell, error) {
	if r.left == 0 {
		return cells, r.end()
	}
	r.left--
	if r.array.columnMajor {
		for _, elements := range r.elements {
			if _, err := io.ReadFull(elements, r.buffer); err != nil {
				return cells, npyEnd(err)
			}
			cells = append(cells, r.array.decode(r.buffer))
		}
		return cells, nil
	}
	if _, err := io.ReadFull(r.elements[0], r.buffer); err != nil {
		return cells, npyEnd(err)
	}
	for _, j := range r.columns {
		cells = append(cells, r.array.decode(r.buffer[j*r.array.width:][:r.array.width]))
	}
	return cells, nil
}

// end reads up to the very end, where a ZIP file has its checksum.
func (r *npyRows) end() error {
	if r.array.columnMajor {
		return io.EOF
	}
	n, err := r.elements[0].Read(make([]byte, 1))
	if n > 0 {
		return invalidf("something follows the array; the file is damaged")
	}
	return err
}

// npyTable is a file with one array.
type npyTable struct {
	file  io.ReaderAt
	size  int64
	array *npyArray
	rows  *npyRows
	cells []cell
	row   int
}

func newNPYTable(file io.ReaderAt, size int64) (*npyTable, error) {
	array, err := readNPYHeader(io.NewSectionReader(file, 0, size), size)
	if err != nil {
		return nil, err
	}
	return &npyTable{file: file, size: size, array: array}, nil
}

func (t *npyTable) header() (*header, error) { return newHeader(numbered(t.array.columns)) }

func (t *npyTable) choose(positions []int) error {
	start := t.array.headerSize
	if t.array.columnMajor {
		t.rows = t.array.readColumnMajor(t.file, start, positions)
	} else {
		t.rows = t.array.readRowMajor(io.NewSectionReader(t.file, start, t.size-start), positions)
	}
	return nil
}

func (t *npyTable) next() ([]cell, int, error) {
	var err error
	t.row++
	t.cells, err = t.rows.next(t.cells[:0])
	return t.cells, t.row, err
}

// columnName is the name of column j of an array of that name and width.
func columnName(array string, j, columns int) string {
	if columns == 1 {
		return array
	}
	return fmt.Sprintf("%s[%d]", array, j)
}
