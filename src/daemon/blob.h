/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live blobs: where bytes from peers, origin and cache meet their readers.
 *
 * A blob here is open in transfer (it is served to peers and pulled from them) and in the cache.
 * Each piece that arrives goes through one worker job: hash, voucher, whole-blob prefix hash when
 * it is next in order, write to the cache; then it stays in memory (the memory tier) as long as
 * there is room, so that uploads and readers need no disk. What a reader may see follows INT-1..3:
 * vouched pieces stream, the last bytes of a whole read wait for the whole digest.
 *
 * Cost of a piece from a peer: one hash for the piece, one for the blob, one signature check
 * (41 us), one pwrite; no copy. Loop thread only.
 */
#ifndef SHOAL_DAEMON_BLOB_H
#define SHOAL_DAEMON_BLOB_H

#include "buffer.h"
#include "cache.h"
#include "node.h"
#include "registry.h"

/* On whose behalf the origin may be read: a registry, a repository and the caller's own
 * Authorization, kept in memory while a reader or a lease needs it (ACL-9). Reference-counted. */
struct blob_caller {
    uint32_t refs;
    const struct registry_entry *registry; /* held */
    char repository[REPOSITORY_BYTES_MAX + 1];
    char *authorization; /* owned, wiped when freed; NULL: anonymous */
    char *url;           /* owned, wiped when freed: asked instead of the registry's; NULL: none */
    uint8_t credential_hash[32];
    bool as_node; /* the operator's own order: with the node's login, if it has one; set by who made
                     it. Its reads end with the reader: no client's read goes on with it */
    bool refused; /* the registry said 401 or 403: not used again */
};
/* One reference; copies everything. NULL when memory is short. */
struct blob_caller *blob_caller_new(const struct registry_entry *registry, const char *repository,
                                    const char *authorization, const uint8_t credential_hash[32],
                                    const char *url);
struct blob_caller *blob_caller_ref(struct blob_caller *caller);
void blob_caller_put(struct blob_caller *caller); /* NULL is fine */
/* The same credentials for the same repository; false for NULL. */
bool blob_caller_same(const struct blob_caller *a, const struct blob_caller *b);

/* Where bytes given to a client came from: the Shoal-Source header and the metrics' label. */
enum blob_tier {
    BLOB_FROM_MEMORY = 1,
    BLOB_FROM_DISK,
    BLOB_FROM_CONTENT, /* containerd's content store */
    BLOB_FROM_PEER,
    BLOB_FROM_ORIGIN,
    BLOB_TIER_COUNT,
};
const char *blob_tier_name(enum blob_tier tier); /* "content-store", ... */

struct blobs;
struct blob;

struct blobs_config {
    struct loop *loop;
    struct node *node;
    struct cache *cache;
    struct buffer_pool *pool;
    struct origin *origin;
    uint64_t memory_bytes;    /* memory tier: pieces kept beyond their use */
    bool verified_only;       /* trust: quorum, verified: nothing before the whole digest matched */
    uint64_t block_bytes;     /* ranges are brought in by blocks of so many bytes, a power of two */
    const char *content_path; /* containerd's content store (store_content_new); "": none */
    const char *data_dir;     /* where the list of what may be served from there is kept */
};

struct blobs_counters {
    uint64_t piece_bytes[BLOB_TIER_COUNT]; /* arrived from peers and origin; read back from tiers */
    uint64_t client_bytes[BLOB_TIER_COUNT]; /* given to readers, by where the piece came from */
    /* The most by which client_bytes were ahead of what was read from the registry. It never
     * falls; bytes that were read in vain are made up for before it rises again. */
    uint64_t saved_bytes;
    uint64_t bad_digest, bad_voucher, unknown_signer;
    uint64_t mismatches, repairs, store_errors, corrupt;
    uint64_t scrubbed; /* pieces read back unasked */
    uint64_t memory_bytes;
    uint32_t blobs, readers, fetches;
    uint32_t ahead;         /* readers for whom nobody waits; `readers` are the others */
    uint32_t content_blobs; /* offered from the content store */
    uint64_t content_wrong, content_gone; /* files that were damaged; offers that ended */
    uint64_t content_given_up_bytes;      /* of our own cache, as containerd has them */
};

/* 0, E_NO_MEMORY, E_TOO_LARGE (a path). Everything in `config` is borrowed for the object's life.
 */
