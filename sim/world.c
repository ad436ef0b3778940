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
#include "pages.h"

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
        .origin_latency_us = 1000,
        .tcp_initial_bytes = 14480, /* 10 segments of 1,448 bytes (RFC 6928) */
        .tcp_idle_us = 200000,      /* Linux: the least retransmission time-out */
        .cpu = {.cores = 8,
                /* LIMITS §6, differences of rows: read and open 0.47, SHA-256 0.57, pwrite 0.31,
                 * client 0.15 s/GB, 1.50 together; serving peer 0.50. Origin: libcurl with TLS and
                 * SHA-256 1.24 (§5) less the SHA. */
                .receive_ps = 470,
                .serve_ps = 500,
                .origin_ps = 670,
                .verify_ps = 570,
                .store_ps = 310,
                .client_ps = 150,
                /* LIMITS §8: receive, open, seal and send of a datagram 6 us. */
                .message_ns = 3000,
                /* LIMITS §2: Noise 126 us a side, TLS 1.3 1,540 us for both. */
                .handshake_us = 125,
                .tls_us = 770},
        .memory_bytes = 64ULL << 20, /* cache.memory of the agent */
        .flow_quantum_us = WORLD_AUTO,
        .flow_slack = WORLD_AUTO,
        .verify_bps = 1100000000, /* AEAD 0.25 and SHA-256 0.65 s/GB (LIMITS §2) */
        .latency_zone_us = 200,
        .latency_cross_us = 1000,
        .jitter_percent = 20,
        .seed_count = 3,
        .trace_level = LOG_ERROR,
        .prefetch = true,
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
    return world->places[node].zone;
}

static uint64_t link_bit(const struct world *world, uint32_t from, uint32_t to)
{
    return (uint64_t)from * world->config.node_count + to;
}

bool world__cut(const struct world *world, uint32_t a, uint32_t b)
{
    uint64_t bit = link_bit(world, a, b);
    return world->cut[world__zone(world, a)][world__zone(world, b)] ||
           (world->cut_links != NULL && (world->cut_links[bit / 64] >> bit % 64 & 1) != 0);
}

bool world__severed(const struct world *world, uint32_t a, uint32_t b)
{
    return world__cut(world, a, b) || world__cut(world, b, a);
}

