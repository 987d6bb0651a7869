//go:build openblas

// The loops over elements, for the compiler to vectorize. On amd64,
// gcc makes a version for each of these instruction sets, and the processor's
// best is chosen when the program starts.

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(__clang__)
// -ffast-math is there to let sqrtf be an instruction. This takes back what would
// change results: NaN stays NaN, and nothing is reordered or approximated.
#pragma GCC optimize("no-finite-math-only", "no-unsafe-math-optimizations", \
	"no-associative-math", "no-reciprocal-math", "signed-zeros")
#endif

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
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

// exp(x) for x that is at most 0, within 1e-7 of it, and 0 for what is less than
// the least normal number: x is n*log(2) + r, and exp(r) is a polynomial, both as in
// Cephes's expf (S. L. Moshier).
static inline __attribute__((always_inline)) float exponential(float x) {
	const float least = -87.33654f;
	float within = x < least ? least : x;
	int32_t n = within * 1.44269504f - 0.5f; // the nearest, since what is cut off is towards 0
	float r = within - n * 0.693359375f + n * 2.12194440e-4f;
	float y = 1.9875691500e-4f;
	y = y * r + 1.3981999507e-3f;
	y = y * r + 8.3334519073e-3f;
	y = y * r + 4.1665795894e-2f;
	y = y * r + 1.6666665459e-1f;
	y = y * r + 5.0000001201e-1f;
	y = y * r * r + r + 1;
	union { uint32_t bits; float number; } power = {(uint32_t)(n + 127) << 23};
	return x < least ? 0 : y * power.number;
}

// Rows of cols numbers. All are exponentiated in one go, since few outputs do not
// fill a register.
VECTORIZED
void trainyard_softmax(size_t rows, size_t cols, float *x) {
	for (size_t i = 0; i < rows; i++) {
		float *row = x + i * cols, largest = row[0];
		for (size_t j = 1; j < cols; j++)
			largest = row[j] > largest ? row[j] : largest;
		for (size_t j = 0; j < cols; j++)
			row[j] -= largest;
	}
	for (size_t i = 0; i < rows * cols; i++)
		x[i] = exponential(x[i]);
	for (size_t i = 0; i < rows; i++) {
		float *row = x + i * cols;
		double sum = 0;
		for (size_t j = 0; j < cols; j++)
			sum += row[j];
		float scale = 1 / sum;
		for (size_t j = 0; j < cols; j++)
			row[j] *= scale;
	}
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
