/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One simulated node around the shipped mesh object: its life, its time, and the results of its
 * mesh handed to those who act on them (sessions.c, bulk.c, pulls.c).
 */
#include "host.h"

#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "digest.h"
#include "log.h"
#include "pages.h"
#include "topology.h"
#include "wire.h"

#define SEEDS_MAX 8
/* From when on a node that is deaf by plan hears nothing. */
#define DEAF_US 12000000ULL
#define HOUR_US 3600000000ULL

static void *host_alloc(void *host, void *old, size_t new_bytes)
{
    struct sim_node *node = host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    void *fresh = realloc(old, new_bytes);
    pages_follow(&node->world->pages_end);
    return fresh;
}

static void host_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct sim_node *node = host;
    uint8_t word[8];
    for (size_t i = 0; i < out_bytes; i += sizeof word) {
        size_t part = out_bytes - i < sizeof word ? out_bytes - i : sizeof word;
        store_be64(word, prng_next(&node->prng));
        memcpy(out + i, word, part);
    }
}

static void host_trace(void *host, enum log_level level, const char *line)
{
    const struct sim_node *node = host;
    if (level > node->world->config.trace_level)
        return;
    fprintf(stderr, "%10.6f node=%u %s %s\n", (double)node->world->now_us / 1e6, node->index,
            log_level_name(level), line);
}

/* Drawn apart from all else, and in whole hours, so that nothing which counts minutes or tenths of
 * seconds changes its phase: two worlds that differ in this alone are the same. */
static void set_clock(struct sim_node *node)
{
    const struct world_config *config = &node->world->config;
    uint64_t seed[3] = {config->seed, node->index, 0x636c6f636b};
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)seed, sizeof seed);
    uint64_t hours = config->clock_spread_us / HOUR_US;
    node->clock_us = hours == 0 ? 0 : (1 + prng_below(&prng, hours)) * HOUR_US;
    node->clock_ppm = (int64_t)prng_below(&prng, 2ULL * config->clock_drift_ppm + 1) -
                      (int64_t)config->clock_drift_ppm;
}

uint64_t host__world_us(const struct sim_node *node, uint64_t local_us)
{
    uint64_t now_us = node->world->now_us, local_now_us = host_now_us(node);
    if (local_us == UINT64_MAX || local_us <= local_now_us)
        return local_us == UINT64_MAX ? UINT64_MAX : now_us;
    uint64_t wait_us = local_us - local_now_us;
    if (node->clock_ppm == 0)
        return now_us + wait_us;
    /* A little late rather than early: an early one would have to be asked again. */
    uint64_t ppm = (uint64_t)(node->clock_ppm < 0 ? -node->clock_ppm : 0);
    return now_us + wait_us + (wait_us / 1000 + 1) * ppm / 1000 + 2;
}

void host_init(struct world *world, uint32_t index)
{
    struct sim_node *node = &world->nodes[index];
    uint64_t seed[2] = {world->config.seed, index};
    struct peer_addr addr;
    *node = (struct sim_node){.world = world,
                              .index = index,
                              .timer_us = UINT64_MAX,
                              .cpu_milli = 1000,
                              .own = {INDEX_NONE, INDEX_NONE},
                              .incoming = {INDEX_NONE, INDEX_NONE}};
    places_of(world, index, &world->places[index]);
    prng_seed(&node->prng, (const uint8_t *)seed, sizeof seed);
    set_clock(node);
    world_node_addr(index, &addr);
    node_id_of(world->config.mesh.cluster_id, &addr, &node->id);
    node->env = (struct env){.host = node,
                             .send = world__send,
                             .random = host_random,
                             .alloc = host_alloc,
                             .trace = host_trace};
    pulls_forget(node);
}

void host_close(struct sim_node *node)
{
    mesh_free(node->mesh);
    node->mesh = NULL;
    pulls_forget(node);
    keep_close(node);
    free(node->sessions);
    node->sessions = NULL;
}

struct transfer *host_transfer(struct sim_node *node)
{
    ASSERT(node->mesh != NULL);
    return mesh_transfer(node->mesh);
}

/* ---- life ---- */

