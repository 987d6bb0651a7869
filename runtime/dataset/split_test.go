package dataset

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/spec"
)

// classRows has for each class that many rows; x is the row's number.
func classRows(sizes ...int) string {
	var b strings.Builder
	b.WriteString("x,y\n")
	row := 0
	for class, size := range sizes {
		for range size {
			fmt.Fprintf(&b, "%d,c%d\n", row, class)
			row++
		}
	}
	return b.String()
}

func countClasses(p Part, classes int) []int {
	counts := make([]int, classes)
	for _, y := range p.Y {
		counts[int(y)]++
	}
	return counts
}

func TestSplitIsStratified(t *testing.T) {
	for _, test := range []struct {
		sizes    []int
		fraction float64
		want     []int // validation rows of each class
	}{
		{[]int{10, 10}, 0.2, []int{2, 2}},
		{[]int{100, 10}, 0.2, []int{20, 2}},
		{[]int{5, 5, 5}, 0.1, []int{1, 1, 0}}, // 1.5 rows, rounded, the first classes first
		{[]int{2, 2}, 0.9, []int{1, 1}},       // a row of each stays
		{[]int{2, 2}, 0.01, []int{1, 0}},      // at least one row when some are asked for
		{[]int{3, 7}, 0, []int{0, 0}},
		{[]int{1, 7}, 0, []int{0, 0}},
	} {
		o := labelled("y")
		o.Target, o.ValidationFraction = Classes, test.fraction
		set := mustRead(t, classRows(test.sizes...), o)
		got := countClasses(set.Validation, len(test.sizes))
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%v at %v: %s", test.sizes, test.fraction, diff)
		}
		for c, n := range countClasses(set.Train, len(test.sizes)) {
			if n+got[c] != test.sizes[c] {
				t.Errorf("%v at %v: class %d has %d + %d rows", test.sizes, test.fraction, c, n, got[c])
			}
		}
	}
}

// Every row is in one part, once, with its own label, in the file's order.
func TestSplitKeepsRows(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		n := 2 + random.IntN(200)
		var data strings.Builder
		data.WriteString("x,z,y\n")
		for i := range n {
			fmt.Fprintf(&data, "%d,%d,%d\n", i, -i, 3*i)
		}
		o := labelled("y")
		o.ValidationFraction, o.Seed = random.Float64(), random.Int64()
		set := mustRead(t, data.String(), o)
		wantRows := min(n-1, max(1, int(math.Round(o.ValidationFraction*float64(n)))))
		if set.Validation.X.Rows != wantRows {
			t.Fatalf("%d of %d validation rows at %v, want %d", set.Validation.X.Rows, n, o.ValidationFraction, wantRows)
		}
		seen := map[float32]bool{}
		for _, p := range []Part{set.Train, set.Validation} {
			if len(p.Y) != p.X.Rows || len(p.X.Data) != 2*p.X.Rows || !slices.IsSorted(p.Y) {
				t.Fatalf("%d labels in order %v, %d rows, %d values", len(p.Y), slices.IsSorted(p.Y), p.X.Rows, len(p.X.Data))
			}
			for i, y := range p.Y {
				x := p.X.Data[i*p.X.Stride]
				if 3*x != y || p.X.Data[i*p.X.Stride+1] != -x || seen[x] {
					t.Fatalf("row %v, %v has label %v (seen before: %v)", x, p.X.Data[i*p.X.Stride+1], y, seen[x])
				}
				seen[x] = true
			}
		}
		if len(seen) != n {
			t.Fatalf("%d of %d rows", len(seen), n)
		}
	}
}

func TestSplitFollowsSeed(t *testing.T) {
	read := func(seed int64) []float32 {
		o := labelled("y")
		o.Target, o.ValidationFraction, o.Seed = Classes, 0.3, seed
		return mustRead(t, classRows(50, 50), o).Validation.X.Data
	}
	if diff := cmp.Diff(read(7), read(7), values); diff != "" {
		t.Error("the same seed drew other rows:", diff)
	}
	if cmp.Equal(read(7), read(8)) {
		t.Error("another seed drew the same rows")
	}
}

func TestScaling(t *testing.T) {
	const data = "a,b,c,y\n1,5,100000001,0\n3,5,100000001,0\n5,5,100000009,0\n7,5,100000001,0\n"
	for _, test := range []struct {
		kind        spec.Scaling
		mean, scale []float32
	}{
		{spec.StandardScaling, []float32{4, 5, 100000002}, []float32{1 / math.Sqrt2 / 1.5811388, 1, 1 / 3.4641016}},
		{spec.MinMaxScaling, []float32{1, 5, 100000000}, []float32{1. / 6, 1, 1. / 8}},
	} {
		o := labelled("y")
		o.Scaling = test.kind
		set := mustRead(t, data, o)
		for j := range test.mean {
			if set.Scaling.Mean[j] != test.mean[j] || math.Abs(float64(set.Scaling.Scale[j]/test.scale[j]-1)) > 1e-6 {
				t.Errorf("%s, column %d: (x-%v)*%v, want (x-%v)*%v", test.kind, j, set.Scaling.Mean[j], set.Scaling.Scale[j], test.mean[j], test.scale[j])
			}
		}
		for i := range set.Train.X.Rows {
			if x := set.Train.X.Data[3*i+1]; x != 0 {
				t.Errorf("%s: the constant column became %v", test.kind, x)
			}
		}
	}
}

// Validation rows must not leak into the scaling, but are scaled with it.
func TestScalingIsFittedOnTrainingRows(t *testing.T) {
	var data strings.Builder
	data.WriteString("x,y\n")
	for i := range 100 {
		fmt.Fprintf(&data, "%d,%d\n", i*i, i)
	}
	o := labelled("y")
	o.ValidationFraction = 0.5
	plain := mustRead(t, data.String(), o)
	o.Scaling = spec.StandardScaling
	scaled := mustRead(t, data.String(), o)

	want, err := fitScaling(o.Scaling, plain.Train.X, plain.Columns)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, scaled.Scaling); diff != "" {
		t.Error(diff)
	}
	for i, x := range plain.Validation.X.Data {
		if got := scaled.Validation.X.Data[i]; got != (x-want.Mean[0])*want.Scale[0] {
			t.Errorf("validation row %d: %v", i, got)
		}
	}
}

func TestScalingOfTinySpread(t *testing.T) {
	o := labelled("y")
	o.Scaling = spec.MinMaxScaling
	set := mustRead(t, "x,y\n0,1\n1e-45,1\n", o)
	if x := set.Train.X.Data[1]; math.IsInf(float64(x), 0) || math.IsNaN(float64(x)) {
		t.Errorf("scaled to %v", x)
	}
}
