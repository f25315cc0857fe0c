// Two entropies of what a layer says about each frame, from one reading of a tap [N, C, H, W].
//
//     histogram entropy   log n - sum_b c_b log c_b / n      c_b: elements x with (number of edges <= x) = b
//     mass entropy        log S - sum a log a / S            a = |x|, S = sum a: how widely the activation is spread
//
// What counts as right: reference.py. Bytes: N E sizeof(T), read once; [1, 64, 56, 56] fp16 is 0.4 MB, 0.1 us at
// 4.3 TB/s and 2 us at 0.2 TB/s (Orin): bound by launch and latency, so a frame is spread over as many blocks as have four
// windows a thread to read, and the last block to finish adds up: no second launch, no memset.
//
// Deterministic to the last bit for a given grid and alignment: histograms are integers; float sums are added per thread, per warp, per
// block and then over blocks in index order, by whichever block comes last; nothing is added by a float atomic. Replays of a
// CUDA graph need no reset: atomicInc wraps the ticket to 0.
//
// After a ReLU more than half of all elements are zeros: 32 lanes at one shared counter. They are counted in a register instead, and
// every warp has a histogram of its own.
//
// Entry points: activation_entropy_{f16|bf16|f32}; grid (blocks a frame, N), 256 threads, dynamic shared memory
// 4 (edge_count + 8 (edge_count + 2)) bytes: at most 36 KiB.
#include "activation_entropy/parameters.h"
#include "entropy_common.cuh"

#ifndef FRAMEGATE_EMULATION
#define FRAMEGATE_DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(16) unsigned char framegate_dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(framegate_dynamic_shared)
#endif

