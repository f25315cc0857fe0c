/* framegate_verdict.h: verdicts of framegate, received (and sent) in C11 or C++17.
 *
 * docs/handover.md is the specification. One header, no allocation, no input or output, no recursion, no floating-point
 * operation (floats are compared by their bits, so a signalling NaN traps nowhere), no signed overflow, for big and
 * little endian.
 *
 *     framegate_receiver receiver;
 *     framegate_config config = framegate_config_default(0x101u);
 *     if (!framegate_receiver_init(&receiver, &config)) { ... the configuration is out of range ... }
 *     framegate_receiver_feed(&receiver, bytes, size, arrival_ns);          for every message that comes
 *     framegate_reading reading = framegate_receiver_verdict(&receiver, now_ns);      as often as you like
 *     if (reading.usable) { drive(reading.class_id); } else { brake(); }
 *
 * A receiver is a plain object of yours; it serves one stream and one thread. All times are nanoseconds of one monotonic
 * clock, 0 to 2^61 - 1.
 */
#ifndef FRAMEGATE_VERDICT_H
#define FRAMEGATE_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FRAMEGATE_MAGIC 0x46475644u
#define FRAMEGATE_VERSION 1u
#define FRAMEGATE_PLAIN_BYTES 144u
#define FRAMEGATE_MAC_BYTES 16u
#define FRAMEGATE_AUTHENTICATED_BYTES 160u
#define FRAMEGATE_VERDICT 1u   /* kinds of message */
#define FRAMEGATE_HEARTBEAT 2u
#define FRAMEGATE_SCENE 3u
#define FRAMEGATE_ACCEPT 0x5Au /* verdicts */
#define FRAMEGATE_REJECT 0xA5u
#define FRAMEGATE_AUTHENTICATED 1u /* bit of the flags */
#define FRAMEGATE_NO_CLASS 0xFFFFFFFFu
#define FRAMEGATE_NO_TRACK 0xFFFFFFFFu
#define FRAMEGATE_NO_FRAME_ID ((int64_t)-1)
#define FRAMEGATE_LATEST_NS ((int64_t)0x1FFFFFFFFFFFFFFF)
#define FRAMEGATE_NO_CERTIFICATE 0u /* kinds of certificate */
#define FRAMEGATE_LINF 1u
#define FRAMEGATE_L2 2u
#define FRAMEGATE_PATCH 3u /* the largest kind */
#define FRAMEGATE_WINDOW 8u /* verdicts on frames over which the rate is averaged */
#define FRAMEGATE_DRIFT ((int64_t)5000) /* the offset by arrival may grow by 1 ns in so many */
#define FRAMEGATE_LONGEST_KEY 64u
#define FRAMEGATE_SHORTEST_KEY 16u
#define FRAMEGATE_MS ((int64_t)1000000)

typedef enum framegate_state {
    FRAMEGATE_DO_NOT_USE = 0,
    FRAMEGATE_USABLE = 1,
    FRAMEGATE_LATCHED = 2
} framegate_state;

typedef enum framegate_fault {
    FRAMEGATE_NONE = 0,
    FRAMEGATE_TRUNCATED = 1,
    FRAMEGATE_CORRUPTED = 2,
    FRAMEGATE_WRONG_ID = 3,
    FRAMEGATE_WRONG_VERSION = 4,
    FRAMEGATE_FORGED = 5,
    FRAMEGATE_INVALID = 6,
    FRAMEGATE_WRONG_BUNDLE = 7,
    FRAMEGATE_WRONG_EPOCH = 8,
    FRAMEGATE_FUTURE = 9,
    FRAMEGATE_LATE = 10,
    FRAMEGATE_REPEATED = 11,
    FRAMEGATE_REORDERED = 12,
    FRAMEGATE_LOST = 13,
    FRAMEGATE_MISSED = 14,
    FRAMEGATE_NEW_EPOCH = 15,
    FRAMEGATE_NEW_TRACK = 16,
    FRAMEGATE_FAULTS = 17 /* how many there are */
} framegate_fault;

/* Why nothing may be used: bits of framegate_reading.why. */
#define FRAMEGATE_NOT_ALIVE 1u
#define FRAMEGATE_NOT_IN_RATE 2u
#define FRAMEGATE_NOT_IN_SEQUENCE 4u
#define FRAMEGATE_NOT_FRESH 8u
#define FRAMEGATE_NOT_VALID 16u
#define FRAMEGATE_NOT_PROVEN 32u
#define FRAMEGATE_IS_LATCHED 64u
#define FRAMEGATE_REJECTED 128u
#define FRAMEGATE_CLOCK_WENT_BACK 256u

#define FRAMEGATE_GRAVE                                                                                                \
    (((uint32_t)1u << (unsigned)FRAMEGATE_FORGED) | ((uint32_t)1u << (unsigned)FRAMEGATE_WRONG_BUNDLE) |               \
     ((uint32_t)1u << (unsigned)FRAMEGATE_WRONG_EPOCH))

/* What one message says; the fields are those of the specification. */
typedef struct framegate_message {
    uint64_t epoch;
    int64_t sent_ns;
    int64_t frame_id;
    int64_t captured_ns;
    int64_t decided_ns;
    int64_t valid_until_ns;
    uint64_t clock_domain;
    uint64_t reasons;
    uint32_t region;
    uint32_t class_id;
    uint32_t classes;
    float confidence;
    float score;
    float threshold;
    uint32_t certificate_kind;
    float certificate_radius;
    uint32_t drops;
    uint32_t track;
    uint32_t objects; /* of a scene: how many slots hold one; else 0 */
    uint8_t bundle[8];
    uint8_t calibration[8];
    uint8_t kind;
    bool accepted;
} framegate_message;

/* The bytes around the content, as they were found. */
typedef struct framegate_envelope {
    uint32_t data_id;
    uint16_t length;
    uint16_t counter;
    uint8_t verdict;
    bool known;         /* magic, version and flags are those of this version */
    bool authenticated; /* a code follows */
} framegate_envelope;

/* What a receiver expects; start from framegate_config_default. Times in ns. */
typedef struct framegate_config {
    uint32_t data_id;
    uint8_t bundle[8];      /* zeros: that of the first good message */
    uint8_t calibration[8]; /* zeros: the same */
    uint32_t classes;       /* 0: the same */
    uint32_t good_to_start;
    uint32_t max_lost;
    uint32_t grave; /* 1 << fault for each fault that latches */
    int64_t alive_ns;
    int64_t max_age_ns;
    int64_t period_ns;
    int64_t shortest_period_ns;
    int64_t transit_ns;
    int64_t future_ns;
    int64_t quiet_ns;
    uint64_t min_epoch;
    uint64_t clock_domain;  /* of the receiver's clock; 0: not known */
    uint64_t offset_domain; /* for which an offset was measured; 0: none */
    int64_t offset_ns;      /* the receiver's clock minus that domain's */
    int64_t offset_uncertainty_ns;
    uint8_t key[FRAMEGATE_LONGEST_KEY];
    uint32_t key_size; /* 0: messages must have no code; else 16 to 64 */
    bool scene;        /* expects what is said about whole frames with moving objects, in place of verdicts */
} framegate_config;

/* What may be used now. If usable is false, class_id is FRAMEGATE_NO_CLASS and nothing may be used. A scene has no
 * class: usable says that the frame could be looked at. */
