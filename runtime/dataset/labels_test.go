package dataset

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/spec"
)

const oneHotFlowers = "setosa,length,virginica,width,versicolor\n1,5.1,0,3.5,0\n0,6.3,1,3.3,0.0\n0,5.7,0,2.8,1\n1,4.9,0,3.0,0\n"

// One-hot labels are the same classes as labels of one column, in the order in
// which they are listed.
func TestOneHotLabels(t *testing.T) {
	labels := []string{"virginica", "setosa", "versicolor"}
	set := mustRead(t, oneHotFlowers, Options{Target: Classes, Dataset: spec.Dataset{Labels: labels}})
	if diff := cmp.Diff(labels, set.Classes); diff != "" {
		t.Error(diff)
	}
	want := Part{X: general(4, 2, []float32{5.1, 3.5, 6.3, 3.3, 5.7, 2.8, 4.9, 3}), Y: []float32{1, 0, 2, 1}}
	if diff := cmp.Diff(want, set.Train, values); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"length", "width"}, set.Columns); diff != "" {
		t.Error(diff)
	}
}

// A class may have no rows: the last layer has a unit for it all the same.
func TestOneHotLabelsWithoutRows(t *testing.T) {
	set := mustRead(t, "a,b,c,x\n1,0,0,1\n0,0,1,2\n1,0,0,3\n0,0,1,4\n", Options{Target: Classes, Dataset: spec.Dataset{Labels: []string{"0", "1", "2"}, ValidationFraction: 0.5}})
	if len(set.Classes) != 3 || len(set.Train.Y) != 2 || len(set.Validation.Y) != 2 {
		t.Errorf("classes %v, %d and %d rows", set.Classes, len(set.Train.Y), len(set.Validation.Y))
	}
}

func TestOneHotLabelsThatAreNot(t *testing.T) {
	for _, test := range []struct {
		data   string
		labels []string
		target Target
		want   string
	}{
		{"a,b,x\n1,0,5\n1,1,5\n", []string{"a", "b"}, Classes, `row 3, column "a, b": column "b" is "1", but one-hot labels are 1 in the column`},
		{"a,b,x\n1,0,5\n0,0,5\n", []string{"a", "b"}, Classes, `row 3, column "a, b": all of the one-hot labels are 0`},
		{"a,b,x\n1,0,5\n0.5,0.5,5\n", []string{"a", "b"}, Classes, `row 3, column "a, b": column "a" is "0.5", but`},
		{"a,b,x\n1,no,5\n", []string{"a", "b"}, Classes, `row 2, column "a, b": "no" is not a number`},
		{"a,b,x\n1,,5\n", []string{"a", "b"}, Classes, `row 2, column "a, b": the label is missing`},
		{"a,b,x\n1,0,5\n", []string{"a", "bb"}, Classes, `labels: there is no column "bb"`},
		{"a,b,x\n1,0,5\n", []string{"a", "a"}, Classes, `labels: column "a" is listed twice`},
		{"a,b,x\n1,0,5\n", []string{"a"}, Classes, `labels: "a" is one column, but one-hot labels are a column for each class`},
		{"a,b,x\n1,0,5\n", []string{"a", "b"}, Numbers, `labels are the columns of one-hot classes, but the loss is for numbers`},
	} {
		_, err := Read(t.Context(), write(t, test.data), Options{SourceName: "the source", Target: test.target, Dataset: spec.Dataset{Labels: test.labels}})
		if err == nil || !strings.HasPrefix(err.Error(), "the source: "+test.want) {
			t.Errorf("%q: got %v, want %s", test.data, err, test.want)
		}
	}
}
