/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small deterministic world for the transfer core's property tests: N cores, members fed
 * directly, datagrams with delay, loss, repetition and reordering, sessions, links shared by
 * (almost) max-min fairness between flows, and an origin. Checks stand outside the core: pieces
 * come from who has them, slots are kept, every pull ends.
 *
 * Everything is static: each test program includes its own copy.
 */
#ifndef SHOAL_TESTS_TRANSFER_WORLD_H
#define SHOAL_TESTS_TRANSFER_WORLD_H

#include "transfer_links.h"

/* ---- results ---- */

/* Takes a node's results until there are none. */
static inline void w_drain(struct w_world *world, struct w_node *node);

static inline uint32_t w_blob(const struct w_world *world, const struct blob_key *key)
{
    for (uint32_t i = 0; i < world->blob_count; i++) {
        if (blob_key_equal(&world->blobs[i].key, key))
            return i;
    }
    fail_msg("a blob nobody knows");
    return 0;
}

static inline bool *w_session_is(struct w_world *world, uint32_t a, uint32_t b)
{
    uint32_t low = a < b ? a : b, high = a < b ? b : a;
    return (bool *)&world->session[low * world->config.nodes + high];
}

static inline void w_connect(struct w_world *world, struct w_node *node, uint32_t peer)
{
    bool up = !*w_session_is(world, node->index, peer);
    struct w_event event = {.kind = W_SESSION, .node = node->index, .other = peer, .arg = 1};
    uint64_t rtt = w_delay(world, node->index, peer) + w_delay(world, peer, node->index);
    event.at_us = world->now_us + (up ? 2 * rtt + 300 : 1);
    w_push(world, event);
}

static inline void w_start_upload(struct w_world *world, struct w_node *node,
                                  const struct transfer_result *result)
{
    uint32_t blob = w_blob(world, &result->key);
    uint32_t to = w_index(world, &result->peer);
    node->uploads++;
    assert_true(node->truth[blob][result->piece]); /* only what is here */
    struct w_flow *flow = w_flow_new(world);
    flow->from = node->index;
    flow->to = to;
    flow->blob = blob;
    flow->piece = result->piece;
    flow->id = result->id;
    w_flow_begin(world, flow, w_delay(world, node->index, to));
}

static inline void w_start_fetch(struct w_world *world, struct w_node *node,
                                 const struct transfer_result *result)
{
    assert_true(result->piece_count > 0);
    struct w_flow *flow = w_flow_new(world);
    flow->from = W_ORIGIN;
    flow->to = node->index;
    flow->fetch = true;
    flow->blob = w_blob(world, &result->key);
    flow->piece = result->piece;
    flow->left = result->piece_count - 1;
    assert_true(result->piece + result->piece_count <= world->layouts[flow->blob].piece_count);
    flow->id = result->id;
    w_flow_begin(world, flow, world->config.origin_latency_us);
}

static inline void w_cancel(struct w_world *world, struct w_node *node, uint64_t id, bool fetch)
{
    for (uint32_t i = 0; i < world->flow_capacity; i++) {
        struct w_flow *flow = &world->flows[i];
        uint32_t owner = flow->fetch ? flow->to : flow->from;
        if (!flow->used || flow->id != id || owner != node->index || flow->fetch != fetch)
            continue;
        if (!fetch && flow->flowing)
            return; /* begun: it goes on to its end */
        w_flow_stop(world, flow);
        if (fetch) {
            transfer_fetch_end(node->core, world->now_us, id, E_CANCELLED, 0);
        } else {
            node->uploads--;
            transfer_upload_end(node->core, world->now_us, id, 0, E_CANCELLED);
        }
        return;
    }
}

