/* The measures of one frame from what was counted in its rows: what content.py computes with Python's numbers, operation
   by operation in the same order, so that the two give the same values. A test holds them together. */

#include "rows.h"

#include <math.h>

static const double ROUNDING = 1.0 / 12.0, LOST_STD = 0.5, LIVE_STD = 6.0;

/* The numerator is a whole number that 63 bits hold: rows are at most 10,000 pixels wide, and there are about 32. */
static double deviation(int64_t total, int64_t squares, int64_t count) {
    return sqrt((double)(squares * count - total * total)) / (double)count;
}

/* 0: no channel is lost; 1 to 3: blue, green, red; 4 to 6: blue = green, green = red, blue = red. */
static int32_t lost_channel(const struct counts *counts, int64_t pixels) {
    double spread[3], least, most;
    for (int32_t k = 0; k < 3; ++k) spread[k] = deviation(counts->channel_total[k], counts->channel_squares[k], pixels);
    int32_t first = 0;
    for (int32_t k = 1; k < 3; ++k)
        if (spread[k] < spread[first]) first = k;
    least = spread[first];
    most = spread[0] > spread[1] ? spread[0] : spread[1];
    if (spread[2] > most) most = spread[2];
    if (!(least > LOST_STD) && !(most < LIVE_STD)) return 1 + first;
    for (int32_t k = 0; k < 3; ++k)
        if (counts->equal[k]) return 4 + k;
    return 0;
}

static int32_t edge(int32_t size, int32_t k) { return size * k / ZONES; }

/* out: mean, std, saturated, contrast, sharpness, detail, noise, blockiness, missing, 16 zones, lost channel, coloured. */
EXPORT void framegate_content(const struct counts *counts, int32_t rows, int32_t width, double *out) {
    const int64_t pixels = (int64_t)rows * width, blocks = (int64_t)rows * (width / BLOCK);
    const double laplace = sqrt(6.0) * sqrt(2.0 / 3.141592653589793);
    const double noise = counts->flat >= 0 ? (double)counts->flat / BLOCK / laplace : NAN;
    out[0] = (double)counts->total / (double)(3 * pixels);
    out[1] = deviation(counts->total, counts->squares, 3 * pixels);
    out[2] = (double)counts->saturated / (double)pixels;
    out[3] = deviation(counts->block_total, counts->block_squares, blocks) / BLOCK;
    const double variance = noise * noise;
    /* max(a, b) of Python is a unless b > a: an unknown noise stays unknown. */
    const double added = 2.0 * (ROUNDING > variance ? ROUNDING : variance);
    const double fine = (double)counts->fine / (double)((int64_t)rows * (width - 1)) - added;
    const double coarse = (double)counts->coarse / (double)((int64_t)rows * (width - 4)) - added;
    const double sharp = (16.0 * fine / coarse - 1.0) / 15.0;
    out[4] = coarse > 0.0 ? (0.0 > sharp ? 0.0 : sharp) : NAN;
    out[5] = coarse > 0.0 ? sqrt(coarse) : 0.0;
    out[6] = noise;
    const int64_t borders = (int64_t)rows * (width / 8 - (width % 8 == 0));
    const double inner = (double)(counts->steps - counts->border_steps) / (double)((int64_t)rows * (width - 1) - borders);
    out[7] = (double)counts->border_steps / (double)borders / (inner + 0.5);
    out[8] = counts->repeated ? (double)(counts->repeated + 1) / rows : 0.0;
    for (int32_t y = 0; y < ZONES; ++y)
        for (int32_t x = 0; x < ZONES; ++x) {
            const int64_t size = (int64_t)(edge(rows, y + 1) - edge(rows, y)) * (edge(width - 4, x + 1) - edge(width - 4, x));
            out[9 + ZONES * y + x] = size ? (double)counts->zones[ZONES * y + x] / (double)size : NAN;
        }
    const int grey = counts->equal[0] && counts->equal[1] && counts->equal[2];
    out[25] = grey ? 0 : lost_channel(counts, (int64_t)((rows + 3) / 4) * width);
    out[26] = !grey;
}

enum { MEAN, STD, SATURATED, CONTRAST, SHARPNESS, DETAIL, NOISE, BLOCKINESS, MISSING, FIRST_ZONE, LOST = 25, COLOURED };

/* See HealthThresholds in thresholds.py. */
struct limits {
    double black_mean, black_std, saturated, missing, contrast, light, detail, zone_fall, zone_share, sharpness, noise,
        blockiness, colour, small;
    double known; /* whether there are zones */
    double zones[ZONES * ZONES];
};

/* 1 where judge.py finds nothing in a frame whose light was not measured; 0 says nothing: ask judge.py. Written so that
   NaN is not healthy. */
EXPORT int32_t framegate_healthy(const double *content, const struct limits *limits) {
    static const double dim_mean = 32.0, least_contrast = 2.5, fewest_zones = 6.0;
    if (!(content[MEAN] > limits->black_mean || content[STD] > limits->black_std)) return 0;
    if (!(content[SATURATED] < limits->saturated)) return 0;
    if (limits->small != 0.0) return 1;
    if (!(content[MISSING] < limits->missing) || content[LOST] != 0.0) return 0;
    if (limits->colour != 0.0 && content[COLOURED] == 0.0) return 0;
    const double part = content[MEAN] / dim_mean, dim = part < 1.0 ? part : 1.0;
    const double wanted = limits->contrast * (limits->light > 0.0 ? 1.0 : dim);
    const double least = (least_contrast < limits->contrast ? least_contrast : limits->contrast) * dim;
    if (!(content[CONTRAST] >= (least > wanted ? least : wanted)) || !(content[DETAIL] >= limits->detail)) return 0;
    double had = 0.0, lost = 0.0;
    for (int32_t k = 0; limits->known != 0.0 && k < ZONES * ZONES; ++k)
        if (limits->zones[k] >= 1.0) {
            had += 1.0;
            lost += !(content[FIRST_ZONE + k] >= limits->zone_fall * limits->zones[k]);
        }
    if (had >= fewest_zones && lost >= limits->zone_share * had) return 0;
    return content[SHARPNESS] >= limits->sharpness && content[NOISE] <= limits->noise &&
           content[BLOCKINESS] <= limits->blockiness;
}
