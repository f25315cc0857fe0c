// Channel-major logits [N, C, P] as segmentation networks give them: a thread a few pixels, all their channels in registers.
#pragma once

#include "softmax_entropy/quick.cuh"

namespace framegate {

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

/// The channels of n neighbouring pixels in registers. Channels up to kCertain are there whatever C is, since the next smaller
/// kernel takes fewer, and are read without a question; what is beyond C holds `fill` and is never read.
template <class T, int n, int kChannels, int kCertain, int kWords>
__device__ __forceinline__ void load_channels(unsigned (&words)[kChannels][kWords], const T* from, unsigned channels,
                                              unsigned pixels, unsigned fill) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
        for (int w = 0; w < kWords; ++w) words[c][w] = fill;
        if (c <= kCertain || unsigned(c) < channels) {
            if constexpr (n == 1) {
                words[c][0] = Element<T>::raw(__ldcs(from));
            } else if constexpr (kWords == 1) {
                words[c][0] = __ldcs(reinterpret_cast<const unsigned*>(from));
            } else {
                const uint2 two = __ldcs(reinterpret_cast<const uint2*>(from));
                words[c][0] = two.x, words[c][1] = two.y;
            }
        }
        from += pixels;
    }
}

/// The exact way for one pixel, channel by channel out of memory; returns its entropy and the largest channel's number.
template <class T>
__device__ float exact_pixel(const SoftmaxEntropyDense& p, const T* at, float scale, uint8_t& argmax) {
    Top top = no_top();
#pragma unroll 1
    for (unsigned c = 0; c < p.channels; ++c) push<false>(top, Element<T>::value(at[uint64_t(c) * p.pixels]), c);
    float z = 0.0f, s = 0.0f;
#pragma unroll 1
    for (unsigned c = 0; c < p.channels; ++c)
        add_exponential(Element<T>::value(at[uint64_t(c) * p.pixels]), top.best, scale, z, s);
    const bool valid = has_distribution(top.best, z, p.temperature);
    argmax = valid ? uint8_t(top.index) : uint8_t(255);
    return entropy_of(z, s, p.log_channels, valid);
}

/// Entropy and label of n neighbouring pixels: the largest channel first, then where it is, then one exponential an element. Two
/// pixels of 16 bits share every instruction but those of their sums.
///
/// n is 2 where P is even and every plane aligned for pairs; otherwise 1, which any address allows.
template <class T, int n, int kChannels, int kCertain>
__device__ __forceinline__ void labels_of_pixels(const SoftmaxEntropyDense& p) {
    constexpr int kPerWord = n == 1 ? 1 : Element<T>::kPerWord, kWords = n / kPerWord;
    const uint64_t first = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * n;
    if (first >= p.pixels) return;
    const T* const logits = static_cast<const T*>(p.logits) + uint64_t(blockIdx.y) * p.channels * p.pixels + first;
    const uint64_t plane = uint64_t(blockIdx.y) * p.pixels + first;

    unsigned words[kChannels][kWords];
    load_channels<T, n, kChannels, kCertain>(words, logits, p.channels, p.pixels, Element<T>::kPad);

    const float scale = kLog2E * p.inverse_temperature;
    using Entropy = typename EntropyPlane<T>::type;
    Entropy entropy[n];
    uint8_t argmax[n];
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
        unsigned top = words[0][w], index = 0u;
#pragma unroll
        for (int c = 1; c < kChannels; ++c) top = Element<T>::larger(top, words[c][w]);
#pragma unroll
        for (int c = kChannels - 1; c > 0; --c) {  // downwards, so that the lowest of equal ones stays
            const unsigned here = Element<T>::equal(words[c][w], top);
            index = (here & unsigned(kPerWord == 2 ? c * 0x10001 : c)) | (~here & index);
        }
        index &= ~Element<T>::equal(words[0][w], top);
        float m[Element<T>::kPerWord], k[kPerWord], z[kPerWord], s[kPerWord];
        Element<T>::unpack(top, m);
#pragma unroll
        for (int i = 0; i < kPerWord; ++i) k[i] = m[i] * scale, z[i] = s[i] = 0.0f;
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
            float x[Element<T>::kPerWord];
            Element<T>::unpack(words[c][w], x);
            keep_packed(words[c][w]);
#pragma unroll
            for (int i = 0; i < kPerWord; ++i) add_quickly(x[i], scale, k[i], z[i], s[i]);
        }
#pragma unroll
        for (int i = 0; i < kPerWord; ++i) {
            const int pixel = w * kPerWord + i;
            float h = quick_entropy(z[i], s[i], p.log_channels, p.temperature);
            argmax[pixel] = usable_temperature(p.temperature) ? uint8_t(index >> (16 * i)) : uint8_t(255);
            if (!good<T>(z[i], s[i], scale, k[i])) h = exact_pixel(p, logits + pixel, scale, argmax[pixel]);
            entropy[pixel] = Element<Entropy>::make(h);
        }
    }
    store_plane(p.entropy, plane, entropy);
    store_plane(p.argmax, plane, argmax);
}

/// All scores of n neighbouring pixels, exactly: maximum first, then one exponential an element; no shuffles, no shared memory.
///
/// kChannels is the least compiled bound >= C; the surplus channels are -inf in registers and never loaded.
template <class T, int n, int kChannels, int kCertain>
__device__ __forceinline__ void scores_of_pixels(const SoftmaxEntropyDense& p) {
    constexpr int kPerWord = n == 1 ? 1 : Element<T>::kPerWord, kWords = n / kPerWord;
    const uint64_t first = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * n;
    if (first >= p.pixels) return;
    const uint64_t volume = uint64_t(blockIdx.y) * p.channels * p.pixels + first;  // of channel 0
    const uint64_t plane = uint64_t(blockIdx.y) * p.pixels + first;
    const T* const logits = static_cast<const T*>(p.logits) + volume;

    unsigned words[kChannels][kWords];
    load_channels<T, n, kChannels, kCertain>(words, logits, p.channels, p.pixels, Element<T>::kFill);

    const float scale = kLog2E * p.inverse_temperature;
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
            for (int i = 0; i < kPerWord; ++i) push<true>(top[w * kPerWord + i], x[i], unsigned(c));
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
    uint8_t flags[n];
    float entropy[n], max_probability[n], margin[n], energy[n], factor[n];
#pragma unroll
    for (int i = 0; i < n; ++i) {
        const Scores scores = scores_of(top[i], z[i], s[i], p.log_channels, p.temperature, p.inverse_temperature);
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

}  // namespace framegate
