//go:build openblas

package dataset

/*
#cgo CFLAGS: -O3
#cgo noescape trainyard_cells
#cgo nocallback trainyard_cells
#include <stddef.h>
#include <stdint.h>
int trainyard_cuts(void);
struct trainyard_counts { size_t cells, odd, row_ends; };
void trainyard_cells(const char *text, size_t size, size_t at, size_t room, uint32_t *starts,
	float *numbers, uint32_t *odd, uint32_t *row_ends, struct trainyard_counts *counts);
*/
import "C"

import "unsafe"

// cuts tells whether there is a kernel for this processor.
var cuts = C.trainyard_cuts() != 0

// read cuts text from there on, which ends with a line end, into as many cells as
// there is room for. A build with OpenBLAS has a C compiler anyway, so that it can
// use vector instructions (cells.c).
func (c *cells) read(text string, at int) {
	if !cuts {
		c.readPlainly(text, at)
		return
	}
	var n C.struct_trainyard_counts
	C.trainyard_cells((*C.char)(unsafe.Pointer(unsafe.StringData(text))), C.size_t(len(text)), C.size_t(at), C.size_t(c.room()),
		(*C.uint32_t)(unsafe.SliceData(c.starts)), (*C.float)(unsafe.SliceData(c.numbers)),
		(*C.uint32_t)(unsafe.SliceData(c.odd)), (*C.uint32_t)(unsafe.SliceData(c.rowEnds)), &n)
	c.starts, c.numbers, c.odd, c.rowEnds = c.starts[:n.cells+1], c.numbers[:n.cells], c.odd[:n.odd], c.rowEnds[:n.row_ends]
}
