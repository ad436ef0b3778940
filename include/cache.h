/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The piece cache: which pieces of which blobs are here, where, and what goes when room is needed.
 *
 *   struct cache   index, admission, segment eviction (least recently used), accounting. No I/O of
 *                  its own, so the simulator uses it too. Single-threaded.
 *   struct store   table of a tier: memory, disk, content, simulated. Its read, write and seal may
 * block and are called from worker threads by the host; open_fd from either side; the other calls
 * come from the loop and must not wait for a device (D-14).
 *
 * The host holds a reference (cache_get, cache_find) on a blob from before a worker's call until
 * after it; so `remove` never meets another call on the same blob. `drop` of one piece may meet
 * calls on other pieces of the blob, and a read of the same piece, which then fails.
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
    enum piece_cut cut;
    uint64_t size_bytes;
    bool complete; /* the whole digest matched once */
    const struct bitfield *have;
};
typedef void (*store_found_fn)(void *arg, const struct store_blob *blob, uint64_t store_blob_id);

struct store {
    void *self;
    /*
     * Creates room for a blob (sparse or preallocated) in one cut; the same blob in another is a
     * blob of its own. *out names it for the other calls. 0, E_NO_SPACE, E_IO, E_NO_MEMORY,
     * E_TOO_LARGE, E_INVALID (a cut that the store does not keep).
     */
    int (*create)(void *self, const struct digest *digest, enum piece_cut cut, uint64_t size_bytes,
                  uint64_t *out);
    /* Writes one whole piece and its record. Worker thread; concurrent calls for different pieces.
     * 0, E_NO_SPACE, E_IO; E_NO_MEMORY or E_AGAIN (descriptors) without blame for the tier;
     * E_DIGEST: the blob is sealed and its piece had another hash (INT-5); E_NOT_FOUND: no such
     * blob or piece; E_INVALID: byte_count is not the piece's length. After any error the piece
     * counts as not there. */
    int (*write)(void *self, uint64_t blob, uint32_t piece, const uint8_t *bytes,
                 uint32_t byte_count, const struct piece_record *record);
    /*
     * Reads one whole piece into `out` (piece length) and its record, and verifies the hash. Worker
     * thread. 0, E_CORRUPT (hash differs), E_IO, E_NOT_FOUND: the caller drops the piece;
     * E_INVALID, E_NO_MEMORY or E_AGAIN (descriptors: the piece may be fine).
     */
    int (*read)(void *self, uint64_t blob, uint32_t piece, uint8_t *out, uint32_t byte_count,
                struct piece_record *record);
    /*
     * A file descriptor and offset for sendfile of verified bytes, valid until the blob is removed
     * and the descriptor closed by the caller (it is its own). E_UNSUPPORTED for tiers without
     * files; E_AGAIN: not written or read, hence not verified, since the start: read it once first
     * (DSK-1); E_NOT_FOUND, E_IO.
     */
    int (*open_fd)(void *self, uint64_t blob, uint32_t piece, int *fd, uint64_t *offset);
    /* Marks the whole blob verified: temporary name -> digest (fsync, rename). Worker thread. 0;
     * E_IO: what it holds counts as lost (DSK-3); E_NOT_FOUND: of some piece not even the hash is
     * known, because it was never written: it stays a part; E_AGAIN, E_NO_MEMORY: not tried. */
    int (*seal)(void *self, uint64_t blob);
    /* Gives back the room of pieces [first, first+count) (hole punching) or of the whole blob;
     * pieces that are not there are fine. The work may be done later by the store's own thread.
     * 0, E_NOT_FOUND (no such blob), E_INVALID (range). */
    int (*drop)(void *self, uint64_t blob, uint32_t first_piece, uint32_t piece_count);
    int (*remove)(void *self, uint64_t blob);
    /* Walks everything found on start, before any other call; damaged or unknown-version entries
     * are discarded (DSK-2). Blobs come least recently written first. `found` may remove the blob
     * it is given. 0, E_IO, E_NO_MEMORY. */
    int (*recover)(void *self, store_found_fn found, void *arg);
    /* Free bytes of the device, for the reserve (DSK-4), with what drop and remove have promised
     * but not yet given back; UINT64_MAX if it does not apply. */
    uint64_t (*free_bytes)(void *self);
    void (*close)(void *self);
};

/* Memory tier: at most capacity_bytes of pieces, idle buffers included; a write beyond that is
 * E_NO_SPACE. 0, E_NO_MEMORY. */
MUST_USE int store_memory_new(uint64_t capacity_bytes, struct store *out);
/*
 * Disk tier in `directory`, which must be ours, 0700 and no symlink (DSK-5); created if absent.
 * 0; E_DENIED (owner, mode or symlink), E_IO (not writable), E_IN_USE (another process),
 * E_NO_MEMORY; *why (static text, NULL on success) says what to do.
 */
MUST_USE int store_disk_new(const char *directory, struct store *out, const char **why);