MUST_USE int blobs_new(const struct blobs_config *config, struct blobs **out);
/* After the loop has run out; readers must be gone. */
void blobs_free(struct blobs *blobs);
/* Handlers for node_new; their host is this object. `config->node` may be set later by blobs_bind.
 */
void blobs_handlers(struct blobs *blobs, struct node_handlers *out);
void blobs_bind(struct blobs *blobs, struct node *node);
/* The origin, made after the node. */
void blobs_bind_origin(struct blobs *blobs, struct origin *origin);
/* `refused` hears of every 401 or 403 that the registry answers a caller's read with: its grant
 * ends (ACL-2). Borrowed for the call. */
void blobs_on_refusal(struct blobs *blobs, void (*refused)(void *arg, const struct blob_caller *),
                      void *arg);
/* Opens everything the cache recovered, so that peers are served, and begins to read the cache back
 * piece by piece (D-5), to give up idle memory and to look at the content store. Returns how many
 * blobs, or E_*. */
MUST_USE int blobs_recover(struct blobs *blobs);
void blobs_counters(const struct blobs *blobs, struct blobs_counters *out);
/* What happened to blobs here, for `explain` (history.h). */
struct history *blobs_history(struct blobs *blobs);
/* One blob that is being read, for status pages: in both cuts, if it is open in both. */
struct blob_view {
    struct digest digest;
    uint64_t size_bytes, have_bytes;
    uint64_t origin_bytes, peer_bytes; /* arrived from there since it was opened */
    uint32_t readers, fetches;
    bool verified;      /* all of it, and its digest matched */
    blob_handle handle; /* in transfer, of the cut that has more of it */
};
/* The lookup key has changed (node_lookup_key): gives each blob that nobody uses now the name that
 * it makes. False: some are in use, or memory is short; call again. Looks at every open blob. */
bool blobs_rename(struct blobs *blobs);
/* Copies up to `max` blobs with readers or reads of a registry under way; returns how many. Looks
 * at every open blob. */
size_t blobs_active(const struct blobs *blobs, struct blob_view *out, size_t max);
/* One blob as it is now, if it is open. False: it is not. */
bool blobs_view(const struct blobs *blobs, const struct digest *digest, struct blob_view *out);
#define BLOB_MAP_CELLS_MAX 256
/*
 * Where the bytes of one blob came from, by place: a text of at most BLOB_MAP_CELLS_MAX letters,
 * each for as many pieces in order as the next. 'R' the registry; 'V', 'Z', 'N', 'E' peers of the
 * same vSwitch, of the same zone, of the next zones, from elsewhere; 'H' it was here before (cache,
 * content store): most of them came from there; small letters where some are missing still, '.'
 * where all are; of the cut that has more of it. Of large blobs it looks at 8 pieces for each
 * letter. "" if the blob is not open. Returns how many letters.
 */
size_t blobs_map(const struct blobs *blobs, const struct digest *digest,
                 char out[BLOB_MAP_CELLS_MAX + 1]);
/* Readers that somebody waits for are under way (orderly stop). */
bool blobs_busy(const struct blobs *blobs);

/* Finds or opens a blob and takes a reference. 0, E_NO_MEMORY, E_TOO_LARGE, E_INVALID (a size that
 * contradicts what is known). */
MUST_USE int blobs_get(struct blobs *blobs, const struct digest *digest, uint64_t size_bytes,
                       struct blob **out);
/* The same blob in one of its cuts, which to the mesh and in the cache are blobs of their own;
 * blobs_get is for PIECE_CUT_PLAIN. */
MUST_USE int blobs_get_cut(struct blobs *blobs, const struct digest *digest, enum piece_cut cut,
                           uint64_t size_bytes, struct blob **out);
/* A range to be read. */
struct cut_range {
    struct digest digest;
    uint64_t size_bytes, first, end; /* bytes [first, end) of so many */
};
/* Waits for the cut of one; embedded in its owner's struct. */
struct cut_waiter {
    struct cut_range range;
    void (*known)(void *arg, enum piece_cut cut); /* once; never inside blobs_cut_of */
    void *arg;
    /* private */
    uint64_t until_us;
    struct cut_waiter *next;
};
/*
 * In which cut to read waiter->range of a blob that may be shared: fine if it is short, the blob's
 * plain pieces are large, and neither this node nor another has much of it in those. True with
 * *out; false: the mesh is being asked, and `known` follows within 100 ms unless blobs_cut_unwait
 * comes first. May send. Cost: a look at each of 128 remembered answers.
 */
