// Vector types with CUDA's alignment, and the two 16-bit float types with conversions rounded to nearest even.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define __align__(n) __attribute__((aligned(n)))

#define EMULATION_VECTOR(type, name, alignment2, alignment4)            \
    struct name##1 { type x; };                                         \
    struct __align__(alignment2) name##2 { type x, y; };                \
    struct name##3 { type x, y, z; };                                   \
    struct __align__(alignment4) name##4 { type x, y, z, w; };          \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }    \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

EMULATION_VECTOR(signed char, char, 2, 4)
EMULATION_VECTOR(unsigned char, uchar, 2, 4)
EMULATION_VECTOR(short, short, 4, 8)
EMULATION_VECTOR(unsigned short, ushort, 4, 8)
EMULATION_VECTOR(int, int, 8, 16)
EMULATION_VECTOR(unsigned, uint, 8, 16)
EMULATION_VECTOR(float, float, 8, 16)
EMULATION_VECTOR(double, double, 16, 16)
EMULATION_VECTOR(long long, longlong, 16, 16)
EMULATION_VECTOR(unsigned long long, ulonglong, 16, 16)
#undef EMULATION_VECTOR

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulation {

template <class To, class From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

/// float -> IEEE half, nearest even; NaN becomes 0x7FFF as on the GPU.
inline uint16_t half_bits(float value) {
    const uint32_t u = bits<uint32_t>(value), magnitude = u & 0x7FFFFFFFu;
    const uint16_t sign = uint16_t(u >> 16 & 0x8000u);
    if (magnitude > 0x7F800000u) return 0x7FFF;
    if (magnitude >= 0x47800000u) return uint16_t(sign | 0x7C00u);  // 65536 and beyond; 65520 to 65536 round there below
    if (magnitude < 0x38800000u) {                                  // subnormal half: the unit is 2^-24
        // Adding 0.5 leaves the mantissa's unit at 2^-24, so the float addition itself rounds to nearest even.
        const float shifted = bits<float>(magnitude) + 0.5f;
        return uint16_t(sign | (bits<uint32_t>(shifted) - 0x3F000000u));
    }
    const uint32_t rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1);
    return uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}

inline float half_value(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000u) << 16, exponent = half >> 10 & 0x1Fu, mantissa = half & 0x3FFu;
    if (exponent == 31) return bits<float>(sign | 0x7F800000u | mantissa << 13);
    if (exponent == 0) return bits<float>(sign | bits<uint32_t>(float(mantissa) * 0x1p-24f));
    return bits<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

/// float -> bfloat16, nearest even; NaN becomes 0x7FFF as on the GPU.
inline uint16_t bfloat16_bits(float value) {
    const uint32_t u = bits<uint32_t>(value);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
    return uint16_t((u + 0x7FFFu + (u >> 16 & 1)) >> 16);
}

inline float bfloat16_value(uint16_t b) { return bits<float>(uint32_t(b) << 16); }

}  // namespace emulation

// One operation through float is correctly rounded for both types: 24 bits >= 2 * 11 + 2 (Figueroa 1995). A fused multiply-add
// through float is not, so there is no __hfma.
#define EMULATION_FLOAT16(name, to_bits, to_value)                                                      \
    struct __align__(2) name {                                                                          \
        uint16_t raw;                                                                                   \
        name() = default;                                                                               \
        name(float value) : raw(::emulation::to_bits(value)) {}                                         \
        operator float() const { return ::emulation::to_value(raw); }                                   \
    };                                                                                                  \
    struct __align__(4) name##2 {                                                                       \
        name x, y;                                                                                      \
    };                                                                                                  \
    inline name operator+(name a, name b) { return name(float(a) + float(b)); }                         \
    inline name operator-(name a, name b) { return name(float(a) - float(b)); }                         \
    inline name operator*(name a, name b) { return name(float(a) * float(b)); }                         \
    inline name operator/(name a, name b) { return name(float(a) / float(b)); }                         \
    inline name operator-(name a) { return name(-float(a)); }                                           \
    inline bool operator<(name a, name b) { return float(a) < float(b); }                               \
    inline bool operator>(name a, name b) { return float(a) > float(b); }                               \
    inline bool operator<=(name a, name b) { return float(a) <= float(b); }                             \
    inline bool operator>=(name a, name b) { return float(a) >= float(b); }                             \
    inline bool operator==(name a, name b) { return float(a) == float(b); }                             \
    inline bool operator!=(name a, name b) { return float(a) != float(b); }                             \
    inline name __hadd(name a, name b) { return a + b; }                                                \
    inline name __hsub(name a, name b) { return a - b; }                                                \
    inline name __hmul(name a, name b) { return a * b; }                                                \
    inline name __hmax(name a, name b) { return name(fmaxf(float(a), float(b))); }                      \
    inline name##2 __hmax2(name##2 a, name##2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }       \
    inline unsigned __heq2_mask(name##2 a, name##2 b) {                                                 \
        return (a.x == b.x ? 0xFFFFu : 0u) | (a.y == b.y ? 0xFFFF0000u : 0u);                           \
    }

EMULATION_FLOAT16(__half, half_bits, half_value)
EMULATION_FLOAT16(__nv_bfloat16, bfloat16_bits, bfloat16_value)
#undef EMULATION_FLOAT16
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

inline float __half2float(__half h) { return float(h); }
inline __half __float2half(float f) { return __half(f); }
inline __half __float2half_rn(float f) { return __half(f); }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 f) { return {__half(f.x), __half(f.y)}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline float2 __half22float2(__half2 h) { return {float(h.x), float(h.y)}; }
inline __half __low2half(__half2 h) { return h.x; }
inline __half __high2half(__half2 h) { return h.y; }
inline float __low2float(__half2 h) { return float(h.x); }
inline float __high2float(__half2 h) { return float(h.y); }
inline unsigned short __half_as_ushort(__half h) { return h.raw; }
inline __half __ushort_as_half(unsigned short u) { return ::emulation::bits<__half>(u); }

inline float __bfloat162float(__nv_bfloat16 b) { return float(b); }
inline __nv_bfloat16 __float2bfloat16(float f) { return __nv_bfloat16(f); }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __nv_bfloat16(f); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 b) { return {float(b.x), float(b.y)}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.raw; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short u) { return ::emulation::bits<__nv_bfloat16>(u); }
