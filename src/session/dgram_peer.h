/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The peers a node exchanges datagrams with: found by mesh address or, for received data, by the
 * index we gave out; bounded, least recently used dropped; each with at most one due time. What the
 * keys and times mean is dgram_exchange.c's.
 *
 * A peer is *known* once it proved that it receives at its address, or when we wrote to it first.
 * Others, of which we only saw a hello, are few and the oldest of them goes first: whoever forges
 * source addresses cannot push known peers out.
 */
#ifndef SHOAL_SESSION_DGRAM_PEER_H
#define SHOAL_SESSION_DGRAM_PEER_H

#include <uthash.h>

#include "dgram_format.h"
#include "replay.h"
#include "session.h"

/* Pairwise keys of one exchange. */
struct dgram_keys {
    uint8_t send_key[32];
    uint8_t receive_key[32];
    uint32_t local_index;  /* the peer writes it into what it sends us */
    uint32_t remote_index; /* we write it into what we send */
    uint32_t secret_tag;   /* cluster secret they were made under */
    uint16_t version_minor;
    bool takes_bundles;          /* by its features */
    uint8_t hello_ephemeral[32]; /* of the hello we answered; zero when the hello was ours */
    struct identity_key identity;
    struct replay_window window;
    uint64_t send_counter;
    uint64_t created_us;
};

/* Keys that we answered a hello with: used once the peer shows by a datagram under them that it got
 * our ack, that is, that it receives at its address and is not a replay. */
struct dgram_candidate {
    struct dgram_keys keys;
    uint8_t ack[DGRAM_HELLO_BYTES]; /* sent again when the same hello comes again */
    bool superseded;                /* our own hello came about meanwhile: for receiving only */
    uint64_t due_us;                /* then forgotten */
};

/* Messages behind a hello: 16, the oldest is dropped. */
#define DGRAM_QUEUE_MAX 16
struct dgram_queue {
    struct {
        uint8_t *bytes;
        size_t byte_count;
    } items[DGRAM_QUEUE_MAX];
    unsigned first;
    unsigned count;
};

/* Our own hello to a peer, with what waits for its answer. */
struct dgram_pending {
    uint8_t ephemeral_secret[32];
    uint8_t hello[DGRAM_HELLO_BYTES];
    uint32_t local_index;
    uint32_t secret_tag;
    unsigned tries;
    bool is_void; /* no hello of ours is out: the next try makes a new one */
    uint64_t sent_us;
    uint64_t due_us; /* next try, or the end */
    struct dgram_queue queue;
};

struct dgram_peer {
    struct peer_addr addr; /* mesh address */
    struct node_id id;
    uint32_t slot;
    bool known;
    struct dgram_keys *active;   /* what we send under; NULL before the first exchange */
    struct dgram_keys *previous; /* still received under for a while */
    struct dgram_candidate *candidate;
    struct dgram_pending *pending;
    uint64_t previous_due_us;
    uint64_t renew_after_us; /* no new try to replace working keys before */
    uint64_t checked_us;     /* last look at the deny list */
    uint64_t used_us;
    uint64_t due_us; /* earliest of the above and of idle expiry */
    uint64_t due_sequence;
    uint32_t heap_index;
    struct dgram_peer *prev; /* list of known or of unknown peers, most recent first */
    struct dgram_peer *next;
    UT_hash_handle hh;
};

/* Low bits of an index are the peer's slot, the rest counts up from a random start. */
#define DGRAM_SLOT_BITS 14
#define DGRAM_SLOT_MASK ((1u << DGRAM_SLOT_BITS) - 1)
static_assert(MEMBERS_MAX == 1u << DGRAM_SLOT_BITS, "every peer has a slot");
/* Hellos from this many addresses may await their proof at once (a guess: 1 s of the hello budget).
 */
