package serve

import (
	"errors"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/spec"
)

// Inspect opens the model in dir and lets it answer its golden rows, as a server
// would that loads it. It returns what clients rely on, and the number of trained
// weights; the error says why no server could load it.
func Inspect(dir string) (signature *spec.Signature, parameters int64, err error) {
	opened, err := model.Open(dir)
	if err != nil {
		// The folder says nothing to whoever made the model.
		return nil, 0, errors.Unwrap(err)
	}
	v, err := checked(spec.ServedModel{}, opened, func() {
		_ = opened.Close() // nothing can be done about an unmapping that fails
	})
	if err != nil {
		return nil, 0, errors.Join(err, opened.Close())
	}
	defer v.release()
	return v.outline(), opened.Network.Parameters(), nil
}
