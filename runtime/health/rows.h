/* What the compiled files of the camera check share. */

#ifndef FRAMEGATE_ROWS_H
#define FRAMEGATE_ROWS_H

#include "../native/native.h"

enum { BLOCK = 16, ZONES = 4 };

/* See RowCounts in rows.py. */
struct counts {
    int64_t total, squares;
    int64_t saturated;
    int64_t block_total, block_squares;
    int64_t fine, coarse;
    int64_t flat;
    int64_t steps, border_steps;
    int64_t repeated;
    int64_t zones[ZONES * ZONES];
    int64_t channel_total[3], channel_squares[3];
    int64_t equal[3];
};

EXPORT void framegate_count_rows(const uint8_t *pixels, int64_t row_bytes, int32_t rows, int32_t width, double flat_share,
                                 uint8_t *grey, int32_t *sums, uint8_t *spare, int32_t *histogram, struct counts *out);
EXPORT void framegate_compare_rows(const int32_t *sums, int32_t rows, int32_t blocks, int32_t pieces, int32_t slots,
                                   int32_t current, int32_t previous, int32_t rank, const int64_t *weights,
                                   const int64_t *starts, uint8_t *means, int64_t *marks, uint8_t *known, int32_t *farthest,
                                   uint8_t *equal, uint8_t *changed, int32_t *summary);
EXPORT void framegate_content(const struct counts *counts, int32_t rows, int32_t width, double *out);
struct limits;
EXPORT int32_t framegate_healthy(const double *content, const struct limits *limits);

#endif
