package nn

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// multiply computes c = op(a)*op(b) + beta*c, with a beta of 0 or 1.
//
// A large product is cut into tiles of c that several goroutines compute. The
// cut depends on the shape alone, so the result does not depend on who computes
// which tile.
func multiply(tA, tB blas.Transpose, a, b blas32.General, beta float32, c blas32.General) {
	if c.Rows == 0 || c.Cols == 0 {
		return
	}
	inner := a.Cols
	if tA == blas.Trans {
		inner = a.Rows
	}
	if inner == 0 { // a trainer's share of a small batch
		for i := 0; i < c.Rows && beta == 0; i++ {
			clear(row(c, i))
		}
		return
	}
	rows, cols := tileOf(c.Rows, c.Cols, inner)
	if rows >= c.Rows && cols >= c.Cols {
		multiplyWhole(tA, tB, a, b, beta, c)
		return
	}
	p := products.take()
	*p = product{tA: tA, tB: tB, a: a, b: b, c: c, beta: beta, rows: rows, cols: cols}
	if down, across := p.tiles(); c.Rows*c.Cols*inner < parallelFrom {
		for i := range down * across {
			p.do(i)
		}
	} else {
		parallel(p, down*across)
	}
	*p = product{}
	products.put(p)
}

// product is a matrix product that is computed in tiles of rows x cols.
type product struct {
	tA, tB     blas.Transpose
	a, b, c    blas32.General
	beta       float32
	rows, cols int
}

var products = make(spares[product], 16)

// tiles returns how many tiles there are from top to bottom and from left to
// right.
func (p *product) tiles() (down, across int) {
	return (p.c.Rows + p.rows - 1) / p.rows, (p.c.Cols + p.cols - 1) / p.cols
}

// do computes a tile, counted row by row.
func (p *product) do(tile int) {
	_, across := p.tiles()
	i, j := tile/across*p.rows, tile%across*p.cols
	rows, cols := min(p.rows, p.c.Rows-i), min(p.cols, p.c.Cols-j)
	var a, b blas32.General
	if p.tA == blas.Trans {
		a = part(p.a, 0, i, p.a.Rows, rows)
	} else {
		a = part(p.a, i, 0, rows, p.a.Cols)
	}
	if p.tB == blas.Trans {
		b = part(p.b, j, 0, cols, p.b.Cols)
	} else {
		b = part(p.b, 0, j, p.b.Rows, cols)
	}
	multiplyWhole(p.tA, p.tB, a, b, p.beta, part(p.c, i, j, rows, cols))
}

// multiplyWhole computes c = op(a)*op(b) + beta*c in one go, with a beta of 0
// or 1. If c is a vector,
// that is a product of a matrix and a vector, which spares the copies that Gemm
// makes of a and b.
func multiplyWhole(tA, tB blas.Transpose, a, b blas32.General, beta float32, c blas32.General) {
	switch {
	case c.Cols == 1:
		blas32.Gemv(tA, 1, a, vector(b), beta, vector(c))
	case c.Rows == 1:
		blas32.Gemv(transposed(tB), 1, b, vector(a), beta, vector(c))
	default:
		// OpenBLAS clears c as well, but element by element, which took 8% of a
		// step of 784-512-256-10.
		if beta == 0 {
			for i := range c.Rows {
				clear(row(c, i))
			}
		}
		blas32.Gemm(tA, tB, 1, a, b, 1, c)
	}
}

// vector returns a matrix of one row or one column as a vector.
func vector(m blas32.General) blas32.Vector {
	if m.Rows == 1 {
		return blas32.Vector{N: m.Cols, Inc: 1, Data: m.Data}
	}
	return blas32.Vector{N: m.Rows, Inc: m.Stride, Data: m.Data}
}

func transposed(t blas.Transpose) blas.Transpose {
	if t == blas.Trans {
		return blas.NoTrans
	}
	return blas.Trans
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
