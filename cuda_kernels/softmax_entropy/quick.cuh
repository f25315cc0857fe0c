// Entropy alone, at five instructions an element: the sums of the ..._entropy and ..._labels kernels.
//
// Instead of t = (x - m) s they take t = x s - k in one fused multiply-add, with k = m s rounded. Every t of a row then lies
// beside its true value by the same delta = m s - k, and the entropy does not change if all t are shifted by a constant:
//     Z' = 2^delta Z    S' = 2^delta (S + delta Z)    ln Z' - ln 2 S' / Z' = ln Z - ln 2 S / Z
// The fused product is exact before its one rounding, so nothing is lost at large logits as long as |delta| is small.
//
// No element is clamped or tested. What can go wrong shows in the sums: NaN and +inf make Z NaN, -inf makes S NaN (-inf times 0),
// a large delta takes Z out of range. Such a row is computed again, element by element, by the exact way of scores.cuh. It costs a
// few times as much and is rare: a mask, a broken network, logits beyond 10^7.
//
// What a row lacks to fill the registers is `pad`, finite and far below every logit, where -inf would make S NaN. Whether its
// weight is nothing is tested once a row (`good`).
#pragma once

#include "softmax_entropy/scores.cuh"

namespace framegate {

/// Add one element: t = x s - k, Z += 2^t, S += t 2^t.
__device__ __forceinline__ void add_quickly(float x, float scale, float k, float& z, float& s) {
    const float t = fmaf(x, scale, -k);
    const float e = exp2_flushed(t);
    z += e;
    s = fmaf(t, e, s);
}

template <class T>
__device__ __forceinline__ void add_quickly(const Words4& words, float scale, float k, float& z, float& s) {
    float x[Windows<T>::kPerWindow];
    unpack<T>(words, x);
#pragma unroll
    for (int i = 0; i < Windows<T>::kPerWindow; ++i) add_quickly(x[i], scale, k, z, s);
}

/// The largest of a window's words, element by element of a word: two neighbours of 16 bits are compared in one instruction.
template <class T>
__device__ __forceinline__ unsigned largest_words(unsigned top, const Words4& words) {
#pragma unroll
    for (int i = 0; i < 4; ++i) top = Element<T>::larger(top, words.word[i]);
    return top;
}

/// Read every step-th window from the first on. A row that fills its windows needs no look at each: one comparison a load.
template <class T, int kVectors>
__device__ __forceinline__ void load_windows(const Windows<T>& windows, unsigned first, unsigned step, Words4 (&words)[kVectors]) {
    constexpr unsigned kPad = Element<T>::kPad;
    if (windows.head == 0 && windows.elements % Windows<T>::kPerWindow == 0) {
        const uint4* const from = reinterpret_cast<const uint4*>(windows.base);
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
            const unsigned window = first + unsigned(v) * step;
            uint4 four = make_uint4(kPad, kPad, kPad, kPad);
            if (window < windows.count) four = __ldcs(from + window);
            words[v] = {{four.x, four.y, four.z, four.w}};
        }
    } else {
#pragma unroll
        for (int v = 0; v < kVectors; ++v) words[v] = windows.load(first + unsigned(v) * step, kPad);
    }
}

/// Whether sums are those of a row with a distribution, padding included; written so that NaN fails. Z is at least 2^-1/2 while
/// |delta| <= 1/2, and at most 65,536 times as much as its largest term.
template <class T>
__device__ __forceinline__ bool good(float z, float s, float scale, float k) {
    return z >= 0.5f && z <= 131072.0f && fabsf(s) <= kLargest && fmaf(Element<T>::pad(), scale, -k) <= -150.0f;
}

__device__ __forceinline__ bool usable_temperature(float temperature) {
    return temperature > 0.0f && temperature <= kLargest;
}

/// The entropy of good sums, in [0, log C].
__device__ __forceinline__ float quick_entropy(float z, float s, float log_classes, float temperature) {
    const float h = fmaf(-kLn2, s * reciprocal(z), logf(z));
    return usable_temperature(temperature) ? fminf(fmaxf(h, 0.0f), log_classes) : not_a_number();
}