/* A datagram's time on its way: some are held back, and others overtake them. */
static uint64_t datagram_us(struct world *world, uint32_t from, uint32_t to)
{
    const struct world_config *config = &world->config;
    uint64_t took_us = world__latency_us(world, from, to);
    if (config->reorder_ppm == 0 || prng_below(&world->prng, 1000000) >= config->reorder_ppm)
        return took_us;
    uint64_t most_us = config->reorder_us != 0 ? config->reorder_us : 10 * took_us;
    return took_us + prng_below(&world->prng, most_us + 1);
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
                (struct event){.at_us = world->now_us + datagram_us(world, from, to),
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

/* A datagram leaves its node and is on its way, if it is not lost. */
static void send_datagram(struct sim_node *node, uint32_t target, const uint8_t *msg,
                          size_t msg_bytes)
{
    struct world *world = node->world;
    world->totals.datagrams++;
    world->totals.datagram_bytes +=
        world->config.plant == WORLD_PLANT_TALK ? 100 * msg_bytes : msg_bytes;
    node->bytes.control_sent += msg_bytes;
    if (world->series.began)
        world->series.samples[world->series.sample_count - 1].control_bytes += msg_bytes;
    work_message(node);
    bool lost = prng_below(&world->prng, 1000000) < world->config.loss_ppm;
    if (lost || world__cut(world, node->index, target)) {
        world->totals.datagrams_lost++;
        return;
    }
    push_datagram(world, node->index, target, msg, msg_bytes);
    if (prng_below(&world->prng, 1000000) < world->config.duplicate_ppm)
        push_datagram(world, node->index, target, msg, msg_bytes);
}

/* One that is looked at, or changed by a hostile node or a plant. */
static void send_watched(struct sim_node *node, uint32_t target, const uint8_t *msg,
                         size_t msg_bytes)
{
    struct world *world = node->world;
    uint8_t changed[MESSAGE_BYTES_MAX];
    memcpy(changed, msg, msg_bytes);
    if (world->config.plant == WORLD_PLANT_NAME || world->config.plant == WORLD_PLANT_DIGEST)
        msg_bytes = hostile_leak(node, changed, msg_bytes);
    if (world->config.watch)
        watch_message(world, node->index, target, changed, msg_bytes);
    if (node->hostile != 0)
        msg_bytes = hostile_message(node, changed, msg_bytes);
    if (msg_bytes > 0)
        send_datagram(node, target, changed, msg_bytes);
}

int world__send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    struct sim_node *node = host;
    const struct world *world = node->world;
    ASSERT(msg_bytes > 0 && msg_bytes <= MESSAGE_BYTES_MAX);
    uint32_t target = world__node_at(world, to);
    if (target == INDEX_NONE)
        return E_UNREACHABLE;
    bool plain = world->config.plant != WORLD_PLANT_NAME &&
                 world->config.plant != WORLD_PLANT_DIGEST && !world->config.watch &&
                 node->hostile == 0;
    if (plain)
        send_datagram(node, target, msg, msg_bytes);
    else
        send_watched(node, target, msg, msg_bytes);
    return 0;
}

/* ---- making and freeing ---- */

void world_flow_defaults(uint32_t node_count, uint64_t *quantum_us, uint64_t *slack)
{
    bool small = node_count <= 64;
    *quantum_us = small ? 0 : node_count <= 2000 ? 200 : 500;
    *slack = small ? 0 : 128;
}

static void take_config(struct world *world, const struct world_config *config)
{
    uint64_t quantum_us, slack;
    world_flow_defaults(config->node_count, &quantum_us, &slack);
    world->config = *config;
    if (config->flow_quantum_us == WORLD_AUTO)
        world->config.flow_quantum_us = quantum_us;
    if (config->flow_slack == WORLD_AUTO)
        world->config.flow_slack = slack;
    if (config->nic_down_bps == 0)
        world->config.nic_down_bps = config->nic_bps;
}

struct world *world_new(const struct world_config *config)
{
    ASSERT(config->node_count > 0 && config->node_count <= WORLD_NODES_MAX);
    ASSERT(config->zone_count > 0 && config->zone_count <= WORLD_ZONES_MAX);
    struct world *world = calloc(1, sizeof *world);
    if (world == NULL)
        return NULL;
    pages_prepare(&world->pages_end);
    take_config(world, config);
    world->trace_hash = 0xcbf29ce484222325ULL;
    world->bulk_free = INDEX_NONE;
    prng_seed(&world->prng, (const uint8_t *)&config->seed, sizeof config->seed);
    world->nodes = calloc(config->node_count, sizeof *world->nodes);
    world->places = calloc(config->node_count, sizeof *world->places);
    ASSERT(world->nodes != NULL && world->places != NULL);
    series_init(&world->series, config->node_count, config->series_period_us);
    places_init(world);
    world->flows.quantum_us = world->config.flow_quantum_us;
    world->flows.slack = world->config.flow_slack;
    for (uint32_t i = 0; i < config->node_count; i++) {
        host_init(world, i);
        world_slow_node(world, i, 1);
    }
    int err = directory_new(&world->nodes[0].env, config->mesh.cluster_id, config->seed,
                            &world->directory);
    ASSERT(err == 0);
    return world;
}

void world_free(struct world *world)
{
    struct event event;
    for (uint32_t i = 0; i < world->config.node_count; i++)
        host_close(&world->nodes[i]);
    directory_put(world->directory);
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
    series_close(&world->series);
    free(world->bulks);
    free(world->lookups);
    free(world->pulls);
    free(world->rates);
    free(world->cut_links);
    free(world->nodes);
    free(world->places);
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
    places_set_nic(world, node, world->config.nic_bps / divisor,
                   world->config.nic_down_bps / divisor);
}

/* An event that tells the world two rates; 0: that one stays. */
static void push_rates(struct world *world, enum event_kind kind, uint32_t node,
                       const uint64_t rates[2], uint64_t at_us)
{
    if (world->rate_count == world->rate_capacity) {
        world->rate_capacity = world->rate_capacity == 0 ? 64 : world->rate_capacity * 2;
        world->rates = realloc(world->rates, world->rate_capacity * sizeof *world->rates);
        ASSERT(world->rates != NULL);
    }
    world->rates[world->rate_count] = (struct world_rates){rates[0], rates[1]};
    events_push(
        &world->events,
        (struct event){.at_us = at_us, .kind = kind, .node = node, .version = world->rate_count++});
}

void world_set_nic(struct world *world, uint32_t node, uint64_t up_bps, uint64_t down_bps,
                   uint64_t at_us)
{
    ASSERT(node < world->config.node_count);
    push_rates(world, EVENT_NIC, node, (const uint64_t[2]){up_bps, down_bps}, at_us);
}

void world_set_origin_rate(struct world *world, uint64_t origin_bps, uint64_t first_byte_us,
                           uint64_t at_us)
{
    push_rates(world, EVENT_ORIGIN_RATE, 0, (const uint64_t[2]){origin_bps, first_byte_us}, at_us);
}

static void set_rates(struct world *world, const struct event *event)
{
    const struct world_rates rates = world->rates[event->version];
    if (event->kind == EVENT_NIC) {
        const struct sim_node *node = &world->nodes[event->node];
        places_set_nic(world, event->node, rates.first != 0 ? rates.first : node->up_bps,
                       rates.second != 0 ? rates.second : node->down_bps);
        return;
    }
    if (rates.first != 0)
        places_set_origin(world, rates.first);
    if (rates.second != 0)
        world->config.origin_first_byte_us = rates.second;
}

void world_set_loss(struct world *world, uint32_t loss_ppm)
{
    world->config.loss_ppm = loss_ppm;
}

void world_make_liar(struct world *world, uint32_t node)
{
    world->nodes[node].hostile |= WORLD_LIES;
}

void world_set_trait(struct world *world, uint32_t node, enum world_trait trait, uint64_t value,
                     uint64_t at_us)
{
    ASSERT(node < world->config.node_count);
    events_push(&world->events, (struct event){.at_us = at_us,
                                               .kind = EVENT_TRAIT,
                                               .node = node,
                                               .other = (uint32_t)trait,
                                               .version = value});
}

static void set_trait(struct sim_node *node, enum world_trait trait, uint64_t value)
{
    switch (trait) {
    case WORLD_TRAIT_HOSTILE:
        node->hostile = (uint32_t)value;
        break;
    case WORLD_TRAIT_CPU_MILLI:
        node->cpu_milli = value;
        break;
    case WORLD_TRAIT_DISK:
        ASSERT(value == WORLD_DISK_WELL || node->keep != NULL);
        node->disk = (uint32_t)value;
        break;
    case WORLD_TRAIT_DISK_WAIT_US:
        node->disk_wait_us = value;
        break;
    }
}

static void cut_zones(struct world *world, uint32_t from_zone, uint32_t to_zone, bool cut)
{
    ASSERT(from_zone < world->config.zone_count && to_zone < world->config.zone_count);
    world->cut[from_zone][to_zone] = cut;
    if (cut)
        sessions_sever(world, from_zone, to_zone);
}

static void cut_link(struct world *world, uint32_t from, uint32_t to, bool cut)
{
    uint64_t bit = link_bit(world, from, to), nodes = world->config.node_count;
    if (world->cut_links == NULL) {
        world->cut_links = calloc((nodes * nodes + 63) / 64, sizeof *world->cut_links);
        ASSERT(world->cut_links != NULL);
    }
    world->cut_links[bit / 64] &= ~(1ULL << bit % 64);
    world->cut_links[bit / 64] |= (uint64_t)cut << bit % 64;
    if (cut)
        sessions_sever_pair(world, from, to);
}

void world_cut_link(struct world *world, uint32_t from, uint32_t to, bool cut, uint64_t at_us)
{
    ASSERT(from < world->config.node_count && to < world->config.node_count && from != to);
    events_push(
        &world->events,
        (struct event){
            .at_us = at_us, .kind = EVENT_CUT_LINK, .node = from, .other = to, .version = cut});
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

void world_set_copies(struct world *world, uint32_t blob, enum transfer_copies copies)
{
    ASSERT(blob < world->blob_count);
    world->copies[blob] = copies;
}

void world_add_image(struct world *world, uint32_t first_blob, uint32_t blob_count)
{
    ASSERT(world->image_count < WORLD_BLOBS_MAX && blob_count <= PREFETCH_LAYERS_MAX);
    ASSERT(first_blob + blob_count <= world->blob_count);
    world->images[world->image_count++] = (struct world_image){first_blob, blob_count};
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
    struct sim_node *puller = &world->nodes[node];
    if (blob_set_add(&puller->wanted_blobs, blob))
        puller->bytes.wanted += world->blobs[blob].size_bytes;
    events_push(&world->events, (struct event){.at_us = at_us,
                                               .kind = EVENT_PULL,
                                               .node = node,
                                               .other = index,
                                               .version = (uint64_t)mode});
    return index;
}

void world_set_client(struct world *world, uint32_t pull, uint32_t client)
{
    ASSERT(pull < world->pull_count);
    world->pulls[pull].client = client;
}

uint64_t world_origin_bytes(const struct world *world, uint32_t blob)
{
    ASSERT(blob < world->blob_count);
    return world->origin_bytes[blob];
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
    return kind != EVENT_FLOW && kind != EVENT_POUR && kind != EVENT_CUT && kind != EVENT_ORIGIN &&
           kind != EVENT_NIC && kind != EVENT_ORIGIN_RATE && kind != EVENT_CUT_LINK;
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
        bulk_flow(world, event->other);
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
    case EVENT_REST:
        ahead_rest(node, event->other);
        break;
    case EVENT_CUT:
        cut_zones(world, event->node, event->other, event->version != 0);
        break;
    case EVENT_CUT_LINK:
        cut_link(world, event->node, event->other, event->version != 0);
        break;
    case EVENT_TRAIT:
        set_trait(node, (enum world_trait)event->other, event->version);
        break;
    case EVENT_ORIGIN:
        set_origin(world, (enum world_origin)event->version);
        break;
    case EVENT_NIC:
    case EVENT_ORIGIN_RATE:
        set_rates(world, event);
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
    uint32_t slot = events_push(&world->events, later);
    if (event->kind == EVENT_PROGRESS)
        bulk_progress_later(world, event->other, slot);
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
        if (event.at_us >= world->series.next_us)
            series_tick(world, event.at_us);
        world->now_us = event.at_us;
        look_ahead(world);
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

void world_progress(const struct world *world, struct world_progress *out)
{
    *out = (struct world_progress){0};
    for (uint32_t i = 0; i < world->config.node_count; i++) {
        const struct sim_node *node = &world->nodes[i];
        uint64_t wanted = node->bytes.wanted;
        uint64_t got = node->got_bytes < wanted ? node->got_bytes : wanted;
        out->nodes += wanted > 0;
        out->nodes_done += wanted > 0 && got == wanted;
        out->wanted_bytes += wanted;
        out->got_bytes += got;
    }
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
        keep_check(node);
    }
}
