/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual network for the gossip core: N nodes in one process, virtual time, seeded delay, loss
 * and cut links. Messages arrive by time, then in the order they were sent; the same seed gives the
 * same run. Test programs include this once.
 */
#ifndef SHOAL_TESTS_GOSSIP_NET_H
#define SHOAL_TESTS_GOSSIP_NET_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "gossip.h"
#include "log.h"
#include "wire_gossip.h"

#define NET_SECOND 1000000ULL
#define NET_NONE   UINT32_MAX

struct net;

struct net_node {
    struct net *net;
    uint32_t index;
    struct gossip *gossip; /* NULL: not running */
    uint64_t armed_us;     /* earliest timer event in the heap */
    uint64_t frozen_us;    /* until then the host does not run; what arrives waits */
    struct prng random;
    uint64_t messages, bytes; /* sent, refused ones included */
    uint64_t allocated_bytes;
    struct peer_addr addr;
};

struct net_event {
    uint64_t at_us;
    uint64_t order;
    uint32_t node;
    uint32_t packet; /* NET_NONE: timer */
};

struct net_packet {
    uint32_t from;
    uint32_t next_free;
    size_t bytes;
    uint8_t data[MESSAGE_BYTES_MAX];
};

/* False: the packet is lost. */
typedef bool (*net_link_fn)(const struct net *net, uint32_t from, uint32_t to);
typedef void (*net_news_fn)(struct net *net, uint32_t node, const struct gossip_event *event);

struct net {
    uint64_t now_us, order;
    struct prng prng;
    uint64_t delay_min_us, delay_max_us;
    unsigned loss_permille;
    net_link_fn link; /* may be NULL */
    net_news_fn news; /* may be NULL */
    struct net_node *nodes;
    uint32_t node_count;
    struct net_event *heap;
    size_t event_count, event_capacity;
    struct net_packet *packets;
    uint32_t packet_count, packet_capacity, packet_free;
    struct gossip_config config; /* of the next node started */
    uint64_t trace_hash;         /* over every delivery: same seed, same hash */
    uint64_t delivered;
    unsigned zones;
};

/* ---- heap ---- */

static bool net_earlier(const struct net_event *a, const struct net_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void net_push(struct net *net, uint64_t at_us, uint32_t node, uint32_t packet)
{
    if (net->event_count == net->event_capacity) {
        net->event_capacity = net->event_capacity == 0 ? 4096 : 2 * net->event_capacity;
        net->heap = realloc(net->heap, net->event_capacity * sizeof *net->heap);
        if (net->heap == NULL)
            abort();
    }
    struct net_event event = {at_us, net->order++, node, packet};
    size_t at = net->event_count++;
    while (at > 0 && net_earlier(&event, &net->heap[(at - 1) / 4])) {
        net->heap[at] = net->heap[(at - 1) / 4];
        at = (at - 1) / 4;
    }
    net->heap[at] = event;
}

static struct net_event net_pop(struct net *net)
{
    struct net_event top = net->heap[0], last = net->heap[--net->event_count];
    size_t at = 0;
    for (;;) {
        size_t first = 4 * at + 1, best = first;
        if (first >= net->event_count)
            break;
        for (size_t i = first + 1; i < first + 4 && i < net->event_count; i++) {
            if (net_earlier(&net->heap[i], &net->heap[best]))
                best = i;
        }
        if (!net_earlier(&net->heap[best], &last))
            break;
        net->heap[at] = net->heap[best];
        at = best;
    }
    net->heap[at] = last;
    return top;
}

/* ---- addresses ---- */

static struct peer_addr net_addr(uint32_t index)
{
    struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 10}, .port = 65002};
    addr.ip[13] = (uint8_t)(index >> 16);
    addr.ip[14] = (uint8_t)(index >> 8);
    addr.ip[15] = (uint8_t)index;
    return addr;
}

static uint32_t net_index(const struct net *net, const struct peer_addr *addr)
{
    uint32_t index = (uint32_t)addr->ip[13] << 16 | (uint32_t)addr->ip[14] << 8 | addr->ip[15];
    bool ours = addr->ip[12] == 10 && addr->port == 65002 && index < net->node_count;
    return ours ? index : NET_NONE;
}

/* ---- the host of one node ---- */

static uint32_t net_packet_new(struct net *net)
{
    uint32_t packet = net->packet_free;
    if (packet != NET_NONE) {
        net->packet_free = net->packets[packet].next_free;
        return packet;
    }
    if (net->packet_count == net->packet_capacity) {
        net->packet_capacity = net->packet_capacity == 0 ? 1024 : 2 * net->packet_capacity;
        net->packets = realloc(net->packets, net->packet_capacity * sizeof *net->packets);
        if (net->packets == NULL)
            abort();
    }
    return net->packet_count++;
}

