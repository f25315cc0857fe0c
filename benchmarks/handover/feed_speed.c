/* What one message costs the C receiver: nanoseconds of processor time for encode, feed and verdict. */
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "framegate_verdict.h"

#define COUNT 20000
#define FRAME (33 * FRAMEGATE_MS)

static uint8_t messages[COUNT][FRAMEGATE_AUTHENTICATED_BYTES];

static double processor_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return ((double)now.tv_sec * 1e9) + (double)now.tv_nsec;
}

static int64_t sent(int number) { return (1000 * FRAMEGATE_MS) + ((int64_t)number * FRAME); }

static int measure(uint32_t key_size)
{
    framegate_receiver receiver;
    framegate_config config = framegate_config_default(0x101);
    framegate_message message;
    const size_t size = (key_size > 0) ? FRAMEGATE_AUTHENTICATED_BYTES : FRAMEGATE_PLAIN_BYTES;
    int usable = 0;
    double times[4];
    memset(&message, 0, sizeof message);
    config.key_size = key_size;
    config.clock_domain = 9;
    message.epoch = 5;
    message.kind = FRAMEGATE_VERDICT;
    message.accepted = true;
    message.clock_domain = 9;
    message.classes = 10;
    message.confidence = 0.9f;
    message.score = 0.1f;
    message.threshold = 0.2f;
    message.track = FRAMEGATE_NO_TRACK;
    (void)framegate_receiver_init(&receiver, &config);
    times[0] = processor_ns();
    for (int i = 0; i < COUNT; ++i) {
        message.frame_id = i;
        message.sent_ns = sent(i);
        message.decided_ns = sent(i) - 1;
        message.captured_ns = sent(i) - FRAMEGATE_MS;
        message.valid_until_ns = sent(i) + (100 * FRAMEGATE_MS);
        (void)framegate_encode(&message, (uint16_t)(i & 0xFFFF), 0x101, config.key, key_size, messages[i], size);
    }
    times[1] = processor_ns();
    for (int i = 0; i < COUNT; ++i) {
        (void)framegate_receiver_feed(&receiver, messages[i], size, sent(i) + 1000);
    }
    times[2] = processor_ns();
    for (int i = 0; i < COUNT; ++i) {
        usable += framegate_receiver_verdict(&receiver, sent(COUNT - 1) + 1000 + i).usable ? 1 : 0;
    }
    times[3] = processor_ns();
    printf("%d %.1f %.1f %.1f\n", (int)key_size, (times[1] - times[0]) / COUNT, (times[2] - times[1]) / COUNT,
           (times[3] - times[2]) / COUNT);
    return ((usable == COUNT) && (receiver.good == (uint64_t)COUNT)) ? 0 : 1;
}

int main(void) { return measure(0) + measure(32); }
