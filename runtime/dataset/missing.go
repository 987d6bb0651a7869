package dataset

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/spec"
)

// fillMissing puts numbers in the places of missing ones: the mean of the
// column's training rows, or a constant.
func fillMissing(policy *spec.Missing, train, validation blas32.General, names []string) error {
	if policy == nil || policy.Policy == spec.DropRow {
		return nil
	}
	fillers := make([]float32, train.Cols)
	for j := range fillers {
		fillers[j] = float32(policy.Value)
	}
	if policy.Policy == spec.FillMean {
		if err := knownMeans(train, names, fillers); err != nil {
			return err
		}
	}
	for _, x := range []blas32.General{train, validation} {
		for i, v := range x.Data {
			if math.IsNaN(float64(v)) {
				x.Data[i] = fillers[i%x.Cols]
			}
		}
	}
	return nil
}

// knownMeans computes the mean of what is not missing in each column.
func knownMeans(x blas32.General, names []string, means []float32) error {
	sums, counts := make([]float64, x.Cols), make([]float64, x.Cols)
	for i, v := range x.Data {
		if !math.IsNaN(float64(v)) {
			sums[i%x.Cols] += float64(v)
			counts[i%x.Cols]++
		}
	}
	for j := range means {
		if counts[j] == 0 {
			return invalidf("the value is missing in every row that is trained on, so there is no mean; leave the column out, or use missing.policy Constant").at(0, names[j])
		}
		means[j] = float32(sums[j] / counts[j])
	}
	return nil
}

func checkMissing(m *spec.Missing) *InvalidError {
	if m == nil {
		return nil
	}
	switch m.Policy {
	case spec.DropRow, spec.FillMean, spec.FillConstant:
	default:
		return invalidf("missing.policy %q is not known; use %s, %s or %s", m.Policy, spec.DropRow, spec.FillMean, spec.FillConstant)
	}
	if _, err := finite(m.Value); err != nil {
		return invalidf("missing.value: %s", err.Problem)
	}
	return nil
}
