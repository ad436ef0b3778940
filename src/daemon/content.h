/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of containerd's content store is offered: which blobs may be (those that this agent has seen
 * in a manifest or request of a repository whose content may be on the mesh: ACL-10), which of them
 * lie there, and which of these are right. Files are hashed in full before they are offered, one
 * piece at a time, at most CONTENT_BYTES_PER_S unless a client waits.
 *
 *   content.c        blobs that were seen, and the way of each from a file to an offer
 *   content_watch.c  the folder: scans and inotify; the list of seen digests across restarts
 *   blob_content.c   what an offer means for a live blob
 *
 * The list of seen digests is kept in dataDir/content-seen, for containerd's own records of where a
 * blob came from are not readable by others. Loop thread, but content_read.
 */
#ifndef SHOAL_DAEMON_CONTENT_H
#define SHOAL_DAEMON_CONTENT_H

#include "cache.h"
#include "loop.h"
#include "table.h"

/* Blobs remembered: more than a node's images have; the one seen longest ago leaves. */
#define CONTENT_SEEN_MAX 8192
/* Hashing in the background: a twentieth of a core, and what a slow disk can spare (a guess). */
#define CONTENT_BYTES_PER_S (64ull * 1024 * 1024)
/* Blobs that could not be offered before are taken up each second until so many of their pieces
 * were told: 2 ms of the loop, and that of one blob more, which has four times as many at most. */
#define CONTENT_PIECES_PER_TICK 16384
/* How long a client's read waits for a file that is being hashed before the mesh is asked. */
#define CONTENT_WAIT_US (1000ull * 1000)
/* Without inotify's word everything is looked at again so often. */
#define CONTENT_SCAN_US      (300ull * 1000000)
#define CONTENT_SCAN_POLL_US (60ull * 1000000) /* while it cannot be watched */
#define CONTENT_SCAN_MISS_US (5ull * 1000000)  /* while there is no folder */

struct blobs;
struct blob;
struct content;

enum content_state {
    CONTENT_ABSENT = 1, /* no file when we last looked; ends by an event or a scan */
    CONTENT_DUE,        /* may be there: ends by a look */
    CONTENT_HASHING,    /* is there; ends by its last piece, or when it changes */
    CONTENT_READY,      /* right; ends when its live blob can take it */
    CONTENT_OFFERED,    /* of a live blob; ends when it goes or proves damaged */
    CONTENT_WRONG,      /* not the digest's bytes; ends when the file changes or goes */
};

/* A file in the content store, while somebody needs it. */
struct content_copy {
    struct content *content;
    uint32_t refs;
    uint64_t id; /* in content->store */
    uint64_t size_bytes;
};

struct content_entry {
    UT_hash_handle hh;
    uint8_t key[32]; /* SHA-256 */
    enum content_state state;
    struct content_copy *copy; /* one reference; from HASHING to OFFERED */
    struct content_entry *next;
    uint32_t scanned; /* number of the last scan that met it */
    bool queued;      /* for a step */
    bool urgent;      /* a client waits */
    bool again;       /* something happened to the file during its step */
};

/* One step of one blob: a look, a piece hashed, or whether the file is still the same. */
struct content_step {
    struct loop_work work;
    struct content *content;
    struct digest digest;
    struct content_copy *copy; /* one reference; NULL: to be looked for */
    uint64_t id, size_bytes;   /* found by the look */
    int status;
    bool running;
};

struct content_scan {
    struct loop_work work;
    struct content *content;
    uint8_t (*keys)[32]; /* owned: what lies there */
    uint32_t count, capacity, number;
    char folder[1100];
    int status;
    bool running;
};

struct content_save {
    struct loop_work work;
    struct content *content;
    char *text; /* owned */
    size_t bytes;
    int status;
    bool running;
};

struct content_counters {
    uint32_t offered;        /* blobs */
    uint64_t wrong;          /* files whose bytes were not the digest's */
    uint64_t gone;           /* offers that ended */
    uint64_t given_up_bytes; /* of our own cache, because containerd has them */
};

