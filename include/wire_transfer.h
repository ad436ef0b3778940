/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of swarms and leases (0x30..0x5f), encoded and decoded over wire.h. All travel as
 * unreliable datagrams; what each means for loss, repetition and order is said at its type. Piece
 * bytes are no message: they flow over the pair's TCP session.
 *
 * ALGORITHMS §3.2 names them; where several messages have the same fields they share a struct, so
 * that one codec serves them and a fuzzer reaches all of it.
 */
#ifndef SHOAL_WIRE_TRANSFER_H
#define SHOAL_WIRE_TRANSFER_H

#include "digest.h"
#include "limits.h"
#include "wire.h"

enum wire_transfer_type {
    /* wire_announce: "I pull (or hold) this blob", to the blob's keepers of the zone. Repeated
       while true; answered by PEERS. */
    WIRE_TRANSFER_ANNOUNCE = WIRE_TRANSFER_FIRST,
    /* wire_peers: a random sample of those who announced. */
    WIRE_TRANSFER_PEERS,
    /* wire_have: opens the relation of two neighbours and proves knowledge of the digest (ACL-9).
       Repeated until the other's HELLO comes. */
    WIRE_TRANSFER_HELLO,
    /* wire_have: what the sender has now. State, not change: a later one replaces an earlier one of
       the same page; a gap in `sequence` makes the receiver ask by RESYNC if there is more than one
       page. */
    WIRE_TRANSFER_HAVE,
    WIRE_TRANSFER_RESYNC, /* wire_note: send me every page */
    WIRE_TRANSFER_BYE,    /* wire_note: not (any more) your neighbour for this blob; arg: why */
    /* wire_piece: send me this piece over our session. Repeated with the same serial until
       QUEUED, BUSY or the bytes come. */
    WIRE_TRANSFER_REQUEST,
    WIRE_TRANSFER_QUEUED, /* wire_piece: it will come, in about wait_us */
    WIRE_TRANSFER_BUSY,   /* wire_piece: it will not; try again in wait_us, or elsewhere */
    WIRE_TRANSFER_CANCEL, /* wire_piece: no longer wanted */
    /* wire_lease: may I import this segment (level 0: into the zone, asked of a zone keeper; level
       1: into the home keeper's view: read the origin or cross the border). Repeating it is
       harmless: who has the lease gets the same answer. */
    WIRE_TRANSFER_WANT,
    WIRE_TRANSFER_GRANT,   /* wire_lease: yes; arg: how many ms without RENEW end it */
    WIRE_TRANSFER_PENDING, /* wire_lease: another has it (contact, if known); ask again in arg ms */
    WIRE_TRANSFER_REFER,   /* wire_lease: the contact has the segment; also unasked, to those who
                              wait */
    WIRE_TRANSFER_RENEW,   /* wire_renew: these leases are alive */
    WIRE_TRANSFER_HOLD,    /* wire_lease: I have the segment. Repeated until HELD. */
    WIRE_TRANSFER_HELD,    /* wire_lease: noted */
    WIRE_TRANSFER_RETURN,  /* wire_lease: I give the lease back; arg: origin wants arg ms of rest */
    WIRE_TRANSFER_REPLICA, /* wire_lease: keeper to keepers of rank 2, 3: state arg of contact */
    WIRE_TRANSFER_END,     /* one past the last */
};

/* Where to reach a node. Hints (DHT-9): the session proves the id. */
struct wire_contact {
    struct node_id id;
    struct peer_addr addr;
};

struct wire_announce {
    struct blob_key blob;
    uint8_t completeness; /* 255: all of it */
    bool leaving;         /* forget me for this blob */
};

/* 16 contacts of at most 56 bytes leave room for the rest in one datagram. */
#define WIRE_PEERS_MAX 16
struct wire_peers {
    struct blob_key blob;
    uint32_t others; /* how many others announced, may be more than are listed */
    uint32_t contact_count;
    struct wire_contact contacts[WIRE_PEERS_MAX];
};

/* Bytes of one page of a bitfield: two pages (have, injected) and the rest fit a datagram. */
#define WIRE_PAGE_BYTES 448
static_assert(8 * WIRE_PAGE_BYTES == PIECES_TOLD_AT_ONCE, "large blobs are cut for one page");

enum wire_have_flags {
    WIRE_HAVE_REPLY = 1,    /* HELLO: answers yours, needs no answer */
    WIRE_HAVE_COMPLETE = 2, /* the sender has every piece */
    WIRE_HAVE_WANTS = 4,    /* the sender lacks pieces and pulls them */
    WIRE_HAVE_REFERRED = 8, /* HELLO: a keeper sent me; take me even if you have many */
};
/* Times over a minute do not pass: clamp them. */
#define WIRE_WAIT_US_MAX 60000000u
struct wire_have {
    struct blob_key blob;
    uint8_t flags;
    uint8_t proof[DIGEST_PROOF_BYTES]; /* HELLO only */
    uint32_t sequence;                 /* per sender and receiver, +1 per HELLO or HAVE */
    uint32_t wait_us;                  /* expected wait in the sender's upload queue */
    uint32_t lease_us; /* what a segment would take at the sender's best rate; 0 unknown */
    uint32_t took_us;  /* mean time its leases took, from grant to held; 0 unknown */
    uint8_t fallbacks; /* origin reads without lease the sender has running: a mesh-wide cap */
    uint32_t first_byte;
    uint32_t page_bytes; /* of both fields below, <= WIRE_PAGE_BYTES */
    uint8_t have[WIRE_PAGE_BYTES];
    uint8_t injected[WIRE_PAGE_BYTES]; /* pieces that exist in, or are coming into, the zone */
};

