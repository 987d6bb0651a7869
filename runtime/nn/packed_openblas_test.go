//go:build openblas

package nn

import "testing"

// A processor with AVX-512 runs the kernel for AVX2, too, which others have.
func TestFrozenWithAVX2(t *testing.T) {
	if packedLanes < 8 {
		t.Skip("this processor has no AVX2")
	}
	best := packedLanes
	packedLanes = 8
	defer func() { packedLanes = best }()
	t.Run("predicts the same", TestFrozenPredictsTheSame)
	t.Run("keeps NaN", TestFrozenKeepsNaN)
	t.Run("is exact", TestFrozenIsExact)
}