/* Bootstrap addresses: those of the first nodes, of which a name service leaves out who died. With
 * all of them dead it still gives the first ones. */
static void seeds_of(const struct world *world, uint32_t count, struct peer_addr *out)
{
    uint32_t nodes = world->config.node_count, found = 0;
    for (uint32_t i = 0; i < nodes && found < count; i++)
        if (!world->nodes[i].died)
            world_node_addr(i, &out[found++]);
    for (uint32_t i = 0; found < count; i++)
        world_node_addr(i % nodes, &out[found++]);
}

void host_join(struct sim_node *node)
{
    const struct world *world = node->world;
    struct peer_addr seeds[SEEDS_MAX];
    uint32_t count = world->config.seed_count == 0 ? 3 : world->config.seed_count;
    count = count > SEEDS_MAX ? SEEDS_MAX : count;
    seeds_of(world, count, seeds);
    gossip_join(mesh_gossip(node->mesh), host_now_us(node), seeds, count);
    if (!world->config.mesh.dht.one_hop)
        dht_bootstrap(mesh_dht(node->mesh), host_now_us(node), seeds, count);
    host_drain(node);
}

static void label(struct label *out, const char *kind, uint32_t number)
{
    char text[32];
    int bytes = snprintf(text, sizeof text, "%s-%u", kind, number);
    int err = label_set(out, text, (size_t)bytes);
    ASSERT(err == 0);
}

static void mesh_config_of(const struct sim_node *node, struct mesh_config *out)
{
    const struct world_config *config = &node->world->config;
    const struct place *place = &node->world->places[node->index];
    *out = config->mesh;
    out->directory = node->world->directory;
    out->transfer.ahead_bytes = cache_ahead_bytes(config->cache_bytes);
    world_node_addr(node->index, &out->self_addr);
    out->self_key.bytes[0] = 1;
    store_be32(&out->self_key.bytes[4], node->index);
    label(&out->topology.region, "region", place->region);
    label(&out->topology.zone, "zone", place->zone);
    label(&out->topology.vswitch, "vswitch", place->vswitch);
    if (config->plant == WORLD_PLANT_GREEDY) {
        out->transfer.upload_slots = 48;
        out->transfer.upload_queue = 96;
        out->transfer.inflight = 64;
    }
}

void host_boot(struct sim_node *node, bool keep_cache)
{
    struct world *world = node->world;
    ASSERT(node->mesh == NULL);
    node->died = false;
    if (!keep_cache)
        pulls_forget(node);
    struct mesh_config config;
    mesh_config_of(node, &config);
    int err = mesh_new(&node->env, &config, host_now_us(node), &node->mesh);
    ASSERT(err == 0);
    for (uint32_t i = 0; i < world->blob_count && err == 0; i++) {
        if (node->blobs[i].have.bits != NULL)
            err = pulls_open(node, i);
    }
    ASSERT(err == 0);
    world->nodes_up++;
    node->lives++;
}

void host_start(struct sim_node *node, bool keep_cache)
{
    if (node->mesh != NULL)
        return;
    host_boot(node, keep_cache);
    host_join(node);
}

void host_kill(struct sim_node *node, bool silent)
{
    struct world *world = node->world;
    if (node->mesh == NULL)
        return;
    bulk_drop(node);
    sessions_drop(node, silent ? WORLD_SILENT_US : world->config.latency_zone_us);
    mesh_free(node->mesh);
    node->mesh = NULL;
    node->died = true;
    world->nodes_up--;
    node->origin_idle_count = 0;
    work_stop(node);
    node->timer_us = UINT64_MAX;
    node->timer_version++;
    node->frozen_until_us = 0;
    pulls_drop(node);
    keep_crash(node);
}

void host_leave(struct sim_node *node, bool final)
{
    if (node->mesh == NULL)
        return;
    mesh_leave(node->mesh, host_now_us(node), final);
    host_drain(node);
    if (final)
        host_kill(node, false);
}

/* ---- events ---- */

