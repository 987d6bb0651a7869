package dataset

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
	"github.com/x448/float16"
)

// parquetTable reads chosen columns of a Parquet file page by page.
type parquetTable struct {
	file    *parquet.File
	source  io.ReaderAt
	size    int64
	leaves  []*parquet.Column
	logical []format.LogicalTypeValue // of the leaves
	columns []*parquetColumn          // that were chosen

	group int   // the next one
	left  int64 // rows of this one
	row   int
	cells []cell
}

// parquetColumn reads one column of a row group.
type parquetColumn struct {
	leaf   *parquet.Column
	name   string
	decode func(parquet.Value) cell

	pages  parquet.Pages
	page   parquet.Page
	reader parquet.ValueReader
	values []parquet.Value // of the page, as many as were read at once
	at     int
}

// parquetBatch is how many values are read at once.
const parquetBatch = 1024

func newParquetTable(file io.ReaderAt, size int64) (*parquetTable, error) {
	t := &parquetTable{source: file, size: size}
	err := unharmed(func() (err error) {
		if err := checkParquetFooter(file, size); err != nil {
			return err
		}
		t.file, err = parquet.OpenFile(file, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
		if err != nil {
			return err
		}
		t.addLeaves(t.file.Root())
		return t.findLogicalTypes()
	})
	return t, err
}

// unharmed runs what reads foreign bytes with a library that may panic on them.
func unharmed(read func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = damagedParquet(fmt.Errorf("%v", r))
		}
	}()
	err = read()
	if invalid := (*InvalidError)(nil); err == nil || errors.Is(err, io.EOF) || errors.As(err, &invalid) {
		return err
	}
	return damagedParquet(err)
}

func damagedParquet(err error) error {
	return invalidf("the Parquet data is damaged or of a kind that can't be read (%s); store the file again", quote(err.Error()))
}

func (t *parquetTable) addLeaves(c *parquet.Column) {
	if c.Leaf() {
		t.leaves = append(t.leaves, c)
		return
	}
	for _, child := range c.Columns() {
		t.addLeaves(child)
	}
}

// findLogicalTypes takes them from the file's schema, whose leaves come in the
// same order: the library's own types know fewer.
func (t *parquetTable) findLogicalTypes() error {
	for _, element := range t.file.Metadata().Schema {
		if !element.Type.Valid {
			continue
		}
		t.logical = append(t.logical, element.LogicalType.Value)
	}
	if len(t.logical) != len(t.leaves) {
		return errors.New("the schema has other leaves than its tree")
	}
	for i, leaf := range t.leaves {
		if l := leaf.Type().LogicalType(); t.logical[i] == nil && l != nil {
			t.logical[i] = l.Value
		}
	}
	return nil
}

func (t *parquetTable) header() (*header, error) {
	names := make([]string, len(t.leaves))
	for i, leaf := range t.leaves {
		names[i] = strings.Join(leaf.Path(), ".")
	}
	return newHeader(names)
}

func (t *parquetTable) choose(positions []int) error {
	for _, i := range positions {
		leaf := t.leaves[i]
		c := &parquetColumn{leaf: leaf, name: strings.Join(leaf.Path(), "."), values: make([]parquet.Value, 0, parquetBatch)}
		err := unharmed(func() (err error) {
			c.decode, err = parquetDecoder(leaf, t.logical[i])
			return err
		})
		if invalid := (*InvalidError)(nil); errors.As(err, &invalid) {
			return invalid.at(0, c.name)
		}
		t.columns = append(t.columns, c)
	}
	return nil
}

