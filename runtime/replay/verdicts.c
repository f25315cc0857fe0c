/* The verdicts of a recording as columns: what evaluation/drives/index.py reads with DuckDB, in one pass over the bytes of
   a chunk. Only what framegate itself writes is understood, in any order of its names; at anything else `REFUSED` is
   returned, and whoever asked reads the recording the slow way, which knows what to say about it. The layout of records is
   that of https://mcap.dev/spec. */

#include "../native/native.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { UNDERSTOOD = 0, REFUSED = 1 };
enum { UNKNOWN, LEFT_OUT, VERDICT, PICTURE, EVENT };              /* what a channel holds */
enum { STREAM, REASONS, FOUND, CANDIDATE, DETECTED, WORD_COLUMNS }; /* columns of words */
enum { MOST_VALUES = 64, CHANNELS = 65536, NOTHING = -1 };
#define NO_NUMBER INT64_MIN

/* Texts, each once, one after the other; a text is known by its number. Escapes stay as they are in the file. */
typedef struct {
    uint8_t *bytes;
    int64_t *ends;
    int32_t *slots;
    int64_t room, count, places, size;
} Words;

typedef struct {
    int64_t frame_id, captured_ns, decided_ns, log_ns, track;
    double engine_ms, score, threshold;
    int32_t words[WORD_COLUMNS];
    int32_t box[4];
    int32_t scene, boxed, spare;
} Row;

/* A number that does not fit into the arithmetic here: of row `row`, and of its value `value` or, if that is negative, of
   engine_ms (-1), score (-2) or threshold (-3). Its text is the one of the same number in `hard_texts`. */
typedef struct {
    int64_t row;
    int64_t value;
} Hard;

typedef struct {
    Row *rows;
    double *values[MOST_VALUES]; /* of each name, (rows,) */
    int64_t *pictures;
    Hard *hard;
    int64_t count, room, pictured, pictured_room, hards, hard_room;
    Words words[WORD_COLUMNS], names, events, hard_texts;
    int32_t named; /* the first verdict with values gave the names of the signals */
    const char *topics[3];
    int64_t topic_sizes[3];
    uint8_t channels[CHANNELS];
} Verdicts;

typedef struct {
    const uint8_t *at, *end;
} Text;

typedef struct {
    const uint8_t *first;
    int64_t size;
} Span;

static int grow(void **place, int64_t *room, int64_t needed, size_t each) {
    if (needed <= *room) return UNDERSTOOD;
    int64_t more = *room ? *room * 2 : 1024;
    while (more < needed) more *= 2;
    void *found = realloc(*place, (size_t)more * each);
    if (!found) return REFUSED;
    *place = found;
    *room = more;
    return UNDERSTOOD;
}

/* Adds a text without asking whether it is there; its number, or NOTHING without memory. */
static int32_t append(Words *w, Span s) {
    if (grow((void **)&w->ends, &w->places, w->count + 1, sizeof *w->ends)) return NOTHING;
    if (grow((void **)&w->bytes, &w->room, w->size + s.size + 1, 1)) return NOTHING;
    if (s.size) memcpy(w->bytes + w->size, s.first, (size_t)s.size);
    w->size += s.size;
    w->ends[w->count] = w->size;
    return (int32_t)w->count++;
}

enum { SLOTS = 1 << 14 }; /* more words than half of this are refused: regions, labels and reasons are few */

static int32_t intern(Words *w, Span s) {
    if (!w->slots) {
        w->slots = malloc(SLOTS * sizeof *w->slots);
        if (!w->slots) return NOTHING;
        memset(w->slots, 0xFF, SLOTS * sizeof *w->slots);
    }
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (int64_t i = 0; i < s.size; ++i) hash = (hash ^ s.first[i]) * 16777619u;
    uint32_t slot = (hash ^ hash >> 15) & (SLOTS - 1);
    while (w->slots[slot] != NOTHING) {
        const int32_t known = w->slots[slot];
        const int64_t begin = known ? w->ends[known - 1] : 0;
        if (w->ends[known] - begin == s.size && !memcmp(w->bytes + begin, s.first, (size_t)s.size)) return known;
        slot = (slot + 1) & (SLOTS - 1);
    }
    if (w->count >= SLOTS / 2) return NOTHING;
    return w->slots[slot] = append(w, s);
}

static int is(Span s, const char *word, int64_t size) { return s.size == size && !memcmp(s.first, word, (size_t)size); }
#define IS(span, word) is(span, word, sizeof(word) - 1)

