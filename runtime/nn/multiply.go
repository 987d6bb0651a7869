package nn

import (
	"runtime"
	"sync"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// multiply computes c = op(a)*op(b) + beta*c.
//
// A large product is cut into tiles of c, tileRows x tileCols, that several
// goroutines compute. The cut depends on the shape alone, so the result does
// not depend on who computes which tile. From parallelFrom multiplications on it
// pays to wake other goroutines: that is some 0.2 ms of one core's work, while a
// wake-up takes a few microseconds.
func multiply(tA, tB blas.Transpose, a, b blas32.General, beta float32, c blas32.General) {
	inner := a.Cols
	if tA == blas.Trans {
		inner = a.Rows
	}
	p := product{tA: tA, tB: tB, beta: beta}
	if c.Rows*c.Cols*inner < parallelFrom || runtime.GOMAXPROCS(0) == 1 {
		for i := 0; i < c.Rows; i += tileRows {
			for j := 0; j < c.Cols; j += tileCols {
				p.tile(a, b, c, i, j).compute()
			}
		}
		return
	}
	multiplyParallel(p, a, b, c)
}

// product is a matrix product, or a tile of one.
type product struct {
	tA, tB  blas.Transpose
	a, b, c blas32.General
	beta    float32
	done    *sync.WaitGroup
}

func (p product) compute() {
	blas32.Gemm(p.tA, p.tB, 1, p.a, p.b, p.beta, p.c)
}

// tile returns the product that gives the tile of c that starts at row i and
// column j.
func (p product) tile(a, b, c blas32.General, i, j int) product {
	rows, cols := min(tileRows, c.Rows-i), min(tileCols, c.Cols-j)
	p.c = part(c, i, j, rows, cols)
	if p.tA == blas.Trans {
		p.a = part(a, 0, i, a.Rows, rows)
	} else {
		p.a = part(a, i, 0, rows, a.Cols)
	}
	if p.tB == blas.Trans {
		p.b = part(b, j, 0, cols, b.Cols)
	} else {
		p.b = part(b, 0, j, b.Rows, cols)
	}
	return p
}

// part returns the rows x cols elements of m from row i, column j on.
func part(m blas32.General, i, j, rows, cols int) blas32.General {
	from := i*m.Stride + j
	if rows == 0 || cols == 0 {
		return blas32.General{Rows: rows, Cols: cols, Stride: max(1, m.Stride)}
	}
	return blas32.General{
		Rows: rows, Cols: cols, Stride: m.Stride,
		Data: m.Data[from : from+(rows-1)*m.Stride+cols],
	}
}

var (
	startWorkers sync.Once
	// work takes tiles to idle workers. It has no buffer: a tile that nobody
	// waits for is computed by the sender.
	work = make(chan product)
	// waits holds wait groups, since one on the stack would escape.
	waits = sync.Pool{New: func() any { return new(sync.WaitGroup) }}
)

func multiplyParallel(p product, a, b, c blas32.General) {
	startWorkers.Do(func() {
		for range runtime.GOMAXPROCS(0) - 1 {
			go func() {
				for t := range work {
					t.compute()
					t.done.Done()
				}
			}()
		}
	})
	p.done = waits.Get().(*sync.WaitGroup)
	for i := 0; i < c.Rows; i += tileRows {
		for j := 0; j < c.Cols; j += tileCols {
			t := p.tile(a, b, c, i, j)
			p.done.Add(1)
			select {
			case work <- t:
			default:
				t.compute()
				p.done.Done()
			}
		}
	}
	p.done.Wait()
	waits.Put(p.done)
}
