package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trainyard.dev/trainyard/runtime/spec"
)

// TestServing reads what the server is told to load, which isn't there while the
// service has no model.
func TestServing(t *testing.T) {
	dir := t.TempDir()
	if serving, err := readServing(filepath.Join(dir, "missing")); err != nil || len(serving.Models) != 0 {
		t.Errorf("got %+v, %v", serving, err)
	}
	for _, test := range []struct{ content, model, message string }{
		{`{"models": [{"name": "iris", "digest": "sha256:1"}]}`, "iris", ""},
		{"{", "", "reading which model is served: unexpected end of JSON input"},
	} {
		path := filepath.Join(dir, spec.ServeKey)
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		serving, err := readServing(path)
		switch {
		case test.message != "":
			if err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got %v, want ...%s...", err, test.message)
			}
		case err != nil || len(serving.Models) != 1 || serving.Models[0].Name != test.model:
			t.Errorf("got %+v, %v", serving, err)
		}
	}
}

// TestNoAddress says what is missing to whoever starts a follower by hand.
func TestNoAddress(t *testing.T) {
	if _, err := read(""); err == nil || !strings.Contains(err.Error(), "environment variable TRAINYARD_FOLLOW, which says where to look") {
		t.Errorf("got %v", err)
	}
	what, err := read(`{"name": "iris", "tag": "v1", "everySeconds": 60}`)
	if err != nil || what.Tag != "v1" || what.EverySeconds != 60 {
		t.Errorf("got %+v, %v", what, err)
	}
}
