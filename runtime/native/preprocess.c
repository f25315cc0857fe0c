/* From the pixels of a region to a network's input in one pass: bilinear resize, look-up table, one plane a channel.

   The arithmetic is that of OpenCV's bilinear resize of 8-bit pixels (modules/imgproc/src/resize.cpp): taps and weights in
   float, weights rounded to 11 bits, the horizontal sum in whole numbers, the vertical one from its upper bits. So the
   resized pixels are those of cv2.resize, bit for bit; tests hold the two together. */

#define _POSIX_C_SOURCE 200809L /* nanosleep */

#include "preprocess.h"

#include <math.h>
#include <string.h>

#if !defined(_WIN32)
#include <sched.h>
#include <time.h>
#endif

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#include <immintrin.h>
#define WIDE __attribute__((target("avx2"))) /* asked for at run time */
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { WEIGHT = 2048, CHANNELS = 3, LINE = 64, AHEAD = 6, PADDED = 4, GROUP = 8 };

/* What stays the same for every region; framegate/runtime/native/preprocess.py fills it in. */
struct preprocess {
    int32_t width, height;   /* of the input */
    int32_t planes[CHANNELS]; /* which of blue, green, red each channel of the network reads */
    int32_t known_width;     /* of the region that the taps below are for; 0: none yet */
    int32_t linear;          /* every table is (level - mean) / deviation in float, bit for bit */
    float means[CHANNELS], deviations[CHANNELS];
    const float *tables;     /* (3, 256): each channel's value for a level */
    uint8_t *small;          /* (height, width, 3): the resized region, BGR */
    float *tensor;           /* (3, height, width) */
    int32_t *taps;           /* (width,): byte offset of the left tap in a row */
    int16_t *weights;        /* (width, 2) */
    int16_t *lines;          /* (2, 2, width, 4): of each of two threads two rows, resized across; the fourth is 0 */
};

/* Taps and weights of one output coordinate. */
static int32_t place(int32_t k, int32_t source, int32_t target, float *part) {
    const double scale = 1.0 / ((double)target / source);
    const float at = (float)((k + 0.5) * scale - 0.5);
    const int32_t first = (int32_t)floorf(at);
    *part = at - (float)first;
    return first;
}

static int16_t weight_of(float part) { return (int16_t)lrintf(part * WEIGHT); }

static void place_columns(struct preprocess *plan, int32_t width) {
    for (int32_t x = 0; x < plan->width; ++x) {
        float part;
        int32_t first = place(x, width, plan->width, &part);
        if (first < 0) first = 0, part = 0.0f;
        if (first >= width - 1) first = width - 1, part = 0.0f;
        plan->taps[x] = CHANNELS * first;
        plan->weights[2 * x] = weight_of(1.0f - part);
        plan->weights[2 * x + 1] = weight_of(part);
    }
    plan->known_width = width;
}

static inline int32_t across(const uint8_t *p, int32_t right, const int16_t *weight) {
    return p[0] * weight[0] + p[right] * weight[1];
}

static inline uint8_t down(int32_t upper, int32_t lower, int32_t first, int32_t second) {
    return (uint8_t)((((first * (upper >> 4)) >> 16) + ((second * (lower >> 4)) >> 16) + 2) >> 2);
}

/* Columns [0, safe), of which eight bytes from the left tap on lie within the rows; how many were written. Four bytes are
   written for each: the fourth is the next column's, which comes after. */
#if defined(__SSE2__)
static inline __m128i across_four(const uint8_t *p, __m128i weights) {
    const __m128i values = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)p), _mm_setzero_si128());
    return _mm_srai_epi32(_mm_madd_epi16(_mm_unpacklo_epi16(values, _mm_srli_si128(values, 2 * CHANNELS)), weights), 4);
}

