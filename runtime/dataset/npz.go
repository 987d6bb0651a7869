package dataset

import (
	"archive/zip"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// npzTable is a ZIP file of arrays with equally many rows, as numpy.savez and
// numpy.savez_compressed write it. An array of one dimension is a column of its
// name; of the columns of others, the first is name[0].
type npzTable struct {
	file    io.ReaderAt
	arrays  []*npzArray
	scratch string
	opened  []io.Closer

	chosen []npzColumn // in the order that was asked for
	cells  []cell
	row    int
}

type npzArray struct {
	*npyArray
	name   string
	member *zip.File
	first  int // position of its first column in the table

	columns []int // that are read
	rows    *npyRows
	cells   []cell
}

// npzColumn says where to find a chosen cell.
type npzColumn struct {
	array *npzArray
	cell  int
}

// maxDeflation is the most that DEFLATE can make of a byte: 1032 bytes.
const maxDeflation = 1032

func newNPZTable(file io.ReaderAt, size int64, scratch string) (*npzTable, error) {
	archive, err := zip.NewReader(file, size)
	if err != nil {
		return nil, explainZIP(err)
	}
	t := &npzTable{file: file, scratch: scratch}
	for _, member := range archive.File {
		if name, ok := strings.CutSuffix(member.Name, ".npy"); ok {
			if err := t.add(name, member); err != nil {
				return nil, inArray(name, err)
			}
		}
	}
	if len(t.arrays) == 0 {
		return nil, invalidf("there is no array in the ZIP file; save one with numpy.savez(file, x=..., y=...)")
	}
	return t, t.checkRows()
}

func (t *npzTable) add(name string, member *zip.File) error {
	if claimed := member.UncompressedSize64; claimed > maxDeflation*member.CompressedSize64+maxNPYHeader {
		return invalidf("it claims to be larger than it can be; the file is damaged")
	}
	r, err := member.Open()
	if err != nil {
		return explainZIP(err)
	}
	defer r.Close()
	array, err := readNPYHeader(r, int64(member.UncompressedSize64))
	if err != nil {
		return explainZIP(err)
	}
	first := 0
	if n := len(t.arrays); n > 0 {
		first = t.arrays[n-1].first + t.arrays[n-1].npyArray.columns
	}
	if first+array.columns > maxColumns {
		return invalidf("with it, the table has more than %d columns, which is too many", maxColumns)
	}
	t.arrays = append(t.arrays, &npzArray{npyArray: array, name: name, member: member, first: first})
	return nil
}

func (t *npzTable) checkRows() error {
	for _, a := range t.arrays[1:] {
		if first := t.arrays[0]; a.npyArray.rows != first.npyArray.rows {
			return invalidf("the arrays %s and %s have %d and %d rows; save arrays with equally many into one file, for example numpy.savez(file, x=x_train, y=y_train)",
				quote(first.name), quote(a.name), first.npyArray.rows, a.npyArray.rows)
		}
	}
	return nil
}

func (t *npzTable) header() (*header, error) {
	var names []string
	groups := map[string][]int{}
	for _, a := range t.arrays {
		var group []int
		for j := range a.npyArray.columns {
			group = append(group, len(names))
			names = append(names, columnName(a.name, j, a.npyArray.columns))
		}
		groups[a.name] = group
	}
	h, err := newHeader(names)
	if err != nil {
		return nil, err
	}
	h.groups = groups
	return h, nil
}

func (t *npzTable) choose(positions []int) error {
	for _, position := range positions {
		a := t.arrayOf(position)
		t.chosen = append(t.chosen, npzColumn{a, len(a.columns)})
		a.columns = append(a.columns, position-a.first)
	}
	for _, a := range t.arrays {
		if a.columns == nil {
			continue
		}
		if err := t.open(a); err != nil {
			return inArray(a.name, err)
		}
	}
	return nil
}

func (t *npzTable) arrayOf(position int) *npzArray {
	for _, a := range t.arrays {
		if position < a.first+a.npyArray.columns {
			return a
		}
	}
	panic("a column that is in no array")
}

// open starts to read an array. Columns that are compressed one after the other
// are unpacked first.
func (t *npzTable) open(a *npzArray) error {
	r, err := a.member.Open()
	if err != nil {
		return explainZIP(err)
	}
	t.opened = append(t.opened, r)
	if _, err := io.CopyN(io.Discard, r, a.headerSize); err != nil {
		return explainZIP(err)
	}
	if !a.columnMajor {
		a.rows = a.readRowMajor(r, a.columns)
		return nil
	}
	unpacked, err := t.unpack(r)
	if err != nil {
		return err
	}
	a.rows = a.readColumnMajor(unpacked, 0, a.columns)
	return nil
}

// unpack copies r into a file that is gone when it is closed.
func (t *npzTable) unpack(r io.Reader) (*os.File, error) {
	file, err := os.CreateTemp(t.scratch, "array-")
	if err != nil {
		return nil, err
	}
	t.opened = append(t.opened, file)
	if err := os.Remove(file.Name()); err != nil {
		return nil, err
	}
	_, err = io.Copy(file, r)
	return file, explainZIP(err)
}

func (t *npzTable) next() ([]cell, int, error) {
	t.row++
	ended := false
	for _, a := range t.arrays {
		if a.rows == nil {
			continue
		}
		var err error
		// All arrays end together, and each has a checksum at its end.
		if a.cells, err = a.rows.next(a.cells[:0]); errors.Is(err, io.EOF) {
			ended = true
		} else if err != nil {
			return nil, t.row, inArray(a.name, explainZIP(err))
		}
	}
	if ended {
		return nil, t.row, io.EOF
	}
	t.cells = t.cells[:0]
	for _, c := range t.chosen {
		t.cells = append(t.cells, c.array.cells[c.cell])
	}
	return t.cells, t.row, nil
}

// Close closes what was opened.
func (t *npzTable) Close() error {
	var errs []error
	for _, c := range t.opened {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// inArray says in which array something is wrong.
func inArray(name string, err error) error {
	if invalid, ok := errors.AsType[*InvalidError](err); ok {
		invalid.Problem = fmt.Sprintf("array %s: %s", quote(name), invalid.Problem)
		return invalid
	}
	return err
}

func explainZIP(err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, zip.ErrFormat), errors.Is(err, zip.ErrChecksum), errors.As(err, &corrupt), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return invalidf("the ZIP file is damaged or not complete; store the whole file again")
	case errors.Is(err, zip.ErrAlgorithm):
		return invalidf("it is packed in a way that can't be read; save it with numpy.savez or numpy.savez_compressed")
	}
	return err
}
