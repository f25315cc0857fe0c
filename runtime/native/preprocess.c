/* From the pixels of a region to a network's input in one pass: bilinear resize, look-up table, one plane a channel.

   The arithmetic is that of OpenCV's bilinear resize of 8-bit pixels (modules/imgproc/src/resize.cpp): taps and weights in
   float, weights rounded to 11 bits, the horizontal sum in whole numbers, the vertical one from its upper bits. So the
   resized pixels are those of cv2.resize, bit for bit; tests hold the two together. */

#include "native.h"

#include <math.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { WEIGHT = 2048, CHANNELS = 3, LINE = 64, AHEAD = 6 };

/* What stays the same for every region; framegate/runtime/native/preprocess.py fills it in. */
struct preprocess {
    int32_t width, height;   /* of the input */
    int32_t planes[CHANNELS]; /* which of blue, green, red each channel of the network reads */
    int32_t known_width;     /* of the region that the taps below are for; 0: none yet */
    const float *tables;     /* (3, 256): each channel's value for a level */
    uint8_t *small;          /* (height, width, 3): the resized region, BGR */
    float *tensor;           /* (3, height, width) */
    int32_t *taps;           /* (width,): byte offset of the left tap in a row */
    int16_t *weights;        /* (width, 2) */
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

/* Fill plan->small and plan->tensor from a region.

   pixels: its first, BGR; row_bytes: from one row to the next; width, height: at least 1. */
EXPORT void framegate_preprocess(struct preprocess *plan, const uint8_t *pixels, int64_t row_bytes, int32_t width,
                                 int32_t height) {
    const int32_t last = CHANNELS * (width - 1);
    const int same = width == plan->width && height == plan->height;
    const int half = width == 2 * plan->width && height == 2 * plan->height;
    const int apart = width >= 2 * plan->width;
    if (!same && !half && width != plan->known_width) place_columns(plan, width);
    int32_t safe = plan->width - 1; /* the last column has no next one */
    while (!same && !half && safe > 0 && plan->taps[safe - 1] + 8 > CHANNELS * width) --safe;
    for (int32_t y = 0; y < plan->height; ++y) {
        uint8_t *row = plan->small + (ptrdiff_t)CHANNELS * plan->width * y;
        if (same) {
            memcpy(row, pixels + y * row_bytes, (size_t)CHANNELS * plan->width);
        } else if (half) {
            halve_row(pixels + 2 * y * row_bytes, pixels + (2 * y + 1) * row_bytes, plan->width, row);
        } else {
            float part, next_part;
            const int32_t first = place(y, height, plan->height, &part);
            const uint8_t *upper = pixels + within(first, height) * row_bytes;
            const uint8_t *lower = pixels + within(first + 1, height) * row_bytes;
            if (!apart) { /* a region's rows are short and lie a frame's row apart: no processor expects the next ones */
                const int32_t ahead = within(first + AHEAD, height);
                for (int32_t k = 0; k < CHANNELS * width; k += LINE) PREFETCH(pixels + ahead * row_bytes + k);
            }
            if (apart && y + 2 < plan->height) { /* rows lie far apart, where no processor expects them */
                const int32_t next = place(y + 2, height, plan->height, &next_part);
                const uint8_t *a = pixels + within(next, height) * row_bytes;
                const uint8_t *b = pixels + within(next + 1, height) * row_bytes;
                for (int32_t x = 0; x < plan->width; ++x) {
                    PREFETCH(a + plan->taps[x]);
                    PREFETCH(b + plan->taps[x]);
                }
            }
            resize_row(plan, upper, lower, weight_of(1.0f - part), weight_of(part), safe, last, row);
        }
        look_up(plan, y);
    }
}
