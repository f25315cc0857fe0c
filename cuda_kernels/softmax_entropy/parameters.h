// What kernel.cu takes and gives: plain structures, the same on the device, on the host and in launch.py.
#pragma once

#include "fixed_size_integers.h"

// Verdict bits. ACCEPT is set only if no other bit is. A row without a distribution has NaN scores; NaN passes no
// comparison, so such a row carries INVALID and every OVER/UNDER bit.
enum SoftmaxEntropyVerdict : uint32_t {
    kVerdictAccept = 1u << 0,
    kVerdictInvalid = 1u << 1,            // NaN, +inf or nothing but -inf among the logits, or an impossible temperature
    kVerdictEntropyOver = 1u << 2,        // not (entropy <= entropy_at_most)
    kVerdictProbabilityUnder = 1u << 3,   // not (max_probability >= max_probability_at_least)
    kVerdictMarginUnder = 1u << 4,        // not (margin >= margin_at_least)
    kVerdictEnergyOver = 1u << 5,         // not (energy finite and energy <= energy_at_most)
};

// One 32-byte record in mapped host memory. `sequence` is written last, behind a system-wide fence: a host that sees the
// number of its frame sees that frame's fields. `check` guards against reading while the next frame is being written.
struct __attribute__((aligned(32))) SoftmaxEntropyRecord {
    uint32_t sequence;      // copied from *sequence at launch
    int32_t argmax;         // lowest index among equal maxima; -1 when INVALID
    uint32_t verdict;       // SoftmaxEntropyVerdict
    float entropy;          // nats, [0, log C]
    float max_probability;  // [1/C, 1]
    float margin;           // top-1 minus top-2 probability
    float energy;           // -T logsumexp(x / T), unit of the logits
    uint32_t check;         // XOR of the seven words above and kRecordCheck: 32 zero bytes are no record
};
enum : uint32_t { kRecordCheck = 0x46474154u };

// A comparison that shall always pass gets +inf (or -inf for the at_least ones); NaN rejects everything.
struct SoftmaxEntropyOptions {
    float temperature;  // finite, > 0
    float entropy_at_most;
    float max_probability_at_least;
    float margin_at_least;
    float energy_at_most;
};

// Rows [N, C]. Null outputs are skipped.
struct SoftmaxEntropyRows {
    const void* logits;     // aligned to its element; rows may start anywhere
    uint64_t row_stride;    // elements from one row to the next
    float* entropy;         // [N] each
    float* max_probability;
    float* margin;
    float* energy;
    int32_t* argmax;
    uint8_t* verdict;
    void* probabilities;    // [N, C] contiguous, of the logits' type; only ..._probabilities kernels
    const uint32_t* sequence;       // mapped host memory; only ..._record kernels
    SoftmaxEntropyRecord* records;  // [N], mapped host memory; only ..._record kernels
    uint32_t rows;
    uint32_t classes;
    SoftmaxEntropyOptions options;
};

// Channel-major logits [N, C, P], P = H * W pixels, contiguous, C <= 32. Null outputs are skipped. Image n is blockIdx.y.
struct SoftmaxEntropyDense {
    const void* logits;
    void* entropy;           // [N, P]: fp16 from 16-bit logits in ..._labels kernels, otherwise fp32
    uint8_t* argmax;         // [N, P], 255 when INVALID
    uint8_t* verdict;        // the rest only in ..._scores kernels
    float* max_probability;
    float* margin;
    float* energy;
    void* probabilities;     // [N, C, P], of the logits' type
    uint32_t channels;
    uint32_t pixels;
    SoftmaxEntropyOptions options;
};
