/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders of other nodes (wire_order.h): blobs that they hold and ask this node to bring in. Only
 * from the mesh, never from a registry: no credentials came with the order, and none of this node's
 * are used. Nothing is granted by it.
 *
 * Bounded: SERVE_BLOBS_MAX at a time, in an hour half of the cache, and as long as whoever asked
 * repeats it. They hold their place in the cache only while they come in, behind all clients'
 * reads, and never displace what is in use.
 */
#ifndef SHOAL_DAEMON_ORDER_SERVE_H
#define SHOAL_DAEMON_ORDER_SERVE_H

#include "blob.h"
#include "cache.h"
#include "config.h"

#define SERVE_BLOBS_MAX 64
/* An order that was not repeated for so long is over. */
#define SERVE_KEEP_US (20ull * 1000000)

struct order_serve_config {
    struct loop *loop;
    const struct config *config;
    struct cache *cache;
    struct blobs *blobs;
    struct node *node;
};

struct order_serve_counters {                /* of blobs; only ever grow */
    uint64_t begun, done, failed, forgotten; /* each begun one is one of the others in the end */
    uint64_t refused;                        /* answers that said no */
};

struct order_serve;
/* Everything in `config` is borrowed for the object's life. 0, E_NO_MEMORY, E_INTERNAL. */
MUST_USE int order_serve_new(const struct order_serve_config *config, struct order_serve **out);
void order_serve_free(struct order_serve *serve); /* after the loop has run out; NULL is fine */
/* Takes an ASK and answers it. */
void order_serve_ask(struct order_serve *serve, const struct mesh_order *order);
void order_serve_counters(const struct order_serve *serve, struct order_serve_counters *out);

#endif
