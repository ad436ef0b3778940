/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a client takes what it is sent (HTTP-4): one that reads less than HTTP_PACE_BYTES in
 * HTTP_PACE_US is dropped, one that reads more never. What a client has read is not what its kernel
 * has taken: a receive window that was filled opens again only when a sixteenth of a buffer of up
 * to 32 MiB is free, which takes a steady reader of 64 KiB/s half a minute without a sign of life.
 */
#ifndef SHOAL_DAEMON_HTTP_PACE_H
#define SHOAL_DAEMON_HTTP_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define HTTP_PACE_BYTES 4096ull
#define HTTP_PACE_US    (30ull * 1000000)
/* Of a client whose buffer cannot be seen: it may hide so many times HTTP_PACE_BYTES, an hour. */
#define HTTP_PACE_MOST 120ull

struct http_pace {
    uint64_t since_us; /* the client last made progress, or none was due */
    uint64_t given;    /* bytes given to the socket since; the sender counts them */
    uint64_t queued;   /* of what the socket held then, its peer had not taken */
    uint64_t unread;   /* in the client's own buffer when it was first looked at since */
    uint64_t taken;    /* by its kernel until then, since since_us */
    bool seen;         /* the two above hold */
};

/* A new window: now, with nothing given yet. `fd` is the client's socket. */
void http_pace_begin(struct http_pace *pace, int fd, uint64_t now_us);
/*
 * True: to be dropped. `waits`: the socket is full, so that it is the client's turn; else a new
 * window begins. To be called about once a second. Costs two system calls, and four more while
 * nothing moves: a client on this host is judged by what its own socket holds unread
 * (sock_diag(7)); of any other one, an answer to our probes is taken for life for as long as the
 * slowest reader may need to open its window: HTTP_PACE_US for each HTTP_PACE_BYTES of a twelfth of
 * what it took, or of two segments, up to HTTP_PACE_MOST times.
 */
bool http_pace_slow(struct http_pace *pace, int fd, bool waits, uint64_t now_us);

#endif
