package dataset

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/spec"
)

func TestOneHot(t *testing.T) {
	o := labelled("price")
	o.OneHot = []string{"color", "doors"}
	got := mustRead(t, "color,km,doors,price\nred,1,10,5\n blue ,2,9,6\nred,3,10,7\n", o)
	want := &Set{
		Columns: []string{"color=blue", "color=red", "km", "doors=9", "doors=10"}, Label: "price", Digest: got.Digest,
		Train: Part{X: general(3, 5, []float32{
			0, 1, 1, 0, 1,
			1, 0, 2, 1, 0,
			0, 1, 3, 0, 1,
		}), Y: []float32{5, 6, 7}},
		Validation: Part{X: general(0, 5, nil)},
	}
	if diff := cmp.Diff(want, got, values); diff != "" {
		t.Error(diff)
	}
}

const gaps = "color,km,price\nred,1,5\n,2,6\nblue,NaN,7\nred,?,8\nred,3,\nblue,4,9\n"

func TestMissing(t *testing.T) {
	for _, test := range []struct {
		missing spec.Missing
		data    string
		x, y    []float32 // km, color=blue, color=red
	}{
		{spec.Missing{Policy: spec.DropRow}, gaps,
			[]float32{1, 0, 1, 4, 1, 0}, []float32{5, 9}},
		{spec.Missing{Policy: spec.FillConstant, Value: -1}, "color,km,price\nred,1,5\n,2,6\nblue,N/A,7\n",
			[]float32{1, 0, 1, 2, -1, -1, -1, 1, 0}, []float32{5, 6, 7}},
		{spec.Missing{Policy: spec.FillMean}, "color,km,price\nred,1,5\nnull,2,6\nblue,,7\nred,NA,8\n",
			[]float32{1, 0, 1, 2, 1. / 3, 2. / 3, 1.5, 1, 0, 1.5, 0, 1}, []float32{5, 6, 7, 8}},
	} {
		o := labelled("price", "km", "color")
		o.OneHot, o.Missing = []string{"color"}, &test.missing
		got := mustRead(t, test.data, o)
		if diff := cmp.Diff(Part{X: general(len(test.y), 3, test.x), Y: test.y}, got.Train, values); diff != "" {
			t.Errorf("%s: %s", test.missing.Policy, diff)
		}
	}
}

// A category that is only in rows that were left out has no column.
func TestDroppedCategory(t *testing.T) {
	o := labelled("price")
	o.OneHot, o.Missing = []string{"color"}, &spec.Missing{Policy: spec.DropRow}
	got := mustRead(t, "color,km,price\ngreen,?,5\nred,1,6\n", o)
	if diff := cmp.Diff([]string{"color=red", "km"}, got.Columns); diff != "" {
		t.Error(diff)
	}
}

// The mean is that of the training rows, as what is only validated on must not
// be seen before.
func TestMeanOfTrainingRows(t *testing.T) {
	o := labelled("y")
	o.Missing, o.ValidationFraction = &spec.Missing{Policy: spec.FillMean}, 0.5
	got := mustRead(t, "x,z,y\n1,?,0\n2,?,0\n4,?,0\n8,?,0\n16,1,0\n32,1,0\n64,1,0\n128,1,0\n,1,0\n,1,0\n", o)
	sum, known := float32(0), float32(0)
	var fillers []float32
	for _, part := range []Part{got.Train, got.Validation} {
		for i := range part.X.Rows {
			v := part.X.Data[2*i]
			if isPower := v == float32(math.Exp2(math.Round(math.Log2(float64(v))))) && v >= 1; !isPower {
				fillers = append(fillers, v)
			} else if part.X.Rows == got.Train.X.Rows && &part.X.Data[0] == &got.Train.X.Data[0] {
				sum, known = sum+v, known+1
			}
		}
	}
	if len(fillers) != 2 || fillers[0] != sum/known || fillers[1] != sum/known {
		t.Errorf("filled in %v, want %v", fillers, sum/known)
	}
}