typedef struct framegate_reading {
    bool usable;
    uint32_t why;     /* 0 exactly if usable */
    uint32_t class_id;
    float confidence; /* of that class; 0 if not usable */
    uint32_t certificate_kind; /* of that class, on this frame; FRAMEGATE_NO_CERTIFICATE if not usable, or without one */
    float certificate_radius;  /* in 255ths of the pixel range; of a patch its side in pixels of the region */
    framegate_state state;
    uint64_t reasons; /* the sender's, of the newest verdict */
    int64_t frame_id; /* of the newest verdict; -1: none */
    int64_t ends_ns;  /* on the receiver's clock; 0 without a verdict */
    uint32_t track;   /* of the newest verdict; FRAMEGATE_NO_TRACK: it follows no object */
} framegate_reading;

typedef struct framegate_receiver {
    framegate_config config;
    uint64_t faults[FRAMEGATE_FAULTS]; /* how often each was found */
    uint64_t received;
    uint64_t good;
    uint64_t lost_messages;
    /* The rest is the receiver's own business. */
    bool configured;
    bool has_good;
    bool has_held;
    bool has_epoch;
    bool has_offset;
    bool in_sequence;
    bool valid;
    framegate_state state;
    uint32_t in_a_row;
    uint32_t frames;
    uint32_t newest;
    int64_t frame_ns[FRAMEGATE_WINDOW];
    int64_t arrival_ns;
    int64_t good_ns;
    int64_t grave_ns;
    int64_t sent_ns;
    int64_t frame_id;
    int64_t ends_ns;
    int64_t offset_ns;
    int64_t offset_at_ns;
    uint64_t offset_domain;
    uint64_t epoch;
    uint64_t clock_domain;
    uint32_t classes;
    uint16_t counter;
    uint8_t bundle[8];
    uint8_t calibration[8];
    framegate_message held;
} framegate_receiver;

/* ---- Protection: CRC-32/AUTOSAR, SHA-256 (FIPS 180-4), HMAC (RFC 2104) ---- */

static inline uint32_t framegate_crc32_p4_more(uint32_t crc, const uint8_t *bytes, size_t size)
{
    static const uint32_t table[256] = {
        0x00000000u, 0x30850FF5u, 0x610A1FEAu, 0x518F101Fu, 0xC2143FD4u, 0xF2913021u, 0xA31E203Eu, 0x939B2FCBu,
        0x159615F7u, 0x25131A02u, 0x749C0A1Du, 0x441905E8u, 0xD7822A23u, 0xE70725D6u, 0xB68835C9u, 0x860D3A3Cu,
        0x2B2C2BEEu, 0x1BA9241Bu, 0x4A263404u, 0x7AA33BF1u, 0xE938143Au, 0xD9BD1BCFu, 0x88320BD0u, 0xB8B70425u,
        0x3EBA3E19u, 0x0E3F31ECu, 0x5FB021F3u, 0x6F352E06u, 0xFCAE01CDu, 0xCC2B0E38u, 0x9DA41E27u, 0xAD2111D2u,
        0x565857DCu, 0x66DD5829u, 0x37524836u, 0x07D747C3u, 0x944C6808u, 0xA4C967FDu, 0xF54677E2u, 0xC5C37817u,
        0x43CE422Bu, 0x734B4DDEu, 0x22C45DC1u, 0x12415234u, 0x81DA7DFFu, 0xB15F720Au, 0xE0D06215u, 0xD0556DE0u,
        0x7D747C32u, 0x4DF173C7u, 0x1C7E63D8u, 0x2CFB6C2Du, 0xBF6043E6u, 0x8FE54C13u, 0xDE6A5C0Cu, 0xEEEF53F9u,
        0x68E269C5u, 0x58676630u, 0x09E8762Fu, 0x396D79DAu, 0xAAF65611u, 0x9A7359E4u, 0xCBFC49FBu, 0xFB79460Eu,
        0xACB0AFB8u, 0x9C35A04Du, 0xCDBAB052u, 0xFD3FBFA7u, 0x6EA4906Cu, 0x5E219F99u, 0x0FAE8F86u, 0x3F2B8073u,
        0xB926BA4Fu, 0x89A3B5BAu, 0xD82CA5A5u, 0xE8A9AA50u, 0x7B32859Bu, 0x4BB78A6Eu, 0x1A389A71u, 0x2ABD9584u,
        0x879C8456u, 0xB7198BA3u, 0xE6969BBCu, 0xD6139449u, 0x4588BB82u, 0x750DB477u, 0x2482A468u, 0x1407AB9Du,
        0x920A91A1u, 0xA28F9E54u, 0xF3008E4Bu, 0xC38581BEu, 0x501EAE75u, 0x609BA180u, 0x3114B19Fu, 0x0191BE6Au,
        0xFAE8F864u, 0xCA6DF791u, 0x9BE2E78Eu, 0xAB67E87Bu, 0x38FCC7B0u, 0x0879C845u, 0x59F6D85Au, 0x6973D7AFu,
        0xEF7EED93u, 0xDFFBE266u, 0x8E74F279u, 0xBEF1FD8Cu, 0x2D6AD247u, 0x1DEFDDB2u, 0x4C60CDADu, 0x7CE5C258u,
        0xD1C4D38Au, 0xE141DC7Fu, 0xB0CECC60u, 0x804BC395u, 0x13D0EC5Eu, 0x2355E3ABu, 0x72DAF3B4u, 0x425FFC41u,
        0xC452C67Du, 0xF4D7C988u, 0xA558D997u, 0x95DDD662u, 0x0646F9A9u, 0x36C3F65Cu, 0x674CE643u, 0x57C9E9B6u,
        0xC8DF352Fu, 0xF85A3ADAu, 0xA9D52AC5u, 0x99502530u, 0x0ACB0AFBu, 0x3A4E050Eu, 0x6BC11511u, 0x5B441AE4u,
        0xDD4920D8u, 0xEDCC2F2Du, 0xBC433F32u, 0x8CC630C7u, 0x1F5D1F0Cu, 0x2FD810F9u, 0x7E5700E6u, 0x4ED20F13u,
        0xE3F31EC1u, 0xD3761134u, 0x82F9012Bu, 0xB27C0EDEu, 0x21E72115u, 0x11622EE0u, 0x40ED3EFFu, 0x7068310Au,
        0xF6650B36u, 0xC6E004C3u, 0x976F14DCu, 0xA7EA1B29u, 0x347134E2u, 0x04F43B17u, 0x557B2B08u, 0x65FE24FDu,
        0x9E8762F3u, 0xAE026D06u, 0xFF8D7D19u, 0xCF0872ECu, 0x5C935D27u, 0x6C1652D2u, 0x3D9942CDu, 0x0D1C4D38u,
        0x8B117704u, 0xBB9478F1u, 0xEA1B68EEu, 0xDA9E671Bu, 0x490548D0u, 0x79804725u, 0x280F573Au, 0x188A58CFu,
        0xB5AB491Du, 0x852E46E8u, 0xD4A156F7u, 0xE4245902u, 0x77BF76C9u, 0x473A793Cu, 0x16B56923u, 0x263066D6u,
        0xA03D5CEAu, 0x90B8531Fu, 0xC1374300u, 0xF1B24CF5u, 0x6229633Eu, 0x52AC6CCBu, 0x03237CD4u, 0x33A67321u,
        0x646F9A97u, 0x54EA9562u, 0x0565857Du, 0x35E08A88u, 0xA67BA543u, 0x96FEAAB6u, 0xC771BAA9u, 0xF7F4B55Cu,
        0x71F98F60u, 0x417C8095u, 0x10F3908Au, 0x20769F7Fu, 0xB3EDB0B4u, 0x8368BF41u, 0xD2E7AF5Eu, 0xE262A0ABu,
        0x4F43B179u, 0x7FC6BE8Cu, 0x2E49AE93u, 0x1ECCA166u, 0x8D578EADu, 0xBDD28158u, 0xEC5D9147u, 0xDCD89EB2u,
        0x5AD5A48Eu, 0x6A50AB7Bu, 0x3BDFBB64u, 0x0B5AB491u, 0x98C19B5Au, 0xA84494AFu, 0xF9CB84B0u, 0xC94E8B45u,
        0x3237CD4Bu, 0x02B2C2BEu, 0x533DD2A1u, 0x63B8DD54u, 0xF023F29Fu, 0xC0A6FD6Au, 0x9129ED75u, 0xA1ACE280u,
        0x27A1D8BCu, 0x1724D749u, 0x46ABC756u, 0x762EC8A3u, 0xE5B5E768u, 0xD530E89Du, 0x84BFF882u, 0xB43AF777u,
        0x191BE6A5u, 0x299EE950u, 0x7811F94Fu, 0x4894F6BAu, 0xDB0FD971u, 0xEB8AD684u, 0xBA05C69Bu, 0x8A80C96Eu,
        0x0C8DF352u, 0x3C08FCA7u, 0x6D87ECB8u, 0x5D02E34Du, 0xCE99CC86u, 0xFE1CC373u, 0xAF93D36Cu, 0x9F16DC99u,
    };
    uint32_t value = crc;
    for (size_t i = 0u; i < size; ++i) {
        value = table[(value ^ (uint32_t)bytes[i]) & 0xFFu] ^ (value >> 8);
    }
    return value;
}

