package app

import (
	"bytes"
	"strings"
	"sync"
)

// tail keeps the last lines of a log. Its zero value is ready for use.
type tail struct {
	mutex sync.Mutex
	kept  []byte
}

// tailBytes is how much a tail keeps; a few lines.
const tailBytes = 2048

// Write appends whole lines.
func (t *tail) Write(lines []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.kept = append(t.kept, lines...)
	if over := len(t.kept) - tailBytes; over > 0 {
		_, rest, _ := bytes.Cut(t.kept[over-1:], []byte("\n"))
		t.kept = bytes.Clone(rest)
	}
	return len(lines), nil
}

// String returns the lines.
func (t *tail) String() string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return strings.ToValidUTF8(strings.TrimSuffix(string(t.kept), "\n"), "")
}