static inline void w_check_pull(struct w_world *world, struct w_node *node, uint32_t blob)
{
    struct w_pull *pull = &node->pulls[blob];
    if (!pull->wanted || pull->done)
        return;
    while (pull->at < pull->first + pull->count && node->truth[blob][pull->at])
        pull->at++;
    if (pull->at > pull->first && pull->first_us == 0)
        pull->first_us = world->now_us;
    if (pull->at < pull->first + pull->count && !pull->failed) {
        transfer_read_move(node->core, world->now_us, pull->reader, pull->at);
        return;
    }
    pull->done = true;
    pull->ended_us = world->now_us;
    assert_true(world->pulls_open > 0);
    world->pulls_open--;
    transfer_read_stop(node->core, world->now_us, pull->reader);
}

static inline void w_located(struct w_world *world, struct w_node *node, uint32_t blob)
{
    struct transfer_provider found[64];
    size_t count = 0;
    uint32_t start = (uint32_t)prng_below(&world->prng, world->config.nodes);
    for (uint32_t i = 0; i < world->config.nodes && count < 64; i++) {
        const struct w_node *other = &world->nodes[(start + i) % world->config.nodes];
        if (other == node || other->published[blob] == 0)
            continue;
        found[count++] = (struct transfer_provider){
            .id = other->member.id,
            .addr = other->member.addr,
            .topology = other->member.topology,
            .completeness = other->published[blob],
        };
    }
    transfer_providers(node->core, world->now_us, &world->blobs[blob].key, found, count);
}

static inline void w_result(struct w_world *world, struct w_node *node,
                            const struct transfer_result *result)
{
    w_note(world, node->index, (uint64_t)result->kind, result->piece);
    struct w_event event = {.node = node->index, .at_us = world->now_us + 2 * W_MS};
    switch (result->kind) {
    case TRANSFER_CONNECT:
        w_connect(world, node, w_index(world, &result->peer));
        break;
    case TRANSFER_UPLOAD:
        w_start_upload(world, node, result);
        break;
    case TRANSFER_UPLOAD_CANCEL:
        w_cancel(world, node, result->id, false);
        break;
    case TRANSFER_FETCH:
        w_start_fetch(world, node, result);
        break;
    case TRANSFER_FETCH_CANCEL:
        w_cancel(world, node, result->id, true);
        break;
    case TRANSFER_LOCATE:
        event.kind = W_LOCATED;
        event.arg = w_blob(world, &result->key);
        w_push(world, event);
        break;
    case TRANSFER_PUBLISH:
        node->published[w_blob(world, &result->key)] = result->completeness;
        break;
    case TRANSFER_PIECE_READY:
    case TRANSFER_BLOB_COMPLETE:
        w_check_pull(world, node, w_blob(world, &result->key));
        break;
    case TRANSFER_PIECE_FAILED: {
        struct w_pull *pull = &node->pulls[w_blob(world, &result->key)];
        pull->failed = true;
        pull->failed_status = result->status;
        w_check_pull(world, node, w_blob(world, &result->key));
        break;
    }
    case TRANSFER_RELEASE:
    case TRANSFER_PEER_SILENT:
        break;
    }
}

static inline void w_drain(struct w_world *world, struct w_node *node)
{
    struct transfer_result result;
    while (node->alive && transfer_next_result(node->core, &result))
        w_result(world, node, &result);
    if (!node->alive)
        return;
    unsigned slots = world->config.transfer.upload_slots;
    slots = slots == 0 ? 12 : slots;
    /* More only where the other side may look far. */
    const struct w_config *config = &world->config;
    bool far = config->zone_us + config->jitter_us >= 15 * W_MS ||
               config->cross_us + config->jitter_us >= 15 * W_MS;
    assert_true(node->uploads <= (far ? 6 : 2) * slots);
    unsigned every = world->config.check_every == 0 ? 64 : world->config.check_every;
    if (world->events % every == 0)
        transfer__check_invariants(node->core);
    uint64_t due_us = transfer_deadline_us(node->core);
    if (due_us == UINT64_MAX || (node->wake_us > world->now_us && node->wake_us <= due_us))
        return;
    node->wake_us = due_us > world->now_us ? due_us : world->now_us + 1;
    struct w_event event = {.kind = W_WAKE, .node = node->index, .at_us = node->wake_us};
    w_push(world, event);
}

