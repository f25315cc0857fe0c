// From the sums of a row or pixel to its scores and its record: the same few lines for every layout.
#pragma once

#include "softmax_entropy/common.cuh"
#include "softmax_entropy/parameters.h"

namespace framegate {

/// Largest and second largest logit and where the largest is. NaN is ignored here; it reaches Z through the exponentials.
struct Top {
    float best, second;
    unsigned index;
};

__device__ __forceinline__ Top no_top() { return {-infinity(), -infinity(), 0xFFFFFFFFu}; }

/// Take in a logit with a higher index than any before: strictly greater, so that a tie keeps the lowest index.
template <bool kSecond>
__device__ __forceinline__ void push(Top& top, float x, unsigned index) {
    if (kSecond) top.second = fmaxf(top.second, fminf(top.best, x));
    top.index = x > top.best ? index : top.index;
    top.best = fmaxf(top.best, x);
}

__device__ __forceinline__ Top merge(const Top& a, const Top& b) {
    const bool take_b = b.best > a.best || (b.best == a.best && b.index < a.index);
    return {fmaxf(a.best, b.best), fmaxf(fminf(a.best, b.best), fmaxf(a.second, b.second)), take_b ? b.index : a.index};
}

template <int kLanes>
__device__ __forceinline__ Top merge_over_lanes(Top top) {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
        const Top other = {__shfl_xor_sync(kAllLanes, top.best, distance), __shfl_xor_sync(kAllLanes, top.second, distance),
                           __shfl_xor_sync(kAllLanes, top.index, distance)};
        top = merge(top, other);
    }
    return top;
}

/// Add a logit: t = (x - m) log2(e) / T, Z += 2^t, S += t 2^t.
///
/// The subtraction comes first: folding it into one fma of pre-scaled numbers would lose every digit at logits of 1e10. A NaN
/// reaches Z and stays. The clamp concerns masks only: -inf times 0 is NaN, -200 times 0 is not.
__device__ __forceinline__ float add_exponential(float x, float m, float scale, float& z, float& s) {
    const float t = (x - m) * scale;
    const float e = exp2_flushed(t);
    z += e;
    s = fmaf(fmaxf(t, -200.0f), e, s);
    return e;
}

struct Scores {
    float entropy, max_probability, margin, energy;
    int32_t argmax;
};

/// A sum is a distribution's if its maximum is finite (+inf and "masked throughout" are not) and no NaN came in: Z >= 1, for
/// the maximum itself adds 2^0. All comparisons are written so that NaN fails.
__device__ __forceinline__ bool has_distribution(float best, float z, float temperature) {
    return fabsf(best) <= kLargest && z >= 1.0f && z <= kLargest && temperature > 0.0f && temperature <= kLargest;
}

/// 1 / Z with an error of at most 2 ulp; Z lies in [1, 65536], where __fdividef has no gap.
__device__ __forceinline__ float reciprocal(float z) { return __fdividef(1.0f, z); }

/// H = ln Z - S / Z, S in units of t: times ln 2. Clamped to what an entropy can be.
__device__ __forceinline__ float entropy_of(float z, float s, float log_classes, bool valid) {
    const float h = fmaf(-kLn2, s * reciprocal(z), logf(z));
    return valid ? fminf(fmaxf(h, 0.0f), log_classes) : not_a_number();
}

__device__ __forceinline__ Scores scores_of(const Top& top, float z, float s, float log_classes, float temperature,
                                            float inverse_temperature) {
    const bool valid = has_distribution(top.best, z, temperature);
    Scores out;
    out.entropy = entropy_of(z, s, log_classes, valid);
    out.max_probability = valid ? reciprocal(z) : not_a_number();
    // -expm1(d) is 1 - exp(d) without its cancellation; 0 - y, not -y: a score is never -0.
    const float runner_up = (top.second - top.best) * inverse_temperature;
    out.margin = valid ? (0.0f - expm1f(runner_up)) * reciprocal(z) : not_a_number();
    out.energy = valid ? 0.0f - fmaf(temperature, logf(z), top.best) : not_a_number();
    out.argmax = valid ? int32_t(top.index) : -1;
    return out;
}

__device__ __forceinline__ void write_scores(const SoftmaxEntropyRows& p, unsigned row, const Scores& scores) {
    if (p.entropy) p.entropy[row] = scores.entropy;
    if (p.max_probability) p.max_probability[row] = scores.max_probability;
    if (p.margin) p.margin[row] = scores.margin;
    if (p.energy) p.energy[row] = scores.energy;
    if (p.argmax) p.argmax[row] = scores.argmax;
}

/// The number of the frame, in mapped host memory: the arguments of a captured launch are frozen. Read at the kernel's start, so
/// that its way over the bus and back is over when the scores are there.
__device__ __forceinline__ uint32_t sequence_of(const SoftmaxEntropyRows& p) {
    return *static_cast<const volatile uint32_t*>(p.sequence);
}

/// Writes to mapped host memory, so that the graph needs no copy node.
__device__ __forceinline__ void write_record(const SoftmaxEntropyRows& p, unsigned row, const Scores& scores, uint32_t sequence) {
    uint4* const record = reinterpret_cast<uint4*>(p.records + row);
    const uint32_t entropy = __float_as_uint(scores.entropy), probability = __float_as_uint(scores.max_probability);
    const uint32_t margin = __float_as_uint(scores.margin), energy = __float_as_uint(scores.energy);
    const uint32_t check =
        sequence ^ uint32_t(scores.argmax) ^ entropy ^ probability ^ margin ^ energy ^ uint32_t(kRecordCheck);
    record[0] = make_uint4(sequence, uint32_t(scores.argmax), entropy, probability);
    record[1] = make_uint4(margin, energy, check, 0u);
}

}  // namespace framegate
