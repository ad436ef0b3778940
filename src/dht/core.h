/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DHT core's own parts and how they call each other. Arrows inside the module:
 *
 *   dht.c        public face: dispatch of messages, deadline, members, results
 *   answer.c     requests of others -> one answer each, never larger than allowed (DHT-2)
 *   request.c    our requests: ids, matching, repetition, timeouts (DHT-3)
 *   lookup.c     iterative and one-hop lookups; calls request.c, is called back by it
 *   publish.c    our own provider records: placing, refreshing, re-placing
 *   maintain.c   bootstrap, bucket refresh, liveness
 *   table, members, store, place: passive containers
 */
#ifndef SHOAL_DHT_CORE_H
#define SHOAL_DHT_CORE_H

#include "dht.h"
#include "hash.h"
#include "members.h"
#include "place.h"
#include "store.h"
#include "table.h"
#include "wire_dht.h"

#define DHT_MS 1000ULL
#define DHT_S  (1000 * DHT_MS)

/* ---- sizes ---- */

#define DHT_PATHS_MAX   4
#define DHT_ALPHA_MAX   8
#define DHT_CLUSTER_MAX 255
/* Nodes remembered per path; beyond that the farthest not yet asked is forgotten. */
#define DHT_CANDIDATES_MAX 40
/* Requests one lookup may send (repetitions apart): what bounds a lookup among liars. */
#define DHT_LOOKUP_MESSAGES_MAX 64
/* Lookups for the host, running or waiting to be drained; and those for our own purposes. */
#define DHT_LOOKUPS_MAX          256
#define DHT_INTERNAL_LOOKUPS_MAX 32
/* A lookup ends after this long with what it has. Reason: the origin is tried long before. */
#define DHT_LOOKUP_US (10 * DHT_S)
/* Providers known that end a lookup early: a swarm starts with 8 neighbours (ALGORITHMS §3.4). */
#define DHT_PROVIDERS_ENOUGH 8
/* Answers of the nearest nodes without any provider after which there is none. Records are on k
 * nodes, so that as many of the nearest must have come after the last refresh. */
#define DHT_MISSES_ENOUGH 8

#define DHT_KEYS_MAX 65536
/* Publications being placed at a time, and requests of each in flight: bounds a burst. */
#define DHT_JOBS_MAX        16
#define DHT_JOB_WIDTH       6
#define DHT_PINGS_MAX       64
#define DHT_WITHDRAWS_MAX   160
#define DHT_REQUESTS_MAX    4096
#define DHT_SEEDS_MAX       64
#define DHT_JOB_TARGETS_MAX (2 * DHT_K_MAX)

/* Each lookup has at most alpha fresh requests in flight and twice as many late ones. */
static_assert(3 * (DHT_LOOKUPS_MAX + DHT_INTERNAL_LOOKUPS_MAX) * 3 + DHT_JOBS_MAX * DHT_JOB_WIDTH +
                      DHT_PINGS_MAX + DHT_WITHDRAWS_MAX <=
                  DHT_REQUESTS_MAX,
              "with the default alpha no request has to wait for another");

/* Requests are padded to this, so that an answer to an address we have no proof of, which may not
 * be larger (DHT-2), still holds k IPv4 nodes or some 16 providers. */
#define DHT_FIND_BYTES 512
/* A ping leaves room for PONG and for a ping back within its own size. */
#define DHT_PING_BYTES 40
/* PING without padding: array, type, 9 bytes of id, empty padding. */
#define DHT_PING_BACK_BYTES 14

/* ---- requests ---- */

enum dht_request_kind {
    DHT_REQUEST_FREE = 0,
    DHT_REQUEST_PING,      /* is a known node alive; repeated once */
    DHT_REQUEST_PING_BACK, /* is an unknown asker where it says; sent once */
    DHT_REQUEST_FIND,      /* of a lookup; repeated once */
    DHT_REQUEST_ADD,       /* of a publication being placed; repeated once */
    DHT_REQUEST_WITHDRAW,  /* takes a record back; repeated once */
};

/*
 * Requests wait in one of three lists. In each everybody waits for the same time, so the order of
 * joining is the order of deadlines and no heap is needed.
 */
enum dht_wait {
    DHT_WAIT_FRESH = 0, /* FIND: an eighth of the timeout, then its path goes on without it */
    DHT_WAIT_LATE,      /* FIND: the rest of the timeout, then it is repeated */
    DHT_WAIT_WHOLE,     /* all others, and repetitions: the whole timeout */
    DHT_WAIT_COUNT,
};

