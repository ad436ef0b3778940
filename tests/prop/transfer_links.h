/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transfer tests' world, lower half: its state, its events, the host's answers to a core, and
 * links shared by flows. transfer_world.h builds on it.
 */
#ifndef SHOAL_TESTS_TRANSFER_LINKS_H
#define SHOAL_TESTS_TRANSFER_LINKS_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "member.h"
#include "transfer.h"

#define W_MS        1000u
#define W_S         1000000u
#define W_MIB       (1024u * 1024u)
#define W_MBIT      125000u /* bytes per second */
#define W_NODES_MAX 256
#define W_BLOBS_MAX 8
#define W_ORIGIN    W_NODES_MAX /* endpoint of fetches */

enum w_kind {
    W_DATAGRAM = 1,
    W_WAKE,       /* a core's deadline */
    W_FLOW,       /* end of a piece on a flow */
    W_FLOW_START, /* first byte */
    W_PROGRESS,   /* a flow tells how far it is */
    W_VERIFIED,   /* a piece is hashed and stored */
    W_SESSION,    /* comes up or goes down */
    W_LOCATED,
    W_PULL,
    W_KILL,
    W_GONE, /* gossip says so */
    W_CALL, /* of the test */
};

struct w_event {
    uint64_t at_us, sequence;
    enum w_kind kind;
    uint32_t node, other;
    uint64_t arg, version;
    uint8_t *bytes;
    size_t byte_count;
};

struct w_flow {
    bool used, flowing, fetch, cancelled;
    uint32_t from, to;          /* from may be W_ORIGIN */
    uint32_t blob, piece, left; /* FETCH: pieces left after this one */
    uint64_t id, version;
    double left_bytes, rate, fair;
    uint64_t updated_us, started_us, done_bytes;
};

struct w_pull {
    bool wanted, done, failed;
    uint64_t reader, started_us, ended_us, first_us;
    uint32_t first, count, at;
    enum transfer_read_mode mode;
    bool can_fetch;
    int failed_status;
};

struct w_world;
struct w_node {
    struct w_world *world;
    uint32_t index;
    struct env env;
    struct transfer *core;
    struct member member;
    struct prng prng;
    bool alive, lies, denied, blackholed; /* blackholed: datagrams to it vanish */
    double up_rate, down_rate;
    uint64_t wake_us;
    blob_handle handles[W_BLOBS_MAX];
    struct w_pull pulls[W_BLOBS_MAX];
    uint8_t *truth[W_BLOBS_MAX]; /* pieces stored here */
    uint8_t published[W_BLOBS_MAX];
    uint32_t uploads;
    uint64_t origin_bytes, peer_bytes;
    uint64_t fail_fetches_until_us; /* origin answers this node with an error until then */
    int fail_status;
};

struct w_config {
    uint64_t seed;
    uint32_t nodes, zones;
    double up_rate, down_rate, origin_rate; /* bytes/s */
    double origin_stream_rate;              /* per fetch; 0: no limit */
    uint64_t origin_latency_us;
    uint64_t zone_us, cross_us; /* one-way delays */
    unsigned loss_ppm, repeat_ppm;
    uint64_t jitter_us;
    uint64_t gone_us;     /* from death to member_down */
    bool silent_death;    /* no RST: sessions of the dead just stall */
    unsigned check_every; /* events between invariant checks; 0: 64 */
    struct transfer_config transfer;
};

struct w_world {
    struct w_config config;
    struct prng prng;
    uint64_t now_us, sequence, events, hash;
    struct w_event *heap;
    size_t heap_count, heap_capacity;
    struct w_node *nodes;
    struct w_flow *flows;
    uint32_t flow_capacity;
    uint64_t flow_version;
    bool reshare; /* flows began or ended */
    uint32_t blob_count;
    struct blob_info blobs[W_BLOBS_MAX];
    struct piece_layout layouts[W_BLOBS_MAX];
    enum transfer_copies copies[W_BLOBS_MAX]; /* of a blob's registry; 0: the mesh's */
    uint64_t crossed[W_BLOBS_MAX];            /* cross_bytes of each */
    uint64_t read[W_BLOBS_MAX];               /* of the origin */
    uint8_t *session;                         /* n*n: 0 none, 1 up */
    uint64_t origin_bytes, cross_bytes, wasted_bytes, datagrams;
    uint64_t allocations, allocated;
    uint64_t fail_at; /* allocation to fail; 0: none */
    uint32_t pulls_open;
    void (*on_call)(struct w_world *world, uint64_t arg);
};

/* ---- events ---- */

static inline bool w_before(const struct w_event *a, const struct w_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->sequence < b->sequence;
}

