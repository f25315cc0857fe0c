/* What the looked-at rows of one camera frame show, counted; and what of it earlier frames showed already.

   The same whole numbers as framegate/runtime/health/rows.py counts with OpenCV and NumPy; a test holds the two together.
   Fifty calls of a library on rows this short cost several times what the counting costs, so here it is one. */

#include "rows.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#include <immintrin.h>
#define WIDE __attribute__((target("avx2"))) /* asked for at run time */
enum { WIDTH = 32 };
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { WHITE = 248, EDGE = 32, LOWEST = 8 * BLOCK, HIGHEST = 247 * BLOCK, FEWEST_BLOCKS = 4 };
enum { TOTALS = 255 * BLOCK + 1 };
enum { CHANNELS = 3, FAR = 4, OF_BLUE = 3735, OF_GREEN = 19235, OF_RED = 9798, HALF = 16384, SHIFT = 15 };

static inline int32_t sum_of_block(const uint8_t *p) {
#if defined(__SSE2__)
    __m128i sums = _mm_sad_epu8(_mm_loadu_si128((const __m128i *)p), _mm_setzero_si128());
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return vaddlvq_u8(vld1q_u8(p));
#else
    int32_t sum = 0;
    for (ptrdiff_t i = 0; i < BLOCK; ++i) sum += p[i];
    return sum;
#endif
}

/* OpenCV's BGR to grey: ITU-R BT.601 in 15 bits. */
static inline uint8_t grey_of(const uint8_t *p) {
    return (uint8_t)((OF_BLUE * p[0] + OF_GREEN * p[1] + OF_RED * p[2] + HALF) >> SHIFT);
}

FAST static void to_grey(const uint8_t *restrict p, uint8_t *restrict grey, int32_t width) {
    for (ptrdiff_t i = 0; i < width; ++i) grey[i] = grey_of(p + CHANNELS * i);
}

static int64_t sum_of(const uint8_t *p, ptrdiff_t count) {
    int64_t sum = 0;
    ptrdiff_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK) sum += sum_of_block(p + i);
    for (; i < count; ++i) sum += p[i];
    return sum;
}

/* 31 bits hold the squares of 33,000 values; the caller keeps rows shorter. */
FAST static int32_t sum_of_squares(const uint8_t *restrict p, ptrdiff_t count) {
    int32_t sum = 0;
    for (ptrdiff_t i = 0; i < count; ++i) {
        const int16_t value = p[i]; /* products of 16 bits are what vector units are best at */
        sum += value * value;
    }
    return sum;
}

FAST static void add_channel_moments(const uint8_t *restrict p, int32_t width, struct counts *restrict out) {
    uint32_t b = 0, g = 0, r = 0, bb = 0, gg = 0, rr = 0;
    for (ptrdiff_t i = 0; i < width; ++i) {
        const uint32_t x = p[3 * i], y = p[3 * i + 1], z = p[3 * i + 2];
        b += x, g += y, r += z;
        bb += x * x, gg += y * y, rr += z * z;
    }
    out->channel_total[0] += b, out->channel_total[1] += g, out->channel_total[2] += r;
    out->channel_squares[0] += bb, out->channel_squares[1] += gg, out->channel_squares[2] += rr;
}

static void compare_channels(const uint8_t *p, int32_t width, int64_t *equal) {
    for (ptrdiff_t i = 0; i < width && (equal[0] || equal[1] || equal[2]); ++i) {
        equal[0] &= p[3 * i] == p[3 * i + 1];
        equal[1] &= p[3 * i + 1] == p[3 * i + 2];
        equal[2] &= p[3 * i] == p[3 * i + 2];
    }
}

FAST static int32_t count_white(const uint8_t *restrict grey, int32_t width) {
    int32_t count = 0;
    for (ptrdiff_t i = 0; i < width; ++i) count += grey[i] >= WHITE;
    return count;
}

FAST static int64_t squared_steps(const uint8_t *restrict grey, int32_t width, int32_t distance) {
    int32_t sum = 0;
    for (ptrdiff_t i = 0; i < width - distance; ++i) {
        const int16_t step = (int16_t)(grey[i + distance] - grey[i]);
        sum += step * step;
    }
    return (uint32_t)sum;
}

