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
        float *tensor = malloc(sizeof *tensor * small), tables[3 * 256] = {0};
        int32_t *taps = calloc(out_width, sizeof *taps);
        int16_t *weights = calloc(2 * out_width, sizeof *weights);
        for (size_t i = 0; i < pixels; ++i) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            from[i] = (uint8_t)(state >> 56);
        }
        struct preprocess plan = {out_width, out_height, {2, 1, 0}, 0, tables, to, tensor, taps, weights};
        framegate_preprocess(&plan, from, 3 * width, width, height);
        uint64_t hash = 1469598103934665603u;
        for (size_t i = 0; i < small; ++i) hash = (hash ^ to[i]) * 1099511628211u;
        printf("%dx%d %016llx\n", width, height, (unsigned long long)hash);
        free(from), free(to), free(tensor), free(taps), free(weights);
    }
    return 0;
}
