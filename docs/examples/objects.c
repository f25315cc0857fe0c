/* A control loop for objects that move: it says in each cycle what is there, and which labels may be used.
 *
 *     cc -std=c11 -I "$(framegate handover include)" objects.c -o objects
 *     ./objects 47800 0x200 16
 *     ./objects 47800 0x200 16 2        where the sender has two --roi beside the objects
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "framegate_objects.h"
#include "framegate_posix.h"

#define CYCLE_NS 10000000 /* 100 Hz: the loop must run at least ten times a second */

static volatile sig_atomic_t stopped = 0;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

/* Your planner. Not whole: it is not known what is there, so your safe state. An object without a usable label is there
 * all the same, and may be anything. */
static void plan(const framegate_objects_reading *seen, char *said, size_t room)
{
    size_t end = (size_t)snprintf(said, room, "%s", seen->whole ? "WHOLE" : "BRAKE");
    for (uint32_t i = 0; (i < seen->count) && (end < room); ++i) {
        const framegate_seen_object *each = &seen->objects[i];
        const int size = each->reading.usable
                             ? snprintf(&said[end], room - end, " %" PRIu32 ":class%" PRIu32, each->track, each->reading.class_id)
                             : snprintf(&said[end], room - end, " %" PRIu32 ":anything", each->track);
        end += (size > 0) ? (size_t)size : 0u;
    }
}

int main(int count, char **words)
{
    static framegate_objects objects;
    framegate_config config;
    char last[512] = "";
    uint32_t slots;
    uint32_t regions = 0u;
    uint32_t data_id;
    uint16_t port;
    int handle;
    if (count < 4) {
        (void)fprintf(stderr, "usage: %s PORT DATA-ID-OF-THE-SCENE SLOTS [REGIONS]\n", words[0]);
        return 2;
    }
    if (!framegate_read_port(words[1], &port) || !framegate_read_data_id(words[2], &data_id)) {
        (void)fprintf(stderr, "%s %s: expected a port, 1 to 65535, and a data id, 0x0 to 0xffffffff\n", words[1], words[2]);
        return 2;
    }
    config = framegate_config_default(data_id);
    config.clock_domain = framegate_this_clock();
    if (!framegate_read_number(words[3], 1u, FRAMEGATE_MAX_SLOTS, &slots) ||
        !framegate_objects_init(&objects, &config, slots)) {
        (void)fprintf(stderr, "%s slots: expected 1 to %u, as many as the sender has\n", words[3], FRAMEGATE_MAX_SLOTS);
        return 2;
    }
    if ((count > 4) && (!framegate_read_number(words[4], 0u, FRAMEGATE_MAX_REGIONS, &regions) ||
                        !framegate_objects_set_regions(&objects, regions))) {
        (void)fprintf(stderr, "%s regions: expected 0 to %u, as many --roi as the sender has\n", words[4], FRAMEGATE_MAX_REGIONS);
        return 2;
    }
    handle = framegate_udp_listen("127.0.0.1", port);
    if (handle < 0) {
        (void)fprintf(stderr, "port %s: cannot listen there (%s); is another receiver running?\n", words[1], strerror(errno));
        return 1;
    }
    (void)signal(SIGINT, stop);
    (void)signal(SIGTERM, stop);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    while (stopped == 0) {
        const struct timespec cycle = {0, CYCLE_NS};
        framegate_objects_reading seen;
        char said[512];
        (void)framegate_udp_feed_objects(handle, &objects);             /* all that waits, every cycle */
        framegate_objects_verdict(&objects, framegate_now_ns(), &seen); /* and only then ask */
        plan(&seen, said, sizeof said);
        if (strcmp(said, last) != 0) {
            printf("%s\n", said);
            (void)memcpy(last, said, sizeof last);
        }
        (void)nanosleep(&cycle, NULL);
    }
    (void)close(handle);
    return 0;
}
