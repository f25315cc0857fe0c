// What kernel.cu takes and gives: plain structures, the same on the device, on the host and in launch.py.
#pragma once

#include "fixed_size_integers.h"

// The scores of one row in mapped host memory, padded to 32 bytes, in two stores of 16 bytes whose order is left open: a fence
// between them would wait for a way to the host and back. `check` shows a record of which only one half has arrived.
struct __attribute__((aligned(32))) SoftmaxEntropyRecord {
    uint32_t sequence;      // copied from *sequence at launch
    int32_t argmax;         // lowest index among equal maxima; -1 for a row without a distribution, whose scores are NaN
    float entropy;          // nats, [0, log C]
    float max_probability;  // [1/C, 1]
    float margin;           // top-1 minus top-2 probability
    float energy;           // -T logsumexp(x / T), unit of the logits
    uint32_t check;         // XOR of the six words above and kRecordCheck: 32 zero bytes are no record
    uint32_t padding;
};
enum : uint32_t { kRecordCheck = 0x46474154u };

// Rows [N, C]. Null outputs are skipped. A row has no distribution if NaN, +inf or nothing but -inf is among its logits, or the
// temperature is not a finite number above 0: its argmax is -1 and everything else NaN.
struct SoftmaxEntropyRows {
    const void* logits;     // aligned to its element; rows may start anywhere
    uint64_t row_stride;    // elements from one row to the next
    float* entropy;         // [N] each
    float* max_probability;
    float* margin;
    float* energy;
    int32_t* argmax;
    void* probabilities;    // [N, C] contiguous, of the logits' type; only ..._probabilities kernels
    const uint32_t* sequence;       // mapped host memory; only ..._record kernels
    SoftmaxEntropyRecord* records;  // [N], mapped host memory; only ..._record kernels
    uint32_t rows;
    uint32_t classes;
    float temperature;
    float inverse_temperature;      // 1 / temperature and log(classes), computed once by the host
    float log_classes;
    void* copy;                     // [N, C] contiguous, of the logits' type: what was read; only ..._record kernels
};

// What is said of each pixel of a dense output. kPixelUsable is set only if no other bit is. A pixel without a distribution has
// NaN scores; NaN passes no comparison, so it carries kPixelInvalid and every OVER/UNDER bit.
enum SoftmaxEntropyPixelFlags : uint32_t {
    kPixelUsable = 1u << 0,
    kPixelInvalid = 1u << 1,            // without a distribution, see SoftmaxEntropyRows
    kPixelEntropyOver = 1u << 2,        // not (entropy <= entropy_at_most)
    kPixelProbabilityUnder = 1u << 3,   // not (max_probability >= max_probability_at_least)
    kPixelMarginUnder = 1u << 4,        // not (margin >= margin_at_least)
    kPixelEnergyOver = 1u << 5,         // not (energy finite and energy <= energy_at_most)
};

// What a usable pixel must satisfy. A comparison that shall always pass gets +inf (or -inf for the at_least ones); NaN refuses
// every pixel.
struct SoftmaxEntropyLimits {
    float entropy_at_most;
    float max_probability_at_least;
    float margin_at_least;
    float energy_at_most;
};

// Channel-major logits [N, C, P], P = H * W pixels, contiguous, C <= 32. Null outputs are skipped. Image n is blockIdx.y.
struct SoftmaxEntropyDense {
    const void* logits;
    void* entropy;           // [N, P]: fp16 from 16-bit logits in ..._labels kernels, otherwise fp32
    uint8_t* argmax;         // [N, P], 255 for a pixel without a distribution
    uint8_t* flags;          // SoftmaxEntropyPixelFlags; this and the rest only in ..._scores kernels
    float* max_probability;
    float* margin;
    float* energy;
    void* probabilities;     // [N, C, P], of the logits' type
    uint32_t channels;
    uint32_t pixels;
    float temperature;
    float inverse_temperature;
    float log_channels;
    SoftmaxEntropyLimits limits;
};
