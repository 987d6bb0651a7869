package dataset

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/spec"
)

// Scaling maps each column x to (x-Mean)*Scale, in float32, as
// nn.Normalization does.
type Scaling struct {
	Mean, Scale []float32
}

// fitScaling finds the scaling of x's columns: by mean and population standard
// deviation, or by minimum and range. A column that is constant has none, so
// it is only moved to 0.
func fitScaling(kind spec.Scaling, x blas32.General, names []string) (*Scaling, error) {
	if kind == "" || kind == spec.NoScaling {
		return nil, nil
	}
	if kind != spec.StandardScaling && kind != spec.MinMaxScaling {
		return nil, invalidf("scaling %q is not known; use %s, %s or %s", kind, spec.NoScaling, spec.StandardScaling, spec.MinMaxScaling)
	}
	s := &Scaling{Mean: make([]float32, x.Cols), Scale: make([]float32, x.Cols)}
	for j, c := range measure(x) {
		width := c.max - c.min
		if width > math.MaxFloat32 {
			return nil, invalidf("the values range from %g to %g, too far for 32-bit numbers; scale them down or leave the column out", c.min, c.max).at(0, names[j])
		}
		offset, spread := c.mean, c.deviation
		if kind == spec.MinMaxScaling {
			offset, spread = c.min, width
		}
		s.Mean[j], s.Scale[j] = float32(offset), float32(1/spread)
		if width == 0 {
			// Exactly the value: a mean is rounded.
			s.Mean[j], s.Scale[j] = float32(c.min), 1
		} else if math.IsInf(float64(s.Scale[j]), 0) {
			s.Scale[j] = 1
		}
	}
	return s, nil
}

// apply scales x in place. A validation row can be so far from the training
// rows that float32 cannot hold the result.
func (s *Scaling) apply(x blas32.General, names []string) error {
	if s == nil {
		return nil
	}
	for i := range x.Rows {
		row := x.Data[i*x.Stride : i*x.Stride+x.Cols]
		for j, v := range row {
			row[j] = (v - s.Mean[j]) * s.Scale[j]
			if math.IsInf(float64(row[j]), 0) {
				return invalidf("the value %g is too far from the other values to be scaled with them; correct it or leave it out", v).at(0, names[j])
			}
		}
	}
	return nil
}

// column is what is known of a column's values.
type column struct{ min, max, mean, deviation float64 }

// measure goes through x twice: deviations from the mean, rather than squares,
// keep their digits when the mean is far from 0.
func measure(x blas32.General) []column {
	columns := make([]column, x.Cols)
	for j := range columns {
		columns[j] = column{min: math.Inf(1), max: math.Inf(-1)}
	}
	n := float64(x.Rows)
	each := func(f func(c *column, v float64)) {
		for i := range x.Rows {
			for j, v := range x.Data[i*x.Stride : i*x.Stride+x.Cols] {
				f(&columns[j], float64(v))
			}
		}
	}
	each(func(c *column, v float64) {
		c.min, c.max, c.mean = min(c.min, v), max(c.max, v), c.mean+v/n
	})
	each(func(c *column, v float64) { c.deviation += (v - c.mean) * (v - c.mean) / n })
	for j := range columns {
		columns[j].deviation = math.Sqrt(columns[j].deviation)
	}
	return columns
}
