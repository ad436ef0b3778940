/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of the gossip core. Every message has the same head, then fields by type, and may carry
 * news: full records of members and short claims about them. Labels are sent once per message and
 * referred to by index, so that about twenty records fit one datagram.
 *
 *   PING        are you there?                     view, news
 *   ACK         answer to PING                     view, news
 *   PING_REQ    ping this address for me           target            (SWIM §3.1)
 *   RELAYED     answer to PING_REQ                 answered          (nack: Lifeguard §IV.A)
 *   NEWS        nothing but news                   news
 *   SYNC_CHECK  do our views agree? (also: join)   view, own record
 *   SYNC_STATE  answer to SYNC_CHECK               view, own record
 *   SYNC_DIGEST hash of each id range              ranges
 *   SYNC_DIFF   ranges that differ, members there  leaves, counts
 *   SYNC_PAGE   what I know in these ranges        leaves, summaries
 *   SYNC_RECORDS what you lack there, what I want  more, wants, news
 *
 * A leaf is the range of ids with the same first byte. Senders that want room for a longer answer
 * pad their request with one more field, which decoders skip like any field of a newer sender.
 */
#ifndef SHOAL_WIRE_GOSSIP_H
#define SHOAL_WIRE_GOSSIP_H

#include "member.h"
#include "wire.h"

enum wire_gossip_type {
    WIRE_GOSSIP_PING = WIRE_GOSSIP_FIRST,
    WIRE_GOSSIP_ACK,
    WIRE_GOSSIP_PING_REQ,
    WIRE_GOSSIP_RELAYED,
    WIRE_GOSSIP_NEWS,
    WIRE_GOSSIP_SYNC_CHECK,
    WIRE_GOSSIP_SYNC_STATE,
    WIRE_GOSSIP_SYNC_DIGEST,
    WIRE_GOSSIP_SYNC_DIFF,
    WIRE_GOSSIP_SYNC_PAGE,
    WIRE_GOSSIP_SYNC_RECORDS,
};

/* What fits MESSAGE_BYTES_MAX at the smallest encoding of each item, rounded up. */
#define WIRE_GOSSIP_LABELS_MAX    48
#define WIRE_GOSSIP_RECORDS_MAX   24  /* at least 50 bytes each */
#define WIRE_GOSSIP_CLAIMS_MAX    80  /* at least 14 bytes each */
#define WIRE_GOSSIP_SUMMARIES_MAX 112 /* 11..19 bytes each */
#define WIRE_GOSSIP_WANTS_MAX     120 /* 9 bytes each */
#define WIRE_GOSSIP_ACCUSERS_MAX  4   /* Lifeguard §IV.B: an accuser and three confirmations */
#define WIRE_GOSSIP_LEAVES        256
#define WIRE_GOSSIP_LEAF_BYTES    (WIRE_GOSSIP_LEAVES / 8)
/* Head and empty news: what a message takes before its items, at most. */
#define WIRE_GOSSIP_HEAD_BYTES_MAX 33

/* A member as it described itself. Indexes count labels from 1; 0 is the empty label. */
struct wire_gossip_record {
    struct peer_addr addr; /* the id follows from it (PEER-4) and is not sent */
    struct identity_key key;
    uint8_t region_index, zone_index, vswitch_index;
    uint64_t incarnation;
    enum member_state state; /* ALIVE, LEAVING or LEFT */
    uint8_t capacity_class;
    uint8_t load;
    uint16_t version_minor;
};

/*
 * What somebody says about a member. SUSPECT: each accuser's own probe of it failed. DEAD: the
 * sender of the message confirmed it by probes of its own; accusers are not sent.
 */
struct wire_gossip_claim {
    struct peer_addr addr;
    uint64_t incarnation;
    enum member_state state; /* SUSPECT or DEAD */
    uint8_t accuser_count;
    struct peer_addr accusers[WIRE_GOSSIP_ACCUSERS_MAX];
};

struct wire_gossip_news {
    uint8_t label_count, record_count, claim_count;
    struct label labels[WIRE_GOSSIP_LABELS_MAX];
    struct wire_gossip_record records[WIRE_GOSSIP_RECORDS_MAX];
    struct wire_gossip_claim claims[WIRE_GOSSIP_CLAIMS_MAX];
};

/* One member in a SYNC_PAGE. Ascending by prefix without repeats. */
struct wire_gossip_summary {
    uint64_t id_prefix; /* first 8 bytes of the id, big-endian */
    uint64_t incarnation;
    enum member_state state; /* ALIVE (in any way), DEAD or LEFT */
};

/* Any gossip message; fields not named for its type are ignored by the encoder and left alone by
 * the decoder. */
struct wire_gossip {
    enum wire_gossip_type type;
    uint32_t seq; /* answers carry the request's */
    /* The receiver as the sender knows it: lets it refute and introduce itself at once. */
    uint64_t known_incarnation;
    enum member_state known_state;

    struct peer_addr target; /* PING_REQ */
    bool answered;           /* RELAYED */
    uint32_t view_check;     /* PING, ACK: of the view, to see that views have come apart */
    uint64_t view_hash;      /* SYNC_CHECK, SYNC_STATE: over all live members */
    uint32_t view_count;
    uint32_t ranges[WIRE_GOSSIP_LEAVES];    /* SYNC_DIGEST */
    uint8_t leaves[WIRE_GOSSIP_LEAF_BYTES]; /* SYNC_DIFF, SYNC_PAGE: bit i % 8 of byte i / 8 */
    uint8_t counts[WIRE_GOSSIP_LEAVES];     /* SYNC_DIFF: live members, at most 255; 0 where not
                                               in `leaves` */
    uint8_t summary_count;                  /* SYNC_PAGE */
    struct wire_gossip_summary summaries[WIRE_GOSSIP_SUMMARIES_MAX];
    bool more; /* SYNC_RECORDS: further ones answer the same page */
    uint8_t want_count;
    uint64_t wants[WIRE_GOSSIP_WANTS_MAX]; /* id prefixes */
    struct wire_gossip_news news; /* PING, ACK, NEWS, SYNC_CHECK, SYNC_STATE, SYNC_RECORDS */
};

/* True if the bit of `leaf` is set. */
bool wire_gossip_leaf_get(const uint8_t leaves[WIRE_GOSSIP_LEAF_BYTES], unsigned leaf);
/* Sets the bit of `leaf`. */
void wire_gossip_leaf_set(uint8_t leaves[WIRE_GOSSIP_LEAF_BYTES], unsigned leaf);

/* Exact encoded size of one item, for filling a message up to a budget. */
size_t wire_gossip_record_bytes(const struct wire_gossip_record *record);
size_t wire_gossip_claim_bytes(const struct wire_gossip_claim *claim);
size_t wire_gossip_label_bytes(const struct label *label);
size_t wire_gossip_summary_bytes(const struct wire_gossip_summary *summary);

/*
 * Encodes into out[capacity], which is then padded with zeros to `pad_to` bytes (give or take 3)
 * if it is shorter. Bytes written into *used. 0, or E_TOO_LARGE.
 */
MUST_USE int wire_gossip_encode(const struct wire_gossip *message, size_t pad_to, uint8_t *out,
                                size_t capacity, size_t *used);

/*
 * Decodes a message of this module into `out`. 0; E_NOT_FOUND: a type we do not know;
 * E_MALFORMED, E_TRUNCATED, E_TOO_LARGE: refused, `out` undefined. Labels hold only bytes allowed
 * in labels; label indexes and the order of summaries have been checked.
 */
MUST_USE int wire_gossip_decode(const uint8_t *msg, size_t msg_bytes, struct wire_gossip *out);

#endif
