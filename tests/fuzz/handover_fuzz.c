/* A fuzz target for libFuzzer: any sequence of messages into the C receiver, and what must hold whatever they are.
 *
 *     clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -I "$(framegate handover include)" \
 *         tests/fuzz/handover_fuzz.c -o handover_fuzz && ./handover_fuzz -max_total_time=300 tests/fuzz/corpus
 *
 * An input is one byte of flags (1: a key is configured; 2: the sender's clock is the receiver's; 4: length, CRC and code
 * of each message are made right, so that the fuzzer gets past them; 8: the first stream is the scene of the objects), then messages: time since the one before in
 * units of 2 ms, size, bytes. tests/runtime/handover/test_fuzz.py plays the same inputs in Python.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "framegate_objects.h"
#include "framegate_verdict.h"

#define REQUIRE(fact)                                                                                                  \
    do {                                                                                                               \
        if (!(fact)) {                                                                                                 \
            (void)fprintf(stderr, "does not hold: %s (line %d)\n", #fact, __LINE__);                                   \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static void make_right(uint8_t *bytes, size_t size, const framegate_config *config)
{
    if ((size != FRAMEGATE_PLAIN_BYTES) && (size != FRAMEGATE_AUTHENTICATED_BYTES)) {
        return;
    }
    framegate_put(bytes, 2, size);
    if (size == FRAMEGATE_AUTHENTICATED_BYTES) {
        framegate_mac(bytes, config->key, config->key_size, &bytes[FRAMEGATE_PLAIN_BYTES]);
    }
    framegate_put(&bytes[8], 4, framegate_message_crc(bytes, size));
}

/* What was understood is written again byte for byte, unless a NaN had a payload. */
static void again(const uint8_t *bytes, size_t size, const framegate_config *config)
{
    static const size_t floats[4] = {96, 100, 104, 112};
    framegate_envelope envelope;
    framegate_message message;
    uint8_t out[FRAMEGATE_AUTHENTICATED_BYTES];
    const bool coded = size == FRAMEGATE_AUTHENTICATED_BYTES;
    if (!framegate_decode(bytes, size, &envelope, &message)) {
        REQUIRE(size < FRAMEGATE_PLAIN_BYTES);
        return;
    }
    for (size_t i = 0; i < 4; ++i) {
        if (framegate_is_nan((uint32_t)framegate_get(&bytes[floats[i]], 4))) { return; }
    }
    if (!envelope.known || (envelope.length != size) || (envelope.authenticated != coded) ||
        ((envelope.verdict != FRAMEGATE_ACCEPT) && (envelope.verdict != FRAMEGATE_REJECT))) {
        return;
    }
    REQUIRE(framegate_encode(&message, envelope.counter, envelope.data_id, config->key, coded ? config->key_size : 0, out,
                             sizeof out) == (coded ? (config->key_size ? size : FRAMEGATE_PLAIN_BYTES) : size));
    if (!coded) {
        framegate_put(&out[8], 4, framegate_get(&bytes[8], 4)); /* the CRC may have been wrong */
        REQUIRE(memcmp(out, bytes, size) == 0);
    }
}

static void require_reading(const framegate_receiver *receiver, int64_t now, bool bad)
{
    const framegate_reading reading = framegate_receiver_verdict(receiver, now);
    REQUIRE(reading.usable == (reading.why == 0));
    REQUIRE(reading.usable == (reading.class_id != FRAMEGATE_NO_CLASS));
    REQUIRE(!(bad && reading.usable));
    if (reading.usable) {
        REQUIRE(reading.state == FRAMEGATE_USABLE);
        REQUIRE(receiver->held.accepted && (receiver->held.kind == FRAMEGATE_VERDICT) && (reading.reasons == 0));
        REQUIRE(reading.class_id < receiver->held.classes);
        REQUIRE((now <= reading.ends_ns) && (now >= receiver->arrival_ns));
        REQUIRE(receiver->good >= receiver->config.good_to_start);
        REQUIRE(receiver->in_a_row >= receiver->config.good_to_start);
    }
}

