/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transfer object and what all its parts use: nodes and their places, links, memory, sending,
 * results. Parts: nodes.c (who there is), placement.c (zones and keepers), link.c (sessions and
 * silence), transfer.c (public calls, dispatch, time).
 *
 * Nodes are named by their slot in one table: two bytes wherever a node is referred to. Slot 0 is
 * this node. When a node goes, transfer__node_gone takes it out of every part before its slot is
 * used again. A member gets a slot when it is first dealt with; until then two bytes by its place
 * in the directory are all that is kept of it.
 */
#ifndef SHOAL_TRANSFER_CORE_H
#define SHOAL_TRANSFER_CORE_H

#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "directory.h"
#include "env.h"
#include "log.h"
#include "member.h"
#include "piece_map.h"
#include "transfer.h"
#include "wire_transfer.h"

#define MS 1000u    /* microseconds */
#define S  1000000u /* microseconds */

/* Keepers of a segment per zone (ALGORITHMS §3.3). */
#define KEEPERS 3
/* Zones with fewer live members merge (ALGORITHMS §3.5). */
#define ZONE_MEMBERS_MIN 6
/* Nodes that talk to us before gossip has told of them; at most this many, forgotten when quiet. */
#define STRANGERS_MAX 1024
/* Numbers of topologies (region, zone, vSwitch) in the directory; those above count as our own. */
#define TOPOLOGIES_MAX  8192
#define TOPOLOGY_UNHELD UINT16_MAX

#define NODE_NONE 0xffffu
#define NODE_SELF 0u

static_assert(MEMBERS_MAX + STRANGERS_MAX < NODE_NONE, "a slot fits 16 bits");

struct blob;
struct desk;
struct fetch;
struct home;
struct board;
struct lease;
struct reader;
struct request;
struct upload;

/* No more than a line of the processor's cache: each message reads that of its sender. */
struct node {
    struct node_id id;
    struct peer *peer; /* NULL until it is dealt with */
    struct peer_addr addr;
    uint16_t place;    /* of a member in the directory; PLACE_NONE: a stranger */
    uint16_t topology; /* number in the directory */
    uint8_t state;     /* enum member_state; UNKNOWN: a stranger */
    bool used;
};
static_assert(sizeof(struct node) <= 64, "a node is a line");

/* In the table by id: part of the id's hash, so that who has another is passed by without a look at
 * its slot. */
struct node_entry {
    uint16_t slot; /* NODE_NONE: empty */
    uint16_t tag;
};

enum link_state {
    LINK_NONE = 1,   /* no session; ends by a wish for one, or by the other side's */
    LINK_CONNECTING, /* the host was asked for one; ends by its answer */
    LINK_UP,         /* pieces can flow; ends by transfer_session_down */
};

/* Round trips of control messages; all 0 while none is known. */
struct rtt {
    uint32_t mean_us, spread_us; /* SRTT and RTTVAR of RFC 6298 */
    uint32_t least_us;           /* without queues */
    uint8_t guesses; /* so many answers, all to repeated questions: at most so long; 0: surer */
};

/* What this node remembers of a node it deals with. */
struct peer {
    uint16_t node;
    uint8_t distance; /* enum distance; here, for choosing whom to ask asks it all the time */
    bool released;    /* RELEASE was given; a new use takes it back */
    enum link_state link;
    uint32_t requests;   /* ours to it */
    uint32_t uploads;    /* to it, queued and running */
    uint32_t running;    /* of those */
    uint32_t neighbours; /* blobs in which it is our neighbour */
    uint64_t heard_us;   /* last sign of life */
    uint64_t served_us;  /* last upload began */
    uint64_t silent_until_us;
    uint64_t used_us;
    struct peer *next, *prev;
    uint64_t connect_due_us; /* ask the host for a session then; UINT64_MAX: not wanted */
    uint64_t connect_us;     /* asked at */
    uint64_t retry_us;       /* not before */
    uint8_t connect_fails;   /* in a row */
    struct rtt rtt;
};

struct zone {
    uint64_t id;
    uint32_t first, count; /* in nodes.placed, sorted by node id */
};

struct nodes {
    /* Those we have met: members that were asked, named or heard, and strangers. */
    struct node *slots;
    struct node_entry *by_id; /* open table of used slots */
    uint64_t by_id_seed;
    uint32_t by_id_size; /* a power of two */
    uint32_t slot_count; /* high-water mark */
    uint32_t slot_capacity;
    uint32_t count;
    uint32_t live; /* live members, self included unless draining */
    uint32_t stranger_count;
    struct directory *directory;
    /* All members: two bytes each, by place; see transfer__member_topology. */
    uint16_t *members;
    uint32_t member_bound, member_count;
    uint16_t *topology_zone; /* by number; TOPOLOGY_UNHELD: we have not met it */
    uint32_t topology_bound;
    uint16_t own_topology;
    /* Placement, made anew when `stale`. */
    bool stale;
    bool plain;       /* no zones are merged: one member more or less can be put in or taken out */
    uint16_t *placed; /* places of live members zone by zone */
    struct zone *zones;
    uint32_t zone_count;
    uint32_t capacity_placed;
};

