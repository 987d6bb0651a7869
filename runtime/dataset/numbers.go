package dataset

import (
	"errors"
	"fmt"
	"os"
	"unsafe"
)

// numbers grow at their end: in memory while there is some for them, and from
// then on in a file. In the end they are one slice either way. That of a file is
// a mapping: the kernel reads its pages when they are needed, writes back what
// was changed, and drops pages when memory is short. So whoever uses the numbers
// need not know which it is.
type numbers struct {
	// tail is what is not in the file: everything, if there is none.
	tail []float32
	// memory is what the tail is taken from. Nil: there is no limit.
	memory  *memory
	file    *os.File // nil: none yet
	written int      // numbers in the file
	mapped  []byte   // the file, once everything is in it; before, the tail's room
}

// memory is how much all numbers of a table may take together.
type memory struct {
	limit, used int64  // in bytes; limit 0: none
	dir         string // has room for files
}

// reserve gives the tail room up to the limit at once. Nothing of it is taken
// until it is written to. A slice that grows would be there twice whenever it is
// copied, and more often until the garbage is collected.
func (n *numbers) reserve() {
	room, err := mapMemory(n.memory.limit)
	if err != nil { // then it grows as slices do
		return
	}
	n.mapped, n.tail = room, asNumbers(room)[:0]
}

// flushAt is how many numbers wait to be written to a file together.
const flushAt = 1 << 18

func (n *numbers) len() int { return n.written + len(n.tail) }

// append copies more to the end.
func (n *numbers) append(more ...float32) error {
	if n.memory == nil || n.memory.limit == 0 {
		n.tail = append(n.tail, more...)
		return nil
	}
	if n.file == nil {
		if n.memory.used += bytesOf(more); n.memory.used <= n.memory.limit {
			if n.tail == nil {
				n.reserve()
			}
			n.tail = append(n.tail, more...)
			return nil
		}
		n.memory.used -= bytesOf(more)
		if err := n.moveToFile(); err != nil {
			return err
		}
	}
	n.tail = append(n.tail, more...)
	if len(n.tail) >= flushAt {
		return n.flush()
	}
	return nil
}

// moveToFile gives the memory back. The file has no name, so nothing
// is left of it when the process has ended, however it did.
func (n *numbers) moveToFile() error {
	file, err := os.CreateTemp(n.memory.dir, "rows-")
	if err != nil {
		return n.memory.explain(err)
	}
	n.file = file
	adviseRandomReads(file)
	if err := os.Remove(file.Name()); err != nil {
		return n.memory.explain(err)
	}
	if err := n.flush(); err != nil {
		return err
	}
	n.memory.used -= int64(n.written) * numberBytes
	err = unmap(n.mapped)
	n.mapped, n.tail = nil, nil
	return err
}

func (n *numbers) flush() error {
	if _, err := n.file.Write(asBytes(n.tail)); err != nil {
		return n.memory.explain(err)
	}
	n.written += len(n.tail)
	n.tail = n.tail[:0]
	return nil
}

func (m *memory) explain(err error) error {
	return fmt.Errorf("the table takes more than the %d MiB of memory that are for it, and its rows can't be kept in a file: %w", m.limit>>20, err)
}

// all returns the numbers, which may be changed where they are until close is
// called. Nothing can be appended any more.
func (n *numbers) all() ([]float32, error) {
	if n.file == nil {
		return n.tail, nil
	}
	if n.mapped == nil && n.len() > 0 {
		if err := n.flush(); err != nil {
			return nil, err
		}
		var err error
		if n.mapped, err = mapFile(n.file, int64(n.written)*numberBytes); err != nil {
			return nil, n.memory.explain(err)
		}
	}
	return asNumbers(n.mapped), nil
}

// close gives memory and disk back. It may be called twice.
func (n *numbers) close() error {
	err := unmap(n.mapped)
	if n.file != nil {
		err = errors.Join(err, n.file.Close())
	} else if n.memory != nil {
		n.memory.used -= bytesOf(n.tail)
	}
	n.mapped, n.file, n.tail, n.written = nil, nil, nil, 0
	return err
}

const numberBytes = 4

func bytesOf(v []float32) int64 { return numberBytes * int64(len(v)) }

func asNumbers(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/numberBytes)
}

func asBytes(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), numberBytes*len(v))
}
