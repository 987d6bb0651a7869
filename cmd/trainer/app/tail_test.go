package app

import (
	"fmt"
	"strings"
	"testing"
)

func TestTailKeepsLastLines(t *testing.T) {
	var last tail
	for i := range 1000 {
		fmt.Fprintf(&last, "line %d\n", i)
	}
	kept := last.String()
	if len(kept) > tailBytes || !strings.HasPrefix(kept, "line ") || !strings.HasSuffix(kept, "line 998\nline 999") {
		t.Errorf("%d bytes are kept: %q", len(kept), kept)
	}
	if empty := new(tail).String(); empty != "" {
		t.Errorf("of nothing, %q is kept", empty)
	}
}

// A line longer than all that is kept leaves nothing that looks like a line.
func TestTailOfLongLine(t *testing.T) {
	var last tail
	fmt.Fprintf(&last, "%s\n", strings.Repeat("x", 2*tailBytes))
	if kept := last.String(); kept != "" {
		t.Errorf("%d bytes are kept", len(kept))
	}
	fmt.Fprint(&last, "short\n")
	if kept := last.String(); kept != "short" {
		t.Errorf("kept is %q", kept)
	}
}
