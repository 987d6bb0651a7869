package serve

import (
	"bytes"
	"sync"
)

// buffers is the memory of one request.
type buffers struct {
	body bytes.Buffer
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
	if b.body.Cap()+cap(b.answer)+cap(b.reply)+4*(cap(b.x)+cap(b.columns)+cap(b.y)) > kept {
		return
	}
	b.body.Reset()
	b.head, b.answerHead = 0, 0
	b.phases = phases{}
	pool.Put(b)
}

// text is the body's JSON, and tail the binary tensors after it; nil: it may
// have none.
func (b *buffers) text() []byte { return b.body.Bytes()[:b.textLength()] }

func (b *buffers) tail() []byte {
	if b.head == 0 {
		return nil
	}
	return b.body.Bytes()[b.head:]
}

func (b *buffers) textLength() int {
	if b.head == 0 {
		return b.body.Len()
	}
	return b.head
}
