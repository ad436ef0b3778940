/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An order for other nodes as well: once all of the image is here, each of them is asked to bring
 * its blobs in from the mesh (wire_order.h), a few blobs at a time, and asked again until it tells
 * that all are there. They get digests and sizes, and nothing else.
 */
#include "pull_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "node.h"
#include "topology.h"

/* Nodes at work at a time: each is asked once a second, and those that are done serve the rest. */
#define NODES_ACTIVE_MAX 256
#define ASK_US           (1ull * 1000000)
/* Blobs in one ASK: as many as a node brings in at once, and those behind them. */
#define WINDOW 4
/* Silent for so long: it is gone, or of a version that knows no orders. */
#define SILENT_US (15ull * 1000000)
/* It says that others go first for so long. */
#define BUSY_US (600ull * 1000000)

static const char *const reasons[] = {
    [WIRE_ORDER_REFUSED] = "refuses orders of other nodes (prefetch.fromPeers), or stops",
    [WIRE_ORDER_OVER_LIMIT] = "takes no more for now: half of its cache in an hour is the limit",
    [WIRE_ORDER_FAILED] = "could not get it from the mesh: see its log",
    [PULL_NODE_SILENT] = "does not answer: it is gone, or of an older version",
    [PULL_NODE_BUSY] = "has been busy with others for ten minutes",
};

const char *pull__node_reason(const struct pull_node *node)
{
    return node->reason < sizeof reasons / sizeof reasons[0] && reasons[node->reason] != NULL
               ? reasons[node->reason]
               : "";
}

/* ---- which ---- */

static bool wanted(const struct pull *pull, const struct member *self, const struct member *member)
{
    if (member->state != MEMBER_ALIVE || node_id_equal(&member->id, &self->id))
        return false;
    return pull->order.on != PULL_ON_ZONE || topology_same_zone(&member->topology, &self->topology);
}

static int nearer(const void *a, const void *b)
{
    const struct pull_node *left = a, *right = b;
    if (left->distance != right->distance)
        return left->distance < right->distance ? -1 : 1;
    return memcmp(left->id.bytes, right->id.bytes, sizeof left->id.bytes);
}

/* 0, E_NO_MEMORY; E_NOT_FOUND: there are not so many. */
static int choose(struct pull *pull)
{
    const struct gossip *gossip = node_gossip(pull->owner->config.node);
    const struct member *self = gossip_self(gossip);
    size_t room = gossip_count(gossip) + 1;
    struct member member;
    pull->nodes = loop_alloc(NULL, NULL, room * sizeof *pull->nodes);
    if (pull->nodes == NULL)
        return E_NO_MEMORY;
    for (size_t i = 0; pull->node_count < room && gossip_at(gossip, i, &member); i++) {
        if (wanted(pull, self, &member))
            pull->nodes[pull->node_count++] = (struct pull_node){
                .id = member.id,
                .addr = member.addr,
                .distance = topology_distance(&member.topology, &self->topology)};
    }
    if (pull->order.on != PULL_ON_COUNT)
        return 0;
    /* This node is one of them. */
    uint32_t others = pull->order.on_count - 1;
    qsort(pull->nodes, pull->node_count, sizeof *pull->nodes, nearer);
    if (others > pull->node_count)
        return E_NOT_FOUND;
    pull->node_count = others;
    return 0;
}

void pull__nodes_begin(struct pull *pull)
{
    int err = pull->order.on == PULL_ON_LOCAL ? 0 : choose(pull);
    if (err == E_NOT_FOUND)
        pull__end(pull, PULL_FAILED, "the mesh has %u nodes that are up, %u are asked for",
                  (unsigned)pull->node_count + 1, (unsigned)pull->order.on_count);
    else if (err != 0)
        pull__end(pull, PULL_FAILED, "%s", err_text(err));
    else if (pull->node_count == 0 || pull->blob_count == 0)
        pull__end(pull, PULL_DONE, "%s", "");
    else
        pull->state = PULL_SPREADING;
}

/* ---- asking ---- */

static void node_over(struct pull_node *node, enum pull_node_state state, unsigned reason)
{
    node->state = state;
    node->reason = (uint8_t)reason;
}