/* Puts a message on its way, unless the network loses it. */
static void net_carry(struct net *net, uint32_t from, uint32_t to, const uint8_t *msg,
                      size_t msg_bytes)
{
    if (to == NET_NONE || net->nodes[to].gossip == NULL)
        return;
    if (net->link != NULL && !net->link(net, from, to))
        return;
    if (net->loss_permille > 0 && prng_below(&net->prng, 1000) < net->loss_permille)
        return;
    uint32_t packet = net_packet_new(net);
    net->packets[packet].from = from;
    net->packets[packet].bytes = msg_bytes;
    memcpy(net->packets[packet].data, msg, msg_bytes);
    uint64_t spread = net->delay_max_us - net->delay_min_us;
    uint64_t delay = net->delay_min_us + (spread > 0 ? prng_below(&net->prng, spread) : 0);
    net_push(net, net->now_us + delay, to, packet);
}

static int net_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    struct net_node *node = host;
    unsigned type;
    if (msg_bytes > MESSAGE_BYTES_MAX) /* DHT-8 */
        abort();
    if (wire_type(msg, msg_bytes, &type) != 0 || type < WIRE_GOSSIP_FIRST ||
        type > WIRE_GOSSIP_LAST)
        abort();
    node->messages++;
    node->bytes += msg_bytes;
    net_carry(node->net, node->index, net_index(node->net, to), msg, msg_bytes);
    return 0;
}

static void net_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct net_node *node = host;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&node->random);
}

static void *net_alloc(void *host, void *old, size_t new_bytes)
{
    struct net_node *node = host;
    size_t *head = old == NULL ? NULL : (size_t *)old - 2;
    if (head != NULL)
        node->allocated_bytes -= *head;
    if (new_bytes == 0) {
        free(head);
        return NULL;
    }
    head = realloc(head, new_bytes + 2 * sizeof *head);
    if (head == NULL)
        abort();
    *head = new_bytes;
    node->allocated_bytes += new_bytes;
    return head + 2;
}

static void net_trace(void *host, enum log_level level, const char *line)
{
    (void)host;
    (void)level;
    (void)line;
}

/* ---- running ---- */

static void net_settle(struct net *net, uint32_t index)
{
    struct net_node *node = &net->nodes[index];
    struct gossip_event event;
    while (node->gossip != NULL && gossip_next_result(node->gossip, &event)) {
        if (net->news != NULL)
            net->news(net, index, &event);
    }
    if (node->gossip == NULL)
        return;
    uint64_t deadline = gossip_deadline_us(node->gossip);
    if (deadline < net->now_us)
        deadline = net->now_us;
    if (deadline < node->armed_us) {
        node->armed_us = deadline;
        net_push(net, deadline, index, NET_NONE);
    }
}

static void net_deliver(struct net *net, const struct net_event *event)
{
    struct net_node *node = &net->nodes[event->node];
    struct net_packet *packet = &net->packets[event->packet];
    if (node->gossip != NULL) {
        net->delivered++;
        net->trace_hash = (net->trace_hash ^ event->at_us ^ (uint64_t)event->node << 40 ^
                           (uint64_t)packet->from << 20 ^ packet->bytes) *
                          0x9e3779b97f4a7c15ULL;
        uint8_t data[MESSAGE_BYTES_MAX];
        size_t bytes = packet->bytes;
        memcpy(data, packet->data, bytes); /* packets may move while it is handled */
        const struct peer_addr from = net->nodes[packet->from].addr;
        int err = gossip_receive(node->gossip, net->now_us, &from, data, bytes);
        if (err != 0)
            abort(); /* our own messages are well formed */
    }
    net->packets[event->packet].next_free = net->packet_free;
    net->packet_free = event->packet;
    net_settle(net, event->node);
}

static void net_timer(struct net *net, const struct net_event *event)
{
    struct net_node *node = &net->nodes[event->node];
    if (node->gossip == NULL || node->armed_us != event->at_us)
        return; /* an earlier one replaced it, or the node is gone */
    node->armed_us = UINT64_MAX;
    if (gossip_deadline_us(node->gossip) <= net->now_us)
        gossip_advance(node->gossip, net->now_us);
    net_settle(net, event->node);
}

