// Rows [N, C]: a group of lanes a row while the row fits their registers, a block a row beyond.
#pragma once

#include "softmax_entropy/scores.cuh"

namespace framegate {

enum class Output { scores, probabilities, record };

/// Write one window of probabilities: in one store where input and output have the same alignment, else element by element.
template <class T>
__device__ __forceinline__ void store_probabilities(const Windows<T>& windows, unsigned window, T* row, const float* values) {
    const int first = windows.begin(window);
    if (windows.whole(first) && reinterpret_cast<uintptr_t>(row + first) % 16 == 0) {
        constexpr int kPerWord = Element<T>::kPerWord;
        __stcs(reinterpret_cast<uint4*>(row + first),
               make_uint4(Element<T>::pack(values), Element<T>::pack(values + kPerWord),
                          Element<T>::pack(values + 2 * kPerWord), Element<T>::pack(values + 3 * kPerWord)));
        return;
    }
#pragma unroll
    for (int i = 0; i < Windows<T>::kPerWindow; ++i)
        if (unsigned(first + i) < windows.elements) row[unsigned(first + i)] = Element<T>::make(values[i]);
}

template <class T>
__device__ __forceinline__ void write_probabilities(const Windows<T>& windows, unsigned window, const Words4& words, T* row,
                                                    float m, float scale, float factor) {
    float x[Windows<T>::kPerWindow];
    unpack<T>(words, x);
#pragma unroll
    for (int i = 0; i < Windows<T>::kPerWindow; ++i) x[i] = exp2_flushed((x[i] - m) * scale) * factor;
    store_probabilities(windows, window, row, x);
}

/// The number of the frame where a record is asked for; read before anything else is waited for.
template <Output kOutput>
__device__ __forceinline__ uint32_t sequence_if_recorded(const SoftmaxEntropyRows& p) {
    return kOutput == Output::record ? sequence_of(p) : 0u;
}

template <Output kOutput>
__device__ __forceinline__ void finish(const SoftmaxEntropyRows& p, unsigned row, const Top& top, float z, float s,
                                       uint32_t sequence) {
    const Scores scores = scores_of(top, z, s, p.log_classes, p.temperature, p.inverse_temperature);
    if (kOutput == Output::record) {
        write_record(p, row, scores, sequence);
    } else {
        write_scores(p, row, scores);
    }
}

/// Write a row to the host beside its record, for which the graph would need a copy node. It comes last: out of a cache, while the
/// record is on its way.
template <class T>
__device__ __forceinline__ void copy_row(const SoftmaxEntropyRows& p, unsigned row, unsigned first, unsigned step) {
    if (p.copy == nullptr) return;
    const T* const from = static_cast<const T*>(p.logits) + row * p.row_stride;
    T* const to = static_cast<T*>(p.copy) + uint64_t(row) * p.classes;
#pragma unroll 4
    for (unsigned i = first; i < p.classes; i += step) to[i] = from[i];
}

/// kLanes lanes hold a row in registers: maximum first, then one exponential an element. Memory is read once.
template <class T, int kLanes, int kVectors, Output kOutput>
__device__ __forceinline__ void row_in_registers(const SoftmaxEntropyRows& p) {
    constexpr int kPerWindow = Windows<T>::kPerWindow;
    const uint32_t sequence = sequence_if_recorded<kOutput>(p);
    const unsigned lane = threadIdx.x % kLanes;
    const uint64_t group = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kLanes;
    // Lanes without a row go along with an empty one: the shuffles need them.
    const bool active = group < p.rows;
    const unsigned row = active ? unsigned(group) : 0u;
    const Windows<T> windows(static_cast<const T*>(p.logits) + row * p.row_stride, active ? p.classes : 0u);

    Words4 words[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) words[v] = windows.load(unsigned(v) * kLanes + lane, Element<T>::kFill);

    Top top = no_top();
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
        if (unsigned(v) * kLanes >= windows.count) break;  // the same for all lanes of a row
        float x[kPerWindow];
        unpack<T>(words[v], x);
        const unsigned first = unsigned(windows.begin(unsigned(v) * kLanes + lane));
#pragma unroll
        for (int i = 0; i < kPerWindow; ++i) push<true>(top, x[i], first + unsigned(i));
    }
    top = merge_over_lanes<kLanes>(top);

    const float scale = kLog2E * p.inverse_temperature;
    float z = 0.0f, s = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
        if (unsigned(v) * kLanes >= windows.count) break;
        float x[kPerWindow];
        unpack<T>(words[v], x);
#pragma unroll
        for (int i = 0; i < kPerWindow; ++i) add_exponential(x[i], top.best, scale, z, s);
    }
    z = sum_over_lanes<kLanes>(z), s = sum_over_lanes<kLanes>(s);

    if (!active) return;
    if (lane == 0) finish<kOutput>(p, row, top, z, s, sequence);
    if (kOutput == Output::record) copy_row<T>(p, row, lane, kLanes);
    if (kOutput == Output::probabilities) {
        T* const out = static_cast<T*>(p.probabilities) + uint64_t(row) * p.classes;
        const float factor = has_distribution(top.best, z, p.temperature) ? reciprocal(z) : not_a_number();
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
            const unsigned window = unsigned(v) * kLanes + lane;
            if (window < windows.count)
                write_probabilities(windows, window, words[v], out, top.best, scale, factor);
        }
    }
}