static int32_t resize_columns(const uint8_t *restrict upper, const uint8_t *restrict lower, int32_t first, int32_t second,
                              const int32_t *restrict taps, const int16_t *restrict weights, int32_t safe,
                              uint8_t *restrict out) {
    const __m128i a = _mm_set1_epi16((int16_t)first), b = _mm_set1_epi16((int16_t)second), two = _mm_set1_epi16(2);
    for (ptrdiff_t x = 0; x < safe; x += 2) {
        const ptrdiff_t next = x + 1 < safe ? x + 1 : x;
        int32_t both[2];
        memcpy(both, weights + 2 * x, sizeof both[0]);
        memcpy(both + 1, weights + 2 * next, sizeof both[1]);
        const __m128i left = _mm_set1_epi32(both[0]), right = _mm_set1_epi32(both[1]);
        const __m128i above = _mm_packs_epi32(across_four(upper + taps[x], left), across_four(upper + taps[next], right));
        const __m128i below = _mm_packs_epi32(across_four(lower + taps[x], left), across_four(lower + taps[next], right));
        const __m128i parts = _mm_add_epi16(_mm_mulhi_epi16(above, a), _mm_mulhi_epi16(below, b));
        const __m128i sum = _mm_srai_epi16(_mm_add_epi16(parts, two), 2);
        const __m128i levels = _mm_packus_epi16(sum, sum);
        const int32_t bytes[2] = {_mm_cvtsi128_si32(levels), _mm_cvtsi128_si32(_mm_srli_si128(levels, 4))};
        memcpy(out + CHANNELS * x, bytes, sizeof bytes[0]);
        memcpy(out + CHANNELS * next, bytes + 1, sizeof bytes[1]);
    }
    return safe;
}
#elif defined(__ARM_NEON) && defined(__aarch64__)
static inline uint16x4_t across_four(const uint8_t *p, uint16_t left, uint16_t right) {
    const uint16x8_t values = vmovl_u8(vld1_u8(p));
    const uint32x4_t sum = vmull_n_u16(vget_low_u16(values), left);
    return vshrn_n_u32(vmlal_n_u16(sum, vget_low_u16(vextq_u16(values, values, CHANNELS)), right), 4);
}

static int32_t resize_columns(const uint8_t *restrict upper, const uint8_t *restrict lower, int32_t first, int32_t second,
                              const int32_t *restrict taps, const int16_t *restrict weights, int32_t safe,
                              uint8_t *restrict out) {
    for (ptrdiff_t x = 0; x < safe; ++x) {
        const uint16_t left = (uint16_t)weights[2 * x], right = (uint16_t)weights[2 * x + 1];
        const uint16x4_t above = vshrn_n_u32(vmull_n_u16(across_four(upper + taps[x], left, right), (uint16_t)first), 16);
        const uint16x4_t below = vshrn_n_u32(vmull_n_u16(across_four(lower + taps[x], left, right), (uint16_t)second), 16);
        const uint16x4_t sum = vshr_n_u16(vadd_u16(vadd_u16(above, below), vdup_n_u16(2)), 2);
        const uint8x8_t bytes = vmovn_u16(vcombine_u16(sum, sum));
        const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
        memcpy(out + CHANNELS * x, &four, sizeof four);
    }
    return safe;
}
#else
static int32_t resize_columns(const uint8_t *upper, const uint8_t *lower, int32_t first, int32_t second, const int32_t *taps,
                              const int16_t *weights, int32_t safe, uint8_t *out) {
    (void)upper, (void)lower, (void)first, (void)second, (void)taps, (void)weights, (void)safe, (void)out;
    return 0;
}
#endif

/* One row of the resized region from two rows of the region. */
static void resize_row(const struct preprocess *plan, const uint8_t *upper, const uint8_t *lower, int32_t first,
                       int32_t second, int32_t safe, int32_t last, uint8_t *out) {
    const int32_t *taps = plan->taps;
    const int16_t *weights = plan->weights;
    for (int32_t x = resize_columns(upper, lower, first, second, taps, weights, safe, out); x < plan->width; ++x) {
        const int32_t right = taps[x] == last ? 0 : CHANNELS; /* its weight is 0 there */
        for (int32_t c = 0; c < CHANNELS; ++c) {
            const int32_t above = across(upper + taps[x] + c, right, weights + 2 * x);
            out[CHANNELS * x + c] = down(above, across(lower + taps[x] + c, right, weights + 2 * x), first, second);
        }
    }
}

/* Exactly half the size in both directions is a mean of 2 x 2 pixels, as in OpenCV. */
FAST static void halve_row(const uint8_t *restrict upper, const uint8_t *restrict lower, int32_t width,
                           uint8_t *restrict out) {
    for (ptrdiff_t x = 0; x < width; ++x)
        for (ptrdiff_t c = 0; c < CHANNELS; ++c) {
            const ptrdiff_t k = 2 * CHANNELS * x + c;
            out[CHANNELS * x + c] = (uint8_t)((upper[k] + upper[k + CHANNELS] + lower[k] + lower[k + CHANNELS] + 2) >> 2);
        }
}

