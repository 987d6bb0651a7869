package dataset

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"trainyard.dev/trainyard/runtime/dataset/remote"
	"trainyard.dev/trainyard/runtime/spec"
)

// source is the bytes of a file, hashed as they are stored. Of text, they are
// read unpacked if they are compressed, and without a byte order mark.
type source struct {
	io.Reader // of text; nil for other formats
	file      *storedFile
	size      int64
}

// storedFile hashes what is read from a file and stops when its context ends.
type storedFile struct {
	ctx  context.Context
	file *os.File
	hash hash.Hash
	// err is the failure to read, if that is why reading ended. It tells a
	// broken disk from a broken file.
	err error
}

const readSize = 256 << 10

// localFile returns the path of a file with the source's bytes, which are
// fetched if they are far away, and what removes it again.
func localFile(ctx context.Context, path string, o Options) (local string, remove func(), err error) {
	nothing := func() {}
	from := remote.Source{HTTPS: o.Source.HTTPS, S3: o.Source.S3, Credentials: o.Credentials, Trouble: o.Trouble}
	if isFile := !strings.HasPrefix(path, "https://") && !strings.HasPrefix(path, "s3://"); isFile {
		return path, nothing, nil
	}
	if from.HTTPS == nil && from.S3 == nil {
		return "", nothing, invalidf("the dataset's source says nothing of how to fetch it; set source.https or source.s3")
	}
	local, err = remote.Fetch(ctx, from, o.TemporaryDir)
	if refused := (*remote.RefusedError)(nil); errors.As(err, &refused) {
		return "", nothing, &InvalidError{Problem: refused.Problem}
	}
	return local, func() { os.Remove(local) }, err
}

func openSource(ctx context.Context, path string, format spec.Format) (*source, error) {
	file, err := openFile(path)
	if err != nil {
		return nil, err
	}
	s := &source{file: &storedFile{ctx: ctx, file: file, hash: sha256.New()}}
	if format == spec.CSV {
		s.Reader, err = unpack(s.file)
	} else {
		err = s.prepare(format)
	}
	if err != nil {
		file.Close()
		return nil, s.explain(err, 0)
	}
	return s, nil
}

// prepare hashes a file of a format that is not read from front to back, and
// looks whether it is of that format.
func (s *source) prepare(format spec.Format) error {
	buffered := bufio.NewReaderSize(s.file, readSize)
	start, err := buffered.Peek(len(npyMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(start) == 0 {
		return invalidf("the file is empty")
	}
	if magic := magics[format]; !bytes.HasPrefix(start, []byte(magic)) {
		return notOfFormat(start, format)
	}
	s.size, err = buffered.WriteTo(io.Discard)
	return err
}

// at gives access to all bytes of the file.
func (s *source) at() io.ReaderAt { return s.file }

const (
	npyMagic  = "\x93NUMPY"
	gzipMagic = "\x1f\x8b"
)

// magics are the first bytes of files of the formats that have some.
var magics = map[spec.Format]string{
	spec.NPY:     npyMagic,
	spec.NPZ:     "PK",
	spec.Parquet: parquetMagic,
}

func notOfFormat(start []byte, format spec.Format) error {
	for other, magic := range magics {
		if bytes.HasPrefix(start, []byte(magic)) {
			return invalidf("this is not a %s file, but seems to be %s; set format: %s", format, other, other)
		}
	}
	if bytes.HasPrefix(start, []byte(gzipMagic)) {
		return invalidf("this is not a %s file, but a gzip file; only %s may be compressed with it", format, spec.CSV)
	}
	if name := foreignFormat(start); name != "" {
		return invalidf("this is not a %s file, but %s", format, name)
	}
	return invalidf("this is not a %s file; is it text? Then set format: %s", format, spec.CSV)
}

// openFile opens a regular file. What is wrong with others is for people.
func openFile(path string) (*os.File, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return nil, invalidf("there is no such file; check the path")
	case err == nil && info.IsDir():
		return nil, invalidf("this is a folder; name a file in it")
	case err == nil && !info.Mode().IsRegular():
		return nil, invalidf("this is not a regular file")
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, invalidf("the file may not be read by user %d, as whom the trainer runs; let everyone read it", os.Getuid())
	}
	return file, err
}

// unpack finds out what r's bytes are from their beginning.
func unpack(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(r, readSize)
	start, err := buffered.Peek(len(npyMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if bytes.HasPrefix(start, []byte(gzipMagic)) {
		unzipped, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, err
		}
		buffered = bufio.NewReaderSize(unzipped, readSize)
		if start, err = buffered.Peek(len(npyMagic)); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	if format := foreignFormat(start); format != "" {
		return nil, invalidf("this is %s, not CSV; save it as CSV (UTF-8), plain or compressed with gzip, or name its format", format)
	}
	if bytes.HasPrefix(start, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(3) // they were seen already
	}
	return buffered, nil
}

// foreignFormat recognizes what is often mistaken for CSV, by its first bytes.
func foreignFormat(start []byte) string {
	for _, format := range []struct{ magic, name string }{
		{"PK\x03\x04", "a ZIP file, a spreadsheet or a NPZ file"},
		{npyMagic, "a NPY file"},
		{"\x28\xb5\x2f\xfd", "a Zstandard file"},
		{"BZh", "a bzip2 file"},
		{"\xfd7zX", "an XZ file"},
		{parquetMagic, "a Parquet file"},
		{"\xff\xfe", "UTF-16 text"},
		{"\xfe\xff", "UTF-16 text"},
		{gzipMagic, "a file that was compressed with gzip twice"},
		{"<!DO", "a web page"},
		{"<!do", "a web page"},
		{"<htm", "a web page"},
	} {
		if bytes.HasPrefix(start, []byte(format.magic)) {
			return format.name
		}
	}
	return ""
}

// explain says in words what reading met, after that many rows.
func (s *source) explain(err error, rows int) error {
	var corrupt flate.CorruptInputError
	switch {
	case s.file.err != nil:
		return s.file.err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalidf("the gzip data ends in the middle: %s could be read before; store the whole file again", count(rows, "row"))
	case errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt):
		return invalidf("the gzip data is damaged: %s could be read before; store the file again", count(rows, "row"))
	}
	return err
}

// ReadAt reads from the file, if the context has not ended. It hashes nothing.
func (f *storedFile) ReadAt(p []byte, offset int64) (int, error) {
	if f.err = context.Cause(f.ctx); f.err != nil {
		return 0, f.err
	}
	if offset < 0 { // as damaged files say
		return 0, io.ErrUnexpectedEOF
	}
	n, err := f.file.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// Digest is "sha256:" and the hash of all bytes that were read.
func (s *source) Digest() string {
	return "sha256:" + hex.EncodeToString(s.file.hash.Sum(nil))
}

// Close closes the file.
func (s *source) Close() error { return s.file.file.Close() }

// Read reads from the file, if the context has not ended.
func (f *storedFile) Read(p []byte) (int, error) {
	if f.err = context.Cause(f.ctx); f.err != nil {
		return 0, f.err
	}
	n, err := f.file.Read(p)
	f.hash.Write(p[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
