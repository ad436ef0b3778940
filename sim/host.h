/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator's host of one node: what the daemon does with sockets, caches and an origin, done
 * here with events and flows. Shared by world.c and host.c only.
 */
#ifndef SHOAL_SIM_HOST_H
#define SHOAL_SIM_HOST_H

#include "events.h"
#include "flows.h"
#include "world.h"

#define WORLD_ZONES_MAX 64

struct sim_blob {
    blob_handle handle;   /* in this life of the node; 0: not open */
    struct bitfield have; /* the node's cache, kept over restarts when asked */
};

struct sim_node {
    struct world *world;
    uint32_t index;
    struct env env;
    struct prng prng;
    struct node_id id;
    struct mesh *mesh; /* NULL while down */
    uint64_t timer_us; /* time of the scheduled timer event, UINT64_MAX if none */
    uint64_t timer_version;
    bool liar;
    bool draining; /* inside host_drain */
    uint64_t uploaded_bytes;
    struct sim_blob blobs[WORLD_BLOBS_MAX];
};

struct world_lookup {
    uint32_t node;
    struct dht_result result;
};

struct world {
    struct world_config config;
    uint64_t now_us;
    uint64_t trace_hash;
    struct prng prng;
    struct event_queue events;
    struct flows flows;
    struct sim_node *nodes; /* owned */
    uint8_t *sessions;      /* owned; bit a * node_count + b: a believes its session with b is up */
    bool cut[WORLD_ZONES_MAX][WORLD_ZONES_MAX];
    struct blob_info blobs[WORLD_BLOBS_MAX];
    uint32_t blob_count;
    struct world_pull *pulls; /* owned */
    size_t pull_count, pull_capacity, pulls_running;
    struct world_lookup *lookups; /* owned */
    size_t lookup_head, lookup_count, lookup_capacity;
    struct world_totals totals;
};

/* world.c, for host.c: */
void world__mix(struct world *world, uint64_t value);               /* adds to the trace hash */
bool world__cut(const struct world *world, uint32_t a, uint32_t b); /* partitioned? */
/* One-way latency drawn anew. */
uint64_t world__latency_us(struct world *world, uint32_t a, uint32_t b);
/* Node of an address; UINT32_MAX for addresses outside the world. */
uint32_t world__node_at(const struct world *world, const struct peer_addr *addr);
/* env->send of every node. */
int world__send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes);
/* Hash of a datagram event's bytes, for the trace. */
uint64_t id_hash_bytes(const struct event *event);

/* Prepares node `index` (down). */
void host_init(struct world *world, uint32_t index);
void host_close(struct sim_node *node);
/* Events, each followed by a drain of the mesh's results. */
void host_start(struct sim_node *node, bool keep_cache);
void host_kill(struct sim_node *node);
void host_leave(struct sim_node *node);
void host_pull(struct sim_node *node, uint32_t pull, enum transfer_read_mode mode);
void host_datagram(struct sim_node *node, uint32_t from, const uint8_t *bytes, size_t byte_count);
void host_timer(struct sim_node *node, uint64_t version);
void host_flow_start(struct world *world, uint32_t flow, uint64_t version);
void host_flow_done(struct world *world, uint32_t flow, uint64_t version);
/* first != 0: the connection is new, its handshake just ended. */
void host_session_up(struct sim_node *node, uint32_t peer, uint64_t first);
void host_session_down(struct sim_node *node, uint32_t peer);
/* Breaks every session and flow between two zones. */
void host_break_sessions(struct world *world, uint32_t zone_a, uint32_t zone_b);
/* Takes results until there are none, then schedules the next deadline. */
void host_drain(struct sim_node *node);

#endif
