/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world's clock, event dispatch, datagram network and scenario calls; see world.h. What a node
 * does with its mesh's results is in host.c and its neighbours.
 */
#include "world.h"

#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "host.h"
#include "log.h"

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
        .verify_bps = 1100000000, /* AEAD 0.25 and SHA-256 0.65 s/GB (LIMITS §2) */
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
    return addr->ip[12] == 10 && node < world->config.node_count ? node : INDEX_NONE;
}

/* ---- the trace ---- */

static void mix(struct world *world, uint64_t value)
{
    world->trace_hash = (world->trace_hash ^ value) * 0x100000001b3ULL;
    world->trace_hash ^= world->trace_hash >> 29;
}

static void mix_event(struct world *world, const struct event *event)
{
    mix(world, event->at_us);
    mix(world, (uint64_t)event->kind << 32 | event->node);
    mix(world, event->other);
    size_t i = 0;
    for (; i + 8 <= event->byte_count; i += 8)
        mix(world, load_be64(event->bytes + i));
    for (; i < event->byte_count; i++)
        mix(world, event->bytes[i]);
}

/* ---- the network ---- */

uint32_t world__zone(const struct world *world, uint32_t node)
{
    return node % world->config.zone_count;
}

bool world__cut(const struct world *world, uint32_t a, uint32_t b)
{
    return world->cut[world__zone(world, a)][world__zone(world, b)];
}

bool world__severed(const struct world *world, uint32_t a, uint32_t b)
{
    return world__cut(world, a, b) || world__cut(world, b, a);
}

uint64_t world__latency_us(struct world *world, uint32_t a, uint32_t b)
{
    const struct world_config *config = &world->config;
    bool same = world__zone(world, a) == world__zone(world, b);
    uint64_t base_us = same ? config->latency_zone_us : config->latency_cross_us;
    uint64_t spread_us = base_us * config->jitter_percent / 100;
    return base_us + (spread_us > 0 ? prng_below(&world->prng, spread_us) : 0);
}

/* Links of the flow network: each node's up and down, the origin's, each zone's out and in. */
uint32_t world__link_up(uint32_t node)
{
    return 2 * node;
}

uint32_t world__link_down(uint32_t node)
{
    return 2 * node + 1;
}

static uint32_t link_origin(const struct world *world)
{
    return 2 * world->config.node_count;
}

static uint32_t link_zone(const struct world *world, uint32_t zone, bool in)
{
    return 2 * world->config.node_count + 1 + 2 * zone + in;
}

void world__plan_flow(const struct world *world, uint32_t from, uint32_t to, struct flow_plan *out)
{
    *out = (struct flow_plan){.links = {world__link_down(to)}, .link_count = 1};
    if (from == WORLD_ORIGIN) {
        out->links[out->link_count++] = link_origin(world);
        out->limit_bps = world->config.origin_conn_bps;
        return;
    }
    out->links[out->link_count++] = world__link_up(from);
    uint32_t from_zone = world__zone(world, from), to_zone = world__zone(world, to);
    if (world->config.zone_bps == 0 || from_zone == to_zone)
        return;
    out->links[out->link_count++] = link_zone(world, from_zone, false);
    out->links[out->link_count++] = link_zone(world, to_zone, true);
}

static void push_datagram(struct world *world, uint32_t from, uint32_t to, const uint8_t *bytes,
                          size_t byte_count)
{
    struct datagram_buffer *buffer = world->free_datagrams;
    if (buffer == NULL)
        buffer = malloc(sizeof *buffer);
    else
        world->free_datagrams = buffer->next;
    ASSERT(buffer != NULL);
    memcpy(buffer->bytes, bytes, byte_count);
    events_push(&world->events,
                (struct event){.at_us = world->now_us + world__latency_us(world, from, to),
                               .kind = EVENT_DATAGRAM,
                               .node = to,
                               .other = from,
                               .bytes = buffer->bytes,
                               .byte_count = (uint32_t)byte_count});
}

/* Gives the buffer of a datagram event back. */
static void free_datagram(struct world *world, uint8_t *bytes)
{
    struct datagram_buffer *buffer =
        (struct datagram_buffer *)(void *)(bytes - offsetof(struct datagram_buffer, bytes));
    buffer->next = world->free_datagrams;
    world->free_datagrams = buffer;
}

