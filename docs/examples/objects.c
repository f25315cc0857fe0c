/* A control loop for objects that move: it says in each cycle what is there, and which labels may be used.
 *
 *     cc -std=c11 -I "$(framegate handover include)" objects.c -o objects
 *     ./objects 47800 0x200 16
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "framegate_objects.h"
#include "framegate_posix.h"

#define CYCLE_NS 10000000 /* 100 Hz: the loop must run at least ten times a second */
#define MOST 4096         /* messages a cycle */

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
    int handle;
    if (count < 4) {
        (void)fprintf(stderr, "usage: %s PORT DATA-ID-OF-THE-SCENE SLOTS\n", words[0]);
        return 2;
    }
    config = framegate_config_default((uint32_t)strtoul(words[2], NULL, 0));
    config.clock_domain = framegate_this_clock();
    if (!framegate_objects_init(&objects, &config, (uint32_t)strtoul(words[3], NULL, 10))) {
        (void)fprintf(stderr, "SLOTS must be 1 to %u, as many as the sender has\n", FRAMEGATE_MAX_SLOTS);
        return 2;
    }
    handle = framegate_udp_listen("127.0.0.1", (uint16_t)strtoul(words[1], NULL, 10));
    if (handle < 0) {
        perror("cannot listen there");
        return 1;
    }
    (void)signal(SIGINT, stop);
    (void)signal(SIGTERM, stop);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    while (stopped == 0) {
        const struct timespec cycle = {0, CYCLE_NS};
        framegate_objects_reading seen;
        char said[512];
        uint8_t bytes[2048];
        for (int i = 0; i < MOST; ++i) { /* all that waits, every cycle */
            const ssize_t size = recv(handle, bytes, sizeof bytes, 0);
            if (size < 0) { break; }
            (void)framegate_objects_feed(&objects, bytes, (size_t)size, framegate_now_ns());
        }
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
