package nn

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"
)

// Metric measures predictions batch by batch. Its zero value is ready for use.
//
// For classes, predictions have a column for each class, or one column with the
// probability of class 1; a target is the index of a class. For numbers, there
// is one target for each prediction.
type Metric interface {
	// Add takes up a batch of predictions and the targets of its rows.
	Add(predictions blas32.General, y []float32)
	// Value is the measure of all batches since the last Reset: NaN where it is
	// not defined, as for no rows.
	Value() float64
	// Reset forgets what was added.
	Reset()
}

// predictedClass returns the class with the largest probability, the first of
// equals; with one column, class 1 above 0.5.
func predictedClass(p []float32) int {
	if len(p) == 1 {
		if p[0] > 0.5 {
			return 1
		}
		return 0
	}
	best := 0
	for i, v := range p {
		if v > p[best] {
			best = i
		}
	}
	return best
}

// Accuracy is the fraction of rows whose class was predicted.
type Accuracy struct{ right, rows int }

// Add takes up a batch.
func (a *Accuracy) Add(predictions blas32.General, y []float32) {
	for i := range predictions.Rows {
		if predictedClass(row(predictions, i)) == int(y[i]) {
			a.right++
		}
	}
	a.rows += predictions.Rows
}

// Value returns the fraction.
func (a *Accuracy) Value() float64 { return ratio(float64(a.right), float64(a.rows)) }

// Reset forgets all rows.
func (a *Accuracy) Reset() { *a = Accuracy{} }

// TopKAccuracy is the fraction of rows for which fewer than K classes were held
// for more probable than the right one. Predictions have a column for each
// class.
type TopKAccuracy struct {
	// K is customarily 5, which 0 stands for.
	K           int
	right, rows int
}

// Add takes up a batch.
func (t *TopKAccuracy) Add(predictions blas32.General, y []float32) {
	k := t.K
	if k == 0 {
		k = 5
	}
	for i := range predictions.Rows {
		p, better := row(predictions, i), 0
		for _, v := range p {
			if v > p[int(y[i])] {
				better++
			}
		}
		if better < k {
			t.right++
		}
	}
	t.rows += predictions.Rows
}

// Value returns the fraction.
func (t *TopKAccuracy) Value() float64 { return ratio(float64(t.right), float64(t.rows)) }

// Reset forgets all rows.
func (t *TopKAccuracy) Reset() { *t = TopKAccuracy{K: t.K} }

// regression collects what the metrics of numbers need.
type regression struct {
	count         float64
	abs, squares  float64 // of the errors
	mean, squared float64 // of the targets: mean, and sum of squares about it (Welford, 1962)
}

// Add takes up a batch.
func (r *regression) Add(predictions blas32.General, y []float32) {
	for i := range predictions.Rows {
		for j, p := range row(predictions, i) {
			target := float64(y[i*predictions.Cols+j])
			e := float64(p) - target
			r.count++
			r.abs += math.Abs(e)
			r.squares += e * e
			d := target - r.mean
			r.mean += d / r.count
			r.squared += d * (target - r.mean)
		}
	}
}

// Reset forgets all rows.
func (r *regression) Reset() { *r = regression{} }

// MAE is the mean absolute error.
type MAE struct{ regression }

// Value returns the mean.
func (m *MAE) Value() float64 { return ratio(m.abs, m.count) }

// RMSE is the square root of the mean squared error.
type RMSE struct{ regression }

// Value returns the root.
func (m *RMSE) Value() float64 { return math.Sqrt(ratio(m.squares, m.count)) }

// R2 is the coefficient of determination: 1 minus the squared errors over the
// squared deviations of the targets from their mean. When all targets are the
// same, it is 1 for no error and 0 otherwise, as in scikit-learn.
type R2 struct{ regression }

// Value returns the coefficient.
func (m *R2) Value() float64 {
	switch {
	case m.count == 0:
		return math.NaN()
	case m.squared > 0:
		return 1 - m.squares/m.squared
	case m.squares == 0:
		return 1
	}
	return 0
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}