static inline void w_push(struct w_world *world, struct w_event event)
{
    if (world->heap_count == world->heap_capacity) {
        world->heap_capacity = world->heap_capacity == 0 ? 1024 : 2 * world->heap_capacity;
        world->heap = realloc(world->heap, world->heap_capacity * sizeof *world->heap);
        assert_non_null(world->heap);
    }
    event.sequence = ++world->sequence;
    size_t at = world->heap_count++;
    while (at > 0 && w_before(&event, &world->heap[(at - 1) / 2])) {
        world->heap[at] = world->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world->heap[at] = event;
}

static inline struct w_event w_pop(struct w_world *world)
{
    struct w_event top = world->heap[0];
    struct w_event last = world->heap[--world->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= world->heap_count)
            break;
        if (child + 1 < world->heap_count && w_before(&world->heap[child + 1], &world->heap[child]))
            child++;
        if (!w_before(&world->heap[child], &last))
            break;
        world->heap[at] = world->heap[child];
        at = child;
    }
    world->heap[at] = last;
    return top;
}

static inline void w_note(struct w_world *world, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t values[4] = {world->now_us, a, b, c};
    for (unsigned i = 0; i < 4; i++)
        world->hash = (world->hash ^ values[i]) * 0x100000001b3ULL;
}

/* ---- the host's side ---- */

static inline uint32_t w_index(const struct w_world *world, const struct node_id *id)
{
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        if (node_id_equal(&world->nodes[i].member.id, id))
            return i;
    }
    fail_msg("a node id nobody has");
    return 0;
}

static inline uint32_t w_node_at(const struct w_world *world, const struct peer_addr *addr)
{
    uint32_t index = load_be32(addr->ip + 12) & 0xffffffu;
    assert_true(index < world->config.nodes);
    return index;
}

static inline bool w_same_zone(const struct w_world *world, uint32_t a, uint32_t b)
{
    return strcmp(world->nodes[a].member.topology.zone.text,
                  world->nodes[b].member.topology.zone.text) == 0;
}

static inline uint64_t w_delay(struct w_world *world, uint32_t from, uint32_t to)
{
    bool same = w_same_zone(world, from, to);
    uint64_t delay = same ? world->config.zone_us : world->config.cross_us;
    uint64_t jitter = world->config.jitter_us;
    return delay + (jitter > 0 ? prng_below(&world->prng, jitter) : 0);
}

static inline int w_send(void *host, const struct peer_addr *to, const uint8_t *msg,
                         size_t msg_bytes)
{
    struct w_node *node = host;
    struct w_world *world = node->world;
    uint32_t target = w_node_at(world, to);
    assert_true(msg_bytes <= MESSAGE_BYTES_MAX);
    assert_int_not_equal(target, node->index);
    world->datagrams++;
    unsigned copies = 1;
    if (prng_below(&world->prng, 1000000) < world->config.loss_ppm)
        copies = 0;
    else if (prng_below(&world->prng, 1000000) < world->config.repeat_ppm)
        copies = 2;
    if (world->nodes[target].blackholed || node->blackholed)
        copies = 0;
    for (unsigned i = 0; i < copies; i++) {
        struct w_event event = {.kind = W_DATAGRAM, .node = target, .other = node->index};
        event.at_us = world->now_us + w_delay(world, node->index, target);
        event.bytes = malloc(msg_bytes);
        assert_non_null(event.bytes);
        memcpy(event.bytes, msg, msg_bytes);
        event.byte_count = msg_bytes;
        w_push(world, event);
    }
    return 0;
}

static inline void w_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct w_node *node = host;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&node->prng);
}

static inline void *w_alloc(void *host, void *old, size_t new_bytes)
{
    struct w_node *node = host;
    if (new_bytes == 0) {
        if (old != NULL)
            node->world->allocated--;
        free(old);
        return NULL;
    }
    node->world->allocations++;
    if (node->world->fail_at != 0 && node->world->allocations == node->world->fail_at)
        return NULL;
    void *fresh = realloc(old, new_bytes);
    assert_non_null(fresh);
    if (old == NULL)
        node->world->allocated++;
    return fresh;
}

static inline void w_trace(void *host, enum log_level level, const char *line)
{
    (void)host;
    if (getenv("TRACE") != NULL)
        fprintf(stderr, "%d %s\n", (int)level, line);
}

/* ---- flows ---- */

/* Capacity, flows and load of one end, while rates are being shared out. */
struct w_end {
    double slack;
    uint32_t open;
};

static inline uint32_t w_up_end(const struct w_world *world, const struct w_flow *flow)
{
    return flow->from == W_ORIGIN ? 2 * world->config.nodes : 2 * flow->from;
}

static inline uint32_t w_down_end(const struct w_flow *flow)
{
    return 2 * flow->to + 1;
}

static inline void w_flow_settle(struct w_world *world, struct w_flow *flow)
{
    double passed = (double)(world->now_us - flow->updated_us) / 1e6;
    flow->left_bytes -= passed * flow->rate;
    if (flow->left_bytes < 0)
        flow->left_bytes = 0;
    flow->updated_us = world->now_us;
}