/*
 * containerd's content store, read only. `path` (copied) is its folder, which holds blobs/sha256,
 * or containerd's root, which holds that folder as io.containerd.content.v1.content; nothing is
 * opened before the first call, and every call looks anew, so a folder that appears, goes or is
 * replaced is no special case. Files are what lies there as a regular file under 64 hex digits; no
 * link below `path` is followed, nothing is ever written. 0, E_NO_MEMORY, E_TOO_LARGE (path).
 *
 * The table's calls differ in this; all but close may be made from any thread and wait for a disk:
 *   create   opens what is there. Also E_NOT_FOUND; E_INVALID: another size, or no SHA-256;
 * E_DENIED: no permission, a link or no regular file; E_AGAIN: out of descriptors. seal     reads
 * and hashes one more piece: E_AGAIN until the last (one call at a time), then 0, or E_DIGEST: the
 * bytes are not the digest's. E_NOT_FOUND: the file went or was changed meanwhile; also the answer
 * of a sealed blob whose file did. Other errors: try again. read     only after seal said 0, else
 * E_AGAIN. The file may change under us, so every read is hashed (0.65 s/GB): E_CORRUPT;
 * E_NOT_FOUND: the file went or was changed. The record has no voucher. open_fd  E_UNSUPPORTED:
 * nobody may send bytes that were not hashed just now. write    E_UNSUPPORTED. drop gives nothing
 * back. remove forgets; the file stays. recover  may be called again; tells names and sizes only,
 * with an empty `have` and no id. E_NOT_FOUND: no such folder; E_DENIED, E_IO, E_AGAIN;
 * E_TOO_LARGE: there are more than STORE_CONTENT_FILES_MAX, of which the first were told. Memory:
 * 32 bytes for each piece of a blob that was created.
 */
#define STORE_CONTENT_FILES_MAX 65536
/* Larger files are passed over (E_TOO_LARGE): an offer tells all of a blob's pieces at once, 65,536
 * here, which takes 8 ms of the loop. No layer is known that comes near. */
#define STORE_CONTENT_BYTES_MAX (256ULL << 30)
MUST_USE int store_content_new(const char *path, struct store *out);
/* Size in bytes of a blob's file. Any thread; waits for a disk. Errors as create. */
MUST_USE int store_content_find(const struct store *store, const struct digest *digest,
                                uint64_t *size_bytes);
/* The hash of a piece of a sealed blob. 0, E_NOT_FOUND, E_AGAIN (not sealed). Any thread. */
MUST_USE int store_content_hash(const struct store *store, uint64_t blob, uint32_t piece,
                                struct piece_hash *out);
/* Where the blobs lie, for who watches the folder. Any thread; waits for a disk. 0, E_NOT_FOUND,
 * E_DENIED, E_IO, E_AGAIN, E_TOO_LARGE (out_bytes). */
MUST_USE int store_content_folder(const struct store *store, char *out, size_t out_bytes);
/* The digest that a file of this name would have; false: it is none of ours. */
bool store_content_name(const char *name, struct digest *out);

/* ---- cache: index over one store --------------------------------------------------------------
 */

