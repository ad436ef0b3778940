/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One simulated node around the shipped mesh object: answers its results (connect, upload, fetch)
 * with events and flows, keeps its pieces, and runs its pulls. The protocol is not repeated here.
 */
#include "host.h"

#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "log.h"
#include "topology.h"

/* A peer that vanished without a reset is noticed by TCP_USER_TIMEOUT (N-3). */
#define SILENT_DEATH_US 3000000
/* CPU of one handshake side (LIMITS §2: 126 us), paid by both. */
#define HANDSHAKE_US 250

uint64_t id_hash_bytes(const struct event *event)
{
    uint64_t hash = event->other;
    for (size_t i = 0; i < event->byte_count; i++)
        hash = (hash ^ event->bytes[i]) * 0x100000001b3ULL;
    return hash;
}

static void *host_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

static void host_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct sim_node *node = host;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)(prng_next(&node->prng) >> 32);
}

static void host_trace(void *host, enum log_level level, const char *line)
{
    const struct sim_node *node = host;
    if (level > node->world->config.trace_level)
        return;
    fprintf(stderr, "%10.6f node=%u %s %s\n", (double)node->world->now_us / 1e6, node->index,
            log_level_name(level), line);
}

void host_init(struct world *world, uint32_t index)
{
    struct sim_node *node = &world->nodes[index];
    uint64_t seed[2] = {world->config.seed, index};
    struct peer_addr addr;
    *node = (struct sim_node){.world = world, .index = index, .timer_us = UINT64_MAX};
    prng_seed(&node->prng, (const uint8_t *)seed, sizeof seed);
    world_node_addr(index, &addr);
    node_id_of(world->config.mesh.cluster_id, &addr, &node->id);
    node->env = (struct env){.host = node,
                             .send = world__send,
                             .random = host_random,
                             .alloc = host_alloc,
                             .trace = host_trace};
}

static void forget_blobs(struct sim_node *node)
{
    for (uint32_t i = 0; i < WORLD_BLOBS_MAX; i++) {
        if (node->blobs[i].have.bits != NULL)
            bitfield_close(&node->blobs[i].have, &node->env);
        node->blobs[i] = (struct sim_blob){0};
    }
}

void host_close(struct sim_node *node)
{
    mesh_free(node->mesh);
    node->mesh = NULL;
    forget_blobs(node);
}

static struct transfer *transfer_of(struct sim_node *node)
{
    return mesh_transfer(node->mesh);
}

static bool session_get(const struct world *world, uint32_t a, uint32_t b)
{
    size_t bit = (size_t)a * world->config.node_count + b;
    return (world->sessions[bit / 8] >> (bit % 8) & 1) != 0;
}

static void session_set(struct world *world, uint32_t a, uint32_t b, bool up)
{
    size_t bit = (size_t)a * world->config.node_count + b;
    uint8_t mask = (uint8_t)(1U << (bit % 8));
    if (up)
        world->sessions[bit / 8] |= mask;
    else
        world->sessions[bit / 8] &= (uint8_t)~mask;
}

/* ---- blobs and pulls ---- */

static uint32_t blob_of(const struct sim_node *node, blob_handle handle)
{
    for (uint32_t i = 0; i < node->world->blob_count; i++) {
        if (node->blobs[i].handle == handle)
            return i;
    }
    return UINT32_MAX;
}

static int open_blob(struct sim_node *node, uint32_t blob)
{
    struct sim_blob *mine = &node->blobs[blob];
    const struct blob_info *info = &node->world->blobs[blob];
    struct piece_layout layout;
    int err = piece_layout_of(info->size_bytes, &layout);
    if (err == 0 && mine->have.bits == NULL)
        err = bitfield_init(&mine->have, &node->env, layout.piece_count);
    if (err == 0)
        err = transfer_blob_open(transfer_of(node), node->world->now_us, info, &mine->have,
                                 &mine->handle);
    return err == E_EXISTS ? 0 : err;
}

static void end_pull(struct world *world, struct world_pull *pull, bool failed)
{
    if (pull->done_us != 0)
        return;
    pull->done_us = world->now_us;
    pull->failed = failed;
    world->pulls_running--;
}

void host_pull(struct sim_node *node, uint32_t pull_index, enum transfer_read_mode mode)
{
    struct world *world = node->world;
    struct world_pull *pull = &world->pulls[pull_index];
    if (node->mesh == NULL || open_blob(node, pull->blob) != 0) {
        end_pull(world, pull, true);
        return;
    }
    struct sim_blob *mine = &node->blobs[pull->blob];
    int err = transfer_read_start(transfer_of(node), world->now_us, mine->handle, 0,
                                  mine->have.bit_count, mode, true, &pull->reader_id);
    if (err != 0 || bitfield_full(&mine->have))
        end_pull(world, pull, err != 0);
    host_drain(node);
}