/// Bring sums from one shift to another: 2^(x s - to) = 2^(x s - from) 2^(from - to).
__device__ __forceinline__ void shift_sums(float from, float to, float& z, float& s) {
    const float t = from - to;
    const float c = exp2_flushed(t);
    s = c * fmaf(t, z, s);
    z *= c;
}

/// One of `step` lanes' part of the exact way: the maximum of every step-th element.
template <class T>
__device__ float exact_maximum(const T* row, unsigned classes, unsigned first, unsigned step) {
    float best = -infinity();
#pragma unroll 1
    for (unsigned i = first; i < classes; i += step) best = fmaxf(best, Element<T>::value(row[i]));
    return best;
}

/// The same lane's part of Z and S, once the maximum is known.
template <class T>
__device__ void exact_sums(const T* row, unsigned classes, unsigned first, unsigned step, float best, float scale, float& z,
                           float& s) {
    z = s = 0.0f;
#pragma unroll 1
    for (unsigned i = first; i < classes; i += step) add_exponential(Element<T>::value(row[i]), best, scale, z, s);
}

/// A row in the registers of kLanes lanes.
template <class T, int kLanes, int kVectors>
__device__ __forceinline__ void entropy_in_registers(const SoftmaxEntropyRows& p) {
    const unsigned lane = threadIdx.x % kLanes;
    const uint64_t group = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kLanes;
    const bool active = group < p.rows;  // lanes without a row go along with an empty one: the shuffles need them
    const unsigned row = active ? unsigned(group) : 0u;
    const T* const start = static_cast<const T*>(p.logits) + row * p.row_stride;
    const Windows<T> windows(start, active ? p.classes : 0u);

    Words4 words[kVectors];
    load_windows<T, kVectors>(windows, lane, kLanes, words);

    unsigned top = Element<T>::kPad;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) top = largest_words<T>(top, words[v]);
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
        top = Element<T>::larger(top, __shfl_xor_sync(kAllLanes, top, distance));

    const float scale = kLog2E * p.inverse_temperature, k = Element<T>::largest(top) * scale;
    float z = 0.0f, s = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
        if (unsigned(v) * kLanes >= windows.count) break;  // the same for all lanes of a row
        add_quickly<T>(words[v], scale, k, z, s);
    }
    z = sum_over_lanes<kLanes>(z), s = sum_over_lanes<kLanes>(s);

    const bool again = active && !good<T>(z, s, scale, k);
    float entropy = quick_entropy(z, s, p.log_classes, p.temperature);
    if (__any_sync(kAllLanes, again)) {  // all lanes go along: the shuffles need them
        const float best = max_over_lanes<kLanes>(exact_maximum(start, windows.elements, lane, kLanes));
        exact_sums(start, windows.elements, lane, kLanes, best, scale, z, s);
        z = sum_over_lanes<kLanes>(z), s = sum_over_lanes<kLanes>(s);
        const bool valid = has_distribution(best, z, p.temperature);
        if (again) entropy = entropy_of(z, s, p.log_classes, valid);
    }
    if (active && lane == 0) p.entropy[row] = entropy;
}

