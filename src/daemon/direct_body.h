/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of one body on their way from the origin to one client, around the mesh: a small body is
 * kept whole until somebody has checked it (INT-2), a large one goes through a few spans, of which
 * the last is always kept back (INT-1). Knows neither origin nor client.
 */
#ifndef SHOAL_DAEMON_DIRECT_BODY_H
#define SHOAL_DAEMON_DIRECT_BODY_H

#include "blob.h"
#include "buffer.h"

/* Large bodies are collected into buffers of this size; so many may wait for a slow client. */
#define DIRECT_SPAN_BYTES (256 * 1024)
#define DIRECT_SPANS_MAX  4
static_assert(DIRECT_SPAN_BYTES >= HELD_BACK_BYTES, "the last span is what is held back");

struct direct_body {
    struct buffer_pool *pool;
    uint8_t *whole; /* owned: the body, or NULL: spans */
    uint64_t size, filled, given;
    struct buffer *spans[DIRECT_SPANS_MAX]; /* one reference each, oldest first */
    unsigned span_count;
    uint8_t *rest; /* owned: bytes that found no room */
    size_t rest_bytes;
    struct buffer_waiter waiter;
};

/* `whole`: keep all `size` bytes. `room(arg)` is called when the pool has buffers again: then
 * direct_body_settle. 0 or E_NO_MEMORY; after either, direct_body_close. */
MUST_USE int direct_body_init(struct direct_body *body, struct buffer_pool *pool, uint64_t size,
                              bool whole, void (*room)(void *arg), void *arg);
void direct_body_close(struct direct_body *body);
/* Takes all of these bytes, copied. 0; E_AGAIN: taken, but no more may come until
 * direct_body_settle gives 0; E_TOO_LARGE (more than `size` in all), E_NO_MEMORY. */
MUST_USE int direct_body_put(struct direct_body *body, const uint8_t *bytes, size_t byte_count);
/* Finds room for what had none, after a span was given or room() was called. 0 or E_AGAIN. */
MUST_USE int direct_body_settle(struct direct_body *body);
/* The next chunk, at most max_bytes (a span whole or not at all). `over`: the body is complete and
 * checked, so that its end may go, too. 0; E_AGAIN; E_CLOSED: all was given; E_INTERNAL: a span is
 * longer than max_bytes. */
MUST_USE int direct_body_next(struct direct_body *body, bool over, uint32_t max_bytes,
                              struct blob_chunk *out);
/* direct_body_next would give something. */
bool direct_body_ready(const struct direct_body *body, bool over);

#endif