int world__send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    struct sim_node *node = host;
    struct world *world = node->world;
    ASSERT(msg_bytes > 0 && msg_bytes <= MESSAGE_BYTES_MAX);
    uint32_t target = world__node_at(world, to);
    if (target == INDEX_NONE)
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

/* ---- making and freeing ---- */

static void set_links(struct world *world)
{
    const struct world_config *config = &world->config;
    flows_init(&world->flows, &world->events, 2 * config->node_count + 1 + 2 * config->zone_count);
    world->flows.quantum_us = config->flow_quantum_us;
    world->flows.slack = config->flow_slack;
    flows_set_link(&world->flows, link_origin(world), config->origin_bps, 0);
    for (uint32_t i = 0; i < config->node_count; i++)
        world_slow_node(world, i, 1);
    for (uint32_t zone = 0; zone < config->zone_count && config->zone_bps > 0; zone++) {
        flows_set_link(&world->flows, link_zone(world, zone, false), config->zone_bps, 0);
        flows_set_link(&world->flows, link_zone(world, zone, true), config->zone_bps, 0);
    }
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
    world->bulk_free = INDEX_NONE;
    prng_seed(&world->prng, (const uint8_t *)&config->seed, sizeof config->seed);
    world->nodes = calloc(config->node_count, sizeof *world->nodes);
    ASSERT(world->nodes != NULL);
    set_links(world);
    for (uint32_t i = 0; i < config->node_count; i++)
        host_init(world, i);
    return world;
}

void world_free(struct world *world)
{
    struct event event;
    for (uint32_t i = 0; i < world->config.node_count; i++)
        host_close(&world->nodes[i]);
    while (events_pop(&world->events, &event)) {
        if (event.bytes != NULL)
            free_datagram(world, event.bytes);
    }
    while (world->free_datagrams != NULL) {
        struct datagram_buffer *buffer = world->free_datagrams;
        world->free_datagrams = buffer->next;
        free(buffer);
    }
    events_close(&world->events);
    flows_close(&world->flows);
    free(world->bulks);
    free(world->lookups);
    free(world->pulls);
    free(world->nodes);
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

/* ---- the scenario ---- */

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
    push_node(world, EVENT_NODE_LEAVE, node, false, at_us);
    push_node(world, EVENT_NODE_LEAVE, node, true, at_us + 1000000);
}

void world_freeze_node(struct world *world, uint32_t node, uint64_t at_us, uint64_t for_us)
{
    ASSERT(node < world->config.node_count);
    events_push(&world->events, (struct event){.at_us = at_us,
                                               .kind = EVENT_NODE_FREEZE,
                                               .node = node,
                                               .version = at_us + for_us});
}

void world_slow_node(struct world *world, uint32_t node, uint32_t divisor)
{
    uint64_t rate_bps = world->config.nic_bps / divisor;
    flows_set_link(&world->flows, world__link_up(node), rate_bps, world->now_us);
    flows_set_link(&world->flows, world__link_down(node), rate_bps, world->now_us);
}

void world_set_loss(struct world *world, uint32_t loss_ppm)
{
    world->config.loss_ppm = loss_ppm;
}

void world_make_liar(struct world *world, uint32_t node)
{
    world->nodes[node].liar = true;
}

static void cut_zones(struct world *world, uint32_t from_zone, uint32_t to_zone, bool cut)
{
    ASSERT(from_zone < world->config.zone_count && to_zone < world->config.zone_count);
    world->cut[from_zone][to_zone] = cut;
    if (cut)
        sessions_sever(world, from_zone, to_zone);
}

void world_cut_zones(struct world *world, uint32_t from_zone, uint32_t to_zone, bool cut,
                     uint64_t at_us)
{
    events_push(&world->events, (struct event){.at_us = at_us,
                                               .kind = EVENT_CUT,
                                               .node = from_zone,
                                               .other = to_zone,
                                               .version = cut});
}

void world_partition_zones(struct world *world, uint32_t zone_a, uint32_t zone_b, bool cut)
{
    cut_zones(world, zone_a, zone_b, cut);
    cut_zones(world, zone_b, zone_a, cut);
}

