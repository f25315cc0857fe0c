/* Plays a tape to the C receiver and prints what it answers; handover_tape.py makes tapes, and plays them in Python. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "framegate_objects.h"
#include "framegate_verdict.h"

static size_t unhex(const char *text, uint8_t *bytes, size_t room)
{
    size_t size = 0;
    unsigned value = 0;
    while (size < room && sscanf(&text[2 * size], "%2x", &value) == 1) {
        bytes[size++] = (uint8_t)value;
    }
    return size;
}

static void set(framegate_config *config, const char *key, const char *text)
{
    const int64_t number = strtoll(text, NULL, 10);
    const uint64_t natural = strtoull(text, NULL, 10);
    if (strcmp(key, "data_id") == 0) { config->data_id = (uint32_t)natural; }
    else if (strcmp(key, "bundle") == 0) { (void)unhex(text, config->bundle, 8); }
    else if (strcmp(key, "calibration") == 0) { (void)unhex(text, config->calibration, 8); }
    else if (strcmp(key, "classes") == 0) { config->classes = (uint32_t)natural; }
    else if (strcmp(key, "good_to_start") == 0) { config->good_to_start = (uint32_t)natural; }
    else if (strcmp(key, "max_lost") == 0) { config->max_lost = (uint32_t)natural; }
    else if (strcmp(key, "grave") == 0) { config->grave = (uint32_t)natural; }
    else if (strcmp(key, "alive_ns") == 0) { config->alive_ns = number; }
    else if (strcmp(key, "max_age_ns") == 0) { config->max_age_ns = number; }
    else if (strcmp(key, "period_ns") == 0) { config->period_ns = number; }
    else if (strcmp(key, "shortest_period_ns") == 0) { config->shortest_period_ns = number; }
    else if (strcmp(key, "transit_ns") == 0) { config->transit_ns = number; }
    else if (strcmp(key, "future_ns") == 0) { config->future_ns = number; }
    else if (strcmp(key, "quiet_ns") == 0) { config->quiet_ns = number; }
    else if (strcmp(key, "min_epoch") == 0) { config->min_epoch = natural; }
    else if (strcmp(key, "clock_domain") == 0) { config->clock_domain = natural; }
    else if (strcmp(key, "offset_domain") == 0) { config->offset_domain = natural; }
    else if (strcmp(key, "offset_ns") == 0) { config->offset_ns = number; }
    else if (strcmp(key, "offset_uncertainty_ns") == 0) { config->offset_uncertainty_ns = number; }
    else if (strcmp(key, "scene") == 0) { config->scene = natural != 0; }
    else if (strcmp(key, "key") == 0) { config->key_size = (uint32_t)unhex(text, config->key, sizeof config->key); }
    else { fprintf(stderr, "unknown key %s\n", key); exit(2); }
}

static framegate_config configured(char *rest)
{
    framegate_config config = framegate_config_default(0);
    for (char *word = strtok(rest, " \n"); word != NULL; word = strtok(NULL, " \n")) {
        char *equals = strchr(word, '=');
        if (equals == NULL) { exit(2); }
        *equals = '\0';
        set(&config, word, equals + 1);
    }
    return config;
}

static void print_hex(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; ++i) { printf("%02x", (unsigned)bytes[i]); }
}

/* Read a message and write it again: byte for byte the same, if all of it was understood. */
static void again(const char *hex, const char *key_hex)
{
    uint8_t bytes[256], out[256], key[64];
    framegate_envelope envelope;
    framegate_message message;
    const size_t key_size = unhex(key_hex, key, sizeof key);
    const size_t size = unhex(hex, bytes, sizeof bytes);
    size_t written = 0;
    if (framegate_decode(bytes, size, &envelope, &message)) {
        written = framegate_encode(&message, envelope.counter, envelope.data_id, key, key_size, out, sizeof out);
    }
    printf("G ");
    print_hex(out, written);
    printf("\n");
}

