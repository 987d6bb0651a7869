package serve

import (
	"fmt"

	"trainyard.dev/trainyard/runtime/spec"
)

// outline is the signature as everyone else knows it.
func (s *signature) outline() *spec.Signature {
	return spec.NewSignature(s.features, s.outputs, s.columns, s.classes)
}

// contract is what a new version has to fit: the version that answers now.
type contract struct {
	*spec.Signature
	version string
}

func (v *version) contract() *contract { return &contract{v.outline(), v.model.Version()} }

// check returns an error that says how v breaks the contract and what to do.
func (c *contract) check(v *version) error {
	if err := c.Admits(v.outline()); err != nil {
		return unfit{fmt.Errorf("version %s does not fit version %s, whose clients it would get: %w; if they know, load it with newContract",
			v.model.Version(), c.version, err)}
	}
	return nil
}
