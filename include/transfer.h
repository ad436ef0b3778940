/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Swarms: how a node gets a blob's pieces from peers and the origin, and gives them on. Policy and
 * parameters: ALGORITHMS §3 (two-level leases, in-zone swarm, bounded queues). This core moves no
 * bytes: it says what to fetch, request and upload, and is told what happened. Piece bytes, their
 * hashes, vouchers and storage are the host's. A sans-IO core.
 *
 * Life of a piece here: MISSING -> REQUESTED (from peers) or LEASED (being read from the origin)
 * -> HAVE, reported by transfer_piece_done; HAVE -> MISSING by transfer_piece_lost (evicted).
 */
#ifndef SHOAL_TRANSFER_H
#define SHOAL_TRANSFER_H

#include "directory.h"
#include "env.h"
#include "err.h"
#include "member.h"
#include "piece_map.h"
#include "types.h"

/* What a blob is. `key` is blob_key_cut(lookup key, digest, cut). */
struct blob_info {
    struct digest digest;
    struct blob_key key;
    uint64_t size_bytes;
    enum piece_cut cut;
};

/* Names a blob inside one transfer object; never reused while open. 0 is none. */
typedef uint64_t blob_handle;

enum transfer_copies {
    TRANSFER_COPIES_MESH = 1, /* a segment leaves the origin once for the mesh (default) */
    TRANSFER_COPIES_ZONE,     /* once per zone; nothing crosses zone borders */
};

struct transfer_config {
    struct directory *directory; /* shared with others; NULL: own */
    struct node_id self_id;
    struct peer_addr self_addr;
    enum transfer_copies copies;
    unsigned upload_slots;     /* 0: 12, up to twice that for images of many pieces (U of
                                  ALGORITHMS §3.4 is 2: measured worse) */
    unsigned upload_queue;     /* 0: 8 */
    unsigned inflight;         /* 0: 16 (D of ALGORITHMS §3.4), up to twice that where a node reads
                                  many pieces, as the layers of an image */
    unsigned neighbours;       /* 0: 32 (16 in ALGORITHMS §3.4) */
    unsigned leases_max;       /* 0: 8 */
    unsigned window_pieces;    /* 0: 96: in-order window of a streaming reader */
    uint64_t lease_timeout_us; /* 0: 500 ms without an answer -> next keeper */
    uint64_t fallback_us;      /* 0: 1.5 s without any keeper -> origin */
    unsigned fallbacks_max;    /* 0: 2 concurrent origin fallbacks of this node */
    unsigned zone_members_min; /* 0: 6; zones with fewer live members merge (ALGORITHMS §3.5) */
    /* Bytes that are brought in ahead of all clients together, prefetch apart; 0: no limit. What
       came sooner than the cache can keep it would be evicted before its client is there. */
    uint64_t ahead_bytes;
    struct topology topology;
};

enum transfer_read_mode {
    TRANSFER_READ_STREAM = 1, /* a client reads in order: window first, rarest behind it */
    TRANSFER_READ_RANGE,      /* only these pieces, no prefetch behind them */
    /* Nobody waits: rarest first. While clients wait for other blobs it comes behind them: a part
       of what may be in flight, one lease, no read without one. */
    TRANSFER_READ_PREFETCH,
};

/* Where a piece came from. */
enum piece_origin {
    PIECE_FROM_CACHE = 1, /* was there when the blob was opened, or found later (content store) */
    PIECE_FROM_PEER,
    PIECE_FROM_ORIGIN,
};
struct piece_source {
    enum piece_origin origin;
    struct node_id peer; /* FROM_PEER: who sent it */
    uint64_t fetch_id;   /* FROM_ORIGIN */
};

/* Why a node reads from the origin: the label of metrics and of `explain`. */
enum fetch_reason {
    FETCH_LEASE = 1,   /* a keeper granted it: the normal case */
    FETCH_ALONE,       /* no other member: everything is leased to ourselves */
    FETCH_NO_KEEPER,   /* no keeper of any rank answered */
    FETCH_NO_PROGRESS, /* peers or lessee too slow */
    FETCH_REPAIR,      /* the whole digest did not match */
    FETCH_REASON_COUNT,
};
const char *fetch_reason_name(enum fetch_reason reason); /* "lease", "alone", ... */