/* ---- what happens ---- */

static inline void w_on_flow_start(struct w_world *world, const struct w_event *event)
{
    struct w_flow *flow = &world->flows[event->arg];
    if (!flow->used || flow->version != event->version)
        return;
    struct w_node *to = &world->nodes[flow->to];
    if (!to->alive)
        return; /* stalls until its sender learns of it */
    if (flow->fetch && to->fail_fetches_until_us > world->now_us) {
        uint64_t id = flow->id;
        w_flow_stop(world, flow);
        transfer_fetch_end(to->core, world->now_us, id, to->fail_status, 0);
        w_drain(world, to);
        return;
    }
    flow->flowing = true;
    flow->updated_us = flow->started_us = world->now_us;
    flow->rate = 0;
    world->reshare = true;
    struct w_event progress = {.kind = W_PROGRESS, .arg = event->arg};
    progress.version = flow->id;
    progress.at_us = world->now_us + 5 * W_MS;
    w_push(world, progress);
}

static inline void w_on_progress(struct w_world *world, struct w_event event)
{
    struct w_flow *flow = &world->flows[event.arg];
    if (!flow->used || !flow->flowing || flow->id != event.version)
        return;
    w_flow_settle(world, flow);
    uint32_t length = piece_length(&world->layouts[flow->blob], flow->piece);
    double got = (double)length - flow->left_bytes;
    struct w_node *to = &world->nodes[flow->to];
    if (flow->fetch)
        transfer_fetch_progress(to->core, world->now_us, flow->id,
                                flow->done_bytes + (uint64_t)got);
    else if (got >= 65536 || got >= length)
        transfer_piece_progress(to->core, world->now_us, to->handles[flow->blob], flow->piece,
                                &world->nodes[flow->from].member.id, (uint32_t)got / 65536 * 65536);
    w_drain(world, to);
    event.at_us = world->now_us + 100 * W_MS;
    w_push(world, event);
}

/* Pieces wait a moment for hash and disk; `other` is the sender, `version` the fetch. */
static inline void w_arrived(struct w_world *world, const struct w_flow *flow)
{
    struct w_event event = {.kind = W_VERIFIED, .node = flow->to, .other = flow->from};
    event.at_us =
        world->now_us + 200 + piece_length(&world->layouts[flow->blob], flow->piece) / 2000;
    event.arg = (uint64_t)flow->blob << 32 | flow->piece;
    event.version = flow->id;
    w_push(world, event);
}

static inline void w_fetched(struct w_world *world, struct w_flow *flow)
{
    struct w_node *to = &world->nodes[flow->to];
    uint32_t length = piece_length(&world->layouts[flow->blob], flow->piece);
    world->origin_bytes += length;
    world->read[flow->blob] += length;
    to->origin_bytes += length;
    flow->done_bytes += length;
    w_arrived(world, flow);
    if (flow->left > 0) {
        flow->left--;
        flow->piece++;
        flow->left_bytes = piece_length(&world->layouts[flow->blob], flow->piece);
        flow->updated_us = world->now_us;
        w_flow_schedule(world, flow);
        transfer_fetch_progress(to->core, world->now_us, flow->id, flow->done_bytes);
        return;
    }
    uint64_t id = flow->id;
    w_flow_stop(world, flow);
    transfer_fetch_end(to->core, world->now_us, id, 0, 0);
}

