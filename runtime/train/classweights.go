package train

import (
	"maps"
	"slices"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/spec"
)

// checkClassWeights finds weights of classes that the data do not have.
func checkClassWeights(t spec.Training, set *dataset.Set) error {
	for _, label := range slices.Sorted(maps.Keys(t.ClassWeights)) {
		switch w := t.ClassWeights[label]; {
		case !slices.Contains(set.Classes, label):
			return networkInvalid("training.classWeights has a class %q, but column %q has none of that name (%s)", label, set.Label, list(set.Classes))
		case !(w >= 0) || !isFinite(float64(w)):
			return networkInvalid("training.classWeights of class %q is %v; it must be at least 0", label, w)
		}
	}
	return nil
}

// rowWeights returns how much the loss of each training row counts. Nil: all
// count 1.
func rowWeights(t spec.Training, set *dataset.Set) []float32 {
	ofClass := classWeights(t, set)
	if ofClass == nil {
		return nil
	}
	weights := make([]float32, len(set.Train.Y))
	for i, class := range set.Train.Y {
		weights[i] = ofClass[int(class)]
	}
	return weights
}

// classWeights returns the weight of each class, or nil if all are 1.
func classWeights(t spec.Training, set *dataset.Set) []float32 {
	switch {
	case t.BalanceClasses:
		return balanced(set)
	case len(t.ClassWeights) == 0:
		return nil
	}
	weights := make([]float32, len(set.Classes))
	for i, label := range set.Classes {
		weights[i] = 1
		if w, ok := t.ClassWeights[label]; ok {
			weights[i] = float32(w)
		}
	}
	return weights
}

// balanced returns rows/(classes * rows of the class) for each class, as
// scikit-learn's class_weight="balanced".
func balanced(set *dataset.Set) []float32 {
	weights := make([]float32, len(set.Classes))
	for _, class := range set.Train.Y {
		weights[int(class)]++
	}
	all := float32(len(set.Train.Y)) / float32(len(weights))
	for i, rows := range weights {
		weights[i] = all / max(1, rows)
	}
	return weights
}