enum wire_note_reason {
    WIRE_BYE_UNKNOWN_BLOB = 1, /* not open here */
    WIRE_BYE_FULL,             /* enough neighbours */
    WIRE_BYE_DONE,             /* nothing more to give or take */
    WIRE_BYE_LEAVING,          /* draining */
    WIRE_BYE_REFUSED,          /* no valid proof, or distrusted */
};
struct wire_note {
    struct blob_key blob;
    uint8_t arg;
};

enum wire_piece_flags {
    WIRE_PIECE_IMPORT = 1,  /* under a lease or a keeper's referral, with proof: no neighbours */
    WIRE_PIECE_LEASE = 2,   /* crosses a border for a whole zone: goes first */
    WIRE_PIECE_MISSING = 4, /* BUSY: I do not have it, whatever I announced */
    WIRE_PIECE_UNKNOWN = 8, /* BUSY: I have nothing of the blob, or nothing for you */
};
struct wire_piece {
    struct blob_key blob;
    uint32_t piece;
    uint32_t serial; /* of the request, growing per requester: tells a repeat from a new request */
    uint8_t flags;
    uint32_t wait_us;                  /* QUEUED, BUSY */
    uint8_t proof[DIGEST_PROOF_BYTES]; /* REQUEST with WIRE_PIECE_IMPORT */
};

enum wire_lease_flags {
    WIRE_LEASE_FORWARDED = 1, /* WANT: contact is who asks, the sender a zone keeper */
    WIRE_LEASE_AVOID = 2,     /* WANT: contact is a holder that did not deliver */
    WIRE_LEASE_CONTACT = 4,   /* contact is set */
    /* How often this blob may leave the origin, where the asker's registry says otherwise than what
       holds for the mesh; neither, both, or a peer that knows neither: the keeper's own
       configuration. With ..._ZONE, `zone` is the asker's zone by its labels, never merged, and
       stays on whatever is said of that lease. */
    WIRE_LEASE_COPIES_MESH = 8,
    WIRE_LEASE_COPIES_ZONE = 16,
    WIRE_LEASE_COPIES = WIRE_LEASE_COPIES_MESH | WIRE_LEASE_COPIES_ZONE,
    /* PENDING: bytes of it have come to who brings it in, so the registry answers. A peer that does
       not know it says nothing, and is not understood. */
    WIRE_LEASE_MOVES = 32,
};
enum wire_lease_level {
    WIRE_LEVEL_ZONE = 0, /* into a zone */
    WIRE_LEVEL_HOME = 1, /* into the mesh */
};
enum wire_lease_state { /* REPLICA's arg */
                        WIRE_LEASE_RETURNED = 0,
                        WIRE_LEASE_TAKEN = 1,
                        WIRE_LEASE_HELD = 2,
};
struct wire_lease {
    struct blob_key blob;
    uint32_t segment;
    uint8_t level; /* enum wire_lease_level */
    uint8_t flags;
    uint64_t zone;       /* WANT and HOLD at level 1, REPLICA: the zone it is for */
    uint32_t epoch;      /* of the lease at `level` */
    uint32_t zone_epoch; /* level 1: of the zone lease it rests on, handed through */
    uint32_t arg;        /* see the types */
    struct wire_contact contact;
};

#define WIRE_RENEWALS_MAX 32
struct wire_renewal {
    uint32_t segment;
    uint32_t epoch;
    uint32_t bytes; /* had so far, so that a keeper sees whether it moves */
};
struct wire_renew {
    struct blob_key blob;
    uint8_t level;
    uint64_t zone;
    uint32_t count;
    struct wire_renewal renewals[WIRE_RENEWALS_MAX];
};

struct wire_transfer {
    unsigned type; /* enum wire_transfer_type; tells which member of `of` counts */
    union {
        struct wire_announce announce;
        struct wire_peers peers;
        struct wire_have have;
        struct wire_note note;
        struct wire_piece piece;
        struct wire_lease lease;
        struct wire_renew renew;
    } of;
};

/*
 * Writes `message` to out[capacity], *used bytes of it; at most MESSAGE_BYTES_MAX for any message
 * within the limits above. 0; E_TOO_LARGE (buffer), E_INVALID (unknown type, or a count, level or
 * page over its limit: nothing is written).
 */
MUST_USE int wire_transfer_encode(const struct wire_transfer *message, uint8_t *out,
                                  size_t capacity, size_t *used);
/*
 * Reads one message. 0; E_NOT_FOUND (a type this version does not know), E_MALFORMED, E_TRUNCATED,
 * E_TOO_LARGE. Unused parts of bounded arrays are undefined; *out is undefined after an error.
 */
MUST_USE int wire_transfer_decode(const uint8_t *msg, size_t msg_bytes, struct wire_transfer *out);

#endif
