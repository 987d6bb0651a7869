//go:build openblas

// Text is cut into cells, 64 bytes at a time, and decimals of up to 15 characters
// are read, four at a time. See cells.go for what the results mean.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct trainyard_counts { size_t cells, odd, row_ends; };

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

#define VECTORIZED __attribute__((target("arch=x86-64-v3")))
#define TWICE(...) _mm256_setr_epi8(__VA_ARGS__, __VA_ARGS__)

enum { BLOCK = 64, LANE = 16 };

// A lane is the 16 bytes up to a cell's delimiter, so the last of the cell's is
// byte 14 of it. It becomes an integer of 16 digits: what is before the point is
// pushed over the point, or over the delimiter if there is none, and what is behind
// stays. This is what the integer is multiplied with, by the place of the point;
// then the same for numbers with a sign.
static const double scales[2 * LANE] = {
	1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8,
	1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0,
	-1e-15, -1e-14, -1e-13, -1e-12, -1e-11, -1e-10, -1e-9, -1e-8,
	-1e-7, -1e-6, -1e-5, -1e-4, -1e-3, -1e-2, -1e-1, -1e0,
};

// From byte 15-n on, this masks the bytes of a lane up to its byte n.
static const int8_t up_to[2 * LANE] = {
	-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0,
};

VECTORIZED static inline uint64_t find(__m256i low, __m256i high, char byte) {
	__m256i b = _mm256_set1_epi8(byte);
	return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, b)) |
		(uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, b)) << 32;
}

// cut finds the starts of cells, of which there is one, and the ends of rows. It
// takes whole blocks, as long as there is room for as many cells.
VECTORIZED static void cut(const char *text, size_t size, size_t at, size_t room,
		uint32_t *starts, uint32_t *row_ends, struct trainyard_counts *counts) {
	size_t cells = 0, rows = 0;
	char last[BLOCK] = {0};
	for (; at < size && cells + BLOCK <= room; at += BLOCK) {
		const char *block = size - at < BLOCK ? memcpy(last, text + at, size - at) : text + at;
		__m256i low = _mm256_loadu_si256((const void *)block);
		__m256i high = _mm256_loadu_si256((const void *)(block + 32));
		uint64_t ends = find(low, high, '\n'), all = ends | find(low, high, ',');
		do { // mostly once, and without a jump that depends on whether there is one
			row_ends[rows] = cells + _mm_popcnt_u64(all & _blsmsk_u64(ends));
			rows += ends != 0;
			ends = _blsr_u64(ends);
		} while (ends != 0);
		uint32_t *next = starts + 1 + cells;
		cells += _mm_popcnt_u64(all);
		while (all != 0) // mostly once, too
			for (int i = 0; i < 8; i++) {
				*next++ = at + 1 + _tzcnt_u64(all);
				all = _blsr_u64(all);
			}
	}
	counts->cells = cells;
	counts->row_ends = rows;
}

VECTORIZED static inline __m256i two(const void *a, const void *b) {
	return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(a)), _mm_loadu_si128(b), 1);
}

// halves returns a bit for each lane that has one of these bits, which are those
// of two lanes.
static inline unsigned halves(uint32_t bits) { return ((bits & 0xffff) != 0) | (bits >> LANE != 0) << 2; }