static void look_up(const struct preprocess *plan, int32_t y) {
    const uint8_t *row = plan->small + (ptrdiff_t)CHANNELS * plan->width * y;
    const ptrdiff_t plane = (ptrdiff_t)plan->width * plan->height;
    for (int32_t c = 0; c < CHANNELS; ++c) {
        const float *restrict table = plan->tables + 256 * c;
        const uint8_t *restrict from = row + plan->planes[c];
        float *restrict to = plan->tensor + plane * c + (ptrdiff_t)plan->width * y;
        for (ptrdiff_t x = 0; x < plan->width; ++x) to[x] = table[from[CHANNELS * x]];
    }
}

static int32_t within(int32_t row, int32_t height) { return row < 0 ? 0 : row < height ? row : height - 1; }

#if defined(WIDE)
/* A row of the region, resized across: upper bits of the sums, four numbers a column, of which the last is 0. */
WIDE static void across_row(const struct preprocess *plan, const uint8_t *row, int32_t safe, int32_t last, int16_t *out) {
    /* Of eight bytes from the left tap on: each channel's two taps beside each other, as 16 bits. */
    const __m256i beside = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i one = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1), other = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
    const int32_t *taps = plan->taps;
    ptrdiff_t x = 0;
    for (; x + 4 <= safe; x += 4) {
        const __m256i weights = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(plan->weights + 2 * x)));
        __m256i columns[2];
        for (ptrdiff_t k = 0; k < 2; ++k) {
            const __m128i left = _mm_loadl_epi64((const __m128i *)(row + taps[x + 2 * k]));
            const __m128i right = _mm_loadl_epi64((const __m128i *)(row + taps[x + 2 * k + 1]));
            const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(left), right, 1);
            const __m256i weight = _mm256_permutevar8x32_epi32(weights, k ? other : one);
            columns[k] = _mm256_srai_epi32(_mm256_madd_epi16(_mm256_shuffle_epi8(bytes, beside), weight), 4);
        }
        const __m256i mixed = _mm256_packs_epi32(columns[0], columns[1]);
        _mm256_storeu_si256((__m256i *)(out + PADDED * x), _mm256_permute4x64_epi64(mixed, 0xD8)); /* 0, 2, 1, 3 */
    }
    for (; x < plan->width; ++x) {
        const int32_t right = taps[x] == last ? 0 : CHANNELS; /* its weight is 0 there */
        for (ptrdiff_t c = 0; c < CHANNELS; ++c)
            out[PADDED * x + c] = (int16_t)(across(row + taps[x] + c, right, plan->weights + 2 * x) >> 4);
        out[PADDED * x + CHANNELS] = 0;
    }
}

/* Eight pixels, each in 32 bits, to the tensor's planes. */
WIDE static inline void normalise(const struct preprocess *plan, __m256i pixels, float *to, ptrdiff_t plane) {
    for (ptrdiff_t c = 0; c < CHANNELS; ++c) {
        const __m256i moved = _mm256_srl_epi32(pixels, _mm_cvtsi32_si128(8 * plan->planes[c]));
        const __m256 level = _mm256_cvtepi32_ps(_mm256_and_si256(moved, _mm256_set1_epi32(255)));
        const __m256 value = _mm256_div_ps(_mm256_sub_ps(level, _mm256_set1_ps(plan->means[c])),
                                           _mm256_set1_ps(plan->deviations[c]));
        _mm256_storeu_ps(to + c * plane, value);
    }
}

/* Two rows that are resized across to one row of the resized region, and to its row of the tensor. */
WIDE static void down_row(const struct preprocess *plan, const int16_t *upper, const int16_t *lower, int32_t first,
                          int32_t second, uint8_t *out, float *to) {
    const __m256i a = _mm256_set1_epi16((int16_t)first), b = _mm256_set1_epi16((int16_t)second);
    const __m256i two = _mm256_set1_epi16(2);
    const __m128i three_of_four = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const ptrdiff_t plane = (ptrdiff_t)plan->width * plan->height;
    for (ptrdiff_t x = 0; x < plan->width; x += GROUP) {
        __m256i sums[2];
        for (ptrdiff_t k = 0; k < 2; ++k) {
            const __m256i above = _mm256_loadu_si256((const __m256i *)(upper + PADDED * (x + 4 * k)));
            const __m256i below = _mm256_loadu_si256((const __m256i *)(lower + PADDED * (x + 4 * k)));
            const __m256i parts = _mm256_add_epi16(_mm256_mulhi_epi16(above, a), _mm256_mulhi_epi16(below, b));
            sums[k] = _mm256_srai_epi16(_mm256_add_epi16(parts, two), 2);
        }
        const __m256i pixels = _mm256_permute4x64_epi64(_mm256_packus_epi16(sums[0], sums[1]), 0xD8);
        const __m128i low = _mm_shuffle_epi8(_mm256_castsi256_si128(pixels), three_of_four);
        const __m128i high = _mm_shuffle_epi8(_mm256_extracti128_si256(pixels, 1), three_of_four);
        uint8_t *bytes = out + CHANNELS * x;
        const int32_t end = _mm_extract_epi32(high, 2);
        _mm_storeu_si128((__m128i *)bytes, low); /* its last four bytes are written once more */
        _mm_storel_epi64((__m128i *)(bytes + 12), high);
        memcpy(bytes + 20, &end, sizeof end);
        normalise(plan, pixels, to + x, plane);
    }
}

