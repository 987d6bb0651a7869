package dataset

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// The library allocates what headers claim. So headers are read here first, by
// a reader that compares every claim with the bytes there are.

const (
	parquetMagic = "PAR1"
	// maxPageValues and maxPageBytes bound what may be claimed without so many
	// bytes to show for it: runs of one value take next to nothing.
	maxPageValues = 16 << 20
	maxPageBytes  = 64 << 20
)

// checkParquetFooter refuses a footer that claims more than the file holds.
func checkParquetFooter(file io.ReaderAt, size int64) error {
	const least = 12 // magic, length, magic
	if size < least {
		return invalidf("the Parquet file ends in the middle; store the whole file again")
	}
	var end [8]byte
	if _, err := file.ReadAt(end[:], size-int64(len(end))); err != nil {
		return err
	}
	if string(end[4:]) != parquetMagic {
		return invalidf("the Parquet file ends in the middle, or is encrypted; store the whole file again")
	}
	length := int64(binary.LittleEndian.Uint32(end[:]))
	if length > size-least {
		return invalidf("the Parquet file is damaged: its footer claims to be larger than the file; store the file again")
	}
	footer := make([]byte, length)
	if _, err := file.ReadAt(footer, size-int64(len(end))-length); err != nil {
		return err
	}
	var metadata format.FileMetaData
	return decodeThrift(footer, &metadata)
}

// checkParquetPages goes through the pages of a column chunk by their headers.
func checkParquetPages(file io.ReaderAt, size int64, chunk *format.ColumnMetaData) error {
	start := chunk.DataPageOffset
	if chunk.DictionaryPageOffset > 0 {
		start = chunk.DictionaryPageOffset
	}
	end := start + chunk.TotalCompressedSize
	if start < 0 || chunk.TotalCompressedSize < 0 || end > size || end < start {
		return damagedPage()
	}
	for offset := start; offset < end; {
		header, length, err := readPageHeader(file, offset, end)
		if err != nil {
			return err
		}
		if err := checkPage(header, end-offset-length); err != nil {
			return err
		}
		offset += length + int64(header.CompressedPageSize)
	}
	return nil
}

func damagedPage() error {
	return invalidf("the Parquet data is damaged: a page claims to be larger than it can be; store the file again")
}

func checkPage(h *format.PageHeader, left int64) error {
	compressed, uncompressed := int64(h.CompressedPageSize), int64(h.UncompressedPageSize)
	values := max(h.DataPageHeader.V.NumValues, h.DataPageHeaderV2.V.NumValues, h.DictionaryPageHeader.V.NumValues)
	switch {
	case compressed < 0 || compressed > left || uncompressed < 0:
		return damagedPage()
	case uncompressed > max(maxPageBytes, maxDeflation*compressed):
		return invalidf("a page of the Parquet file has %d MiB; write the file with smaller pages or row groups", uncompressed>>20)
	case int64(values) > max(maxPageValues, 8*uncompressed):
		return invalidf("a page of the Parquet file has %d values; write the file with smaller pages or row groups", values)
	}
	return nil
}

// readPageHeader returns the header of the page at offset, and its length.
func readPageHeader(file io.ReaderAt, offset, end int64) (*format.PageHeader, int64, error) {
	for window := int64(1 << 10); ; window *= 16 {
		buffer := make([]byte, min(window, end-offset))
		if _, err := file.ReadAt(buffer, offset); err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		var header format.PageHeader
		reader := newGuard(buffer)
		err := unharmed(func() error { return thrift.NewDecoder(reader).Decode(&header) })
		if err == nil {
			return &header, int64(reader.BytesRead()), nil
		}
		if int64(len(buffer)) == end-offset || window > maxPageBytes {
			return nil, 0, invalidf("the Parquet data is damaged: a page has no header; store the file again")
		}
	}
}

func decodeThrift(data []byte, into any) error {
	if err := thrift.NewDecoder(newGuard(data)).Decode(into); err != nil {
		return damagedParquet(err)
	}
	return nil
}

// guard refuses lists that claim more elements than there are bytes.
type guard struct {
	thrift.BytesReader
	size int
}

var errClaim = errors.New("a list claims more elements than there are bytes")

func newGuard(data []byte) *guard {
	return &guard{BytesReader: new(thrift.CompactProtocol).NewReaderFromBytes(data), size: len(data)}
}

func (g *guard) check(n int32) error {
	if n < 0 || int(n) > g.size-g.BytesRead() {
		return errClaim
	}
	return nil
}

// ReadList implements [thrift.Reader].
func (g *guard) ReadList() (thrift.List, error) {
	l, err := g.BytesReader.ReadList()
	return l, errors.Join(err, g.check(l.Size))
}

// ReadSet implements [thrift.Reader].
func (g *guard) ReadSet() (thrift.Set, error) {
	s, err := g.BytesReader.ReadSet()
	return s, errors.Join(err, g.check(s.Size))
}

// ReadMap implements [thrift.Reader].
func (g *guard) ReadMap() (thrift.Map, error) {
	m, err := g.BytesReader.ReadMap()
	return m, errors.Join(err, g.check(m.Size))
}