namespace framegate {

constexpr unsigned kThreads = 256, kWarps = kThreads / 32;

/// Number of edges <= x, by bisection with a step that halves: no branch depends on the data.
__device__ __forceinline__ unsigned bin_of(float x, const float* edges, unsigned edge_count, unsigned first_step) {
    unsigned bin = 0;
    for (unsigned step = first_step; step > 0; step >>= 1) {
        const unsigned next = bin + step;
        if (next <= edge_count && edges[next - 1] <= x) bin = next;
    }
    return bin;
}

/// Sum over the block in a fixed order; the result is thread 0's. A barrier before the next use of `scratch` is the caller's.
__device__ __forceinline__ float sum_over_block(float value, float* scratch) {
    value = sum_over_lanes<32>(value);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
    if (threadIdx.x == 0)
        for (unsigned warp = 0; warp < kWarps; ++warp) sum += scratch[warp];
    return sum;
}

/// What a thread gathers before the block adds up.
struct Gathered {
    float sum, moment;  // of a, and of a log2 a
    unsigned zeros, non_finite;
};

__device__ __forceinline__ void gather(float x, Gathered& mine, uint32_t* histogram, const float* edges, unsigned edge_count,
                                       unsigned first_step) {
    const float a = fabsf(x);
    if (!(a <= kLargest)) {  // NaN or inf
        mine.non_finite += 1;
    } else if (a == 0.0f) {
        mine.zeros += 1;
    } else {
        mine.sum += a;
        mine.moment = fmaf(a, __log2f(a), mine.moment);
        atomicAdd(histogram + bin_of(x, edges, edge_count, first_step), 1u);
    }
}

/// The last block of a frame: histograms and sums of all blocks, in index order, to the two entropies.
__device__ __forceinline__ void finish_frame(const ActivationEntropyParameters& p, unsigned frame, float* scratch) {
    const unsigned blocks = gridDim.x, bins = p.edge_count + 1, slots = bins + 1;
    const uint32_t* const counts = p.partial_counts + uint64_t(frame) * blocks * slots;
    float moment = 0.0f;  // of the counts
    unsigned non_finite = 0;
    for (unsigned slot = threadIdx.x; slot < slots; slot += kThreads) {
        unsigned count = 0;
        for (unsigned block = 0; block < blocks; ++block) count += __ldcg(counts + uint64_t(block) * slots + slot);
        if (slot == bins) {
            non_finite = count;
            if (p.non_finite) p.non_finite[frame] = count;
        } else {
            if (p.counts) p.counts[uint64_t(frame) * bins + slot] = count;
            if (count > 1) moment += float(count) * log2f(float(count));
        }
    }
    const bool finite = __syncthreads_or(non_finite != 0) == 0;
    moment = sum_over_block(moment, scratch);
    if (threadIdx.x != 0) return;

    const float n = float(p.elements);
    const float histogram = kLn2 * (log2f(n) - moment / n);
    p.histogram_entropy[frame] = finite ? fminf(fmaxf(histogram, 0.0f), logf(float(bins))) : not_a_number();

    const float* const sums = p.partial_sums + uint64_t(frame) * blocks * 2;
    float sum = 0.0f, mass_moment = 0.0f;
    for (unsigned block = 0; block < blocks; ++block) {
        sum += __ldcg(sums + 2 * block);
        mass_moment += __ldcg(sums + 2 * block + 1);
    }
    const float mass = kLn2 * (log2f(sum) - mass_moment / sum);
    // No distribution: a frame of zeros. No fp32 answer: a sum (of a log a) beyond fp32, or one whose terms are subnormal. NaN rejects.
    const bool spread = finite && sum > 1e-30f && fabsf(mass) <= kLargest;
    p.mass_entropy[frame] = spread ? fminf(fmaxf(mass, 0.0f), logf(n)) : not_a_number();
}

template <class T>
__device__ __forceinline__ void activation_entropy(const ActivationEntropyParameters& p) {
    FRAMEGATE_DYNAMIC_SHARED(float, edges);
    __shared__ float scratch[2][kWarps];
    __shared__ unsigned ticket;
    const unsigned frame = blockIdx.y, bins = p.edge_count + 1, slots = bins + 1;
    uint32_t* const histograms = reinterpret_cast<uint32_t*>(edges + p.edge_count);
    uint32_t* const mine_of_warp = histograms + threadIdx.x / 32 * slots;
    for (unsigned i = threadIdx.x; i < p.edge_count; i += kThreads) edges[i] = p.edges[i];
    for (unsigned i = threadIdx.x; i < kWarps * slots; i += kThreads) histograms[i] = 0;
    __syncthreads();

    const unsigned first_step = 1u << (31 - __clz(int(p.edge_count)));
    const T* const start = static_cast<const T*>(p.activations) + uint64_t(frame) * p.elements;
    const Windows<T> windows(start, p.elements);
    Gathered mine = {0.0f, 0.0f, 0u, 0u};
    for (unsigned window = blockIdx.x * kThreads + threadIdx.x; window < windows.count; window += gridDim.x * kThreads) {
        float x[Windows<T>::kPerWindow];
        unpack<T>(windows.load(window, 0u), x);
        const unsigned first = unsigned(windows.begin(window));
#pragma unroll
        for (int i = 0; i < Windows<T>::kPerWindow; ++i)
            if (first + unsigned(i) < windows.elements) gather(x[i], mine, mine_of_warp, edges, p.edge_count, first_step);
    }
    if (mine.zeros) atomicAdd(mine_of_warp + bin_of(0.0f, edges, p.edge_count, first_step), mine.zeros);
    if (mine.non_finite) atomicAdd(mine_of_warp + bins, mine.non_finite);
    const float sum = sum_over_block(mine.sum, scratch[0]);
    const float moment = sum_over_block(mine.moment, scratch[1]);

    // The barriers of the sums stand between the last atomic and this.
    const uint64_t place = uint64_t(frame) * gridDim.x + blockIdx.x;
    for (unsigned slot = threadIdx.x; slot < slots; slot += kThreads) {
        uint32_t count = 0;
        for (unsigned warp = 0; warp < kWarps; ++warp) count += histograms[warp * slots + slot];
        p.partial_counts[place * slots + slot] = count;
    }
    if (threadIdx.x == 0) p.partial_sums[2 * place] = sum, p.partial_sums[2 * place + 1] = moment;

    __threadfence();  // every thread's part is out before the block takes its ticket
    __syncthreads();
    if (threadIdx.x == 0) ticket = atomicInc(p.tickets + frame, gridDim.x - 1);
    __syncthreads();
    if (ticket != gridDim.x - 1) return;
    __threadfence();
    finish_frame(p, frame, scratch[0]);
}

}  // namespace framegate

#define ACTIVATION_ENTROPY(name, T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(256) activation_entropy_##name(const ActivationEntropyParameters p) {    \
        framegate::activation_entropy<T>(p);                                                                              \
    }

ACTIVATION_ENTROPY(f16, __half)
ACTIVATION_ENTROPY(bf16, __nv_bfloat16)
ACTIVATION_ENTROPY(f32, float)