static inline void w_flow_schedule(struct w_world *world, struct w_flow *flow)
{
    flow->version = ++world->flow_version;
    struct w_event event = {.kind = W_FLOW, .version = flow->version};
    event.arg = (uint64_t)(flow - world->flows);
    event.at_us = world->now_us + 1 + (uint64_t)(flow->left_bytes / flow->rate * 1e6);
    w_push(world, event);
}

static inline bool w_capped(const struct w_world *world, const struct w_flow *flow)
{
    double most = world->config.origin_stream_rate;
    return flow->from == W_ORIGIN && most > 0 && flow->fair >= most;
}

/* One round of filling: every flow that both ends have room for takes the smaller of its shares. */
static inline void w_fill(struct w_world *world, struct w_end *ends)
{
    uint32_t count = 2 * world->config.nodes + 1;
    for (uint32_t i = 0; i < count; i++)
        ends[i].open = 0;
    for (uint32_t i = 0; i < world->flow_capacity; i++) {
        const struct w_flow *flow = &world->flows[i];
        if (!flow->flowing || w_capped(world, flow) || ends[w_up_end(world, flow)].slack < 1 ||
            ends[w_down_end(flow)].slack < 1)
            continue;
        ends[w_up_end(world, flow)].open++;
        ends[w_down_end(flow)].open++;
    }
    for (uint32_t i = 0; i < count; i++)
        ends[i].slack = ends[i].open > 0 ? ends[i].slack / ends[i].open : -ends[i].slack;
    for (uint32_t i = 0; i < world->flow_capacity; i++) {
        struct w_flow *flow = &world->flows[i];
        if (!flow->flowing || w_capped(world, flow))
            continue;
        double up = ends[w_up_end(world, flow)].slack, down = ends[w_down_end(flow)].slack;
        if (up > 0 && down > 0)
            flow->fair += up < down ? up : down;
    }
}

/* Shares all links out anew: four rounds come close to max-min fairness and never overstate. */
static inline void w_reshare(struct w_world *world)
{
    static struct w_end ends[2 * W_NODES_MAX + 1];
    uint32_t count = 2 * world->config.nodes + 1;
    for (uint32_t i = 0; i < world->flow_capacity; i++)
        world->flows[i].fair = 0;
    for (unsigned round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < world->config.nodes; i++) {
            ends[2 * i].slack = world->nodes[i].up_rate;
            ends[2 * i + 1].slack = world->nodes[i].down_rate;
        }
        ends[count - 1].slack = world->config.origin_rate;
        for (uint32_t i = 0; i < world->flow_capacity; i++) {
            const struct w_flow *flow = &world->flows[i];
            if (!flow->flowing)
                continue;
            ends[w_up_end(world, flow)].slack -= flow->fair;
            ends[w_down_end(flow)].slack -= flow->fair;
        }
        w_fill(world, ends);
    }
    for (uint32_t i = 0; i < world->flow_capacity; i++) {
        struct w_flow *flow = &world->flows[i];
        if (!flow->flowing)
            continue;
        double change = flow->fair - flow->rate;
        if (change < 0.01 * flow->rate && change > -0.001 * flow->rate)
            continue;
        w_flow_settle(world, flow);
        flow->rate = flow->fair;
        w_flow_schedule(world, flow);
    }
    world->reshare = false;
}

static inline struct w_flow *w_flow_new(struct w_world *world)
{
    for (uint32_t i = 0; i < world->flow_capacity; i++) {
        if (!world->flows[i].used) {
            world->flows[i] = (struct w_flow){.used = true};
            return &world->flows[i];
        }
    }
    uint32_t capacity = world->flow_capacity == 0 ? 64 : 2 * world->flow_capacity;
    world->flows = realloc(world->flows, capacity * sizeof *world->flows);
    assert_non_null(world->flows);
    memset(world->flows + world->flow_capacity, 0,
           (capacity - world->flow_capacity) * sizeof *world->flows);
    struct w_flow *flow = &world->flows[world->flow_capacity];
    world->flow_capacity = capacity;
    flow->used = true;
    return flow;
}

static inline void w_flow_stop(struct w_world *world, struct w_flow *flow)
{
    bool flowing = flow->flowing;
    flow->used = false;
    flow->flowing = false;
    world->reshare = world->reshare || flowing;
}

static inline void w_flow_begin(struct w_world *world, struct w_flow *flow, uint64_t delay_us)
{
    flow->left_bytes = piece_length(&world->layouts[flow->blob], flow->piece);
    flow->version = ++world->flow_version;
    struct w_event event = {.kind = W_FLOW_START, .version = flow->version};
    event.arg = (uint64_t)(flow - world->flows);
    event.at_us = world->now_us + delay_us;
    w_push(world, event);
}

#endif
