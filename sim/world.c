/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world's clock, event dispatch, datagram network and scenario calls; see world.h. What a node
 * does with its mesh's results is in host.c.
 */
#include "world.h"

#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "host.h"
#include "log.h"
#include "topology.h"

void world_config_defaults(struct world_config *config)
{
    *config = (struct world_config){
        .seed = 1,
        .node_count = 16,
        .zone_count = 2,
        .vswitch_count = 1,
        .nic_bps = 125000000,
        .origin_bps = 1250000000,
        .origin_first_byte_us = 10000,
        .latency_zone_us = 200,
        .latency_cross_us = 1000,
        .jitter_percent = 20,
        .seed_count = 3,
        .trace_level = LOG_ERROR,
    };
    config->mesh.cluster_id = "sim";
    config->mesh.dht.one_hop = true;
}

void world_node_addr(uint32_t node, struct peer_addr *out)
{
    *out = (struct peer_addr){.port = 65002};
    out->ip[10] = 0xff;
    out->ip[11] = 0xff;
    out->ip[12] = 10;
    out->ip[13] = (uint8_t)(node >> 16);
    out->ip[14] = (uint8_t)(node >> 8);
    out->ip[15] = (uint8_t)node;
}

uint32_t world__node_at(const struct world *world, const struct peer_addr *addr)
{
    uint32_t node =
        (uint32_t)addr->ip[13] << 16 | (uint32_t)addr->ip[14] << 8 | (uint32_t)addr->ip[15];
    return addr->ip[12] == 10 && node < world->config.node_count ? node : UINT32_MAX;
}

void world__mix(struct world *world, uint64_t value)
{
    world->trace_hash = (world->trace_hash ^ value) * 0x100000001b3ULL;
    world->trace_hash ^= world->trace_hash >> 29;
}

bool world__cut(const struct world *world, uint32_t a, uint32_t b)
{
    uint32_t za = a % world->config.zone_count, zb = b % world->config.zone_count;
    return world->cut[za][zb];
}

uint64_t world__latency_us(struct world *world, uint32_t a, uint32_t b)
{
    const struct world_config *config = &world->config;
    bool same = a % config->zone_count == b % config->zone_count;
    uint64_t base_us = same ? config->latency_zone_us : config->latency_cross_us;
    uint64_t spread_us = base_us * config->jitter_percent / 100;
    return base_us + (spread_us > 0 ? prng_below(&world->prng, spread_us) : 0);
}

static void push_datagram(struct world *world, uint32_t from, uint32_t to, const uint8_t *bytes,
                          size_t byte_count)
{
    uint8_t *copy = malloc(byte_count);
    ASSERT(copy != NULL);
    memcpy(copy, bytes, byte_count);
    events_push(&world->events,
                (struct event){.at_us = world->now_us + world__latency_us(world, from, to),
                               .kind = EVENT_DATAGRAM,
                               .node = to,
                               .other = from,
                               .bytes = copy,
                               .byte_count = byte_count});
}

int world__send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    struct sim_node *node = host;
    struct world *world = node->world;
    ASSERT(msg_bytes <= MESSAGE_BYTES_MAX);
    uint32_t target = world__node_at(world, to);
    if (target == UINT32_MAX)
        return E_UNREACHABLE;
    world->totals.datagrams++;
    world->totals.datagram_bytes += msg_bytes;
    bool lost = prng_below(&world->prng, 1000000) < world->config.loss_ppm;
    if (lost || world__cut(world, node->index, target)) {
        world->totals.datagrams_lost++;
        return 0;
    }
    push_datagram(world, node->index, target, msg, msg_bytes);
    if (prng_below(&world->prng, 1000000) < world->config.duplicate_ppm)
        push_datagram(world, node->index, target, msg, msg_bytes);
    return 0;
}

struct world *world_new(const struct world_config *config)
{
    ASSERT(config->node_count > 0 && config->node_count <= WORLD_NODES_MAX);
    ASSERT(config->zone_count > 0 && config->zone_count <= WORLD_ZONES_MAX);
    struct world *world = calloc(1, sizeof *world);
    if (world == NULL)
        return NULL;
    world->config = *config;
    world->trace_hash = 0xcbf29ce484222325ULL;
    prng_seed(&world->prng, (const uint8_t *)&config->seed, sizeof config->seed);
    world->nodes = calloc(config->node_count, sizeof *world->nodes);
    world->sessions =
        calloc(((size_t)config->node_count * config->node_count + 7) / 8, sizeof *world->sessions);
    ASSERT(world->nodes != NULL && world->sessions != NULL);
    flows_init(&world->flows, &world->events, config->node_count);
    world->flows.origin.rate_bps = config->origin_bps;
    world->flows.origin.per_flow_bps = config->origin_conn_bps;
    for (uint32_t i = 0; i < config->node_count; i++) {
        host_init(world, i);
        flows_set_rate(&world->flows, i, config->nic_bps, 0);
    }
    return world;
}

void world_free(struct world *world)
{
    for (uint32_t i = 0; i < world->config.node_count; i++)
        host_close(&world->nodes[i]);
    events_close(&world->events);
    flows_close(&world->flows);
    free(world->lookups);
    free(world->pulls);
    free(world->nodes);
    free(world->sessions);
    free(world);
}

uint64_t world_now_us(const struct world *world)
{
    return world->now_us;
}

uint64_t world_trace_hash(const struct world *world)
{
    return world->trace_hash;
}

const struct world_totals *world_totals(const struct world *world)
{
    return &world->totals;
}

static void push_node(struct world *world, enum event_kind kind, uint32_t node, uint32_t other,
                      uint64_t at_us)
{
    ASSERT(node < world->config.node_count);
    events_push(&world->events,
                (struct event){.at_us = at_us, .kind = kind, .node = node, .other = other});
}

