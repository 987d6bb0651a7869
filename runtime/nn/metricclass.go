package nn

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"
)

// confusion counts, for each class, what the metrics per class need.
type confusion struct {
	right, predicted, actual []float64
	binary                   bool
}

// Add takes up a batch.
func (c *confusion) Add(predictions blas32.General, y []float32) {
	c.grow(max(2, predictions.Cols))
	c.binary = predictions.Cols == 1
	for i := range predictions.Rows {
		p, a := predictedClass(row(predictions, i)), int(y[i])
		c.predicted[p]++
		c.actual[a]++
		if p == a {
			c.right[p]++
		}
	}
}

func (c *confusion) grow(classes int) {
	if len(c.right) < classes {
		c.right, c.predicted, c.actual = make([]float64, classes), make([]float64, classes), make([]float64, classes)
	}
}

// Reset forgets all rows.
func (c *confusion) Reset() { *c = confusion{} }

// average returns the mean of measure over the classes that occur, or, for one
// column of predictions, the measure of class 1.
func (c *confusion) average(measure func(right, predicted, actual float64) float64) float64 {
	var sum, classes float64
	for i := range c.right {
		if c.predicted[i]+c.actual[i] == 0 || c.binary && i == 0 {
			continue
		}
		sum += measure(c.right[i], c.predicted[i], c.actual[i])
		classes++
	}
	if c.binary {
		classes = 1
	}
	return ratio(sum, classes)
}

// Precision is the fraction of the rows predicted to be of a class that are. It
// is the mean over the classes that occur (scikit-learn's average="macro"), or,
// for one column of predictions, the precision of class 1. A class that was
// never predicted counts 0.
type Precision struct{ confusion }

// Value returns the fraction.
func (m *Precision) Value() float64 {
	return m.average(func(right, predicted, _ float64) float64 { return right / max(1, predicted) })
}

// Recall is the fraction of the rows of a class that were predicted to be. It
// is averaged as [Precision]. A class without rows counts 0.
type Recall struct{ confusion }

// Value returns the fraction.
func (m *Recall) Value() float64 {
	return m.average(func(right, _, actual float64) float64 { return right / max(1, actual) })
}

// F1 is the harmonic mean of precision and recall of a class,
// 2*right/(predicted+actual). It is averaged as [Precision].
type F1 struct{ confusion }

// Value returns the mean.
func (m *F1) Value() float64 {
	return m.average(func(right, predicted, actual float64) float64 { return 2 * right / max(1, predicted+actual) })
}

// AUC is the area under the receiver operating characteristic: the probability
// that a row of the class gets a higher score than a row of another, where
// equal scores count half (the Mann-Whitney statistic, so exact). With a column
// for each class, it is the mean over the classes, each against all others,
// without those that have no rows or all (scikit-learn's multi_class="ovr").
// It keeps all scores until Reset.
type AUC struct {
	columns [][]float32
	targets []float32
}

// Add takes up a batch.
func (m *AUC) Add(predictions blas32.General, y []float32) {
	if len(m.columns) != predictions.Cols {
		m.columns = make([][]float32, predictions.Cols)
	}
	for i := range predictions.Rows {
		for j, p := range row(predictions, i) {
			m.columns[j] = append(m.columns[j], p)
		}
	}
	m.targets = append(m.targets, y[:predictions.Rows]...)
}

// Value returns the area.
func (m *AUC) Value() float64 {
	if len(m.columns) == 1 {
		return area(m.columns[0], m.targets, 1)
	}
	var sum, classes float64
	for class, scores := range m.columns {
		if a := area(scores, m.targets, class); !math.IsNaN(a) {
			sum += a
			classes++
		}
	}
	return ratio(sum, classes)
}

// Reset forgets all rows.
func (m *AUC) Reset() { *m = AUC{} }

// area ranks the rows by score; rows with equal scores share their mean rank.
func area(scores, targets []float32, class int) float64 {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(scores[a], scores[b]) })

	var ranks, positives float64
	for from := 0; from < len(order); {
		to := from + 1
		for to < len(order) && scores[order[to]] == scores[order[from]] {
			to++
		}
		rank := float64(from+1+to) / 2
		for _, i := range order[from:to] {
			if int(targets[i]) == class {
				ranks += rank
				positives++
			}
		}
		from = to
	}
	negatives := float64(len(order)) - positives
	return ratio(ranks-positives*(positives+1)/2, positives*negatives)
}