static inline void w_uploaded(struct w_world *world, struct w_flow *flow)
{
    struct w_node *from = &world->nodes[flow->from], *to = &world->nodes[flow->to];
    struct w_flow was = *flow;
    uint32_t length = piece_length(&world->layouts[was.blob], was.piece);
    w_flow_stop(world, flow);
    from->uploads--;
    transfer_upload_end(from->core, world->now_us, was.id, length, 0);
    if (!to->alive)
        return;
    if (!w_same_zone(world, was.from, was.to))
        world->cross_bytes += length, world->crossed[was.blob] += length;
    if (!transfer_expects(to->core, &world->blobs[was.blob].key, was.piece, &from->member.id)) {
        world->wasted_bytes += length;
        return;
    }
    transfer_piece_progress(to->core, world->now_us, to->handles[was.blob], was.piece,
                            &from->member.id, length);
    w_arrived(world, &was);
}

static inline void w_on_flow(struct w_world *world, const struct w_event *event)
{
    struct w_flow *flow = &world->flows[event->arg];
    if (!flow->used || !flow->flowing || flow->version != event->version)
        return;
    w_flow_settle(world, flow);
    uint32_t from = flow->from, to = flow->to;
    w_note(world, from, to, flow->piece);
    if (flow->fetch)
        w_fetched(world, flow);
    else
        w_uploaded(world, flow);
    if (from != W_ORIGIN)
        w_drain(world, &world->nodes[from]);
    w_drain(world, &world->nodes[to]);
}

static inline void w_on_verified(struct w_world *world, const struct w_event *event)
{
    struct w_node *node = &world->nodes[event->node];
    uint32_t blob = (uint32_t)(event->arg >> 32), piece = (uint32_t)event->arg;
    struct piece_source source = {.origin = PIECE_FROM_ORIGIN, .fetch_id = event->version};
    int status = 0;
    if (event->other != W_ORIGIN) {
        source.origin = PIECE_FROM_PEER;
        source.peer = world->nodes[event->other].member.id;
        status = world->nodes[event->other].lies ? E_DIGEST : 0;
        if (status == 0)
            node->peer_bytes += piece_length(&world->layouts[blob], piece);
    }
    if (status == 0)
        node->truth[blob][piece] = 1;
    transfer_piece_done(node->core, world->now_us, node->handles[blob], piece, &source, status);
}

/* Uploads between two nodes end with their session. */
static inline void w_end_flows(struct w_world *world, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < world->flow_capacity; i++) {
        struct w_flow was = world->flows[i];
        bool on_it = (was.from == a && was.to == b) || (was.from == b && was.to == a);
        if (!was.used || was.fetch || !on_it)
            continue;
        w_flow_stop(world, &world->flows[i]);
        struct w_node *from = &world->nodes[was.from];
        if (!from->alive)
            continue;
        from->uploads--;
        transfer_upload_end(from->core, world->now_us, was.id, 0, E_CLOSED);
    }
}

static inline void w_on_session(struct w_world *world, const struct w_event *event)
{
    struct w_node *a = &world->nodes[event->node], *b = &world->nodes[event->other];
    bool up = event->arg == 1;
    if (up && (!a->alive || !b->alive || a->blackholed || b->blackholed)) {
        if (a->alive)
            w_end_flows(world, a->index, b->index);
        if (a->alive)
            transfer_session_down(a->core, world->now_us, &b->member.id, E_TIMEOUT);
    } else if (up) {
        *w_session_is(world, a->index, b->index) = true;
        transfer_session_up(a->core, world->now_us, &b->member.id);
        transfer_session_up(b->core, world->now_us, &a->member.id);
    } else if (a->alive) {
        transfer_session_down(a->core, world->now_us, &b->member.id, E_CLOSED);
        w_end_flows(world, a->index, b->index);
    }
    w_drain(world, a);
    w_drain(world, b);
}