/// A maximum to subtract that never makes NaN out of masks alone: (-inf) - (-inf) would.
__device__ __forceinline__ float anchor(float best) { return best == -infinity() ? 0.0f : best; }

/// What one part of a row knows (Milakov and Gimelshein 2018, with the first moment S beside Z).
struct Partial {
    Top top;
    float z, s;
};

/// Bring Z and S to the larger maximum: S' = c (S + t Z), Z' = c Z with t = (m - M) scale <= 0 and c = 2^t.
__device__ __forceinline__ void rescale(float& z, float& s, float from, float to, float scale) {
    const float t = (from - anchor(to)) * scale;
    const float c = exp2_flushed(t);
    s = c * fmaf(fmaxf(t, -200.0f), z, s);
    z = c * z;  // NaN stays NaN, even times 0
}

__device__ __forceinline__ Partial merge(Partial a, Partial b, float scale) {
    const Top top = merge(a.top, b.top);
    rescale(a.z, a.s, a.top.best, top.best, scale);
    rescale(b.z, b.s, b.top.best, top.best, scale);
    return {top, a.z + b.z, a.s + b.s};
}

__device__ __forceinline__ Partial merge_over_warp(Partial part, float scale) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        Partial other;
        other.top = {__shfl_xor_sync(kAllLanes, part.top.best, distance),
                     __shfl_xor_sync(kAllLanes, part.top.second, distance),
                     __shfl_xor_sync(kAllLanes, part.top.index, distance)};
        other.z = __shfl_xor_sync(kAllLanes, part.z, distance);
        other.s = __shfl_xor_sync(kAllLanes, part.s, distance);
        part = merge(part, other, scale);
    }
    return part;
}

/// Four windows of a row: their loads are under way together, and the maximum moves at most once for all of them.
template <class T>
__device__ __forceinline__ void push_windows(Partial& part, const Words4 (&words)[4], const Windows<T>& windows,
                                             unsigned window, unsigned stride, float scale) {
    constexpr int kPerWindow = Windows<T>::kPerWindow;
    const float before = part.top.best;
#pragma unroll
    for (int v = 0; v < 4; ++v) {
        float x[kPerWindow];
        unpack<T>(words[v], x);
        const unsigned first = unsigned(windows.begin(window + unsigned(v) * stride));
#pragma unroll
        for (int i = 0; i < kPerWindow; ++i) push<true>(part.top, x[i], first + unsigned(i));
    }
    if (part.top.best > before) rescale(part.z, part.s, before, part.top.best, scale);
    const float m = anchor(part.top.best);
#pragma unroll
    for (int v = 0; v < 4; ++v) {
        float x[kPerWindow];
        unpack<T>(words[v], x);
#pragma unroll
        for (int i = 0; i < kPerWindow; ++i) add_exponential(x[i], m, scale, part.z, part.s);
    }
}

/// A block a row of any length: each thread keeps a running (m, Z, S), merged at the end in a fixed order.
template <class T, Output kOutput>
__device__ __forceinline__ void row_in_block(const SoftmaxEntropyRows& p) {
    __shared__ Partial partials[32];
    __shared__ Partial whole;
    const unsigned row = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const Windows<T> windows(static_cast<const T*>(p.logits) + row * p.row_stride, p.classes);
    const float scale = kLog2E * p.inverse_temperature;
    const uint32_t sequence = sequence_if_recorded<kOutput>(p);

    Partial part = {no_top(), 0.0f, 0.0f};
    for (unsigned window = threadIdx.x; window < windows.count; window += 4 * blockDim.x) {
        Words4 words[4];
#pragma unroll
        for (int v = 0; v < 4; ++v) words[v] = windows.load(window + unsigned(v) * blockDim.x, Element<T>::kFill);
        push_windows<T>(part, words, windows, window, blockDim.x, scale);
    }
    part = merge_over_warp(part, scale);
    if (lane == 0) partials[warp] = part;
    __syncthreads();
    if (warp == 0) {
        part = {no_top(), 0.0f, 0.0f};
        if (lane < warps) part = partials[lane];
        part = merge_over_warp(part, scale);
        if (lane == 0) {
            whole = part;
            finish<kOutput>(p, row, part.top, part.z, part.s, sequence);
        }
    }
    if (kOutput == Output::record) copy_row<T>(p, row, threadIdx.x, blockDim.x);
    if (kOutput == Output::probabilities) {
        // The row a second time, out of L2 where it has just been: 256 KiB of fp32 fits no register file.
        __syncthreads();
        T* const out = static_cast<T*>(p.probabilities) + uint64_t(row) * p.classes;
        const float best = whole.top.best, z = whole.z;
        const float factor = has_distribution(best, z, p.temperature) ? reciprocal(z) : not_a_number();
        for (unsigned window = threadIdx.x; window < windows.count; window += blockDim.x)
            write_probabilities(windows, window, windows.load(window, Element<T>::kFill), out, best, scale, factor);
    }
}

}  // namespace framegate