/* Ends or moves on the pulls of this node that wait for a blob. */
static void pulls_of(struct sim_node *node, uint32_t blob, bool failed)
{
    struct world *world = node->world;
    const struct bitfield *have = &node->blobs[blob].have;
    for (size_t i = 0; i < world->pull_count; i++) {
        struct world_pull *pull = &world->pulls[i];
        if (pull->node != node->index || pull->blob != blob || pull->done_us != 0 ||
            pull->started_us > world->now_us)
            continue;
        if (failed || bitfield_full(have)) {
            transfer_read_stop(transfer_of(node), world->now_us, pull->reader_id);
            end_pull(world, pull, failed);
        }
    }
}

static void piece_ready(struct sim_node *node, uint32_t blob)
{
    struct world *world = node->world;
    uint32_t prefix = bitfield_next_clear(&node->blobs[blob].have, 0);
    for (size_t i = 0; i < world->pull_count; i++) {
        const struct world_pull *pull = &world->pulls[i];
        if (pull->node == node->index && pull->blob == blob && pull->done_us == 0 &&
            pull->reader_id != 0 && prefix < node->blobs[blob].have.bit_count)
            transfer_read_move(transfer_of(node), world->now_us, pull->reader_id, prefix);
    }
}

/* ---- flows ---- */

static void start_flow(struct sim_node *node, const struct flow *flow, uint64_t delay_us)
{
    struct world *world = node->world;
    uint32_t index = flows_add(&world->flows, flow);
    events_push(&world->events, (struct event){.at_us = world->now_us + delay_us,
                                               .kind = EVENT_FLOW_START,
                                               .node = flow->to,
                                               .other = index,
                                               .version = world->flows.items[index].version});
}

static void upload(struct sim_node *node, const struct transfer_result *result)
{
    struct world *world = node->world;
    uint32_t peer = world__node_at(world, &result->peer_addr);
    uint32_t blob = blob_of(node, result->blob);
    bool possible = peer != UINT32_MAX && blob != UINT32_MAX &&
                    session_get(world, node->index, peer) &&
                    bitfield_get(&node->blobs[blob].have, result->piece);
    if (!possible) {
        transfer_upload_end(transfer_of(node), world->now_us, result->id, 0, E_CLOSED);
        return;
    }
    const struct piece_layout *layout = transfer_blob_layout(transfer_of(node), result->blob);
    struct flow flow = {.kind = FLOW_UPLOAD,
                        .from = node->index,
                        .to = peer,
                        .blob = blob,
                        .piece = result->piece,
                        .left_bytes = piece_length(layout, result->piece),
                        .id = result->id};
    flow.done_bytes = flow.left_bytes;
    start_flow(node, &flow, world__latency_us(world, node->index, peer));
}

static void fetch(struct sim_node *node, const struct transfer_result *result)
{
    struct world *world = node->world;
    uint32_t blob = blob_of(node, result->blob);
    ASSERT(blob != UINT32_MAX && result->piece_count > 0);
    const struct piece_layout *layout = transfer_blob_layout(transfer_of(node), result->blob);
    struct flow flow = {.kind = FLOW_FETCH,
                        .from = WORLD_ORIGIN,
                        .to = node->index,
                        .blob = blob,
                        .piece = result->piece,
                        .pieces_left = result->piece_count,
                        .left_bytes = piece_length(layout, result->piece),
                        .id = result->id,
                        .reason = result->reason};
    start_flow(node, &flow, world->config.origin_first_byte_us);
}

static void cancel(struct sim_node *node, enum flow_kind kind, uint64_t id)
{
    struct world *world = node->world;
    for (uint32_t i = 0; i < world->flows.count; i++) {
        struct flow *flow = &world->flows.items[i];
        uint32_t owner = kind == FLOW_UPLOAD ? flow->from : flow->to;
        if (flow->kind != kind || owner != node->index || flow->id != id)
            continue;
        if (kind == FLOW_UPLOAD && flow->flowing)
            return; /* what has begun is finished, as on a real connection */
        flows_remove(&world->flows, i, world->now_us);
        if (kind == FLOW_UPLOAD)
            transfer_upload_end(transfer_of(node), world->now_us, id, 0, E_CANCELLED);
        else
            transfer_fetch_end(transfer_of(node), world->now_us, id, E_CANCELLED, 0);
        return;
    }
}

