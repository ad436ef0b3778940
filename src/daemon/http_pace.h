/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a client takes what it is sent (HTTP-4): one that reads less than HTTP_PACE_BYTES in
 * HTTP_PACE_US is dropped, one that reads more never. It may do so in gulps: `curl --limit-rate`
 * reads what is there, megabytes, and then nothing until the average is right again. So what it
 * reads is time to its credit, up to HTTP_PACE_MOST_US of it.
 *
 * What a client has read is not what its kernel has taken. Of one on this host that is seen, by its
 * own socket. Of any other one only the latter is: a receive window that was filled opens again
 * when a sixteenth of a buffer of up to 32 MiB is free, which takes a steady reader of 64 KiB/s
 * half a minute without a sign of life. What its kernel took counts as read then, which is more
 * credit than the slowest reader needs to open the window again, but for the most that there is.
 */
#ifndef SHOAL_DAEMON_HTTP_PACE_H
#define SHOAL_DAEMON_HTTP_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define HTTP_PACE_BYTES   4096ull
#define HTTP_PACE_US      (30ull * 1000000)
#define HTTP_PACE_MOST_US (3600ull * 1000000)

struct http_pace {
    uint64_t looked_us; /* at the client, or when the answer began */
    uint64_t credit_us; /* of time without reading */
    uint64_t given;     /* bytes given to the socket; the sender counts them */
    uint64_t queued;    /* of what the socket held at the beginning, its peer had not taken */
    int64_t read;       /* the most that it was known to have read since; may begin below 0 */
    bool looked;        /* `read` holds */
};

/* An answer begins: nothing of it is given yet. `fd` is the client's socket. */
void http_pace_begin(struct http_pace *pace, int fd, uint64_t now_us);
/*
 * True: to be dropped. `waits`: the socket is full, so that it is the client's turn; else no time
 * is counted. To be called about once a second. Costs one system call, and seven if it waits: a
 * client on this host is looked up by sock_diag(7); any other one is dropped as well when what was
 * sent into its open window is not confirmed for HTTP_PACE_US, for then its host is gone.
 */
bool http_pace_slow(struct http_pace *pace, int fd, bool waits, uint64_t now_us);

#endif
