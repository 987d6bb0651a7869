//go:build openblas

// Products of some rows with weights that do not change, and so are laid out once
// in the order in which they are read: in panels of 16 outputs, input by input.

#include <stddef.h>
#include <string.h>

enum { PANEL = 16 };

typedef void product(size_t rows, size_t inner, const float *restrict x, size_t x_stride,
	const float *restrict weight, const float *restrict bias, float *restrict y, size_t y_stride);

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#define TARGET "arch=x86-64-v3"
#define KERNEL(name) name##_v3
#define LANES 8
#define ROWS 6
#include "packed.h"
#undef TARGET
#undef KERNEL
#undef LANES
#undef ROWS

#define TARGET "arch=x86-64-v4"
#define KERNEL(name) name##_v4
#define LANES 16
#define ROWS 12
#include "packed.h"

static product *best(void) {
	if (__builtin_cpu_supports("x86-64-v4"))
		return product_v4;
	return __builtin_cpu_supports("x86-64-v3") ? product_v3 : NULL;
}

#else

static product *best(void) { return NULL; }

#endif

// Whether there is a kernel for this processor.
int trainyard_packs(void) { return best() != NULL; }

// Writes x*weight^T + bias into cols columns of y. There is weight and bias for
// whole panels.
void trainyard_packed(size_t rows, size_t cols, size_t inner, const float *restrict x, size_t x_stride,
		const float *restrict weight, const float *restrict bias, float *restrict y, size_t y_stride) {
	product *kernel = best();
	for (; cols >= PANEL; cols -= PANEL, weight += PANEL * inner, bias += PANEL, y += PANEL)
		kernel(rows, inner, x, x_stride, weight, bias, y, y_stride);
	if (cols == 0)
		return;
	enum { few = 48 };
	float whole[few * PANEL];
	for (size_t from = 0; from < rows; from += few) {
		size_t n = rows - from < few ? rows - from : few;
		kernel(n, inner, x + from * x_stride, x_stride, weight, bias, whole, PANEL);
		for (size_t r = 0; r < n; r++)
			memcpy(y + (from + r) * y_stride, whole + r * PANEL, cols * sizeof(float));
	}
}
