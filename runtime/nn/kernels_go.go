//go:build !openblas

package nn

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"
)

// adamStep is the loop of [Adam].
func adamStep(w, g, m, v []float32, rate, first, second, epsilon float32) {
	w, m, v = w[:len(g)], m[:len(g)], v[:len(g)]
	for i, d := range g {
		mi := m[i] + (d-m[i])*first
		vi := v[i] + (d*d-v[i])*second
		m[i], v[i] = mi, vi
		w[i] -= rate * mi / (root(vi) + epsilon)
	}
}

// relu replaces every x below 0 by 0. NaN stays.
func relu(x []float32) {
	for i, v := range x {
		x[i] = max(v, 0)
	}
}

// reluBack clears dy where y is 0. It works on the bits, since for those the
// compiler has a move instead of a jump, which would be guessed wrong half the
// time.
func reluBack(y, dy []float32) {
	y = y[:len(dy)]
	for i, d := range dy {
		bits := math.Float32bits(d)
		if y[i] <= 0 {
			bits = 0
		}
		dy[i] = math.Float32frombits(bits)
	}
}

// sumRows writes the sum of each column of m into sums.
func sumRows(m blas32.General, sums []float32) {
	clear(sums)
	for i := range m.Rows {
		for j, v := range row(m, i) {
			sums[j] += v
		}
	}
}

// softmax replaces each row by its softmax.
func softmax(m blas32.General) {
	for i := range m.Rows {
		softmaxRow(row(m, i), row(m, i))
	}
}

// allFinite tells whether no number of v is infinite or NaN.
func allFinite(v []float32) bool {
	for _, x := range v {
		if !finite(x) {
			return false
		}
	}
	return true
}
