// Channel-major logits [N, C, P] as segmentation networks give them: a thread a few pixels, all their channels in registers.
#pragma once

#include "softmax_entropy/scores.cuh"

namespace framegate {

enum class DenseOutput { labels, scores };

/// The type of the entropy plane of ..._labels kernels. fp16 from bfloat16 too: log 32 fits, and 8 bits would not tell 3.40 from 3.41.
template <class T>
struct EntropyPlane {
    using type = __half;
};
template <>
struct EntropyPlane<float> {
    using type = float;
};

/// Make the compiler forget what it unpacked from a word. Unpacking again costs one instruction; left alone, it keeps two floats a
/// word from pass to pass, which doubles the registers and spills.
__device__ __forceinline__ void keep_packed(unsigned& word) {
#ifndef FRAMEGATE_EMULATION
    asm volatile("" : "+r"(word));
#else
    (void)word;
#endif
}

/// What the limits say of a pixel's scores.
__device__ __forceinline__ uint32_t flags_of(const Scores& scores, const SoftmaxEntropyLimits& limits) {
    uint32_t bits = scores.argmax >= 0 ? 0u : uint32_t(kPixelInvalid);
    if (!(scores.entropy <= limits.entropy_at_most)) bits |= kPixelEntropyOver;
    if (!(scores.max_probability >= limits.max_probability_at_least)) bits |= kPixelProbabilityUnder;
    if (!(scores.margin >= limits.margin_at_least)) bits |= kPixelMarginUnder;
    if (!(fabsf(scores.energy) <= kLargest && scores.energy <= limits.energy_at_most)) bits |= kPixelEnergyOver;
    return bits == 0 ? uint32_t(kPixelUsable) : bits;
}

/// The type that moves a group of neighbours in one access.
template <int bytes>
struct VectorOf;
template <>
struct VectorOf<1> { using type = uint8_t; };
template <>
struct VectorOf<2> { using type = unsigned short; };
template <>
struct VectorOf<4> { using type = unsigned; };
template <>
struct VectorOf<8> { using type = uint2; };
template <>
struct VectorOf<16> { using type = uint4; };

/// Write a group of neighbours in one access, or nothing if the caller doesn't want the plane.
template <class T, int n>
__device__ __forceinline__ void store_plane(void* plane, uint64_t at, const T (&values)[n]) {
    if (plane == nullptr) return;
    using Vector = typename VectorOf<n * int(sizeof(T))>::type;
    Vector packed;
    T* const parts = reinterpret_cast<T*>(&packed);
#pragma unroll
    for (int i = 0; i < n; ++i) parts[i] = values[i];
    *reinterpret_cast<Vector*>(static_cast<T*>(plane) + at) = packed;
}

/// All channels of n neighbouring pixels: maximum first, then one exponential an element; no shuffles, no shared memory.
///
/// n is 2 where P is even and every plane aligned for pairs; otherwise 1, which any address allows. Four pixels a thread were
/// tried for the 16-bit types: 20 channels then take 122 registers or spill.
/// kChannels is the least compiled bound >= C; the surplus channels are -inf in registers and never loaded.
template <class T, int n, int kChannels, DenseOutput kOutput>
__device__ __forceinline__ void dense_pixels(const SoftmaxEntropyDense& p) {
    constexpr int kPerWord = n == 1 ? 1 : Element<T>::kPerWord, kWords = n / kPerWord;
    constexpr bool kLabels = kOutput == DenseOutput::labels;
    const uint64_t first = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * n;
    if (first >= p.pixels) return;
    const uint64_t volume = uint64_t(blockIdx.y) * p.channels * p.pixels + first;  // of channel 0
    const uint64_t plane = uint64_t(blockIdx.y) * p.pixels + first;
    const T* const logits = static_cast<const T*>(p.logits) + volume;

    unsigned words[kChannels][kWords];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
        for (int w = 0; w < kWords; ++w) words[c][w] = Element<T>::kFill;
        if (unsigned(c) < p.channels) {
            const T* const from = logits + uint64_t(c) * p.pixels;
            if constexpr (n == 1) {
                words[c][0] = Element<T>::raw(__ldcs(from));
            } else if constexpr (kWords == 1) {
                words[c][0] = __ldcs(reinterpret_cast<const unsigned*>(from));
            } else {
                const uint2 two = __ldcs(reinterpret_cast<const uint2*>(from));
                words[c][0] = two.x, words[c][1] = two.y;
            }
        }
    }

    const float scale = exponent_scale(p.temperature);
    Top top[n];
    float z[n], s[n];
#pragma unroll
    for (int i = 0; i < n; ++i) top[i] = no_top(), z[i] = s[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
        for (int w = 0; w < kWords; ++w) {
            float x[Element<T>::kPerWord];
            Element<T>::unpack(words[c][w], x);
#pragma unroll
            for (int i = 0; i < kPerWord; ++i) push<!kLabels>(top[w * kPerWord + i], x[i], unsigned(c));
            keep_packed(words[c][w]);
        }
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
        for (int w = 0; w < kWords; ++w) {
            float x[Element<T>::kPerWord];
            Element<T>::unpack(words[c][w], x);
            keep_packed(words[c][w]);
#pragma unroll
            for (int i = 0; i < kPerWord; ++i) {
                const int pixel = w * kPerWord + i;
                add_exponential(x[i], top[pixel].best, scale, z[pixel], s[pixel]);
            }
        }
    }

    uint8_t argmax[n];
    if constexpr (kLabels) {
        using Entropy = typename EntropyPlane<T>::type;
        Entropy entropy[n];
#pragma unroll
        for (int i = 0; i < n; ++i) {
            const bool valid = has_distribution(top[i].best, z[i], p.temperature);
            entropy[i] = Element<Entropy>::make(entropy_of(z[i], s[i], p.channels, valid));
            argmax[i] = valid ? uint8_t(top[i].index) : uint8_t(255);
        }
        store_plane(p.entropy, plane, entropy);
        store_plane(p.argmax, plane, argmax);
    } else {
        uint8_t flags[n];
        float entropy[n], max_probability[n], margin[n], energy[n], factor[n];
#pragma unroll
        for (int i = 0; i < n; ++i) {
            const Scores scores = scores_of(top[i], z[i], s[i], p.channels, p.temperature);
            entropy[i] = scores.entropy, margin[i] = scores.margin, energy[i] = scores.energy;
            max_probability[i] = factor[i] = scores.max_probability;  // 1 / Z, NaN for a pixel without a distribution
            argmax[i] = uint8_t(scores.argmax);  // -1 becomes 255
            flags[i] = uint8_t(flags_of(scores, p.limits));
        }
        store_plane(p.entropy, plane, entropy);
        store_plane(p.argmax, plane, argmax);
        store_plane(p.flags, plane, flags);
        store_plane(p.max_probability, plane, max_probability);
        store_plane(p.margin, plane, margin);
        store_plane(p.energy, plane, energy);
        if (p.probabilities == nullptr) return;
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
            if (unsigned(c) >= p.channels) break;
            T values[n];
#pragma unroll
            for (int w = 0; w < kWords; ++w) {
                float x[Element<T>::kPerWord];
                Element<T>::unpack(words[c][w], x);
#pragma unroll
                for (int i = 0; i < kPerWord; ++i) {
                    const int pixel = w * kPerWord + i;
                    values[pixel] = Element<T>::make(exp2_flushed((x[i] - top[pixel].best) * scale) * factor[pixel]);
                }
            }
            store_plane(p.probabilities, volume + uint64_t(c) * p.pixels, values);
        }
    }
}

}  // namespace framegate
