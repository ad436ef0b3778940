/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of live blobs: blob.c (table, readers), blob_piece.c (pieces), blob_fetch.c
 * (origin). */
#ifndef SHOAL_DAEMON_BLOB_INTERNAL_H
#define SHOAL_DAEMON_BLOB_INTERNAL_H

#include "blob.h"
#include "blob_blame.h"
#include "history.h"
#include "loop.h"
#include "prefix_hash.h"
#include "table.h"

/* Verified bytes on disk are sent straight from the file for this long; then they are hashed again
 * at the next read, so that rot is found (DSK-1, D-5). */
#define BLOB_VERIFY_AGAIN_US (3600ull * 1000000)
/* Pieces that nobody has asked for in so long leave the memory tier if they are stored: an idle
 * agent is small. A rollout's neighbours ask within seconds. */
#define BLOB_MEMORY_IDLE_US (10ull * 1000000)
/* No piece given to a peer for so long: nobody is in the middle of pulling it from us. */
#define RENAME_IDLE_US (2ull * 1000000)
/* Origin callers kept per blob: further readers' credentials are not needed. */
#define BLOB_CALLERS_MAX 8

/* A piece's bytes in the memory tier. */
struct memory_entry {
    struct blob *blob;
    uint32_t piece;
    struct buffer *buffer;  /* one reference */
    struct piece_hash hash; /* of these bytes, whatever vouchers say */
    uint64_t used_us;
    struct memory_entry *older, *newer;
};

struct blob_piece {
    struct memory_entry *memory; /* owned; NULL: not in memory */
    struct voucher *voucher; /* owned; kept while the blob is unverified or the piece in memory */
    uint64_t checked_us;     /* when its stored bytes last matched their hash; 0 never */
    uint8_t tier;            /* enum blob_tier it came from in this life; 0: recovered */
    uint8_t distance;        /* enum distance of the peer it came from */
    bool have;               /* verified; in memory, cache or content store */
    bool stored;             /* in the cache */
    bool loading;            /* a job reads it for readers */
};

struct blob {
    struct blobs *blobs;
    struct blob_info info;
    struct piece_layout layout;
    blob_handle handle;        /* in transfer */
    struct cache_blob *cached; /* one reference */
    struct blob_piece *pieces; /* owned, layout.piece_count */
    uint32_t have_count;
    struct blob_reader *readers;
    struct blob_fetch *fetches;
    struct blob_caller *callers[BLOB_CALLERS_MAX]; /* one reference each */
    uint32_t caller_count;
    struct prefix_hash *prefix; /* owned; NULL until somebody wants the digest */
    uint32_t hashed;            /* pieces collected from it */
    struct piece_hash *proven;  /* owned: of the pieces in the prefix hash, and all when it matched;
                                   zero: unknown. NULL: nobody hashed it in this life */
    uint64_t lined_bytes;       /* in its line when last looked at */
    bool draining;              /* a job hashes what is in line */
    bool verified;              /* the whole digest matched */
    bool sealed;                /* told to the cache */
    bool repairing;             /* it did not match: everything is read from the origin again */
    struct content_copy *content; /* containerd has it all: one reference, or NULL */
    uint64_t content_until_us;    /* reads wait for word from the content store; 0: they do not */
    uint32_t jobs;                /* of blob_piece.c */
    struct blob_blame blame;
    uint64_t served_us;  /* a peer last asked for a piece */
    uint64_t refused_us; /* the registry last refused a caller; 0: never, or settled */
    bool renamed;        /* in this life: stored vouchers may name it by an older key */
    bool lease_spared;   /* the last lease was given back unread: the next one is read */
    uint64_t moved_us;   /* a piece last arrived */
    struct blob_sources sources;
    uint32_t refs; /* starters of readers, jobs, fetches */
    UT_hash_handle by_digest;
    UT_hash_handle by_handle;
};

