// Camera bytes -> the network's input, and the camera's health, in one launch. The truth is reference.py; the host's side (filter
// weights, checks, grid, this struct) filter_weights.py and launch.py.
//
//     preprocess_{nv12,yuyv,bgr}_{bilinear,filter}_{f32,f16}(PreprocessParameters)     128 threads, no dynamic memory
//
// bilinear: 2 x 2 taps an output pixel. filter: any number of taps; antialias and area differ in their taps only.
//
// Byte floor: 1080p NV12 is 3.11 MB, 0.65 us at H200's 4.8 TB/s and 15 us on AGX Orin; 224 x 224 x 3 in fp16 adds 0.3 MB.
// Bilinear alone reads at most four pixels an output pixel and is bound by the launch; the statistics read every byte.
// So do antialias and area; whoever comes second finds the bytes in L2.
//
// Design: one row of blocks, first those that resize (an output tile each), then those for statistics (512 x 16 pixels of
// the frame each). They share nothing and overlap on the device.
//   bilinear    a thread an output pixel, 32 x 4 a block, straight from global memory.
//   filter      16 x 8 output pixels a block. Of eight source rows at a time the pixels under the tile are converted once
//               into shared memory (packed in 4 bytes); a thread sums one row for one output column, then the row sums for
//               one output pixel. Pieces of 256 columns bound shared memory to 10.5 KB at any scale.
//   statistics  a thread walks down 4 columns with three rows in registers. All sums are whole numbers, hence the same in
//               whatever order blocks finish. Blocks leave theirs in device memory, whoever takes the last ticket adds
//               them up, and atomicInc leaves the ticket at 0 for the next launch: no memset node in the graph.
// Colours are whole numbers too, so fusing a multiply and an addition moves no rounding; what follows is fp32.

#ifdef FRAMEGATE_EMULATION
#include "cuda_emulation.h"
#else
#include <cuda_fp16.h>
#endif

namespace {

typedef unsigned char Byte;
typedef unsigned long long U64;
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kBilinearX = 32, kBilinearY = 4;  // an output tile; one thread a pixel
constexpr int kFilterX = 16, kFilterY = 8;      // an output tile; one thread a pixel
constexpr int kRows = kThreads / kFilterX;      // source rows a round; one thread a row and output column
constexpr int kPiece = 256;                     // source pixels of a row that are in shared memory at a time; even
constexpr int kStripRows = 16;                  // frame rows of one statistics block; even, for NV12's chroma rows
constexpr int kTotals = 8;
static_assert(kFilterX * kFilterY == kThreads && kBilinearX * kBilinearY == kThreads, "one thread an output pixel");
static_assert(kStripRows % 2 == 0 && kPiece % 2 == 0, "chroma comes in pairs");

enum Format { kNv12, kYuyv, kBgr };

}  // namespace

// Field by field `Parameters` in launch.py.
struct PreprocessParameters {
    const Byte* plane0;        // luma, or the packed pixels
    const Byte* plane1;        // NV12: U, V
    void* output;              // [3][out_height][out_width]
    const int* x_first;        // [place_width] first source column in the region
    const int* x_count;        // [place_width] taps
    const float* x_weights;    // [taps][place_width]: neighbouring columns side by side
    const int* y_first;        // the same along y
    const int* y_count;
    const float* y_weights;
    U64* partials;             // [statistics_blocks][8]
    unsigned* ticket;          // 0 before the first launch
    U64* record;               // [9]: FrameTotals in its order, then the frame's sequence number
    const U64* sequence;       // may be null: 0 is written
    U64 pitch0, pitch1;        // bytes from row to row
    int width, height;         // of the frame
    int region_x, region_y;
    int out_width, out_height;
    int place_x, place_y, place_width, place_height;  // of the resized image in the output
    int resize_blocks, statistics_blocks;
    int aligned;               // planes and pitches are multiples of 4
    int saturated_level, dark_level;
    int offset, cy, cub, cug, cvg, cvr;               // YuvMatrix
    int reversed;              // 1: the network wants RGB
    float mean[3], inverse_std[3], pad[3];            // in the network's order; pad is normalised already
};

