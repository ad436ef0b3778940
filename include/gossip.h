/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership: who is in the mesh, where, and whether alive. SWIM (Das, Gupta, Motivala 2002) with
 * suspicion and incarnations (§4.2), Lifeguard (Dadgar, Phillips, Currey 2018), piggybacked
 * dissemination, periodic push-pull. Keeps the full view (ALGORITHMS §3.1, §4). A sans-IO core:
 * see STYLE "The sans-IO rule" for the shape.
 */
#ifndef SHOAL_GOSSIP_H
#define SHOAL_GOSSIP_H

#include "directory.h"
#include "env.h"
#include "err.h"
#include "member.h"
#include "types.h"

struct gossip_config {
    struct directory *directory;   /* shared with others; NULL: own */
    const char *cluster_id;        /* copied */
    struct member self;            /* state, incarnation are set by the core */
    uint64_t period_us;            /* 0: 1 s */
    uint64_t probe_timeout_us;     /* 0: 500 ms */
    unsigned indirect_probes;      /* 0: 3 */
    uint64_t push_pull_us;         /* 0: 30 s; the first one at once after join */
    unsigned suspicion_multiplier; /* 0: 5; suspicion lasts multiplier * log10(N+1) periods,
                                      shortened by independent accusers (Lifeguard) */
};

enum gossip_event_kind {
    GOSSIP_MEMBER_UP = 1,  /* new, or back with a higher incarnation */
    GOSSIP_MEMBER_CHANGED, /* labels, load, or state among ALIVE/SUSPECT/LEAVING */
    GOSSIP_MEMBER_DOWN,    /* DEAD or LEFT */
};
struct gossip_event {
    enum gossip_event_kind kind;
    struct member member; /* as of the event */
};

struct gossip_stats {
    uint64_t probes, probe_failures, suspicions, refutations, deaths, rejected;
    uint64_t dropped; /* work refused because a table was full */
    uint64_t messages_sent, bytes_sent, messages_received;
    uint32_t alive, suspect, leaving;
    uint32_t health; /* Lifeguard local health multiplier, 0 is healthy */
};

struct gossip;
/* Starts a core that knows nobody; `env` and `config` are copied. The id of self is computed. 0;
 * E_INVALID: no cluster id, no port, or a time below 1 ms or above 1 h (push-pull 24 h);
 * E_NO_MEMORY. */
MUST_USE int gossip_new(const struct env *env, const struct gossip_config *config, uint64_t now_us,
                        struct gossip **out);
void gossip_free(struct gossip *gossip); /* NULL is fine */

/* Adds bootstrap addresses (deduplicated, at most 256 kept, own address ignored); unanswered ones
   are retried with backoff to 30 s for as long as no member is known, else dropped after 10 min.
   May send. */
void gossip_join(struct gossip *gossip, uint64_t now_us, const struct peer_addr *addrs,
                 size_t addr_count);
/*
 * Bootstrap from a snapshot: takes in members as somebody saw them earlier (the own view before a
 * restart, a simulation's), as a push-pull would, but in bulk and without events. Probes and
 * push-pulls then put right what is no longer true. Those that are known, gone, ourselves, or not
 * to be believed are passed over; SUSPECT counts as ALIVE. Quickest in order of id. 0; E_NO_MEMORY,
 * E_FULL: some are missing.
 */
MUST_USE int gossip_seed(struct gossip *gossip, uint64_t now_us, const struct member *members,
                         size_t member_count);
/* Announces LEAVING (drain) at once; `gossip_leave(..., true)` announces LEFT. May send. */
void gossip_leave(struct gossip *gossip, uint64_t now_us, bool final);
/* New own labels, capacity or load: raises the incarnation and spreads. Load changes below 32 are
 * not spread. */
void gossip_update_self(struct gossip *gossip, uint64_t now_us, const struct topology *topology,
                        uint8_t capacity_class, uint8_t load);

/* 0; E_MALFORMED, E_NOT_FOUND (unknown type) for counters. May send and queue events. */
MUST_USE int gossip_receive(struct gossip *gossip, uint64_t now_us, const struct peer_addr *from,
                            const uint8_t *msg, size_t msg_bytes);
/* Evidence from those who use a node: a session broke or a request timed out. Probes it at once, or
 * as soon as there is room. May send. */
void gossip_unreachable(struct gossip *gossip, uint64_t now_us, const struct node_id *id);
void gossip_advance(struct gossip *gossip, uint64_t now_us);
uint64_t gossip_deadline_us(const struct gossip *gossip);
bool gossip_next_result(struct gossip *gossip, struct gossip_event *out);

/* The round trip of the last probe that was answered directly; false if none was since the last
 * call. `sure`: its ping was sent once (RFC 6298 §3), else it took `took_us` at most. */
struct gossip_rtt {
    struct node_id id;
    uint64_t took_us;
    bool sure;
};
bool gossip_next_rtt(struct gossip *gossip, struct gossip_rtt *out);

/* View. Order: by node id. Self is included. */
size_t gossip_count(const struct gossip *gossip); /* ALIVE + SUSPECT + LEAVING, self included */
/* Over all known, also DEAD and LEFT, copied to *out; false past the end. */
bool gossip_at(const struct gossip *gossip, size_t index, struct member *out);
/* The same for one id; false if unknown. */
bool gossip_find(const struct gossip *gossip, const struct node_id *id, struct member *out);
/* The state alone; UNKNOWN if unknown. */
enum member_state gossip_state(const struct gossip *gossip, const struct node_id *id);
/* Own record, borrowed until the next non-const call. */
const struct member *gossip_self(const struct gossip *gossip);
void gossip_stats(const struct gossip *gossip, struct gossip_stats *out);
/* Aborts if an invariant is broken. */
void gossip__check_invariants(const struct gossip *gossip);

#endif