static void blanks(Text *t) {
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\r' || *t->at == '\t')) ++t->at;
}

static int take(Text *t, uint8_t wanted) {
    blanks(t);
    if (t->at >= t->end || *t->at != wanted) return 0;
    ++t->at;
    return 1;
}

static int take_word(Text *t, const char *word, int64_t size) {
    blanks(t);
    if (t->end - t->at < size || memcmp(t->at, word, (size_t)size)) return 0;
    t->at += size;
    return 1;
}
#define TAKE(text, word) take_word(text, word, sizeof(word) - 1)

/* What stands between two quotes, as it is written. */
static int string(Text *t, Span *s) {
    if (!take(t, '"')) return REFUSED;
    const uint8_t *at = t->at;
    s->first = at;
#if defined(__SSE2__)
    for (; t->end - at >= 16; at += 16) { /* to the first byte that is a quote, a backslash, below 0x20, or above 0x7F */
        const __m128i bytes = _mm_loadu_si128((const __m128i *)at);
        const __m128i ends = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
        const int found = _mm_movemask_epi8(_mm_or_si128(ends, _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20))));
        if (found) {
            at += __builtin_ctz((unsigned)found);
            break;
        }
    }
#endif
    for (; at < t->end && *at != '"'; ++at) {
        if (*at < 0x20 || *at >= 0x80) return REFUSED;
        if (*at == '\\' && ++at >= t->end) return REFUSED;
    }
    if (at >= t->end) return REFUSED;
    s->size = at - s->first;
    t->at = at + 1;
    return UNDERSTOOD;
}

/* Bytes that numbers, true, false and null consist of. */
static const uint8_t of_number[256] = {
    ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1, ['7'] = 1, ['8'] = 1, ['9'] = 1, ['-'] = 1,
    ['+'] = 1, ['.'] = 1, ['e'] = 1, ['E'] = 1, ['t'] = 1, ['r'] = 1, ['u'] = 1, ['f'] = 1, ['a'] = 1, ['l'] = 1, ['s'] = 1,
    ['n'] = 1,
};

static int skip(Text *t) {
    int64_t depth = 0;
    Span s;
    do {
        blanks(t);
        if (t->at >= t->end) return REFUSED;
        const uint8_t c = *t->at;
        if (c == '"') {
            if (string(t, &s)) return REFUSED;
        } else if (c == '{' || c == '[') {
            ++depth;
            ++t->at;
            continue;
        } else if (c == '}' || c == ']') {
            if (--depth < 0) return REFUSED;
            ++t->at;
        } else if (c == ',' || c == ':') {
            if (!depth) return REFUSED;
            ++t->at;
            continue;
        } else {
            const uint8_t *first = t->at;
            while (t->at < t->end && of_number[*t->at]) ++t->at;
            if (t->at == first) return REFUSED;
        }
    } while (depth);
    return UNDERSTOOD;
}

/* Adds the digits at a place to a number; where they end. */
static const uint8_t *digits_at(const uint8_t *at, const uint8_t *end, uint64_t *digits) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    while (end - at >= 8) { /* eight digits in three multiplications */
        uint64_t eight;
        memcpy(&eight, at, sizeof eight);
        if (((eight & 0xF0F0F0F0F0F0F0F0u) | (((eight + 0x0606060606060606u) & 0xF0F0F0F0F0F0F0F0u) >> 4)) != 0x3333333333333333u)
            break;
        eight = (eight & 0x0F0F0F0F0F0F0F0Fu) * 2561 >> 8;
        eight = (eight & 0x00FF00FF00FF00FFu) * 6553601 >> 16;
        *digits = *digits * 100000000 + ((eight & 0x0000FFFF0000FFFFu) * 42949672960001u >> 32);
        at += 8;
    }
#endif
    for (; at < end && *at >= '0' && *at <= '9'; ++at) *digits = *digits * 10 + (*at - '0');
    return at;
}

static int integer(Text *t, int64_t *out) {
    blanks(t);
    if (TAKE(t, "null")) {
        *out = NO_NUMBER;
        return UNDERSTOOD;
    }
    const int negative = take(t, '-');
    const uint8_t *first = t->at;
    uint64_t value = 0;
    t->at = digits_at(t->at, t->end, &value);
    const int64_t digits = t->at - first;
    if (!digits || digits > 18 || (digits > 1 && *first == '0')) return REFUSED;
    if (t->at < t->end && (*t->at == '.' || *t->at == 'e' || *t->at == 'E')) return REFUSED;
    *out = negative ? -(int64_t)value : (int64_t)value;
    return UNDERSTOOD;
}