struct dht_request {
    uint64_t id; /* random, its low bits are the slot */
    uint64_t deadline_us;
    struct dht_place to;
    uint8_t key[BLOB_KEY_BYTES];
    uint8_t kind;              /* enum dht_request_kind */
    uint8_t wait;              /* enum dht_wait */
    uint8_t sent;              /* times */
    uint8_t path;              /* FIND: of the lookup */
    uint64_t sequence;         /* WITHDRAW */
    struct dht_lookup *lookup; /* FIND: NULL once the lookup is over; the answer still counts */
    struct dht_job *job;       /* ADD */
    uint16_t previous, next;   /* in its list, oldest first; free ones by next */
};

struct dht_requests {
    struct dht_request *slots;
    uint16_t capacity, used;
    uint16_t first[DHT_WAIT_COUNT], last[DHT_WAIT_COUNT], first_free;
    uint16_t orphans; /* FIND without lookup */
    uint16_t withdraws;
    uint8_t ping_count;
    uint16_t pings[DHT_PINGS_MAX]; /* slots of PING and PING_BACK */
};

/* ---- lookups ---- */

enum dht_candidate_state {
    DHT_CANDIDATE_NEW = 1,  /* not asked */
    DHT_CANDIDATE_ASKED,    /* request in flight */
    DHT_CANDIDATE_SLOW,     /* late, perhaps asked again; the path goes on without it */
    DHT_CANDIDATE_ANSWERED, /* did */
    DHT_CANDIDATE_FAILED,   /* did not, twice, or is known to be dead */
    DHT_CANDIDATE_TAKEN,    /* asked by another path, which keeps the paths disjoint */
};

struct dht_candidate {
    uint64_t distance;
    struct peer_addr addr;
    uint8_t state; /* enum dht_candidate_state */
    uint8_t depth; /* 1: from our own tables */
    bool witness;  /* its answer named a provider */
};

struct dht_path {
    struct dht_candidate candidates[DHT_CANDIDATES_MAX]; /* nearest first */
    uint8_t count;
    uint8_t asked, slow; /* in these states */
};

enum dht_purpose {
    DHT_FOR_HOST = 1,  /* result goes to dht_next_result */
    DHT_FOR_JOB,       /* nearest nodes go to a publication */
    DHT_FOR_BOOTSTRAP, /* self lookup */
    DHT_FOR_REFRESH,   /* of a bucket */
};

struct dht_found_provider {
    struct peer_addr addr;
    struct topology topology;
    uint8_t completeness;
};

struct dht_lookup {
    uint64_t id;
    enum dht_purpose purpose;
    uint8_t key[BLOB_KEY_BYTES];
    uint64_t target;
    uint64_t deadline_us;
    bool one_hop;
    unsigned path_count, width; /* fresh requests in flight per path */
    struct dht_path paths[DHT_PATHS_MAX];
    unsigned messages, answers, hops;
    struct dht_found_provider *providers;
    size_t provider_count, provider_capacity;
    int status;
    struct dht_job *job;                /* DHT_FOR_JOB */
    struct dht_lookup *previous, *next; /* in running or done, oldest first */
};

struct dht_lookup_list {
    struct dht_lookup *first, *last;
    unsigned count;
};

struct dht_lookup_plan {
    const uint8_t *key; /* 32 bytes, copied */
    enum dht_purpose purpose;
    bool one_hop; /* start from the members, if there are any */
    struct dht_job *job;
    const struct peer_addr *seeds; /* further addresses to start from, borrowed */
    size_t seed_count;
};

/* ---- publications ---- */

struct dht_publication {
    struct blob_key key;
    uint8_t completeness, sent_completeness;
    bool again; /* complete or unsettled while a job was running: another follows at once */
    uint64_t sequence;
    uint64_t order;      /* of creation: breaks ties of due_us */
    uint64_t due_us;     /* next job */
    uint64_t refresh_us; /* next time all holders hear of it */
    unsigned failures;   /* jobs in a row that placed nothing */
    size_t heap_index;   /* SIZE_MAX while a job runs */
    struct dht_job *job;
    UT_hash_handle hh;
    uint8_t holder_count;
    uint64_t holders[]; /* positions of nodes that acknowledged, k at most */
};

struct dht_job {
    struct dht_publication *publication;
    struct dht_lookup *lookup; /* while the nearest nodes are searched, else NULL */
    bool resend;               /* tell known holders too */
    uint8_t wanted;            /* holders to have at the end */
    uint8_t target_count, target_next, in_flight, settled;
    uint8_t stale_retries;
    struct dht_place targets[DHT_JOB_TARGETS_MAX]; /* nearest first */
    uint64_t holders[DHT_K_MAX];                   /* settled ones */
    struct dht_job *next;                          /* running jobs */
};

