/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagram nodes for tests: each with its own world, identity and clock-driven dgram object, and
 * the plainest network between them.
 */
#ifndef SHOAL_TESTS_SESSION_NET_H
#define SHOAL_TESTS_SESSION_NET_H

#include "session_world.h"

struct node {
    struct world world;
    struct identity identity;
    struct admission admission;
    struct dgram_config config;
    struct dgram *dgram;
    uint8_t plain[MESSAGE_BYTES_MAX]; /* last message received */
    size_t plain_bytes;
    struct session_peer from;
    unsigned received; /* messages since the start */
};

/* Node 10.0.0.`last` with secret 7, running. */
static inline int node_start(struct node *node, uint8_t last, uint64_t seed, uint64_t now_us)
{
    memset(node, 0, sizeof *node);
    world_init(&node->world, seed);
    identity_generate(&node->world.env, &node->identity);
    world_admission(&node->admission, 7);
    node->config = (struct dgram_config){
        .identity = &node->identity, .admission = &node->admission, .self_addr = world_addr(last)};
    return dgram_new(&node->world.env, &node->config, now_us, &node->dgram);
}

static inline void node_stop(struct node *node)
{
    dgram_free(node->dgram);
    node->dgram = NULL;
}

/* The process restarts: same identity and address, nothing else kept. */
static inline int node_restart(struct node *node, uint64_t now_us)
{
    node_stop(node);
    return dgram_new(&node->world.env, &node->config, now_us, &node->dgram);
}

/* One datagram on its way, owned. */
struct packet {
    struct peer_addr from;
    struct peer_addr to;
    size_t byte_count;
    uint8_t bytes[DATAGRAM_BYTES_MAX];
};

/* Takes the node's next datagram. */
static inline bool node_take(struct node *node, struct packet *out)
{
    struct dgram_packet packet;
    if (!dgram_next_output(node->dgram, &packet))
        return false;
    out->from = node->config.self_addr;
    out->to = packet.to;
    out->byte_count = packet.byte_count;
    memcpy(out->bytes, packet.bytes, packet.byte_count);
    return true;
}

/* Hands a datagram to a node; what dgram_receive said. */
static inline int node_give(struct node *node, uint64_t now_us, const struct packet *packet)
{
    uint8_t plain[MESSAGE_BYTES_MAX];
    size_t plain_bytes = 0;
    int err = dgram_receive(node->dgram, now_us, &packet->from, packet->bytes, packet->byte_count,
                            plain, &plain_bytes, &node->from);
    if (err == 0 && plain_bytes > 0) {
        memcpy(node->plain, plain, plain_bytes);
        node->plain_bytes = plain_bytes;
        node->received++;
    }
    return err;
}

/* Carries datagrams between two nodes, losing none, until both are quiet. Datagrams carried. */
static inline unsigned nodes_settle(struct node *a, struct node *b, uint64_t now_us)
{
    struct packet packet;
    unsigned carried = 0;
    for (bool busy = true; busy && carried < 1000;) {
        busy = false;
        while (node_take(a, &packet)) {
            (void)node_give(b, now_us, &packet);
            carried++;
            busy = true;
        }
        while (node_take(b, &packet)) {
            (void)node_give(a, now_us, &packet);
            carried++;
            busy = true;
        }
    }
    return carried;
}

static inline int node_send(struct node *from, const struct node *to, uint64_t now_us,
                            const void *msg, size_t msg_bytes)
{
    return dgram_send(from->dgram, now_us, &to->config.self_addr, msg, msg_bytes);
}

#endif