/* Results waiting for the host. */
struct results {
    struct transfer_result *ring;
    uint32_t capacity, first, count;
};

/* Lease messages of this node to itself, taken up by the pump. */
struct loopback {
    struct wire_transfer *ring;
    uint32_t capacity, first, count;
};

#define RATE_SLOTS   16
#define RATE_SLOT_US (100u * MS)
/* A rate is believed after so long. Pulls over fast cards last a second or two: with 800 ms they
 * kept half of the requests in flight that they could have, for half of the time. */
#define RATE_SETTLED_US (3 * RATE_SLOT_US)
/* Bytes had in each of the last slots of time: how fast this node gets what it asks for. */
struct rate {
    uint64_t best;     /* best rate seen, bytes/s */
    uint64_t slot;     /* number of the current one */
    uint64_t asked_us; /* since when something is asked for */
    uint64_t started_us;
    uint64_t bytes[RATE_SLOTS];
};

/* What nearly each call reads stands first and close together: where thousands of nodes share a
 * processor, none of it is in its cache. Tables that are looked up seldom are at the end. */
struct transfer {
    const struct env *env;
    uint64_t now_us;
    uint64_t deadline_us;
    uint64_t tick_due_us, sweep_due_us;
    uint64_t connect_due_us; /* earliest of the peers' */
    uint64_t heard_us;       /* any message at all */
    uint64_t mesh_quiet_us;  /* since when asked keepers have all been silent; 0: not so */

    struct blob *active, *active_last; /* with a swarm */
    struct reader *readers;
    struct results results;
    struct loopback loopback;

    bool draining;
    bool reach_stale; /* nodes moved: blobs that cross no border look at theirs again */
    bool closing;     /* being freed: not a word to anybody */
    bool pump_again;
    uint32_t request_count;
    struct request *requests;
    uint32_t inflight;       /* requests whose bytes are not all here */
    uint32_t gap_us;         /* mean time between 64 KiB of one piece */
    uint64_t inflight_bytes; /* of those in flight */
    uint64_t fill_turn;
    uint64_t ahead_bytes; /* config.ahead_bytes, or less while pieces do not stay; 0: no limit */

    struct lease *leases, *leases_last;
    struct fetch *fetches, *fetches_last;
    struct upload *uploads;
    uint32_t upload_count, uploads_running;
    uint32_t slots;     /* that were in force last; 0: none yet */
    uint32_t upload_us; /* mean time of an upload */
    uint32_t lease_count;
    uint32_t lease_budget;
    uint64_t lease_pause_us;   /* no new leases before */
    uint64_t lease_backoff_us; /* no new question before: the last ones were PENDING */
    uint64_t renew_due_us;
    uint32_t fetch_count;
    uint32_t fallbacks; /* fetches without a lease because of silence */
    uint32_t peer_count, desk_count, home_count, board_count;
    uint32_t liar_next;
    uint32_t request_serial;
    struct rtt usual_rtt[2]; /* in the own zone, beyond its border */

    struct nodes nodes;
    struct transfer_config config; /* defaults filled in */
    struct prng prng;
    struct rate rate;
    struct transfer_stats stats;

    struct peer *peers, *peers_last;
    struct blob *blobs_by_key;    /* uthash */
    struct blob *blobs_by_handle; /* uthash */
    uint32_t blob_count;
    uint32_t lease_slow_us;      /* how long the last pause for slowness was */
    uint32_t lease_pending_runs; /* PENDING answers in a row */
    uint32_t served_next;
    uint64_t ahead_cut_us; /* when ahead_bytes was made less */
    uint64_t next_id;      /* blob handles, readers, fetches, uploads */
    struct desk *desks, *desks_oldest, *desks_newest;
    struct home *homes, *homes_oldest, *homes_newest;
    struct board *boards;
    struct {
        uint16_t node;
        uint32_t serial;
    } served[64]; /* last requests done with, so that a late repeat is not served twice */
    struct {
        struct node_id id;
        uint64_t until_us;
    } liars[64];
};

/* ---- memory, messages, results (transfer.c) ---- */

/* env->alloc: realloc-shaped, NULL on exhaustion. */
void *transfer__alloc(const struct transfer *transfer, void *old, size_t bytes);
/* Zeroed memory, or NULL. */
void *transfer__zalloc(const struct transfer *transfer, size_t bytes);
/* NULL is fine. */
void transfer__release(const struct transfer *transfer, void *old);
/*
 * Grows *array (elements of `each` bytes) to hold at least `wanted`; *capacity follows. 0 or
 * E_NO_MEMORY with everything as it was.
 */
