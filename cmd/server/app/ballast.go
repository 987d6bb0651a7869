package app

import (
	"math"
	"runtime/debug"
)

// mostBallast makes the collector wait for some 25 MB of garbage.
const mostBallast = 24 << 20

// ballast returns memory that nobody writes to, and that therefore takes none of
// the machine. The garbage collector counts it: it begins when the heap has
// doubled, and without ballast the heap of a server of small models doubles a
// hundred times a second. Where memory is limited, it is a small part of that.
func ballast() []byte {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return make([]byte, mostBallast)
	}
	return make([]byte, min(mostBallast, limit/16))
}
