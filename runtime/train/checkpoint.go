package train

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// checkpointState is all that a run needs to go on, beside the tensors.
type checkpointState struct {
	// Run is what the checkpoint belongs to: see [fit.identity].
	Run string `json:"run"`
	position
	OptimizerSteps int64              `json:"optimizerSteps"`
	Dropout        []byte             `json:"dropout"`
	Metrics        map[string]float64 `json:"metrics,omitempty"`
	Stopping       *stoppingState     `json:"stopping,omitempty"`
}

// tensors are the numbers of a run: of the network, of the optimizer, and the
// best weights.
func (f *fit) tensors() []nn.Tensor {
	tensors := f.network.Tensors()
	for _, s := range f.optimizer.Slots {
		tensors = append(tensors, nn.Tensor{Name: "optimizer." + s.Name, Value: s.Value})
	}
	if f.stopping != nil {
		tensors = append(tensors, f.stopping.best...)
	}
	return tensors
}

// identity is a hash of whose run it is and of all that decides where it goes:
// recipe, data, and which numbers it has.
func (f *fit) identity() (string, error) {
	hash := sha256.New()
	recipe := struct {
		Dataset  spec.Dataset
		Network  spec.Network
		Training spec.Training
		Digest   string
		UID      string
	}{f.job.Dataset, f.job.Network, f.job.Training, f.set.Digest, f.job.Lineage.UID}
	if err := json.NewEncoder(hash).Encode(recipe); err != nil {
		return "", err
	}
	for _, t := range f.tensors() {
		fmt.Fprintf(hash, "%s %d\n", t.Name, len(t.Value))
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func (f *fit) state(run string) (checkpointState, error) {
	dropout, err := f.dropout.MarshalBinary()
	s := checkpointState{
		Run: run, position: f.position, OptimizerSteps: f.optimizer.Steps,
		Dropout: dropout, Metrics: f.metrics,
	}
	if f.stopping != nil {
		s.Stopping = &f.stopping.stoppingState
	}
	return s, err
}

// resume brings f to where it was in the state.
func (f *fit) resume(s checkpointState) error {
	if s.Epoch < 1 || s.Epoch > f.job.Training.Epochs || s.Step < 0 || s.Step > stepsPerEpoch(f.job.Training, f.set) {
		return &damagedError{fmt.Sprintf("epoch %d, step %d is not in the run", s.Epoch, s.Step)}
	}
	f.position, f.metrics, f.optimizer.Steps = s.position, s.Metrics, s.OptimizerSteps
	if f.stopping != nil && s.Stopping != nil {
		f.stopping.stoppingState = *s.Stopping
	}
	return f.dropout.UnmarshalBinary(s.Dropout)
}
