// The scores of rows [N, C] as a TensorRT layer computes them: what kernel.cu does, with the flat parameter list that a
// layer has. TensorRT passes inputs, then extra 32-bit integers, then outputs; everything else about the row is in
// rows.cuh, so the in-engine scores are those of the kernel that runs behind an engine.
//
// A source of its own, because its PTX goes into every engine: three kernels instead of sixty.
//
// Entry points: softmax_entropy_plugin_{lanes8|warp|block}; plugin_launch.py chooses. The temperature is read from device memory:
// it is an input of the engine, since calibration comes after the build.
#include "softmax_entropy/rows.cuh"

namespace framegate {

__device__ __forceinline__ SoftmaxEntropyRows plugin_rows(const float* logits, const float* temperature, int32_t rows,
                                                          int32_t classes, float* probabilities, float* entropy, float* margin,
                                                          float* energy) {
    SoftmaxEntropyRows p = {};
    p.logits = logits;
    p.row_stride = uint64_t(classes);
    p.entropy = entropy;
    p.margin = margin;
    p.energy = energy;
    p.probabilities = probabilities;
    p.rows = uint32_t(rows);
    p.classes = uint32_t(classes);
    p.temperature = __ldg(temperature);
    p.inverse_temperature = 1.0f / p.temperature;
    p.log_classes = logf(float(classes));
    return p;
}

}  // namespace framegate

#define PLUGIN(layout, threads, work)                                                                                     \
    extern "C" __global__ void __launch_bounds__(threads) softmax_entropy_plugin_##layout(                                \
        const float* logits, const float* temperature, int32_t rows, int32_t classes, float* probabilities,               \
        float* entropy, float* margin, float* energy) {                                                                   \
        work(framegate::plugin_rows(logits, temperature, rows, classes, probabilities, entropy, margin, energy));         \
    }

PLUGIN(lanes8, 128, (framegate::row_in_registers<float, 8, 4, framegate::Output::probabilities>))
PLUGIN(warp, 128, (framegate::row_in_registers<float, 32, 8, framegate::Output::probabilities>))
PLUGIN(block, 1024, (framegate::row_in_block<float, framegate::Output::probabilities>))