namespace {

typedef PreprocessParameters P;

__device__ __forceinline__ int clamp(int value, int low, int high) { return min(max(value, low), high); }

// ---- pixels ----

/// Packs B | G << 8 | R << 16 from a luma byte and the three sums that its chroma gives.
__device__ unsigned pack(const P& p, int y, int blue, int green, int red) {
    const int light = max(y - p.offset, 0) * p.cy;
    return clamp((light + blue) >> 20, 0, 255) | clamp((light + green) >> 20, 0, 255) << 8 |
           clamp((light + red) >> 20, 0, 255) << 16;
}

/// Two neighbouring pixels, x even; they share their chroma. The second is 0 beyond the frame.
template <Format F>
__device__ uint2 load_pair(const P& p, int x, int y) {
    const Byte* row = p.plane0 + y * p.pitch0;
    const bool both = x + 1 < p.width;
    if (F == kBgr) {
        const Byte* at = row + 3 * x;
        return make_uint2(at[0] | at[1] << 8 | at[2] << 16, both ? at[3] | at[4] << 8 | at[5] << 16 : 0);
    }
    const Byte* chroma = F == kNv12 ? p.plane1 + (y >> 1) * p.pitch1 + x : row + 2 * x + 1;
    const int u = chroma[0] - 128, v = chroma[F == kNv12 ? 1 : 2] - 128;
    constexpr int half = 1 << 19, step = F == kNv12 ? 1 : 2;
    const int blue = p.cub * u + half, green = p.cug * u + p.cvg * v + half, red = p.cvr * v + half;
    const unsigned first = pack(p, row[step * x], blue, green, red);
    return make_uint2(first, both ? pack(p, row[step * (x + 1)], blue, green, red) : 0);
}

template <Format F>
__device__ unsigned load_pixel(const P& p, int x, int y) {
    if (F == kBgr) {
        const Byte* at = p.plane0 + y * p.pitch0 + 3 * x;
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

__device__ __forceinline__ void store(float* at, float value) { *at = value; }
__device__ __forceinline__ void store(__half* at, float value) { *at = __float2half_rn(value); }

/// Normalises and writes one output pixel, or the border's value where no image lies.
template <typename T>
__device__ void write(const P& p, int x, int y, bool inside, const Colour& colour) {
    const float pixel[3] = {p.reversed ? colour.r : colour.b, colour.g, p.reversed ? colour.b : colour.r};
    const size_t plane = size_t(p.out_width) * p.out_height, at = size_t(y) * p.out_width + x;
    for (int c = 0; c < 3; ++c)
        store(static_cast<T*>(p.output) + c * plane + at, inside ? (pixel[c] - p.mean[c]) * p.inverse_std[c] : p.pad[c]);
}

// ---- resize ----

template <Format F, typename T>
__device__ void bilinear_tile(const P& p, int tile) {
    const int tiles_x = (p.out_width + kBilinearX - 1) / kBilinearX;
    const int x = tile % tiles_x * kBilinearX + int(threadIdx.x) % kBilinearX;
    const int y = tile / tiles_x * kBilinearY + int(threadIdx.x) / kBilinearX;
    if (x >= p.out_width || y >= p.out_height) return;
    const int column = x - p.place_x, row = y - p.place_y;
    const bool inside = column >= 0 && column < p.place_width && row >= 0 && row < p.place_height;
    Colour sum = {0.0f, 0.0f, 0.0f};
    if (inside) {
        const int x0 = p.region_x + p.x_first[column], y0 = p.region_y + p.y_first[row];
        const int x1 = x0 + p.x_count[column] - 1, y1 = y0 + p.y_count[row] - 1;
        const float wx0 = p.x_weights[column], wy0 = p.y_weights[row];
        const float wx1 = 1.0f - wx0, wy1 = 1.0f - wy0;  // with one tap: 1 and 0
        sum.add(wy0 * wx0, load_pixel<F>(p, x0, y0));
        sum.add(wy0 * wx1, load_pixel<F>(p, x1, y0));
        sum.add(wy1 * wx0, load_pixel<F>(p, x0, y1));
        sum.add(wy1 * wx1, load_pixel<F>(p, x1, y1));
    }
    write<T>(p, x, y, inside, sum);
}

/// The taps of one output column or row: source [first, end), relative to the region. Empty outside the image.
struct Taps {
    int first, end;
    const float* weights;
    int stride;
    __device__ __forceinline__ Taps(const int* first_of, const int* count_of, const float* weights_of, int i, int count)
        : first(0), end(0), weights(weights_of + i), stride(count) {
        if (i < 0 || i >= count) return;
        first = first_of[i], end = first + count_of[i];
    }
    __device__ __forceinline__ float weight(int source) const { return weights[size_t(source - first) * stride]; }
};

template <Format F, typename T>
__device__ void filter_tile(const P& p, int tile) {
    __shared__ __align__(8) unsigned pixels[kRows][kPiece + 16];  // + 16: a warp reads two rows, from different banks
    __shared__ float sums[3][kRows][kFilterX];
    const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int tiles_x = (p.out_width + kFilterX - 1) / kFilterX;
    const int column = thread % kFilterX, row = thread / kFilterX;  // of the tile; in the first pass row is a source row
    const int left = tile % tiles_x * kFilterX - p.place_x, top = tile / tiles_x * kFilterY - p.place_y;
    const Taps along_x(p.x_first, p.x_count, p.x_weights, left + column, p.place_width);
    const Taps along_y(p.y_first, p.y_count, p.y_weights, top + row, p.place_height);
    Colour sum = {0.0f, 0.0f, 0.0f};

    // What the whole tile needs of the source; the taps' borders grow with the output index.
    const int column0 = max(left, 0), column1 = min(left + kFilterX, p.place_width) - 1;
    const int row0 = max(top, 0), row1 = min(top + kFilterY, p.place_height) - 1;
    const bool empty = column0 > column1 || row0 > row1;
    const int x_begin = empty ? 0 : p.region_x + p.x_first[column0];
    const int x_end = empty ? 0 : p.region_x + p.x_first[column1] + p.x_count[column1];
    const int y_begin = empty ? 0 : p.y_first[row0], y_end = empty ? 0 : p.y_first[row1] + p.y_count[row1];

    for (int y0 = y_begin; y0 < y_end; y0 += kRows) {
        Colour across = {0.0f, 0.0f, 0.0f};
        for (int x0 = x_begin & ~1; x0 < x_end; x0 += kPiece) {
            const int pixels_now = min(kPiece, x_end - x0);
            __syncthreads();  // the last piece has been read
            for (int r = warp; r < kRows && y0 + r < y_end; r += kWarps)
                for (int x = 2 * lane; x < pixels_now; x += 64)
                    *reinterpret_cast<uint2*>(&pixels[r][x]) = load_pair<F>(p, x0 + x, p.region_y + y0 + r);
            __syncthreads();
            if (y0 + row >= y_end) continue;
            const int shift = x0 - p.region_x;  // region column of the piece's first pixel
            const int end = min(along_x.end, shift + pixels_now);
            for (int x = max(along_x.first, shift); x < end; ++x) across.add(along_x.weight(x), pixels[row][x - shift]);
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
    const int x = left + p.place_x + column, y = top + p.place_y + row;
    if (x < p.out_width && y < p.out_height) write<T>(p, x, y, along_x.end > 0 && along_y.end > 0, sum);
}

// ---- statistics ----

/// The finaliser of splitmix64 (Steele, Lea and Flood 2014): a bijection in which every bit moves every other.
__device__ U64 mix(unsigned position, unsigned word) {
    U64 z = U64(position) << 32 | word;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

/// Bytes [at, at + 4) of a row, little endian; zeros beyond the row's end, where padding or another buffer may lie.
__device__ unsigned load_word(const Byte* row, int at, int row_bytes, bool aligned) {
    if (aligned && at + 4 <= row_bytes) return *reinterpret_cast<const unsigned*>(row + at);
    unsigned word = 0;
    for (int i = 0; i < 4; ++i)
        if (at + i < row_bytes) word |= unsigned(row[at + i]) << (8 * i);
    return word;
}

__device__ __forceinline__ int luma_of_bgr(int b, int g, int r) {
    return (3735 * b + 19235 * g + 9798 * r + (1 << 14)) >> 15;
}

template <Format F>
__device__ int load_luma(const Byte* row, int x) {
    if (F == kNv12) return row[x];
    if (F == kYuyv) return row[2 * x];
    return luma_of_bgr(row[3 * x], row[3 * x + 1], row[3 * x + 2]);
}

/// Luma of pixel i of a group of four, from the group's words.
template <Format F>
__device__ __forceinline__ int luma_in_words(const unsigned* words, int i) {
    auto byte = [&](int at) { return int(words[at / 4] >> (at % 4 * 8) & 0xFF); };
    if (F == kNv12) return byte(i);
    if (F == kYuyv) return byte(2 * i);
    return luma_of_bgr(byte(3 * i), byte(3 * i + 1), byte(3 * i + 2));
}

template <Format F>
struct Group {
    static constexpr int kWords = F == kNv12 ? 1 : F == kYuyv ? 2 : 3;  // of four pixels
    int luma[6];  // pixels x - 1 .. x + 4, the border repeated
    U64 hash;     // of the words of the row

    __device__ void load(const P& p, int x, int y, int row_bytes, int words_per_row) {
        const Byte* row = p.plane0 + y * p.pitch0;
        unsigned words[kWords];
        hash = 0;
#pragma unroll
        for (int k = 0; k < kWords; ++k) {
            const int index = x / 4 * kWords + k;
            words[k] = load_word(row, 4 * index, row_bytes, p.aligned);
            if (index < words_per_row) hash += mix(unsigned(y) * words_per_row + index, words[k]);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) luma[i + 1] = i == 0 || x + i < p.width ? luma_in_words<F>(words, i) : luma[i];
        luma[0] = x > 0 ? load_luma<F>(row, x - 1) : luma[1];
        luma[5] = x + 4 < p.width ? load_luma<F>(row, x + 4) : luma[4];
    }
};

/// Adds up every thread's eight numbers; thread i < 8 gets the sum of number i.
__device__ U64 sum_over_block(U64 (&totals)[kTotals]) {
    __shared__ U64 of_warp[kWarps][kTotals];
    const int thread = int(threadIdx.x);
    __syncthreads();  // of_warp may still be read by whoever is in the last call
#pragma unroll
    for (int i = 0; i < kTotals; ++i) {
        for (int lanes = 16; lanes > 0; lanes /= 2) totals[i] += __shfl_xor_sync(0xFFFFFFFFu, totals[i], lanes);
        if (thread % 32 == 0) of_warp[thread / 32][i] = totals[i];
    }
    __syncthreads();
    U64 sum = 0;
    for (int w = 0; w < kWarps && thread < kTotals; ++w) sum += of_warp[w][thread];
    return sum;
}

/// One strip of this thread's four columns; numbers in the order of FrameTotals.
template <Format F>
__device__ void sum_strip(const P& p, int x, int top, U64 (&totals)[kTotals]) {
    const int pairs = (p.width + 1) / 2, bottom = min(top + kStripRows, p.height);
    const int row_bytes = F == kNv12 ? p.width : F == kYuyv ? 4 * pairs : 3 * p.width;
    const int words_per_row = (row_bytes + 3) / 4;
    // 32 bits are enough for a strip: the largest, high_frequency, is at most 4 * 16 * 2040^2.
    unsigned light = 0, saturated = 0, dark = 0, laplacian_squared = 0, variation = 0, high_frequency = 0;
    int laplacian = 0;
    Group<F> above, here, below;
    above.load(p, x, max(top - 1, 0), row_bytes, words_per_row);
    here.load(p, x, top, row_bytes, words_per_row);
    for (int y = top; y < bottom; ++y) {
        below.load(p, x, min(y + 1, p.height - 1), row_bytes, words_per_row);
        totals[7] += here.hash;
#pragma unroll
        for (int i = 1; i <= 4; ++i) {
            if (x + i > p.width) break;  // pixel i of the group is column x + i - 1
            const int a = here.luma[i];
            const int cross = above.luma[i] + below.luma[i] + here.luma[i - 1] + here.luma[i + 1];
            const int corners = above.luma[i - 1] + above.luma[i + 1] + below.luma[i - 1] + below.luma[i + 1];
            const int curvature = cross - 4 * a, detail = 8 * a - cross - corners;
            light += a;
            saturated += a >= p.saturated_level;
            dark += a <= p.dark_level;
            laplacian += curvature;
            laplacian_squared += unsigned(curvature * curvature);
            variation += unsigned(abs(here.luma[i + 1] - a) + abs(below.luma[i] - a));
            high_frequency += unsigned(detail * detail);
        }
        above = here, here = below;
    }
    if (F == kNv12) {  // rows of chroma have as many words as rows of luma and are numbered after them
        const int chroma_rows = (p.height + 1) / 2;
        for (int y = top / 2; y < min((top + kStripRows) / 2, chroma_rows); ++y)
            totals[7] += mix(unsigned(p.height + y) * words_per_row + x / 4,
                             load_word(p.plane1 + y * p.pitch1, x, 2 * pairs, p.aligned));
    }
    totals[0] = light, totals[1] = saturated, totals[2] = dark, totals[3] = U64(static_cast<long long>(laplacian));
    totals[4] = laplacian_squared, totals[5] = variation, totals[6] = high_frequency;
}

template <Format F>
__device__ void statistics_strip(const P& p, int block) {
    __shared__ bool last;
    const int thread = int(threadIdx.x);
    const int blocks_x = ((p.width + 3) / 4 + kThreads - 1) / kThreads;
    const int x = 4 * (block % blocks_x * kThreads + thread), top = block / blocks_x * kStripRows;
    U64 totals[kTotals] = {};
    if (x < p.width) sum_strip<F>(p, x, top, totals);
    const U64 mine = sum_over_block(totals);
    if (thread < kTotals) {
        __stcg(p.partials + size_t(block) * kTotals + thread, mine);
        __threadfence();  // before the ticket says that it is there
    }
    __syncthreads();
    if (thread == 0) last = atomicInc(p.ticket, unsigned(p.statistics_blocks - 1)) == unsigned(p.statistics_blocks - 1);
    __syncthreads();
    if (!last) return;
    __threadfence();
    for (int i = 0; i < kTotals; ++i) totals[i] = 0;
    for (int b = thread; b < p.statistics_blocks; b += kThreads)
        for (int i = 0; i < kTotals; ++i) totals[i] += __ldcg(p.partials + size_t(b) * kTotals + i);
    const U64 all = sum_over_block(totals);
    if (thread < kTotals) {
        p.record[thread] = all;
        __threadfence_system();  // the record may lie in host memory: its number comes last
    }
    __syncthreads();
    if (thread == 0) *const_cast<volatile U64*>(p.record + kTotals) = p.sequence ? *p.sequence : 0;
}

template <Format F, bool Bilinear, typename T>
__device__ void preprocess(const P& p) {
    const int block = int(blockIdx.x);
    if (block >= p.resize_blocks) return statistics_strip<F>(p, block - p.resize_blocks);
    if constexpr (Bilinear) bilinear_tile<F, T>(p, block);
    else filter_tile<F, T>(p, block);
}

}  // namespace

// At least six blocks an SM, that is up to 80 registers: left alone, ptxas aims at more blocks on sm_100 and spills.
#define KERNEL(name, format, bilinear, type) \
    extern "C" __global__ void __launch_bounds__(kThreads, 6) name(const P p) { preprocess<format, bilinear, type>(p); }
#define KERNELS(name, format)                         \
    KERNEL(name##_bilinear_f32, format, true, float)  \
    KERNEL(name##_bilinear_f16, format, true, __half) \
    KERNEL(name##_filter_f32, format, false, float)   \
    KERNEL(name##_filter_f16, format, false, __half)
KERNELS(preprocess_nv12, kNv12)
KERNELS(preprocess_yuyv, kYuyv)
KERNELS(preprocess_bgr, kBgr)