static inline void w_read(struct w_world *world, struct w_node *node, uint32_t blob)
{
    struct w_pull *pull = &node->pulls[blob];
    if (node->handles[blob] == 0) {
        int err = transfer_blob_open(node->core, world->now_us, &world->blobs[blob], NULL,
                                     &node->handles[blob]);
        assert_true(err == 0 || err == E_EXISTS);
    }
    transfer_blob_copies(node->core, world->now_us, node->handles[blob], world->copies[blob]);
    pull->started_us = world->now_us;
    pull->at = pull->first;
    int err = transfer_read_start(node->core, world->now_us, node->handles[blob], pull->first,
                                  pull->count, pull->mode, pull->can_fetch, &pull->reader);
    assert_int_equal(err, 0);
    w_check_pull(world, node, blob);
}

/* A session breaks: both ends learn of it. */
static inline void w_break_session(struct w_world *world, uint32_t a, uint32_t b)
{
    *w_session_is(world, a, b) = false;
    uint32_t ends[2] = {a, b};
    for (unsigned i = 0; i < 2; i++) {
        struct w_event down = {.kind = W_SESSION, .node = ends[i], .other = ends[1 - i]};
        down.at_us = world->now_us + 1;
        w_push(world, down);
    }
}

/* Drops everything a node has under way; the others learn of it as the config says. */
static inline void w_kill(struct w_world *world, struct w_node *node)
{
    node->alive = false;
    memset(node->published, 0, sizeof node->published);
    for (uint32_t i = 0; i < world->flow_capacity; i++) {
        struct w_flow *flow = &world->flows[i];
        if (!flow->used || (flow->from != node->index && flow->to != node->index))
            continue;
        bool waits = !flow->fetch && flow->to == node->index;
        w_flow_stop(world, flow);
        flow->used = waits; /* stalls until its sender learns of it */
    }
    for (uint32_t blob = 0; blob < world->blob_count; blob++) {
        if (node->pulls[blob].wanted && !node->pulls[blob].done) {
            node->pulls[blob].wanted = false;
            world->pulls_open--;
        }
    }
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        if (i == node->index || !world->nodes[i].alive)
            continue;
        struct w_event event = {.kind = W_GONE, .node = i, .other = node->index};
        event.at_us = world->now_us + world->config.gone_us + prng_below(&world->prng, 500 * W_MS);
        w_push(world, event);
        *w_session_is(world, i, node->index) = false;
        struct w_event down = {.kind = W_SESSION, .node = i, .other = node->index};
        down.at_us = world->now_us + (world->config.silent_death ? 15 * W_S : 1 * W_MS);
        w_push(world, down);
    }
    transfer_free(node->core);
    node->core = NULL;
}

static inline void w_step(struct w_world *world)
{
    if (world->reshare && (world->heap_count == 0 || world->heap[0].at_us > world->now_us))
        w_reshare(world);
    struct w_event event = w_pop(world);
    assert_true(event.at_us >= world->now_us);
    world->now_us = event.at_us;
    world->events++;
    if (event.kind == W_CALL) {
        world->on_call(world, event.arg);
        return;
    }
    if (event.kind == W_FLOW || event.kind == W_FLOW_START || event.kind == W_PROGRESS) {
        if (event.kind == W_FLOW)
            w_on_flow(world, &event);
        else if (event.kind == W_FLOW_START)
            w_on_flow_start(world, &event);
        else
            w_on_progress(world, event);
        return;
    }
    struct w_node *node = &world->nodes[event.node];
    if (event.kind == W_SESSION) {
        w_on_session(world, &event);
        return;
    }
    if (!node->alive) {
        free(event.bytes);
        return;
    }
    struct w_node *other = event.other < world->config.nodes ? &world->nodes[event.other] : NULL;
    if (event.kind == W_DATAGRAM) {
        int err = transfer_receive(node->core, world->now_us, &other->member.id,
                                   &other->member.addr, event.bytes, event.byte_count);
        if (err != 0 && world->fail_at == 0)
            fail_msg("message %02x refused: %s", event.bytes[1], err_name(err));
        free(event.bytes);
    } else if (event.kind == W_WAKE) {
        if (node->wake_us != event.at_us)
            return; /* an earlier one was set since */
        node->wake_us = 0;
        transfer_advance(node->core, world->now_us);
    } else if (event.kind == W_VERIFIED) {
        w_on_verified(world, &event);
    } else if (event.kind == W_LOCATED) {
        w_located(world, node, (uint32_t)event.arg);
    } else if (event.kind == W_PULL) {
        w_read(world, node, (uint32_t)event.arg);
    } else if (event.kind == W_KILL) {
        w_kill(world, node);
        return;
    } else if (event.kind == W_GONE) {
        transfer_member_down(node->core, world->now_us, &other->member.id);
    }
    w_drain(world, node);
}

