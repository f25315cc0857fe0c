// Small kernels for tests/cuda_kernels/test_emulation.py: each does one thing that the emulation must do right, or refuse.
#ifdef FRAMEGATE_EMULATION
#include "cuda_emulation.h"
#else
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <stdint.h>
#define FRAMEGATE_DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(16) unsigned char framegate_dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(framegate_dynamic_shared)
#endif

#define KERNEL extern "C" __global__ void

KERNEL probe_reverse(const int* in, int* out, int with_barrier) {
    FRAMEGATE_DYNAMIC_SHARED(int, tile);
    tile[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    if (with_barrier) __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

KERNEL probe_index(int* out) {
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
        int(threadIdx.x + 100 * threadIdx.y + 10000 * threadIdx.z + 1000000 * (block + 1));
}

KERNEL probe_shuffles(int* out) {
    const unsigned all = 0xFFFFFFFFu;
    const int lane = int(threadIdx.x) % 32;
    int* row = out + 8 * threadIdx.x;
    row[0] = __shfl_xor_sync(all, lane, 5);
    row[1] = __shfl_down_sync(all, lane, 3);
    row[2] = __shfl_up_sync(all, lane, 3, 8);
    row[3] = __shfl_sync(all, lane, 2, 8);
    row[4] = int(__ballot_sync(all, lane % 3 == 0));
    row[5] = __any_sync(all, lane == 31) + 2 * __all_sync(all, lane < 31);
    row[6] = int(__shfl_xor_sync(all, double(lane), 1));
    row[7] = __syncthreads_count(threadIdx.x % 2);
}

KERNEL probe_half_warp(int* out) {  // two masks at once, as after a branch
    int value = int(threadIdx.x);
    if (threadIdx.x < 16) {
        value = __shfl_xor_sync(0x0000FFFFu, value, 1);
    } else {
        value = __shfl_xor_sync(0xFFFF0000u, value, 2);
    }
    out[threadIdx.x] = value;
}

KERNEL probe_divergent_barrier() {
    if (threadIdx.x != 3) __syncthreads();
}
KERNEL probe_divergent_shuffle(int* out) {
    if (threadIdx.x != 3) out[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, 1, 1);
}
KERNEL probe_foreign_lane(int* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0x0000FFFFu, 1, 16);
}
KERNEL probe_wide_load(const float* in, float* out) {
    const float4 four = *reinterpret_cast<const float4*>(in);
    *out = four.x + four.y + four.z + four.w;
}
KERNEL probe_atomics(unsigned* sum, int* largest, unsigned long long* wide, unsigned* ored) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(sum, i), atomicMax(largest, int(i)), atomicAdd(wide, 1ull << 32), atomicOr(ored, 1u << (i % 32));
}
KERNEL probe_halves(const float* in, uint16_t* half_out, uint16_t* bfloat_out, int n) {
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) {
        half_out[i] = __half_as_ushort(__float2half_rn(in[i]));
        bfloat_out[i] = __bfloat16_as_ushort(__float2bfloat16_rn(in[i]));
    }
}
KERNEL probe_floats(const uint16_t* in, float* half_out, float* bfloat_out) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    half_out[i] = __half2float(__ushort_as_half(in[i]));
    bfloat_out[i] = __bfloat162float(__ushort_as_bfloat16(in[i]));
}
KERNEL probe_conversions(const float* in, int* out) {
    const float x = in[threadIdx.x];
    int* row = out + 5 * threadIdx.x;
    row[0] = __float2int_rn(x), row[1] = __float2int_rz(x), row[2] = __float2int_rd(x), row[3] = __float2int_ru(x);
    row[4] = int(__float2uint_rn(x));
}
KERNEL probe_out_of_bounds(const float* in, float* out, int n) { *out = in[n]; }
KERNEL probe_shared_overrun(float* out, int n) {
    FRAMEGATE_DYNAMIC_SHARED(float, tile);
    tile[n] = 1.0f;
    *out = tile[n];
}
KERNEL probe_fence(volatile int* record) {
    record[1] = 7;
    __threadfence_system();
    record[0] = 1;
}
