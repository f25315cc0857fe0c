// What kernel.cu takes; launch.py holds the same structure.
#pragma once

#include "fixed_size_integers.h"

// Rows of a plane lie directly one behind the other. A weights array is [largest count][output samples]: neighbouring output
// samples lie side by side.
struct CameraPreprocessParameters {
    const uint8_t* plane0;    // luma of NV12, or packed BGR
    const uint8_t* plane1;    // NV12: pairs U, V
    float* output;            // [3][out_height][out_width]
    const int32_t* x_first;   // [out_width] first source column
    const int32_t* x_count;   // [out_width] how many source columns
    const float* x_weights;
    const int32_t* y_first;   // [out_height], likewise along y
    const int32_t* y_count;
    const float* y_weights;
    int32_t width, height;    // of the frame
    int32_t out_width, out_height;
    int32_t reversed;         // 1: the network wants RGB
    float mean[3], inverse_std[3];  // in the network's channel order
};