/* CRC-32/AUTOSAR, the polynomial 0xF4ACFB13; 0x1697D06A of "123456789". */
static inline uint32_t framegate_crc32_p4(const uint8_t *bytes, size_t size)
{
    return framegate_crc32_p4_more(0xFFFFFFFFu, bytes, size) ^ 0xFFFFFFFFu;
}

typedef struct framegate_sha256 {
    uint32_t state[8];
    uint64_t size;
    uint8_t block[64];
} framegate_sha256;

static inline uint32_t framegate_ror(uint32_t value, unsigned bits)
{
    return (value >> bits) | (value << (32u - bits));
}

static inline uint64_t framegate_get(const uint8_t *bytes, size_t count)
{
    uint64_t value = 0u;
    for (size_t i = 0u; i < count; ++i) {
        value = (value << 8) | (uint64_t)bytes[i];
    }
    return value;
}

static inline void framegate_put(uint8_t *bytes, size_t count, uint64_t value)
{
    for (size_t i = 0u; i < count; ++i) {
        bytes[i] = (uint8_t)((value >> (8u * (count - 1u - i))) & 0xFFu);
    }
}

static inline void framegate_sha256_block(framegate_sha256 *sha)
{
    static const uint32_t k[64] = {
        0x428A2F98u, 0x71374491u, 0xB5C0FBCFu, 0xE9B5DBA5u, 0x3956C25Bu, 0x59F111F1u, 0x923F82A4u, 0xAB1C5ED5u,
        0xD807AA98u, 0x12835B01u, 0x243185BEu, 0x550C7DC3u, 0x72BE5D74u, 0x80DEB1FEu, 0x9BDC06A7u, 0xC19BF174u,
        0xE49B69C1u, 0xEFBE4786u, 0x0FC19DC6u, 0x240CA1CCu, 0x2DE92C6Fu, 0x4A7484AAu, 0x5CB0A9DCu, 0x76F988DAu,
        0x983E5152u, 0xA831C66Du, 0xB00327C8u, 0xBF597FC7u, 0xC6E00BF3u, 0xD5A79147u, 0x06CA6351u, 0x14292967u,
        0x27B70A85u, 0x2E1B2138u, 0x4D2C6DFCu, 0x53380D13u, 0x650A7354u, 0x766A0ABBu, 0x81C2C92Eu, 0x92722C85u,
        0xA2BFE8A1u, 0xA81A664Bu, 0xC24B8B70u, 0xC76C51A3u, 0xD192E819u, 0xD6990624u, 0xF40E3585u, 0x106AA070u,
        0x19A4C116u, 0x1E376C08u, 0x2748774Cu, 0x34B0BCB5u, 0x391C0CB3u, 0x4ED8AA4Au, 0x5B9CCA4Fu, 0x682E6FF3u,
        0x748F82EEu, 0x78A5636Fu, 0x84C87814u, 0x8CC70208u, 0x90BEFFFAu, 0xA4506CEBu, 0xBEF9A3F7u, 0xC67178F2u,
    };
    uint32_t w[64];
    uint32_t v[8];
    for (size_t i = 0u; i < 16u; ++i) {
        w[i] = (uint32_t)framegate_get(&sha->block[4u * i], 4u);
    }
    for (size_t i = 16u; i < 64u; ++i) {
        const uint32_t a = w[i - 15u];
        const uint32_t b = w[i - 2u];
        const uint32_t s0 = framegate_ror(a, 7u) ^ framegate_ror(a, 18u) ^ (a >> 3);
        const uint32_t s1 = framegate_ror(b, 17u) ^ framegate_ror(b, 19u) ^ (b >> 10);
        w[i] = w[i - 16u] + s0 + w[i - 7u] + s1;
    }
    (void)memcpy(v, sha->state, sizeof v);
    for (size_t i = 0u; i < 64u; ++i) {
        const uint32_t s1 = framegate_ror(v[4], 6u) ^ framegate_ror(v[4], 11u) ^ framegate_ror(v[4], 25u);
        const uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
        const uint32_t t1 = v[7] + s1 + choice + k[i] + w[i];
        const uint32_t s0 = framegate_ror(v[0], 2u) ^ framegate_ror(v[0], 13u) ^ framegate_ror(v[0], 22u);
        const uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        v[7] = v[6];
        v[6] = v[5];
        v[5] = v[4];
        v[4] = v[3] + t1;
        v[3] = v[2];
        v[2] = v[1];
        v[1] = v[0];
        v[0] = t1 + s0 + majority;
    }
    for (size_t i = 0u; i < 8u; ++i) {
        sha->state[i] += v[i];
    }
}

static inline void framegate_sha256_start(framegate_sha256 *sha)
{
    static const uint32_t start[8] = {0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au,
                                      0x510E527Fu, 0x9B05688Cu, 0x1F83D9ABu, 0x5BE0CD19u};
    (void)memset(sha, 0, sizeof *sha);
    (void)memcpy(sha->state, start, sizeof start);
}

static inline void framegate_sha256_add(framegate_sha256 *sha, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0u; i < size; ++i) {
        sha->block[sha->size % 64u] = bytes[i];
        ++sha->size;
        if ((sha->size % 64u) == 0u) {
            framegate_sha256_block(sha);
        }
    }
}

