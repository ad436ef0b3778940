/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared inside src/cache by the files of the index: cache.c (blobs, references, workers' calls),
 * admit.c (reserve, write, degraded mode), evict.c (segments, their order, notices), scrub.c.
 * They know the store table and no files.
 *
 * Threads: everything here belongs to the loop. The workers' calls (cache_write, cache_read,
 * cache_open_fd, cache_seal) read what never changes in a blob's life (`store_id`, `layout`,
 * `cache->store`) and count in `cache->corrupt`, which is atomic; so the loop takes no lock.
 */
#ifndef SHOAL_CACHE_INTERNAL_H
#define SHOAL_CACHE_INTERNAL_H

#include <stdatomic.h>

#include "bytes.h"
#include "cache.h"

/* uthash takes its memory from the cache's env; every user has `cache` in scope. */
#define HASH_FUNCTION(key, key_bytes, out)                                                         \
    ((out) = (unsigned)id_hash(((const struct cache_key *)(key))->digest.bytes)) /* a hash */
#define HASH_NONFATAL_OOM      1
#define uthash_malloc(bytes)   cache->env.alloc(cache->env.host, NULL, (bytes))
#define uthash_free(p, bytes)  ((void)cache->env.alloc(cache->env.host, (p), 0))
#define uthash_nonfatal_oom(e) ((void)(e))
#include <uthash.h>

/* Segments have at most this many pieces, so that a notice is one word. Today's layout has 4. */
#define SEGMENT_PIECES_MAX 32
/* Evictions not drained by the host yet; beyond that nothing more is evicted. */
#define NOTICES_MAX 4096
#define BLOBS_MAX   65536

/* What the index knows a blob by; no padding, as its bytes are compared. */
struct cache_key {
    struct digest digest;
    uint32_t cut; /* enum piece_cut */
};
static_assert(sizeof(struct cache_key) == sizeof(struct digest) + sizeof(uint32_t), "no padding");

/* One eviction, to be told by cache_next_eviction. */
struct notice {
    struct notice *next;
    struct cache_key key;
    uint32_t first_piece;
    uint32_t pieces; /* bit i: first_piece + i was had */
};

/*
 * Unit of eviction. Exists while one of its pieces is had, being written or pinned. It is in the
 * cache's list exactly while it may be evicted, so the oldest is found in one step.
 */
struct segment {
    struct cache_blob *blob;
    struct segment *older, *newer; /* while listed */
    struct notice *notice;         /* made with the segment, so that evicting never allocates */
    uint64_t used_us;
    uint64_t bytes; /* of the pieces had */
    uint32_t index;
    uint32_t have_count, writing_count, pins;
    bool listed;
};

struct cache_blob {
    UT_hash_handle hh;
    struct cache_key key;
    struct piece_layout layout;
    uint64_t store_id;
    struct bitfield have;
    struct bitfield writing; /* reserved, write_done not called yet */
    struct bitfield doomed;  /* dropped while being written: not kept when it arrives */
    struct segment **segments;
    uint32_t live_segments; /* pointers in `segments` that are not NULL */
    uint32_t refs;          /* callers', and one for each pin, hold and write */
    uint32_t holds;
    bool complete;
    bool dead; /* dropped as a whole: out of the index, removed with its last reference */
};

/* How the tier takes writes (DSK-4, D-1). */
struct tier_state {
    bool refused;       /* the last write failed; a probe is let through now and then */
    bool short_of_room; /* the device has less than the reserve */
    bool probing;
    uint64_t retry_us;
    uint64_t backoff_us;
    uint64_t logged_us; /* 0: never */
};

struct cache {
    struct env env;
    struct cache_config config;
    struct store store;
    struct cache_blob *blobs; /* uthash, in order of insertion */
    uint32_t blob_count;
    struct segment *oldest, *newest;
    struct notice *first_notice, *last_notice;
    uint32_t notice_count;
    uint64_t now_us; /* latest time heard of */
    uint64_t bytes;  /* had and being written */
    uint64_t writing_bytes;
    uint64_t held_bytes;      /* sizes of the blobs that are held, whole */
    uint64_t evictable_bytes; /* of listed segments */
    uint32_t pieces;          /* had */
    struct tier_state tier;
    struct cache_stats stats;      /* counters only; the rest is filled in on request */
    _Atomic uint64_t corrupt;      /* counted by workers */
    struct cache_blob *scrub_blob; /* NULL: start over */
    uint32_t scrub_piece;
    uint64_t scrub_due_us;
};

/* ---- cache.c ---- */

/* Remembers the time; time that goes backwards is ignored. */
void cache__heard(struct cache *cache, uint64_t now_us);
/* One more reason to keep the blob. */
void cache__ref(struct cache_blob *blob);
/* One fewer; without references and segments the blob is removed from index and store, and
 * `blob` is gone. */
void cache__unref(struct cache *cache, struct cache_blob *blob);
/* Removes a blob that has no references if it has no segments either. */
void cache__settle_blob(struct cache *cache, struct cache_blob *blob);
/* Takes the blob out of the index and forgets its pieces; with `notify` the host is told by
 * cache_next_eviction. The caller holds a reference. */
void cache__kill(struct cache *cache, struct cache_blob *blob, bool notify);

/* ---- evict.c ---- */

/* The segment of a piece, made if absent, with its notice ready. 0 or E_NO_MEMORY. */
MUST_USE int cache__segment(struct cache *cache, struct cache_blob *blob, uint32_t piece,
                            struct segment **out);
/* The segment of a piece, NULL if it does not exist. */
struct segment *cache__find_segment(const struct cache_blob *blob, uint32_t piece);
/* Puts a segment into or out of the list as its counts say, and frees it (true) if it holds
 * nothing. */
bool cache__settle_segment(struct cache *cache, struct segment *segment);
/* A piece became had, or stopped to be (its bytes leave the account). Does not settle. */
void cache__piece_had(struct cache *cache, struct segment *segment, uint32_t piece);
void cache__piece_lost(struct cache *cache, struct segment *segment, uint32_t piece);
/* Queues the notice of a segment's pieces. */
void cache__notify(struct cache *cache, struct segment *segment);
/* Evicts the oldest segment; its blob may go with it. False if none may be evicted, or the host
 * has not drained its notices. */
bool cache__evict_oldest(struct cache *cache);
/* Evicts all of a blob without references, which removes it. False as above, with a part gone. */
bool cache__evict_blob(struct cache *cache, struct cache_blob *blob);
/* Evicts until the cache is within its capacity again, as far as it may. */
void cache__trim(struct cache *cache);
/* Frees all notices without telling. */
void cache__forget_notices(struct cache *cache);

/* ---- scrub.c ---- */

/* The blob is about to leave the index: moves the cursor past it. */
void cache__scrub_skip(struct cache *cache, const struct cache_blob *blob);

#endif