/* The one piece that is being read back at a time, and the timer behind it (blob_scrub.c). */
struct blob_scrub {
    struct loop_work work;
    struct loop_part part;
    uv_timer_t timer;
    struct cache_blob *cached; /* pinned by cache_next_scrub while `running` */
    uint32_t piece;
    struct buffer *buffer;
    int status;
    bool running;
};

/* What the mesh said of one blob in plain pieces (blob_cut.c). */
struct cut_note {
    struct digest digest;
    uint64_t used_us;   /* last looked at; 0: the place is free */
    uint64_t asked_us;  /* 0: never */
    uint64_t lookup_id; /* under way, or 0 */
    bool answered;      /* `held` means something */
    bool held;          /* somebody has at least half of it */
};

/* Layers that lazy containers of one node are reading at a time, some dozens. */
#define CUT_NOTES_MAX 128
struct blob_cuts {
    struct loop_part part;
    uv_timer_t timer; /* runs while somebody waits */
    bool closed;      /* or not yet started: nobody can wait */
    struct cut_waiter *waiters;
    struct cut_note notes[CUT_NOTES_MAX];
};

struct blobs {
    struct blobs_config config;
    struct blob *by_digest; /* uthash: those in plain pieces */
    struct blob *fine;      /* uthash, by_digest: those in fine pieces */
    struct blob *by_handle; /* uthash: all */
    struct blobs_counters counters;
    struct memory_entry *oldest, *newest;
    uint64_t memory_bytes;
    uint64_t lined_bytes; /* the sum of the blobs' */
    struct blob_scrub scrub;
    struct blob_cuts cuts;
    struct content *content; /* owned; NULL: no content store */
    struct history *history; /* owned */
    void (*refused)(void *arg, const struct blob_caller *caller); /* may be NULL */
    void *refused_arg;
    uint32_t refused_count; /* blobs with refused_us */
    bool closing;
};

/* ---- blob.c ---- */
struct blob *blobs__by_handle(struct blobs *blobs, blob_handle handle); /* NULL if none */
/* The table of a cut, and an open blob in it; NULL if there is none. */
struct blob **blobs__table(struct blobs *blobs, enum piece_cut cut);
struct blob *blobs__find(struct blobs *blobs, const struct digest *digest, enum piece_cut cut);
/* Wakes every reader that waits for news of this blob. */
void blob__wake(struct blob *blob);
/* Fails every reader. */
void blob__fail(struct blob *blob, int status);
/* A whole read is under way, so the digest must be made. */
bool blob__wants_digest(const struct blob *blob);
/* A piece did not stay: whoever reads ahead would bring it in again and again, and ends. */
void blob__ahead_lost(struct blob *blob);
struct blob *blob__ref(struct blob *blob);

/* Gives back a reference of blob__ref; the blob closes when nothing of it is left. */
void blob__unref(struct blob *blob);
/* Takes what the cache evicted from the blobs concerned. After every call that may evict. */
void blobs__evictions(struct blobs *blobs);
/* Everything of the blob in the cache proved wrong: a new, empty place for it. */
void blob__renew_cached(struct blob *blob);
/* The hash of a piece that is part of what the whole digest is made of; NULL: not known. What comes
 * for that piece again must be the same, or a reader who is past the hash would get it (INT-1). */
const struct piece_hash *blob__proven(const struct blob *blob, uint32_t piece);
/* Notes it; without memory it stays unknown. */
void blob__prove(struct blob *blob, uint32_t piece, const struct piece_hash *hash);
/* One of a piece's places went: if it has no other (memory, cache, content store), it is gone. */
void blob__piece_settle(struct blob *blob, uint32_t piece);
/* A piece is not here any more (evicted, damaged): forgets it and tells transfer. */
void blob__piece_gone(struct blob *blob, uint32_t piece);

/* ---- blob_memory.c: the memory tier ---- */
/* Keeps a piece's bytes (takes its own reference) and their hash; gives up older ones to stay under
 * the size. Bytes that are there already stay. */
void blob_memory__keep(struct blob *blob, uint32_t piece, struct buffer *buffer,
                       const struct piece_hash *hash);
