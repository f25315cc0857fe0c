/* A receiver in C for speed.py: prints its port; then, when so many bare messages have come, all times, one line for each
 * verdict or bare message: v DECIDED SENT ARRIVED DONE USABLE, or b SENT DONE, in ns. */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#include "framegate_posix.h"

#define MOST 200000

static int64_t times[MOST][5];

int main(int count, char **words)
{
    const struct timeval patience = {10, 0};
    struct sockaddr_in here;
    socklen_t size = sizeof here;
    framegate_receiver receiver;
    framegate_config config = framegate_config_default(0x101);
    const long wanted = (count > 1) ? strtol(words[1], NULL, 10) : 0;
    const int handle = framegate_udp_listen("127.0.0.1", 0);
    long bare = 0;
    int rows = 0;
    config.clock_domain = framegate_this_clock();
    if ((handle < 0) || !framegate_receiver_init(&receiver, &config) || (fcntl(handle, F_SETFL, 0) != 0) ||
        (setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0) ||
        (getsockname(handle, (struct sockaddr *)&here, &size) != 0)) {
        return 1;
    }
    printf("udp://127.0.0.1:%d\n", (int)ntohs(here.sin_port));
    (void)fflush(stdout);
    while ((bare < wanted) && (rows < MOST)) {
        uint8_t bytes[2048];
        const ssize_t got = recv(handle, bytes, sizeof bytes, 0);
        const int64_t arrival = framegate_now_ns();
        if (got < 10) {
            break;
        }
        if ((bytes[0] == 0xFFu) && (bytes[1] == 0xFFu)) {
            times[rows][0] = -1;
            times[rows][1] = (int64_t)framegate_get(&bytes[2], 8);
            times[rows][3] = framegate_now_ns();
            ++bare;
        } else {
            framegate_reading reading;
            (void)framegate_receiver_feed(&receiver, bytes, (size_t)got, arrival);
            reading = framegate_receiver_verdict(&receiver, framegate_now_ns());
            times[rows][3] = framegate_now_ns();
            times[rows][0] = receiver.held.decided_ns;
            times[rows][1] = receiver.held.sent_ns;
            times[rows][2] = arrival;
            times[rows][4] = reading.usable ? 1 : 0;
        }
        ++rows;
    }
    for (int i = 0; i < rows; ++i) {
        const int64_t *t = times[i];
        if (t[0] < 0) {
            printf("b %" PRId64 " %" PRId64 "\n", t[1], t[3]);
        } else {
            printf("v %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %d\n", t[0], t[1], t[2], t[3], (int)t[4]);
        }
    }
    (void)close(handle);
    return 0;
}