/* Every field of a message. */
static void fields(const char *text)
{
    uint8_t bytes[256];
    framegate_envelope e;
    framegate_message m;
    if (!framegate_decode(bytes, unhex(text, bytes, sizeof bytes), &e, &m)) { return; }
    printf("D length=%u counter=%u data_id=%" PRIu32 " known=%d kind=%u verdict=%u authenticated=%d region=%" PRIu32
           " epoch=%" PRIu64 " frame_id=%" PRId64 " captured_ns=%" PRId64 " decided_ns=%" PRId64 " valid_until_ns=%" PRId64
           " sent_ns=%" PRId64 " clock_domain=%" PRIu64 " reasons=%" PRIu64 " class_id=%" PRIu32 " classes=%" PRIu32
           " confidence=%08" PRIx32 " score=%08" PRIx32 " threshold=%08" PRIx32 " certificate_kind=%" PRIu32
           " certificate_radius=%08" PRIx32 " drops=%" PRIu32 " bundle=",
           (unsigned)e.length, (unsigned)e.counter, e.data_id, e.known ? 1 : 0, (unsigned)m.kind, (unsigned)e.verdict,
           e.authenticated ? 1 : 0, m.region, m.epoch, m.frame_id, m.captured_ns, m.decided_ns, m.valid_until_ns, m.sent_ns,
           m.clock_domain, m.reasons, m.class_id, m.classes, framegate_float_bits(m.confidence),
           framegate_float_bits(m.score), framegate_float_bits(m.threshold), m.certificate_kind,
           framegate_float_bits(m.certificate_radius), m.drops);
    print_hex(m.bundle, 8);
    printf(" calibration=");
    print_hex(m.calibration, 8);
    printf(" track=%" PRIu32 " objects=%" PRIu32 " consistent=%d\n", m.track, m.objects,
           framegate_consistent(&e, &m) ? 1 : 0);
}

static void show(const framegate_receiver *receiver, int64_t now)
{
    const framegate_reading r = framegate_receiver_verdict(receiver, now);
    printf("R %d %" PRIu32 " %" PRIu32 " %d %" PRIu64 " %" PRId64 " %" PRId64 " %08" PRIx32 " %" PRIu32 ":%08" PRIx32 "\n",
           r.usable ? 1 : 0, r.why, r.class_id, (int)r.state, r.reasons, r.frame_id, r.ends_ns,
           framegate_float_bits(r.confidence), r.certificate_kind, framegate_float_bits(r.certificate_radius));
}

static void show_objects(const framegate_objects *objects, int64_t now)
{
    framegate_objects_reading r;
    framegate_objects_verdict(objects, now, &r);
    printf("r %d %d %" PRIu32, r.whole ? 1 : 0, r.agrees ? 1 : 0, r.scene.why);
    for (uint32_t i = 0; i < r.count; ++i) {
        const framegate_seen_object *o = &r.objects[i];
        printf(" %" PRIu32 ":%" PRIu32 ":%" PRIu32 ":%" PRIu32, o->slot, o->track, o->reading.why, o->reading.class_id);
    }
    printf("\n");
}

int main(void)
{
    static char line[4096];
    static char rest[4096];
    static framegate_objects objects;
    framegate_receiver receiver;
    memset(&receiver, 0, sizeof receiver);
    while (fgets(line, sizeof line, stdin) != NULL) {
        int64_t time = 0;
        rest[0] = '\0';
        if (line[0] == 'C') {
            const framegate_config config = configured(&line[1]);
            printf("C %d\n", framegate_receiver_init(&receiver, &config) ? 1 : 0);
        } else if (line[0] == 'O') {
            char *end = NULL;
            const uint32_t slots = (uint32_t)strtoul(&line[1], &end, 10);
            const uint32_t regions = *end == '/' ? (uint32_t)strtoul(end + 1, &end, 10) : 0u;
            const framegate_config config = configured(end);
            const bool good = framegate_objects_init(&objects, &config, slots);
            printf("O %d\n", framegate_objects_set_regions(&objects, regions) && good ? 1 : 0);
        } else if (line[0] == 'x') {
            framegate_objects_restart(&objects);
            printf("x\n");
        } else if (line[0] == 'G') {
            char key[256] = "";
            if (sscanf(&line[1], "%4095s %255s", rest, key) >= 1) { again(rest, key); }
        } else if (line[0] == 'D') {
            if (sscanf(&line[1], "%4095s", rest) == 1) { fields(rest); }
        } else if (line[0] == 'X') {
            framegate_receiver_restart(&receiver);
            printf("X\n");
        } else if (sscanf(&line[1], "%" SCNd64 " %4095s", &time, rest) >= 1) {
            if (line[0] == 'F') {
                uint8_t bytes[2048];
                const size_t size = unhex(rest, bytes, sizeof bytes);
                const framegate_fault fault = framegate_receiver_feed(&receiver, bytes, size, time);
                printf("F %s %d %" PRIu64 " %" PRIu64 "\n", framegate_fault_name(fault), (int)receiver.state, receiver.good,
                       receiver.lost_messages);
            } else if (line[0] == 'f') {
                uint8_t bytes[2048];
                const size_t size = unhex(rest, bytes, sizeof bytes);
                printf("f %s\n", framegate_fault_name(framegate_objects_feed(&objects, bytes, size, time)));
            } else if (line[0] == 'r') {
                show_objects(&objects, time);
            } else if (line[0] == 'l') {
                printf("l %d\n", framegate_objects_release(&objects, time) ? 1 : 0);
            } else if (line[0] == 'R') {
                show(&receiver, time);
            } else if (line[0] == 'L') {
                printf("L %d\n", framegate_receiver_release(&receiver, time) ? 1 : 0);
            }
        }
    }
    return 0;
}