/// Short rows without gaps: a block brings its rows to shared memory in whole windows, then each thread computes one.
///
/// Where rows are multiples of 16 bytes, a thread begins with another class than its neighbour, so that they do not all meet in one
/// bank.
template <class T>
__device__ __forceinline__ void entropy_in_thread(const SoftmaxEntropyRows& p) {
    constexpr unsigned kRows = 128, kClasses = 32;
    __shared__ uint4 staged[kRows * kClasses * sizeof(T) / 16 + 1];
    const uint64_t first = uint64_t(blockIdx.x) * kRows;
    const unsigned rows = p.rows - first < kRows ? unsigned(p.rows - first) : kRows;
    const Windows<T> windows(static_cast<const T*>(p.logits) + first * p.classes, rows * p.classes);
    for (unsigned window = threadIdx.x; window < windows.count; window += kRows) {
        const Words4 words = windows.load(window, Element<T>::kPad);
        staged[window] = make_uint4(words.word[0], words.word[1], words.word[2], words.word[3]);
    }
    __syncthreads();
    if (threadIdx.x >= rows) return;

    const T* const row = reinterpret_cast<const T*>(staged) + windows.head + threadIdx.x * p.classes;
    const unsigned begin = p.classes * sizeof(T) % 16 == 0 ? threadIdx.x % p.classes : 0;
    float best = -infinity();
#pragma unroll 4
    for (unsigned i = begin; i < p.classes; ++i) best = fmaxf(best, Element<T>::value(row[i]));
#pragma unroll 4
    for (unsigned i = 0; i < begin; ++i) best = fmaxf(best, Element<T>::value(row[i]));
    const float scale = kLog2E * p.inverse_temperature, k = best * scale;
    float z = 0.0f, s = 0.0f;
#pragma unroll 4
    for (unsigned i = begin; i < p.classes; ++i) add_quickly(Element<T>::value(row[i]), scale, k, z, s);
#pragma unroll 4
    for (unsigned i = 0; i < begin; ++i) add_quickly(Element<T>::value(row[i]), scale, k, z, s);
    float entropy = quick_entropy(z, s, p.log_classes, p.temperature);
    if (!(z >= 0.5f && z <= 131072.0f && fabsf(s) <= kLargest)) {  // there is no padding here
        exact_sums(row, p.classes, 0, 1, best, scale, z, s);
        entropy = entropy_of(z, s, p.log_classes, has_distribution(best, z, p.temperature));
    }
    p.entropy[first + threadIdx.x] = entropy;
}

/// What all warps of a block agree on; both calls are for all threads of the block.
struct BlockSums {
    float values[2][32];

    __device__ __forceinline__ float largest(float value) {
        value = max_over_lanes<32>(value);
        const unsigned lane = threadIdx.x % 32, warps = blockDim.x / 32;
        if (lane == 0) values[0][threadIdx.x / 32] = value;
        __syncthreads();
        value = max_over_lanes<32>(values[0][lane < warps ? lane : 0]);
        __syncthreads();
        return value;
    }

    __device__ __forceinline__ void add(float& z, float& s) {
        z = sum_over_lanes<32>(z), s = sum_over_lanes<32>(s);
        const unsigned lane = threadIdx.x % 32, warps = blockDim.x / 32;
        if (lane == 0) values[0][threadIdx.x / 32] = z, values[1][threadIdx.x / 32] = s;
        __syncthreads();
        z = sum_over_lanes<32>(lane < warps ? values[0][lane] : 0.0f);
        s = sum_over_lanes<32>(lane < warps ? values[1][lane] : 0.0f);
        __syncthreads();
    }
};

/// A row of any length, read once: each thread keeps its own shift and raises it when a larger logit comes.
template <class T>
__device__ __forceinline__ void entropy_in_block(const SoftmaxEntropyRows& p) {
    __shared__ BlockSums block;
    const unsigned row = blockIdx.x;
    const T* const start = static_cast<const T*>(p.logits) + row * p.row_stride;
    const Windows<T> windows(start, p.classes);
    const float scale = kLog2E * p.inverse_temperature;

    float k = Element<T>::pad() * scale, z = 0.0f, s = 0.0f;
    for (unsigned window = threadIdx.x; window < windows.count; window += 4 * blockDim.x) {
        Words4 words[4];
        load_windows<T, 4>(windows, window, blockDim.x, words);
        unsigned top = Element<T>::kPad;
#pragma unroll
        for (int v = 0; v < 4; ++v) top = largest_words<T>(top, words[v]);
        const float higher = Element<T>::largest(top) * scale;
        if (higher > k) {
            shift_sums(k, higher, z, s);
            k = higher;
        }
#pragma unroll
        for (int v = 0; v < 4; ++v) add_quickly<T>(words[v], scale, k, z, s);
    }
    const float whole = block.largest(k);
    shift_sums(k, whole, z, s);
    block.add(z, s);

    float entropy = quick_entropy(z, s, p.log_classes, p.temperature);
    if (!good<T>(z, s, scale, whole)) {  // the same for all threads
        const float best = block.largest(exact_maximum(start, p.classes, threadIdx.x, blockDim.x));
        exact_sums(start, p.classes, threadIdx.x, blockDim.x, best, scale, z, s);
        block.add(z, s);
        entropy = entropy_of(z, s, p.log_classes, has_distribution(best, z, p.temperature));
    }
    if (threadIdx.x == 0) p.entropy[row] = entropy;
}

}  // namespace framegate
