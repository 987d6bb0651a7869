package story

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestShortened(t *testing.T) {
	for _, test := range []struct {
		name, message string
		want          int
	}{
		{"short", "a cell is not a number", 22},
		{"as long as may be", strings.Repeat("x", maxNote), maxNote},
		{"one too long", strings.Repeat("x", maxNote+1), maxNote},
		{"cut between characters", strings.Repeat("é", maxNote), maxNote - 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := shortened(test.message)
			if len(got) != test.want || !utf8.ValidString(got) {
				t.Errorf("got %d bytes, valid: %t; want %d", len(got), utf8.ValidString(got), test.want)
			}
		})
	}
}
