//go:build !openblas

package nn

// gonum's Gemm starts goroutines of its own (and allocates) for every product of
// more than 3 blocks of 64 x 64; these tiles stay below that.
const (
	tileRows     = 64
	tileCols     = 192
	parallelFrom = 1 << 19
)
