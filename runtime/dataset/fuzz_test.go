package dataset

import (
	"errors"
	"math"
	"testing"

	"trainyard.dev/trainyard/runtime/spec"
)

// Whatever the bytes, Read gives a Set whose parts fit together, or an
// InvalidError.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"", flowers, gzipped(flowers), gzipped(flowers)[:20], "\x1f\x8b", "\xef\xbb\xbfx,y\n1,2\n3,4\n",
		"x,y\r\n1,2\r\n", "x,y\n\"1\",\"a\"\"b\"\n", "x,y\n\"1,2\n", "0,0\n", "y\n", ",\n,\n", "x,y\n1,nan\n", "x,y\n0x1p3,1_0\n",
		"x,y\n1,a\n2,a\n3,b\n4,b\n",
	} {
		f.Add([]byte(seed), "y", true, uint8(0))
		f.Add([]byte(seed), "1", false, uint8(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, label string, header bool, choice uint8) {
		o := Options{
			Dataset: spec.Dataset{
				Label: label, Header: &header, ValidationFraction: float64(choice&1) * 0.4,
				Scaling: []spec.Scaling{spec.NoScaling, spec.StandardScaling, spec.MinMaxScaling}[choice>>2%3],
			},
			Target: Target(choice >> 1 & 1), MemoryBytes: 1 << 24,
		}
		set, err := Read(t.Context(), write(t, string(data)), o)
		if err != nil {
			if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) {
				t.Fatalf("not an InvalidError: %v", err)
			}
			return
		}
		if set.Train.X.Rows == 0 {
			t.Fatal("no rows to train on")
		}
		for _, p := range []Part{set.Train, set.Validation} {
			checkPart(t, set, p)
		}
	})
}

func checkPart(t *testing.T, set *Set, p Part) {
	if p.X.Cols != len(set.Columns) || len(p.X.Data) != p.X.Rows*p.X.Cols || len(p.Y) != p.X.Rows {
		t.Fatalf("%d columns, X %dx%d of %d values, %d labels", len(set.Columns), p.X.Rows, p.X.Cols, len(p.X.Data), len(p.Y))
	}
	for _, v := range p.X.Data {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			t.Fatalf("feature %v", v)
		}
	}
	for _, y := range p.Y {
		if set.Classes != nil && (y != float32(int(y)) || int(y) < 0 || int(y) >= len(set.Classes)) {
			t.Fatalf("label %v of %d classes", y, len(set.Classes))
		}
	}
}