MUST_USE int transfer__grow(const struct transfer *transfer, void **array, uint32_t *capacity,
                            uint32_t wanted, size_t each);
/* Sends a message to a node; to ourselves only leases, through the loopback. Refused or without
 * memory: lost like a datagram. */
void transfer__send(struct transfer *transfer, uint16_t node, const struct wire_transfer *message);
/* Queues a result for the host. False without memory: nothing queued. */
bool transfer__push(struct transfer *transfer, const struct transfer_result *result);
/* The same with kind and node alone. */
bool transfer__push_peer(struct transfer *transfer, enum transfer_result_kind kind, uint16_t node);
/* Every public call begins with enter (time) and ends with leave (the pump: what may now be asked,
 * sent or begun, and the next deadline). */
void transfer__enter(struct transfer *transfer, uint64_t now_us);
void transfer__leave(struct transfer *transfer);
/* Something changed that may allow new requests, leases or uploads. */
void transfer__touch(struct transfer *transfer);
/* A node goes or changes its address: every part lets go of it. */
void transfer__node_gone(struct transfer *transfer, uint16_t node);

/* ---- nodes (nodes.c) ---- */

/* 0 or E_NO_MEMORY. Slot 0 becomes this node. */
MUST_USE int transfer__nodes_init(struct transfer *transfer);
void transfer__nodes_close(struct transfer *transfer);
/* Slot of an id; NODE_NONE if we have not met it, be it a member or not. */
uint16_t transfer__node_find(const struct transfer *transfer, const struct node_id *id);
/* Asks the processor for the id's place in the table, then for the slot that it leads to. */
void transfer__node_look_ahead(const struct transfer *transfer, const struct node_id *id,
                               bool slot);
/* Adds or changes a member; one that is not alive is passed over. 0, E_NO_MEMORY, E_FULL;
 * E_INVALID: its id stands at another address. */
MUST_USE int transfer__node_member(struct transfer *transfer, const struct member *member);
/* It is no member any more; if we have met it, all parts let go of it. */
void transfer__node_down(struct transfer *transfer, const struct node_id *id);
/* Room for so many members in all, so that taking them in is quick. Best effort. */
void transfer__nodes_reserve(struct transfer *transfer, uint32_t members);
/* Slot of the member at a place; NODE_NONE if there is none, or no room. */
uint16_t transfer__node_at(struct transfer *transfer, uint16_t place);
/* State and topology of the member at a place; UNKNOWN if there is none. */
enum member_state transfer__member_state(const struct transfer *transfer, uint16_t place);
uint16_t transfer__member_topology(const struct transfer *transfer, uint16_t place);
/* Aborts if tables and counts disagree. */
void transfer__nodes_check(const struct transfer *transfer);
/* Slot of whoever sent a message or was named by one; a stranger is added. `addr` may be NULL if
 * not known. NODE_NONE if there is no room. */
uint16_t transfer__node_meet(struct transfer *transfer, const struct node_id *id,
                             const struct peer_addr *addr);
/* Where a stranger stands, by its provider record. */
void transfer__node_place(struct transfer *transfer, uint16_t node,
                          const struct topology *topology);
/* Frees the slot; the parts have let go (transfer__node_gone). */
void transfer__node_remove(struct transfer *transfer, uint16_t node);
/* May be asked for anything: alive or suspect, or a stranger; not one that lied to us. */
bool transfer__node_usable(const struct transfer *transfer, uint16_t node);
bool transfer__node_lied(const struct transfer *transfer, const struct node_id *id);
/* By their labels, whatever zones are merged. */
bool transfer__nodes_same_zone(const struct transfer *transfer, uint16_t a, uint16_t b);
enum distance transfer__node_distance(const struct transfer *transfer, uint16_t node);
struct wire_contact transfer__node_contact(const struct transfer *transfer, uint16_t node);

/* ---- placement (placement.c) ---- */

/* Does the member at this place count for placement, this node unless it drains? */
bool transfer__counts(const struct transfer *transfer, uint16_t place);
/* A member that counts came or goes: puts it in or takes it out if the zones stay as they are, else
 * all is placed anew. `topology` is its. */
void transfer__placement_add(struct transfer *transfer, uint16_t place, uint16_t topology);
void transfer__placement_remove(struct transfer *transfer, uint16_t place, uint16_t topology);

