// Package dataset turns the bytes of a table into the matrices that a network
// is trained on.
//
// Data flows one way, a row at a time: source (file, gzip, digest) -> reader (of
// a format) -> columns (which cells matter) -> table (numbers) -> one-hot columns
// -> split -> missing values -> scaling. Rows are never kept as text, so a table
// costs four bytes a cell.
package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/dataset/remote"
	"trainyard.dev/trainyard/runtime/spec"
)

// Target says what the label column holds.
type Target int

// The targets.
const (
	// Numbers is a label to be predicted as a number.
	Numbers Target = iota
	// Classes is a label that names one of a few classes. Digits may be names.
	Classes
)

// Options say how a table is read.
type Options struct {
	spec.Dataset
	Target Target
	// Seed draws the validation rows.
	Seed int64
	// SourceName is what users call the source; errors start with it. Default:
	// the path.
	SourceName string
	// MemoryBytes bounds the memory that the numbers of the table may take, 4
	// bytes each. A larger table is kept in files in TemporaryDir, of which the
	// kernel has in memory what it has room for. 0: no bound.
	MemoryBytes int64
	// Credentials are for a source that is fetched.
	Credentials remote.Credentials
	// Trouble is told what a source that is fetched waits for: see
	// [remote.Source].
	Trouble func(error)
	// TemporaryDir has room for what is fetched, and for the rows that memory has
	// no room for. Default: the system's.
	TemporaryDir string
}

// Set is a table that was read, split and scaled.
type Set struct {
	// Columns are the names of the feature columns, in input order.
	Columns []string
	// Label is the name of the label column.
	Label string
	// Classes are the class labels as they stand in the file, in output order:
	// by value if all are numbers, else as text. Nil for Numbers.
	Classes []string
	// Scaling was applied to both parts. Nil for spec.NoScaling.
	Scaling *Scaling
	// Train is never empty; Validation has no rows if none were asked for. Rows
	// are in the order of the file.
	Train, Validation Part
	// Digest is "sha256:" and the hash of the source's bytes as they are stored.
	Digest string

	numbers []*numbers // of both parts
}

// Close gives up the rows of both parts, which must not be used any more.
func (s *Set) Close() error {
	var err error
	for _, n := range s.numbers {
		err = errors.Join(err, n.close())
	}
	return err
}

// MemoryBytes is how much memory the rows take. Those in files take none that
// the kernel could not have back.
func (s *Set) MemoryBytes() int64 {
	var sum int64
	for _, n := range s.numbers {
		sum += bytesOf(n.tail)
	}
	return sum
}

// Part is a set of rows.
type Part struct {
	// X has a row for each example and a column for each feature, scaled.
	X blas32.General
	// Y has for each example the number to predict, or the index of its class.
	Y []float32

	file *os.File // that X is mapped from; nil: none
}

// InFile tells that X is mapped from a file: going through it from front to back
// is fast, and picking rows here and there is slow.
func (p Part) InFile() bool { return p.file != nil }

// ReadRows copies rows from the given one on, as many as there is room for in y.
// x has room for as many.
func (p Part) ReadRows(from int, x, y []float32) error {
	copy(y, p.Y[from:])
	if !p.InFile() {
		copy(x, p.X.Data[from*p.X.Cols:])
		return nil
	}
	_, err := p.file.ReadAt(asBytes(x), int64(from)*int64(p.X.Cols)*numberBytes)
	return err
}

// Read reads the table at path: a file, or the URL (https://, s3://) of the
// options' source. An [InvalidError] says what is wrong with the data, the
// columns that were asked for, or the split; every other error is a failure to
// read, of which [remote.UnavailableError] is one of a source far away.
func Read(ctx context.Context, path string, o Options) (*Set, error) {
	if o.SourceName == "" {
		o.SourceName = path
	}
	set, err := read(ctx, path, o)
	if invalid := (*InvalidError)(nil); errors.As(err, &invalid) {
		invalid.Source = o.SourceName
		return nil, invalid
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", o.SourceName, err)
	}
	return set, nil
}

