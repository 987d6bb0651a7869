//go:build openblas

// Products of some rows with weights that do not change, and so are laid out once
// in the order in which they are read: in panels of 16 outputs, input by input.
// What a tile of rows has no number for but 0 is left out: images have blank
// borders, and of the columns that stand for a category's values one is not 0.

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { PANEL = 16 };

// Columns are, for every tile of rows, how many columns of x are not all zeros, and
// which; there is room for all of inner.
typedef void find_columns(size_t rows, size_t inner, const float *restrict x, size_t x_stride, int32_t *restrict columns);

typedef void product(size_t rows, size_t inner, const int32_t *restrict columns, const float *restrict x, size_t x_stride,
	const float *restrict weight, const float *restrict bias, int relu, float *restrict y, size_t y_stride);

struct kernel {
	find_columns *find;
	product *multiply;
	size_t lanes, rows; // of a register and a tile
};

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

// -ffast-math is there for kernels.c. Here, NaN stays NaN.
#pragma GCC optimize("no-finite-math-only", "signed-zeros")

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

static const struct kernel kernels[] = {{columns_v3, product_v3, 8, 6}, {columns_v4, product_v4, 16, 12}};

// How many numbers the fastest kernel for this processor multiplies at once; 0 if
// there is none.
int trainyard_packed_lanes(void) {
	return __builtin_cpu_supports("x86-64-v4") ? 16 : __builtin_cpu_supports("x86-64-v3") ? 8 : 0;
}

#else

static const struct kernel kernels[2];

int trainyard_packed_lanes(void) { return 0; }

#endif

static const struct kernel *with(int lanes) { return &kernels[lanes == 16]; }

void trainyard_packed_columns(int lanes, size_t rows, size_t inner, const float *restrict x, size_t x_stride, int32_t *restrict columns) {
	with(lanes)->find(rows, inner, x, x_stride, columns);
}

// Writes x*weight^T + bias into cols columns of y, or with relu 0 where that is
// less, for rows from first on, which begins a tile. There is weight and bias for
// whole panels.
void trainyard_packed(int lanes, size_t first, size_t rows, size_t cols, size_t inner, const int32_t *restrict columns,
		const float *restrict x, size_t x_stride, const float *restrict weight, const float *restrict bias, int relu,
		float *restrict y, size_t y_stride) {
	const struct kernel *kernel = with(lanes);
	columns += first / kernel->rows * (1 + inner);
	x += first * x_stride;
	y += first * y_stride;
	for (; cols >= PANEL; cols -= PANEL, weight += PANEL * inner, bias += PANEL, y += PANEL)
		kernel->multiply(rows, inner, columns, x, x_stride, weight, bias, relu, y, y_stride);
	if (cols == 0)
		return;
	enum { few = 48 }; // whole tiles of any kernel
	float whole[few * PANEL];
	for (size_t from = 0; from < rows; from += few) {
		size_t n = rows - from < few ? rows - from : few;
		kernel->multiply(n, inner, columns + from / kernel->rows * (1 + inner), x + from * x_stride, x_stride, weight, bias, relu, whole, PANEL);
		for (size_t r = 0; r < n; r++)
			memcpy(y + (from + r) * y_stride, whole + r * PANEL, cols * sizeof(float));
	}
}
