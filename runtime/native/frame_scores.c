/* Scores of one row of logits, and the monitor's head: what runtime/scores.py and runtime/monitor.py compute with Python's
   floats and NumPy. Tests hold them together. */

#include "native.h"

#include <math.h>
#include <string.h>

/* The versions of exp and log that every glibc has since 2.2.5 (2.17 on ARM): they give the same values as those of 2.29,
   and a wheel that names the newer ones would refuse to be installed on older systems. */
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver exp, exp@GLIBC_2.2.5");
__asm__(".symver log, log@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver exp, exp@GLIBC_2.17");
__asm__(".symver log, log@GLIBC_2.17");
#endif

EXPORT int32_t framegate_version(void) { return VERSION; }

/* Softmax scores of one row; the formulas and their sources are in cuda_kernels/softmax_entropy/reference.py.

   scores: argmax, largest probability, entropy, margin, energy. Returns 0 if a logit is not finite, scores are not written
   then. */
EXPORT int32_t framegate_scores(const float *logits, int32_t classes, double temperature, double *scores) {
    int32_t best = 0;
    for (int32_t k = 0; k < classes; ++k) {
        if (!isfinite(logits[k])) return 0;
        if (logits[k] > logits[best]) best = k;
    }
    const double largest = logits[best];
    double z = 0.0, s = 0.0, second = -INFINITY;
    for (int32_t k = 0; k < classes; ++k) {
        const double d = (logits[k] - largest) / temperature, e = exp(d);
        z += e;
        s += d * e;
        if (k != best && d > second) second = d;
    }
    const double entropy = log(z) - s / z, most = log(classes);
    scores[0] = best;
    scores[1] = 1.0 / z;
    scores[2] = entropy < 0.0 ? 0.0 : entropy > most ? most : entropy;
    scores[3] = -expm1(second) / z; /* 1 - exp(d) without its cancellation; a lone class has no rival */
    scores[4] = -(largest + temperature * log(z));
    return 1;
}

enum { LANES = 16 };

/* Sums in lanes, which the compiler may put into one register: a sum in order it must not rearrange. */
FAST static float dot(const float *restrict a, const float *restrict b, ptrdiff_t count) {
    float lanes[LANES] = {0}, sum = 0.0f;
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (ptrdiff_t k = 0; k < LANES; ++k) lanes[k] += a[i + k] * b[i + k];
    for (; i < count; ++i) sum += a[i] * b[i];
    for (ptrdiff_t k = 0; k < LANES; ++k) sum += lanes[k];
    return sum;
}

/* Log odds of the monitor's head; NaN if a pooled value is not finite.

   pooled, scale, offset: (size,); hidden: (width, size); hidden_bias, weights: (width,); spare: (size,). */
EXPORT double framegate_shift(const float *pooled, const float *scale, const float *offset, float limit, const float *hidden,
                              const float *hidden_bias, const float *weights, double bias, int32_t size, int32_t width,
                              float *spare) {
    for (ptrdiff_t i = 0; i < size; ++i) {
        if (!isfinite(pooled[i])) return NAN;
        const float value = pooled[i] * scale[i] + offset[i];
        spare[i] = value > limit ? limit : value < -limit ? -limit : value;
    }
    double sum = bias;
    for (ptrdiff_t h = 0; h < width; ++h) {
        const float inner = dot(hidden + h * size, spare, size) + hidden_bias[h];
        if (!(inner <= 0.0f)) sum += (double)inner * weights[h];
    }
    return sum;
}

/* What framegate/runtime/native/answer.py knows of an engine's arrays. */
struct answer {
    const float *logits;
    float *last;        /* (classes,): the last answer */
    const float *input; /* of the network; every `step`th number of `samples` is looked at */
    float *shown;       /* (samples,): what was shown with the last answer */
    const float *pooled; /* NULL without a monitor */
    const float *scale, *offset, *hidden, *hidden_bias, *weights;
    float *spare;
    int64_t step;
    double bias;
    float limit;
    int32_t classes, samples, size, width;
    int32_t known; /* there is a last answer */
    int32_t stuck;
    double found[6]; /* argmax, largest probability, entropy, margin, energy, shift */
};

enum { STUCK = -1 };

/* Is it a new answer? STUCK if not; else its scores and the monitor's shift, and framegate_scores' result.

   Numbers are compared bit by bit: two NaN of the same bits are equal, 0 and -0 are not. */
EXPORT int32_t framegate_answer(struct answer *a, double temperature) {
    const size_t bytes = sizeof(float) * (size_t)a->classes;
    const int same = a->known && memcmp(a->logits, a->last, bytes) == 0;
    uint32_t other = 0;
    for (ptrdiff_t k = 0; k < a->samples; ++k) {
        uint32_t now, before;
        memcpy(&now, a->input + k * a->step, sizeof now);
        memcpy(&before, a->shown + k, sizeof before);
        other |= now ^ before;
        memcpy(a->shown + k, &now, sizeof now);
    }
    a->stuck = same && (a->stuck || other);
    memcpy(a->last, a->logits, bytes);
    a->known = 1;
    if (a->stuck) return STUCK;
    if (a->pooled)
        a->found[5] = framegate_shift(a->pooled, a->scale, a->offset, a->limit, a->hidden, a->hidden_bias, a->weights, a->bias,
                                      a->size, a->width, a->spare);
    return framegate_scores(a->logits, a->classes, temperature, a->found);
}

/* Several rows of an engine's output, of which all but the arrays stays the same; answer.py fills it in. */
struct rows {
    const float *logits; /* (rows, classes) */
    const float *pooled; /* (rows, size); NULL without a monitor */
    const float *scale, *offset, *hidden, *hidden_bias, *weights;
    float *spare;
    double *found; /* (rows, 6), as in struct answer, and not a number where there is none */
    double bias;
    float limit;
    int32_t classes, size, width;
};

/* Scores and the monitor's shift of the first `count` rows; a row whose logits are not all finite has the argmax -1. */
EXPORT void framegate_rows(const struct rows *rows, int32_t count, double temperature) {
    for (ptrdiff_t k = 0; k < count; ++k) {
        double *found = rows->found + 6 * k;
        for (ptrdiff_t n = 0; n < 6; ++n) found[n] = NAN;
        if (rows->pooled)
            found[5] = framegate_shift(rows->pooled + k * rows->size, rows->scale, rows->offset, rows->limit, rows->hidden,
                                       rows->hidden_bias, rows->weights, rows->bias, rows->size, rows->width, rows->spare);
        if (!framegate_scores(rows->logits + k * rows->classes, rows->classes, temperature, found)) found[0] = -1;
    }
}