void world_start_node(struct world *world, uint32_t node, uint64_t at_us, bool keep_cache)
{
    push_node(world, EVENT_NODE_START, node, keep_cache, at_us);
}

void world_kill_node(struct world *world, uint32_t node, uint64_t at_us)
{
    push_node(world, EVENT_NODE_KILL, node, 0, at_us);
}

void world_leave_node(struct world *world, uint32_t node, uint64_t at_us)
{
    push_node(world, EVENT_NODE_LEAVE, node, 0, at_us);
    push_node(world, EVENT_NODE_KILL, node, 0, at_us + 1000000);
}

void world_slow_node(struct world *world, uint32_t node, uint32_t divisor)
{
    flows_set_rate(&world->flows, node, world->config.nic_bps / divisor, world->now_us);
}

void world_make_liar(struct world *world, uint32_t node)
{
    world->nodes[node].liar = true;
}

void world_partition_zones(struct world *world, uint32_t zone_a, uint32_t zone_b, bool cut)
{
    ASSERT(zone_a < WORLD_ZONES_MAX && zone_b < WORLD_ZONES_MAX);
    world->cut[zone_a][zone_b] = cut;
    world->cut[zone_b][zone_a] = cut;
    if (cut)
        host_break_sessions(world, zone_a, zone_b);
}

uint32_t world_add_blob(struct world *world, uint64_t size_bytes)
{
    ASSERT(world->blob_count < WORLD_BLOBS_MAX);
    static const uint8_t lookup_key[32] = {1};
    uint32_t index = world->blob_count++;
    struct blob_info *info = &world->blobs[index];
    uint64_t name[2] = {world->config.seed, index};
    digest_of(DIGEST_SHA256, name, sizeof name, &info->digest);
    blob_key_of(lookup_key, &info->digest, &info->key);
    info->size_bytes = size_bytes;
    return index;
}

const struct blob_info *world_blob(const struct world *world, uint32_t blob)
{
    return &world->blobs[blob];
}

uint32_t world_pull(struct world *world, uint32_t node, uint32_t blob, uint64_t at_us,
                    enum transfer_read_mode mode)
{
    ASSERT(blob < world->blob_count);
    if (world->pull_count == world->pull_capacity) {
        world->pull_capacity = world->pull_capacity == 0 ? 256 : world->pull_capacity * 2;
        world->pulls = realloc(world->pulls, world->pull_capacity * sizeof *world->pulls);
        ASSERT(world->pulls != NULL);
    }
    uint32_t index = (uint32_t)world->pull_count++;
    world->pulls[index] = (struct world_pull){.node = node, .blob = blob, .started_us = at_us};
    world->pulls_running++;
    events_push(&world->events, (struct event){.at_us = at_us,
                                               .kind = EVENT_PULL,
                                               .node = node,
                                               .other = index,
                                               .version = (uint64_t)mode});
    return index;
}

const struct world_pull *world_pulls(const struct world *world, size_t *count)
{
    *count = world->pull_count;
    return world->pulls;
}

static void dispatch(struct world *world, struct event *event)
{
    struct sim_node *node = &world->nodes[event->node];
    switch (event->kind) {
    case EVENT_DATAGRAM:
        host_datagram(node, event->other, event->bytes, event->byte_count);
        free(event->bytes);
        break;
    case EVENT_TIMER:
        host_timer(node, event->version);
        break;
    case EVENT_FLOW_START:
        host_flow_start(world, event->other, event->version);
        break;
    case EVENT_FLOW:
        host_flow_done(world, event->other, event->version);
        break;
    case EVENT_SESSION_UP:
        host_session_up(node, event->other, event->version);
        break;
    case EVENT_SESSION_DOWN:
        host_session_down(node, event->other);
        break;
    case EVENT_NODE_START:
        host_start(node, event->other != 0);
        break;
    case EVENT_NODE_KILL:
        host_kill(node);
        break;
    case EVENT_NODE_LEAVE:
        host_leave(node);
        break;
    case EVENT_PULL:
        host_pull(node, event->other, (enum transfer_read_mode)event->version);
        break;
    }
}

bool world_run(struct world *world, uint64_t until_us, bool until_pulls_done)
{
    struct event event;
    while (events_next_us(&world->events) <= until_us) {
        if (until_pulls_done && world->pulls_running == 0)
            return true;
        if (!events_pop(&world->events, &event))
            break;
        ASSERT(event.at_us >= world->now_us);
        world->now_us = event.at_us;
        world->totals.events++;
        world__mix(world, event.at_us);
        world__mix(world, (uint64_t)event.kind << 32 | event.node);
        world__mix(world, event.bytes == NULL ? event.other : id_hash_bytes(&event));
        dispatch(world, &event);
    }
    bool done = world->pulls_running == 0;
    if (!until_pulls_done || !done)
        world->now_us = until_us;
    return done;
}

struct mesh *world_mesh(struct world *world, uint32_t node)
{
    return world->nodes[node].mesh;
}

bool world_node_up(const struct world *world, uint32_t node)
{
    return world->nodes[node].mesh != NULL;
}

void world_drain_node(struct world *world, uint32_t node)
{
    host_drain(&world->nodes[node]);
}

bool world_next_lookup(struct world *world, uint32_t *node, struct dht_result *out)
{
    if (world->lookup_head == world->lookup_count) {
        world->lookup_head = world->lookup_count = 0;
        return false;
    }
    *node = world->lookups[world->lookup_head].node;
    *out = world->lookups[world->lookup_head++].result;
    return true;
}

uint64_t world_uploaded(const struct world *world, uint32_t node)
{
    return world->nodes[node].uploaded_bytes;
}
