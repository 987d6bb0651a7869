//go:build openblas

package nn

/*
#cgo noescape trainyard_packed
#cgo nocallback trainyard_packed
#cgo noescape trainyard_packed_columns
#cgo nocallback trainyard_packed_columns
#include <stddef.h>
#include <stdint.h>
int trainyard_packed_lanes(void);
void trainyard_packed_columns(int lanes, size_t rows, size_t inner, const float *x, size_t x_stride, int32_t *columns);
void trainyard_packed(int lanes, size_t first, size_t rows, size_t cols, size_t inner, const int32_t *columns,
	const float *x, size_t x_stride, const float *weight, const float *bias, int relu, float *y, size_t y_stride);
*/
import "C"

import (
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"
)

// packedLanes is how many numbers the kernel for packed weights multiplies at once:
// 16, 8, or 0 if there is none for this processor. It names the kernel.
var packedLanes = int(C.trainyard_packed_lanes())

// findColumns writes for each tile of rows of x how many columns are not all zeros,
// and which. Each tile takes the place of 1 + x.Cols numbers.
func findColumns(x blas32.General, columns []int32) {
	C.trainyard_packed_columns(C.int(packedLanes), C.size_t(x.Rows), C.size_t(x.Cols), pointer(x.Data), C.size_t(x.Stride), integers(columns))
}

// multiplyPacked writes x*weight^T + bias into y, or with relu, which is 0 or 1, 0
// where that is less. It does so for rows rows from first on, which is a multiple
// of tileRows. See [packed].
func multiplyPacked(first, rows int, columns []int32, x blas32.General, weight, bias []float32, relu int, y blas32.General) {
	C.trainyard_packed(C.int(packedLanes), C.size_t(first), C.size_t(rows), C.size_t(y.Cols), C.size_t(x.Cols), integers(columns),
		pointer(x.Data), C.size_t(x.Stride), pointer(weight), pointer(bias), C.int(relu), pointer(y.Data), C.size_t(y.Stride))
}

func integers(v []int32) *C.int32_t { return (*C.int32_t)(unsafe.SliceData(v)) }
