/* What the Python side of the hand-over takes from the header: see ../../native/__init__.py and ../machine_native.py. */
#include "framegate_verdict.h"

uint32_t framegate_crc32_autosar(const uint8_t *bytes, size_t size)
{
    return framegate_crc32_p4(bytes, size);
}

/* Of a message of at least 12 bytes: over all bytes but the CRC's own. */
uint32_t framegate_crc32_of_message(const uint8_t *bytes, size_t size)
{
    return framegate_message_crc(bytes, size);
}

/* What a reading is made of; ../machine_native.py unpacks it. */
typedef struct framegate_standing {
    int64_t why;   /* as far as it does not depend on the time of reading */
    int64_t state;
    int64_t held;  /* 1: there is a verdict; 2: it is the one of the last message */
    int64_t ends_ns;
    int64_t arrival_ns;
    int64_t good_ns;
    int64_t good;
    int64_t lost_messages;
} framegate_standing;

static void framegate_stand(const framegate_receiver *receiver, bool taken, framegate_standing *standing)
{
    /* At the time of the last good message, which is when what depends on the time speaks least against it. */
    const uint32_t timed = FRAMEGATE_CLOCK_WENT_BACK | FRAMEGATE_NOT_FRESH | FRAMEGATE_NOT_ALIVE;
    const framegate_reading reading = framegate_receiver_verdict(receiver, receiver->good_ns);
    standing->why = (int64_t)(reading.why & ~timed) | (receiver->has_good ? 0 : (int64_t)FRAMEGATE_NOT_ALIVE);
    standing->state = (int64_t)receiver->state;
    standing->held = receiver->has_held ? (taken ? 2 : 1) : 0;
    standing->ends_ns = receiver->ends_ns;
    standing->arrival_ns = receiver->arrival_ns;
    standing->good_ns = receiver->good_ns;
    standing->good = (int64_t)receiver->good;
    standing->lost_messages = (int64_t)receiver->lost_messages;
}

int32_t framegate_handover_size(void) { return (int32_t)sizeof(framegate_receiver); }

/* A receiver in memory of framegate_handover_size bytes. Numbers: data_id, classes, good_to_start, max_lost, grave,
 * alive, max_age, period, shortest_period, transit, future, quiet, offset, offset_uncertainty, scene, key_size, and as bits
 * of 64: min_epoch, clock_domain, offset_domain. Returns 0 if they are out of range. */
int32_t framegate_handover_open(framegate_receiver *receiver, const int64_t *numbers, const uint8_t *bundle,
                                const uint8_t *calibration, const uint8_t *key)
{
    framegate_config config = framegate_config_default((uint32_t)numbers[0]);
    config.classes = (uint32_t)numbers[1];
    config.good_to_start = (uint32_t)numbers[2];
    config.max_lost = (uint32_t)numbers[3];
    config.grave = (uint32_t)numbers[4];
    config.alive_ns = numbers[5];
    config.max_age_ns = numbers[6];
    config.period_ns = numbers[7];
    config.shortest_period_ns = numbers[8];
    config.transit_ns = numbers[9];
    config.future_ns = numbers[10];
    config.quiet_ns = numbers[11];
    config.offset_ns = numbers[12];
    config.offset_uncertainty_ns = numbers[13];
    config.scene = numbers[14] != 0;
    config.key_size = (uint32_t)numbers[15];
    config.min_epoch = (uint64_t)numbers[16];
    config.clock_domain = (uint64_t)numbers[17];
    config.offset_domain = (uint64_t)numbers[18];
    (void)memcpy(config.bundle, bundle, sizeof config.bundle);
    (void)memcpy(config.calibration, calibration, sizeof config.calibration);
    if (config.key_size <= FRAMEGATE_LONGEST_KEY) {
        (void)memcpy(config.key, key, config.key_size);
    }
    return framegate_receiver_init(receiver, &config) ? 1 : 0;
}

/* Returns what was wrong with a message; 256 is added for the fault MISSED that was found before another one. */
int32_t framegate_handover_feed(framegate_receiver *receiver, const uint8_t *bytes, size_t size, int64_t arrival_ns,
                                framegate_standing *standing)
{
    const uint64_t good = receiver->good;
    const uint64_t missed = receiver->faults[FRAMEGATE_MISSED];
    const framegate_fault fault = framegate_receiver_feed(receiver, bytes, size, arrival_ns);
    const bool before = (fault != FRAMEGATE_MISSED) && (receiver->faults[FRAMEGATE_MISSED] != missed);
    const bool taken = (receiver->good != good) && (bytes[17] != FRAMEGATE_HEARTBEAT);
    framegate_stand(receiver, taken, standing);
    return (int32_t)fault + (before ? 256 : 0);
}

int32_t framegate_handover_release(framegate_receiver *receiver, int64_t now_ns, framegate_standing *standing)
{
    const bool released = framegate_receiver_release(receiver, now_ns);
    framegate_stand(receiver, false, standing);
    return released ? 1 : 0;
}

void framegate_handover_restart(framegate_receiver *receiver, framegate_standing *standing)
{
    framegate_receiver_restart(receiver);
    framegate_stand(receiver, false, standing);
}
