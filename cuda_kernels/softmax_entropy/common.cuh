// What every layout uses: element types, 128-bit windows over rows that start anywhere, exp2, warp sums.
#pragma once

#ifdef FRAMEGATE_EMULATION
#include "cuda_emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "fixed_size_integers.h"

namespace framegate {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr float kLargest = 3.402823466e38f;

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7F800000u); }
__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7FC00000u); }

/// 2^x with results below 2^-126 flushed to 0: one instruction. exp2f would add a range reduction for subnormals that no score
/// can see. Exact at 0, 0 at -inf, NaN at NaN; relative error 2^-22.5.
__device__ __forceinline__ float exp2_flushed(float x) {
#ifdef FRAMEGATE_EMULATION
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/// Element: what a 32-bit word of a type holds. `fill` is -inf: a class that is not there weighs nothing in a softmax. `pad` is a
/// finite number far below every ordinary logit, for sums that -inf would spoil: -1e30, and the smallest number of fp16. `pad()` is
/// exactly what `kPad` holds: a row without a larger logit is known by it.
///
/// `larger` compares two words element by element and `largest` the elements of one; a NaN loses against a number in both.
template <class T>
struct Element;

template <>
struct Element<float> {
    static constexpr int kPerWord = 1;
    static constexpr unsigned kFill = 0xFF800000u;
    static __device__ __forceinline__ void unpack(unsigned word, float* out) { out[0] = __uint_as_float(word); }
    static __device__ __forceinline__ unsigned pack(const float* in) { return __float_as_uint(in[0]); }
    static __device__ __forceinline__ unsigned raw(float x) { return __float_as_uint(x); }
    static __device__ __forceinline__ float make(float x) { return x; }
    static constexpr unsigned kPad = 0xF149F2CAu;
    static __device__ __forceinline__ float pad() { return __uint_as_float(kPad); }
    static __device__ __forceinline__ float value(float x) { return x; }
    static __device__ __forceinline__ unsigned larger(unsigned a, unsigned b) {
        return __float_as_uint(fmaxf(__uint_as_float(a), __uint_as_float(b)));
    }
    static __device__ __forceinline__ float largest(unsigned word) { return __uint_as_float(word); }
    /// All bits of an element set where two words agree.
    static __device__ __forceinline__ unsigned equal(unsigned a, unsigned b) {
        return __uint_as_float(a) == __uint_as_float(b) ? 0xFFFFFFFFu : 0u;
    }
};

template <>
struct Element<__half> {
    static constexpr int kPerWord = 2;
    static constexpr unsigned kFill = 0xFC00FC00u;
    static __device__ __forceinline__ void unpack(unsigned word, float* out) {
        const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&word));
        out[0] = pair.x, out[1] = pair.y;
    }
    static __device__ __forceinline__ unsigned pack(const float* in) {
        const __half2 pair = __floats2half2_rn(in[0], in[1]);
        return *reinterpret_cast<const unsigned*>(&pair);
    }
    static __device__ __forceinline__ unsigned raw(__half x) { return __half_as_ushort(x); }
    static __device__ __forceinline__ __half make(float x) { return __float2half_rn(x); }
    static constexpr unsigned kPad = 0xFBFFFBFFu;
    static __device__ __forceinline__ float pad() { return -65504.0f; }
    static __device__ __forceinline__ float value(__half x) { return __half2float(x); }
    static __device__ __forceinline__ unsigned larger(unsigned a, unsigned b) {
        const __half2 c = __hmax2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
        return *reinterpret_cast<const unsigned*>(&c);
    }
    static __device__ __forceinline__ float largest(unsigned word) {
        float x[2];
        unpack(word, x);
        return fmaxf(x[0], x[1]);
    }
    static __device__ __forceinline__ unsigned equal(unsigned a, unsigned b) {
        return __heq2_mask(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
    }
};