struct content {
    struct blobs *blobs;
    struct loop *loop;
    struct store store;
    char path[1024];                     /* as configured */
    char list_path[1100];                /* dataDir/content-seen */
    struct content_entry *entries;       /* uthash: seen longest ago first */
    struct content_entry *first, **last; /* queue of steps */
    struct content_step step;
    struct content_scan scan;
    struct content_save save;
    struct content_counters counters;
    struct loop_part part;
    uv_timer_t tick;
    uv_timer_t pace; /* until the next step */
    uv_fs_event_t watch;
    bool watching;
    bool rewatch; /* the folder may be another one now */
    bool dirty;   /* the list has more than its file */
    bool closing;
    int scan_error; /* last said */
    uint64_t scan_due_us, save_due_us;
    uint64_t pace_us; /* no step that nobody waits for before */
};

/* `path` as store_content_new, `data_dir` of this agent; both copied. Reads the list of seen
 * digests; one that is damaged is begun anew. 0, E_NO_MEMORY, E_TOO_LARGE. */
MUST_USE int content_new(struct blobs *blobs, struct loop *loop, const char *path,
                         const char *data_dir, struct content **out);
/* Begins to look and to watch, until the loop stops. 0, E_INTERNAL. */
MUST_USE int content_start(struct content *content);
/* After the loop has run out and all live blobs are freed. NULL is fine. */
void content_free(struct content *content);

/* This blob's bytes may be on the mesh: if containerd has it, it is offered. */
void content_seen(struct content *content, const struct digest *digest);
/* True while the blob may turn out to be at containerd's, its file being looked for or hashed.
 * `urgent`: somebody waits for that. */
bool content_expected(struct content *content, const struct digest *digest, bool urgent);
/* Reads and verifies a piece. Worker thread, with a reference on the copy. Errors as store.read. */
MUST_USE int content_read(const struct content_copy *copy, uint32_t piece, uint8_t *out,
                          uint32_t byte_count, struct piece_record *record);
/* References, loop thread; NULL is fine for put. */
struct content_copy *content_copy_ref(struct content_copy *copy);
void content_copy_put(struct content_copy *copy);
/* A read of an offered blob failed with `status`: the offer ends. */
void content_failed(struct content *content, const struct digest *digest,
                    const struct content_copy *copy, int status);

/* ---- content.c, for content_watch.c ---- */
/* The entry of a key; NULL: never seen. */
struct content_entry *content__find(struct content *content, const uint8_t key[32]);
/* Remembers a key as the one seen last. NULL without memory. */
struct content_entry *content__remember(struct content *content, const uint8_t key[32]);
/* Something happened to its file. */
void content__look(struct content *content, struct content_entry *entry);
/* Goes on with the next step if none is under way. */
void content__pump(struct content *content);
/* ---- content_watch.c ---- */
/* Reads the list of seen digests. */
void content__list_load(struct content *content);
/* Writes it, now and here. */
void content__list_save(struct content *content);
/* Once a second: scans and saves that are due. */
void content__watch_tick(struct content *content);
/* Ends the watch; the handle's close follows. */
void content__watch_close(struct content *content);

/* ---- blob_content.c ---- */
/* All of the blob is to be had from `copy`, whose whole digest matched. 0; E_AGAIN: not while what
 * it has now is unverified and in use; E_*: try again later. */
MUST_USE int blob_content__offer(struct blobs *blobs, const struct digest *digest,
                                 struct content_copy *copy);
/* The offer ends: what is nowhere else is gone. */
void blob_content__end(struct blobs *blobs, const struct digest *digest,
                       const struct content_copy *copy);
/* Whoever waited to hear whether containerd has it goes on. */
void blob_content__wake(struct blobs *blobs, const struct digest *digest);
/* Gives up what our own cache has of an offered blob, once its swarm is quiet. Bytes given up. */
uint64_t blob_content__give_up(struct blobs *blobs, const struct digest *digest);
/* A read of this blob should wait a moment for word from the content store. */
bool blob_content__waits(struct blob *blob);

#endif
