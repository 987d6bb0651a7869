package train

import (
	"maps"
	"slices"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// stopping decides when training stops before its last epoch, and keeps the
// best weights.
type stopping struct {
	monitor  string
	smaller  bool // is better
	patience int32
	minDelta float64

	stoppingState
	// best are copies of the network's tensors as they stood after BestEpoch. Nil
	// if the last weights are to be published.
	best []nn.Tensor
}

// stoppingState is what a stopping remembers from epoch to epoch, beside the
// best weights.
type stoppingState struct {
	// BestEpoch has the best value so far, Best; 0: there is none yet.
	BestEpoch int32              `json:"bestEpoch"`
	Best      float64            `json:"best"`
	Metrics   map[string]float64 `json:"metrics,omitempty"` // of that epoch
	// Waited is how many epochs in a row were no better.
	Waited int32 `json:"waited"`
}

// newStopping returns nil if there is no such wish.
func newStopping(e *spec.EarlyStopping, network *nn.Network) *stopping {
	if e == nil {
		return nil
	}
	s := &stopping{monitor: string(e.Monitor), patience: e.Patience, minDelta: e.MinDelta}
	name, _ := e.Monitor.Validation()
	s.smaller = name == string(spec.MonitorLoss) || metricKinds[spec.Metric(name)].smallerIsFit
	if given(e.RestoreBestWeights, true) {
		for _, t := range network.Tensors() {
			s.best = append(s.best, nn.Tensor{Name: "best." + t.Name, Value: make([]float32, len(t.Value))})
		}
	}
	return s
}

// stop takes up what was measured after an epoch, and tells whether it is time
// to stop. A measure that is missing (it was no number) is no better.
func (s *stopping) stop(epoch int32, metrics map[string]float64, network *nn.Network) bool {
	value, ok := metrics[s.monitor]
	if !ok || !s.better(value) {
		s.Waited++
		return s.Waited >= s.patience
	}
	s.stoppingState = stoppingState{BestEpoch: epoch, Best: value, Metrics: maps.Clone(metrics)}
	if s.best != nil {
		copyTensors(s.best, network.Tensors())
	}
	return false
}

func (s *stopping) better(value float64) bool {
	switch {
	case s.BestEpoch == 0:
		return true
	case s.smaller:
		return s.Best-value > s.minDelta
	}
	return value-s.Best > s.minDelta
}

// restores tells whether the best weights are to be published.
func (s *stopping) restores() bool {
	return s != nil && s.best != nil && s.BestEpoch > 0
}

func copyTensors(to, from []nn.Tensor) {
	for i, t := range from {
		copy(to[i].Value, t.Value)
	}
}

// checkStopping finds a monitor that is never measured.
func checkStopping(job spec.Train) error {
	e := job.Training.EarlyStopping
	if e == nil {
		return nil
	}
	name, validation := e.Monitor.Validation()
	switch {
	case name != string(spec.MonitorLoss) && !slices.Contains(job.Training.Metrics, spec.Metric(name)):
		return networkInvalid("training.earlyStopping.monitor is %q, which is not measured: add %s to training.metrics, or monitor %s", e.Monitor, name, spec.MonitorValidationLoss)
	case validation && job.Dataset.ValidationFraction == 0:
		return networkInvalid("training.earlyStopping watches %s, but there are no validation rows: set dataset.validationFraction, for example to 0.2, or monitor %s", e.Monitor, name)
	case e.Patience < 1:
		return networkInvalid("training.earlyStopping.patience is %d; it must be at least 1", e.Patience)
	case !(e.MinDelta >= 0):
		return networkInvalid("training.earlyStopping.minDelta is %v; it must be at least 0", e.MinDelta)
	}
	return nil
}