void world_set_origin(struct world *world, enum world_origin origin, uint64_t at_us)
{
    events_push(&world->events,
                (struct event){.at_us = at_us, .kind = EVENT_ORIGIN, .version = (uint64_t)origin});
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
    int err = piece_layout_of(size_bytes, &world->layouts[index]);
    ASSERT(err == 0);
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
    world->pulls[index] =
        (struct world_pull){.node = node, .blob = blob, .started_us = at_us, .next = INDEX_NONE};
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

/* ---- time ---- */

/* What happens to a node; the rest is the world's own business. */
static bool is_of_node(enum event_kind kind)
{
    return kind != EVENT_FLOW && kind != EVENT_POUR && kind != EVENT_CUT && kind != EVENT_ORIGIN;
}

static void set_origin(struct world *world, enum world_origin origin)
{
    world->origin = origin == WORLD_ORIGIN_CUT ? WORLD_ORIGIN_UP : origin;
    if (origin == WORLD_ORIGIN_CUT)
        bulk_cut_origin(world);
}

static void dispatch(struct world *world, const struct event *event)
{
    struct sim_node *node = is_of_node(event->kind) ? &world->nodes[event->node] : NULL;
    switch (event->kind) {
    case EVENT_DATAGRAM:
        host_datagram(node, event->other, event->bytes, event->byte_count);
        free_datagram(world, event->bytes);
        break;
    case EVENT_TIMER:
        host_timer(node, event->version);
        break;
    case EVENT_FLOW:
        bulk_flow(world, event->other, event->version);
        break;
    case EVENT_POUR:
        flows_pour(&world->flows, world->now_us);
        break;
    case EVENT_START:
        bulk_start(world, event->other, event->version);
        break;
    case EVENT_PROGRESS:
        bulk_progress(world, event->other, event->version);
        break;
    case EVENT_VERIFIED:
        bulk_verified(world, event->other, event->version);
        break;
    case EVENT_SESSION_UP:
        session_is_up(node, event->other, event->version);
        break;
    case EVENT_SESSION_DOWN:
        session_is_down(node, event->other, event->version);
        break;
    case EVENT_NODE_START:
        host_start(node, event->other != 0);
        break;
    case EVENT_NODE_KILL:
        host_kill(node, world->config.silent_death);
        break;
    case EVENT_NODE_LEAVE:
        host_leave(node, event->other != 0);
        break;
    case EVENT_NODE_FREEZE:
        node->frozen_until_us = event->version;
        break;
    case EVENT_PULL:
        pulls_begin(node, event->other, (enum transfer_read_mode)event->version);
        break;
    case EVENT_CUT:
        cut_zones(world, event->node, event->other, event->version != 0);
        break;
    case EVENT_ORIGIN:
        set_origin(world, (enum world_origin)event->version);
        break;
    }
}

/* Does the event have to wait until its node goes on? Death does not. */
static bool put_off(struct world *world, const struct event *event)
{
    if (!is_of_node(event->kind) || event->kind == EVENT_NODE_KILL)
        return false;
    uint64_t until_us = world->nodes[event->node].frozen_until_us;
    if (until_us <= world->now_us)
        return false;
    struct event later = *event;
    later.at_us = until_us;
    events_push(&world->events, later);
    return true;
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
        if (put_off(world, &event))
            continue;
        world->totals.events++;
        mix_event(world, &event);
        dispatch(world, &event);
    }
    bool done = world->pulls_running == 0;
    if (!until_pulls_done || !done)
        world->now_us = until_us;
    return done;
}

/* ---- looking in ---- */

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

void world_check(struct world *world)
{
    bulk_check(world);
    flows_check(&world->flows);
    for (uint32_t i = 0; i < world->config.node_count; i++) {
        struct sim_node *node = &world->nodes[i];
        if (node->mesh == NULL)
            continue;
        mesh__check_invariants(node->mesh);
        for (uint32_t blob = 0; blob < world->blob_count; blob++) {
            const struct sim_blob *mine = &node->blobs[blob];
            if (mine->handle == 0)
                continue;
            const struct bitfield *have = transfer_blob_have(host_transfer(node), mine->handle);
            ASSERT(have != NULL && have->set_count == mine->have.set_count);
        }
    }
}