void host_flow_start(struct world *world, uint32_t index, uint64_t version)
{
    struct flow *flow = &world->flows.items[index];
    if (flow->kind == FLOW_FREE || flow->version != version)
        return;
    flows_begin(&world->flows, index, world->now_us);
    struct sim_node *node = &world->nodes[flow->to];
    if (flow->kind != FLOW_UPLOAD || node->mesh == NULL || node->blobs[flow->blob].handle == 0)
        return;
    const struct node_id *sender = &world->nodes[flow->from].id;
    const struct blob_key *key = &world->blobs[flow->blob].key;
    if (transfer_expects(transfer_of(node), key, flow->piece, sender))
        transfer_piece_progress(transfer_of(node), world->now_us, node->blobs[flow->blob].handle,
                                flow->piece, sender, 1);
    host_drain(node);
}

static void take_piece(struct sim_node *node, const struct flow *flow, int status)
{
    struct world *world = node->world;
    struct sim_blob *mine = &node->blobs[flow->blob];
    struct piece_source source = {.origin = PIECE_FROM_ORIGIN, .fetch_id = flow->id};
    if (flow->kind == FLOW_UPLOAD) {
        source =
            (struct piece_source){.origin = PIECE_FROM_PEER, .peer = world->nodes[flow->from].id};
        if (!transfer_expects(transfer_of(node), &world->blobs[flow->blob].key, flow->piece,
                              &source.peer)) {
            world->totals.wasted_bytes += flow->done_bytes;
            return;
        }
    }
    if (status == 0)
        bitfield_set(&mine->have, flow->piece);
    transfer_piece_done(transfer_of(node), world->now_us, mine->handle, flow->piece, &source,
                        status);
}

static void upload_done(struct world *world, uint32_t index)
{
    struct flow flow = world->flows.items[index];
    struct sim_node *from = &world->nodes[flow.from], *to = &world->nodes[flow.to];
    flows_remove(&world->flows, index, world->now_us);
    from->uploaded_bytes += flow.done_bytes;
    bool same = flow.from % world->config.zone_count == flow.to % world->config.zone_count;
    world->totals.peer_bytes[same ? DISTANCE_ZONE : DISTANCE_REGION] += flow.done_bytes;
    if (to->mesh != NULL && to->blobs[flow.blob].handle != 0) {
        take_piece(to, &flow, from->liar ? E_DIGEST : 0);
        host_drain(to);
    }
    if (from->mesh != NULL) {
        transfer_upload_end(transfer_of(from), world->now_us, flow.id, flow.done_bytes, 0);
        host_drain(from);
    }
}

static void fetch_piece_done(struct world *world, uint32_t index)
{
    struct flow *flow = &world->flows.items[index];
    struct sim_node *node = &world->nodes[flow->to];
    struct piece_layout layout;
    int err = piece_layout_of(world->blobs[flow->blob].size_bytes, &layout);
    ASSERT(err == 0);
    uint32_t bytes = piece_length(&layout, flow->piece);
    flow->done_bytes += bytes;
    world->totals.origin_bytes += bytes;
    struct flow copy = *flow;
    if (--flow->pieces_left > 0) {
        flow->piece++;
        flows_continue(&world->flows, index, piece_length(&layout, flow->piece), world->now_us);
    } else {
        flows_remove(&world->flows, index, world->now_us);
    }
    transfer_fetch_progress(transfer_of(node), world->now_us, copy.id, copy.done_bytes);
    take_piece(node, &copy, 0);
    if (copy.pieces_left == 1)
        transfer_fetch_end(transfer_of(node), world->now_us, copy.id, 0, 0);
    host_drain(node);
}

void host_flow_done(struct world *world, uint32_t index, uint64_t version)
{
    const struct flow *flow = &world->flows.items[index];
    if (flow->kind == FLOW_FREE || flow->version != version)
        return;
    if (flow->kind == FLOW_UPLOAD)
        upload_done(world, index);
    else
        fetch_piece_done(world, index);
}

/* ---- sessions ---- */

static void push_session(struct world *world, enum event_kind kind, uint32_t node, uint32_t peer,
                         uint64_t after_us)
{
    events_push(&world->events, (struct event){.at_us = world->now_us + after_us,
                                               .kind = kind,
                                               .node = node,
                                               .other = peer,
                                               .version = kind == EVENT_SESSION_UP});
}

