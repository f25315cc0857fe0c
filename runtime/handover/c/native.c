/* What the Python side of the hand-over takes from the header: see ../../native/__init__.py. */
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