bool blobs_cut_of(struct blobs *blobs, struct cut_waiter *waiter, enum piece_cut *out);
/* Fine for one that does not wait. */
void blobs_cut_unwait(struct blobs *blobs, struct cut_waiter *waiter);
/* A caller whose right is proven (ACL-3) may have this blob through a repository whose content may
 * be on the mesh (ACL-10): if containerd holds it, it is served from there, to peers as well. */
void blobs_content_seen(struct blobs *blobs, const struct digest *digest);
/* True while containerd's copy of this blob is looked for or hashed. */
bool blobs_content_expected(struct blobs *blobs, const struct digest *digest);
/* How many bytes may be read ahead of clients in all; 0 while the cache takes nothing. */
uint64_t blobs_ahead_max(const struct blobs *blobs);
void blob_put(struct blob *blob);
uint64_t blob_size(const struct blob *blob);
/* All pieces are here and the whole digest matched. */
bool blob_verified(const struct blob *blob);

/* A span of a blob's bytes, held for the reader until blob_chunk_done. */
struct blob_chunk {
    const uint8_t *bytes; /* NULL: send from fd */
    uint32_t byte_count;
    int fd; /* -1, or a descriptor of our own to sendfile from */
    uint64_t fd_offset;
    enum blob_tier tier;
    /* private; without a blob only the buffer is given back */
    struct blob *blob;
    struct cache_blob *cached; /* pinned while fd is open */
    struct buffer *buffer;
    uint32_t piece;
};
/* Releases what the chunk holds. */
void blob_chunk_done(struct blob_chunk *chunk);

/* A reader of [offset, end) in order; embedded in its owner's struct. */
struct blob_reader {
    void (*ready)(
        void *arg); /* blob_read_next may give more; never called inside a call of yours */
    void (*failed)(void *arg, int status); /* no more will come: E_*; then only blob_read_stop */
    void *arg;
    /* private */
    struct blob *blob;
    struct blob_caller *caller;
    struct cache_blob *held; /* in the cache; NULL: too large to be kept whole */
    uint64_t reader_id;      /* of transfer; 0: none */
    uint64_t offset, end;
    uint32_t piece_told; /* last position told to transfer */
    bool whole;
    bool range; /* TRANSFER_READ_RANGE */
    bool ahead; /* TRANSFER_READ_PREFETCH: it takes no spans, and ends if its pieces do not stay */
    bool waiting;
    bool ended;
    struct buffer_waiter buffers;
    struct blob_reader *next;
};
/*
 * Starts reading [first, end) with first < end <= size. `caller` (may be NULL: peers and cache
 * only) is referenced. `whole` reads hold the tail back until the digest matched. 0, E_NO_MEMORY,
 * E_RANGE. `ready` follows when bytes are there. With TRANSFER_READ_PREFETCH nobody waits: bytes
 * come behind all others', stay in the cache, and `ready` is never called; E_NO_SPACE: the blob is
 * too large to be kept whole.
 */
MUST_USE int blob_read_start(struct blob *blob, struct blob_reader *reader, uint64_t first,
                             uint64_t end, enum transfer_read_mode mode,
                             struct blob_caller *caller);
/* The next span, at most max_bytes. 0; E_AGAIN (ready will be called); E_CLOSED at the end; E_*
 * after `failed`. */
MUST_USE int blob_read_next(struct blob_reader *reader, uint32_t max_bytes, struct blob_chunk *out);
/* For a reader of TRANSFER_READ_PREFETCH: what it brings in does not stay here, so it goes on no
 * more. */
bool blob_read_lost(const struct blob_reader *reader);
/* Where the reader stands, bytes from the start of the blob. */
uint64_t blob_read_position(const struct blob_reader *reader);
/* Bytes of the blob that came from anywhere so far, with what the origin has sent of the reader's
 * next piece: grows as long as the reader has something to hope for. */
uint64_t blob_read_progress(const struct blob_reader *reader);
/* The registry is being read for the reader's next piece now, though it may not have said a word.
 */
bool blob_read_fetching(const struct blob_reader *reader);
/* What is known of reads of the registry for this reader's blob, here and in the mesh. */
enum transfer_outlook blob_read_outlook(const struct blob_reader *reader);
/* Ends a reader; allowed at any time after a successful start. */
void blob_read_stop(struct blob_reader *reader);

/* Bytes of this blob here by source, for logs and explain. */
struct blob_sources {
    uint64_t origin, peer, cache;
};
void blob_sources(const struct blob *blob, struct blob_sources *out);

#endif
