//go:build openblas

package nn

/*
#cgo noescape trainyard_packed
#cgo nocallback trainyard_packed
#include <stddef.h>
int trainyard_packed_lanes(void);
void trainyard_packed(size_t rows, size_t cols, size_t inner, const float *x, size_t x_stride,
	const float *weight, const float *bias, int relu, float *y, size_t y_stride);
*/
import "C"

import "gonum.org/v1/gonum/blas/blas32"

// packedLanes is how many numbers the kernel for packed weights multiplies at once
// on this processor; 0: there is none.
var packedLanes = int(C.trainyard_packed_lanes())

// multiplyPacked writes x*weight^T + bias into y, or with relu, which is 0 or 1, 0
// where that is less. See [packed].
func multiplyPacked(x blas32.General, weight, bias []float32, relu int, y blas32.General) {
	C.trainyard_packed(C.size_t(x.Rows), C.size_t(y.Cols), C.size_t(x.Cols), pointer(x.Data), C.size_t(x.Stride),
		pointer(weight), pointer(bias), C.int(relu), pointer(y.Data), C.size_t(y.Stride))
}