struct dht_publisher {
    struct dht_publication *by_key; /* iterates in order of creation */
    struct dht_publication **heap;  /* by due_us, then order */
    size_t heap_count, heap_capacity;
    size_t count;
    uint64_t hash_seed;
    struct dht_publication *review; /* next to be compared with the members */
    uint64_t review_us;             /* next slice of a review; UINT64_MAX: none is due */
    bool review_again;              /* members changed while a review was under way */
    uint64_t order;
    struct dht_job *jobs;
    unsigned job_count;
};

/* ---- maintenance ---- */

struct dht_maintenance {
    struct peer_addr seeds[DHT_SEEDS_MAX];
    size_t seed_count;
    uint64_t bootstrap_us; /* UINT64_MAX: joined, or nobody asked for it */
    uint64_t backoff_us;
    bool bootstrapping;    /* the self lookup runs */
    uint64_t tick_us;      /* next round of liveness and refresh */
    uint64_t refresh_bits; /* buckets waiting for a refresh */
    unsigned refreshing;
    uint64_t sweep_us;
};

/* ---- the whole ---- */

struct dht {
    struct env env;           /* copied */
    struct dht_config config; /* defaults filled in; cluster_id points to the next field */
    char cluster_id[DHT_CLUSTER_MAX + 1];
    uint64_t self_pos;
    struct prng prng; /* jitter, sampling; never request ids */
    struct dht_members members;
    struct dht_table table;
    struct dht_store store;
    struct dht_requests requests;
    struct dht_lookup_list running, done;    /* by start; done: for the host to drain */
    unsigned host_lookups, internal_lookups; /* in running or done */
    uint64_t next_lookup_id;
    struct dht_publisher publisher;
    struct dht_maintenance maintenance;
    struct dht_stats stats;
};

/* ---- dht.c ---- */

/* Place of an address: one hash. */
void dht__place_of(const struct dht *dht, const struct peer_addr *addr, struct dht_place *out);
/* True for our own address. */
bool dht__is_self(const struct dht *dht, const struct peer_addr *addr);
/* Hands a message to the host and counts it; a refusal is a lost packet. */
void dht__transmit(struct dht *dht, const struct peer_addr *to, const uint8_t *msg,
                   size_t msg_bytes);
/* env->alloc, zeroed when new. NULL without memory. */
void *dht__alloc_zero(struct dht *dht, size_t bytes);
/* Frees what env->alloc gave; NULL is fine. */
void dht__release(struct dht *dht, void *memory);
/* `base_us` with a random tenth more or less. */
uint64_t dht__jitter(struct dht *dht, uint64_t base_us);
/* True if lookups go to the members. */
bool dht__one_hop(struct dht *dht);

/* ---- request.c ---- */

/* Prepares the empty table of requests. */
void dht__requests_init(struct dht_requests *requests);
/* Sends FIND_NODE or FIND_PROVIDERS for a path of a lookup. 0, E_NO_MEMORY or E_FULL. */
MUST_USE int dht__request_find(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup,
                               unsigned path, const struct dht_place *to);
/* Sends ADD_PROVIDER for a job. 0, E_NO_MEMORY or E_FULL. */
MUST_USE int dht__request_add(struct dht *dht, uint64_t now_us, struct dht_job *job,
                              const struct dht_place *to);
/* Takes our record of `key` back from a node, if few enough of these are under way. */
void dht__request_withdraw(struct dht *dht, uint64_t now_us, const struct dht_publication *of,
                           const struct dht_place *to);
/* Pings a node unless that is under way already or too many are. */
void dht__request_ping(struct dht *dht, uint64_t now_us, const struct dht_place *to, bool back);
/* Ends the requests of a lookup; they stay matched so that answers still fill the table, unless
 * slots are scarce. */
void dht__requests_orphan(struct dht *dht, const struct dht_lookup *lookup);
/* Ends the requests of a job. */
void dht__requests_drop_job(struct dht *dht, const struct dht_job *job);
/* Fails what is under way to a node that is known to be down. */
void dht__requests_fail_node(struct dht *dht, uint64_t now_us, const struct dht_place *node);
/* PONG, FOUND, ADDED: matches an answer and hands it on. 0, E_REFUSED if it answers nothing of
 * ours, or the decoder's error. May send. */
MUST_USE int dht__requests_answer(struct dht *dht, uint64_t now_us, const struct peer_addr *from,
                                  unsigned type, const uint8_t *msg, size_t msg_bytes);
/* Repeats or fails what is due. */
void dht__requests_advance(struct dht *dht, uint64_t now_us);
/* Oldest deadline or UINT64_MAX. */
uint64_t dht__requests_deadline_us(const struct dht *dht);
/* Aborts if lists and counts disagree. */
void dht__requests_check(const struct dht *dht);

/* ---- lookup.c ---- */

