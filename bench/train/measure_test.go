package main

import "testing"

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.of, got, c.want)
		}
	}
}

func TestMultiplications(t *testing.T) {
	r := recipe{Layers: []int{100, 64, 32, 10}, Batch: 32}
	want := 32.0 * (2*100*64 + 3*64*32 + 3*32*10)
	if got := r.multiplications(); got != want {
		t.Errorf("%v multiplications, want %v", got, want)
	}
}
