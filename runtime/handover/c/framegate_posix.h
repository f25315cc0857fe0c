/* framegate_posix.h: what a consumer on Linux needs around framegate_verdict.h: the clock, a UDP socket, the key file.
 *
 * Include it in one place; it needs _POSIX_C_SOURCE 200809L or GNU extensions. Nothing here waits.
 */
#ifndef FRAMEGATE_POSIX_H
#define FRAMEGATE_POSIX_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "framegate_objects.h"
#include "framegate_verdict.h"

/* The monotonic clock in nanoseconds; -1 if there is none, which makes nothing usable. */
static inline int64_t framegate_now_ns(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        return -1;
    }
    return ((int64_t)now.tv_sec * 1000000000) + (int64_t)now.tv_nsec;
}

/* The clock domain of this process's monotonic clock; 0 where the system does not say. */
static inline uint64_t framegate_this_clock(void)
{
    static const char start[] = "framegate/";
    static const char slash[] = "/";
    char boot[64];
    char space[64];
    framegate_sha256 sha;
    uint8_t digest[32];
    size_t boot_size;
    ssize_t space_size;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (file == NULL) {
        return 0u;
    }
    boot_size = fread(boot, 1u, sizeof boot, file);
    (void)fclose(file);
    while ((boot_size > 0u) && ((boot[boot_size - 1u] == '\n') || (boot[boot_size - 1u] == ' '))) {
        --boot_size;
    }
    if (boot_size == 0u) {
        return 0u; /* hidden from a container: on every such machine alike, and their clocks are not */
    }
    space_size = readlink("/proc/self/ns/time", space, sizeof space);
    framegate_sha256_start(&sha);
    framegate_sha256_add(&sha, (const uint8_t *)start, sizeof start - 1u);
    framegate_sha256_add(&sha, (const uint8_t *)boot, boot_size);
    framegate_sha256_add(&sha, (const uint8_t *)slash, 1u);
    framegate_sha256_add(&sha, (const uint8_t *)space, (space_size > 0) ? (size_t)space_size : 0u);
    framegate_sha256_end(&sha, digest);
    return framegate_get(digest, 8u);
}

static inline int framegate_hex_digit(int letter)
{
    if ((letter >= '0') && (letter <= '9')) {
        return letter - '0';
    }
    if ((letter >= 'a') && (letter <= 'f')) {
        return letter - 'a' + 10;
    }
    return ((letter >= 'A') && (letter <= 'F')) ? (letter - 'A' + 10) : -1;
}

/* A number that somebody wrote, decimal or with 0x, lowest to highest. False if it is none of these: half a number, an
 * octal one, a sign, and nothing at all are no numbers. */
static inline bool framegate_read_number(const char *text, uint32_t lowest, uint32_t highest, uint32_t *number)
{
    const bool hex = (text[0] == '0') && ((text[1] == 'x') || (text[1] == 'X'));
    const int base = hex ? 16 : 10;
    const char *digit = hex ? &text[2] : text;
    const bool octal = !hex && (text[0] == '0') && (text[1] != '\0');
    uint64_t value = 0u;
    bool good = (*digit != '\0') && !octal;
    for (; good && (*digit != '\0'); ++digit) {
        const int worth = framegate_hex_digit((unsigned char)*digit);
        good = (worth >= 0) && (worth < base);
        value = (value * (uint64_t)base) + (uint64_t)(good ? worth : 0);
        good = good && (value <= (uint64_t)highest);
    }
    good = good && (value >= (uint64_t)lowest);
    *number = good ? (uint32_t)value : 0u;
    return good;
}

/* A data id, 0 to 4294967295 or 0x0 to 0xffffffff; false if the text is none. */
static inline bool framegate_read_data_id(const char *text, uint32_t *data_id)
{
    return framegate_read_number(text, 0u, UINT32_MAX, data_id);
}

/* A port, 1 to 65535; false if the text is none. */
static inline bool framegate_read_port(const char *text, uint16_t *port)
{
    uint32_t number;
    const bool good = framegate_read_number(text, 1u, UINT16_MAX, &number);
    *port = (uint16_t)number;
    return good;
}

