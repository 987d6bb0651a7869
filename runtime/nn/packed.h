// A kernel of packed.c for one instruction set, which has LANES float32 to a
// register. With tiles of ROWS rows, 12 of its registers hold sums.

typedef float KERNEL(lanes) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t KERNEL(bits) __attribute__((vector_size(4 * LANES)));

// Writes how many columns of a tile's x are not all zeros, and which.
static inline __attribute__((always_inline, target(TARGET)))
void KERNEL(tile_columns)(size_t rows, size_t inner, const float *restrict x, size_t x_stride, int32_t *restrict columns) {
	int32_t zeros = 0, n = 0;
	for (size_t k = 0; k < inner; k++) {
		int zero = 1;
#pragma GCC unroll 12
		for (size_t r = 0; r < rows; r++)
			zero &= x[r * x_stride + k] == 0;
		columns[1 + k] = zero;
		zeros += zero;
	}
	columns[0] = inner - zeros;
	if (zeros == 0)
		for (size_t k = 0; k < inner; k++)
			columns[1 + k] = k;
	else
		for (size_t k = 0; k < inner; k++) {
			int zero = columns[1 + k];
			columns[1 + n] = k;
			n += !zero;
		}
}

// rows is known where this is inlined, so that the sums stay in registers.
static inline __attribute__((always_inline, target(TARGET)))
void KERNEL(tile)(size_t rows, const int32_t *restrict columns, const float *restrict x, size_t x_stride,
		const float *restrict weight, const float *restrict bias, int relu, float *restrict y, size_t y_stride) {
	enum { parts = PANEL / LANES };
	const float zero_below = relu ? 0 : -INFINITY;
	const size_t n = *columns++;
	KERNEL(lanes) sums[ROWS][parts];
#pragma GCC unroll 12
	for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
		for (size_t p = 0; p < parts; p++)
			sums[r][p] = *(const KERNEL(lanes) *)(bias + LANES * p);
	for (size_t i = 0; i < n; i++) {
		const size_t k = columns[i];
#pragma GCC unroll 12
		for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
			for (size_t p = 0; p < parts; p++)
				sums[r][p] += x[r * x_stride + k] * *(const KERNEL(lanes) *)(weight + PANEL * k + LANES * p);
	}
#pragma GCC unroll 12
	for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
		for (size_t p = 0; p < parts; p++)
			*(KERNEL(lanes) *)(y + r * y_stride + LANES * p) = (KERNEL(lanes))((KERNEL(bits))sums[r][p] & ~(sums[r][p] < zero_below));
}

// All rows of one panel.
static __attribute__((target(TARGET)))
void KERNEL(product)(size_t rows, size_t inner, const int32_t *restrict columns, const float *restrict x, size_t x_stride,
		const float *restrict weight, const float *restrict bias, int relu, float *restrict y, size_t y_stride) {
	for (; rows >= ROWS; rows -= ROWS, x += ROWS * x_stride, y += ROWS * y_stride, columns += 1 + inner)
		KERNEL(tile)(ROWS, columns, x, x_stride, weight, bias, relu, y, y_stride);
#define REST(n) \
	if (rows & n) { \
		KERNEL(tile)(n, columns, x, x_stride, weight, bias, relu, y, y_stride); \
		x += n * x_stride; \
		y += n * y_stride; \
	}
#if ROWS > 8
	REST(8)
#endif
	REST(4)
	REST(2)
	REST(1)
#undef REST
}

// The columns of all tiles.
static __attribute__((target(TARGET)))
void KERNEL(columns)(size_t rows, size_t inner, const float *restrict x, size_t x_stride, int32_t *restrict columns) {
	for (; rows >= ROWS; rows -= ROWS, x += ROWS * x_stride, columns += 1 + inner)
		KERNEL(tile_columns)(ROWS, inner, x, x_stride, columns);
	if (rows > 0)
		KERNEL(tile_columns)(rows, inner, x, x_stride, columns);
}
