package train

import (
	"slices"
	"strings"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// metricKind is what is to be known of a metric.
type metricKind struct {
	forClasses   bool // rather than for numbers
	smallerIsFit bool // as an error is
	make         func(t spec.Training) nn.Metric
}

var metricKinds = map[spec.Metric]metricKind{
	spec.Accuracy:     {forClasses: true, make: func(spec.Training) nn.Metric { return new(nn.Accuracy) }},
	spec.TopKAccuracy: {forClasses: true, make: func(t spec.Training) nn.Metric { return &nn.TopKAccuracy{K: int(t.TopK)} }},
	spec.Precision:    {forClasses: true, make: func(spec.Training) nn.Metric { return new(nn.Precision) }},
	spec.Recall:       {forClasses: true, make: func(spec.Training) nn.Metric { return new(nn.Recall) }},
	spec.F1:           {forClasses: true, make: func(spec.Training) nn.Metric { return new(nn.F1) }},
	spec.AUC:          {forClasses: true, make: func(spec.Training) nn.Metric { return new(nn.AUC) }},
	spec.MAE:          {smallerIsFit: true, make: func(spec.Training) nn.Metric { return new(nn.MAE) }},
	spec.RMSE:         {smallerIsFit: true, make: func(spec.Training) nn.Metric { return new(nn.RMSE) }},
	spec.R2:           {make: func(spec.Training) nn.Metric { return new(nn.R2) }},
}

// metricNames lists the known metrics for classes, or for numbers.
func metricNames(forClasses bool) string {
	var names []string
	for name, kind := range metricKinds {
		if kind.forClasses == forClasses {
			names = append(names, string(name))
		}
	}
	slices.Sort(names)
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func checkMetrics(t spec.Training) error {
	for i, m := range t.Metrics {
		kind, known := metricKinds[m]
		switch {
		case !known:
			return networkInvalid("training.metrics[%d] is %q, which is not known; for classes use %s, for numbers %s", i, m, metricNames(true), metricNames(false))
		case kind.forClasses && !t.Loss.ForClasses():
			return networkInvalid("metric %s is for classes, but loss %s is for numbers; use %s", m, t.Loss, metricNames(false))
		case !kind.forClasses && t.Loss.ForClasses():
			return networkInvalid("metric %s is for numbers, but loss %s is for classes; use %s", m, t.Loss, metricNames(true))
		case m == spec.TopKAccuracy && t.Loss != spec.CategoricalCrossentropy:
			return networkInvalid("metric TopKAccuracy needs loss CategoricalCrossentropy: with two classes, the right one is always among the first two; use Accuracy")
		}
	}
	return nil
}

// metricsOf returns new metrics, one for each name.
func metricsOf(t spec.Training) []nn.Metric {
	metrics := make([]nn.Metric, len(t.Metrics))
	for i, name := range t.Metrics {
		metrics[i] = metricKinds[name].make(t)
	}
	return metrics
}
