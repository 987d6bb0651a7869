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

// OpenBLAS is several times as fast as gonum's kernels, so tiles are larger
// before they pay.
const (
	tileRows     = 256
	tileCols     = 512
	parallelFrom = 1 << 22
)

// init has OpenBLAS do the products, with no threads of its own: those of
// multiply know GOMAXPROCS, and give the same bits for any number of them.
func init() {
	C.openblas_set_num_threads(1)
	blas32.Use(netlib.Implementation{})
}
