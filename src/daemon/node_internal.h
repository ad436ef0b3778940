/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the node share; nobody else includes this. */
#ifndef SHOAL_DAEMON_NODE_INTERNAL_H
#define SHOAL_DAEMON_NODE_INTERNAL_H

#include "bootstrap.h"
#include "mesh_tcp.h"
#include "mesh_udp.h"
#include "node.h"
#include "outsiders.h"

#define NODE_MAGIC 0x6d65500dU

struct node_admission { /* node_identity.c */
    uint64_t secret_stamps[CONFIG_SECRETS_MAX];
    uint64_t deny_stamp;
};

struct node {
    uint32_t magic;
    struct loop *loop;
    const struct config *config;
    struct buffer_pool *pool;
    struct node_handlers handlers;
    node_order_fn order; /* NULL: none */
    void *order_arg;
    struct env env; /* host is this node */
    struct identity identity;
    struct admission admission;
    struct node_admission files;
    uint8_t lookup_key[32];
    struct peer_addr self_addr; /* announced */
    uint16_t self_port;         /* bound */
    enum session_aes aes;       /* offered to peers: this machine is quickest with it */
    struct mesh *mesh;
    struct mesh_udp udp;
    struct mesh_tcp tcp;
    struct bootstrap bootstrap;
    struct loop_part part;
    uv_prepare_t prepare;
    uv_timer_t deadline;
    uv_timer_t tick; /* files that changed, memory no longer needed */
    uint64_t gets_seen;
    bool names_due;      /* the lookup key changed, and handlers.names has not said "all" */
    uint32_t idle_ticks; /* in a row in which hardly a buffer was taken */
    bool closed;
    struct node_counters counters;
    struct outsiders outsiders;
};

/* Reads or makes dataDir/identity. 0, or E_* with one line in `error`. */
MUST_USE int node_identity_load(struct node *node, struct config_error *error);
/* Reads secrets and deny list for the first time; makes a secret of this node's own when none is
 * configured. 0, or E_* with one line in `error`. */
MUST_USE int node_admission_load(struct node *node, struct config_error *error);
/* Reads again what changed (PEER-8); what cannot be read leaves the old state in force. */
void node_admission_refresh(struct node *node);
/* Chooses self_addr for the port that was bound. */
void node_choose_address(struct node *node, uint16_t port);
/* Now, for calls on the cores. */
uint64_t node_now(struct node *node);
/* Somebody on `from` was refused at the mesh port for want of the secret; logs a line a minute at
 * most. `what` came: "a datagram", "a connection"; static. */
void node_outsider(struct node *node, const struct peer_addr *from, const char *what);

#endif