/* ---- building and running ---- */

static inline void w_make_core(struct w_world *world, struct w_node *node)
{
    struct transfer_config config = world->config.transfer;
    config.self_id = node->member.id;
    config.self_addr = node->member.addr;
    config.topology = node->member.topology;
    node->env = (struct env){
        .host = node, .send = w_send, .random = w_random, .alloc = w_alloc, .trace = w_trace};
    node->alive = true;
    assert_int_equal(transfer_new(&node->env, &config, world->now_us, &node->core), 0);
}

static inline struct w_world *w_new(const struct w_config *config)
{
    struct w_world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->config = *config;
    assert_true(config->nodes <= W_NODES_MAX);
    prng_seed(&world->prng, (const uint8_t *)&config->seed, sizeof config->seed);
    world->hash = 0xcbf29ce484222325ULL;
    world->now_us = 1000 * (uint64_t)W_S;
    world->nodes = calloc(config->nodes, sizeof *world->nodes);
    world->session = calloc((size_t)config->nodes * config->nodes, 1);
    assert_true(world->nodes != NULL && world->session != NULL);
    for (uint32_t i = 0; i < config->nodes; i++) {
        struct w_node *node = &world->nodes[i];
        node->world = world;
        node->index = i;
        node->up_rate = config->up_rate;
        node->down_rate = config->down_rate;
        struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff}, .port = 65002};
        store_be32(addr.ip + 12, 0x0a000000u | i);
        node->member.addr = addr;
        node->member.state = MEMBER_ALIVE;
        node_id_of("test", &addr, &node->member.id);
        snprintf(node->member.topology.region.text, LABEL_BYTES_MAX, "r");
        snprintf(node->member.topology.zone.text, LABEL_BYTES_MAX, "zone-%u", i % config->zones);
        uint64_t seed = config->seed * 1000003 + i;
        prng_seed(&node->prng, (const uint8_t *)&seed, sizeof seed);
        w_make_core(world, node);
    }
    for (uint32_t i = 0; i < config->nodes; i++) {
        for (uint32_t j = 0; j < config->nodes; j++)
            assert_int_equal(
                transfer_member_up(world->nodes[i].core, world->now_us, &world->nodes[j].member),
                0);
    }
    return world;
}

/* A blob all nodes can know of; its index. */
static inline uint32_t w_add_blob(struct w_world *world, uint64_t size_bytes)
{
    uint32_t index = world->blob_count++;
    assert_true(index < W_BLOBS_MAX);
    struct blob_info *info = &world->blobs[index];
    uint8_t lookup[32] = {7};
    uint64_t text[2] = {world->config.seed, index};
    digest_of(DIGEST_SHA256, text, sizeof text, &info->digest);
    blob_key_of(lookup, &info->digest, &info->key);
    info->size_bytes = size_bytes;
    assert_int_equal(piece_layout_of(size_bytes, &world->layouts[index]), 0);
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        world->nodes[i].truth[index] = calloc(world->layouts[index].piece_count + 1, 1);
        assert_non_null(world->nodes[i].truth[index]);
    }
    return index;
}

