/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where log lines go: stderr, as text or JSON, one write per line. Control bytes are escaped, lines
 * cut at LOG_SINK_LINE_BYTES and each kind of message limited to LOG_SINK_PER_SECOND a second
 * (HRD-5); what was dropped is told in one line when the second is over. Safe from any thread.
 */
#ifndef SHOAL_DAEMON_LOG_SINK_H
#define SHOAL_DAEMON_LOG_SINK_H

#include <pthread.h>

#include "env.h"

#define LOG_SINK_LINE_BYTES 4096
#define LOG_SINK_PER_SECOND 10
/* Lines of the audit log, which its reader wants whole; still a bound to what clients can cause. */
#define LOG_SINK_AUDIT_PER_SECOND 1000
/* Kinds told apart at a time; two that share a slot share a budget. A guess, 12 KiB. */
#define LOG_SINK_KINDS 256

struct log_sink_kind {
    uint32_t hash;    /* of the words before the first "name=value" */
    uint32_t written; /* in this second */
    uint32_t dropped;
    uint64_t second; /* monotonic */
};

struct log_sink {
    int fd;
    bool json;
    enum log_level level; /* lines above it are dropped */
    pthread_mutex_t lock;
    uint64_t lines, dropped;
    struct log_sink_kind kinds[LOG_SINK_KINDS + 1]; /* the last one is the audit log's */
};

/* `fd` is borrowed. Cannot fail. */
void log_sink_init(struct log_sink *sink, int fd, bool json, enum log_level level);
void log_sink_close(struct log_sink *sink);
/* Writes one line if its level and its kind's budget allow it. `line` has no newline and is
 * borrowed. A failed write is ignored: there is nobody to tell. */
void log_sink_write(struct log_sink *sink, enum log_level level, const char *line);

/* ---- for tests ---- */
/* Formats into out without writing: the whole line with newline, `wall_ms` since 1970. Returns its
 * length. */
size_t log_sink_format(const struct log_sink *sink, uint64_t wall_ms, enum log_level level,
                       const char *line, char out[LOG_SINK_LINE_BYTES]);
/* True if the kind of `line` has budget left at `now_us`; *dropped is what was dropped of this kind
 * before, to be told now. */
bool log_sink_admit(struct log_sink *sink, uint64_t now_us, const char *line, uint32_t *dropped);

#endif