template <>
struct Element<__nv_bfloat16> {
    static constexpr int kPerWord = 2;
    static constexpr unsigned kFill = 0xFF80FF80u;
    static __device__ __forceinline__ void unpack(unsigned word, float* out) {  // bfloat16 is the upper half of a float
        out[0] = __uint_as_float(word << 16), out[1] = __uint_as_float(word & 0xFFFF0000u);
    }
    static __device__ __forceinline__ unsigned pack(const float* in) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(in[0], in[1]);
        return *reinterpret_cast<const unsigned*>(&pair);
    }
    static __device__ __forceinline__ unsigned raw(__nv_bfloat16 x) { return __bfloat16_as_ushort(x); }
    static __device__ __forceinline__ __nv_bfloat16 make(float x) { return __float2bfloat16_rn(x); }
    static constexpr unsigned kPad = 0xF14AF14Au;
    static __device__ __forceinline__ float pad() { return __uint_as_float(kPad & 0xFFFF0000u); }
    static __device__ __forceinline__ float value(__nv_bfloat16 x) { return __bfloat162float(x); }
    static __device__ __forceinline__ unsigned larger(unsigned a, unsigned b) {
        const __nv_bfloat162 c = __hmax2(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
        return *reinterpret_cast<const unsigned*>(&c);
    }
    static __device__ __forceinline__ float largest(unsigned word) {
        float x[2];
        unpack(word, x);
        return fmaxf(x[0], x[1]);
    }
    static __device__ __forceinline__ unsigned equal(unsigned a, unsigned b) {
        return __heq2_mask(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
    }
};

/// Four words, so that a template can index them with a constant and they stay in registers.
struct Words4 {
    unsigned word[4];
};

/// A row seen through the 16-byte windows of memory that it touches: all but the first and last are whole, whatever the
/// alignment. Whole windows are read in one load; the edges element by element, because what lies beside the row may not be ours.
template <class T>
struct Windows {
    static constexpr int kPerWindow = 16 / int(sizeof(T));

    const T* row;
    uintptr_t base;     // start of the first window, at or before the row
    unsigned elements;
    int head;           // elements of the first window that lie before the row
    unsigned count;

    __device__ __forceinline__ Windows(const T* start, unsigned length) : row(start), elements(length) {
        const uintptr_t address = reinterpret_cast<uintptr_t>(start);
        base = address & ~uintptr_t(15);
        head = int((address & 15) / sizeof(T));
        count = length == 0 ? 0 : unsigned((head + uint64_t(length) + (kPerWindow - 1)) / kPerWindow);
    }

    /// Index in the row of the window's first element; negative in a first window with a head.
    __device__ __forceinline__ int begin(unsigned window) const { return int(window) * kPerWindow - head; }

    __device__ __forceinline__ bool whole(int first) const {
        return first >= 0 && unsigned(first) + kPerWindow <= elements;
    }

    /// Return the window's elements as raw words; what is beside the row, and every window at or past count, is `fill`.
    __device__ __forceinline__ Words4 load(unsigned window, unsigned fill) const {
        Words4 out = {{fill, fill, fill, fill}};
        if (window >= count) return out;
        const int first = begin(window);
        if (whole(first)) {
            const uint4 four = __ldcs(reinterpret_cast<const uint4*>(base + uintptr_t(window) * 16));
            out = {{four.x, four.y, four.z, four.w}};
            return out;
        }
        constexpr int kPerWord = Element<T>::kPerWord;
        constexpr unsigned kBits = 32 / kPerWord, kMask = kPerWord == 1 ? 0xFFFFFFFFu : 0xFFFFu;
#pragma unroll
        for (int i = 0; i < kPerWindow; ++i) {
            const unsigned index = unsigned(first + i);  // a negative index is larger than any row
            const unsigned shift = kBits * unsigned(i % kPerWord) % 32;
            if (index < elements) {
                unsigned& word = out.word[i / kPerWord];
                word = (word & ~(kMask << shift)) | Element<T>::raw(row[index]) << shift;
            }
        }
        return out;
    }
};

/// Unpack a window to floats.
template <class T>
__device__ __forceinline__ void unpack(const Words4& words, float* out) {
#pragma unroll
    for (int i = 0; i < 4; ++i) Element<T>::unpack(words.word[i], out + i * Element<T>::kPerWord);
}

template <int kLanes>
__device__ __forceinline__ float sum_over_lanes(float value) {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
    return value;
}

template <int kLanes>
__device__ __forceinline__ float max_over_lanes(float value) {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
    return value;
}

}  // namespace framegate
