/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Piece buffers: pooled, already touched (a first touch costs 0.48 s/GB, LIMITS §0.5), counted by
 * reference, under one hard cap. At the cap buffer_get gives NULL: links of peers stop reading
 * until a buffer comes back (buffer_wait); local users may take a last quarter that peers may not,
 * so that what is here can always be stored and served. Loop thread only; a worker may touch the
 * bytes of a buffer whose reference its work item holds.
 */
#ifndef SHOAL_DAEMON_BUFFER_H
#define SHOAL_DAEMON_BUFFER_H

#include "err.h"
#include "limits.h"
#include "types.h"

/* Classes are powers of two from 16 KiB (fine pieces) to the largest piece. */
#define BUFFER_CLASS_MIN_BYTES PIECE_BYTES_FINE
#define BUFFER_CLASSES         9
static_assert((BUFFER_CLASS_MIN_BYTES << (BUFFER_CLASSES - 1)) == PIECE_BYTES_MAX,
              "the largest class holds the largest piece");

enum buffer_use {
    BUFFER_FOR_PEER = 1, /* bytes arriving from other nodes: three quarters of the cap */
    BUFFER_FOR_LOCAL,    /* origin, cache, uploads, clients: all of it */
};

struct buffer_pool;
struct buffer {
    uint8_t *bytes;
    uint32_t capacity; /* of the class, at least what was asked for */
    uint32_t used;     /* the owner's; 0 at first */
    uint32_t refs;     /* private from here */
    uint8_t class_index;
    struct buffer_pool *pool;
    struct buffer *next;
};

/* Somebody who waits for a buffer; embedded in its owner's struct, zeroed before first use. */
struct buffer_waiter {
    void (*ready)(void *arg); /* try buffer_get again; called once, from buffer_pool_wake */
    void *arg;
    uint32_t bytes;
    enum buffer_use use;
    bool waiting; /* the pool's from here */
    struct buffer_waiter *previous, *next;
};

struct buffer_stats {
    uint64_t bytes;      /* held by the process: in use and kept */
    uint64_t used_bytes; /* referenced now */
    uint64_t used_peak_bytes;
    uint64_t cap_bytes;
    uint64_t gets, fresh; /* fresh: had to be mapped and touched */
    uint64_t refused;     /* at the cap */
    uint32_t waiting;
};

/* `cap_bytes` at least 4 * PIECE_BYTES_MAX, else raised to it. 0, E_NO_MEMORY. */
MUST_USE int buffer_pool_new(uint64_t cap_bytes, struct buffer_pool **out);
/* Every buffer must be back. */
void buffer_pool_free(struct buffer_pool *pool);
/* A buffer of at least `bytes` with one reference; NULL at the cap, when memory is short, or when
 * bytes is 0 or over PIECE_BYTES_MAX. */
struct buffer *buffer_get(struct buffer_pool *pool, uint32_t bytes, enum buffer_use use);
/* One more reference; returns `buffer`. */
struct buffer *buffer_ref(struct buffer *buffer);
/* Gives one reference back; NULL is fine. The last one returns the buffer to the pool. Never calls
 * anybody. */
void buffer_put(struct buffer *buffer);
/* Queues a waiter (first come, first served); it must not be waiting already. */
void buffer_wait(struct buffer_pool *pool, struct buffer_waiter *waiter);
/* Takes a waiter out; fine if it does not wait. */
void buffer_unwait(struct buffer_pool *pool, struct buffer_waiter *waiter);
/* Calls waiters for which there is room now; the node does it once per loop turn. */
void buffer_pool_wake(struct buffer_pool *pool);
/* Gives unused buffers beyond `keep_bytes` back to the system; the node does it when idle. */
void buffer_pool_trim(struct buffer_pool *pool, uint64_t keep_bytes);
void buffer_pool_stats(const struct buffer_pool *pool, struct buffer_stats *out);

#endif
