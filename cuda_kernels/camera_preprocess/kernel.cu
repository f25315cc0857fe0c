// Camera bytes -> the network's input in one launch: colour, resize, normalisation. The reference is reference.py; weights,
// checks and grid are in filter_weights.py and launch.py.
//
//     camera_preprocess_{nv12,bgr}_{bilinear,filter}(CameraPreprocessParameters)     128 threads, no dynamic shared memory
//
// bilinear: 2 x 2 source pixels an output pixel. filter: any number of them, for shrinking by area.
//
// Fewest bytes: 1080p NV12 is 3.11 MB, 0.65 us at H200's 4.8 TB/s and 15 us on AGX Orin; 224 x 224 x 3 in fp32 adds 0.6 MB.
// bilinear reads at most four pixels an output pixel and is bound by the launch; area reads every byte.
//
// Design: a block computes one tile of the output.
//   bilinear    32 x 4 output pixels a block, a thread an output pixel, straight from global memory.
//   filter      16 x 8 output pixels a block. Of eight source rows at a time the pixels under the tile are converted once
//               into shared memory (packed in 4 bytes); a thread sums one row for one output column, then the row sums for
//               one output pixel. Pieces of 256 columns bound shared memory to 10.5 KB at any scale.
// Colours are whole numbers, so fusing a multiply and an addition moves no rounding; what follows is fp32.

#ifdef FRAMEGATE_EMULATION
#include "cuda_emulation.h"
#endif

#include "camera_preprocess/parameters.h"

