package serve

import (
	"io"
	"sync"
)

// buffers is the memory of one request.
type buffers struct {
	// body is the request's. It lies in room, or is the connection's own.
	body, room []byte
	// head is how many bytes at the front of the body are JSON, when binary
	// tensors follow. Zero: all are. So it is with answerHead in the answer.
	head, answerHead int

	x       []float32 // rows x features
	columns []float32 // features x rows
	y       []float32 // rows x outputs
	seen    []bool    // the columns that a row has
	shape   [2]int64  // of an input
	answer  []byte
	reply   []byte // the answer with its head

	phases phases
}

// kept bounds what a pooled buffer may hold on to, in bytes: one large request
// must not cost memory for ever.
const kept = 1 << 20

var pool = sync.Pool{New: func() any { return new(buffers) }}

func takeBuffers() *buffers { return pool.Get().(*buffers) }

func (b *buffers) giveBack() {
	if cap(b.room)+cap(b.answer)+cap(b.reply)+4*(cap(b.x)+cap(b.columns)+cap(b.y)) > kept {
		return
	}
	b.body = nil
	b.head, b.answerHead = 0, 0
	b.phases = phases{}
	pool.Put(b)
}

// alignment is where numbers should lie that vector instructions read: it is that
// of a line of the cache.
const alignment = 64

// receive reads a body up to its end, or until it has so many bytes; a length below
// 0 is unknown. Memory grows with what arrives, not with what is claimed. Tensors are what comes
// from that byte on: they lie so that a network can read them where they are.
func (b *buffers) receive(from io.Reader, length, tensors int) error {
	begin, n := -tensors&(alignment-1), 0
	b.body = nil
	for n != length {
		if begin+n >= len(b.room) {
			grown := make([]byte, max(2*len(b.room), 16<<10))
			copy(grown, b.room)
			b.room = grown
		}
		free := b.room[begin+n:]
		if length >= 0 {
			free = free[:min(len(free), length-n)]
		}
		read, err := from.Read(free)
		n += read
		b.body = b.room[begin : begin+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// text is the body's JSON, and tail the binary tensors after it; nil: it may
// have none.
func (b *buffers) text() []byte { return b.body[:b.textLength()] }

func (b *buffers) tail() []byte {
	if b.head == 0 {
		return nil
	}
	return b.body[b.head:]
}

func (b *buffers) textLength() int {
	if b.head == 0 {
		return len(b.body)
	}
	return b.head
}
