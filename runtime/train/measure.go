package train

import (
	"context"
	"math"

	"trainyard.dev/trainyard/runtime/dataset"
	"trainyard.dev/trainyard/runtime/spec"
)

// measure computes loss and metrics of both parts of the data as the network
// stands after the epoch. The loss of the training rows is the one that is made
// small: class weights count. Validation rows count 1 each, as in Keras. Of several
// workers, the one that leads does so, and the others hear of it.
func (f *fit) measure(ctx context.Context) error {
	measured := map[string]float64{}
	if f.others.leader() {
		if err := f.measureParts(ctx, measured); err != nil {
			return err
		}
	}
	measured, err := f.others.hear(measured)
	if err != nil {
		return err
	}
	f.metrics = measured
	if _, ok := measured["Loss"]; !ok {
		if err := f.startAt(0); err != nil {
			return err
		}
		b, err := f.next(batchRows(f.job.Training, f.set))
		if err != nil {
			return err
		}
		f.trainer.Gradients(b.x, b.y, b.weights) // to see where
		return f.diverged(math.NaN())
	}
	return nil
}

func (f *fit) measureParts(ctx context.Context, measured map[string]float64) error {
	if err := f.measurePart(ctx, f.set.Train, f.weights, "", measured); err != nil {
		return err
	}
	if f.set.Validation.X.Rows == 0 {
		return nil
	}
	return f.measurePart(ctx, f.set.Validation, nil, "Validation", measured)
}

// measurePart leaves out what is infinite or not defined: JSON has no word for
// it.
func (f *fit) measurePart(ctx context.Context, part dataset.Part, weights []float32, prefix string, measured map[string]float64) error {
	metrics := metricsOf(f.job.Training)
	loss, err := f.trainer.Evaluate(ctx, part.X, part.Y, weights, metrics...)
	if err != nil {
		return err
	}
	if isFinite(loss) {
		measured[prefix+"Loss"] = loss
	}
	for i, name := range f.job.Training.Metrics {
		if v := metrics[i].Value(); isFinite(v) {
			measured[prefix+string(name)] = v
		}
	}
	return nil
}

// diverged explains a loss that is no number any more.
func (f *fit) diverged(loss float64) error {
	where := ""
	if place := f.trainer.NonFinite(); place != "" {
		where = "; the first number that is not finite is in " + place
	}
	advice := "lower training.optimizer.learningRate"
	if f.job.Dataset.Scaling == "" || f.job.Dataset.Scaling == spec.NoScaling {
		advice = "set dataset.scaling to Standard, or " + advice
	}
	return invalidf(spec.ReasonDiverged, "the loss became %v in epoch %d, step %d%s: %s (it is %v)",
		loss, f.Epoch, f.Step, where, advice, f.job.Training.Optimizer.LearningRate)
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
