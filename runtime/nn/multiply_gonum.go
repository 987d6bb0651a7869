//go:build !openblas

package nn

import "gonum.org/v1/gonum/blas/blas32"

// parallelFrom is from how many multiplications on it pays to wake other
// goroutines: that is some 0.1 ms of one core's work.
const parallelFrom = 1 << 19

// tileOf returns the size of the tiles of a product. gonum's Gemm starts
// goroutines of its own (and allocates) for every product of more than 3 blocks
// of 64 x 64; these tiles stay below that.
func tileOf(_, _, _ int) (tileRows, tileCols int) { return 64, 192 }

// packedLanes: gonum's Gemm copies nothing that a second copy of the weights would
// spare.
const packedLanes = 0

func findColumns(blas32.General, []int32) {}

func multiplyPacked(int, int, []int32, blas32.General, []float32, []float32, int, blas32.General) {
	panic("nn: no kernel for packed weights")
}