/* Members that count for placement, this node included unless it drains. */
uint32_t transfer__live(struct transfer *transfer);
/* Zone of a node, as this node sees it; zone_count if there is none. */
uint32_t transfer__zone_of(struct transfer *transfer, uint16_t node);
/* Index of a zone id; zone_count if unknown. */
uint32_t transfer__zone_find(struct transfer *transfer, uint64_t zone_id);
uint64_t transfer__zone_id(struct transfer *transfer, uint32_t zone);
/* Name of this node's zone by its labels, never that of a zone above. */
uint64_t transfer__label_zone_id(const struct transfer *transfer);
/* Home zone of a key: the highest random weight over zone ids, so that a zone that comes or goes
 * moves only its own share. zone_count if there is none. */
uint32_t transfer__home_zone(struct transfer *transfer, const uint8_t key[32]);
/* The up to `count` (<= KEEPERS) live members of a zone closest to key, nearest first. O(log n). */
uint32_t transfer__closest(struct transfer *transfer, uint32_t zone, const uint8_t key[32],
                           uint32_t count, uint16_t out[KEEPERS]);
/* The same in the order in which they are asked: those known to be silent last. */
uint32_t transfer__keepers(struct transfer *transfer, uint32_t zone, const uint8_t key[32],
                           uint16_t out[KEEPERS]);
/* Is this node the first of them in its own zone? */
bool transfer__keeps(struct transfer *transfer, const uint8_t key[32]);
/* A random live member of a zone other than this node; NODE_NONE if there is none. */
uint16_t transfer__random_member(struct transfer *transfer, uint32_t zone);

/* ---- links (link.c) ---- */

/* The peer record of a node, made if needed; NULL without memory. */
struct peer *transfer__peer(struct transfer *transfer, uint16_t node);
/* Frees a node's peer record, if any. */
void transfer__peer_drop(struct transfer *transfer, uint16_t node);
bool transfer__link_up(const struct transfer *transfer, uint16_t node);
/* A session is wanted, in delay_us at the latest: the side that need not start waits a little, so
 * that one session results and not two. */
void transfer__link_want(struct transfer *transfer, uint16_t node, uint64_t delay_us);
void transfer__link_set(struct transfer *transfer, uint16_t node, bool up);
/* Starts due connects, ends hopeless ones, releases idle links; forgets idle peers. */
void transfer__links_due(struct transfer *transfer);
void transfer__links_sweep(struct transfer *transfer);
/* A sign of life. */
void transfer__heard(struct transfer *transfer, uint16_t node);
/* It did not answer: it is asked last for a while, and gossip is told. */
void transfer__silent(struct transfer *transfer, uint16_t node);
/* To be asked last: silent of late, or known to lie. */
bool transfer__is_silent(const struct transfer *transfer, uint16_t node);

/* ---- round trips (rtt.c) ---- */

/* A node answered at once what was sent then. Not sure: it was repeated since, which counts only
 * while nothing better is known (RFC 6298 §3). */
void transfer__rtt_note(struct transfer *transfer, uint16_t node, uint64_t sent_us, bool sure);
/* How long its answer is waited for, at least least_us, at most 3 s or least_us. */
uint64_t transfer__rto_us(const struct transfer *transfer, uint16_t node, uint64_t least_us);
/* The same for any node of the own zone, or beyond it if none is known there. */
uint64_t transfer__mesh_rto_us(const struct transfer *transfer, uint64_t least_us);
/* Of the own zone, or beyond its border if this node is alone in it; 0 unknown. */
uint32_t transfer__usual_rtt_us(const struct transfer *transfer);

/* ---- rate (link.c) ---- */

/* Most pieces in flight now, and uploads at a time for those who have as many. */
uint32_t transfer__inflight_max(const struct transfer *transfer);
uint32_t transfer__slots_max(const struct transfer *transfer);
/* Uploads that wait, those for other zones on top, and those that run. */
uint32_t transfer__uploads_max(const struct transfer *transfer);
/* So many pieces are read that as much is in flight as ever, in a mesh that is not small: each is a
 * small part of the whole, and more of them may wait for one another (90 nodes under churn, 512
 * pieces, seed 2: 1.504 times the run without, when they did so, too). */
bool transfer__has_many_pieces(const struct transfer *transfer);
/* Something is about to be asked for: if nothing was under way, the clock of the rate starts. The
 * first pieces come all at once, a whole round after they were asked for: counted from the first
 * arrival, a slow node took itself for a fast one. */
void transfer__rate_asked(struct transfer *transfer);
/* So many bytes of a peer or the origin arrived now. */
void transfer__rate_add(struct transfer *transfer, uint64_t bytes);
/* Bytes of the last second or two, as of the last arrival. */
uint64_t transfer__rate_bytes(const struct transfer *transfer);
/* Bytes per second over the last second or two; 0 while unknown. */
uint64_t transfer__rate(struct transfer *transfer);
/* Best of the last minutes: what the network seems able to give. */
uint64_t transfer__rate_best(const struct transfer *transfer);

/* Mean that moves by an eighth; the first value counts whole. */
uint32_t transfer__mean(uint32_t mean, uint64_t value);

#endif
