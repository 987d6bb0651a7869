//go:build openblas

package nn

/*
#cgo CFLAGS: -O3 -ffast-math
#cgo LDFLAGS: -lm
#cgo noescape trainyard_adam
#cgo nocallback trainyard_adam
#cgo noescape trainyard_relu
#cgo nocallback trainyard_relu
#cgo noescape trainyard_relu_back
#cgo nocallback trainyard_relu_back
#cgo noescape trainyard_sum_rows
#cgo nocallback trainyard_sum_rows
#cgo noescape trainyard_softmax
#cgo nocallback trainyard_softmax
#cgo noescape trainyard_all_finite
#cgo nocallback trainyard_all_finite
#include <stddef.h>
#include <stdint.h>
void trainyard_adam(size_t n, float *w, const float *g, float *m, float *v,
	float rate, float first, float second, float epsilon);
void trainyard_relu(size_t n, float *x);
void trainyard_relu_back(size_t n, const float *y, float *dy);
void trainyard_sum_rows(size_t rows, size_t cols, size_t stride, const float *x, float *sums);
void trainyard_softmax(size_t rows, size_t cols, float *x);
int trainyard_all_finite(size_t n, const uint32_t *x);
*/
import "C"

import (
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"
)

// A build with OpenBLAS has a C compiler anyway, so that its element-wise loops
// are in C (kernels.c), where they use vector instructions.

func adamStep(w, g, m, v []float32, rate, first, second, epsilon float32) {
	C.trainyard_adam(C.size_t(len(w)), pointer(w), pointer(g[:len(w)]), pointer(m[:len(w)]), pointer(v[:len(w)]),
		C.float(rate), C.float(first), C.float(second), C.float(epsilon))
}

func relu(x []float32) {
	C.trainyard_relu(C.size_t(len(x)), pointer(x))
}

func reluBack(y, dy []float32) {
	C.trainyard_relu_back(C.size_t(len(dy)), pointer(y[:len(dy)]), pointer(dy))
}

func sumRows(m blas32.General, sums []float32) {
	clear(sums)
	if len(m.Data) == 0 {
		return
	}
	C.trainyard_sum_rows(C.size_t(m.Rows), C.size_t(m.Cols), C.size_t(m.Stride), pointer(m.Data), pointer(sums[:m.Cols]))
}

func softmax(m blas32.General) {
	if m.Stride == m.Cols {
		C.trainyard_softmax(C.size_t(m.Rows), C.size_t(m.Cols), pointer(m.Data))
		return
	}
	for i := range m.Rows {
		C.trainyard_softmax(1, C.size_t(m.Cols), pointer(row(m, i)))
	}
}

func allFinite(v []float32) bool {
	return C.trainyard_all_finite(C.size_t(len(v)), (*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(v)))) != 0
}

func pointer(v []float32) *C.float { return (*C.float)(unsafe.SliceData(v)) }