struct cache_config {
    uint64_t capacity_bytes; /* our own bytes, 0: nothing is kept beyond running swarms (blobs
                                that are held), and those have no limit but the reserve */
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

/* `env` is copied (alloc and trace are used), `store` taken on success. 0, E_NO_MEMORY. */
MUST_USE int cache_new(const struct env *env, const struct cache_config *config,
                       const struct store *store, struct cache **out);
/* Closes the store; no worker's call may run any more and no reference be used. NULL is fine. */
void cache_free(struct cache *cache);
/* Loads what the store recovered, up to the capacity; calls `found` (may be NULL) for each blob (to
 * open it in the mesh), which borrows it and may not drop other blobs. Call before anything else.
 * Returns blobs found, or E_IO, E_NO_MEMORY. */
MUST_USE int cache_recover(struct cache *cache, void (*found)(void *arg, struct cache_blob *blob),
                           void *arg);

/* Finds or creates a blob and takes a reference. 0, E_NO_MEMORY, E_FULL (blobs_max, all in use),
 * E_NO_SPACE, E_IO, E_TOO_LARGE; E_INVALID: no digest, or the blob is known with another size
 * (INT-8). With its last reference a blob that has no pieces is forgotten. Pins, holds and
 * reservations count as references until they end. */
MUST_USE int cache_get(struct cache *cache, const struct digest *digest, uint64_t size_bytes,
                       struct cache_blob **out);
/* The same blob in one of its cuts, which are entries of their own, alike in all but their pieces;
 * cache_get is for PIECE_CUT_PLAIN. Errors as there, and E_INVALID for no such cut. */
MUST_USE int cache_get_cut(struct cache *cache, const struct digest *digest, enum piece_cut cut,
                           uint64_t size_bytes, struct cache_blob **out);
/* Finds only. NULL if unknown. Takes a reference. */
struct cache_blob *cache_find(struct cache *cache, const struct digest *digest);
struct cache_blob *cache_find_cut(struct cache *cache, const struct digest *digest,
                                  enum piece_cut cut);
void cache_put(struct cache *cache, struct cache_blob *blob); /* drops a reference */

/* Facts of a blob, borrowed while the reference is held; `have` changes with the calls below. */
const struct digest *cache_blob_digest(const struct cache_blob *blob);
uint64_t cache_blob_size(const struct cache_blob *blob);
const struct bitfield *cache_blob_have(const struct cache_blob *blob);
bool cache_blob_complete(const struct cache_blob *blob); /* sealed: whole digest matched */
const struct piece_layout *cache_blob_layout(const struct cache_blob *blob);

/*
 * Admission of one piece: makes room by evicting segments (least recently used first; never pinned
 * ones). Call on the loop before the write is given to a worker; `cache_write` does the work there;
 * `cache_write_done` on the loop again, in any case (E_CANCELLED if it was not tried). 0; E_FULL
 * (everything is pinned), E_NO_SPACE (reserve, or the tier refuses writes: it is tried again with
 * one piece now and then, D-1), E_NO_MEMORY, E_CLOSED (the blob was dropped): serve it without
 * keeping it; E_EXISTS (had, or being written); E_INVALID (no such piece).
 */
MUST_USE int cache_reserve(struct cache *cache, struct cache_blob *blob, uint32_t piece,
                           uint64_t now_us);
MUST_USE int
cache_write(struct cache *cache, struct cache_blob *blob, uint32_t piece, const uint8_t *bytes,
            uint32_t byte_count,
            const struct piece_record *record); /* worker thread; errors as store.write,
                                                   E_INVALID if the voucher names
                                                   another piece or length */
void cache_write_done(struct cache *cache, struct cache_blob *blob, uint32_t piece, uint64_t now_us,
                      int status);
/* Worker thread: reads and verifies a piece that is HAVE and pinned. Errors as store.read. */
MUST_USE int cache_read(struct cache *cache, struct cache_blob *blob, uint32_t piece, uint8_t *out,
                        uint32_t byte_count, struct piece_record *record);
/* Any thread; may open a file. Errors as store.open_fd, E_INVALID. */
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
/*
 * The same for a reader, unless held blobs would then fill more than half of the capacity: a 40 GB
 * image passes through a 4 GB cache (DESIGN §5). True if it is held.
 */
MUST_USE bool cache_hold_if_fits(struct cache *cache, struct cache_blob *blob);
/* How far ahead of its clients a node with such a cache may bring pieces in, bytes; 0: no limit.
 * Half: the other half keeps for its neighbours what its clients have had. */
uint64_t cache_ahead_bytes(uint64_t capacity_bytes);
/* A damaged or wrong piece: forgets it; one that is being written is not kept when it arrives. The
 * host tells transfer itself: this makes no eviction. */
void cache_drop_piece(struct cache *cache, struct cache_blob *blob, uint32_t piece);
/* Forgets everything of a blob that proved wrong as a whole, as above. References stay good, but
 * take no pieces any more (E_CLOSED); cache_get makes a new blob. */
void cache_drop_blob(struct cache *cache, struct cache_blob *blob);
/* Worker thread: the whole digest matched. Errors as store.seal. */
MUST_USE int cache_seal(struct cache *cache, struct cache_blob *blob);
/* On the loop: 0 makes the blob complete; E_NOT_FOUND, E_AGAIN, E_CANCELLED, E_NO_MEMORY leave it
 * as it was; after any other error the blob is dropped, and what it had is told by
 * cache_next_eviction (DSK-3). */
void cache_seal_done(struct cache *cache, struct cache_blob *blob, int status);

/*
 * Scrub (D-5: within a week): the next piece whose turn it is to be read back, pinned without
 * touching its age. The host runs cache_read on a worker, drops the piece on E_CORRUPT, and calls
 * cache_scrub_done. False: nothing is due before cache_scrub_deadline_us (UINT64_MAX: no pieces).
 */
bool cache_next_scrub(struct cache *cache, uint64_t now_us, struct cache_blob **out,
                      uint32_t *piece);
void cache_scrub_done(struct cache *cache, struct cache_blob *blob, uint32_t piece);
uint64_t cache_scrub_deadline_us(const struct cache *cache);

/* What eviction took, for transfer_piece_lost: a run of pieces that were HAVE; drain after
 * cache_reserve, cache_write_done, cache_unpin, cache_unhold, cache_get and cache_seal_done. False
 * if none. Nothing is evicted while 4,096 segments wait here. */
struct cache_eviction {
    struct digest digest;
    enum piece_cut cut;
    uint32_t first_piece;
    uint32_t piece_count;
};
bool cache_next_eviction(struct cache *cache, struct cache_eviction *out);
void cache_stats(const struct cache *cache, struct cache_stats *out);
void cache__check_invariants(const struct cache *cache);

#endif