enum transfer_result_kind {
    /* Open or keep a session to `peer`: pieces will flow. Answer with transfer_session_up or _down.
     */
    TRANSFER_CONNECT = 1,
    /* Nothing flows with `peer` any more; the host may close an idle session. */
    TRANSFER_RELEASE,
    /* Send piece `piece` of `blob` with its voucher to `peer`; answer with transfer_upload_end. At
       most six times upload_slots at a time, 64 MiB; under three times where peers are near. */
    TRANSFER_UPLOAD,
    /* Stop an upload if it has not begun; transfer_upload_end is still due. */
    TRANSFER_UPLOAD_CANCEL,
    /* Read pieces [piece, piece + piece_count) from the origin; each arrives by
       transfer_piece_done, the whole ends by transfer_fetch_end. */
    TRANSFER_FETCH,
    TRANSFER_FETCH_CANCEL, /* transfer_fetch_end is still due */
    /* Find providers of `blob` (DHT); answer with transfer_providers. The mesh handles it. */
    TRANSFER_LOCATE,
    /* Keep (completeness > 0) or drop (0) our provider record. The mesh handles it. */
    TRANSFER_PUBLISH,
    /* Evidence that `peer` does not answer. The mesh tells gossip. */
    TRANSFER_PEER_SILENT,
    /* A piece became HAVE (readers may go on). */
    TRANSFER_PIECE_READY,
    /* Every piece of the blob is HAVE. */
    TRANSFER_BLOB_COMPLETE,
    /* A piece cannot be had: every source failed; `status` is the last origin error. Readers
       waiting for it fail. */
    TRANSFER_PIECE_FAILED,
};

struct transfer_result {
    enum transfer_result_kind kind;
    blob_handle blob;
    struct blob_key key;
    uint32_t piece;
    uint32_t piece_count; /* FETCH */
    struct node_id peer;  /* CONNECT, RELEASE, UPLOAD*, PEER_SILENT */
    struct peer_addr peer_addr;
    uint64_t id;              /* upload id or fetch id */
    enum fetch_reason reason; /* FETCH */
    uint8_t completeness;     /* PUBLISH */
    bool across_zones;        /* UPLOAD: lease transfer over a zone border, goes first */
    int status;               /* PIECE_FAILED */
};

/* Counters for metrics and the simulator's reports. */
struct transfer_stats {
    uint64_t pieces_from[4]; /* by enum piece_origin */
    uint64_t bytes_from[4];
    uint64_t bytes_by_distance[DISTANCE_COUNT]; /* received from peers */
    uint64_t uploads, upload_bytes;
    uint64_t fetches_by_reason[FETCH_REASON_COUNT];
    uint64_t leases_granted, leases_pending, leases_referred; /* as keeper */
    uint64_t hedges, duplicates, busy, request_timeouts, rejected;
    uint64_t messages_sent, bytes_sent;
    uint32_t blobs, neighbours, inflight;
};

struct transfer;
MUST_USE int transfer_new(const struct env *env, const struct transfer_config *config,
                          uint64_t now_us, struct transfer **out);
void transfer_free(struct transfer *transfer);

/* ---- members (fed by the mesh) ---- */
MUST_USE int transfer_member_up(struct transfer *transfer, uint64_t now_us,
                                const struct member *member); /* also changes */
/* The same for many at once. 0, or the first error; the others are taken in all the same. */
MUST_USE int transfer_members_up(struct transfer *transfer, uint64_t now_us,
                                 const struct member *members, size_t member_count);
void transfer_member_down(struct transfer *transfer, uint64_t now_us, const struct node_id *id);
/* New labels of this node: placement and choice of peers follow; running transfers go on. 0;
 * E_NO_MEMORY, E_FULL (more labels than the directory has room for): nothing has changed. */
