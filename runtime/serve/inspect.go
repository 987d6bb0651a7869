package serve

import (
	"errors"
	"fmt"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/spec"
)

// Shape is what clients rely on of a model: its inputs, its outputs, and how
// they are called.
type Shape struct {
	signature
	// Parameters is the number of trained weights.
	Parameters int64
}

// Inspect opens the model in dir and lets it answer its golden rows, as a server
// would that loads it. The error says why no server could.
func Inspect(dir string) (*Shape, error) {
	opened, err := model.Open(dir)
	if err != nil {
		// The folder says nothing to whoever made the model.
		return nil, errors.Unwrap(err)
	}
	v, err := checked(spec.ServedModel{}, opened, func() {
		_ = opened.Close() // nothing can be done about an unmapping that fails
	})
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	defer v.release()
	return &Shape{v.signature, opened.Network.Parameters()}, nil
}

// Admits returns nil if a model of shape next may take the place of one of shape
// s: who asks the one, and reads its answers, can do so with the other.
func (s *Shape) Admits(next *Shape) error {
	if err := s.admits(&next.signature); err != nil {
		return fmt.Errorf("it doesn't fit the model that is served: %w", err)
	}
	return nil
}