static void connect_peer(struct sim_node *node, const struct transfer_result *result)
{
    struct world *world = node->world;
    uint32_t peer = world__node_at(world, &result->peer_addr);
    if (peer == UINT32_MAX) {
        transfer_session_down(transfer_of(node), world->now_us, &result->peer, E_UNREACHABLE);
        return;
    }
    uint64_t latency_us = world__latency_us(world, node->index, peer);
    if (session_get(world, node->index, peer)) {
        transfer_session_up(transfer_of(node), world->now_us, &result->peer);
        return;
    }
    if (world->nodes[peer].mesh == NULL || world__cut(world, node->index, peer)) {
        bool quiet = world->config.silent_death || world__cut(world, node->index, peer);
        push_session(world, EVENT_SESSION_DOWN, node->index, peer,
                     quiet ? SILENT_DEATH_US : 2 * latency_us);
        return;
    }
    /* TCP's round trip, then Noise XX: the responder knows after 1.5 more, the initiator half
     * before. */
    push_session(world, EVENT_SESSION_UP, node->index, peer, 4 * latency_us + HANDSHAKE_US);
    push_session(world, EVENT_SESSION_UP, peer, node->index, 5 * latency_us + HANDSHAKE_US);
}

void host_session_up(struct sim_node *node, uint32_t peer, uint64_t first)
{
    (void)first;
    struct world *world = node->world;
    if (node->mesh == NULL || session_get(world, node->index, peer))
        return;
    if (world->nodes[peer].mesh == NULL) { /* died during the handshake */
        host_session_down(node, peer);
        return;
    }
    session_set(world, node->index, peer, true);
    transfer_session_up(transfer_of(node), world->now_us, &world->nodes[peer].id);
    host_drain(node);
}

void host_session_down(struct sim_node *node, uint32_t peer)
{
    struct world *world = node->world;
    session_set(world, node->index, peer, false);
    if (node->mesh == NULL)
        return;
    transfer_session_down(transfer_of(node), world->now_us, &world->nodes[peer].id, E_CLOSED);
    host_drain(node);
}

/* Ends flows between two nodes, or all of one (peer UINT32_MAX). The living sender is told. */
static void break_flows(struct world *world, uint32_t node, uint32_t peer)
{
    for (uint32_t i = 0; i < world->flows.count; i++) {
        struct flow flow = world->flows.items[i];
        bool mine = flow.from == node || flow.to == node;
        bool theirs = peer == UINT32_MAX || flow.from == peer || flow.to == peer;
        if (flow.kind == FLOW_FREE || !mine || !theirs)
            continue;
        flows_remove(&world->flows, i, world->now_us);
        if (flow.kind != FLOW_UPLOAD || world->nodes[flow.from].mesh == NULL)
            continue;
        struct sim_node *sender = &world->nodes[flow.from];
        transfer_upload_end(transfer_of(sender), world->now_us, flow.id, 0, E_CLOSED);
        host_drain(sender);
    }
}

static void drop_sessions(struct world *world, uint32_t node, uint64_t after_us)
{
    for (uint32_t peer = 0; peer < world->config.node_count; peer++) {
        if (session_get(world, peer, node))
            push_session(world, EVENT_SESSION_DOWN, peer, node, after_us);
        session_set(world, node, peer, false);
    }
}

void host_break_sessions(struct world *world, uint32_t zone_a, uint32_t zone_b)
{
    uint32_t zones = world->config.zone_count;
    for (uint32_t a = zone_a; a < world->config.node_count; a += zones) {
        for (uint32_t b = zone_b; b < world->config.node_count; b += zones) {
            if (a == b || (!session_get(world, a, b) && !session_get(world, b, a)))
                continue;
            break_flows(world, a, b);
            push_session(world, EVENT_SESSION_DOWN, a, b, SILENT_DEATH_US);
            push_session(world, EVENT_SESSION_DOWN, b, a, SILENT_DEATH_US);
        }
    }
}

/* ---- life ---- */

static void join(struct sim_node *node)
{
    struct world *world = node->world;
    struct peer_addr seeds[8];
    uint32_t count = world->config.seed_count == 0 ? 3 : world->config.seed_count;
    if (count > 8)
        count = 8;
    for (uint32_t i = 0; i < count; i++)
        world_node_addr(i % world->config.node_count, &seeds[i]);
    gossip_join(mesh_gossip(node->mesh), world->now_us, seeds, count);
    if (!world->config.mesh.dht.one_hop)
        dht_bootstrap(mesh_dht(node->mesh), world->now_us, seeds, count);
}