static inline void framegate_sha256_end(framegate_sha256 *sha, uint8_t digest[32])
{
    static const uint8_t one = 0x80u;
    static const uint8_t zero = 0u;
    uint8_t bits[8];
    framegate_put(bits, 8u, sha->size * 8u);
    framegate_sha256_add(sha, &one, 1u);
    while ((sha->size % 64u) != 56u) {
        framegate_sha256_add(sha, &zero, 1u);
    }
    framegate_sha256_add(sha, bits, 8u);
    for (size_t i = 0u; i < 8u; ++i) {
        framegate_put(&digest[4u * i], 4u, sha->state[i]);
    }
}

/* The code of a message of 144 bytes: HMAC-SHA-256 over all but the CRC, cut off after 16 bytes. */
static inline void framegate_mac(const uint8_t *message, const uint8_t *key, size_t key_size,
                                 uint8_t mac[FRAMEGATE_MAC_BYTES])
{
    framegate_sha256 sha;
    uint8_t inner[FRAMEGATE_LONGEST_KEY];
    uint8_t outer[FRAMEGATE_LONGEST_KEY];
    uint8_t digest[32];
    for (size_t i = 0u; i < FRAMEGATE_LONGEST_KEY; ++i) {
        const uint8_t byte = (i < key_size) ? key[i] : (uint8_t)0u;
        inner[i] = (uint8_t)(byte ^ 0x36u);
        outer[i] = (uint8_t)(byte ^ 0x5Cu);
    }
    framegate_sha256_start(&sha);
    framegate_sha256_add(&sha, inner, sizeof inner);
    framegate_sha256_add(&sha, message, 8u);
    framegate_sha256_add(&sha, &message[12], FRAMEGATE_PLAIN_BYTES - 12u);
    framegate_sha256_end(&sha, digest);
    framegate_sha256_start(&sha);
    framegate_sha256_add(&sha, outer, sizeof outer);
    framegate_sha256_add(&sha, digest, sizeof digest);
    framegate_sha256_end(&sha, digest);
    (void)memcpy(mac, digest, FRAMEGATE_MAC_BYTES);
}

/* The CRC of a message: over all bytes but its own. */
static inline uint32_t framegate_message_crc(const uint8_t *message, size_t size)
{
    return framegate_crc32_p4_more(framegate_crc32_p4_more(0xFFFFFFFFu, message, 8u), &message[12], size - 12u) ^
           0xFFFFFFFFu;
}

/* ---- The message ---- */

