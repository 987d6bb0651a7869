package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Signature is what clients rely on of a model: what it takes and gives, and how
// that is called. It is short, however many names there are.
type Signature struct {
	// inputs is how many numbers a row has.
	Inputs int64 `json:"inputs"`

	// outputs is how many numbers the answer to a row has.
	Outputs int64 `json:"outputs"`

	// columns are the names of the inputs in their order, as a JSON list, or the
	// SHA-256 of that if it is long. Empty: they have none.
	//
	// +optional
	Columns string `json:"columns,omitempty"`

	// classes are the labels that the outputs stand for, in the same form. Empty:
	// the model predicts numbers.
	//
	// +optional
	Classes string `json:"classes,omitempty"`
}

// NewSignature is that of a model with these names.
func NewSignature(inputs, outputs int, columns, classes []string) *Signature {
	return &Signature{Inputs: int64(inputs), Outputs: int64(outputs), Columns: shortened(columns), Classes: shortened(classes)}
}

// longestNames bounds the names that are kept as they are: a trainer has to tell
// them in its termination message.
const longestNames = 512

const digestPrefix = "sha256:"

func shortened(names []string) string {
	if len(names) == 0 {
		return ""
	}
	list, err := json.Marshal(names)
	if err != nil {
		panic(err) // these are texts
	}
	if len(list) <= longestNames {
		return string(list)
	}
	sum := sha256.Sum256(list)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// Admits returns nil if a model of signature next may take the place of one of
// signature s: who asks the one, and reads its answers, can do so with the other.
// Names for what had none are no change.
func (s *Signature) Admits(next *Signature) error {
	switch {
	case next.Inputs != s.Inputs:
		return fmt.Errorf("it takes %d inputs, not %d%s", next.Inputs, s.Inputs, unlike(next.Columns, s.Columns))
	case s.Columns != "" && next.Columns != s.Columns:
		return fmt.Errorf("its input columns are not the same in the same order%s", unlike(next.Columns, s.Columns))
	case next.Outputs != s.Outputs:
		return fmt.Errorf("it gives %d outputs, not %d", next.Outputs, s.Outputs)
	case s.Classes != "" && next.Classes != s.Classes:
		return fmt.Errorf("its classes are not the same in the same order%s", unlike(next.Classes, s.Classes))
	}
	return nil
}

// unlike says which names only one of two lists has, as far as they are known.
func unlike(next, before string) string {
	after, known := names(next)
	of, alsoKnown := names(before)
	if !known || !alsoKnown {
		return ""
	}
	text := ""
	if gone := without(of, after); len(gone) > 0 {
		text += "; it lacks " + few(gone)
	}
	if added := without(after, of); len(added) > 0 {
		text += "; it has also " + few(added)
	}
	return text
}

func names(list string) (names []string, known bool) {
	known = list == "" || json.Unmarshal([]byte(list), &names) == nil
	return names, known
}

// without returns those of names that are not among others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(others, name) })
}

// few names the first of many.
func few(names []string) string {
	const most = 5
	text := strings.Join(names[:min(len(names), most)], ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