static void label(struct label *out, const char *kind, uint32_t number)
{
    char text[32];
    int bytes = snprintf(text, sizeof text, "%s-%u", kind, number);
    int err = label_set(out, text, (size_t)bytes);
    ASSERT(err == 0);
}

void host_start(struct sim_node *node, bool keep_cache)
{
    struct world *world = node->world;
    if (node->mesh != NULL)
        return;
    if (!keep_cache)
        forget_blobs(node);
    struct mesh_config config = world->config.mesh;
    uint32_t zone = node->index % world->config.zone_count;
    uint32_t vswitches = world->config.vswitch_count == 0 ? 1 : world->config.vswitch_count;
    world_node_addr(node->index, &config.self_addr);
    config.self_key.bytes[0] = 1;
    store_be32(&config.self_key.bytes[4], node->index);
    label(&config.topology.region, "region", 0);
    label(&config.topology.zone, "zone", zone);
    label(&config.topology.vswitch, "vswitch",
          zone * vswitches + node->index / world->config.zone_count % vswitches);
    int err = mesh_new(&node->env, &config, world->now_us, &node->mesh);
    ASSERT(err == 0);
    for (uint32_t i = 0; i < world->blob_count; i++) {
        node->blobs[i].handle = 0;
        if (node->blobs[i].have.bits != NULL)
            ASSERT(open_blob(node, i) == 0);
    }
    join(node);
    host_drain(node);
}

void host_kill(struct sim_node *node)
{
    struct world *world = node->world;
    if (node->mesh == NULL)
        return;
    mesh_free(node->mesh);
    node->mesh = NULL;
    node->timer_us = UINT64_MAX;
    node->timer_version++;
    for (uint32_t i = 0; i < world->blob_count; i++)
        node->blobs[i].handle = 0;
    drop_sessions(world, node->index,
                  world->config.silent_death ? SILENT_DEATH_US : world->config.latency_zone_us);
    break_flows(world, node->index, UINT32_MAX);
    for (size_t i = 0; i < world->pull_count; i++) {
        if (world->pulls[i].node == node->index && world->pulls[i].started_us <= world->now_us)
            end_pull(world, &world->pulls[i], true);
    }
}

void host_leave(struct sim_node *node)
{
    if (node->mesh == NULL)
        return;
    mesh_leave(node->mesh, node->world->now_us, false);
    host_drain(node);
}

void host_datagram(struct sim_node *node, uint32_t from, const uint8_t *bytes, size_t byte_count)
{
    if (node->mesh == NULL)
        return;
    struct peer_addr addr;
    world_node_addr(from, &addr);
    int err = mesh_receive(node->mesh, node->world->now_us, &node->world->nodes[from].id, &addr,
                           bytes, byte_count);
    (void)err; /* a refused message is counted by the core */
    host_drain(node);
}

void host_timer(struct sim_node *node, uint64_t version)
{
    if (node->mesh == NULL || node->timer_version != version)
        return;
    node->timer_us = UINT64_MAX;
    mesh_advance(node->mesh, node->world->now_us);
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
    uint32_t blob = blob_of(node, result->blob);
    switch (result->kind) {
    case TRANSFER_CONNECT:
        connect_peer(node, result);
        break;
    case TRANSFER_UPLOAD:
        upload(node, result);
        break;
    case TRANSFER_UPLOAD_CANCEL:
        cancel(node, FLOW_UPLOAD, result->id);
        break;
    case TRANSFER_FETCH:
        fetch(node, result);
        break;
    case TRANSFER_FETCH_CANCEL:
        cancel(node, FLOW_FETCH, result->id);
        break;
    case TRANSFER_PIECE_READY:
        piece_ready(node, blob);
        break;
    case TRANSFER_BLOB_COMPLETE:
        pulls_of(node, blob, false);
        break;
    case TRANSFER_PIECE_FAILED:
        pulls_of(node, blob, true);
        break;
    default:
        break;
    }
}

static void schedule(struct sim_node *node)
{
    struct world *world = node->world;
    uint64_t deadline_us = mesh_deadline_us(node->mesh);
    if (deadline_us >= node->timer_us || deadline_us == UINT64_MAX)
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
    while (mesh_next_result(node->mesh, node->world->now_us, &event)) {
        if (event.kind == MESH_TRANSFER)
            take_result(node, &event.of.transfer);
        else if (event.kind == MESH_LOOKUP)
            take_lookup(node, event.of.lookup);
    }
    node->draining = false;
    schedule(node);
}
