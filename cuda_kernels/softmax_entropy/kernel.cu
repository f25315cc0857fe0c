// Softmax, entropy, argmax, maximum probability, margin and energy from one reading of the logits.
//
// With m the largest logit, T the temperature and t = (x - m) log2(e) / T:
//     Z = sum 2^t    S = sum t 2^t    H = ln Z - ln 2 S / Z    p = 2^t / Z    margin = (1 - e^d2) / Z    E = -(m + T ln Z)
// No logarithm is taken per class, and no p = 0 meets one. The moment S is shifted, because an unshifted one loses all digits at
// an offset of 1e4. Sums are fp32 whatever the input: 65504 - (-65504) is infinite in fp16. The reference is reference.py.
//
// Entropy alone (..._entropy, ..._labels) is computed with one fused multiply-add an element for t; what that is allowed to
// assume is in quick.cuh, and a row that does not keep to it is computed again by the formulas above.
// Rows. N C sizeof(T) bytes are read once, and as many written with probabilities. [32768, 1000] fp16 is 65.5 MB: at least 15 us
// at 4.3 TB/s. A row stays packed in registers (at most 8 x 16 bytes a lane): first its maximum, then one exponential an element;
// the online form takes two. A row of more classes than a warp holds is computed by a block, which merges running (m, Z, S): with
// the exact maximum first it would have to read the row twice. Rows of at most 32 classes are computed by a thread each, out of
// shared memory, if nothing but the entropy is asked for: eight lanes a row would mostly hold nothing.
// Dense. [1, 19, 1024, 2048] fp16 -> entropy fp16 + argmax u8 moves 86 MB: at least 20 us at 4.3 TB/s. One exponential an element
// takes 10.5 us of the special function units, two would take 21. So all channels stay in registers, and a thread has two
// neighbouring pixels.
// Small. [1, 1000] is bound by the launch and two round trips to memory: one warp computes it and writes one record, which needs no
// copy node.
//
// Entry points (parameters: one SoftmaxEntropyRows or SoftmaxEntropyDense by value):
//     softmax_entropy_{lanes8|warp|block}_{f16|bf16|f32}_{entropy|scores|probabilities|record}
//     softmax_entropy_{thread|lanes16}_{f16|bf16|f32}_entropy
//     softmax_entropy_dense_{f16|bf16|f32}_{c4|c8|c12|c16|c20|c24|c32|unaligned}_{labels|scores}
// thread: C <= 32, rows without gaps, blockDim 128; lanes8: 8 lanes a row, C <= 120; lanes16: C <= 504; warp: C <= 1016; block: any
// C >= 1, one block a row, blockDim a multiple of 32 and at most 512 (so that several blocks share a multiprocessor).
// Dense: the least bound >= C, two pixels a thread, P even and all planes aligned to pairs; otherwise `unaligned`, a pixel a
// thread, C <= 32. Grid (ceil(P / pixels a thread / blockDim), N). launch.py chooses all this.
#include "softmax_entropy/dense.cuh"
#include "softmax_entropy/rows.cuh"

// A misaligned row of C elements touches up to ceil((C + 7) / 8) windows: 120 + 7 <= 128 and 1016 + 7 <= 1024 always fit. An fp32
// row needs twice the windows.
#define KERNEL(threads, name, parameters, ...)                                       \
    extern "C" __global__ void __launch_bounds__(threads) name(const parameters p) { \
        framegate::__VA_ARGS__(p);                                                   \
    }
#define ROWS(layout, threads, name, output, ...) \
    KERNEL(threads, softmax_entropy_##layout##_##name##_##output, SoftmaxEntropyRows, __VA_ARGS__)

#define SCORES(name, T, vectors, output)                                                            \
    ROWS(lanes8, 128, name, output, row_in_registers<T, 8, vectors / 2, framegate::Output::output>) \
    ROWS(warp, 128, name, output, row_in_registers<T, 32, vectors, framegate::Output::output>)      \
    ROWS(block, 512, name, output, row_in_block<T, framegate::Output::output>)

#define ROWS_OF(name, T, vectors)                                             \
    ROWS(thread, 128, name, entropy, entropy_in_thread<T>)                    \
    ROWS(lanes8, 128, name, entropy, entropy_in_registers<T, 8, vectors / 2>) \
    ROWS(lanes16, 128, name, entropy, entropy_in_registers<T, 16, vectors>)   \
    ROWS(warp, 128, name, entropy, entropy_in_registers<T, 32, vectors>)      \
    ROWS(block, 512, name, entropy, entropy_in_block<T>)                      \
    SCORES(name, T, vectors, scores)                                          \
    SCORES(name, T, vectors, probabilities)                                   \
    SCORES(name, T, vectors, record)

ROWS_OF(f16, __half, 4)
ROWS_OF(bf16, __nv_bfloat16, 4)
ROWS_OF(f32, float, 8)

#define DENSE(name, T, n, channels, certain, bound)                                                                             \
    KERNEL(128, softmax_entropy_dense_##name##_##bound##_labels, SoftmaxEntropyDense, labels_of_pixels<T, n, channels, certain>) \
    KERNEL(128, softmax_entropy_dense_##name##_##bound##_scores, SoftmaxEntropyDense, scores_of_pixels<T, n, channels, certain>)

#define DENSE_OF(name, T)          \
    DENSE(name, T, 2, 4, 0, c4)    \
    DENSE(name, T, 2, 8, 4, c8)    \
    DENSE(name, T, 2, 12, 8, c12)  \
    DENSE(name, T, 2, 16, 12, c16) \
    DENSE(name, T, 2, 20, 16, c20) \
    DENSE(name, T, 2, 24, 20, c24) \
    DENSE(name, T, 2, 32, 24, c32) \
    DENSE(name, T, 1, 32, 0, unaligned)

DENSE_OF(f16, __half)
DENSE_OF(bf16, __nv_bfloat16)
DENSE_OF(f32, float)