static void net_run_until(struct net *net, uint64_t until_us)
{
    while (net->event_count > 0 && net->heap[0].at_us <= until_us) {
        struct net_event event = net_pop(net);
        net->now_us = event.at_us;
        struct net_node *node = &net->nodes[event.node];
        if (node->frozen_us > net->now_us) { /* the kernel keeps packets, timers run late */
            if (event.packet == NET_NONE && node->armed_us == event.at_us)
                node->armed_us = node->frozen_us;
            net_push(net, node->frozen_us, event.node, event.packet);
        } else if (event.packet == NET_NONE) {
            net_timer(net, &event);
        } else {
            net_deliver(net, &event);
        }
    }
    net->now_us = until_us;
}

static void net_open(struct net *net, uint64_t seed, uint32_t node_count)
{
    memset(net, 0, sizeof *net);
    prng_seed(&net->prng, (const uint8_t *)&seed, sizeof seed);
    net->delay_min_us = 200;
    net->delay_max_us = 2000;
    net->packet_free = NET_NONE;
    net->node_count = node_count;
    net->zones = 3;
    net->nodes = calloc(node_count, sizeof *net->nodes);
    if (net->nodes == NULL)
        abort();
    for (uint32_t i = 0; i < node_count; i++) {
        struct net_node *node = &net->nodes[i];
        node->net = net;
        node->index = i;
        node->addr = net_addr(i);
        node->armed_us = UINT64_MAX;
        uint64_t own = prng_next(&net->prng);
        prng_seed(&node->random, (const uint8_t *)&own, sizeof own);
    }
}

static void net_label(struct label *out, const char *stem, unsigned number)
{
    char text[LABEL_BYTES_MAX + 1];
    int bytes = snprintf(text, sizeof text, "%s%u", stem, number);
    memset(out, 0, sizeof *out);
    memcpy(out->text, text, (size_t)bytes);
}

static struct gossip_config net_config(const struct net *net, uint32_t index)
{
    struct gossip_config config = net->config;
    config.cluster_id = "test";
    config.self.addr = net->nodes[index].addr;
    config.self.capacity_class = 10;
    memset(config.self.key.bytes, 0x40 + (int)(index % 64), sizeof config.self.key.bytes);
    unsigned zone = index % net->zones;
    net_label(&config.self.topology.region, "cn-hangzhou", 1);
    net_label(&config.self.topology.zone, "cn-hangzhou-", zone);
    net_label(&config.self.topology.vswitch, "vsw-bp1s6cq2u3lnxh0tr",
              1000 + zone * 100 + index % 4);
    return config;
}

static void net_start(struct net *net, uint32_t index)
{
    struct net_node *node = &net->nodes[index];
    const struct env env = {node, net_send, net_random, net_alloc, net_trace};
    struct gossip_config config = net_config(net, index);
    if (gossip_new(&env, &config, net->now_us, &node->gossip) != 0)
        abort();
    node->armed_us = UINT64_MAX;
    net_settle(net, index);
}

/* No farewell: what was sent before still arrives. */
static void net_kill(struct net *net, uint32_t index)
{
    gossip_free(net->nodes[index].gossip);
    net->nodes[index].gossip = NULL;
}

static void net_join(struct net *net, uint32_t index, const uint32_t *seeds, size_t seed_count)
{
    struct peer_addr addrs[16];
    for (size_t i = 0; i < seed_count && i < 16; i++)
        addrs[i] = net_addr(seeds[i]);
    gossip_join(net->nodes[index].gossip, net->now_us, addrs, seed_count);
    net_settle(net, index);
}

static void net_close(struct net *net)
{
    for (uint32_t i = 0; i < net->node_count; i++) {
        if (net->nodes[i].gossip != NULL)
            net_kill(net, i);
        if (net->nodes[i].allocated_bytes != 0)
            abort(); /* a leak */
    }
    free(net->nodes);
    free(net->heap);
    free(net->packets);
}

/* Running nodes, and those of them whose view counts exactly the running ones. */
static uint32_t net_running(const struct net *net)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < net->node_count; i++)
        count += net->nodes[i].gossip != NULL ? 1 : 0;
    return count;
}

static uint32_t net_complete(const struct net *net)
{
    uint32_t running = net_running(net), count = 0;
    for (uint32_t i = 0; i < net->node_count; i++) {
        const struct gossip *gossip = net->nodes[i].gossip;
        count += gossip != NULL && gossip_count(gossip) == running ? 1 : 0;
    }
    return count;
}

/* SEED from the environment, or the default; printed, so that a failure can be replayed. */
static uint64_t net_seed(uint64_t otherwise)
{
    const char *text = getenv("SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : otherwise;
    printf("seed: %llu\n", (unsigned long long)seed);
    return seed;
}

#endif
