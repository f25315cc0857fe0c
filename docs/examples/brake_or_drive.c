/* A control loop that drives while it may and brakes in every other case. docs/consumer.md says what it owes.
 *
 *     cc -std=c11 -I "$(framegate handover include)" brake_or_drive.c -o brake_or_drive
 *     ./brake_or_drive 47800 0x101 [KEY-FILE]
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "framegate_posix.h"
#include "framegate_verdict.h"

#define CYCLE_NS 10000000 /* 100 Hz: the loop must run at least ten times a second */

static volatile sig_atomic_t stopped = 0;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

/* Your actuators. */
static void drive(uint32_t class_id) { printf("DRIVE class %" PRIu32 "\n", class_id); }
static void brake(const framegate_reading *reading)
{
    printf("BRAKE:");
    for (unsigned bit = 0; bit < 9; ++bit) {
        if (((reading->why >> bit) & 1u) != 0u) { printf(" %s", framegate_why_name(bit)); }
    }
    for (unsigned bit = 0; bit < 64; ++bit) {
        if (((reading->reasons >> bit) & 1u) != 0u) { printf(" %s", framegate_reason_name(bit)); }
    }
    printf("\n");
}

int main(int count, char **words)
{
    framegate_receiver receiver;
    framegate_config config;
    uint32_t data_id;
    uint16_t port;
    int handle;
    uint32_t last_why = 0xFFFFFFFFu;
    uint32_t last_class = FRAMEGATE_NO_CLASS;
    if (count < 3) {
        (void)fprintf(stderr, "usage: %s PORT DATA-ID [KEY-FILE]\n", words[0]);
        return 2;
    }
    if (!framegate_read_port(words[1], &port) || !framegate_read_data_id(words[2], &data_id)) {
        (void)fprintf(stderr, "%s %s: expected a port, 1 to 65535, and a data id, 0x0 to 0xffffffff\n", words[1], words[2]);
        return 2;
    }
    config = framegate_config_default(data_id);
    config.clock_domain = framegate_this_clock(); /* the sender's, if it runs on this machine */
    if (count > 3) {
        const char *problem = framegate_read_key(words[3], &config);
        if (problem != NULL) {
            (void)fprintf(stderr, "%s: %s\n", words[3], problem);
            return 2;
        }
    }
    if (!framegate_receiver_init(&receiver, &config)) {
        (void)fprintf(stderr, "the configuration is out of range\n");
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
        framegate_reading reading;
        (void)framegate_udp_feed(handle, &receiver);                        /* all that waits, every cycle */
        reading = framegate_receiver_verdict(&receiver, framegate_now_ns()); /* and only then ask */
        if ((reading.why != last_why) || (reading.class_id != last_class)) {
            if (reading.usable) { drive(reading.class_id); } else { brake(&reading); }
            last_why = reading.why;
            last_class = reading.class_id;
        }
        (void)nanosleep(&cycle, NULL);
    }
    (void)close(handle);
    for (int fault = 1; fault < (int)FRAMEGATE_FAULTS; ++fault) {
        if (receiver.faults[fault] > 0u) {
            (void)fprintf(stderr, "%s %" PRIu64 "\n", framegate_fault_name((framegate_fault)fault), receiver.faults[fault]);
        }
    }
    return 0;
}
