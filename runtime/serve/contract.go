package serve

import (
	"fmt"
	"slices"
)

// admits returns nil if every request that fits s, and every reader of its
// answers, will be served by a model of signature next as well: the same inputs
// in the same order, the same outputs, the same classes. Names for what had
// none are no change.
func (s *signature) admits(next *signature) error {
	switch {
	case next.features != s.features:
		return fmt.Errorf("it takes %d inputs, not %d%s", next.features, s.features, s.columnsBeside(next))
	case len(s.columns) != 0 && !slices.Equal(next.columns, s.columns):
		return fmt.Errorf("its input columns are not the same in the same order%s", s.columnsBeside(next))
	case next.outputs != s.outputs:
		return fmt.Errorf("it gives %d outputs, not %d", next.outputs, s.outputs)
	case len(s.classes) != 0 && !slices.Equal(next.classes, s.classes):
		return fmt.Errorf("its classes are %s, not %s", few(next.classes), few(s.classes))
	}
	return nil
}

// columnsBeside names the columns that only one of the two has.
func (s *signature) columnsBeside(next *signature) string {
	var text string
	if gone := without(s.columns, next.columns); len(gone) > 0 {
		text += "; it lacks " + few(gone)
	}
	if added := without(next.columns, s.columns); len(added) > 0 {
		text += "; it has also " + few(added)
	}
	return text
}

// without returns those of names that are not among others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(others, name) })
}

// contract is what a new version has to fit: the version that answers now.
type contract struct {
	signature
	version string
}

func (v *version) contract() *contract { return &contract{v.signature, v.model.Version()} }

// check returns an error that says how v breaks the contract and what to do.
func (c *contract) check(v *version) error {
	if err := c.admits(&v.signature); err != nil {
		return unfit{fmt.Errorf("version %s does not fit version %s, whose clients it would get: %w; if they know, load it with newContract",
			v.model.Version(), c.version, err)}
	}
	return nil
}