/* Starts a lookup, which may be over at once; a job's lookup is noted in the job until then. 0,
 * E_NO_MEMORY, E_FULL. */
MUST_USE int dht__lookup_start(struct dht *dht, uint64_t now_us, const struct dht_lookup_plan *plan,
                               uint64_t *lookup_id);
/* A node of a path answered. `lookup` may be gone afterwards. */
void dht__lookup_answered(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup,
                          const struct dht_request *request, const struct wire_dht_found *found);
/* A node of a path is late, or (gone) failed for good. `lookup` may be gone afterwards. */
void dht__lookup_silent(struct dht *dht, uint64_t now_us, struct dht_lookup *lookup,
                        const struct dht_request *request, bool gone);
/* Ends lookups that took too long. */
void dht__lookups_advance(struct dht *dht, uint64_t now_us);
/* Oldest lookup's end or UINT64_MAX. */
uint64_t dht__lookups_deadline_us(const struct dht *dht);
/* No path will ask this node any more. Requests under way are failed by
 * dht__requests_fail_node. */
void dht__lookups_drop_node(struct dht *dht, const struct dht_place *node);
/* Nodes that answered, nearest first; returns how many of at most `max`. */
size_t dht__lookup_closest(const struct dht_lookup *lookup, struct dht_place *out, size_t max);
/* Frees a running lookup without a result or a word to its owner. */
void dht__lookup_cancel(struct dht *dht, struct dht_lookup *lookup);
/* Frees all lookups. */
void dht__lookups_close(struct dht *dht);
/* Turns a finished lookup into the host's result and frees it. */
void dht__lookup_result(struct dht *dht, struct dht_lookup *lookup, struct dht_result *out);
/* Aborts if a path's order or counts are wrong. */
void dht__lookups_check(const struct dht *dht);

/* ---- publish.c ---- */

/* Makes the empty publisher. */
void dht__publisher_init(struct dht *dht);
/* Frees publications and jobs; sends nothing. */
void dht__publisher_close(struct dht *dht);
/* All records are told to their holders anew within some seconds: our labels changed. */
void dht__publisher_renew(struct dht *dht, uint64_t now_us);
/* See dht_publish and dht_unpublish. */
MUST_USE int dht__publisher_put(struct dht *dht, uint64_t now_us, const struct blob_key *key,
                                uint8_t completeness);
void dht__publisher_remove(struct dht *dht, uint64_t now_us, const struct blob_key *key);
/* The nearest nodes of a job's key are known. The lookup is freed by the caller afterwards. */
void dht__job_located(struct dht *dht, uint64_t now_us, struct dht_job *job,
                      const struct dht_lookup *lookup);
/* A holder answered, or did not in two tries (`added` NULL). The job may be gone afterwards. */
void dht__job_answered(struct dht *dht, uint64_t now_us, struct dht_job *job,
                       const struct dht_place *from, const struct wire_dht_added *added);
/* A node lost what it held for us: it restarted. */
void dht__publisher_forget_holder(struct dht *dht, uint64_t pos);
/* Members changed: holders are reviewed within seconds. */
void dht__publisher_members_changed(struct dht *dht, uint64_t now_us);
/* Starts what is due, within bounds. */
void dht__publisher_advance(struct dht *dht, uint64_t now_us);
/* Next work or UINT64_MAX. */
uint64_t dht__publisher_deadline_us(const struct dht *dht);
/* Aborts if heap, list or jobs are wrong. */
void dht__publisher_check(const struct dht *dht);

/* ---- answer.c ---- */

/* PING, FIND_*, ADD_PROVIDER of another node: one answer, perhaps a ping back. 0 or the decoder's
 * error, or E_REFUSED. */
MUST_USE int dht__answer(struct dht *dht, uint64_t now_us, const struct peer_addr *from,
                         unsigned type, const uint8_t *msg, size_t msg_bytes);

/* ---- maintain.c ---- */

/* Nothing to do until somebody is known. */
void dht__maintenance_init(struct dht_maintenance *maintenance);
/* See dht_bootstrap. */
void dht__bootstrap(struct dht *dht, uint64_t now_us, const struct peer_addr *addrs,
                    size_t addr_count);
/* A bootstrap or refresh lookup ended. */
void dht__maintenance_done(struct dht *dht, uint64_t now_us, const struct dht_lookup *lookup);
/* A node answered, so it may enter the table; the doubtful one it would replace is pinged. */
void dht__node_answered(struct dht *dht, uint64_t now_us, const struct dht_place *node);
/* Bootstrap, refresh, liveness, expiry, each in bounded steps. */
void dht__maintenance_advance(struct dht *dht, uint64_t now_us);
/* Next of these or UINT64_MAX. */
uint64_t dht__maintenance_deadline_us(const struct dht *dht);

#endif
