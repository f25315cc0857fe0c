// What kernel.cu takes and gives; launch.py holds the same structure.
#pragma once

#include "fixed_size_integers.h"

// Frames [N, E], E = C * H * W elements each, contiguous. bins = edge_count + 1: below the first edge, between, at or above the last.
struct ActivationEntropyParameters {
    const void* activations;
    const float* edges;          // [edge_count], finite, strictly ascending
    float* histogram_entropy;    // [N], nats; NaN for a frame with NaN or inf in it
    float* mass_entropy;         // [N], nats; NaN likewise, and unless 1e-30 < sum |x| < 2e36
    uint32_t* counts;            // [N, bins] or null
    uint32_t* non_finite;        // [N] or null: how many elements are NaN or inf
    float* partial_sums;         // workspace [N, gridDim.x, 2]
    uint32_t* partial_counts;    // workspace [N, gridDim.x, bins + 1]
    uint32_t* tickets;           // workspace [N]: zero before the first launch, left zero by every launch
    uint32_t elements;           // E, < 2^31 - 16
    uint32_t edge_count;         // 1 to 1024
};