// read4 reads four cells. It returns which of them are odd, as bits.
VECTORIZED static inline unsigned read4(const char *text, const uint32_t *starts, float *numbers) {
	__m128i first = _mm_loadu_si128((const void *)starts), next = _mm_loadu_si128((const void *)(starts + 1));
	__m128i lengths = _mm_sub_epi32(_mm_sub_epi32(next, first), _mm_set1_epi32(1));
	unsigned too_long = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpgt_epi32(lengths, _mm_set1_epi32(LANE - 1))));
	__m256i clipped = _mm256_cvtepu32_epi64(_mm_min_epu32(lengths, _mm_set1_epi32(LANE)));
	size_t scale[4];
	uint32_t digit[2];
	__m256i wrong[2], of4[2];
	for (int h = 0; h < 2; h++) { // the cells h and h+2
		__m256i lane = two(text + starts[h + 1] - LANE, text + starts[h + 3] - LANE);
		__m256i length = _mm256_shuffle_epi8(clipped, _mm256_set1_epi8(8 * h));
		__m256i sign = _mm256_and_si256(_mm256_cmpeq_epi8(lane, _mm256_set1_epi8('-')),
			_mm256_cmpeq_epi8(length, TWICE(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)));
		__m256i in_cell = _mm256_cmpgt_epi8(length, TWICE(14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 127));
		__m256i kept = _mm256_andnot_si256(sign, in_cell);
		__m256i bytes = _mm256_and_si256(_mm256_xor_si256(lane, _mm256_set1_epi8('0')), kept);
		__m256i point = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('.' ^ '0'));
		digit[h] = _mm256_movemask_epi8(_mm256_andnot_si256(point, kept));

		uint32_t points = _mm256_movemask_epi8(point);
		size_t a = _tzcnt_u32(points | 1 << 15), b = _tzcnt_u32(points >> LANE | 1 << 15);
		__m256i digits = _mm256_blendv_epi8(bytes, _mm256_slli_si256(bytes, 1), two(up_to + 15 - a, up_to + 15 - b));
		wrong[h] = _mm256_adds_epu8(digits, _mm256_set1_epi8(127 - 9)); // sets the highest bit
		__m256i of2 = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(1 << 8 | 10));
		of4[h] = _mm256_madd_epi16(of2, _mm256_set1_epi32(1 << 16 | 100));
		scale[h] = a + LANE * (text[starts[h]] == '-');
		scale[h + 2] = b + LANE * (text[starts[h + 2]] == '-');
	}
	__m256i of8 = _mm256_madd_epi16(_mm256_packus_epi32(of4[0], of4[1]), _mm256_set1_epi32(1 << 16 | 10000));
	of8 = _mm256_shuffle_epi32(of8, _MM_SHUFFLE(3, 1, 2, 0));
	of8 = _mm256_permute4x64_epi64(of8, _MM_SHUFFLE(3, 1, 2, 0));
	__m256d high = _mm256_cvtepi32_pd(_mm256_castsi256_si128(of8));
	__m256d low = _mm256_cvtepi32_pd(_mm256_extracti128_si256(of8, 1));
	__m256d integer = _mm256_fmadd_pd(high, _mm256_set1_pd(1e8), low); // below 2^53
	// The factor and the product are rounded: the error is below 2 units.
	__m256d exact = _mm256_mul_pd(integer, _mm256_setr_pd(scales[scale[0]], scales[scale[1]], scales[scale[2]], scales[scale[3]]));
	_mm_storeu_ps(numbers, _mm256_cvtpd_ps(exact));

	// As NearMiddle of package decimal.
	__m256i distance = _mm256_and_si256(_mm256_sub_epi64(_mm256_castpd_si256(exact), _mm256_set1_epi64x((1 << 28) - 2)),
		_mm256_set1_epi64x((1 << 29) - 1));
	unsigned odd = too_long | _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(_mm256_set1_epi64x(5), distance)));
	unsigned whole = halves(digit[0]) | halves(digit[1]) << 1;
	if (__builtin_expect((odd | (whole ^ 0xf) | _mm256_movemask_epi8(_mm256_or_si256(wrong[0], wrong[1]))) == 0, 1))
		return 0;
	return odd | (whole ^ 0xf) | halves(_mm256_movemask_epi8(wrong[0])) | halves(_mm256_movemask_epi8(wrong[1])) << 1;
}

VECTORIZED
void trainyard_cells(const char *text, size_t size, size_t at, size_t room, uint32_t *starts,
		float *numbers, uint32_t *odd, uint32_t *row_ends, struct trainyard_counts *counts) {
	starts[0] = at;
	cut(text, size, at, room, starts, row_ends, counts);
	size_t i = 0, n = counts->cells, odds = 0;
	for (; i < n && starts[i + 1] < LANE; i++) // there is no lane
		odd[odds++] = i;
	for (; i + 4 <= n; i += 4)
		for (unsigned which = read4(text, starts + i, numbers + i); which != 0; which &= which - 1)
			odd[odds++] = i + _tzcnt_u32(which);
	for (; i < n; i++)
		odd[odds++] = i;
	counts->odd = odds;
}

int trainyard_cuts(void) { return __builtin_cpu_supports("x86-64-v3") != 0; }

#else

void trainyard_cells(const char *text, size_t size, size_t at, size_t room, uint32_t *starts,
		float *numbers, uint32_t *odd, uint32_t *row_ends, struct trainyard_counts *counts) {}

int trainyard_cuts(void) { return 0; }

#endif
