package v1alpha1_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCRDsStaySmall keeps each CRD under 100 KB, so that a plain kubectl apply,
// whose annotation may hold 256 KB, never fails on it.
func TestCRDsStaySmall(t *testing.T) {
	files, err := filepath.Glob("../../config/crd/bases/*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatalf("found %q (%v), want the two CRDs", files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 100_000 {
			t.Errorf("%s has %d bytes, more than 100 KB", file, info.Size())
		}
	}
}
