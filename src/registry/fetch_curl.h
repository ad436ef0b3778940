/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the libcurl engine. Its three files alone see libcurl and the sockets under it:
 *   fetch_curl.c       the engine's calls and the turn in which they take effect
 *   fetch_curl_pool.c  multi handles, one per pool key (ORG-5); sockets and timers towards the host
 *   fetch_curl_easy.c  one request: options, addresses (ORG-2), callbacks, error codes
 */
#ifndef SHOAL_REGISTRY_FETCH_CURL_H
#define SHOAL_REGISTRY_FETCH_CURL_H

#include <curl/curl.h>

#include "headers.h"
#include "registry.h"

/* Requests at once. Clients are at most 1,024 (HTTP-4). */
#define FETCHES_MAX 1024
/* Pools kept: a multi handle costs two descriptors and some 30 KiB. */
#define POOLS_MAX 64
/* Tokens live five minutes, so pools of old ones pile up; a minute is longer than the pauses inside
 * a pull. */
#define POOL_IDLE_MS        60000
#define CONNECTIONS_DEFAULT 32
#define NEVER_MS            UINT64_MAX

struct pool {
    struct fetch_curl *curl;
    CURLM *multi; /* NULL: free place */
    uint8_t key[32];
    struct address_ranges allow_private;
    bool spare; /* connections are never reused here */
    unsigned fetch_count;
    uint64_t deadline_ms; /* libcurl's timer */
    uint64_t idle_since_ms;
};

enum fetch_state {
    FETCH_NEW = 1,   /* waits for the next turn to be added to its multi */
    FETCH_QUEUED,    /* waits for a connection; ends with its being ready, or a timeout */
    FETCH_ASKED,     /* request sent, waits for the head */
    FETCH_BODY,      /* head shown */
    FETCH_DONE,      /* libcurl is through; done is due */
    FETCH_CANCELLED, /* to be freed in the next turn, without callback */
};

struct fetch {
    uint32_t magic;
    struct fetch_curl *curl;
    struct fetch *prev, *next;
    enum fetch_state state;
    struct pool *pool; /* NULL: not added */
    CURL *easy;
    struct curl_slist *lines;
    char *body; /* owned; NULL: none */
    struct fetch_callbacks callbacks;
    void *arg;
    struct headers headers;
    char host[HOST_BYTES_MAX + 1]; /* of the URL */
    uint8_t pool_key[32];
    struct address_ranges allow_private;
    bool allow_metadata;
    bool proxied;         /* what is connected to is the proxy */
    bool address_refused; /* by ORG-2, at least one */
    bool paused;          /* body returned false */
    bool resume_due;
    bool moved; /* bytes came since the last sweep */
    int err;    /* decided by us: before libcurl's own verdict */
    uint32_t connect_ms, first_byte_ms, idle_ms;
    uint64_t since_ms; /* start of the timeout that runs now */
};

struct fetch_curl {
    struct fetch_loop loop;
    unsigned connections_max;
    uint16_t port_refused;
    struct pool pools[POOLS_MAX];
    struct pool spare;
    struct fetch *head, *tail;
    unsigned fetch_count;
    struct pool **watched; /* by file descriptor: who polls it */
    size_t watched_count;
    uint64_t sweep_ms; /* next look at the timeouts */
    uint64_t armed_ms; /* what the host's timer was last set to; NEVER_MS: stopped */
    bool marked;       /* some request waits for a turn */
    bool in_turn;
};

/* ---- fetch_curl.c ---- */
/* Monotonic milliseconds. */
uint64_t fetch_curl__clock_ms(void);
/* realloc-shaped, from the process; `host` is not used. */
void *fetch_curl__heap(void *host, void *old, size_t new_bytes);

/* ---- fetch_curl_pool.c ---- */
/*
 * The pool for this request's key: an open one, a new one, the place of the longest idle one, or
 * the spare one, whose connections are never reused. NULL: out of memory.
 */
struct pool *fetch_curl__pool_get(struct fetch_curl *curl, const struct fetch *fetch);
/* Closes a pool and its idle connections; no request may be in it. A closed one is fine. */
void fetch_curl__pool_close(struct pool *pool);
/* Closes pools idle for POOL_IDLE_MS. */
void fetch_curl__pools_expire(struct fetch_curl *curl, uint64_t now_ms);
/* i-th pool, the spare one after the others; NULL beyond. Closed ones have no multi. */
struct pool *fetch_curl__pool_at(struct fetch_curl *curl, unsigned i);

/* ---- fetch_curl_easy.c ---- */
/* Makes the easy handle of a zeroed fetch. 0, E_INVALID, E_NO_MEMORY; fetch_curl__easy_close in any
 * case. */
MUST_USE int fetch_curl__easy_open(struct fetch *fetch, const struct fetch_request *request);
/* Releases it, credentials wiped; it must not be in a multi. */
void fetch_curl__easy_close(struct fetch *fetch);
/* libcurl's verdict in our terms. */
int fetch_curl__error_of(const struct fetch *fetch, CURLcode code);

#endif
