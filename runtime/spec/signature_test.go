package spec

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestAdmits(t *testing.T) {
	of := NewSignature
	yes, no := []string{"no", "yes"}, []string{"yes", "no"}
	var many, more []string
	for i := range 1000 {
		many, more = append(many, fmt.Sprint("pixel-", i)), append(more, fmt.Sprint("pixel-", i+1))
	}
	for _, c := range []struct {
		name         string
		before, next *Signature
		want         string
	}{
		{"the same", of(2, 2, []string{"a", "b"}, yes), of(2, 2, []string{"a", "b"}, yes), ""},
		{"the same of many", of(1000, 1, many, nil), of(1000, 1, many, nil), ""},
		{"names for what had none", of(2, 2, nil, nil), of(2, 2, []string{"a", "b"}, yes), ""},
		{"more inputs", of(2, 1, []string{"a", "b"}, nil), of(3, 1, []string{"a", "b", "c"}, nil), "it takes 3 inputs, not 2; it has also c"},
		{"another input", of(2, 1, []string{"a", "b"}, nil), of(2, 1, []string{"a", "c"}, nil), "its input columns are not the same in the same order; it lacks b; it has also c"},
		{"another of many inputs", of(1000, 1, many, nil), of(1000, 1, more, nil), "its input columns are not the same in the same order"},
		{"many more inputs", of(1, 1, []string{"a"}, nil), of(20, 1, strings.Split("abcdefghijklmnopqrst", ""), nil), "it takes 20 inputs, not 1; it has also b, c, d, e, f and 14 more"},
		{"another order", of(2, 1, []string{"a", "b"}, nil), of(2, 1, []string{"b", "a"}, nil), "its input columns are not the same in the same order"},
		{"no names any more", of(2, 1, []string{"a", "b"}, nil), of(2, 1, nil, nil), "its input columns are not the same in the same order; it lacks a, b"},
		{"more outputs", of(2, 2, nil, nil), of(2, 3, nil, nil), "it gives 3 outputs, not 2"},
		{"another order of classes", of(2, 2, nil, yes), of(2, 2, nil, no), "its classes are not the same in the same order"},
		{"no classes any more", of(2, 2, nil, yes), of(2, 2, nil, nil), "its classes are not the same in the same order; it lacks no, yes"},
	} {
		got := ""
		if err := c.before.Admits(c.next); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// A trainer tells it in a message that Kubernetes cuts at 4096 bytes.
func TestSignatureIsShort(t *testing.T) {
	names := strings.Split(strings.Repeat("\u2028", 100_000), "")
	encoded, err := json.Marshal(NewSignature(len(names), len(names), names, names))
	if err != nil || len(encoded) > 1500 {
		t.Errorf("it takes %d bytes; %v", len(encoded), err)
	}
}