/* digits x 10^power, correctly rounded; 0 if the arithmetic here cannot say.

   Powers of ten up to 10^27 are exact in the 64 bits of an x87 long double, and in more where that has more. Its quotient is
   the nearest one of its kind, so rounding it again gives the nearest double, unless it lies exactly between two. */
static int rounded(uint64_t digits, int power, double *out) {
    static const double exact[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (!digits || !power) {
        *out = (double)digits;
        return 1;
    }
    if (digits < (1ull << 53) && power >= -22 && power <= 22) {
        *out = power < 0 ? (double)digits / exact[-power] : (double)digits * exact[power];
        return 1;
    }
#if LDBL_MANT_DIG >= 64
    if (power >= 0 || power < -27) return 0;
    const long double ten = power < -22 ? (long double)exact[22] * (long double)exact[-power - 22] : (long double)exact[-power];
    const long double quotient = (long double)digits / ten;
    const double nearest = (double)quotient;
    const long double off = quotient - (long double)nearest;
    if (off != 0) {
        uint64_t bits;
        double next;
        memcpy(&bits, &nearest, sizeof bits);
        bits = off > 0 ? bits + 1 : bits - 1;
        memcpy(&next, &bits, sizeof next);
        if (off * 2 == (long double)next - (long double)nearest) return 0;
    }
    *out = nearest;
    return 1;
#else
    return 0;
#endif
}

/* A number, null, "inf" or "-inf"; NaN stands for null. `hard` is its text if Python must read it, else empty. */
static int decimal(Text *t, double *out, Span *hard) {
    hard->size = 0;
    blanks(t);
    if (t->at < t->end && *t->at == 'n') {
        *out = NAN;
        return TAKE(t, "null") ? UNDERSTOOD : REFUSED;
    }
    if (t->at < t->end && *t->at == '"') {
        Span s;
        if (string(t, &s) || !(IS(s, "inf") || IS(s, "-inf"))) return REFUSED;
        *out = s.size == 3 ? INFINITY : -INFINITY;
        return UNDERSTOOD;
    }
    const uint8_t *first = t->at, *at = t->at, *end = t->end;
    const int negative = at < end && *at == '-';
    at += negative;
    const uint8_t *whole = at;
    uint64_t digits = 0;
    int power = 0;
    at = digits_at(at, end, &digits);
    int64_t count = at - whole;
    if (!count || (count > 1 && *whole == '0')) return REFUSED;
    if (at < end && *at == '.') {
        const uint8_t *part = ++at;
        at = digits_at(at, end, &digits);
        if (at == part) return REFUSED;
        power = -(int)(at - part);
        count += at - part;
        if (*whole == '0') { /* zeros in front are no digits */
            for (const uint8_t *zero = part; zero < at && *zero == '0'; ++zero) --count;
            --count;
        }
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        ++at;
        const int down = at < end && *at == '-';
        if (at < end && (*at == '-' || *at == '+')) ++at;
        const uint8_t *part = at;
        int exponent = 0;
        for (; at < end && *at >= '0' && *at <= '9' && at - part < 4; ++at) exponent = exponent * 10 + (*at - '0');
        if (at == part) return REFUSED;
        power += down ? -exponent : exponent;
    }
    t->at = at;
    double value = 0.0;
    if (count > 19 || digits > INT64_MAX || !rounded(digits, power, &value)) {
        hard->first = first;
        hard->size = at - first;
    }
    *out = negative ? -value : value;
    return UNDERSTOOD;
}

static int put(Verdicts *v, Text *t, int64_t value, double *out) {
    Span hard;
    if (decimal(t, out, &hard)) return REFUSED;
    if (!hard.size) return UNDERSTOOD;
    if (grow((void **)&v->hard, &v->hard_room, v->hards + 1, sizeof *v->hard)) return REFUSED;
    v->hard[v->hards].row = v->count;
    v->hard[v->hards++].value = value;
    return append(&v->hard_texts, hard) == NOTHING ? REFUSED : UNDERSTOOD;
}

/* A text or null. */
static int word(Verdicts *v, Text *t, int column, Row *row) {
    Span s;
    blanks(t);
    if (TAKE(t, "null")) return UNDERSTOOD;
    if (string(t, &s)) return REFUSED;
    row->words[column] = intern(&v->words[column], s);
    return row->words[column] == NOTHING ? REFUSED : UNDERSTOOD;
}

/* A list of texts as it is written, without its brackets. */
static int list(Text *t, Span *found) {
    Span s;
    if (!take(t, '[')) return REFUSED;
    found->first = t->at;
    if (!take(t, ']')) {
        do
            if (string(t, &s)) return REFUSED;
        while (take(t, ','));
        if (!take(t, ']')) return REFUSED;
    }
    found->size = t->at - 1 - found->first;
    return UNDERSTOOD;
}

static int box(Text *t, Row *row) {
    blanks(t);
    if (TAKE(t, "null")) return UNDERSTOOD;
    if (!take(t, '[')) return REFUSED;
    for (int k = 0; k < 4; ++k) {
        int64_t value;
        if ((k && !take(t, ',')) || integer(t, &value) || value < INT32_MIN || value > INT32_MAX) return REFUSED;
        row->box[k] = (int32_t)value;
    }
    row->boxed = 1;
    return take(t, ']') ? UNDERSTOOD : REFUSED;
}

/* The number of a value whose name is new; the verdicts before do not have it. */
static int64_t new_value(Verdicts *v, Span name) {
    const int64_t k = v->names.count;
    if (k >= MOST_VALUES || append(&v->names, name) == NOTHING) return NOTHING;
    v->values[k] = malloc((size_t)(v->room ? v->room : 1) * sizeof(double));
    if (!v->values[k]) return NOTHING;
    for (int64_t i = 0; i <= v->count && i < v->room; ++i) v->values[k][i] = NAN;
    return k;
}

static int64_t value_number(Verdicts *v, Span name, int64_t expected) {
    for (int64_t n = 0; n < v->names.count; ++n) {
        const int64_t k = (expected + n) % v->names.count, begin = k ? v->names.ends[k - 1] : 0;
        if (v->names.ends[k] - begin == name.size && !memcmp(v->names.bytes + begin, name.first, (size_t)name.size)) return k;
    }
    return NOTHING;
}

static int values(Verdicts *v, Text *t) {
    uint64_t seen = 0;
    int64_t expected = 0;
    blanks(t);
    if (TAKE(t, "null")) return UNDERSTOOD;
    if (!take(t, '{')) return REFUSED;
    if (take(t, '}')) return UNDERSTOOD;
    do {
        Span name;
        if (string(t, &name) || !take(t, ':')) return REFUSED;
        int64_t k = value_number(v, name, expected);
        if (k == NOTHING && !v->named && (k = new_value(v, name)) == NOTHING) return REFUSED;
        if (k == NOTHING) {
            if (skip(t)) return REFUSED;
            continue;
        }
        if (seen >> k & 1) return REFUSED;
        seen |= 1ull << k;
        expected = k + 1;
        if (put(v, t, k, &v->values[k][v->count])) return REFUSED;
    } while (take(t, ','));
    v->named = 1;
    return take(t, '}') ? UNDERSTOOD : REFUSED;
}

typedef struct {
    Text score, threshold; /* those beside the evidence, read if the evidence lacks them */
    Span reasons, found;
} Waiting;

static int evidence(Verdicts *v, Text *t, Row *row, Waiting *w) {
    uint32_t seen = 0;
    row->scene = 0;
    if (!take(t, '{')) return REFUSED;
    if (take(t, '}')) return UNDERSTOOD;
    do {
        Span name;
        uint32_t bit = 0;
        int bad;
        if (string(t, &name) || !take(t, ':')) return REFUSED;
        if (IS(name, "found")) bit = 1, bad = TAKE(t, "null") ? UNDERSTOOD : list(t, &w->found);
        else if (IS(name, "score")) bit = 2, bad = put(v, t, -2, &row->score);
        else if (IS(name, "threshold")) bit = 4, bad = put(v, t, -3, &row->threshold);
        else if (IS(name, "values")) bit = 8, bad = values(v, t);
        else bad = skip(t);
        if (bad || (seen & bit)) return REFUSED;
        seen |= bit;
    } while (take(t, ','));
    return take(t, '}') ? UNDERSTOOD : REFUSED;
}

static int later(Text *t, Text *kept) {
    *kept = *t;
    return skip(t);
}

static int member(Verdicts *v, Text *t, Row *row, Waiting *w, Span name, uint32_t *bit) {
    *bit = 0;
    switch (name.size) {
    case 3:
        if (IS(name, "box")) return *bit = 1, box(t, row);
        break;
    case 5:
        if (IS(name, "score")) return *bit = 2, later(t, &w->score);
        if (IS(name, "track")) return *bit = 4, integer(t, &row->track);
        break;
    case 6:
        if (IS(name, "stream")) return *bit = 8, word(v, t, STREAM, row);
        break;
    case 7:
        if (IS(name, "reasons")) return *bit = 16, list(t, &w->reasons);
        break;
    case 8:
        if (IS(name, "frame_id")) return *bit = 32, integer(t, &row->frame_id);
        if (IS(name, "evidence")) return *bit = 64, evidence(v, t, row, w);
        if (IS(name, "detected")) return *bit = 128, word(v, t, DETECTED, row);
        break;
    case 9:
        if (IS(name, "candidate")) return *bit = 256, word(v, t, CANDIDATE, row);
        if (IS(name, "engine_ms")) return *bit = 512, put(v, t, -1, &row->engine_ms);
        if (IS(name, "threshold")) return *bit = 1024, later(t, &w->threshold);
        break;
    case 10:
        if (IS(name, "decided_ns")) return *bit = 2048, integer(t, &row->decided_ns);
        break;
    case 11:
        if (IS(name, "captured_ns")) return *bit = 4096, integer(t, &row->captured_ns);
        break;
    }
    return skip(t);
}

static int more_rows(Verdicts *v) {
    int64_t room = v->room;
    if (grow((void **)&v->rows, &room, v->count + 1, sizeof(Row))) return REFUSED;
    for (int64_t k = 0; k < v->names.count; ++k) {
        double *more = realloc(v->values[k], (size_t)room * sizeof(double));
        if (!more) return REFUSED;
        v->values[k] = more;
    }
    v->room = room;
    return UNDERSTOOD;
}

static int verdict(Verdicts *v, Text *t, int64_t log_ns) {
    if (v->count >= v->room && more_rows(v)) return REFUSED;
    Row *row = v->rows + v->count;
    Waiting w = {{0}, {0}, {0}, {0}};
    memset(row, 0, sizeof *row);
    row->frame_id = row->captured_ns = row->decided_ns = row->track = NO_NUMBER;
    row->log_ns = log_ns;
    row->engine_ms = row->score = row->threshold = NAN;
    row->scene = 1;
    for (int k = 0; k < WORD_COLUMNS; ++k) row->words[k] = NOTHING;
    for (int64_t k = 0; k < v->names.count; ++k) v->values[k][v->count] = NAN;
    uint32_t seen = 0;
    if (!take(t, '{')) return REFUSED;
    do {
        Span name;
        uint32_t bit;
        if (string(t, &name) || !take(t, ':') || member(v, t, row, &w, name, &bit) || (seen & bit)) return REFUSED;
        seen |= bit;
    } while (take(t, ','));
    if (!take(t, '}')) return REFUSED;
    blanks(t);
    if (t->at != t->end || !w.reasons.first) return REFUSED;
    if (row->captured_ns == NO_NUMBER || row->decided_ns == NO_NUMBER) return REFUSED;
    if (isnan(row->score) && w.score.at && put(v, &w.score, -2, &row->score)) return REFUSED;
    if (isnan(row->threshold) && w.threshold.at && put(v, &w.threshold, -3, &row->threshold)) return REFUSED;
    row->words[REASONS] = intern(&v->words[REASONS], w.reasons);
    row->words[FOUND] = intern(&v->words[FOUND], w.found.first ? w.found : w.reasons);
    if (row->words[REASONS] == NOTHING || row->words[FOUND] == NOTHING) return REFUSED;
    ++v->count;
    return UNDERSTOOD;
}

static uint64_t little(const uint8_t *at, int bytes) {
    uint64_t found = 0;
    for (int k = bytes - 1; k >= 0; --k) found = found << 8 | at[k];
    return found;
}

static int channel(Verdicts *v, const uint8_t *at, uint64_t size) {
    if (size < 8) return REFUSED;
    const uint64_t number = little(at, 2), length = little(at + 4, 4);
    if (length > size - 8) return REFUSED;
    Span topic = {at + 8, (int64_t)length};
    uint8_t kind = LEFT_OUT;
    if (topic.size >= v->topic_sizes[0] && !memcmp(topic.first, v->topics[0], (size_t)v->topic_sizes[0])) kind = VERDICT;
    else if (is(topic, v->topics[1], v->topic_sizes[1])) kind = PICTURE;
    else if (is(topic, v->topics[2], v->topic_sizes[2])) kind = EVENT;
    v->channels[number] = kind;
    return UNDERSTOOD;
}

static int message(Verdicts *v, const uint8_t *at, uint64_t size) {
    if (size < 22) return REFUSED;
    const uint8_t kind = v->channels[little(at, 2)];
    const uint64_t log_ns = little(at + 6, 8);
    Span data = {at + 22, (int64_t)size - 22};
    if (kind == LEFT_OUT) return UNDERSTOOD;
    if (kind == UNKNOWN || log_ns > INT64_MAX) return REFUSED;
    if (kind == EVENT) return append(&v->events, data) == NOTHING ? REFUSED : UNDERSTOOD;
    if (kind == PICTURE) {
        if (grow((void **)&v->pictures, &v->pictured_room, v->pictured + 1, sizeof *v->pictures)) return REFUSED;
        v->pictures[v->pictured++] = (int64_t)little(at + 2, 4);
        return UNDERSTOOD;
    }
    Text t = {data.first, data.first + data.size};
    return verdict(v, &t, (int64_t)log_ns);
}

static void forget(Words *w) {
    free(w->bytes);
    free(w->ends);
    free(w->slots);
}

EXPORT void framegate_verdicts_close(Verdicts *v) {
    if (!v) return;
    for (int k = 0; k < WORD_COLUMNS; ++k) forget(&v->words[k]);
    forget(&v->names);
    forget(&v->events);
    forget(&v->hard_texts);
    free(v->rows);
    for (int64_t k = 0; k < MOST_VALUES; ++k) free(v->values[k]);
    free(v->pictures);
    free(v->hard);
    free(v);
}

/* topics: what the topic of verdicts begins with, the topic of pictures, that of events; they must outlive the state.
   names: of the values that every recording has. NULL without memory. */
EXPORT Verdicts *framegate_verdicts_open(const char *const *topics, const char *const *names, int32_t count) {
    Verdicts *v = calloc(1, sizeof *v);
    if (!v) return NULL;
    for (int k = 0; k < 3; ++k) {
        v->topics[k] = topics[k];
        v->topic_sizes[k] = (int64_t)strlen(topics[k]);
    }
    for (int32_t k = 0; k < count; ++k) {
        Span name = {(const uint8_t *)names[k], (int64_t)strlen(names[k])};
        if (new_value(v, name) == NOTHING) {
            framegate_verdicts_close(v);
            return NULL;
        }
    }
    return v;
}

/* The records of one chunk. After REFUSED nothing of the state means anything. */
EXPORT int32_t framegate_verdicts_chunk(Verdicts *v, const uint8_t *data, int64_t size) {
    const uint8_t *at = data, *end = data + size;
    while (at < end) {
        if (end - at < 9) return REFUSED;
        const uint8_t opcode = *at;
        const uint64_t length = little(at + 1, 8);
        at += 9;
        if (length > (uint64_t)(end - at)) return REFUSED;
        if (opcode == 4 && channel(v, at, length)) return REFUSED;
        if (opcode == 5 && message(v, at, length)) return REFUSED;
        at += length;
    }
    return UNDERSTOOD;
}

/* Where the columns lie: rows, places of the values' columns, pictures, hard numbers, and bytes and ends of each collection of words (the columns of
   words, names of values, events, texts of hard numbers); how many there are of each. */
EXPORT void framegate_verdicts_look(const Verdicts *v, const void **places, int64_t *counts) {
    const Words *all[WORD_COLUMNS + 3] = {[WORD_COLUMNS] = &v->names, &v->events, &v->hard_texts};
    for (int k = 0; k < WORD_COLUMNS; ++k) all[k] = &v->words[k];
    places[0] = v->rows, counts[0] = v->count;
    places[1] = v->values, counts[1] = v->names.count;
    places[2] = v->pictures, counts[2] = v->pictured;
    places[3] = v->hard, counts[3] = v->hards;
    for (int k = 0; k < WORD_COLUMNS + 3; ++k) {
        places[4 + 2 * k] = all[k]->bytes, counts[4 + 2 * k] = all[k]->size;
        places[5 + 2 * k] = all[k]->ends, counts[5 + 2 * k] = all[k]->count;
    }
}