/* WORLD_PLANT_DEAF. */
static bool is_deaf(const struct sim_node *node, const uint8_t *bytes, size_t byte_count)
{
    unsigned type = 0;
    return node->world->config.plant == WORLD_PLANT_DEAF && node->index == 0 &&
           node->world->now_us > DEAF_US && wire_type(bytes, byte_count, &type) == 0 &&
           type < WIRE_DHT_FIRST;
}

void host_datagram(struct sim_node *node, uint32_t from, const uint8_t *bytes, size_t byte_count)
{
    if (node->mesh == NULL || is_deaf(node, bytes, byte_count))
        return;
    struct peer_addr addr;
    world_node_addr(from, &addr);
    work_message(node);
    int err = mesh_receive(node->mesh, host_now_us(node), &node->world->nodes[from].id, &addr,
                           bytes, byte_count);
    if (err != 0)
        node->world->totals.refused++; /* late answers, mostly; the cores count them by kind */
    host_drain(node);
}

void host_timer(struct sim_node *node, uint64_t version)
{
    if (node->mesh == NULL || node->timer_version != version)
        return;
    node->timer_us = UINT64_MAX;
    mesh_advance(node->mesh, host_now_us(node));
    host_drain(node);
}

/* ---- results ---- */

static void take_lookup(struct sim_node *node, const struct dht_result *result)
{
    struct world *world = node->world;
    if (world->lookup_count == world->lookup_capacity) {
        world->lookup_capacity = world->lookup_capacity == 0 ? 64 : world->lookup_capacity * 2;
        world->lookups = realloc(world->lookups, world->lookup_capacity * sizeof *world->lookups);
        ASSERT(world->lookups != NULL);
    }
    world->lookups[world->lookup_count++] =
        (struct world_lookup){.node = node->index, .result = *result};
}

static void take_result(struct sim_node *node, const struct transfer_result *result)
{
    switch (result->kind) {
    case TRANSFER_CONNECT:
        session_connect(node, result);
        break;
    case TRANSFER_RELEASE:
        session_release(node, world__node_at(node->world, &result->peer_addr));
        break;
    case TRANSFER_UPLOAD:
        bulk_upload(node, result);
        break;
    case TRANSFER_UPLOAD_CANCEL:
        bulk_cancel(node, BULK_UPLOAD, result->id);
        break;
    case TRANSFER_FETCH:
        bulk_fetch(node, result);
        break;
    case TRANSFER_FETCH_CANCEL:
        bulk_cancel(node, BULK_FETCH, result->id);
        break;
    case TRANSFER_PIECE_READY:
        pulls_piece(node, pulls_blob_of(node, result->blob));
        break;
    case TRANSFER_BLOB_COMPLETE:
        if (node->world->config.plant == WORLD_PLANT_NO_END ||
            (node->world->config.plant == WORLD_PLANT_NO_RETRY && node->lives > 1))
            break;
        pulls_end(node, pulls_blob_of(node, result->blob), false);
        break;
    case TRANSFER_PIECE_FAILED:
        pulls_end(node, pulls_blob_of(node, result->blob), true);
        break;
    case TRANSFER_LOCATE:
    case TRANSFER_PUBLISH:
    case TRANSFER_PEER_SILENT:
        ASSERT(false); /* the mesh's own */
        break;
    }
}

static void schedule(struct sim_node *node)
{
    struct world *world = node->world;
    uint64_t deadline_us = host__world_us(node, mesh_deadline_us(node->mesh));
    if (deadline_us >= node->timer_us)
        return;
    if (deadline_us < world->now_us)
        deadline_us = world->now_us;
    node->timer_us = deadline_us;
    events_push(&world->events, (struct event){.at_us = deadline_us,
                                               .kind = EVENT_TIMER,
                                               .node = node->index,
                                               .version = ++node->timer_version});
}

void host_drain(struct sim_node *node)
{
    if (node->mesh == NULL || node->draining)
        return;
    node->draining = true;
    struct mesh_event event;
    while (mesh_next_result(node->mesh, host_now_us(node), &event)) {
        if (event.kind == MESH_TRANSFER)
            take_result(node, &event.of.transfer);
        else if (event.kind == MESH_LOOKUP)
            take_lookup(node, event.of.lookup);
    }
    node->draining = false;
    schedule(node);
}
