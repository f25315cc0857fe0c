/* Bare UDP over loopback for floor.py: stamps and nothing else, in the fewest system calls there are.
 *
 *     floor receive COUNT            prints its port, then one line "SENT ARRIVED" in ns for each datagram
 *     floor send PORT COUNT PAUSE_US
 *     floor wake COUNT PAUSE_US      prints one line "DUE AWAKE" for each sleep: what waking alone takes
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MOST 100000
#define BYTES 144 /* as many as a message of the hand-over has */

static int64_t stamps[MOST][2];

static int64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return ((int64_t)now.tv_sec * 1000000000) + (int64_t)now.tv_nsec;
}

static void print(int rows)
{
    for (int i = 0; i < rows; ++i) {
        printf("%" PRId64 " %" PRId64 "\n", stamps[i][0], stamps[i][1]);
    }
}

static void sleep_until(int64_t due)
{
    const struct timespec when = {due / 1000000000, due % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) != 0) {
    }
}

static int receive(int count)
{
    const struct timeval patience = {10, 0};
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof here;
    const int handle = socket(AF_INET, SOCK_DGRAM, 0);
    int rows = 0;
    if ((handle < 0) || (bind(handle, (struct sockaddr *)&here, size) != 0) ||
        (setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0) ||
        (getsockname(handle, (struct sockaddr *)&here, &size) != 0)) {
        return 1;
    }
    printf("%d\n", (int)ntohs(here.sin_port));
    (void)fflush(stdout);
    while (rows < count) {
        char bytes[2048];
        if (recv(handle, bytes, sizeof bytes, 0) < 8) {
            break;
        }
        stamps[rows][1] = now_ns();
        (void)memcpy(&stamps[rows][0], bytes, 8);
        ++rows;
    }
    print(rows);
    return 0;
}

static int send_all(int port, int count, int64_t pause_ns)
{
    const struct sockaddr_in there = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int handle = socket(AF_INET, SOCK_DGRAM, 0);
    char bytes[BYTES] = {0};
    int64_t due = now_ns();
    for (int i = 0; i < count; ++i) {
        int64_t now;
        due += pause_ns;
        sleep_until(due);
        now = now_ns();
        (void)memcpy(bytes, &now, 8);
        (void)sendto(handle, bytes, sizeof bytes, 0, (const struct sockaddr *)&there, sizeof there);
    }
    return 0;
}

static int wake(int count, int64_t pause_ns)
{
    int64_t due = now_ns();
    for (int i = 0; i < count; ++i) {
        due += pause_ns;
        sleep_until(due);
        stamps[i][0] = due;
        stamps[i][1] = now_ns();
    }
    print(count);
    return 0;
}

int main(int words, char **word)
{
    const int first = (words > 2) ? atoi(word[2]) : 0;
    const int second = (words > 3) ? atoi(word[3]) : 0;
    if ((words == 3) && (strcmp(word[1], "receive") == 0) && (first <= MOST)) {
        return receive(first);
    }
    if ((words == 4) && (strcmp(word[1], "wake") == 0) && (first <= MOST)) {
        return wake(first, (int64_t)second * 1000);
    }
    if ((words == 5) && (strcmp(word[1], "send") == 0)) {
        return send_all(first, second, (int64_t)atoi(word[4]) * 1000);
    }
    return 2;
}
