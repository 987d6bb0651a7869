package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"
)

// files are the files of one directory. Nothing outside of it can be reached
// through them, whatever a model says.
type files struct {
	root   *os.Root
	mapped map[string][]byte
	// tensors of each safetensors file, as its header has them.
	tensors map[string]map[string]tensorPlace
}

func openFiles(dir string) (*files, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &files{root: root, mapped: map[string][]byte{}, tensors: map[string]map[string]tensorPlace{}}, nil
}

// Close unmaps everything.
func (f *files) Close() error {
	var failures []error
	for name, data := range f.mapped {
		failures = append(failures, unmap(data))
		delete(f.mapped, name)
	}
	return errors.Join(append(failures, f.root.Close())...)
}

// read returns the bytes of a file of at most that size.
func (f *files) read(name string, atMost int64) ([]byte, error) {
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, atMost+1))
	if err == nil && int64(len(data)) > atMost {
		err = fmt.Errorf("it has more than %d MiB", atMost>>20)
	}
	return data, err
}

// mapFile returns a file's bytes, mapped once. What ends in .safetensors must be
// sound.
func (f *files) mapFile(name string) ([]byte, error) {
	if data, ok := f.mapped[name]; ok {
		return data, nil
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	data, err := mapBytes(file, info.Size())
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", name, err)
	}
	f.mapped[name] = data
	if strings.HasSuffix(name, ".safetensors") {
		if f.tensors[name], err = parseSafetensors(data); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return data, nil
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// floats returns little-endian float32 numbers: the same memory, if this machine
// can read them there, else a copy. len(b) is a multiple of 4.
func floats(b []byte) []float32 {
	if len(b) == 0 {
		return []float32{}
	}
	start := unsafe.Pointer(unsafe.SliceData(b))
	if littleEndian && uintptr(start)%4 == 0 {
		return unsafe.Slice((*float32)(start), len(b)/4)
	}
	copied := make([]float32, len(b)/4)
	if _, err := binary.Decode(b, binary.LittleEndian, copied); err != nil {
		panic(err) // the lengths fit
	}
	return copied
}

// floatBytes returns v's bytes in little-endian order, without a copy if they
// are so already.
func floatBytes(v []float32) []byte {
	if littleEndian {
		return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
	}
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err) // float32 has a fixed size
	}
	return b
}