/* Node pulls the whole blob at a time from now. */
static inline void w_pull_at(struct w_world *world, uint32_t node, uint32_t blob, uint64_t delay_us,
                             enum transfer_read_mode mode)
{
    struct w_pull *pull = &world->nodes[node].pulls[blob];
    *pull = (struct w_pull){.wanted = true, .mode = mode, .can_fetch = true};
    pull->count = world->layouts[blob].piece_count;
    world->pulls_open++;
    struct w_event event = {.kind = W_PULL, .node = node, .arg = blob};
    event.at_us = world->now_us + delay_us;
    w_push(world, event);
}

static inline void w_kill_at(struct w_world *world, uint32_t node, uint64_t delay_us)
{
    struct w_event event = {.kind = W_KILL, .node = node, .at_us = world->now_us + delay_us};
    w_push(world, event);
}

/* What the links carry right now, for people. */
static inline void w_show(struct w_world *world)
{
    double origin = 0, peers = 0;
    uint32_t fetches = 0, uploads = 0, inflight = 0;
    for (uint32_t i = 0; i < world->flow_capacity; i++) {
        const struct w_flow *flow = &world->flows[i];
        if (!flow->used)
            continue;
        fetches += flow->fetch;
        uploads += !flow->fetch;
        if (flow->flowing && flow->fetch)
            origin += flow->rate;
        else if (flow->flowing)
            peers += flow->rate;
    }
    struct transfer_stats sum = {0}, one;
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        if (!world->nodes[i].alive)
            continue;
        transfer_stats(world->nodes[i].core, &one);
        inflight += one.inflight;
        sum.leases_pending += one.leases_pending;
        sum.leases_granted += one.leases_granted;
        sum.hedges += one.hedges;
        sum.busy += one.busy;
        sum.request_timeouts += one.request_timeouts;
    }
    print_message("%7.3f origin %5.1f Mbit/s in %u, peers %6.1f in %u of %u asked; granted %" PRIu64
                  " pending %" PRIu64 " hedges %" PRIu64 " busy %" PRIu64 " timeouts %" PRIu64 "\n",
                  (double)(world->now_us - 1000 * (uint64_t)W_S) / 1e6, origin / W_MBIT, fetches,
                  peers / W_MBIT, uploads, inflight, sum.leases_granted, sum.leases_pending,
                  sum.hedges, sum.busy, sum.request_timeouts);
}

/* The same node by node: pieces had, origin and peer bytes, flows in and out. */
static inline void w_show_nodes(struct w_world *world)
{
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        struct w_node *node = &world->nodes[i];
        uint32_t had = 0, in = 0, out = 0, fetches = 0;
        double rate_in = 0, rate_out = 0;
        for (uint32_t p = 0; p < world->layouts[0].piece_count; p++)
            had += node->truth[0][p];
        for (uint32_t f = 0; f < world->flow_capacity; f++) {
            const struct w_flow *flow = &world->flows[f];
            if (!flow->used)
                continue;
            in += flow->to == i && !flow->fetch;
            fetches += flow->to == i && flow->fetch;
            out += flow->from == i;
            rate_in += flow->to == i ? flow->rate / W_MBIT : 0;
            rate_out += flow->from == i ? flow->rate / W_MBIT : 0;
        }
        struct transfer_stats stats = {0};
        if (node->alive)
            transfer_stats(node->core, &stats);
        print_message("   %3u: had %3u origin %4.1f MiB in %u+%u %5.1f out %u %5.1f asked %u\n", i,
                      had, (double)node->origin_bytes / W_MIB, fetches, in, rate_in, out, rate_out,
                      stats.inflight);
    }
}

