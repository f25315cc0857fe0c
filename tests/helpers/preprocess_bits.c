/* Resizes made pictures of awkward sizes with preprocess.c and prints a hash of the pixels of each: the same on every
   processor, whichever branch it was compiled with. */

#include "preprocess.c"

#include <stdio.h>
#include <stdlib.h>

static const int SIZES[][4] = {{160, 130, 96, 96}, {270, 160, 96, 96}, {33, 47, 32, 32},  {20, 20, 32, 32},
                               {64, 64, 32, 32},   {32, 32, 32, 32},   {1280, 72, 96, 96}, {7, 5, 32, 32},
                               {1, 1, 32, 32},     {97, 95, 96, 96},   {193, 191, 96, 96}, {640, 3, 224, 224}};

int main(void) {
    uint64_t state = 1;
    for (size_t k = 0; k < sizeof SIZES / sizeof *SIZES; ++k) {
        const int width = SIZES[k][0], height = SIZES[k][1], out_width = SIZES[k][2], out_height = SIZES[k][3];
        const size_t pixels = (size_t)3 * width * height, small = (size_t)3 * out_width * out_height;
        uint8_t *from = malloc(pixels), *to = malloc(small);
        float *tensor = malloc(sizeof *tensor * small), tables[3 * 256];
        int32_t *taps = calloc(out_width, sizeof *taps);
        int16_t *weights = calloc(2 * out_width, sizeof *weights), *lines = calloc(8 * out_width, sizeof *lines);
        for (int level = 0; level < 3 * 256; ++level) tables[level] = (float)(level % 256 - 127.5) / 64.0f;
        for (size_t i = 0; i < pixels; ++i) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            from[i] = (uint8_t)(state >> 56);
        }
        struct preprocess plan = {
            .width = out_width, .height = out_height, .planes = {2, 1, 0}, .linear = 1, .means = {127.5f, 127.5f, 127.5f},
            .deviations = {64, 64, 64}, .tables = tables, .small = to, .tensor = tensor, .taps = taps, .weights = weights,
            .lines = lines};
        framegate_preprocess(&plan, from, 3 * width, width, height);
        uint64_t hash = 1469598103934665603u;
        for (size_t i = 0; i < small; ++i) hash = (hash ^ to[i]) * 1099511628211u;
        for (size_t i = 0; i < sizeof *tensor * small; ++i) hash = (hash ^ ((uint8_t *)tensor)[i]) * 1099511628211u;
        printf("%dx%d %016llx\n", width, height, (unsigned long long)hash);
        free(from), free(to), free(tensor), free(taps), free(weights), free(lines);
    }
    return 0;
}