FAST static int64_t absolute_steps(const uint8_t *restrict grey, int32_t start, int32_t end, int32_t distance) {
    int32_t sum = 0;
    for (ptrdiff_t i = start; i < end; ++i) sum += abs(grey[i + distance] - grey[i]);
    return sum;
}

/* Steps between neighbours, edges of the scene limited. */
FAST static void limited_steps(const uint8_t *restrict grey, uint8_t *restrict steps, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; ++i) {
        const uint8_t high = grey[i + 1] > grey[i] ? grey[i + 1] : grey[i];
        const uint8_t low = grey[i + 1] > grey[i] ? grey[i] : grey[i + 1];
        const uint8_t step = (uint8_t)(high - low);
        steps[i] = step < EDGE ? step : EDGE;
    }
}

/* The 8th, 16th, ... of them: those across the borders of 8x8 blocks. */
static int64_t sum_of_borders(const uint8_t *steps, ptrdiff_t count) {
    int64_t sum = 0;
    for (ptrdiff_t i = 7; i < count; i += 8) sum += steps[i];
    return sum;
}

/* |x[i-1] - 2 x[i] + x[i+1]|, at most 255; the row is mirrored at its ends. */
FAST static void curvature(const uint8_t *restrict grey, uint8_t *restrict curved, int32_t width) {
    for (ptrdiff_t i = 1; i < width - 1; ++i) {
        const int16_t bend = (int16_t)abs((int16_t)(grey[i - 1] - 2 * grey[i] + grey[i + 1]));
        curved[i] = (uint8_t)(bend < 255 ? bend : 255);
    }
    const int32_t first = 2 * abs(grey[1] - grey[0]), last = 2 * abs(grey[width - 2] - grey[width - 1]);
    curved[0] = (uint8_t)(first < 255 ? first : 255);
    curved[width - 1] = (uint8_t)(last < 255 ? last : 255);
}

/* What one row shows, but for its zones, its curvature and its channels. */
static void count_row(const uint8_t *row, uint8_t *light, int32_t width, int32_t *block, uint8_t *spare,
                      struct counts *out) {
    to_grey(row, light, width);
    out->total += sum_of(row, CHANNELS * (ptrdiff_t)width);
    out->squares += sum_of_squares(row, CHANNELS * (ptrdiff_t)width);
    out->saturated += count_white(light, width);
    for (ptrdiff_t k = 0; k < width / BLOCK; ++k) block[k] = sum_of_block(light + BLOCK * k);
    out->fine += squared_steps(light, width, 1);
    out->coarse += squared_steps(light, width, FAR);
    limited_steps(light, spare, width - 1);
    out->steps += sum_of(spare, width - 1);
    out->border_steps += sum_of_borders(spare, width - 1);
}

#if defined(WIDE)
/* The same with 32 bytes at a time, in two passes. */
WIDE static __m256i absolute(__m256i a, __m256i b) { return _mm256_or_si256(_mm256_subs_epu8(a, b), _mm256_subs_epu8(b, a)); }

WIDE static __m256i squares(__m256i v) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i low = _mm256_unpacklo_epi8(v, zero), high = _mm256_unpackhi_epi8(v, zero);
    return _mm256_add_epi32(_mm256_madd_epi16(low, low), _mm256_madd_epi16(high, high));
}

WIDE static int64_t sum_of_four(__m256i v) { /* numbers of 64 bits */
    return _mm256_extract_epi64(v, 0) + _mm256_extract_epi64(v, 1) + _mm256_extract_epi64(v, 2) + _mm256_extract_epi64(v, 3);
}

WIDE static int64_t sum_of_eight(__m256i v) { /* numbers of 32 bits, which are not negative */
    const __m256i zero = _mm256_setzero_si256();
    return sum_of_four(_mm256_add_epi64(_mm256_unpacklo_epi32(v, zero), _mm256_unpackhi_epi32(v, zero)));
}