/* A list is whole only if the scene says so and no slot is bad; every object in it is good, and of the present. */
static void require_objects(const framegate_objects *objects, int64_t now, bool bad)
{
    framegate_objects_reading seen;
    framegate_objects_verdict(objects, now, &seen);
    REQUIRE(seen.count <= objects->count);
    REQUIRE(!seen.whole || (seen.scene.usable && seen.agrees));
    REQUIRE(!(bad && seen.whole));
    for (uint32_t i = 0; i < seen.count; ++i) {
        const framegate_seen_object *each = &seen.objects[i];
        REQUIRE((each->slot >= 1) && (each->slot <= objects->count) && (each->track != FRAMEGATE_NO_TRACK));
        REQUIRE((each->reading.why & ~(FRAMEGATE_REJECTED | FRAMEGATE_NOT_PROVEN)) == 0);
        REQUIRE(now <= each->reading.ends_ns);
        REQUIRE(each->reading.usable == (each->reading.class_id != FRAMEGATE_NO_CLASS));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    framegate_receiver receiver;
    framegate_objects objects; /* its scene has the receiver's data id, or the one before */
    framegate_config config = framegate_config_default(0x101);
    int64_t now = 1000 * FRAMEGATE_MS;
    size_t place = 1;
    uint64_t faults = 0;
    if (size < 1) {
        return 0;
    }
    config.key_size = (data[0] & 1u) ? 16u : 0u;
    config.clock_domain = (data[0] & 2u) ? 9u : 0u;
    config.quiet_ns = 100 * FRAMEGATE_MS;
    REQUIRE(framegate_receiver_init(&receiver, &config));
    config.data_id -= (data[0] & 8u) ? 0u : 1u;
    REQUIRE(framegate_objects_init(&objects, &config, 2));
    while ((place + 2) <= size) {
        uint8_t bytes[255];
        const size_t length = (data[place + 1] < (size - place - 2)) ? data[place + 1] : (size - place - 2);
        framegate_fault fault;
        now += (int64_t)data[place] * 2 * FRAMEGATE_MS;
        memcpy(bytes, &data[place + 2], length);
        place += 2 + length;
        if (data[0] & 4u) {
            make_right(bytes, length, &config);
        }
        again(bytes, length, &config);
        fault = framegate_receiver_feed(&receiver, bytes, length, now);
        REQUIRE((unsigned)fault < FRAMEGATE_FAULTS);
        require_reading(&receiver, now, (fault != FRAMEGATE_NONE) && (fault != FRAMEGATE_MISSED) && (fault != FRAMEGATE_NEW_EPOCH));
        require_reading(&receiver, now - 1, true);
        require_reading(&receiver, INT64_MIN, true);
        require_reading(&receiver, now + 500 * FRAMEGATE_MS + 1, true); /* max age, and no message came since */
        require_reading(&receiver, INT64_MAX, true);
        (void)framegate_receiver_release(&receiver, now);
        fault = framegate_objects_feed(&objects, bytes, length, now);
        require_objects(&objects, now, (fault != FRAMEGATE_NONE) && (fault != FRAMEGATE_MISSED) && (fault != FRAMEGATE_NEW_EPOCH) &&
                                           (fault != FRAMEGATE_NEW_TRACK));
        require_objects(&objects, now - 1, true);
        require_objects(&objects, now + 500 * FRAMEGATE_MS + 1, true);
        (void)framegate_objects_release(&objects, now);
    }
    for (size_t i = 0; i < FRAMEGATE_FAULTS; ++i) {
        faults += receiver.faults[i];
    }
    REQUIRE(receiver.good <= receiver.received);
    REQUIRE((receiver.received - receiver.good) <= faults);
    return 0;
}
