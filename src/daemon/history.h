/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `shoal explain` tells of the past: the last pulls of this node, each with where its bytes
 * came from, which peers sent how much, why the registry was read, and what went around the mesh.
 * Also which blobs a manifest has and which manifest a tag meant, so that an image can be asked
 * for. Everything is bounded, the oldest goes first, and nothing of it is on disk. Names of
 * repositories are in it, credentials never: only the control socket gives it out.
 *
 * A pull of a blob begins with a reader when none was there for HISTORY_PAUSE_US and the one before
 * was for another repository or is over; what arrives while nobody reads belongs to the last one.
 * Costs one pass over at most HISTORY_PULLS_MAX numbers for each piece. Loop thread only.
 */
#ifndef SHOAL_DAEMON_HISTORY_H
#define SHOAL_DAEMON_HISTORY_H

#include "blob.h"

#define HISTORY_PULLS_MAX     128 /* about 1.5 KiB each, taken as they come */
#define HISTORY_PEERS_MAX     8   /* of one pull by themselves; the others together */
#define HISTORY_TAGS_MAX      64
#define HISTORY_MANIFESTS_MAX 64
#define HISTORY_CHILDREN_MAX  256 /* blobs of a manifest */
#define HISTORY_PAUSE_US      (10ull * 1000000)

/* Why bytes went around the mesh. */
enum history_around {
    AROUND_NO_FIRST_BYTE = 1, /* nothing came through it in time */
    AROUND_FAILED,            /* it gave up */
    AROUND_NOT_OPENED,        /* no room or memory for it */
    AROUND_PRIVATE,           /* the registry or repository is kept off the mesh (p2p) */
    AROUND_PASSTHROUGH,       /* mode: passthrough */
    AROUND_TOO_LARGE,
    AROUND_COUNT,
};
/* Stable names for programs, and what they mean and what to do, for people; static storage. */
const char *history_around_name(enum history_around why);
const char *history_around_text(enum history_around why);
const char *history_fetch_text(enum fetch_reason reason);

struct history_peer {
    struct node_id id;
    struct peer_addr addr; /* zero: not known */
    uint64_t bytes;
    uint32_t pieces;
};

/* Something that happened so many times. */
struct history_event {
    uint32_t count;
    uint64_t last_wall_s;
};

struct history_pull {
    struct digest digest;
    uint64_t size_bytes;
    char registry[HOST_BYTES_MAX + 1];
    char repository[REPOSITORY_BYTES_MAX + 1];
    bool ahead; /* nobody had asked for it when it began */
    uint64_t began_wall_s, ended_wall_s;
    uint64_t began_us, ended_us;           /* ended: the last reader's end; 0 while there is one */
    uint32_t readers;                      /* now */
    uint64_t given_bytes[BLOB_TIER_COUNT]; /* to clients */
    uint64_t origin_bytes;                 /* arrived */
    struct history_peer peers[HISTORY_PEERS_MAX];
    uint32_t peer_count;
    uint64_t other_peer_bytes; /* of peers beyond these */
    uint64_t around_bytes;     /* to clients around the mesh */
    struct history_event fetches[FETCH_REASON_COUNT];
    struct history_event failures; /* of such reads */
    int last_error;                /* of the last failed one: E_* */
    struct history_event around[AROUND_COUNT];
    int around_error; /* of the last AROUND_FAILED or NOT_OPENED */
};

/* What a pull is of; all borrowed for the call. */
struct history_subject {
    const struct digest *digest;
    uint64_t size_bytes;
    const char *registry, *repository; /* "" not known */
};

struct history;
/* 0 or E_NO_MEMORY. `loop` is borrowed for its life. */
MUST_USE int history_new(struct loop *loop, struct history **out);
void history_free(struct history *history); /* NULL is fine */

/* ---- what happens; without memory, or for a blob that is not known, nothing is noted ---- */
void history_began(struct history *history, const struct history_subject *subject, bool ahead);
void history_ended(struct history *history, const struct digest *digest);
void history_given(struct history *history, const struct digest *digest, enum blob_tier tier,
                   uint32_t bytes);
void history_origin(struct history *history, const struct digest *digest, uint32_t bytes);
/* The place of a peer that is noted for the first time, so that its address can be filled in; NULL:
 * nothing is to be filled in. */
struct history_peer *history_peer(struct history *history, const struct digest *digest,
                                  const struct node_id *peer, uint32_t bytes);
void history_fetch(struct history *history, const struct digest *digest, enum fetch_reason reason);
/* Such a read ended with an error. */
void history_fetch_failed(struct history *history, const struct digest *digest, int error);
/* `error` as far as the reason has one, else 0. */
void history_around(struct history *history, const struct history_subject *subject,
                    enum history_around why, int error);
/* Bytes of such an answer were given to the client. */
void history_around_given(struct history *history, const struct digest *digest, uint32_t bytes);
/* A tag stood for this digest. */
void history_tag(struct history *history, const char *registry, const char *repository,
                 const char *tag, const struct digest *digest);
/* A manifest or index names these; at most HISTORY_CHILDREN_MAX are kept. */
void history_manifest(struct history *history, const struct digest *manifest,
                      const struct manifest_descriptor *found, size_t count);

/* ---- questions ---- */
/* The `skip`-th pull of a blob, newest first; NULL: there is none. NULL for `digest`: of any blob.
 * Borrowed until the next call that notes something. */
const struct history_pull *history_find(const struct history *history, const struct digest *digest,
                                        unsigned skip);
/* What a tag meant last. */
bool history_tag_find(const struct history *history, const char *registry, const char *repository,
                      const char *tag, struct digest *out);
/* The blobs below a manifest or index, down two steps, each once; of what is no known manifest the
 * digest itself. Returns how many of at most `max`. */
size_t history_blobs(const struct history *history, const struct digest *digest, struct digest *out,
                     size_t max);

#endif