/* A row of the resized region to its row of the tensor. */
WIDE static void look_up_wide(const struct preprocess *plan, const uint8_t *row, float *to) {
    const __m128i four = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    const __m128i late = _mm_setr_epi8(4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15, -1);
    const ptrdiff_t plane = (ptrdiff_t)plan->width * plan->height;
    for (ptrdiff_t x = 0; x < plan->width; x += GROUP) { /* 24 bytes, as the first 16 and the last 16 of them */
        const __m128i low = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(row + CHANNELS * x)), four);
        const __m128i high = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(row + CHANNELS * x + 8)), late);
        normalise(plan, _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), to + x, plane);
    }
}
#endif

/* The two rows of the region that a row of the resized one lies between, and their weights. */
struct between {
    int32_t upper, lower, first, second;
};

static struct between rows_of(const struct preprocess *plan, int32_t y, int32_t height) {
    float part;
    const int32_t first = place(y, height, plan->height, &part);
    return (struct between){within(first, height), within(first + 1, height), weight_of(1.0f - part), weight_of(part)};
}

/* Ask for the rows of the region that will be read soon. */
static void expect(const struct preprocess *plan, const uint8_t *pixels, int64_t row_bytes, int32_t width, int32_t height,
                   int32_t y, int32_t upper) {
    if (width < 2 * plan->width) { /* a region's rows are short and lie a frame's row apart: no processor expects them */
        const int32_t ahead = within(upper + AHEAD, height);
        for (int32_t k = 0; k < CHANNELS * width; k += LINE) PREFETCH(pixels + ahead * row_bytes + k);
    } else if (y + 2 < plan->height) {
        const struct between next = rows_of(plan, y + 2, height);
        for (int32_t x = 0; x < plan->width; ++x) {
            PREFETCH(pixels + next.upper * row_bytes + plan->taps[x]);
            PREFETCH(pixels + next.lower * row_bytes + plan->taps[x]);
        }
    }
}

static struct region region_of(struct preprocess *plan, const uint8_t *pixels, int64_t row_bytes, int32_t width,
                               int32_t height) {
    struct region region = {pixels, row_bytes, width, height, plan->width - 1, 0, 0, 0}; /* the last column has no next one */
    region.same = width == plan->width && height == plan->height;
    region.half = width == 2 * plan->width && height == 2 * plan->height;
    if (!region.same && !region.half) {
        if (width != plan->known_width) place_columns(plan, width);
        while (region.safe > 0 && plan->taps[region.safe - 1] + 8 > CHANNELS * width) --region.safe;
    }
#if defined(WIDE)
    region.wide = plan->linear && plan->width % GROUP == 0 && __builtin_cpu_supports("avx2");
#endif
    return region;
}

#if defined(WIDE)
/* resize_rows for regions of another size, where every table is linear. Each of the region's rows is resized across once,
   though two rows of the result may lie beside it. */
static void resize_wide(const struct preprocess *plan, const struct region *region, int32_t from, int32_t to,
                        int16_t *spare) {
    const int32_t last = CHANNELS * (region->width - 1);
    int16_t *lines[2] = {spare, spare + (ptrdiff_t)PADDED * plan->width};
    int32_t held[2] = {-1, -1};
    for (int32_t y = from; y < to; ++y) {
        const struct between rows = rows_of(plan, y, region->height);
        expect(plan, region->pixels, region->row_bytes, region->width, region->height, y, rows.upper);
        const int above = held[0] == rows.upper ? 0 : held[1] == rows.upper ? 1 : held[0] == rows.lower;
        if (held[above] != rows.upper) {
            across_row(plan, region->pixels + rows.upper * region->row_bytes, region->safe, last, lines[above]);
            held[above] = rows.upper;
        }
        const int below = rows.lower == rows.upper ? above : !above;
        if (held[below] != rows.lower) {
            across_row(plan, region->pixels + rows.lower * region->row_bytes, region->safe, last, lines[below]);
            held[below] = rows.lower;
        }
        down_row(plan, lines[above], lines[below], rows.first, rows.second, plan->small + (ptrdiff_t)CHANNELS * plan->width * y,
                 plan->tensor + (ptrdiff_t)plan->width * y);
    }
}
#endif