/* A socket that receives the datagrams for one address and port of this machine; -1 and errno if there is none. */
static inline int framegate_udp_listen(const char *address, uint16_t port)
{
    struct sockaddr_in here;
    const int room = 1 << 20;
    int handle;
    (void)memset(&here, 0, sizeof here);
    here.sin_family = AF_INET;
    here.sin_port = htons(port);
    if (inet_pton(AF_INET, address, &here.sin_addr) != 1) {
        return -1;
    }
    handle = socket(AF_INET, SOCK_DGRAM, 0);
    if (handle < 0) {
        return -1;
    }
    (void)setsockopt(handle, SOL_SOCKET, SO_RCVBUF, &room, (socklen_t)sizeof room);
    if ((bind(handle, (const struct sockaddr *)&here, (socklen_t)sizeof here) != 0) ||
        (fcntl(handle, F_SETFL, O_NONBLOCK) != 0)) {
        (void)close(handle);
        return -1;
    }
    return handle;
}

/* Feed everything that waits at the socket, at most 4096 messages. Returns how many there were. */
static inline int framegate_udp_feed(int handle, framegate_receiver *receiver)
{
    uint8_t bytes[2048];
    int count = 0;
    while (count < 4096) {
        const ssize_t size = recv(handle, bytes, sizeof bytes, 0);
        if (size < 0) {
            break;
        }
        (void)framegate_receiver_feed(receiver, bytes, (size_t)size, framegate_now_ns());
        ++count;
    }
    return count;
}

/* The same for a receiver of objects. */
static inline int framegate_udp_feed_objects(int handle, framegate_objects *objects)
{
    uint8_t bytes[2048];
    int count = 0;
    while (count < 4096) {
        const ssize_t size = recv(handle, bytes, sizeof bytes, 0);
        if (size < 0) {
            break;
        }
        (void)framegate_objects_feed(objects, bytes, (size_t)size, framegate_now_ns());
        ++count;
    }
    return count;
}

/* The shared key of a file, 32 to 128 hexadecimal digits in one line and nothing else, into a configuration. Returns NULL,
 * or in words what is wrong; then the configuration has no key. */
static inline const char *framegate_read_key(const char *path, framegate_config *config)
{
    struct stat about;
    uint32_t digits = 0u;
    int letter;
    bool read;
    const int handle = open(path, O_RDONLY | O_NONBLOCK); /* opening a pipe would take until somebody writes into it */
    FILE *file;
    config->key_size = 0u;
    if ((handle < 0) || (fstat(handle, &about) != 0) || !S_ISREG(about.st_mode)) {
        if (handle >= 0) {
            (void)close(handle);
        }
        return "the key file cannot be opened, or is no plain file";
    }
    if ((about.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        (void)close(handle);
        return "others can use the key file; do: chmod 600";
    }
    file = fdopen(handle, "r");
    if (file == NULL) {
        (void)close(handle);
        return "the key file cannot be read";
    }
    (void)memset(config->key, 0, sizeof config->key);
    letter = fgetc(file);
    while ((framegate_hex_digit(letter) >= 0) && (digits < (2u * FRAMEGATE_LONGEST_KEY))) {
        const unsigned before = config->key[digits / 2u];
        config->key[digits / 2u] = (uint8_t)((before << 4) | (unsigned)framegate_hex_digit(letter));
        ++digits;
        letter = fgetc(file);
    }
    if (letter == '\n') {
        letter = fgetc(file); /* what follows the line */
    }
    read = ferror(file) == 0;
    (void)fclose(file);
    if (!read) {
        return "the key file cannot be read";
    }
    if ((letter != EOF) || ((digits % 2u) != 0u) || (digits < (2u * FRAMEGATE_SHORTEST_KEY))) {
        return "the key file must hold 32 to 128 hexadecimal digits in one line, and nothing else: openssl rand -hex 32";
    }
    config->key_size = digits / 2u;
    return NULL;
}

#endif /* FRAMEGATE_POSIX_H */