namespace {

typedef CameraPreprocessParameters P;
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kBilinearX = 32, kBilinearY = 4;  // an output tile; one thread a pixel
constexpr int kFilterX = 16, kFilterY = 8;      // an output tile; one thread a pixel
constexpr int kRows = kThreads / kFilterX;      // source rows a round; one thread a row and output column
constexpr int kPiece = 256;                     // source pixels of a row that are in shared memory at a time; even
static_assert(kFilterX * kFilterY == kThreads && kBilinearX * kBilinearY == kThreads, "one thread an output pixel");
static_assert(kPiece % 2 == 0, "pixels come in pairs, which share their chroma");

// ITU-R BT.601, limited range: the code of black, and 1.164, 2.018, -0.391, -0.813, 1.596 in units of 2^-20, as in cv2.
constexpr int kBlack = 16;
constexpr int kCy = 1220542, kCub = 2116026, kCug = -409993, kCvg = -852492, kCvr = 1673527;

enum Format { kNv12, kBgr };

__device__ __forceinline__ int clamp(int value, int low, int high) { return min(max(value, low), high); }

// ---- pixels ----

/// Packs B | G << 8 | R << 16 from a luma byte and the three sums that its chroma gives.
__device__ unsigned pack(int y, int blue, int green, int red) {
    const int light = max(y - kBlack, 0) * kCy;
    return clamp((light + blue) >> 20, 0, 255) | clamp((light + green) >> 20, 0, 255) << 8 |
           clamp((light + red) >> 20, 0, 255) << 16;
}

/// Two neighbouring pixels, x even. The second is 0 beyond the frame.
template <Format F>
__device__ uint2 load_pair(const P& p, int x, int y) {
    const bool both = x + 1 < p.width;
    if (F == kBgr) {
        const uint8_t* at = p.plane0 + (size_t(y) * p.width + x) * 3;
        return make_uint2(at[0] | at[1] << 8 | at[2] << 16, both ? at[3] | at[4] << 8 | at[5] << 16 : 0);
    }
    const uint8_t* luma = p.plane0 + size_t(y) * p.width + x;
    const uint8_t* chroma = p.plane1 + size_t(y >> 1) * ((p.width + 1) & ~1) + x;
    const int u = chroma[0] - 128, v = chroma[1] - 128;
    constexpr int half = 1 << 19;
    const int blue = kCub * u + half, green = kCug * u + kCvg * v + half, red = kCvr * v + half;
    return make_uint2(pack(luma[0], blue, green, red), both ? pack(luma[1], blue, green, red) : 0);
}

template <Format F>
__device__ unsigned load_pixel(const P& p, int x, int y) {
    if (F == kBgr) {
        const uint8_t* at = p.plane0 + (size_t(y) * p.width + x) * 3;
        return at[0] | at[1] << 8 | at[2] << 16;
    }
    const uint2 pair = load_pair<F>(p, x & ~1, y);
    return x & 1 ? pair.y : pair.x;
}

/// Byte i as a float: as the mantissa of 2^23 + byte. One byte_perm and one subtraction, where a conversion is a slow pipe.
template <int I>
__device__ __forceinline__ float channel(unsigned packed) {
    return __uint_as_float(__byte_perm(packed, 0x4B000000u, 0x7440u + I)) - 8388608.0f;
}

struct Colour {
    float b, g, r;
    __device__ __forceinline__ void add(float weight, unsigned packed) {
        b = fmaf(weight, channel<0>(packed), b);
        g = fmaf(weight, channel<1>(packed), g);
        r = fmaf(weight, channel<2>(packed), r);
    }
};

/// Normalises and writes one output pixel.
__device__ void write(const P& p, int x, int y, const Colour& colour) {
    const float pixel[3] = {p.reversed ? colour.r : colour.b, colour.g, p.reversed ? colour.b : colour.r};
    const size_t plane = size_t(p.out_width) * p.out_height, at = size_t(y) * p.out_width + x;
    for (int c = 0; c < 3; ++c) p.output[c * plane + at] = (pixel[c] - p.mean[c]) * p.inverse_std[c];
}

// ---- resize ----

template <Format F>
__device__ void bilinear_tile(const P& p, int tile) {
    const int tiles_x = (p.out_width + kBilinearX - 1) / kBilinearX;
    const int x = tile % tiles_x * kBilinearX + int(threadIdx.x) % kBilinearX;
    const int y = tile / tiles_x * kBilinearY + int(threadIdx.x) / kBilinearX;
    if (x >= p.out_width || y >= p.out_height) return;
    Colour sum = {0.0f, 0.0f, 0.0f};
    const int x0 = p.x_first[x], y0 = p.y_first[y];
    const int x1 = x0 + p.x_count[x] - 1, y1 = y0 + p.y_count[y] - 1;
    const float wx0 = p.x_weights[x], wy0 = p.y_weights[y];
    const float wx1 = 1.0f - wx0, wy1 = 1.0f - wy0;  // where only one sample counts: 1 and 0
    sum.add(wy0 * wx0, load_pixel<F>(p, x0, y0));
    sum.add(wy0 * wx1, load_pixel<F>(p, x1, y0));
    sum.add(wy1 * wx0, load_pixel<F>(p, x0, y1));
    sum.add(wy1 * wx1, load_pixel<F>(p, x1, y1));
    write(p, x, y, sum);
}

/// The weights of one output column or row: source samples [first, end). Empty beyond the output.
struct Weights {
    int first, end;
    const float* weights;
    int stride;
    __device__ __forceinline__ Weights(const int* first_of, const int* count_of, const float* weights_of, int i, int count)
        : first(0), end(0), weights(weights_of + i), stride(count) {
        if (i >= count) return;
        first = first_of[i], end = first + count_of[i];
    }
    __device__ __forceinline__ float weight(int source) const { return weights[size_t(source - first) * stride]; }
};

template <Format F>
__device__ void filter_tile(const P& p, int tile) {
    __shared__ __align__(8) unsigned pixels[kRows][kPiece + 16];  // + 16: a warp reads two rows, from different banks
    __shared__ float sums[3][kRows][kFilterX];
    const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int tiles_x = (p.out_width + kFilterX - 1) / kFilterX;
    const int column = thread % kFilterX, row = thread / kFilterX;  // of the tile; in the first pass row is a source row
    const int left = tile % tiles_x * kFilterX, top = tile / tiles_x * kFilterY;
    const Weights along_x(p.x_first, p.x_count, p.x_weights, left + column, p.out_width);
    const Weights along_y(p.y_first, p.y_count, p.y_weights, top + row, p.out_height);
    Colour sum = {0.0f, 0.0f, 0.0f};

    // What the whole tile needs of the source; the borders of the filter grow with the output index.
    const int last_column = min(left + kFilterX, p.out_width) - 1, last_row = min(top + kFilterY, p.out_height) - 1;
    const int x_begin = p.x_first[left], x_end = p.x_first[last_column] + p.x_count[last_column];
    const int y_begin = p.y_first[top], y_end = p.y_first[last_row] + p.y_count[last_row];

    for (int y0 = y_begin; y0 < y_end; y0 += kRows) {
        Colour across = {0.0f, 0.0f, 0.0f};
        for (int x0 = x_begin & ~1; x0 < x_end; x0 += kPiece) {
            const int pixels_now = min(kPiece, x_end - x0);
            __syncthreads();  // the last piece has been read
            for (int r = warp; r < kRows && y0 + r < y_end; r += kWarps)
                for (int x = 2 * lane; x < pixels_now; x += 64)
                    *reinterpret_cast<uint2*>(&pixels[r][x]) = load_pair<F>(p, x0 + x, y0 + r);
            __syncthreads();
            if (y0 + row >= y_end) continue;
            const int end = min(along_x.end, x0 + pixels_now);
            for (int x = max(along_x.first, x0); x < end; ++x) across.add(along_x.weight(x), pixels[row][x - x0]);
        }
        sums[0][row][column] = across.b, sums[1][row][column] = across.g, sums[2][row][column] = across.r;
        __syncthreads();
        const int end = min(along_y.end, y0 + kRows);
        for (int y = max(along_y.first, y0); y < end; ++y) {
            const float weight = along_y.weight(y);
            sum.b = fmaf(weight, sums[0][y - y0][column], sum.b);
            sum.g = fmaf(weight, sums[1][y - y0][column], sum.g);
            sum.r = fmaf(weight, sums[2][y - y0][column], sum.r);
        }
    }
    if (left + column < p.out_width && top + row < p.out_height) write(p, left + column, top + row, sum);
}

}  // namespace

// At least six blocks an SM, that is up to 80 registers: left alone, ptxas aims at more blocks on sm_100 and spills.
#define KERNELS(name, format)                                                                                         \
    extern "C" __global__ void __launch_bounds__(kThreads, 6) name##_bilinear(const P p) {                            \
        bilinear_tile<format>(p, int(blockIdx.x));                                                                    \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(kThreads, 6) name##_filter(const P p) {                              \
        filter_tile<format>(p, int(blockIdx.x));                                                                      \
    }
KERNELS(camera_preprocess_nv12, kNv12)
KERNELS(camera_preprocess_bgr, kBgr)
