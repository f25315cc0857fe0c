// Softmax, entropy, argmax, maximum probability, margin and energy from one reading of the logits.
//
// With m the largest logit, T the temperature and t = (x - m) log2(e) / T:
//     Z = sum 2^t    S = sum t 2^t    H = ln Z - ln 2 S / Z    p = 2^t / Z    margin = (1 - e^d2) / Z    E = -(m + T ln Z)
// No logarithm is taken per class, and no p = 0 meets one. The moment S is shifted, because an unshifted one loses all digits at
// an offset of 1e4. Sums are fp32 whatever the input: 65504 - (-65504) is infinite in fp16. The reference is reference.py.
//
// Rows. N C sizeof(T) bytes are read once, and as many written with probabilities. [32768, 1000] fp16 is 65.5 MB: at least 15 us
// at 4.3 TB/s. A row stays packed in registers (at most 8 x 16 bytes a lane): first its maximum, then one exponential an element;
// the online form takes two. A row of more classes than a warp holds is computed by a block, which merges running (m, Z, S): with
// the exact maximum first it would have to read the row twice.
// Dense. [1, 19, 1024, 2048] fp16 -> entropy fp16 + argmax u8 moves 86 MB: at least 20 us at 4.3 TB/s. One exponential an element
// takes 10.5 us of the special function units, two would take 21. So all channels stay in registers, and a thread has two
// neighbouring pixels.
// Small. [1, 1000] is bound by the launch and two round trips to memory: one warp computes it and writes one record, which needs no
// copy node.
//
// Entry points (parameters: one SoftmaxEntropyRows or SoftmaxEntropyDense by value):
//     softmax_entropy_{lanes8|warp|block}_{f16|bf16|f32}_{entropy|scores|probabilities|record}
//     softmax_entropy_dense_{f16|bf16|f32}_{c4|c8|c12|c16|c20|c24|c32|unaligned}_{labels|scores}
// lanes8: 8 lanes a row, C <= 120; warp: C <= 1016; block: any C >= 1, one block a row, blockDim a multiple of 32.
// Dense: the least bound >= C, two pixels a thread, P even and all planes aligned to pairs; otherwise `unaligned`, a pixel a
// thread, C <= 32. Grid (ceil(P / pixels a thread / blockDim), N). launch.py chooses all this.
#include "softmax_entropy/dense.cuh"
#include "softmax_entropy/rows.cuh"

// A misaligned row of C elements touches up to ceil((C + 7) / 8) windows: 120 + 7 <= 128 and 1016 + 7 <= 1024 always fit. An fp32
// row needs twice the windows.
#define ROWS(name, T, vectors, output)                                                                                     \
    extern "C" __global__ void __launch_bounds__(128) softmax_entropy_lanes8_##name##_##output(const SoftmaxEntropyRows p) {  \
        framegate::row_in_registers<T, 8, vectors / 2, framegate::Output::output>(p);                                      \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(128) softmax_entropy_warp_##name##_##output(const SoftmaxEntropyRows p) { \
        framegate::row_in_registers<T, 32, vectors, framegate::Output::output>(p);                                         \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(1024) softmax_entropy_block_##name##_##output(const SoftmaxEntropyRows p) {  \
        framegate::row_in_block<T, framegate::Output::output>(p);                                                          \
    }

#define ROWS_OF(name, T, vectors)        \
    ROWS(name, T, vectors, entropy)      \
    ROWS(name, T, vectors, scores)       \
    ROWS(name, T, vectors, probabilities) \
    ROWS(name, T, vectors, record)

ROWS_OF(f16, __half, 4)
ROWS_OF(bf16, __nv_bfloat16, 4)
ROWS_OF(f32, float, 8)

#define DENSE(name, T, n, channels, bound, output)                                                        \
    extern "C" __global__ void __launch_bounds__(128)                             \
        softmax_entropy_dense_##name##_##bound##_##output(const SoftmaxEntropyDense p) {                  \
        framegate::dense_pixels<T, n, channels, framegate::DenseOutput::output>(p);                       \
    }

#define DENSE_BOTH(name, T, n, channels, bound)  \
    DENSE(name, T, n, channels, bound, labels)   \
    DENSE(name, T, n, channels, bound, scores)

#define DENSE_OF(name, T, n)              \
    DENSE_BOTH(name, T, n, 4, c4)         \
    DENSE_BOTH(name, T, n, 8, c8)         \
    DENSE_BOTH(name, T, n, 12, c12)       \
    DENSE_BOTH(name, T, n, 16, c16)       \
    DENSE_BOTH(name, T, n, 20, c20)       \
    DENSE_BOTH(name, T, n, 24, c24)       \
    DENSE_BOTH(name, T, n, 32, c32)       \
    DENSE_BOTH(name, T, 1, 32, unaligned)

DENSE_OF(f16, __half, 2)
DENSE_OF(bf16, __nv_bfloat16, 2)
DENSE_OF(f32, float, 2)