/* Moves to the young end. */
void blob_memory__touch(struct blob *blob, uint32_t piece);
/* Drops a piece's bytes; fine if there are none. A piece that is nowhere else is gone. */
void blob_memory__drop(struct blob *blob, uint32_t piece);
/* Drops stored pieces that nobody has used for BLOB_MEMORY_IDLE_US. */
void blob_memory__release(struct blobs *blobs);
/* A buffer for local use; at the pool's cap the oldest pieces in memory are given up for it. */
struct buffer *blob_memory__buffer(struct blobs *blobs, uint32_t bytes);

/* ---- blob_piece.c: what a worker does to one piece ---- */
/* A complete piece: verify, vouch, hash on, store; transfer is told and readers are woken. */
struct piece_arrival {
    struct blob *blob;
    uint32_t piece;
    struct piece_source source;
    struct voucher voucher;              /* FROM_PEER */
    void (*done)(void *arg, int status); /* when all is told; may be NULL */
    void *arg;
};
/* `bytes` is TAKEN. */
void blob_piece__arrived(const struct piece_arrival *arrival, struct buffer *bytes);
/* Reads a stored piece, verified. `then` gets 0 with the bytes (borrowed) and the voucher, or E_*;
   called exactly once, later. With keep, the piece goes to the memory tier. 0 or E_NO_MEMORY,
   E_FULL: `then` is not called. */
typedef void (*piece_loaded_fn)(void *arg, int status, struct buffer *bytes,
                                const struct voucher *voucher);
MUST_USE int blob_piece__load(struct blob *blob, uint32_t piece, bool keep, piece_loaded_fn then,
                              void *arg);
/* Goes on with the whole-blob hash, if somebody wants it; else memory need not be kept for it. */
void blob_piece__hash_on(struct blob *blob);

/* ---- blob_digest.c: what the hash over all of it says ---- */
/* The last piece is in the hasher: the blob is verified and sealed, or forgotten, its readers told
 * E_DIGEST, and read from the registry again. */
void blob__digest_known(struct blob *blob);

/* ---- blob_fetch.c: reading pieces from the origin ---- */
void blob_fetch__start(struct blob *blob, const struct transfer_result *result);
void blob_fetch__cancel(struct blob *blob, uint64_t fetch_id);
/* Bytes so far of the running fetch that will bring `piece`, plus one; 0: there is none. */
uint64_t blob_fetch__bytes(const struct blob *blob, uint32_t piece);
/* Reads of the registry under way. */
uint32_t blob_fetch__count(const struct blob *blob);
/* Reads the whole blob from the origin again after a mismatch (INT-7). False if no caller may. */
bool blob_fetch__repair(struct blob *blob);

/* Whose credentials the next read would use; NULL: the registry refused all, or there are none. */
struct blob_caller *blob_fetch__caller(const struct blob *blob);

/* ---- blob_refusal.c: 401 and 403 in mid-pull ---- */
/* The registry refused this caller. */
void blob_refusal__note(struct blob *blob, struct blob_caller *caller);
/* Ends the readers that nothing can help any more. */
void blob_refusal__check(struct blob *blob);
/* Of all blobs; once a second. */
void blob_refusal__tick(struct blobs *blobs);
/* The blob is closed, or nobody reads it. */
void blob_refusal__clear(struct blob *blob);

/* ---- blob_cut.c: which cut a small range is read in ---- */
/* Until then nobody waits. 0, or E_INTERNAL. */
MUST_USE int blob_cut__start(struct blobs *blobs);
/* The mesh's answer to a question, perhaps one of ours. */
void blob_cut__found(struct blobs *blobs, const struct dht_result *result);
/* There is news: tells those who can be told now. */
void blob_cut__wake(struct blobs *blobs);

/* ---- blob_scrub.c: what happens once a second, asked or not ---- */
/* Starts reading the cache back (D-5) and giving up idle memory, until the loop stops. 0, or
 * E_INTERNAL. */
MUST_USE int blob_scrub__start(struct blobs *blobs);

#endif
