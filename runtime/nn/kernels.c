//go:build openblas

// The element-wise loops of training, for the compiler to vectorize. On amd64,
// gcc makes a version for each of these instruction sets, and the processor's
// best is chosen when the program starts.

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// -ffast-math is there to let sqrtf be an instruction. This takes back what would
// change results: NaN stays NaN, and nothing is reordered or approximated.
#pragma GCC optimize("no-finite-math-only", "no-unsafe-math-optimizations", \
	"no-associative-math", "no-reciprocal-math", "signed-zeros")
#define VECTORIZED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORIZED
#endif

VECTORIZED
void trainyard_adam(size_t n, float *restrict w, const float *restrict g,
		float *restrict m, float *restrict v,
		float rate, float first, float second, float epsilon) {
	for (size_t i = 0; i < n; i++) {
		m[i] += (g[i] - m[i]) * first;
		v[i] += (g[i] * g[i] - v[i]) * second;
		w[i] -= rate * m[i] / (sqrtf(v[i]) + epsilon);
	}
}

VECTORIZED
void trainyard_relu(size_t n, float *x) {
	for (size_t i = 0; i < n; i++)
		x[i] = x[i] < 0 ? 0 : x[i];
}

VECTORIZED
void trainyard_relu_back(size_t n, const float *restrict y, float *restrict dy) {
	for (size_t i = 0; i < n; i++)
		dy[i] = y[i] <= 0 ? 0 : dy[i];
}

VECTORIZED
void trainyard_sum_rows(size_t rows, size_t cols, size_t stride,
		const float *restrict x, float *restrict sums) {
	for (size_t i = 0; i < rows; i++)
		for (size_t j = 0; j < cols; j++)
			sums[j] += x[i * stride + j];
}

// Numbers by their bits. Added to an exponent of ones, which NaN and infinity have,
// one carries into the sign.
VECTORIZED
int trainyard_all_finite(size_t n, const uint32_t *x) {
	uint32_t odd = 0;
	for (size_t i = 0; i < n; i++)
		odd |= (x[i] & 0x7f800000) + 0x00800000;
	return odd >> 31 == 0;
}