func read(ctx context.Context, path string, o Options) (*Set, error) {
	if err := checkOptions(o); err != nil {
		return nil, err
	}
	path, remove, err := localFile(ctx, path, o)
	if err != nil {
		return nil, err
	}
	defer remove()
	src, err := openSource(ctx, path, or(o.Format, spec.CSV))
	if err != nil {
		return nil, err
	}
	defer src.Close()

	t, err := readTable(src, o)
	if err != nil {
		return nil, errors.Join(src.explain(err, t.rowCount()), t.close())
	}
	set, err := t.prepare(o)
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	set.Digest = src.Digest()
	return set, nil
}

// prepare makes a set of a table that was read.
func (t *table) prepare(o Options) (*Set, error) {
	classes, err := t.finishLabels()
	if err != nil {
		return nil, err
	}
	if err := t.expand(); err != nil {
		return nil, err
	}
	set, err := t.split(o)
	if err != nil {
		return nil, err
	}
	set.Columns, set.Label, set.Classes = t.columns.names, t.columns.labelName, classes
	if err := set.scale(o); err != nil {
		return nil, errors.Join(err, set.Close())
	}
	return set, nil
}

// scale fills in what is missing and scales what is there.
func (s *Set) scale(o Options) (err error) {
	if err := fillMissing(o.Missing, s.Train.X, s.Validation.X, s.Columns); err != nil {
		return err
	}
	if s.Scaling, err = fitScaling(o.Scaling, s.Train.X, s.Columns); err != nil {
		return err
	}
	for _, part := range []Part{s.Train, s.Validation} {
		if err := s.Scaling.apply(part.X, s.Columns); err != nil {
			return err
		}
	}
	return nil
}

func checkOptions(o Options) error {
	switch o.Format {
	case "", spec.CSV, spec.NPY, spec.NPZ, spec.Parquet:
	default:
		return invalidf("format %q is not known; use %s, %s, %s or %s", o.Format, spec.CSV, spec.NPY, spec.NPZ, spec.Parquet)
	}
	if !(o.ValidationFraction >= 0 && o.ValidationFraction < 1) {
		return invalidf("validationFraction is %v; it must be at least 0 and below 1", o.ValidationFraction)
	}
	if len(o.Labels) > 0 && o.Target != Classes {
		return invalidf("labels are the columns of one-hot classes, but the loss is for numbers; use loss CategoricalCrossentropy, or label for the column of a number")
	}
	if err := checkMissing(o.Missing); err != nil {
		return err
	}
	return nil
}

// tableReader reads a table of a binary format, a row at a time.
type tableReader interface {
	// header names the columns.
	header() (*header, error)
	// choose says which columns are read, by their positions, and in which order.
	choose(positions []int) error
	// next returns the chosen cells of the next row, which are valid until the
	// next call, and the row's number, counted from 1. io.EOF ends the table.
	next() (cells []cell, row int, err error)
}

func newTableReader(src *source, o Options) (tableReader, error) {
	switch o.Format {
	case spec.NPY:
		return newNPYTable(src.at(), src.size)
	case spec.NPZ:
		return newNPZTable(src.at(), src.size, o.TemporaryDir)
	default:
		return newParquetTable(src.at(), src.size)
	}
}

// readTable reads rows to their end. The table is returned with an error as
// well, to tell how far reading came.
func readTable(src *source, o Options) (*table, error) {
	if o.Format == "" || o.Format == spec.CSV {
		return readCSV(src, o)
	}
	t := &table{}
	reader, err := newTableReader(src, o)
	if err != nil {
		return t, err
	}
	if closer, ok := reader.(io.Closer); ok {
		defer closer.Close()
	}
	h, err := reader.header()
	if err != nil {
		return t, err
	}
	c, err := chooseColumns(h, o.Dataset)
	if err != nil {
		return t, err
	}
	if err := reader.choose(c.positions()); err != nil {
		return t, err
	}
	t = newTable(c, o)
	rows := 0
	for ; ; rows++ {
		cells, row, err := reader.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return t, err
		}
		if err := t.add(cells, row); err != nil {
			return t, err
		}
	}
	if rows == 0 {
		return t, noRows(h)
	}
	return t, nil
}

func noRows(h *header) error {
	if h.fromFirstRow {
		return invalidf("the file has a header and no rows of values below it")
	}
	return invalidf("the table has no rows")
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