// parquetDecoder says what the values of a column mean, if they are numbers,
// truth values or text.
func parquetDecoder(leaf *parquet.Column, logical format.LogicalTypeValue) (func(parquet.Value) cell, error) {
	if leaf.MaxRepetitionLevel() > 0 {
		return nil, invalidf("it holds lists; give each element a column of its own, or list the features without this column")
	}
	switch logical := logical.(type) {
	case nil, *format.StringType, *format.EnumType:
	case *format.IntType:
		if !logical.IsSigned {
			return unsignedDecoder(leaf.Type().Kind())
		}
	case *format.Float16Type:
		return func(v parquet.Value) cell {
			b := v.ByteArray()
			return cell{number: float64(float16.Frombits(uint16(b[0]) | uint16(b[1])<<8).Float32())}
		}, nil
	default:
		return nil, parquetType(fmt.Sprint(logical))
	}
	switch kind := leaf.Type().Kind(); kind {
	case parquet.Boolean:
		return func(v parquet.Value) cell { return cell{number: map[bool]float64{true: 1}[v.Boolean()]} }, nil
	case parquet.Int32:
		return func(v parquet.Value) cell { return cell{number: float64(v.Int32())} }, nil
	case parquet.Int64:
		return func(v parquet.Value) cell { return integerCell(v.Int64()) }, nil
	case parquet.Float:
		return func(v parquet.Value) cell { return float32Cell(v.Float()) }, nil
	case parquet.Double:
		return func(v parquet.Value) cell { return cell{number: v.Double()} }, nil
	case parquet.ByteArray:
		return func(v parquet.Value) cell { return textCell(string(v.ByteArray())) }, nil
	default:
		return nil, parquetType(kind.String())
	}
}

func unsignedDecoder(kind parquet.Kind) (func(parquet.Value) cell, error) {
	if kind == parquet.Int64 {
		return func(v parquet.Value) cell { return unsignedCell(v.Uint64()) }, nil
	}
	return func(v parquet.Value) cell { return cell{number: float64(v.Uint32())} }, nil
}

func parquetType(name string) error {
	return invalidf("it has the type %s, which is neither a number, nor true or false, nor text; save it as a number, or list the features without this column", name)
}

func (t *parquetTable) next() ([]cell, int, error) {
	for t.left == 0 {
		if err := t.nextGroup(); err != nil {
			return nil, 0, err
		}
	}
	t.left--
	t.row++
	t.cells = t.cells[:0]
	for _, c := range t.columns {
		v, err := c.next()
		if err != nil {
			if invalid := (*InvalidError)(nil); errors.As(err, &invalid) {
				err = invalid.at(t.row, c.name)
			}
			return nil, t.row, err
		}
		t.cells = append(t.cells, v)
	}
	return t.cells, t.row, nil
}

func (t *parquetTable) nextGroup() error {
	groups := t.file.RowGroups()
	if t.group == len(groups) {
		return io.EOF
	}
	for _, c := range t.columns {
		index := c.leaf.Index()
		if err := checkParquetPages(t.source, t.size, &t.file.Metadata().RowGroups[t.group].Columns[index].MetaData); err != nil {
			return inParquetColumn(c.name, err)
		}
		if err := unharmed(func() error { return c.open(groups[t.group].ColumnChunks()[index]) }); err != nil {
			return inParquetColumn(c.name, err)
		}
	}
	t.left = groups[t.group].NumRows()
	t.group++
	return nil
}

func inParquetColumn(name string, err error) error {
	if invalid := (*InvalidError)(nil); errors.As(err, &invalid) {
		return invalid.at(0, name)
	}
	return err
}

// Close lets go of the pages.
func (t *parquetTable) Close() error {
	return unharmed(func() error {
		for _, c := range t.columns {
			if err := c.close(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *parquetColumn) open(chunk parquet.ColumnChunk) error {
	if err := c.close(); err != nil {
		return err
	}
	c.pages, c.values, c.at = chunk.Pages(), c.values[:0], 0
	return nil
}

func (c *parquetColumn) close() error {
	if c.pages == nil {
		return nil
	}
	if c.page != nil {
		parquet.Release(c.page)
	}
	pages := c.pages
	c.pages, c.page, c.reader = nil, nil, nil
	return pages.Close()
}

func (c *parquetColumn) next() (cell, error) {
	if c.at == len(c.values) {
		if err := unharmed(c.fill); err != nil {
			if errors.Is(err, io.EOF) {
				err = invalidf("the Parquet data is damaged: the column has fewer values than the table has rows; store the file again")
			}
			return cell{}, err
		}
	}
	v := c.values[c.at]
	c.at++
	if v.IsNull() {
		return missingCell(), nil
	}
	return c.decode(v), nil
}

// fill reads some values, of the next page when one is at its end.
func (c *parquetColumn) fill() error {
	for {
		if c.reader != nil {
			n, err := c.reader.ReadValues(c.values[:cap(c.values)])
			if c.values, c.at = c.values[:n], 0; n > 0 {
				return nil
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			parquet.Release(c.page)
			c.page, c.reader = nil, nil
		}
		page, err := c.pages.ReadPage()
		if err != nil {
			return err
		}
		c.page, c.reader = page, page.Values()
	}
}