static void ask(struct pull *pull, struct pull_node *node)
{
    const struct env *env = &pull->owner->config.loop->env;
    struct wire_order order = {.type = WIRE_ORDER_ASK};
    for (uint32_t i = node->done; i < pull->blob_count && order.count < WINDOW; i++)
        order.blobs[order.count++] = (struct wire_order_blob){
            .digest = pull->blobs[i].digest, .size_bytes = pull->blobs[i].size_bytes};
    env->random(env->host, (uint8_t *)&order.serial, sizeof order.serial);
    node->serial = order.serial;
    node->serial_done = node->done;
    node->asked_us = pull__now_us(pull);
    int err = mesh_order_send(node_mesh(pull->owner->config.node), &node->addr, &order);
    (void)err; /* asked again in a second */
}

static void node_tick(struct pull *pull, struct pull_node *node)
{
    uint64_t at_us = pull__now_us(pull);
    if (at_us - node->heard_us > SILENT_US)
        node_over(node, PULL_NODE_FAILED, PULL_NODE_SILENT);
    else if (at_us - node->moved_us > BUSY_US)
        node_over(node, PULL_NODE_FAILED, PULL_NODE_BUSY);
    else if (at_us - node->asked_us >= ASK_US)
        ask(pull, node);
}

static void finish(struct pull *pull, uint32_t bad)
{
    char addr[PEER_ADDR_TEXT_BYTES];
    const struct pull_node *node = pull->nodes;
    if (bad == 0) {
        pull__end(pull, PULL_DONE, "%s", "");
        return;
    }
    while (node->state == PULL_NODE_DONE)
        node++;
    pull__end(pull, PULL_FAILED, "%u of %u other nodes do not have it; %s %s", (unsigned)bad,
              (unsigned)pull->node_count, peer_addr_text(&node->addr, addr),
              pull__node_reason(node));
}

void pull__nodes_tick(struct pull *pull)
{
    uint32_t active = 0, bad = 0, waiting = 0;
    for (uint32_t i = 0; i < pull->node_count; i++) {
        if (pull->nodes[i].state == PULL_NODE_ACTIVE)
            node_tick(pull, &pull->nodes[i]);
        active += pull->nodes[i].state == PULL_NODE_ACTIVE;
    }
    for (uint32_t i = 0; i < pull->node_count; i++) {
        struct pull_node *node = &pull->nodes[i];
        if (node->state == PULL_NODE_WAITING && active < NODES_ACTIVE_MAX) {
            node->state = PULL_NODE_ACTIVE;
            node->heard_us = node->moved_us = pull__now_us(pull);
            ask(pull, node);
            active++;
        }
        waiting += node->state == PULL_NODE_WAITING;
        bad += node->state == PULL_NODE_REFUSED || node->state == PULL_NODE_FAILED;
    }
    if (active + waiting == 0)
        finish(pull, bad);
}

/* ---- told ---- */

/* What a node says of the blobs it was asked for. */
static void take_told(struct pull *pull, struct pull_node *node, const struct wire_order *told)
{
    bool leading = true, busy = false;
    node->heard_us = pull__now_us(pull);
    for (uint32_t i = 0; i < told->count; i++) {
        enum wire_order_state state = (enum wire_order_state)told->blobs[i].state;
        if (state == WIRE_ORDER_REFUSED || state == WIRE_ORDER_OVER_LIMIT) {
            node_over(node, PULL_NODE_REFUSED, state);
            return;
        }
        if (state == WIRE_ORDER_FAILED) {
            node_over(node, PULL_NODE_FAILED, state);
            return;
        }
        leading = leading && state == WIRE_ORDER_DONE;
        node->done += leading;
        busy = busy || state == WIRE_ORDER_BUSY;
    }
    if (node->done > node->serial_done || !busy)
        node->moved_us = node->heard_us;
    if (node->done == pull->blob_count)
        node_over(node, PULL_NODE_DONE, 0);
    else if (node->done > node->serial_done)
        ask(pull, node); /* the next ones at once */
}

/* True if it was asked by this order. */
static bool told_to(struct pull *pull, const struct mesh_order *order)
{
    for (uint32_t i = 0; i < pull->node_count; i++) {
        struct pull_node *node = &pull->nodes[i];
        uint32_t left = pull->blob_count - node->done;
        if (node->state != PULL_NODE_ACTIVE || node->serial != order->order.serial ||
            !node_id_equal(&node->id, &order->from))
            continue;
        if (node->serial_done == node->done && order->order.count <= left)
            take_told(pull, node, &order->order);
        return true;
    }
    return false;
}

void pulls_told(struct pulls *pulls, const struct mesh_order *order)
{
    for (struct pull *pull = pulls->newest; pull != NULL; pull = pull->next)
        if (pull->state == PULL_SPREADING && told_to(pull, order))
            return;
}