MUST_USE int transfer_update_self(struct transfer *transfer, uint64_t now_us,
                                  const struct topology *topology);

/* A round trip to a member that the mesh measured otherwise, in us: how long answers are waited
 * for, and how much may be in flight, follow from such. Not sure: the question was repeated
 * meanwhile, and it is that long at most. Ids that are not known are ignored. */
void transfer_rtt(struct transfer *transfer, const struct node_id *id, uint64_t took_us, bool sure);

/* ---- blobs and local readers ---- */
/*
 * Makes a blob known. `have` (may be NULL) is what the cache holds; copied. Opening alone pulls
 * nothing: it serves peers what is held. 0 with *out; E_EXISTS with *out set to the open handle;
 * E_NO_MEMORY, E_TOO_LARGE.
 */
MUST_USE int transfer_blob_open(struct transfer *transfer, uint64_t now_us,
                                const struct blob_info *info, const struct bitfield *have,
                                blob_handle *out);
/*
 * How often this blob may leave the origin from now on, for it was asked of a registry that has a
 * rule of its own (0: config.copies, as at first). The policy of the node that gets the bytes
 * counts; keepers are told. While somebody reads the blob nothing changes: whoever began decides.
 */
void transfer_blob_copies(struct transfer *transfer, uint64_t now_us, blob_handle blob,
                          enum transfer_copies copies);
/* Forgets a blob: readers must have stopped; uploads and fetches are cancelled; the provider record
 * is dropped. */
void transfer_blob_close(struct transfer *transfer, uint64_t now_us, blob_handle blob);
/* 0 if the blob is not open. */
blob_handle transfer_blob_find(const struct transfer *transfer, const struct blob_key *key);
/* Borrowed until the next non-const call; NULL if not open. */
const struct bitfield *transfer_blob_have(const struct transfer *transfer, blob_handle blob);
const struct piece_layout *transfer_blob_layout(const struct transfer *transfer, blob_handle blob);

/* What is known of the reads of the origin that bring a blob in. */
enum transfer_outlook {
    TRANSFER_OUTLOOK_NONE = 1, /* nobody says that it is being read */
    TRANSFER_OUTLOOK_ASKED,    /* it is, by this node or, says a keeper, by another; nothing came */
    TRANSFER_OUTLOOK_MOVES,    /* bytes come: the registry answered (HTTP-6) */
};
/* Of a blob that is read here, else NONE. Nodes of before this was told are never heard to move.
 * Cost: a look at each fetch and lease. */
enum transfer_outlook transfer_outlook(const struct transfer *transfer, uint64_t now_us,
                                       blob_handle blob);

/* Starts pulling pieces [first, first + count). `can_fetch`: this reader's credentials may read the
   origin; with none of a blob's readers able to, leases are not asked for. 0, E_NO_MEMORY,
   E_NOT_FOUND, E_INVALID. */
MUST_USE int transfer_read_start(struct transfer *transfer, uint64_t now_us, blob_handle blob,
                                 uint32_t first_piece, uint32_t piece_count,
                                 enum transfer_read_mode mode, bool can_fetch, uint64_t *reader_id);
/* The client is at `piece` now: the window follows. */
void transfer_read_move(struct transfer *transfer, uint64_t now_us, uint64_t reader_id,
                        uint32_t piece);
/* Ends a reader. With no reader left the blob stops requesting; leases in hand are finished. */
void transfer_read_stop(struct transfer *transfer, uint64_t now_us, uint64_t reader_id);

/* ---- what happened ---- */
/*
 * A piece is verified and stored (0), or failed: E_DIGEST/E_VOUCHER (the sender lied: it is used no
 * more for this blob, and the piece is asked elsewhere), E_IO/E_NO_SPACE (verified but not stored:
 * it counts as had by readers through the host, but is not served), others: try again elsewhere.
 * E_DIGEST of a piece FROM_CACHE: what is stored here is wrong; it is lost and read from the origin
 * without asking anybody (FETCH_REPAIR).
 */
void transfer_piece_done(struct transfer *transfer, uint64_t now_us, blob_handle blob,
                         uint32_t piece, const struct piece_source *source, int status);
