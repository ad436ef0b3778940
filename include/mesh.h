/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One node of the mesh: gossip, DHT and transfer wired together. The only thing the daemon and the
 * simulator create. Members flow from gossip into the DHT's one-hop table and transfer's placement;
 * transfer's LOCATE and PUBLISH go to the DHT; silent peers are reported to gossip.
 */
#ifndef SHOAL_MESH_H
#define SHOAL_MESH_H

#include "dht.h"
#include "env.h"
#include "err.h"
#include "gossip.h"
#include "transfer.h"
#include "wire_order.h"

struct mesh_config {
    const char *cluster_id; /* copied */
    /* Of the same cluster, shared with other nodes of this process; NULL: the node has its own. */
    struct directory *directory;
    struct peer_addr self_addr;
    struct identity_key self_key;
    struct topology topology;
    uint8_t capacity_class;
    struct gossip_config
        gossip;            /* tunables only; ids, labels and cluster are filled in by the mesh */
    struct dht_config dht; /* tunables only */
    struct transfer_config transfer; /* tunables only */
};

enum mesh_event_kind {
    MESH_TRANSFER =
        1,       /* a transfer_result for the host (LOCATE, PUBLISH, PEER_SILENT never reach it) */
    MESH_MEMBER, /* a gossip_event, already applied to DHT and transfer */
    MESH_LOOKUP, /* answer to mesh_lookup */
    MESH_ORDER,  /* another member asks us to bring blobs in or to connect, or tells how that fares
                  */
};
struct mesh_order {
    struct node_id from; /* a member, not one that is leaving */
    struct peer_addr addr;
    struct wire_order order;
};
struct mesh_event {
    enum mesh_event_kind kind;
    union {
        struct transfer_result transfer;
        struct gossip_event member;
        const struct dht_result *lookup; /* borrowed until the next call of mesh_next_result */
        const struct mesh_order *order;  /* the same */
    } of;
};

struct mesh;
/* Makes a node that knows nobody; `env` is borrowed for its life, `config` for the call. 0,
 * E_NO_MEMORY, E_INVALID (a tunable out of range). */
MUST_USE int mesh_new(const struct env *env, const struct mesh_config *config, uint64_t now_us,
                      struct mesh **out);
/* Frees all parts; NULL is fine. Sends nothing: leave first. */
void mesh_free(struct mesh *mesh);

/* The parts. Event calls on them (transfer_piece_done, gossip_join...) are made directly; the host
   then drains mesh_next_result, which also carries news from part to part. Never free them, and
   ask anew for gossip and DHT after each drain: one that nobody asked for is not looked at. */
struct gossip *mesh_gossip(struct mesh *mesh);
struct dht *mesh_dht(struct mesh *mesh);
struct transfer *mesh_transfer(struct mesh *mesh);
/* Own id: the hash of cluster id and address. */
const struct node_id *mesh_self(const struct mesh *mesh);

/* Bootstrap from a snapshot: members as they were seen earlier (gossip_seed), taken over by all
 * parts in bulk and without MESH_MEMBER events. Quickest in order of id. 0; E_NO_MEMORY, E_FULL:
 * some are missing. */
MUST_USE int mesh_seed_members(struct mesh *mesh, uint64_t now_us, const struct member *members,
                               size_t member_count);
/* New labels of this node: spread to the members at once, used for placement and peer choice from
 * now on, written into provider records within seconds. What runs goes on. Labels must be made by
 * label_set. 0; E_NO_MEMORY, E_FULL: nothing has changed. May send. */
MUST_USE int mesh_update_self(struct mesh *mesh, uint64_t now_us, const struct topology *topology);
/* Looks for providers on behalf of the host (explain); answered by exactly one MESH_LOOKUP event
 * under *lookup_id. 0, E_FULL (64 at a time), E_NO_MEMORY. May send. */
MUST_USE int mesh_lookup(struct mesh *mesh, uint64_t now_us, const struct blob_key *key,
                         uint64_t *lookup_id);
/* The same by iterative search, whatever the view knows. */
MUST_USE int mesh_lookup_iterative(struct mesh *mesh, uint64_t now_us, const struct blob_key *key,
                                   uint64_t *lookup_id);
/* Sends an order to a member; lost ones are not repeated. 0, E_INVALID (no such message), or what
 * env->send says. */
MUST_USE int mesh_order_send(struct mesh *mesh, const struct peer_addr *to,
                             const struct wire_order *order);
/* A control message from a proven node. Orders of who is no member are refused (E_DENIED), and of
 * more than 16 that wait for mesh_next_result (E_FULL). 0, E_MALFORMED, E_NOT_FOUND (unknown type),
 * E_DENIED, or what the part's receive answers. May send. */
MUST_USE int mesh_receive(struct mesh *mesh, uint64_t now_us, const struct node_id *from_id,
                          const struct peer_addr *from, const uint8_t *msg, size_t msg_bytes);
/* Runs what is due in any part, in bounded steps. May send. */
void mesh_advance(struct mesh *mesh, uint64_t now_us);
/* Earliest deadline of the parts; UINT64_MAX: nothing pending. */
uint64_t mesh_deadline_us(const struct mesh *mesh);
/* Drain after every call on the mesh or a part, until false. Moves news between the parts; may
 * send. */
bool mesh_next_result(struct mesh *mesh, uint64_t now_us, struct mesh_event *out);
/* Leaves in order. First not final: members told LEAVING, no new uploads, leases handed back; then,
 * when running uploads are done, final: members told LEFT. Sends. */
void mesh_leave(struct mesh *mesh, uint64_t now_us, bool final);
/* Aborts if an invariant of the wiring or of a part is broken. */
void mesh__check_invariants(const struct mesh *mesh);

/* transfer_look_ahead of the node's; step 0 asks for the mesh's own memory. Most calls are for
 * transfer, and only those become quicker. */
void mesh_look_ahead(const struct mesh *mesh, unsigned step, const struct node_id *from);

#endif
