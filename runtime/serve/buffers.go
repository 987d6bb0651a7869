package serve

import (
	"bytes"
	"sync"
)

// buffers is the memory of one request.
type buffers struct {
	body    bytes.Buffer
	x       []float32 // rows x features
	columns []float32 // features x rows
	y       []float32 // rows x outputs
	seen    []bool    // the columns that a row has
	answer  []byte
}

// kept bounds what a pooled buffer may hold on to, in bytes: one large request
// must not cost memory for ever.
const kept = 1 << 20

var pool = sync.Pool{New: func() any { return new(buffers) }}

func takeBuffers() *buffers { return pool.Get().(*buffers) }

func (b *buffers) giveBack() {
	if b.body.Cap()+cap(b.answer)+4*(cap(b.x)+cap(b.columns)+cap(b.y)) > kept {
		return
	}
	b.body.Reset()
	pool.Put(b)
}