/* Grey levels of eight pixels, as numbers of 32 bits: four in each half. */
WIDE static __m256i eight_grey(const uint8_t *p) {
    const __m128i blue_green = _mm_setr_epi8(0, -1, 1, -1, 3, -1, 4, -1, 6, -1, 7, -1, 9, -1, 10, -1);
    const __m128i red = _mm_setr_epi8(2, -1, -1, -1, 5, -1, -1, -1, 8, -1, -1, -1, 11, -1, -1, -1);
    const __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p)),
                                              _mm_loadu_si128((const __m128i *)(p + 4 * CHANNELS)), 1);
    const __m256i first = _mm256_madd_epi16(_mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(blue_green)),
                                            _mm256_set1_epi32(OF_GREEN << 16 | OF_BLUE));
    const __m256i second = _mm256_madd_epi16(_mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(red)),
                                             _mm256_set1_epi32(OF_RED));
    return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(first, second), _mm256_set1_epi32(HALF)), SHIFT);
}

WIDE static void to_grey_wide(const uint8_t *p, uint8_t *grey, int32_t width) {
    int32_t i = 0;
    for (; i + 18 <= width; i += 16) { /* the last load reads four bytes behind the sixteenth pixel */
        const __m256i words = _mm256_packs_epi32(eight_grey(p + CHANNELS * i), eight_grey(p + CHANNELS * (i + 8)));
        const __m256i bytes = _mm256_packus_epi16(words, words);
        const __m128i levels = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
        _mm_storeu_si128((__m128i *)(grey + i), levels);
    }
    for (; i < width; ++i) grey[i] = grey_of(p + CHANNELS * i);
}

WIDE static void count_row_wide(const uint8_t *row, uint8_t *light, int32_t width, int32_t *block, struct counts *out) {
    const __m256i zero = _mm256_setzero_si256(), white = _mm256_set1_epi8((char)WHITE), edge = _mm256_set1_epi8(EDGE);
    const __m256i one = _mm256_set1_epi8(1), eighth = _mm256_set1_epi64x((long long)0xff00000000000000ull);
    const ptrdiff_t bytes = CHANNELS * (ptrdiff_t)width;
    __m256i total = zero, square = zero;
    ptrdiff_t i = 0;
    to_grey_wide(row, light, width);
    for (; i + WIDTH <= bytes; i += WIDTH) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(row + i));
        total = _mm256_add_epi64(total, _mm256_sad_epu8(v, zero));
        square = _mm256_add_epi32(square, squares(v));
    }
    out->total += sum_of_four(total);
    out->squares += sum_of_eight(square);
    for (; i < bytes; ++i) out->total += row[i], out->squares += row[i] * row[i];

    __m256i bright = zero, fine = zero, coarse = zero, steps = zero, borders = zero;
    for (i = 0; i + WIDTH + FAR <= width; i += WIDTH) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(light + i));
        const __m256i near = absolute(v, _mm256_loadu_si256((const __m256i *)(light + i + 1)));
        const __m256i limited = _mm256_min_epu8(near, edge), sums = _mm256_sad_epu8(v, zero);
        block[i / BLOCK] = (int32_t)(_mm256_extract_epi64(sums, 0) + _mm256_extract_epi64(sums, 1));
        block[i / BLOCK + 1] = (int32_t)(_mm256_extract_epi64(sums, 2) + _mm256_extract_epi64(sums, 3));
        const __m256i is_white = _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_max_epu8(v, white), v), one);
        bright = _mm256_add_epi64(bright, _mm256_sad_epu8(is_white, zero));
        fine = _mm256_add_epi32(fine, squares(near));
        coarse = _mm256_add_epi32(coarse, squares(absolute(v, _mm256_loadu_si256((const __m256i *)(light + i + FAR)))));
        steps = _mm256_add_epi64(steps, _mm256_sad_epu8(limited, zero));
        borders = _mm256_add_epi64(borders, _mm256_sad_epu8(_mm256_and_si256(limited, eighth), zero));
    }
    out->saturated += sum_of_four(bright);
    out->fine += sum_of_eight(fine);
    out->coarse += sum_of_eight(coarse);
    out->steps += sum_of_four(steps);
    out->border_steps += sum_of_four(borders);
    for (ptrdiff_t k = i / BLOCK; k < width / BLOCK; ++k) block[k] = sum_of_block(light + BLOCK * k);
    for (; i < width; ++i) {
        const int32_t near = i + 1 < width ? abs(light[i + 1] - light[i]) : 0;
        const int32_t wide = i + FAR < width ? light[i + FAR] - light[i] : 0, limited = near < EDGE ? near : EDGE;
        out->saturated += light[i] >= WHITE;
        out->fine += near * near;
        out->coarse += wide * wide;
        out->steps += limited;
        if (i % 8 == 7) out->border_steps += limited;
    }
}
#endif

