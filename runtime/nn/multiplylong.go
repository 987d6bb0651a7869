package nn

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// A product with few sums of many terms, as for the weights of a small layer
// from many rows, is cut along the terms: parts of termsOfPart terms are summed
// apart, and then added up in their order.
const (
	mostSums    = 1 << 10
	fewestTerms = 2 * termsOfPart
	termsOfPart = 1 << 15
)

// longProduct is such a product.
type longProduct struct {
	tA, tB blas.Transpose
	a, b   blas32.General
	terms  int
	sums   []float32 // of each part
	shape  blas32.General
}

var longProducts = make(spares[longProduct], 16)

func multiplyLong(tA, tB blas.Transpose, a, b blas32.General, beta float32, c blas32.General) {
	p := longProducts.take()
	p.tA, p.tB, p.a, p.b, p.terms = tA, tB, a, b, a.Cols
	if tA == blas.Trans {
		p.terms = a.Rows
	}
	parts := (p.terms + termsOfPart - 1) / termsOfPart
	p.shape = blas32.General{Rows: c.Rows, Cols: c.Cols, Stride: c.Cols}
	if need := parts * c.Rows * c.Cols; cap(p.sums) < need {
		p.sums = make([]float32, need)
	}
	parallel(p, parts)
	for i := range c.Rows {
		p.addUp(parts, i, beta, row(c, i))
	}
	p.a, p.b = blas32.General{}, blas32.General{}
	longProducts.put(p)
}

// addUp adds row i of all parts to beta*sums. As in Gemm, with a beta of 0 it
// does not matter what is in sums.
func (p *longProduct) addUp(parts, i int, beta float32, sums []float32) {
	for j, v := range sums {
		sums[j] = 0
		if beta != 0 {
			sums[j] = beta * v
		}
	}
	for n := range parts {
		for j, v := range row(p.partialSums(n), i) {
			sums[j] += v
		}
	}
}

func (p *longProduct) partialSums(n int) blas32.General {
	m, size := p.shape, p.shape.Rows*p.shape.Cols
	m.Data = p.sums[:cap(p.sums)][n*size : (n+1)*size]
	return m
}

func (p *longProduct) do(n int) {
	from := n * termsOfPart
	terms := min(termsOfPart, p.terms-from)
	var a, b blas32.General
	if p.tA == blas.Trans {
		a = part(p.a, from, 0, terms, p.a.Cols)
	} else {
		a = part(p.a, 0, from, p.a.Rows, terms)
	}
	if p.tB == blas.Trans {
		b = part(p.b, 0, from, p.b.Rows, terms)
	} else {
		b = part(p.b, from, 0, terms, p.b.Cols)
	}
	multiplyWhole(p.tA, p.tB, a, b, 0, p.partialSums(n))
}
