//go:build openblas

package nn

/*
#cgo noescape trainyard_packed
#cgo nocallback trainyard_packed
#include <stddef.h>
int trainyard_packs(void);
void trainyard_packed(size_t rows, size_t cols, size_t inner, const float *x, size_t x_stride,
	const float *weight, const float *bias, float *y, size_t y_stride);
*/
import "C"

import "gonum.org/v1/gonum/blas/blas32"

// packs tells whether there is a kernel for packed weights on this processor.
var packs = C.trainyard_packs() != 0

// multiplyPacked writes x*weight^T + bias into y. See [packed].
func multiplyPacked(x blas32.General, weight, bias []float32, y blas32.General) {
	C.trainyard_packed(C.size_t(x.Rows), C.size_t(y.Cols), C.size_t(x.Cols), pointer(x.Data), C.size_t(x.Stride),
		pointer(weight), pointer(bias), pointer(y.Data), C.size_t(y.Stride))
}