/* Rows [from, to) of plan->small and plan->tensor. spare: (2, width, 4), of the thread that calls. */
static void resize_rows(const struct preprocess *plan, const struct region *region, int32_t from, int32_t to,
                        int16_t *spare) {
    const uint8_t *pixels = region->pixels;
    const int64_t row_bytes = region->row_bytes;
#if defined(WIDE)
    if (region->wide && !region->same && !region->half) {
        resize_wide(plan, region, from, to, spare);
        return;
    }
#else
    (void)spare;
#endif
    for (int32_t y = from; y < to; ++y) {
        uint8_t *row = plan->small + (ptrdiff_t)CHANNELS * plan->width * y;
        if (region->same) {
            memcpy(row, pixels + y * row_bytes, (size_t)CHANNELS * plan->width);
        } else if (region->half) {
            halve_row(pixels + 2 * y * row_bytes, pixels + (2 * y + 1) * row_bytes, plan->width, row);
        } else {
            const struct between rows = rows_of(plan, y, region->height);
            expect(plan, pixels, row_bytes, region->width, region->height, y, rows.upper);
            resize_row(plan, pixels + rows.upper * row_bytes, pixels + rows.lower * row_bytes, rows.first, rows.second,
                       region->safe, CHANNELS * (region->width - 1), row);
        }
#if defined(WIDE)
        if (region->wide)
            look_up_wide(plan, row, plan->tensor + (ptrdiff_t)plan->width * y);
        else
#endif
            look_up(plan, y);
    }
}

/* Fill plan->small and plan->tensor from a region.

   pixels: its first, BGR; row_bytes: from one row to the next; width, height: at least 1. */
EXPORT void framegate_preprocess(struct preprocess *plan, const uint8_t *pixels, int64_t row_bytes, int32_t width,
                                 int32_t height) {
    const struct region region = region_of(plan, pixels, row_bytes, width, height);
    resize_rows(plan, &region, 0, plan->height, plan->lines);
}

#if !defined(_WIN32)
enum { PIECE = 8, LOOKS = 100000 }; /* rows that a thread takes at once; looks at the other's work before it sleeps */

/* Rows are taken by an atomic counter, so each is written by one thread; `made` counts those that are written. */
static void take_rows(struct shared_resize *shared, int16_t *spare) {
    while (__atomic_load_n(&shared->taken, __ATOMIC_RELAXED) < shared->rows) {
        const int32_t from = __atomic_fetch_add(&shared->taken, PIECE, __ATOMIC_RELAXED);
        if (from >= shared->rows) return;
        const int32_t to = from + PIECE < shared->rows ? from + PIECE : shared->rows;
        resize_rows(shared->plan, &shared->region, from, to, spare);
        __atomic_fetch_add(&shared->made, to - from, __ATOMIC_RELEASE);
    }
}

/* Begin a resize that another thread may help with. Nobody may be at work on an earlier one. */
EXPORT void framegate_preprocess_share(struct shared_resize *shared, struct preprocess *plan, const uint8_t *pixels,
                                       int64_t row_bytes, int32_t width, int32_t height) {
    /* The plan is written here, and by neither thread afterwards: a helper that comes too late must not change its taps. */
    *shared = (struct shared_resize){plan, region_of(plan, pixels, row_bytes, width, height), plan->height, 0, 0, 0};
}

/* Do what is left of it, from another thread than the one that waits. */
EXPORT void framegate_preprocess_help(struct shared_resize *shared) {
    if (__atomic_load_n(&shared->taken, __ATOMIC_RELAXED) < shared->rows)
        take_rows(shared, shared->plan->lines + (ptrdiff_t)2 * PADDED * shared->plan->width);
}

/* Do what is left of it, and wait for the rows that the other thread has taken: afterwards it writes none. */
EXPORT void framegate_preprocess_finish(struct shared_resize *shared) {
    take_rows(shared, shared->plan->lines);
    int32_t looks = 0; /* a piece takes some microseconds, to be woken from a sleep some tens */
    while (__atomic_load_n(&shared->made, __ATOMIC_ACQUIRE) < shared->rows)
        if (looks < LOOKS) {
            ++looks;
            if (looks % 64 == 0) sched_yield();
        } else { /* the other thread got no processor; and a real-time thread would never yield to an ordinary one */
            const struct timespec moment = {0, 50000};
            nanosleep(&moment, NULL);
        }
}
#endif