static inline uint32_t framegate_float_bits(float value)
{
    uint32_t bits;
    (void)memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float framegate_float_of(uint32_t bits)
{
    float value;
    (void)memcpy(&value, &bits, sizeof value);
    return value;
}

static inline bool framegate_is_nan(uint32_t bits)
{
    return (bits & 0x7FFFFFFFu) > 0x7F800000u;
}

static inline bool framegate_is_finite(uint32_t bits)
{
    return (bits & 0x7FFFFFFFu) < 0x7F800000u;
}

/* A number that orders finite floats as they are ordered; 0 and -0 are equal. */
static inline int64_t framegate_order(uint32_t bits)
{
    const uint32_t without_sign = bits & 0x7FFFFFFFu;
    const int64_t magnitude = (int64_t)without_sign;
    return ((bits & 0x80000000u) != 0u) ? -magnitude : magnitude;
}

static inline int64_t framegate_signed(uint64_t value)
{
    const uint64_t rest = ~value;
    return (value <= (uint64_t)INT64_MAX) ? (int64_t)value : (-(int64_t)rest - 1);
}

static inline void framegate_put_float(uint8_t *bytes, float value)
{
    const uint32_t bits = framegate_float_bits(value);
    framegate_put(bytes, 4u, framegate_is_nan(bits) ? 0x7FC00000u : bits);
}

/* The bytes of a message. Returns how many; 0 if there is no room, or the key's size is not 0 or 16 to 64. */
static inline size_t framegate_encode(const framegate_message *message, uint16_t counter, uint32_t data_id,
                                      const uint8_t *key, size_t key_size, uint8_t *out, size_t room)
{
    size_t size = FRAMEGATE_PLAIN_BYTES;
    if (key_size > 0u) {
        size = FRAMEGATE_AUTHENTICATED_BYTES;
    }
    if ((room < size) || (key_size > FRAMEGATE_LONGEST_KEY) || ((key_size > 0u) && (key_size < FRAMEGATE_SHORTEST_KEY))) {
        return 0u;
    }
    (void)memset(out, 0, size);
    framegate_put(&out[0], 2u, size);
    framegate_put(&out[2], 2u, counter);
    framegate_put(&out[4], 4u, data_id);
    framegate_put(&out[12], 4u, FRAMEGATE_MAGIC);
    out[16] = (uint8_t)FRAMEGATE_VERSION;
    out[17] = message->kind;
    out[18] = (uint8_t)(message->accepted ? FRAMEGATE_ACCEPT : FRAMEGATE_REJECT);
    out[19] = (uint8_t)((key_size > 0u) ? FRAMEGATE_AUTHENTICATED : 0u);
    framegate_put(&out[20], 4u, message->region);
    framegate_put(&out[24], 8u, message->epoch);
    framegate_put(&out[32], 8u, (uint64_t)message->frame_id);
    framegate_put(&out[40], 8u, (uint64_t)message->captured_ns);
    framegate_put(&out[48], 8u, (uint64_t)message->decided_ns);
    framegate_put(&out[56], 8u, (uint64_t)message->valid_until_ns);
    framegate_put(&out[64], 8u, (uint64_t)message->sent_ns);
    framegate_put(&out[72], 8u, message->clock_domain);
    framegate_put(&out[80], 8u, message->reasons);
    framegate_put(&out[88], 4u, message->class_id);
    framegate_put(&out[92], 4u, message->classes);
    framegate_put_float(&out[96], message->confidence);
    framegate_put_float(&out[100], message->score);
    framegate_put_float(&out[104], message->threshold);
    framegate_put(&out[108], 4u, message->certificate_kind);
    framegate_put_float(&out[112], message->certificate_radius);
    framegate_put(&out[116], 4u, message->drops);
    (void)memcpy(&out[120], message->bundle, 8u);
    (void)memcpy(&out[128], message->calibration, 8u);
    framegate_put(&out[136], 4u, message->track);
    framegate_put(&out[140], 4u, message->objects);
    if (key_size > 0u) {
        framegate_mac(out, key, key_size, &out[FRAMEGATE_PLAIN_BYTES]);
    }
    framegate_put(&out[8], 4u, framegate_message_crc(out, size));
    return size;
}

/* What at least 144 bytes say, without believing any of it. Returns false if there are fewer. */
static inline bool framegate_decode(const uint8_t *bytes, size_t size, framegate_envelope *envelope,
                                    framegate_message *message)
{
    if (size < FRAMEGATE_PLAIN_BYTES) {
        return false;
    }
    envelope->length = (uint16_t)framegate_get(&bytes[0], 2u);
    envelope->counter = (uint16_t)framegate_get(&bytes[2], 2u);
    envelope->data_id = (uint32_t)framegate_get(&bytes[4], 4u);
    envelope->verdict = bytes[18];
    envelope->authenticated = (bytes[19] & FRAMEGATE_AUTHENTICATED) != 0u;
    envelope->known = (framegate_get(&bytes[12], 4u) == FRAMEGATE_MAGIC) && (bytes[16] == FRAMEGATE_VERSION) &&
                      (bytes[19] <= FRAMEGATE_AUTHENTICATED) &&
                      ((framegate_get(&bytes[140], 4u) == 0u) || (bytes[17] == FRAMEGATE_SCENE));
    message->kind = bytes[17];
    message->accepted = bytes[18] == FRAMEGATE_ACCEPT;
    message->region = (uint32_t)framegate_get(&bytes[20], 4u);
    message->epoch = framegate_get(&bytes[24], 8u);
    message->frame_id = framegate_signed(framegate_get(&bytes[32], 8u));
    message->captured_ns = framegate_signed(framegate_get(&bytes[40], 8u));
    message->decided_ns = framegate_signed(framegate_get(&bytes[48], 8u));
    message->valid_until_ns = framegate_signed(framegate_get(&bytes[56], 8u));
    message->sent_ns = framegate_signed(framegate_get(&bytes[64], 8u));
    message->clock_domain = framegate_get(&bytes[72], 8u);
    message->reasons = framegate_get(&bytes[80], 8u);
    message->class_id = (uint32_t)framegate_get(&bytes[88], 4u);
    message->classes = (uint32_t)framegate_get(&bytes[92], 4u);
    message->confidence = framegate_float_of((uint32_t)framegate_get(&bytes[96], 4u));
    message->score = framegate_float_of((uint32_t)framegate_get(&bytes[100], 4u));
    message->threshold = framegate_float_of((uint32_t)framegate_get(&bytes[104], 4u));
    message->certificate_kind = (uint32_t)framegate_get(&bytes[108], 4u);
    message->certificate_radius = framegate_float_of((uint32_t)framegate_get(&bytes[112], 4u));
    message->drops = (uint32_t)framegate_get(&bytes[116], 4u);
    (void)memcpy(message->bundle, &bytes[120], 8u);
    (void)memcpy(message->calibration, &bytes[128], 8u);
    message->track = (uint32_t)framegate_get(&bytes[136], 4u);
    message->objects = (uint32_t)framegate_get(&bytes[140], 4u);
    return true;
}

static inline bool framegate_is_time(int64_t time_ns)
{
    return (time_ns >= 0) && (time_ns <= FRAMEGATE_LATEST_NS);
}

/* Whether an accepted message's content is that of one. Comparisons are such that NaN fails. */
static inline bool framegate_acceptable(const framegate_message *message)
{
    const uint32_t confidence = framegate_float_bits(message->confidence);
    const uint32_t score = framegate_float_bits(message->score);
    const uint32_t threshold = framegate_float_bits(message->threshold);
    const bool numbers = framegate_is_finite(confidence) && framegate_is_finite(score) && framegate_is_finite(threshold);
    return (message->kind == FRAMEGATE_VERDICT) && (message->frame_id >= 0) && (message->class_id < message->classes) &&
           numbers && (framegate_order(confidence) >= 0) && (framegate_order(confidence) <= 0x3F800000) &&
           (framegate_order(score) <= framegate_order(threshold));
}

/* Whether a scene's content is that of one. */
static inline bool framegate_scene_consistent(const framegate_message *message)
{
    return (message->class_id == FRAMEGATE_NO_CLASS) && (message->track == FRAMEGATE_NO_TRACK) &&
           (message->objects <= message->region) && (!message->accepted || (message->frame_id >= 0));
}

/* Whether a message's content does not contradict itself. */
static inline bool framegate_consistent(const framegate_envelope *envelope, const framegate_message *message)
{
    const uint32_t radius = framegate_float_bits(message->certificate_radius);
    const bool scene = message->kind == FRAMEGATE_SCENE;
    const bool exists = (scene || (message->kind == FRAMEGATE_VERDICT) || (message->kind == FRAMEGATE_HEARTBEAT)) &&
                        ((envelope->verdict == FRAMEGATE_ACCEPT) || (envelope->verdict == FRAMEGATE_REJECT));
    const bool in_range = (message->frame_id >= FRAMEGATE_NO_FRAME_ID) && framegate_is_time(message->captured_ns) &&
                          framegate_is_time(message->decided_ns) && framegate_is_time(message->valid_until_ns) &&
                          framegate_is_time(message->sent_ns);
    const bool certified = (message->certificate_kind <= FRAMEGATE_PATCH) && framegate_is_finite(radius) &&
                           (framegate_order(radius) >= 0);
    return exists && in_range && certified && (message->accepted == (message->reasons == 0u)) &&
           (scene ? framegate_scene_consistent(message) : (!message->accepted || framegate_acceptable(message)));
}

/* ---- The receiver ---- */

static inline framegate_config framegate_config_default(uint32_t data_id)
{
    framegate_config config;
    (void)memset(&config, 0, sizeof config);
    config.data_id = data_id;
    config.good_to_start = 3u;
    config.max_lost = 3u;
    config.grave = FRAMEGATE_GRAVE;
    config.alive_ns = 150 * FRAMEGATE_MS;
    config.max_age_ns = 500 * FRAMEGATE_MS;
    config.period_ns = 200 * FRAMEGATE_MS;
    config.shortest_period_ns = FRAMEGATE_MS;
    config.transit_ns = 150 * FRAMEGATE_MS;
    config.future_ns = FRAMEGATE_MS;
    config.quiet_ns = 1000 * FRAMEGATE_MS;
    return config;
}

static inline bool framegate_in_range(int64_t value, int64_t low)
{
    return (value >= low) && (value <= (3600000 * FRAMEGATE_MS));
}

/* Forget epoch, bundle, latch and everything proven, as a new receiver would; the counts stay. */
static inline void framegate_receiver_restart(framegate_receiver *receiver)
{
    framegate_receiver fresh;
    (void)memset(&fresh, 0, sizeof fresh);
    fresh.config = receiver->config;
    fresh.configured = receiver->configured;
    fresh.received = receiver->received;
    fresh.good = receiver->good;
    fresh.lost_messages = receiver->lost_messages;
    (void)memcpy(fresh.faults, receiver->faults, sizeof fresh.faults);
    fresh.state = FRAMEGATE_DO_NOT_USE;
    fresh.frame_id = FRAMEGATE_NO_FRAME_ID;
    fresh.classes = receiver->config.classes;
    (void)memcpy(fresh.bundle, receiver->config.bundle, sizeof fresh.bundle);
    (void)memcpy(fresh.calibration, receiver->config.calibration, sizeof fresh.calibration);
    *receiver = fresh;
}

/* Make a receiver. Returns false if the configuration is out of range: then nothing will ever be usable. */
static inline bool framegate_receiver_init(framegate_receiver *receiver, const framegate_config *config)
{
    (void)memset(receiver, 0, sizeof *receiver);
    receiver->config = *config;
    receiver->configured =
        (config->good_to_start >= 1u) && (config->good_to_start <= 1000u) && (config->max_lost <= 1000u) &&
        framegate_in_range(config->alive_ns, 1) && framegate_in_range(config->max_age_ns, 1) &&
        framegate_in_range(config->period_ns, 1) && framegate_in_range(config->shortest_period_ns, 0) &&
        framegate_in_range(config->transit_ns, 0) && framegate_in_range(config->future_ns, 0) &&
        framegate_in_range(config->quiet_ns, 0) && framegate_in_range(config->offset_uncertainty_ns, 0) &&
        (config->offset_ns >= -FRAMEGATE_LATEST_NS) && (config->offset_ns <= FRAMEGATE_LATEST_NS) &&
        ((config->key_size == 0u) ||
         ((config->key_size >= FRAMEGATE_SHORTEST_KEY) && (config->key_size <= FRAMEGATE_LONGEST_KEY)));
    framegate_receiver_restart(receiver);
    return receiver->configured;
}

static inline framegate_fault framegate_bad(framegate_receiver *receiver, framegate_fault fault, int64_t arrival_ns)
{
    receiver->in_a_row = 0u;
    receiver->valid = false;
    if ((fault == FRAMEGATE_REPEATED) || (fault == FRAMEGATE_REORDERED) || (fault == FRAMEGATE_LOST) ||
        (fault == FRAMEGATE_WRONG_EPOCH)) {
        receiver->in_sequence = false;
    }
    if ((receiver->config.grave & ((uint32_t)1u << (unsigned)fault)) != 0u) {
        receiver->state = FRAMEGATE_LATCHED;
        receiver->grave_ns = arrival_ns;
    } else if (receiver->state == FRAMEGATE_USABLE) {
        receiver->state = FRAMEGATE_DO_NOT_USE;
    } else {
        /* not usable before, not usable now */
    }
    return fault;
}

static inline framegate_fault framegate_start_again(framegate_receiver *receiver, framegate_fault fault)
{
    receiver->has_held = false;
    receiver->ends_ns = 0;
    receiver->frames = 0u;
    return framegate_bad(receiver, fault, receiver->arrival_ns);
}

/* What protects a message, from the outside to the inside. */
static inline framegate_fault framegate_open(const framegate_receiver *receiver, const uint8_t *bytes, size_t size,
                                             framegate_envelope *envelope, framegate_message *message)
{
    const framegate_config *config = &receiver->config;
    if (((size != FRAMEGATE_PLAIN_BYTES) && (size != FRAMEGATE_AUTHENTICATED_BYTES)) ||
        (framegate_get(bytes, 2u) != size)) {
        return FRAMEGATE_TRUNCATED;
    }
    if (framegate_message_crc(bytes, size) != framegate_get(&bytes[8], 4u)) {
        return FRAMEGATE_CORRUPTED;
    }
    if (!framegate_decode(bytes, size, envelope, message)) {
        return FRAMEGATE_TRUNCATED;
    }
    if (envelope->data_id != config->data_id) {
        return FRAMEGATE_WRONG_ID;
    }
    if (!envelope->known || (envelope->authenticated != (size == FRAMEGATE_AUTHENTICATED_BYTES))) {
        return FRAMEGATE_WRONG_VERSION;
    }
    if (envelope->authenticated != (config->key_size > 0u)) {
        return FRAMEGATE_FORGED;
    }
    if (envelope->authenticated) {
        uint8_t mac[FRAMEGATE_MAC_BYTES];
        uint8_t difference = 0u;
        framegate_mac(bytes, config->key, config->key_size, mac);
        for (size_t i = 0u; i < FRAMEGATE_MAC_BYTES; ++i) { /* the same time wherever it differs */
            difference = (uint8_t)(difference | (mac[i] ^ bytes[FRAMEGATE_PLAIN_BYTES + i]));
        }
        if (difference != 0u) {
            return FRAMEGATE_FORGED;
        }
    }
    return FRAMEGATE_NONE;
}

/* Whether 8 bytes are the expected ones; zeros expect nothing before the first good message. */
static inline bool framegate_is_expected(const framegate_receiver *receiver, const uint8_t *expected,
                                         const uint8_t *found)
{
    static const uint8_t nothing[8] = {0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u};
    const bool any = !receiver->has_epoch && (memcmp(expected, nothing, 8u) == 0);
    return any || (memcmp(expected, found, 8u) == 0);
}

static inline framegate_fault framegate_content_fault(const framegate_receiver *receiver,
                                                      const framegate_envelope *envelope,
                                                      const framegate_message *message)
{
    const bool any_classes = !receiver->has_epoch && (receiver->classes == 0u);
    const uint32_t kind = receiver->config.scene ? FRAMEGATE_SCENE : FRAMEGATE_VERDICT;
    if (!framegate_consistent(envelope, message) || ((message->kind != FRAMEGATE_HEARTBEAT) && (message->kind != kind))) {
        return FRAMEGATE_INVALID;
    }
    if (!framegate_is_expected(receiver, receiver->bundle, message->bundle) ||
        !framegate_is_expected(receiver, receiver->calibration, message->calibration) ||
        (!any_classes && (receiver->classes != message->classes))) {
        return FRAMEGATE_WRONG_BUNDLE;
    }
    if ((message->epoch < receiver->config.min_epoch) || (receiver->has_epoch && (message->epoch < receiver->epoch))) {
        return FRAMEGATE_WRONG_EPOCH;
    }
    /* One start has one clock; a second one would begin the offset by arrival anew with every message. */
    if (receiver->has_epoch && (message->epoch == receiver->epoch) && (message->clock_domain != receiver->clock_domain)) {
        return FRAMEGATE_INVALID;
    }
    return FRAMEGATE_NONE;
}

static inline bool framegate_same_clock(const framegate_receiver *receiver, const framegate_message *message)
{
    return (message->clock_domain != 0u) && (message->clock_domain == receiver->config.clock_domain);
}

static inline bool framegate_measured(const framegate_receiver *receiver, const framegate_message *message)
{
    return !framegate_same_clock(receiver, message) && (message->clock_domain != 0u) &&
           (message->clock_domain == receiver->config.offset_domain);
}

static inline int64_t framegate_uncertainty(const framegate_receiver *receiver, const framegate_message *message)
{
    return framegate_measured(receiver, message) ? receiver->config.offset_uncertainty_ns : 0;
}

/* The receiver's clock minus the sender's, as well as it is known. */
static inline int64_t framegate_offset(framegate_receiver *receiver, const framegate_message *message, int64_t arrival_ns)
{
    const framegate_config *config = &receiver->config;
    const int64_t seen = arrival_ns - message->sent_ns;
    /* A clock without a name may be another one after each start. */
    const bool another = (message->clock_domain == 0u) && receiver->has_epoch && (message->epoch > receiver->epoch);
    int64_t grown;
    int64_t lowest;
    if (framegate_same_clock(receiver, message)) {
        return 0;
    }
    if (framegate_measured(receiver, message)) {
        return config->offset_ns;
    }
    if (!receiver->has_offset || another || (receiver->offset_domain != message->clock_domain)) {
        receiver->has_offset = true;
        receiver->offset_domain = message->clock_domain;
        receiver->offset_ns = seen;
        receiver->offset_at_ns = arrival_ns;
    }
    grown = receiver->offset_ns + ((arrival_ns - receiver->offset_at_ns) / FRAMEGATE_DRIFT);
    lowest = grown - ((config->transit_ns > config->future_ns) ? config->transit_ns : config->future_ns);
    if ((lowest <= seen) && (seen <= grown)) {
        receiver->offset_ns = seen;
        receiver->offset_at_ns = arrival_ns;
        grown = seen;
    }
    return grown;
}

static inline framegate_fault framegate_time_fault(framegate_receiver *receiver, const framegate_message *message,
                                                   int64_t arrival_ns)
{
    const int64_t uncertainty = framegate_uncertainty(receiver, message);
    int64_t way;
    if (!((message->captured_ns <= message->decided_ns) && (message->decided_ns <= message->sent_ns))) {
        return FRAMEGATE_FUTURE;
    }
    way = arrival_ns - message->sent_ns - framegate_offset(receiver, message, arrival_ns);
    if (way < -(receiver->config.future_ns + uncertainty)) {
        if (!framegate_same_clock(receiver, message) && !framegate_measured(receiver, message)) {
            /* By arrival: the clocks changed, or all messages before were held up; begin anew. */
            receiver->offset_ns = arrival_ns - message->sent_ns;
            receiver->offset_at_ns = arrival_ns;
        }
        return FRAMEGATE_FUTURE;
    }
    return (way <= (receiver->config.transit_ns + uncertainty)) ? FRAMEGATE_NONE : FRAMEGATE_LATE;
}

static inline framegate_fault framegate_sequence_fault(framegate_receiver *receiver, uint16_t counter,
                                                       const framegate_message *message)
{
    const uint32_t step = ((uint32_t)counter - (uint32_t)receiver->counter) & 0xFFFFu;
    const uint32_t missing = step - 1u; /* not used if step is 0 */
    if (step == 0u) {
        return FRAMEGATE_REPEATED;
    }
    /* How far the counter went does not tell which of two messages is the newer one: it wraps around. */
    if (message->sent_ns <= receiver->sent_ns) {
        return FRAMEGATE_REORDERED;
    }
    receiver->lost_messages += (uint64_t)missing;
    if (missing > receiver->config.max_lost) {
        receiver->counter = counter;
        receiver->sent_ns = message->sent_ns;
        return FRAMEGATE_LOST;
    }
    if ((message->kind != FRAMEGATE_HEARTBEAT) && (message->frame_id != FRAMEGATE_NO_FRAME_ID) &&
        (message->frame_id <= receiver->frame_id)) {
        receiver->counter = counter;
        receiver->sent_ns = message->sent_ns;
        return FRAMEGATE_REPEATED;
    }
    return FRAMEGATE_NONE;
}

/* Whether no good message came for too long, or the held verdict ended before anything newer came. */
static inline framegate_fault framegate_missed(framegate_receiver *receiver, int64_t arrival_ns)
{
    const bool silent = receiver->has_good && ((arrival_ns - receiver->good_ns) > receiver->config.alive_ns);
    const bool ended = receiver->has_held && (arrival_ns > receiver->ends_ns);
    return (silent || ended) ? framegate_start_again(receiver, FRAMEGATE_MISSED) : FRAMEGATE_NONE;
}

static inline void framegate_begin(framegate_receiver *receiver, const framegate_message *message)
{
    receiver->has_epoch = true;
    receiver->epoch = message->epoch;
    receiver->clock_domain = message->clock_domain;
    receiver->classes = message->classes;
    receiver->frame_id = FRAMEGATE_NO_FRAME_ID;
    (void)memcpy(receiver->bundle, message->bundle, sizeof receiver->bundle);
    (void)memcpy(receiver->calibration, message->calibration, sizeof receiver->calibration);
}

static inline void framegate_take(framegate_receiver *receiver, uint16_t counter, const framegate_message *message,
                                  int64_t arrival_ns)
{
    const int64_t oldest = message->captured_ns + receiver->config.max_age_ns;
    const int64_t end = (message->valid_until_ns < oldest) ? message->valid_until_ns : oldest;
    ++receiver->good;
    receiver->counter = counter;
    receiver->sent_ns = message->sent_ns;
    receiver->has_good = true;
    receiver->good_ns = arrival_ns;
    receiver->in_sequence = true;
    receiver->valid = true;
    if (message->kind == FRAMEGATE_HEARTBEAT) {
        return;
    }
    if (receiver->in_a_row < UINT32_MAX) {
        ++receiver->in_a_row;
    }
    receiver->has_held = true;
    receiver->held = *message;
    receiver->ends_ns = end + framegate_offset(receiver, message, arrival_ns) - framegate_uncertainty(receiver, message);
    if (message->frame_id != FRAMEGATE_NO_FRAME_ID) {
        receiver->frame_id = message->frame_id;
        receiver->newest = (receiver->newest + 1u) % FRAMEGATE_WINDOW;
        receiver->frame_ns[receiver->newest] = arrival_ns;
        if (receiver->frames < FRAMEGATE_WINDOW) {
            ++receiver->frames;
        }
    }
}

static inline bool framegate_in_rate(const framegate_receiver *receiver)
{
    uint32_t oldest;
    int64_t took;
    int64_t intervals;
    if (receiver->frames < 2u) {
        return false;
    }
    oldest = (receiver->newest + FRAMEGATE_WINDOW + 1u - receiver->frames) % FRAMEGATE_WINDOW;
    took = receiver->frame_ns[receiver->newest] - receiver->frame_ns[oldest];
    intervals = (int64_t)receiver->frames - 1;
    return (took <= (intervals * receiver->config.period_ns)) &&
           !((receiver->frames == FRAMEGATE_WINDOW) && (took < (intervals * receiver->config.shortest_period_ns)));
}

static inline bool framegate_proven(const framegate_receiver *receiver)
{
    return (receiver->in_a_row >= receiver->config.good_to_start) && receiver->in_sequence && receiver->valid;
}

/* From the facts to the state. */
static inline void framegate_settle(framegate_receiver *receiver)
{
    if (receiver->state == FRAMEGATE_LATCHED) {
        return;
    }
    if ((receiver->state == FRAMEGATE_USABLE) && !framegate_in_rate(receiver)) {
        receiver->in_a_row = 0u;
    }
    receiver->state =
        (framegate_proven(receiver) && framegate_in_rate(receiver)) ? FRAMEGATE_USABLE : FRAMEGATE_DO_NOT_USE;
}

static inline void framegate_count(framegate_receiver *receiver, framegate_fault fault)
{
    if (fault != FRAMEGATE_NONE) {
        ++receiver->faults[fault];
    }
}

static inline framegate_fault framegate_judge(framegate_receiver *receiver, const uint8_t *bytes, size_t size,
                                              int64_t arrival_ns)
{
    framegate_envelope envelope;
    framegate_message message;
    framegate_fault fault;
    framegate_fault before;
    if ((arrival_ns < receiver->arrival_ns) || (arrival_ns > FRAMEGATE_LATEST_NS)) {
        /* The receiver's own clock stands on its head. */
        return framegate_bad(receiver, FRAMEGATE_FUTURE, receiver->arrival_ns);
    }
    receiver->arrival_ns = arrival_ns;
    fault = framegate_open(receiver, bytes, size, &envelope, &message);
    if (fault == FRAMEGATE_NONE) {
        fault = framegate_content_fault(receiver, &envelope, &message);
    }
    if (fault == FRAMEGATE_NONE) {
        fault = framegate_time_fault(receiver, &message, arrival_ns);
    }
    if (fault != FRAMEGATE_NONE) {
        return framegate_bad(receiver, fault, arrival_ns);
    }
    before = framegate_missed(receiver, arrival_ns);
    if (!receiver->has_epoch || (message.epoch > receiver->epoch)) {
        if (receiver->has_epoch) {
            framegate_count(receiver, before);
            before = framegate_start_again(receiver, FRAMEGATE_NEW_EPOCH);
        }
        framegate_begin(receiver, &message);
    } else {
        fault = framegate_sequence_fault(receiver, envelope.counter, &message);
        if (fault != FRAMEGATE_NONE) {
            framegate_count(receiver, before);
            return framegate_bad(receiver, fault, arrival_ns);
        }
    }
    if (receiver->has_held && (message.kind != FRAMEGATE_HEARTBEAT) && (message.track != receiver->held.track)) {
        framegate_count(receiver, before); /* another object: nothing that was proven holds for it */
        before = framegate_bad(receiver, FRAMEGATE_NEW_TRACK, arrival_ns);
    }
    framegate_take(receiver, envelope.counter, &message, arrival_ns);
    return before;
}

/* Take one message, whatever its bytes are. Returns what was wrong with it; MISSED, NEW_EPOCH and NEW_TRACK speak of
 * what came before it, and the message itself is good. */
static inline framegate_fault framegate_receiver_feed(framegate_receiver *receiver, const uint8_t *bytes, size_t size,
                                                      int64_t arrival_ns)
{
    framegate_fault fault;
    if (!receiver->configured) {
        return FRAMEGATE_INVALID;
    }
    ++receiver->received;
    fault = framegate_judge(receiver, bytes, size, arrival_ns);
    framegate_count(receiver, fault);
    framegate_settle(receiver);
    return fault;
}

/* The newest verdict, and whether it may be used at this time. Changes nothing. */
static inline framegate_reading framegate_receiver_verdict(const framegate_receiver *receiver, int64_t now_ns)
{
    framegate_reading reading;
    uint32_t why = 0u;
    const bool silent = (now_ns >= receiver->good_ns) && ((now_ns - receiver->good_ns) > receiver->config.alive_ns);
    why |= (now_ns < receiver->arrival_ns) ? FRAMEGATE_CLOCK_WENT_BACK : 0u;
    why |= (!receiver->has_good || silent) ? FRAMEGATE_NOT_ALIVE : 0u;
    why |= framegate_in_rate(receiver) ? 0u : FRAMEGATE_NOT_IN_RATE;
    why |= receiver->in_sequence ? 0u : FRAMEGATE_NOT_IN_SEQUENCE;
    why |= (receiver->has_held && (now_ns <= receiver->ends_ns)) ? 0u : FRAMEGATE_NOT_FRESH;
    why |= receiver->valid ? 0u : FRAMEGATE_NOT_VALID;
    why |= (receiver->state == FRAMEGATE_USABLE) ? 0u : FRAMEGATE_NOT_PROVEN;
    why |= (receiver->state == FRAMEGATE_LATCHED) ? FRAMEGATE_IS_LATCHED : 0u;
    why |= (receiver->has_held && !receiver->held.accepted) ? FRAMEGATE_REJECTED : 0u;
    (void)memset(&reading, 0, sizeof reading);
    reading.why = why;
    reading.usable = why == 0u;
    reading.class_id = reading.usable ? receiver->held.class_id : FRAMEGATE_NO_CLASS;
    reading.confidence = reading.usable ? receiver->held.confidence : 0.0f;
    if (reading.usable && (receiver->held.kind == FRAMEGATE_VERDICT) &&
        (receiver->held.certificate_kind != FRAMEGATE_NO_CERTIFICATE)) {
        reading.certificate_kind = receiver->held.certificate_kind;
        reading.certificate_radius = receiver->held.certificate_radius;
    }
    reading.state = receiver->state;
    reading.reasons = receiver->has_held ? receiver->held.reasons : 0u;
    reading.frame_id = receiver->has_held ? receiver->held.frame_id : FRAMEGATE_NO_FRAME_ID;
    reading.ends_ns = receiver->has_held ? receiver->ends_ns : 0;
    reading.track = receiver->has_held ? receiver->held.track : FRAMEGATE_NO_TRACK;
    return reading;
}

/* Leave LATCHED, if the cause is gone. Returns whether the receiver is not latched any more. */
static inline bool framegate_receiver_release(framegate_receiver *receiver, int64_t now_ns)
{
    if (receiver->state != FRAMEGATE_LATCHED) {
        return true;
    }
    if (!(framegate_proven(receiver) && framegate_in_rate(receiver) && receiver->has_good &&
          (now_ns >= receiver->good_ns) && ((now_ns - receiver->good_ns) <= receiver->config.alive_ns) &&
          ((now_ns - receiver->grave_ns) >= receiver->config.quiet_ns))) {
        return false;
    }
    receiver->state = FRAMEGATE_DO_NOT_USE;
    receiver->in_a_row = 0u;
    return true;
}

/* ---- Words ---- */

static inline const char *framegate_fault_name(framegate_fault fault)
{
    static const char *const names[FRAMEGATE_FAULTS] = {
        "NONE",     "TRUNCATED", "CORRUPTED", "WRONG_ID", "WRONG_VERSION", "FORGED",    "INVALID", "WRONG_BUNDLE",
        "WRONG_EPOCH", "FUTURE", "LATE",      "REPEATED", "REORDERED",     "LOST",      "MISSED",  "NEW_EPOCH",
        "NEW_TRACK"};
    return ((unsigned)fault < (unsigned)FRAMEGATE_FAULTS) ? names[fault] : "UNKNOWN";
}

static inline const char *framegate_state_name(framegate_state state)
{
    return (state == FRAMEGATE_USABLE) ? "USABLE" : ((state == FRAMEGATE_LATCHED) ? "LATCHED" : "DO_NOT_USE");
}

/* The word of one bit, 0 to 8, of framegate_reading.why. */
static inline const char *framegate_why_name(unsigned bit)
{
    static const char *const names[9] = {"NOT_ALIVE",  "NOT_IN_RATE", "NOT_IN_SEQUENCE", "NOT_FRESH",      "NOT_VALID",
                                         "NOT_PROVEN", "LATCHED",     "REJECTED",        "CLOCK_WENT_BACK"};
    return (bit < 9u) ? names[bit] : "UNKNOWN";
}

/* The word of a kind of certificate. */
static inline const char *framegate_certificate_name(uint32_t kind)
{
    const char *name = "none";
    if (kind == FRAMEGATE_LINF) {
        name = "linf";
    } else if (kind == FRAMEGATE_L2) {
        name = "l2";
    } else if (kind == FRAMEGATE_PATCH) {
        name = "patch";
    } else {
        /* none */
    }
    return name;
}

/* The word of one bit, 0 to 63, of the sender's reasons. */
static inline const char *framegate_reason_name(unsigned bit)
{
    static const char *const names[27] = {
        "BAD_INPUT",      "WRONG_SIZE",   "BLACK",            "SATURATED",     "LOW_CONTRAST",
        "BLURRED",        "NOISY",        "COLOUR_LOST",      "TORN",          "FROZEN",
        "STALE_FRAME",    "WARMING_UP",   "NOT_FINITE",       "HIGH_SCORE",    "ACTIVATION_SHIFT",
        "DRIFT",          "NOT_CALIBRATED", "LATE",           "EXPIRED",       "NO_FRAME",
        "BACKEND_FAULT",  "NOT_CERTIFIED", "NO_REGIONS",      "NO_AGREEMENT",  "UNCONFIRMED",
        "NO_OBJECT",      "LEFT_OUT"};
    return (bit < 27u) ? names[bit] : "OTHER";
}

#endif /* FRAMEGATE_VERDICT_H */