/* Count the rows of a frame.

   pixels: the first looked-at row, BGR; row_bytes: from one looked-at row to the next. width: 16 to 10,000.
   grey: (rows, width) to be written. sums: (rows, width / 16) to be written: sums of blocks. flat_share: of the blocks, in
   [0, 1]. spare: (width,); histogram: (4081,). */
EXPORT void framegate_count_rows(const uint8_t *pixels, int64_t row_bytes, int32_t rows, int32_t width, double flat_share,
                                 uint8_t *grey, int32_t *sums, uint8_t *spare, int32_t *histogram, struct counts *out) {
    const int32_t blocks = width / BLOCK, far = width - FAR;
#if defined(WIDE)
    const int wide = __builtin_cpu_supports("avx2");
#endif
    int32_t usable = 0, run = 0;
    memset(out, 0, sizeof *out);
    memset(histogram, 0, TOTALS * sizeof *histogram);
    out->equal[0] = out->equal[1] = out->equal[2] = 1;
    for (ptrdiff_t y = 0; y < rows; ++y) {
        const uint8_t *row = pixels + y * row_bytes;
        uint8_t *light = grey + (int64_t)y * width;
        int32_t *block = sums + (int64_t)y * blocks;
        if (y + 1 < rows) /* it lies far behind this one, where no processor expects it */
            for (ptrdiff_t k = 0; k < 3 * (ptrdiff_t)width; k += 64) PREFETCH(row + row_bytes + k);
#if defined(WIDE)
        if (wide)
            count_row_wide(row, light, width, block, out);
        else
#endif
            count_row(row, light, width, block, spare, out);
        for (ptrdiff_t k = 0; k < blocks; ++k) {
            out->block_total += block[k];
            out->block_squares += (int64_t)block[k] * block[k];
        }
        for (ptrdiff_t zone = 0, line = 0; zone < ZONES; ++zone) {
            while ((int64_t)y >= (int64_t)rows * (line + 1) / ZONES) ++line;
            out->zones[ZONES * line + zone] += absolute_steps(light, far * zone / ZONES, far * (zone + 1) / ZONES, FAR);
        }
        if (y % 2 == 0) { /* half of the rows are enough for a quantile */
            curvature(light, spare, width);
            for (ptrdiff_t k = 0; k < blocks; ++k)
                if (block[k] > LOWEST && block[k] < HIGHEST) {
                    ++histogram[sum_of_block(spare + BLOCK * k)];
                    ++usable;
                }
        }
        if (y % 4 == 0) {
            add_channel_moments(row, width, out);
            compare_channels(row, width, out->equal);
        }
        /* A row that repeats the one above, and is not white throughout. */
        const int repeated = y > 0 && memcmp(row, row - row_bytes, (size_t)(3 * width)) == 0;
        run = repeated && count_white(light, width) < width ? run + 1 : 0;
        if (run > out->repeated) out->repeated = run;
    }
    out->flat = -1;
    if (usable >= FEWEST_BLOCKS) {
        int32_t rank = (int32_t)(flat_share * (usable - 1)), total = 0;
        while ((rank -= histogram[total]) >= 0) ++total;
        out->flat = total;
    }
}