#define DGRAM_UNKNOWN_MAX 1024
#define DGRAM_KNOWN_MAX   (MEMBERS_MAX - DGRAM_UNKNOWN_MAX)
/* Messages in all queues together: 5 MiB at most. */
#define DGRAM_QUEUED_MAX 4096
/* Peers silent for this long are forgotten. */
#define DGRAM_IDLE_US 7200000000ULL

struct dgram_table {
    struct env env;
    struct dgram_peer *by_addr; /* uthash */
    uint8_t hash_key[16];
    struct dgram_peer **slots;
    uint32_t *free_slots;
    struct dgram_peer **heap; /* binary heap by (due_us, due_sequence) */
    uint32_t slot_capacity;
    uint32_t free_count;
    uint32_t peer_count;
    struct dgram_peer *known; /* utlist, most recently used first */
    struct dgram_peer *unknown;
    uint32_t known_count;
    uint32_t unknown_count;
    uint32_t generation;
    uint32_t queued_count;
    uint64_t sequence;
    struct dgram_stats *stats; /* of the owner; borrowed */
};

/* Starts empty; the generation of indices and the hash key come from env->random. */
void dgram__table_init(struct dgram_table *table, const struct env *env, struct dgram_stats *stats);
/* Drops every peer and frees all. */
void dgram__table_close(struct dgram_table *table);

/* NULL when there is none. */
struct dgram_peer *dgram__peer_find(const struct dgram_table *table, const struct peer_addr *addr);
/* The peer in the slot of an index we gave out, or NULL; the caller compares the whole index. */
struct dgram_peer *dgram__peer_at(const struct dgram_table *table, uint32_t local_index);
/* Makes a peer for an address that has none, dropping another at the maximum. 0 or E_NO_MEMORY. */
MUST_USE int dgram__peer_add(struct dgram_table *table, const struct peer_addr *addr, bool known,
                             uint64_t now_us, struct dgram_peer **out);
/* Forgets a peer, its keys and its queue. */
void dgram__peer_drop(struct dgram_table *table, struct dgram_peer *peer);
/* Notes a use, for the choice of whom to drop. */
void dgram__peer_use(struct dgram_table *table, struct dgram_peer *peer, uint64_t now_us);
/* Makes an unknown peer known. */
void dgram__peer_know(struct dgram_table *table, struct dgram_peer *peer, uint64_t now_us);
/* A fresh index for this peer. */
uint32_t dgram__peer_index(struct dgram_table *table, const struct dgram_peer *peer);
/* Call after any change of a peer's times: finds its due time anew. */
void dgram__peer_schedule(struct dgram_table *table, struct dgram_peer *peer);
/* The peer that is due first, or NULL. */
struct dgram_peer *dgram__peer_due(const struct dgram_table *table);

/* Allocates a zeroed part of a peer. NULL on exhaustion. */
void *dgram__part_new(const struct dgram_table *table, size_t part_bytes);
/* Wipes and frees a part; NULL is fine. */
void dgram__part_free(const struct dgram_table *table, void *part, size_t part_bytes);
/* Ends a pending hello, dropping what waits in its queue. */
void dgram__pending_free(struct dgram_table *table, struct dgram_peer *peer);
/* Makes `keys` (taken) the active ones; the former active ones become the previous. */
void dgram__keys_install(struct dgram_table *table, struct dgram_peer *peer,
                         struct dgram_keys *keys, uint64_t previous_due_us);

/* Copies a message behind the others; at DGRAM_QUEUE_MAX the oldest goes. 0, E_FULL, E_NO_MEMORY.
 */
MUST_USE int dgram__queue_push(struct dgram_table *table, struct dgram_queue *queue,
                               const uint8_t *msg, size_t msg_bytes);
/* Oldest message (borrowed) or NULL. */
const uint8_t *dgram__queue_first(const struct dgram_queue *queue, size_t *msg_bytes);
/* Drops the oldest message; the queue is not empty. */
void dgram__queue_pop(struct dgram_table *table, struct dgram_queue *queue);

/* Asserts lists, slots, heap and hash agree; for tests. */
void dgram__table_check(const struct dgram_table *table);

#endif
