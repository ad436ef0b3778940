/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The piece cache: which pieces of which blobs are here, where, and what goes when room is needed.
 *
 *   struct cache   index, admission, segment eviction (least recently used), accounting. No I/O of
 *                  its own, so the simulator uses it too. Single-threaded.
 *   struct store   table of a tier: memory, disk, simulated. Its read and write may block and are
 *                  called from worker threads by the host; the other calls from the loop.
 *
 * A blob lives under a temporary name until its whole digest matched (INT-5); pieces carry their
 * hash and voucher, so that they can be served before that and verified at every read (DSK-1).
 */
#ifndef SHOAL_CACHE_H
#define SHOAL_CACHE_H

#include "env.h"
#include "err.h"
#include "piece_map.h"
#include "types.h"

/* ---- store: one tier ------------------------------------------------------------------------ */

/* What is kept beside a piece's bytes. `voucher.signature` all zero: not vouched for (from before,
 * or repaired). */
struct piece_record {
    struct voucher voucher;
};

/* What recovery finds for each blob. `have` and `records` are borrowed for the call. */
struct store_blob {
    struct digest digest;
    uint64_t size_bytes;
    bool complete; /* the whole digest matched once */
    const struct bitfield *have;
};
typedef void (*store_found_fn)(void *arg, const struct store_blob *blob, uint64_t store_blob_id);

struct store {
    void *self;
    /*
     * Creates room for a blob (sparse or preallocated). *out names it for the other calls.
     * 0, E_NO_SPACE, E_IO, E_NO_MEMORY.
     */
    int (*create)(void *self, const struct digest *digest, uint64_t size_bytes, uint64_t *out);
    /* Writes one whole piece and its record. Worker thread; concurrent calls for different pieces.
     * 0, E_NO_SPACE, E_IO. */
    int (*write)(void *self, uint64_t blob, uint32_t piece, const uint8_t *bytes,
                 uint32_t byte_count, const struct piece_record *record);
    /*
     * Reads one whole piece into `out` (piece length) and its record, and verifies the hash. Worker
     * thread. 0, E_CORRUPT (hash differs: caller drops the piece), E_IO, E_NOT_FOUND.
     */
    int (*read)(void *self, uint64_t blob, uint32_t piece, uint8_t *out, uint32_t byte_count,
                struct piece_record *record);
    /*
     * A file descriptor and offset for sendfile of verified bytes, valid until the blob is removed
     * and the descriptor closed by the caller (it is a dup). E_UNSUPPORTED for tiers without files.
     */
    int (*open_fd)(void *self, uint64_t blob, uint32_t piece, int *fd, uint64_t *offset);
    /* Marks the whole blob verified: temporary name -> digest (fsync, rename). Worker thread. 0,
     * E_IO. */
    int (*seal)(void *self, uint64_t blob);
    /* Gives back the room of pieces [first, first+count) (hole punching) or of the whole blob. */
    int (*drop)(void *self, uint64_t blob, uint32_t first_piece, uint32_t piece_count);
    int (*remove)(void *self, uint64_t blob);
    /* Walks everything found on start; damaged or unknown-version entries are discarded (DSK-2). 0,
     * E_IO. */
    int (*recover)(void *self, store_found_fn found, void *arg);
    /* Free bytes of the device, for the reserve (DSK-4); UINT64_MAX if it does not apply. */
    uint64_t (*free_bytes)(void *self);
    void (*close)(void *self);
};

/* Memory tier: at most capacity_bytes. 0, E_NO_MEMORY. */
MUST_USE int store_memory_new(uint64_t capacity_bytes, struct store *out);
/*
 * Disk tier in `directory`, which must be ours, 0700 and no symlink (DSK-5); created if absent.
 * 0; E_DENIED (owner or mode), E_IO (not writable); *why (static text) says what to do.
 */
MUST_USE int store_disk_new(const char *directory, struct store *out, const char **why);

/* ---- cache: index over one store --------------------------------------------------------------
 */

struct cache_config {
    uint64_t capacity_bytes; /* our own bytes, 0: nothing is kept beyond running swarms */
    uint64_t reserve_bytes;  /* stop writing when the device has less free (DSK-4) */
    uint32_t blobs_max;      /* 0: 65,536 */
};

