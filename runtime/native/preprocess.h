/* A resize that two threads do together. */

#ifndef FRAMEGATE_PREPROCESS_H
#define FRAMEGATE_PREPROCESS_H

#include "native.h"

struct preprocess;

/* What is known of a region before its rows are resized. */
struct region {
    const uint8_t *pixels;
    int64_t row_bytes;
    int32_t width, height;
    int32_t safe; /* see resize_columns in preprocess.c */
    int32_t same, half, wide;
};

struct shared_resize {
    const struct preprocess *plan; /* nothing of it is written by either thread */
    struct region region;
    int32_t rows;        /* of the result */
    int32_t taken, made; /* of these; both are atomic */
    int32_t unused;
};

EXPORT void framegate_preprocess_share(struct shared_resize *shared, struct preprocess *plan, const uint8_t *pixels,
                                       int64_t row_bytes, int32_t width, int32_t height);
EXPORT void framegate_preprocess_help(struct shared_resize *shared);
EXPORT void framegate_preprocess_finish(struct shared_resize *shared);

#endif