FAST static uint8_t largest_difference(const uint8_t *restrict a, const uint8_t *restrict b, int32_t count) {
    uint8_t largest = 0;
    for (ptrdiff_t i = 0; i < count; ++i) {
        const uint8_t high = a[i] > b[i] ? a[i] : b[i], low = a[i] > b[i] ? b[i] : a[i];
        const uint8_t difference = (uint8_t)(high - low);
        largest = difference > largest ? difference : largest;
    }
    return largest;
}

/* Compare a frame with the earlier ones, and put it in their place.

   sums: (rows, blocks) of the frame. means: (slots, rows * blocks) of the frames before; marks: (slots, rows, pieces);
   known: (slots,) which of them hold a frame, 0 for `current`; weights: (blocks,); starts: (pieces,) blocks at which the
   pieces of a row begin. Written are, beside means, marks and known of `current`: farthest (slots,) largest change of a
   block; equal (slots, rows) 1 where a row's marks are equal; changed (rows,) 1 where every piece of a row differs from
   that of `previous`; and summary: the slot that is closest, how far that one and how far `previous` is, the change of a
   block since `previous` that `rank` + 1 of them do not exceed, whether `previous` held a frame, whether any row is equal. */
EXPORT void framegate_compare_rows(const int32_t *sums, int32_t rows, int32_t blocks, int32_t pieces, int32_t slots,
                                      int32_t current, int32_t previous, int32_t rank, const int64_t *weights,
                                      const int64_t *starts, uint8_t *means, int64_t *marks, uint8_t *known,
                                      int32_t *farthest, uint8_t *equal, uint8_t *changed, int32_t *summary) {
    const int32_t count = rows * blocks;
    uint8_t *mean = means + (int64_t)current * count;
    int64_t *mark = marks + (int64_t)current * rows * pieces;
    for (ptrdiff_t i = 0; i < count; ++i) mean[i] = (uint8_t)(sums[i] / BLOCK);
    for (ptrdiff_t y = 0; y < rows; ++y)
        for (ptrdiff_t piece = 0; piece < pieces; ++piece) {
            const int32_t end = piece + 1 < pieces ? (int32_t)starts[piece + 1] : blocks;
            int64_t sum = 0;
            for (ptrdiff_t k = (int32_t)starts[piece]; k < end; ++k) sum += sums[y * blocks + k] * weights[k];
            mark[y * pieces + piece] = sum;
        }
    int32_t closest = 0, any = 0;
    for (ptrdiff_t slot = 0; slot < slots; ++slot) {
        const int64_t *other = marks + (int64_t)slot * rows * pieces;
        if (!known[slot]) {
            farthest[slot] = INT32_MAX;
            memset(equal + (int64_t)slot * rows, 0, (size_t)rows);
            continue;
        }
        farthest[slot] = largest_difference(means + (int64_t)slot * count, mean, count);
        if (farthest[slot] < farthest[closest]) closest = (int32_t)slot;
        for (ptrdiff_t y = 0; y < rows; ++y) {
            const int64_t *a = other + y * pieces, *b = mark + y * pieces;
            const uint8_t same = a[0] == b[0] && memcmp(a, b, (size_t)pieces * sizeof *mark) == 0;
            equal[slot * rows + y] = same;
            any |= same;
        }
    }
    const int32_t follows = known[previous];
    int32_t moved = 0;
    memset(changed, 0, (size_t)rows);
    if (follows) {
        const int64_t *other = marks + (int64_t)previous * rows * pieces;
        const uint8_t *before = means + (int64_t)previous * count;
        int32_t histogram[256] = {0};
        for (ptrdiff_t y = 0; y < rows; ++y) {
            uint8_t all = 1;
            for (ptrdiff_t k = y * pieces; k < (y + 1) * pieces; ++k) all &= other[k] != mark[k];
            changed[y] = all;
        }
        for (ptrdiff_t i = 0; i < count; ++i) ++histogram[abs(before[i] - mean[i])];
        while ((rank -= histogram[moved]) >= 0) ++moved;
    }
    known[current] = 1;
    const int32_t found[] = {closest, farthest[closest], farthest[previous], moved, follows, any};
    memcpy(summary, found, sizeof found);
}
