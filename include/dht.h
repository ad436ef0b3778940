/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kademlia (Maymounkov, Mazieres 2002): routing table of k-buckets, iterative lookups over disjoint
 * paths (S/Kademlia §4.4), provider records. Keys are blob keys; ids are node ids; one XOR space.
 * With the gossip's members fed in, the closest nodes are known without a hop (one-hop); the
 * iterative lookup is the general path, and both give the same answer (DESIGN §4). A sans-IO core.
 */
#ifndef SHOAL_DHT_H
#define SHOAL_DHT_H

#include "directory.h"
#include "env.h"
#include "err.h"
#include "types.h"

struct dht_contact {
    struct node_id id;
    struct peer_addr addr;
};

struct dht_config {
    struct directory *directory; /* of this cluster, shared with others; NULL: own */
    const char
        *cluster_id; /* copied; contacts whose id is not node_id_of(cluster id, addr) are refused */
    struct dht_contact self;
    struct topology topology;
    unsigned k;                  /* 0: 20 */
    unsigned alpha;              /* 0: 3 */
    unsigned paths;              /* 0: 3 disjoint paths */
    uint64_t request_timeout_us; /* 0: 500 ms */
    uint64_t record_ttl_us; /* 0: 15 min; published records are refreshed at half; at most 30 min
                               accepted (DHT-4) */
    bool one_hop;           /* use members fed by dht_member_up for lookups */
};

/* A node that has, or is getting, a blob. */
struct dht_provider {
    struct dht_contact contact;
    struct topology topology;
    uint8_t completeness; /* 255: all of it; else share of pieces held, rounded down */
};
#define DHT_PROVIDERS_MAX        64 /* kept per key (DHT-4) */
#define DHT_RESULT_PROVIDERS_MAX 64

struct dht_result {
    uint64_t lookup_id;
    struct blob_key key;
    int status;            /* 0 found, E_NOT_FOUND none, E_TIMEOUT nobody answered */
    unsigned hops;         /* depth of the deepest answer used; 0 answered locally, 1 one-hop */
    unsigned messages;     /* requests sent */
    size_t provider_count; /* never ourselves */
    struct dht_provider providers[DHT_RESULT_PROVIDERS_MAX];
    size_t closest_count; /* closest nodes that answered, nearest first, at most 8 */
    struct dht_contact closest[8];
};

struct dht_stats {
    uint64_t lookups, lookups_found, messages_sent, bytes_sent, timeouts, rejected;
    uint64_t hops_sum; /* over finished lookups */
    uint32_t contacts, records, published;
};

struct dht;
/* Makes a core; env and config are copied. 0, E_NO_MEMORY, or E_INVALID: cluster id over 255 bytes,
 * self's id is not that of its address, or a value out of range (k 32, alpha 8, paths 4, timeout
 * 60 s, ttl 1 s to 30 min). */
MUST_USE int dht_new(const struct env *env, const struct dht_config *config, uint64_t now_us,
                     struct dht **out);
/* Frees everything; NULL is fine. Sends nothing: unpublish first to take records back. */
void dht_free(struct dht *dht);

/* Membership from gossip: fills the one-hop table; down also purges the node's buckets and provider
 * records, and fails what is under way to it. Up for a known member means that it restarted. Our
 * own id is ignored. Changes make publications look for new holders within some seconds. 0,
 * E_INVALID (id is not that of the address), E_FULL, E_NO_MEMORY. */
MUST_USE int dht_member_up(struct dht *dht, uint64_t now_us, const struct dht_contact *contact);
void dht_member_down(struct dht *dht, uint64_t now_us, const struct node_id *id);
/* Joins through any addresses when there is no gossip view (tests, partial views). May send. */
void dht_bootstrap(struct dht *dht, uint64_t now_us, const struct peer_addr *addrs,
                   size_t addr_count);

/* New labels of this node: asked with from now on, and sent with every record of ours within
 * seconds. */
void dht_update_self(struct dht *dht, uint64_t now_us, const struct topology *topology);

/* Keeps a provider record for our own holding at the k closest nodes until unpublished; a change of
   completeness is sent at the next refresh, or at once when it becomes 255. Sends. 0, E_NO_MEMORY,
   E_FULL (over 65,536 keys). Unpublishing tells the known holders, as far as 160 such messages are
   not under way already; the others forget at the end of the lifetime. */
MUST_USE int dht_publish(struct dht *dht, uint64_t now_us, const struct blob_key *key,
                         uint8_t completeness);
void dht_unpublish(struct dht *dht, uint64_t now_us, const struct blob_key *key);

/* Finds providers. The result is queued under *lookup_id exactly once. 0, E_NO_MEMORY, E_FULL (256
 * at a time). May send. */
MUST_USE int dht_lookup(struct dht *dht, uint64_t now_us, const struct blob_key *key,
                        uint64_t *lookup_id);
/* The same by iterative search even when one-hop is on (tests compare both). */
MUST_USE int dht_lookup_iterative(struct dht *dht, uint64_t now_us, const struct blob_key *key,
                                  uint64_t *lookup_id);

/* Takes one message of an authenticated node; `from` is its mesh address. 0; E_MALFORMED,
 * E_TRUNCATED, E_TOO_LARGE; E_NOT_FOUND: unknown type; E_REFUSED: an answer that matches no request
 * of ours (late, or a lie), an announcement for another address (DHT-4), our own address. All but
 * 0 are counted in `rejected`. May send at most one answer and one ping to `from`, and requests of
 * lookups and publications that go on. */
MUST_USE int dht_receive(struct dht *dht, uint64_t now_us, const struct peer_addr *from,
                         const uint8_t *msg, size_t msg_bytes);
/* Runs what is due, in bounded steps. May send. */
void dht_advance(struct dht *dht, uint64_t now_us);
/* When to call dht_advance: may lie in the past (at once); UINT64_MAX: nothing pending. */
uint64_t dht_deadline_us(const struct dht *dht);
/* Takes the oldest result; false if there is none. Only the counted elements are written. */
bool dht_next_result(struct dht *dht, struct dht_result *out);
/* Counters since the start and present sizes. */
void dht_stats(const struct dht *dht, struct dht_stats *out);
/* Aborts if an invariant is broken. */
void dht__check_invariants(const struct dht *dht);

#endif
