/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash over a whole blob, carried on piece by piece by the workers. Pieces come in any order;
 * the loop lines up those that are next, and a worker that hashes a piece that arrived takes the
 * first of the line along: two streams in one pass cost two thirds of one after the other
 * (hasher_update_beside). Who finds the line empty and has the next piece itself hashes that one
 * into both (hasher_update_piece). What no arrival takes along, prefix_hash_drain does.
 *
 * Which piece is next is found when a worker runs, not when its job is queued, so that a queue of
 * jobs does not hold the hash up. A worker may wait until another has hashed its piece, 1-3 ms, if
 * there is one in line for it then: alone both would cost more. One mutex, held for a few
 * instructions twice per piece, never while hashing.
 */
#ifndef SHOAL_DAEMON_PREFIX_HASH_H
#define SHOAL_DAEMON_PREFIX_HASH_H

#include "buffer.h"
#include "digest.h"

/* Pieces in line; their buffers stay in memory for it. */
#define PREFIX_HASH_LINE_MAX 32

struct prefix_hash;

/* 0, or E_NO_MEMORY, E_INVALID (DIGEST_NONE). */
MUST_USE int prefix_hash_new(enum digest_algorithm algorithm, struct prefix_hash **out);
/* No worker may use it any more. NULL is fine. */
void prefix_hash_free(struct prefix_hash *prefix);

/* ---- on the loop ---- */

/* The piece that may join the line now. */
uint32_t prefix_hash_next(struct prefix_hash *prefix);
/* Pieces in line that no worker has hashed. */
uint32_t prefix_hash_waiting(struct prefix_hash *prefix);
/* Lines up a piece: takes a reference to its bytes, whose hash is `hash`. False: the line is full,
 * or it is not the next piece, a worker having hashed it meanwhile or being about to. */
bool prefix_hash_push(struct prefix_hash *prefix, uint32_t piece, struct buffer *buffer,
                      const struct piece_hash *hash);
/* The hashes of the pieces hashed since the last call, in order; gives back their buffers. Returns
 * how many. */
uint32_t prefix_hash_collect(struct prefix_hash *prefix,
                             struct piece_hash out[PREFIX_HASH_LINE_MAX]);
/* Nobody wants the hash at present: gives back the buffers of the pieces not hashed yet, which may
 * be lined up again. */
void prefix_hash_trim(struct prefix_hash *prefix);
/* From the first piece again. No worker may be hashing. */
void prefix_hash_reset(struct prefix_hash *prefix);
/* The digest of what was collected. No worker may be hashing; reset before further use. */
void prefix_hash_final(struct prefix_hash *prefix, struct digest *out);

/* ---- on a worker ---- */

/* A piece that arrived. */
struct prefix_hash_piece {
    uint32_t index;
    struct hash_span span;
    const struct piece_hash *expected; /* NULL: any */
};
/* piece_hash_of the piece, and with it the blob's hash as far as it can be had. False: its hash is
 * not `expected`, and it is not part of the blob's. One pass over the piece, and with luck over one
 * of the line. */
bool prefix_hash_take(struct prefix_hash *prefix, const struct prefix_hash_piece *piece,
                      struct piece_hash *out);
/* Hashes what is in line until `leave` are left, or other workers have taken the rest. */
void prefix_hash_drain(struct prefix_hash *prefix, uint32_t leave);

#endif