/* Runs until every pull ended; fails the test after `limit_us`. */
static inline void w_run(struct w_world *world, uint64_t limit_us)
{
    uint64_t end_us = world->now_us + limit_us;
    uint64_t shown_us = world->now_us;
    /* SHOW=<10 * ms between lines + detail>: progress on stderr. */
    uint64_t show = getenv("SHOW") == NULL ? 0 : strtoull(getenv("SHOW"), NULL, 10);
    while (world->pulls_open > 0 && world->heap_count > 0 && world->heap[0].at_us <= end_us) {
        w_step(world);
        if (show > 0 && world->now_us >= shown_us) {
            w_show(world);
            if (show % 10 > 1)
                w_show_nodes(world);
            shown_us = world->now_us + show / 10 * W_MS;
        }
    }
    if (world->pulls_open == 0)
        return;
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        struct w_node *node = &world->nodes[i];
        for (uint32_t blob = 0; node->alive && blob < world->blob_count; blob++) {
            uint32_t had = 0;
            for (uint32_t p = 0; p < world->layouts[blob].piece_count; p++)
                had += node->truth[blob][p];
            if (node->pulls[blob].wanted && !node->pulls[blob].done)
                print_message("stuck: node %u blob %u has %u of %u\n", i, blob, had,
                              world->layouts[blob].piece_count);
        }
    }
    fail_msg("seed %" PRIu64 ": %u pulls did not end", world->config.seed, world->pulls_open);
}

static inline void w_run_for(struct w_world *world, uint64_t span_us)
{
    uint64_t end_us = world->now_us + span_us;
    while (world->heap_count > 0 && world->heap[0].at_us <= end_us)
        w_step(world);
    world->now_us = end_us;
}

static inline void w_free(struct w_world *world)
{
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        if (world->nodes[i].alive) {
            transfer__check_invariants(world->nodes[i].core);
            transfer_free(world->nodes[i].core);
        }
        for (uint32_t blob = 0; blob < world->blob_count; blob++)
            free(world->nodes[i].truth[blob]);
    }
    assert_int_equal(world->allocated, 0);
    for (size_t i = 0; i < world->heap_count; i++)
        free(world->heap[i].bytes);
    free(world->heap);
    free(world->flows);
    free(world->session);
    free(world->nodes);
    free(world);
}

/* ---- figures ---- */

struct w_times {
    double p50, p99, last, mean;
    uint32_t count;
};

static inline int w_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Seconds from each node's own start to the end of its last blob. */
static inline struct w_times w_times_of(const struct w_world *world)
{
    double times[W_NODES_MAX];
    struct w_times out = {0};
    for (uint32_t i = 0; i < world->config.nodes; i++) {
        uint64_t first = UINT64_MAX, last = 0;
        for (uint32_t blob = 0; blob < world->blob_count; blob++) {
            const struct w_pull *pull = &world->nodes[i].pulls[blob];
            if (!pull->wanted || !pull->done)
                continue;
            first = pull->started_us < first ? pull->started_us : first;
            last = pull->ended_us > last ? pull->ended_us : last;
        }
        if (last > 0)
            times[out.count++] = (double)(last - first) / 1e6;
    }
    if (out.count == 0)
        return out;
    qsort(times, out.count, sizeof *times, w_compare);
    out.p50 = times[out.count / 2];
    out.p99 = times[(out.count * 99 + 99) / 100 - 1];
    out.last = times[out.count - 1];
    for (uint32_t i = 0; i < out.count; i++)
        out.mean += times[i] / out.count;
    return out;
}

static inline uint64_t w_seed(uint64_t fallback)
{
    const char *text = getenv("SEED");
    uint64_t seed = text == NULL ? fallback : strtoull(text, NULL, 10);
    print_message("seed: %" PRIu64 "\n", seed);
    return seed;
}

static inline struct w_config w_defaults(uint64_t seed, uint32_t nodes, uint32_t zones, double mbit)
{
    return (struct w_config){
        .seed = seed,
        .nodes = nodes,
        .zones = zones,
        .up_rate = mbit * W_MBIT,
        .down_rate = mbit * W_MBIT,
        .origin_rate = 10 * mbit * W_MBIT,
        .origin_latency_us = 10 * W_MS,
        .zone_us = 100,
        .cross_us = 500,
        .jitter_us = 100,
        .gone_us = 5 * W_S,
    };
}

#endif
