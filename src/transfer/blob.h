/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs, their swarms and the requests in them: blob.c (what is had and wanted, readers), swarm.c
 * (neighbours and what they have), board.c (who announced a blob: the blob keeper's part),
 * select.c (which piece, from whom), request.c (requests under way), upload.c (the other side).
 */
#ifndef SHOAL_TRANSFER_BLOB_H
#define SHOAL_TRANSFER_BLOB_H

#include "core.h"

/* uthash takes its memory through env->alloc; `transfer` is in scope wherever tables are used. */
#define uthash_malloc(bytes)    transfer__alloc(transfer, NULL, (bytes))
#define uthash_free(ptr, bytes) ((void)(bytes), transfer__release(transfer, (ptr)))
#define HASH_NONFATAL_OOM       1
#include <uthash.h>

/* Neighbours accepted (24 in ALGORITHMS §3.4), more than a node asks for itself: else those who
 * come late find everybody full (one of 100 nodes was left with 17, all busy: 1.4 instead of 1.1).
 * And those a keeper referred on top. */
#define NEIGHBOURS_ACCEPT 40
#define NEIGHBOURS_MAX    48
#define CANDIDATES_MAX    32
#define REMOTES_MAX       8
#define LIARS_MAX         16
#define AVOIDS_MAX        32
#define AVOID_WHOLE       UINT32_MAX
/* Requests on record: in flight, hedges, imports, and those whose bytes are being verified. */
#define REQUESTS_MAX 128
/* Neighbours must have been in touch within this; HAVE is repeated more often. */
#define NEIGHBOUR_QUIET_US (10 * S)

/* See transfer__is_brief. */
#define BRIEF_BLOB_BYTES   (64u * 1024 * 1024)
#define BRIEF_SECONDS      2u
#define MESH_SMALL_MEMBERS 32
/* HAVE messages a swarm may save up, and begins with where no other blob is
 * active (layers of one image come together): 12 rounds to 32 neighbours. */
#define HAVE_CREDIT_MAX 384u

/* Pages of the largest bitfield. */
#define PAGES_MAX (PIECE_COUNT_MAX / 8 / WIRE_PAGE_BYTES + 1)

enum piece_flag {
    PIECE_WANTED = 1,  /* inside what a reader still waits for */
    PIECE_LEASED = 2,  /* ours to bring in: fetched or imported */
    PIECE_FAILED = 4,  /* every source failed; readers were told */
    PIECE_PASSED = 8,  /* had by readers but not stored */
    PIECE_REPAIR = 16, /* proved wrong here: only the origin will do */
};

struct reader {
    struct reader *next;
    uint64_t id;
    struct blob *blob;
    enum transfer_read_mode mode;
    uint32_t first, end; /* asked for [first, end) */
    uint32_t at, limit;  /* wants [at, limit) now */
    bool can_fetch;
};

enum neighbour_state {
    NEIGHBOUR_ASKED = 1, /* HELLO sent; ends by theirs, BYE or silence */
    NEIGHBOUR_UP,        /* both proved the digest; ends by BYE, silence, or nothing to exchange */
};

struct neighbour {
    /* What choosing whom to ask reads. */
    struct peer *peer; /* of node; lives as long as it is a neighbour */
    struct bitfield known;
    uint64_t heard_us;
    uint64_t free_at_us; /* said BUSY, or was slow: not before */
    uint16_t node;
    bool barred;   /* sent a wrong piece, or is out of the blob's reach */
    bool useful;   /* counted in avail */
    bool wants;    /* pulls */
    bool complete; /* has every piece */
    enum neighbour_state state;
    uint32_t wait_us;  /* its hint, as of heard_us */
    uint32_t requests; /* ours, waiting for bytes */
    uint32_t piece_us; /* mean from request to piece */

    bool initiated; /* by us */
    bool referred;  /* a keeper named it */
    uint8_t hello_tries;
    uint8_t fallbacks;
    uint32_t lease_us, took_us; /* as it says, 0 unknown */
    uint32_t rx_sequence, tx_sequence;
    uint64_t greeted_us; /* the first HELLO */
    uint64_t hello_us, sent_us, resync_us;
};

/* A holder that a keeper named and that did not deliver. */
struct avoid {
    uint32_t segment;  /* AVOID_WHOLE: it has nothing of the blob */
    uint16_t node;     /* NODE_NONE: free */
    uint64_t until_us; /* believed until then */
};

/* What a pulled or served blob needs beyond `have`. Freed when nobody here reads it and no
 * neighbour is left. */
struct swarm {
    uint32_t readers, fetchers; /* readers, and those of them whose credentials may fetch */
    uint32_t requests;          /* under way for this blob */
    uint32_t leases;            /* held or asked for */
    uint64_t announce_due_us, grow_due_us, locate_due_us;
    uint64_t have_due_us, have_sent_us;
    uint64_t lease_turn, request_turn; /* when it last got one */
    uint64_t passed_turn;              /* of requests_fill: had nothing to ask for */
    uint64_t working_us;               /* last time something was under way */
    uint64_t front_us;
    uint32_t front;       /* piece the foremost reader waits for, and since when */
    uint32_t have_credit; /* HAVE messages that may be sent without much delay */
    uint64_t progress_us;
    bool origin_denied;
    bool repairs;                     /* there may be pieces to repair */
    bool locating;                    /* LOCATE is out */
    bool peers_known;                 /* a blob keeper answered ANNOUNCE */
    bool near_whole;                  /* the DHT named a whole copy inside the zone */
    uint8_t dirty[PAGES_MAX / 8 + 1]; /* pages of have changed since the last HAVE */
    uint32_t repair_count;            /* pieces with PIECE_REPAIR */
    uint32_t piece_us;                /* mean from request to piece */
    uint32_t far_us;                  /* round trip to the neighbours; 0: near, or unknown */
    uint64_t crowd_us;                /* last evidence that others pull too; 0: none */
    uint64_t origin_pause_us;

    struct bitfield open;     /* wanted, missing, not under way */
    struct bitfield absent;   /* open, and no useful neighbour has it: avail is 0 */
    struct bitfield injected; /* exists in the zone, as far as is known */
    uint8_t *flags;           /* enum piece_flag, per piece */
    uint8_t *avail;           /* neighbours that have it, per piece */
    uint8_t *asked;           /* our requests for it, per piece */
    uint8_t *mask, *near;     /* scratch bits of select.c */
    uint32_t *retry_ms;       /* per segment: not asked for before, ms since started_us */
    uint8_t *fails;           /* per segment: failed origin reads */

    uint32_t neighbour_count;
    uint16_t neighbour_nodes[NEIGHBOURS_MAX]; /* of each: found without reading all of them */
    struct neighbour neighbours[NEIGHBOURS_MAX];

    uint16_t candidates[CANDIDATES_MAX];
    uint32_t candidate_count;
    uint16_t remotes[REMOTES_MAX]; /* whole copies outside the zone, from the DHT */
    uint32_t remote_count;
    struct avoid avoids[AVOIDS_MAX];
    uint32_t avoid_next;       /* place of the next, modulo AVOIDS_MAX */
    uint16_t liars[LIARS_MAX]; /* sent wrong pieces of this blob */
    uint32_t liar_count;

    uint32_t tick;          /* counts ticks, for work not done at each */
    uint32_t lease_us;      /* what a segment would take at our best rate; neighbours are told */
    uint32_t took_us;       /* mean of what they took; neighbours are told */
    uint64_t lease_best_us; /* shortest of late from grant to held */
    uint32_t first_byte_us; /* least of late from a read's start to its first byte; 0: unknown */
    uint32_t run_bytes;     /* how much is leased in one go while nobody else is interested */
    int origin_status;
    uint64_t started_us;
    uint64_t gate_us;        /* grants wait for providers until then */
    uint64_t pending_us;     /* last word that another brings a segment in */
    uint64_t moves_us;       /* the same, and that bytes of it come */
    uint64_t fallback_us;    /* next origin read for lack of progress, not before */
    uint64_t spare_until_us; /* holders that gave much are spared; 0: none was yet (select.c) */
    uint64_t sourceless_us;  /* since when no source is left at all; 0: not so */
    uint32_t announces;
};

struct blob {
    blob_handle handle;
    struct swarm *swarm; /* NULL: nobody asks */
    struct blob *next_active, *prev_active;
    struct bitfield have;
    struct piece_layout layout;
    uint64_t publish_due_us;
    uint64_t given_bytes;        /* to other nodes, since it was opened */
    enum transfer_copies copies; /* what its readers' registry says */
    bool complete_told;
    uint8_t published;
    struct blob_info info;
    UT_hash_handle by_key, by_handle;
};

/* ---- blob.c ---- */

/* Open blobs by handle and by key, NULL if there is none; and the end of all of them. */
struct blob *transfer__blob(const struct transfer *transfer, blob_handle handle);
struct blob *transfer__blob_by_key(const struct transfer *transfer, const struct blob_key *key);
/* A small blob in a mesh that is not: it is here before order matters, a swarm grows step by step,
 * or its rate is known. In a small mesh all that was measured worse (3 nodes: last 1.12,
 * then 1.22).
 */
bool transfer__is_brief(const struct transfer *transfer, const struct blob *blob);
/* Makes the swarm; NULL without memory. */
struct swarm *transfer__swarm(struct transfer *transfer, struct blob *blob);
/* Frees the swarm if nothing needs it. */
void transfer__swarm_retire(struct transfer *transfer, struct blob *blob);
/* Recomputes whether a piece is open after any of its reasons changed. */
void transfer__piece_settle(struct blob *blob, uint32_t piece);
/* One more useful neighbour has a piece, or one less. */
void transfer__piece_offered(struct swarm *swarm, uint32_t piece, bool more);
/* Every reason of a segment is that it is not open: nothing of it is missing. */
bool transfer__segment_had(const struct blob *blob, uint32_t segment);
/* `piece` of have changed: HAVE is due, a provider record perhaps. */
void transfer__blob_changed(struct transfer *transfer, struct blob *blob, uint32_t piece);
/* A piece is not had any more. */
void transfer__piece_forget(struct transfer *transfer, struct blob *blob, uint32_t piece);
bool transfer__can_fetch(const struct transfer *transfer, const struct blob *blob);
/* A piece cannot be had: readers are told once. */
void transfer__piece_give_up(struct transfer *transfer, struct blob *blob, uint32_t piece,
                             int status);
/* May its pieces be had from this node? Not over a border, where each zone gets a copy of its own.
 */
bool transfer__in_reach(const struct transfer *transfer, const struct blob *blob, uint16_t node);
void transfer__blob_tick(struct transfer *transfer, struct blob *blob);
void transfer__blobs_close(struct transfer *transfer);

/* Recomputes what is wanted of [first, end). `retry`: a new reader tries failed pieces again. */
void transfer__want_again(const struct transfer *transfer, struct blob *blob, uint32_t first,
                          uint32_t end, bool retry);

/* ---- readers.c ---- */

/* An interactive reader is on the blob. */
bool transfer__interactive(const struct transfer *transfer, const struct blob *blob);
/* Nobody waits for the blob, but clients wait for pieces of others, which go first. */
bool transfer__is_behind(const struct transfer *transfer, const struct blob *blob);
/* Pieces that a reader may want at a time. */
uint32_t transfer__reader_pieces(const struct transfer *transfer, const struct reader *reader);
/* Where an interactive reader of the blob goes on, if it lacks anything; piece_count otherwise. */
uint32_t transfer__reader_front(const struct blob *blob, const struct reader *reader);
/* First piece the foremost interactive reader waits for; piece_count if none waits. */
uint32_t transfer__front(const struct transfer *transfer, const struct blob *blob);
/* Asks the host for provider records; leases wait a moment for them. */
void transfer__locate(struct transfer *transfer, struct blob *blob);

/* ---- swarm.c ---- */

/* This node among the swarm's neighbours; NULL if it is none. */
struct neighbour *transfer__neighbour(struct swarm *swarm, uint16_t node);
/* A node that may have pieces: asked by HELLO when there is room. `referred`: at once. */
void transfer__candidate(struct transfer *transfer, struct blob *blob, uint16_t node,
                         bool referred);
void transfer__neighbour_remove(struct transfer *transfer, struct blob *blob, uint16_t node);
/* It sent a wrong piece: not asked for any of this blob again. */
void transfer__neighbour_distrust(struct transfer *transfer, struct blob *blob, uint16_t node);
bool transfer__is_distrusted(const struct swarm *swarm, uint16_t node);
/* The blob's reach, or where nodes stand, is another than before. */
void transfer__reach_changed(struct transfer *transfer, struct blob *blob);
/* A session to a node is up, or broke: what it has may be asked for, or is as good as absent
 * (waiting for it instead, a mesh of 90 that lost 15 took 1.5 x as long; 1.3). */
void transfer__neighbours_linked(struct transfer *transfer, uint16_t node, bool up);
/* Announces, finds and greets neighbours, repeats HELLO, drops the silent. */
void transfer__swarm_tick(struct transfer *transfer, struct blob *blob);
/* Tells neighbours goodbye. */
void transfer__swarm_leave(struct transfer *transfer, struct blob *blob,
                           enum wire_note_reason reason);
/* Others pull this blob, too. */
bool transfer__crowd(struct transfer *transfer, const struct blob *blob);
/* Mean of the neighbours' best lease times; 0 unknown. */
uint32_t transfer__mesh_lease_us(const struct swarm *swarm);
/* Mean of how long the neighbours' leases took; 0 unknown. */
uint32_t transfer__mesh_took_us(const struct swarm *swarm);
/* Fallback reads the neighbours said they have running. */
uint32_t transfer__mesh_fallbacks(const struct swarm *swarm);
void transfer__on_hello(struct transfer *transfer, uint16_t from, const struct wire_have *have);
void transfer__on_have(struct transfer *transfer, uint16_t from, const struct wire_have *have);
void transfer__on_resync(struct transfer *transfer, uint16_t from, const struct wire_note *note);
void transfer__on_bye(struct transfer *transfer, uint16_t from, const struct wire_note *note);
void transfer__on_peers(struct transfer *transfer, uint16_t from, const struct wire_peers *peers);

/* ---- rtt.c ---- */

/* How far away the neighbours are, or while there are none, nodes usually. */
void transfer__far_update(const struct transfer *transfer, struct swarm *swarm);
/* The time of bytes that far neighbours need in flight on top: 0 where they are near. */
uint64_t transfer__far_rounds_us(const struct swarm *swarm);

/* ---- avoid.c ---- */

/* A node did not deliver what it was said to have: a segment, or AVOID_WHOLE. The oldest of
 * AVOIDS_MAX such findings is forgotten. */
void transfer__avoid(struct transfer *transfer, struct swarm *swarm, uint32_t segment,
                     uint16_t node);
/* The latest finding about a segment: what a WANT tells its keeper. NODE_NONE if there is none. */
uint16_t transfer__avoided(const struct transfer *transfer, const struct swarm *swarm,
                           uint32_t segment);
/* Is a referral to this node worth nothing? True also of a node that lied. */
bool transfer__avoids(const struct transfer *transfer, const struct swarm *swarm, uint32_t segment,
                      uint16_t node);
/* It takes part in the blob (again), or its slot gets another owner. */
void transfer__avoid_no_more(struct swarm *swarm, uint16_t node);

/* ---- board.c ---- */

/* Announces us at the blob's keepers. */
void transfer__announce(struct transfer *transfer, struct blob *blob, bool leaving);
void transfer__on_announce(struct transfer *transfer, uint16_t from,
                           const struct wire_announce *announce);
void transfer__boards_forget(struct transfer *transfer, uint16_t node);
void transfer__boards_sweep(struct transfer *transfer);
void transfer__boards_close(struct transfer *transfer);

/* ---- select.c ---- */

struct choice {
    uint32_t piece;
    uint16_t node;
};
/* Who may be asked. Small zones merge: then some neighbours are beyond a zone border. */
enum choice_reach { CHOOSE_ANY = 1, CHOOSE_NEAR, CHOOSE_FAR };
/* The next piece to ask for and whom of those in `reach`; false if there is none. */
bool transfer__select(struct transfer *transfer, struct blob *blob, enum choice_reach reach,
                      struct choice *out);
/* Endgame: a piece under way for long, and another that has it; false if there is none. */
bool transfer__select_duplicate(struct transfer *transfer, struct blob *blob, struct choice *out);
/* Another free holder of a piece than those asked; NODE_NONE if none. */
uint16_t transfer__other_holder(struct transfer *transfer, struct blob *blob, uint32_t piece);
/* Beyond a zone border? */
bool transfer__is_far(const struct peer *peer);
/* Most requests to one neighbour at a time. */
uint32_t transfer__neighbour_requests_max(const struct transfer *transfer, const struct blob *blob);

/* ---- request.c ---- */

struct request {
    struct blob *blob;
    uint32_t piece;
    uint16_t node;
    uint8_t flags; /* enum wire_piece_flags */
    uint8_t tries; /* sent without an answer */
    bool answered; /* QUEUED, or bytes came */
    bool started;  /* bytes came */
    bool received; /* all bytes are here, being verified */
    bool hedged;   /* asked elsewhere, too */
    bool hedge;    /* is that other */
    uint32_t serial;
    uint32_t bytes;
    uint64_t sent_us;   /* first */
    uint64_t asked_us;  /* the message, once there was a session */
    uint64_t resend_us; /* next */
    uint64_t heard_us;  /* last answer or bytes */
    uint64_t due_us;    /* by its first QUEUED it has begun long before; 0: none came */
    uint64_t started_us;
};
/* Asks for a piece. False: no room. */
bool transfer__request(struct transfer *transfer, struct blob *blob, const struct choice *choice,
                       uint8_t flags);
struct request *transfer__request_find(const struct transfer *transfer, const struct blob *blob,
                                       uint32_t piece, uint16_t node);
/* Forgets a request; `cancel`: tells the other side. */
void transfer__request_end(struct transfer *transfer, struct request *request, bool cancel);
/* Ends the requests of a blob, or those for a piece of it, or to a node; NULL, piece_count or
 * NODE_NONE: any. */
void transfer__requests_end(struct transfer *transfer, const struct blob *blob, uint32_t piece,
                            uint16_t node);
/* A node gives nothing of a blob: its requests end, and whoever named it hears of that. */
void transfer__requests_fail(struct transfer *transfer, struct blob *blob, uint16_t node);
/* Nobody reads the blob any more: ends what is not ours to bring in for others. */
void transfer__requests_unwanted(struct transfer *transfer, struct blob *blob);
/* A session to a node is up: what waited for it is asked now. */
void transfer__requests_linked(struct transfer *transfer, uint16_t node);
/* The session is gone: what it was to bring is asked elsewhere at once. */
void transfer__requests_lost(struct transfer *transfer, uint16_t node);
void transfer__requests_fill(struct transfer *transfer);
void transfer__requests_tick(struct transfer *transfer);
void transfer__on_queued(struct transfer *transfer, uint16_t from, const struct wire_piece *piece);
void transfer__on_busy(struct transfer *transfer, uint16_t from, const struct wire_piece *piece);

/* ---- upload.c ---- */

/* Room beyond the queue's limit for imports of other zones: they must not starve. */
#define UPLOADS_EXTRA 8

/* Uploads of one peer, queued and running (P-8). Nobody asks for more: refused, it would leave the
 * other alone for a while, and two nodes with pieces of 128 KiB used half of their links. */
#define UPLOADS_PER_PEER 16

/* Running at a time, of config.upload_slots. */
#define UPLOADS_RUNNING_MAX(slots) (6 * (slots))

struct upload {
    uint64_t id;
    struct blob *blob;
    struct peer *peer; /* of node, which it keeps in use; NULL: NODE_NONE */
    uint32_t piece, serial;
    uint16_t node;
    bool running, cancelled, lease;
    uint64_t queued_us, started_us;
};
/* Serial 0 never names a request. */
void transfer__on_request(struct transfer *transfer, uint16_t from, const struct wire_piece *piece);
void transfer__on_cancel(struct transfer *transfer, uint16_t from, const struct wire_piece *piece);
void transfer__uploads_start(struct transfer *transfer);
/* Until what is queued and running now is sent: whom to ask is chosen by it, so it must tell a node
 * with one upload running from one with all slots taken. */
uint32_t transfer__upload_wait_us(const struct transfer *transfer);
/* Lets go of uploads to a node, of a blob, or of one piece; NULL, piece_count, NODE_NONE: any. */
void transfer__uploads_end(struct transfer *transfer, const struct blob *blob, uint32_t piece,
                           uint16_t node);
void transfer__uploads_tick(struct transfer *transfer);
/* The session with a node ended: if the node was started anew, its serials begin anew, too, and are
 * no late repeats of what it was served before. */
void transfer__served_forget(struct transfer *transfer, uint16_t node);
/* Tells the asker of a queued upload BUSY and forgets it. */
void transfer__upload_refuse(struct transfer *transfer, struct upload *upload);

#endif
