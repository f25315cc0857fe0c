// The device functions of the CUDA headers that the kernels use; included at the end of cuda_emulation.h.
#pragma once

#define threadIdx (::emulation::machine().current->index)
#define blockIdx (::emulation::machine().block_index)
#define blockDim (::emulation::machine().block_extent)
#define gridDim (::emulation::machine().grid_extent)
constexpr int warpSize = 32;

// Synchronisation.

inline void __syncthreads() { ::emulation::machine().barrier(); }

inline int __syncthreads_count(int predicate) { return int(::emulation::machine().barrier(predicate != 0)); }
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) != 0; }
inline int __syncthreads_and(int predicate) { return __syncthreads_count(!predicate) == 0; }

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() { ::emulation::machine().system_fence(); }
[[noreturn]] inline void __trap() { ::emulation::machine().fail("__trap was reached"); }

// Warp functions.

namespace emulation {

template <class T>
inline T shuffle(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 8, "a shuffle carries at most 8 bytes");
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    word = machine().collective(Collective::shuffle, mask, word, source).result;
    memcpy(&value, &word, sizeof value);
    return value;
}

inline unsigned lane() { return machine().current->lane; }

}  // namespace emulation

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    const unsigned segment = ::emulation::lane() & ~unsigned(width - 1);
    return ::emulation::shuffle(mask, value, segment + (unsigned(source) & unsigned(width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const unsigned me = ::emulation::lane(), other = me ^ unsigned(lanes);
    return ::emulation::shuffle(mask, value, other < (me | unsigned(width - 1)) + 1 ? other : me);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned me = ::emulation::lane();
    const bool inside = (me & unsigned(width - 1)) + delta < unsigned(width);
    return ::emulation::shuffle(mask, value, inside ? me + delta : me);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned me = ::emulation::lane();
    return ::emulation::shuffle(mask, value, (me & unsigned(width - 1)) >= delta ? me - delta : me);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    auto& machine = ::emulation::machine();
    return machine.collective(::emulation::Collective::vote, mask, predicate != 0, machine.current->lane).ballot;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { (void)__ballot_sync(mask, 0); }

// Atomics. Fibres are never interrupted, so a plain read and write is atomic.

#define EMULATION_ATOMIC(name, type, expression)    \
    inline type name(type* address, type value) {   \
        const type old = *address;                  \
        *address = (expression);                    \
        return old;                                 \
    }
#define EMULATION_ATOMICS(type)                                          \
    EMULATION_ATOMIC(atomicMax, type, old > value ? old : value)         \
    EMULATION_ATOMIC(atomicMin, type, old < value ? old : value)         \
    EMULATION_ATOMIC(atomicOr, type, old | value)                        \
    EMULATION_ATOMIC(atomicAnd, type, old & value)                       \
    EMULATION_ATOMIC(atomicXor, type, old ^ value)                       \
    EMULATION_ATOMIC(atomicExch, type, value)                            \
    inline type atomicCAS(type* address, type compare, type value) {     \
        const type old = *address;                                       \
        if (old == compare) *address = value;                            \
        return old;                                                      \
    }
EMULATION_ATOMICS(int)
EMULATION_ATOMICS(unsigned)
EMULATION_ATOMICS(unsigned long long)
EMULATION_ATOMIC(atomicAdd, int, int(unsigned(old) + unsigned(value)))
EMULATION_ATOMIC(atomicAdd, unsigned, old + value)
EMULATION_ATOMIC(atomicAdd, unsigned long long, old + value)
EMULATION_ATOMIC(atomicAdd, float, old + value)
EMULATION_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1)
#undef EMULATION_ATOMICS
#undef EMULATION_ATOMIC

// Loads and stores with cache hints.

#define EMULATION_LOAD(name) \
    template <class T>       \
    inline T name(const T* address) { return *address; }
#define EMULATION_STORE(name) \
    template <class T>        \
    inline void name(T* address, T value) { *address = value; }
EMULATION_LOAD(__ldg)
EMULATION_LOAD(__ldcg)
EMULATION_LOAD(__ldca)
EMULATION_LOAD(__ldcs)
EMULATION_LOAD(__ldlu)
EMULATION_LOAD(__ldcv)
EMULATION_STORE(__stwb)
EMULATION_STORE(__stcg)
EMULATION_STORE(__stcs)
EMULATION_STORE(__stwt)
#undef EMULATION_LOAD
#undef EMULATION_STORE

// Arithmetic.

inline float __uint_as_float(unsigned u) { return ::emulation::bits<float>(u); }
inline unsigned __float_as_uint(float f) { return ::emulation::bits<unsigned>(f); }
inline float __int_as_float(int i) { return ::emulation::bits<float>(i); }
inline int __float_as_int(float f) { return ::emulation::bits<int>(f); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float x, float y) {
    if (fabsf(y) > 0x1p126f && fabsf(y) < INFINITY) return isinf(x) ? NAN : 0.0f * x;  // as documented for the GPU
    return x / y;
}
inline float __expf(float x) { return exp2f(x * 1.4426950408889634f); }  // the product is rounded, as on the GPU
inline float __exp10f(float x) { return exp2f(x * 3.3219280948873623f); }
inline float __log2f(float x) { return log2f(x); }
inline float __logf(float x) { return log2f(x) * 0.6931471805599453f; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }  // NaN -> 0

namespace emulation {

/// Conversions saturate and turn NaN into 0 on the GPU; in C++ both are undefined. (float)-> 2^63 is exact enough as a double.
template <class T>
inline T saturate(double x) {
    constexpr T low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
    if (!(x == x)) return 0;
    if (x <= double(low)) return low;
    return x >= double(high) ? high : T(x);
}

}  // namespace emulation

inline int __float2int_rn(float x) { return ::emulation::saturate<int>(rint(x)); }
inline int __float2int_rz(float x) { return ::emulation::saturate<int>(trunc(x)); }
inline int __float2int_rd(float x) { return ::emulation::saturate<int>(floor(x)); }
inline int __float2int_ru(float x) { return ::emulation::saturate<int>(ceil(x)); }
inline unsigned __float2uint_rn(float x) { return ::emulation::saturate<unsigned>(rint(x)); }
inline unsigned __float2uint_rz(float x) { return ::emulation::saturate<unsigned>(trunc(x)); }
inline unsigned __float2uint_rd(float x) { return ::emulation::saturate<unsigned>(floor(x)); }
inline unsigned __float2uint_ru(float x) { return ::emulation::saturate<unsigned>(ceil(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned(uint64_t(x) * y >> 32); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t bytes = uint64_t(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned nibble = selector >> (4 * i) & 0xF;
        unsigned byte = unsigned(bytes >> (8 * (nibble & 7))) & 0xFF;
        if (nibble & 8) byte = byte & 0x80 ? 0xFF : 0;
        result |= byte << (8 * i);
    }
    return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}

#define EMULATION_MIN_MAX(type)                                       \
    inline type min(type a, type b) { return b < a ? b : a; }         \
    inline type max(type a, type b) { return a < b ? b : a; }
EMULATION_MIN_MAX(int)
EMULATION_MIN_MAX(unsigned)
EMULATION_MIN_MAX(long)
EMULATION_MIN_MAX(unsigned long)
EMULATION_MIN_MAX(long long)
EMULATION_MIN_MAX(unsigned long long)
#undef EMULATION_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }  // as in CUDA: the number wins over NaN
inline float max(float a, float b) { return fmaxf(a, b); }

#if !EMULATION_ASAN
// The plain build is compiled with -fsanitize=alignment but not linked with its run time: this handler turns a misaligned access
// into a Python exception instead of ending the process.
extern "C" inline __attribute__((used)) void __ubsan_handle_type_mismatch_v1(void*, void* pointer) {
    char text[96];
    snprintf(text, sizeof text, "misaligned access at %p", pointer);
    ::emulation::machine().fail(text);
}
#endif