/* Evicted or found damaged. */
void transfer_piece_lost(struct transfer *transfer, uint64_t now_us, blob_handle blob,
                         uint32_t piece);
/* Is this piece wanted from this peer now? The host asks when a piece's header arrives; false:
 * drain and drop it. */
bool transfer_expects(const struct transfer *transfer, const struct blob_key *key, uint32_t piece,
                      const struct node_id *peer);
/* First bytes of an expected piece arrived: its request is alive (hedging waits). Called at most
 * once per 64 KiB. */
void transfer_piece_progress(struct transfer *transfer, uint64_t now_us, blob_handle blob,
                             uint32_t piece, const struct node_id *peer, uint32_t bytes_so_far);
/* Bytes of a fetch so far: leases are renewed while they grow. */
void transfer_fetch_progress(struct transfer *transfer, uint64_t now_us, uint64_t fetch_id,
                             uint64_t bytes_so_far);
/* A fetch ended: 0 or the origin's error. retry_after_ms > 0: the origin asked for a pause (429,
 * 503). */
void transfer_fetch_end(struct transfer *transfer, uint64_t now_us, uint64_t fetch_id, int status,
                        uint32_t retry_after_ms);
void transfer_upload_end(struct transfer *transfer, uint64_t now_us, uint64_t upload_id,
                         uint64_t bytes, int status);
void transfer_session_up(struct transfer *transfer, uint64_t now_us, const struct node_id *peer);
void transfer_session_down(struct transfer *transfer, uint64_t now_us, const struct node_id *peer,
                           int status);
/* Answer to TRANSFER_LOCATE: nodes that may have pieces. Hints only (DHT-9). */
struct transfer_provider {
    struct node_id id;
    struct peer_addr addr;
    struct topology topology;
    uint8_t completeness;
};
void transfer_providers(struct transfer *transfer, uint64_t now_us, const struct blob_key *key,
                        const struct transfer_provider *providers, size_t provider_count);
/* A node signed a false hash: nothing is asked of it or given to it for an hour; own evidence only
 * (INT-7). */
void transfer_peer_lied(struct transfer *transfer, uint64_t now_us, const struct node_id *peer);
/*
 * Drain: no new uploads are accepted, all leases are handed back; running uploads finish. Clients
 * of this node get their rest: from others that pull the same, else from the origin. May send.
 */
void transfer_drain(struct transfer *transfer, uint64_t now_us);

/* ---- the sans-IO shape ---- */
MUST_USE int transfer_receive(struct transfer *transfer, uint64_t now_us,
                              const struct node_id *from_id, const struct peer_addr *from,
                              const uint8_t *msg, size_t msg_bytes);
void transfer_advance(struct transfer *transfer, uint64_t now_us);
uint64_t transfer_deadline_us(const struct transfer *transfer);
bool transfer_next_result(struct transfer *transfer, struct transfer_result *out);
void transfer_stats(const struct transfer *transfer, struct transfer_stats *out);
/* Who has pieces of a blob, as far as its swarm knows now: neighbours, and whole copies elsewhere
 * that provider records name. Copies up to `max`, returns how many; 0 for a blob nobody here reads.
 */
struct transfer_holder {
    struct node_id id;
    struct peer_addr addr;
    uint32_t pieces;
};
size_t transfer_holders(const struct transfer *transfer, blob_handle blob,
                        struct transfer_holder *out, size_t max);
void transfer__check_invariants(const struct transfer *transfer);

/* Asks the processor for the memory that the next call will read: for hosts of thousands of nodes,
 * of which none stays in its cache. Changes nothing. Step 1 asks for what the object itself holds,
 * steps 2 to TRANSFER_LOOK_AHEAD_STEPS for what that leads to; each is of use some microseconds
 * after the one before. `from`: who sends the next message; NULL: nobody. */
#define TRANSFER_LOOK_AHEAD_STEPS 4
void transfer_look_ahead(const struct transfer *transfer, unsigned step,
                         const struct node_id *from);

#endif