struct cache_stats {
    uint64_t bytes, capacity_bytes, hits, misses, evictions, evicted_bytes, corrupt, write_errors;
    uint32_t blobs, pieces;
    bool degraded; /* the tier refused writes; pass-through until it recovers */
};

struct cache;
struct cache_blob; /* opaque, reference-counted */

MUST_USE int cache_new(const struct env *env, const struct cache_config *config,
                       const struct store *store, struct cache **out);
void cache_free(struct cache *cache); /* closes the store */
/* Loads what the store recovered; calls `found` for each blob (to open it in the mesh). Returns
 * blobs found, or E_*. */
MUST_USE int cache_recover(struct cache *cache, void (*found)(void *arg, struct cache_blob *blob),
                           void *arg);

/* Finds or creates a blob and takes a reference. 0, E_NO_MEMORY, E_FULL, E_NO_SPACE, E_IO. */
MUST_USE int cache_get(struct cache *cache, const struct digest *digest, uint64_t size_bytes,
                       struct cache_blob **out);
/* Finds only. NULL if unknown. Takes a reference. */
struct cache_blob *cache_find(struct cache *cache, const struct digest *digest);
void cache_put(struct cache *cache, struct cache_blob *blob); /* drops a reference */

const struct digest *cache_blob_digest(const struct cache_blob *blob);
uint64_t cache_blob_size(const struct cache_blob *blob);
const struct bitfield *cache_blob_have(const struct cache_blob *blob);
bool cache_blob_complete(const struct cache_blob *blob); /* sealed: whole digest matched */
const struct piece_layout *cache_blob_layout(const struct cache_blob *blob);

/*
 * Admission of one piece: makes room by evicting segments (least recently used first; never pinned
 * ones). Call on the loop before the write is given to a worker; `cache_write` does the work there;
 * `cache_write_done` on the loop again. 0; E_FULL (everything is pinned), E_NO_SPACE (reserve):
 * serve it without keeping it.
 */
MUST_USE int cache_reserve(struct cache *cache, struct cache_blob *blob, uint32_t piece,
                           uint64_t now_us);
MUST_USE int cache_write(struct cache *cache, struct cache_blob *blob, uint32_t piece,
                         const uint8_t *bytes, uint32_t byte_count,
                         const struct piece_record *record); /* worker thread */
void cache_write_done(struct cache *cache, struct cache_blob *blob, uint32_t piece, uint64_t now_us,
                      int status);
/* Worker thread: reads and verifies a piece that is HAVE and pinned. Errors as store.read. */
MUST_USE int cache_read(struct cache *cache, struct cache_blob *blob, uint32_t piece, uint8_t *out,
                        uint32_t byte_count, struct piece_record *record);
MUST_USE int cache_open_fd(struct cache *cache, struct cache_blob *blob, uint32_t piece, int *fd,
                           uint64_t *offset);
/* Keeps a piece's segment from eviction while it is read or served; counts. Touches its age.
 * E_NOT_FOUND if not HAVE. */
MUST_USE int cache_pin(struct cache *cache, struct cache_blob *blob, uint32_t piece,
                       uint64_t now_us);
void cache_unpin(struct cache *cache, struct cache_blob *blob, uint32_t piece);
/* Keeps a whole blob from eviction while its swarm runs (DESIGN §5); counts. */
void cache_hold(struct cache *cache, struct cache_blob *blob);
void cache_unhold(struct cache *cache, struct cache_blob *blob);
/* A damaged or wrong piece: forgets it. */
void cache_drop_piece(struct cache *cache, struct cache_blob *blob, uint32_t piece);
/* Forgets everything of a blob that proved wrong as a whole. */
void cache_drop_blob(struct cache *cache, struct cache_blob *blob);
/* Worker thread: the whole digest matched. */
MUST_USE int cache_seal(struct cache *cache, struct cache_blob *blob);
void cache_seal_done(struct cache *cache, struct cache_blob *blob, int status);

/* What eviction took, for transfer_piece_lost; drain after cache_reserve. False if none. */
struct cache_eviction {
    struct digest digest;
    uint32_t first_piece;
    uint32_t piece_count;
};
bool cache_next_eviction(struct cache *cache, struct cache_eviction *out);
void cache_stats(const struct cache *cache, struct cache_stats *out);
void cache__check_invariants(const struct cache *cache);

#endif
