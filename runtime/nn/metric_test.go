package nn

import (
	"math"
	"testing"
)

// The wanted values follow from counting on paper.
func TestMetrics(t *testing.T) {
	three := matrix(5, 3, []float32{
		.7, .2, .1, // 0, right
		.1, .5, .4, // 1, is 2
		.2, .6, .2, // 1, right
		.1, .1, .8, // 2, right
		.4, .3, .3, // 0, is 1
	})
	classes := []float32{0, 2, 1, 2, 1}
	one := matrix(6, 1, []float32{.9, .8, .6, .4, .4, .1})
	binary := []float32{1, 0, 1, 1, 0, 0} // 2 true and 1 false positive, 1 false negative
	numbers := matrix(4, 1, []float32{1, 2, 3, 5})
	targets := []float32{1, 2, 5, 4} // errors 0, 0, 2, 1; mean 3, squares about it 10

	for _, c := range []struct {
		name   string
		metric Metric
		want   float64
		kind   string
	}{
		{"Accuracy", &Accuracy{}, 3.0 / 5, "three"},
		{"TopKAccuracy 1", &TopKAccuracy{K: 1}, 3.0 / 5, "three"},
		{"TopKAccuracy 2", &TopKAccuracy{K: 2}, 1, "three"},
		{"TopKAccuracy", &TopKAccuracy{}, 1, "three"},
		{"Precision", &Precision{}, (0.5 + 0.5 + 1) / 3, "three"},
		{"Recall", &Recall{}, (1 + 0.5 + 0.5) / 3, "three"},
		{"F1", &F1{}, (2.0/3 + 0.5 + 2.0/3) / 3, "three"},
		// 0: above all 4 others. 1: .6, .3 against .2, .5, .1: 5 of 6.
		// 2: .4, .8 against .1, .2, .3: all.
		{"AUC", &AUC{}, (1 + 5.0/6 + 1) / 3, "three"},
		{"binary Accuracy", &Accuracy{}, 4.0 / 6, "one"},
		{"binary Precision", &Precision{}, 2.0 / 3, "one"},
		{"binary Recall", &Recall{}, 2.0 / 3, "one"},
		{"binary F1", &F1{}, 2.0 / 3, "one"},
		// .9 beats 3, .6 beats 2, .4 beats 1 and shares 1.
		{"binary AUC", &AUC{}, 6.5 / 9, "one"},
		{"MAE", &MAE{}, 3.0 / 4, "numbers"},
		{"RMSE", &RMSE{}, math.Sqrt(5.0 / 4), "numbers"},
		{"R2", &R2{}, 1 - 5.0/10, "numbers"},
	} {
		p, y := three, classes
		switch c.kind {
		case "one":
			p, y = one, binary
		case "numbers":
			p, y = numbers, targets
		}
		if got := c.metric.Value(); !math.IsNaN(got) {
			t.Errorf("%s of nothing is %v, want NaN", c.name, got)
		}
		c.metric.Add(part(p, 0, 0, p.Rows, p.Cols), y)
		c.metric.Reset()
		for i := range p.Rows { // one batch a row
			c.metric.Add(part(p, i, 0, 1, p.Cols), y[i:i+1])
		}
		if got := c.metric.Value(); math.Abs(got-c.want) > 1e-7 {
			t.Errorf("%s is %v, want %v", c.name, got, c.want)
		}
	}
}

func TestMetricsAtTheEdge(t *testing.T) {
	same := matrix(2, 1, []float32{3, 3})
	r2 := &R2{}
	r2.Add(same, []float32{3, 3})
	if r2.Value() != 1 {
		t.Errorf("R2 of exact predictions of a constant is %v, want 1", r2.Value())
	}
	r2.Add(same, []float32{3, 3})
	r2.Reset()
	r2.Add(same, []float32{2, 2})
	if r2.Value() != 0 {
		t.Errorf("R2 of wrong predictions of a constant is %v, want 0", r2.Value())
	}
	// Far from 0, a plain sum of squares would have lost everything.
	r2.Reset()
	r2.Add(matrix(2, 1, []float32{1e6, 1e6 + 2}), []float32{1e6, 1e6 + 2})
	if r2.Value() != 1 {
		t.Errorf("R2 far from 0 is %v, want 1", r2.Value())
	}
	auc := &AUC{}
	auc.Add(same, []float32{1, 1})
	if !math.IsNaN(auc.Value()) {
		t.Errorf("AUC of one class alone is %v, want NaN", auc.Value())
	}
	recall := &Recall{}
	recall.Add(matrix(1, 1, []float32{0.1}), []float32{0})
	if recall.Value() != 0 {
		t.Errorf("binary recall without positives is %v, want 0", recall.Value())
	}
}
