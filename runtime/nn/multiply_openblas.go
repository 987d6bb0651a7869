//go:build openblas

package nn

/*
#cgo LDFLAGS: -lopenblas -lm
void openblas_set_num_threads(int);
*/
import "C"

import (
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/netlib/blas/netlib"
)

// A product of more than parallelFrom multiplications (some 0.1 ms of one
// core's work) is cut in two; tiles of more than largeTile are cut further. Not
// more than that, since OpenBLAS is the faster the larger a product is: with
// tiles of 1024 x 1024 it has 97% of its best speed, of 256 x 512 85%. And into
// mostTiles at most, which keep as many cores busy.
const (
	parallelFrom = 1 << 23
	largeTile    = 1 << 25
	mostTiles    = 8
)

// tileOf returns the size of the tiles of a rows x cols product with sums of
// inner terms.
func tileOf(rows, cols, inner int) (tileRows, tileCols int) {
	limit := parallelFrom
	for tiles := 1; tiles < mostTiles && rows*cols*inner > limit; tiles *= 2 {
		if rows > cols {
			rows = (rows + 1) / 2
		} else {
			cols = (cols + 1) / 2
		}
		limit = largeTile
	}
	return rows, cols
}

// init has OpenBLAS do the products, with no threads of its own: those of
// multiply know GOMAXPROCS, and give the same bits for any number of them.
func init() {
	C.openblas_set_num_threads(1)
	blas32.Use(netlib.Implementation{})
}
