/* SPDX-License-Identifier: Apache-2.0 */
/* The log sink: escaping, cutting, rate limit per kind of message, text and JSON lines (HRD-5). */
#include "log_sink.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define SECOND_US UINT64_C(1000000)

void log_sink_init(struct log_sink *sink, int fd, bool json, enum log_level level)
{
    memset(sink, 0, sizeof *sink);
    sink->fd = fd;
    sink->json = json;
    sink->level = level;
    int err = pthread_mutex_init(&sink->lock, NULL);
    ASSERT(err == 0);
}

void log_sink_close(struct log_sink *sink)
{
    (void)pthread_mutex_destroy(&sink->lock);
}

/* FNV-1a over the words before the first one with '=', digits taken as one: "dht: lookup done". */
static uint32_t kind_of(const char *line)
{
    const char *end = strchr(line, '=');
    if (end == NULL)
        end = line + strlen(line);
    while (end > line && *end != ' ' && *end != '\0')
        end--;
    uint32_t hash = 2166136261U;
    for (const char *c = line; c < end; c++) {
        uint8_t byte = (uint8_t)(*c >= '0' && *c <= '9' ? '0' : *c);
        hash = (hash ^ byte) * 16777619U;
    }
    return hash;
}

bool log_sink_admit(struct log_sink *sink, uint64_t now_us, const char *line, uint32_t *dropped)
{
    uint32_t hash = kind_of(line);
    bool audit = strncmp(line, "audit: ", 7) == 0;
    struct log_sink_kind *kind = &sink->kinds[audit ? LOG_SINK_KINDS : hash % LOG_SINK_KINDS];
    uint64_t second = now_us / SECOND_US;
    *dropped = 0;
    if (kind->second != second) {
        *dropped = kind->dropped;
        *kind = (struct log_sink_kind){.hash = hash, .second = second};
    }
    if (kind->written >= (audit ? LOG_SINK_AUDIT_PER_SECOND : LOG_SINK_PER_SECOND)) {
        kind->dropped++;
        sink->dropped++;
        return false;
    }
    kind->written++;
    return true;
}

/* Bytes that a line may not carry as they are; true if `c` was written otherwise. */
static bool escape(const struct log_sink *sink, unsigned char c, char out[8], size_t *used)
{
    bool control = c < 0x20 || c == 0x7f;
    bool quote = sink->json && (c == '"' || c == '\\');
    if (quote) {
        out[0] = '\\';
        out[1] = (char)c;
        *used = 2;
        return true;
    }
    /* JSON must be UTF-8, and we do not know what others' bytes are. */
    if (control || (sink->json && c >= 0x80)) {
        *used = (size_t)snprintf(out, 8, sink->json ? "\\u%04x" : "\\x%02x", c);
        return true;
    }
    return false;
}

static size_t text_put(const struct log_sink *sink, const char *line, char *out, size_t room)
{
    size_t used = 0;
    for (const unsigned char *c = (const unsigned char *)line; *c != '\0'; c++) {
        char escaped[8] = {(char)*c};
        size_t bytes = 1;
        (void)escape(sink, *c, escaped, &bytes);
        if (used + bytes > room)
            break;
        memcpy(out + used, escaped, bytes);
        used += bytes;
    }
    return used;
}

static void time_put(uint64_t wall_ms, char out[32])
{
    struct tm parts;
    time_t seconds = (time_t)(wall_ms / 1000);
    if (gmtime_r(&seconds, &parts) == NULL)
        memset(&parts, 0, sizeof parts);
    size_t used = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &parts);
    (void)snprintf(out + used, 32 - used, ".%03uZ", (unsigned)(wall_ms % 1000));
}

size_t log_sink_format(const struct log_sink *sink, uint64_t wall_ms, enum log_level level,
                       const char *line, char out[LOG_SINK_LINE_BYTES])
{
    char when[32];
    time_put(wall_ms, when);
    const char *name = log_level_name(level);
    int head = sink->json ? snprintf(out, LOG_SINK_LINE_BYTES,
                                     "{\"time\":\"%s\",\"level\":\"%s\",\"message\":\"", when, name)
                          : snprintf(out, LOG_SINK_LINE_BYTES, "%s %-5s ", when, name);
    ASSERT(head > 0 && head < 128);
    size_t used = (size_t)head;
    used += text_put(sink, line, out + used, LOG_SINK_LINE_BYTES - used - 4);
    const char *end = sink->json ? "\"}\n" : "\n";
    memcpy(out + used, end, strlen(end));
    return used + strlen(end);
}

static uint64_t clock_us(clockid_t which)
{
    struct timespec now;
    if (clock_gettime(which, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * SECOND_US + (uint64_t)now.tv_nsec / 1000;
}

static void line_write(struct log_sink *sink, enum log_level level, const char *line)
{
    char out[LOG_SINK_LINE_BYTES];
    size_t bytes = log_sink_format(sink, clock_us(CLOCK_REALTIME) / 1000, level, line, out);
    ssize_t written = write(sink->fd, out, bytes);
    (void)written; /* there is nobody to tell */
    sink->lines++;
}

void log_sink_write(struct log_sink *sink, enum log_level level, const char *line)
{
    char told[128];
    uint32_t dropped = 0;
    if (level > sink->level)
        return;
    (void)pthread_mutex_lock(&sink->lock);
    bool admitted = log_sink_admit(sink, clock_us(CLOCK_MONOTONIC), line, &dropped);
    if (dropped > 0) {
        (void)snprintf(told, sizeof told, "log: dropped %" PRIu32 " lines like the next", dropped);
        line_write(sink, level, told);
    }
    if (admitted)
        line_write(sink, level, line);
    (void)pthread_mutex_unlock(&sink->lock);
}
