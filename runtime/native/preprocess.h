/* A resize that two threads do together. */

#ifndef FRAMEGATE_PREPROCESS_H
#define FRAMEGATE_PREPROCESS_H

#include "native.h"

struct preprocess;

struct shared_resize {
    struct preprocess *plan;
    const uint8_t *pixels; /* of the region */
    int64_t row_bytes;
    int32_t width, height;
    int32_t taken, made; /* rows of the result; both are atomic */
};

EXPORT void framegate_preprocess_share(struct shared_resize *shared, struct preprocess *plan, const uint8_t *pixels,
                                       int64_t row_bytes, int32_t width, int32_t height);
EXPORT void framegate_preprocess_help(struct shared_resize *shared);
EXPORT void framegate_preprocess_finish(struct shared_resize *shared);

#endif
