/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What carries bytes: uploads between nodes, reads from the origin, and pieces that arrived and are
 * being verified. Each upload and each fetch that transfer asked for ends by exactly one call of
 * transfer_upload_end or transfer_fetch_end while its node lives.
 */
#include <stdlib.h>

#include "host.h"
#include "log.h"

/* Progress is reported at most this often and never for less than this many bytes (the daemon does
 * so every 64 KiB; at 100 ms nothing that transfer measures is far off, and it costs few events).
 * The first bytes are told of earlier: transfer repeats a request until it hears of them. */
#define PROGRESS_US    100000
#define FIRST_US       2000
#define PROGRESS_BYTES (64 * 1024)
/* A fetch without an answer is given up (O-1), and how long a busy origin wants to rest (O-4). */
#define ORIGIN_TIMEOUT_US 10000000
#define ORIGIN_REST_MS    1000

/* ---- pool and lists ---- */

static struct bulk *at(struct world *world, uint32_t index)
{
    ASSERT(index < world->bulk_count);
    return &world->bulks[index];
}

static uint32_t take(struct world *world)
{
    if (world->bulk_free == INDEX_NONE) {
        uint32_t old = world->bulk_count, count = old == 0 ? 1024 : 2 * old;
        world->bulks = realloc(world->bulks, count * sizeof *world->bulks);
        ASSERT(world->bulks != NULL);
        for (uint32_t i = count; i-- > old;) {
            world->bulks[i] = (struct bulk){.next = world->bulk_free};
            world->bulk_free = i;
        }
        world->bulk_count = count;
    }
    uint32_t index = world->bulk_free;
    world->bulk_free = world->bulks[index].next;
    return index;
}

/* Whose transfer waits for its end. */
static struct sim_node *owner_of(struct world *world, const struct bulk *bulk)
{
    return &world->nodes[bulk->kind == BULK_UPLOAD ? bulk->from : bulk->to];
}

static void count_bulk(struct world *world, struct sim_node *owner, uint8_t kind)
{
    struct world_totals *totals = &world->totals;
    owner->upload_count += kind == BULK_UPLOAD;
    owner->read_count += kind == BULK_FETCH;
    if (owner->upload_count > totals->most_uploads)
        totals->most_uploads = owner->upload_count;
    if (owner->read_count > totals->most_reads)
        totals->most_reads = owner->read_count;
}

/* Keeps a new one at the ends of its lists; `plan` is copied. */
static uint32_t add(struct world *world, const struct bulk *plan)
{
    uint32_t index = take(world);
    struct bulk *bulk = at(world, index);
    uint64_t version = bulk->version + 1;
    *bulk = *plan;
    bulk->version = version;
    bulk->flow = FLOW_NONE;
    bulk->look = EVENT_NONE;
    struct sim_node *owner = owner_of(world, bulk);
    struct bulk_list *own = &owner->own;
    count_bulk(world, owner, bulk->kind);
    bulk->previous = own->last;
    bulk->next = INDEX_NONE;
    *(own->last == INDEX_NONE ? &own->first : &at(world, own->last)->next) = index;
    own->last = index;
    if (bulk->kind != BULK_UPLOAD)
        return index;
    struct bulk_list *incoming = &world->nodes[bulk->to].incoming;
    bulk->previous_in = incoming->last;
    bulk->next_in = INDEX_NONE;
    *(incoming->last == INDEX_NONE ? &incoming->first : &at(world, incoming->last)->next_in) =
        index;
    incoming->last = index;
    return index;
}

static void leave_incoming(struct world *world, const struct bulk *bulk)
{
    struct bulk_list *list = &world->nodes[bulk->to].incoming;
    *(bulk->previous_in == INDEX_NONE ? &list->first : &at(world, bulk->previous_in)->next_in) =
        bulk->next_in;
    *(bulk->next_in == INDEX_NONE ? &list->last : &at(world, bulk->next_in)->previous_in) =
        bulk->previous_in;
}

static void stop_flow(struct world *world, struct bulk *bulk)
{
    if (bulk->flow != FLOW_NONE)
        flows_remove(&world->flows, bulk->flow, world->now_us);
    if (bulk->look != EVENT_NONE)
        events_cancel(&world->events, bulk->look);
    bulk->flow = FLOW_NONE;
    bulk->look = EVENT_NONE;
}

static void release(struct world *world, uint32_t index)
{
    struct bulk *bulk = at(world, index);
    ASSERT(bulk->kind != BULK_FREE);
    stop_flow(world, bulk);
    struct sim_node *owner = owner_of(world, bulk);
    struct bulk_list *own = &owner->own;
    if (bulk->pinned)
        keep_unpin(owner, bulk->blob, bulk->piece);
    owner->held_count -= bulk->state == BULK_HELD;
    owner->upload_count -= bulk->kind == BULK_UPLOAD;
    owner->read_count -= bulk->kind == BULK_FETCH;
    *(bulk->previous == INDEX_NONE ? &own->first : &at(world, bulk->previous)->next) = bulk->next;
    *(bulk->next == INDEX_NONE ? &own->last : &at(world, bulk->next)->previous) = bulk->previous;
    if (bulk->kind == BULK_UPLOAD)
        leave_incoming(world, bulk);
    *bulk = (struct bulk){.version = bulk->version + 1, .next = world->bulk_free};
    world->bulk_free = index;
}

static uint32_t push(struct world *world, enum event_kind kind, uint32_t index, uint64_t after_us)
{
    const struct bulk *bulk = at(world, index);
    return events_push(&world->events, (struct event){.at_us = world->now_us + after_us,
                                                      .kind = kind,
                                                      .node = bulk->to,
                                                      .other = index,
                                                      .version = bulk->version});
}

/* The one end of an upload or fetch of a living node. `detail`: bytes of an upload, or how many ms
 * the origin wants to rest. */
static void end(struct sim_node *node, uint32_t index, uint32_t detail, int status)
{
    struct world *world = node->world;
    struct bulk bulk = *at(world, index);
    release(world, index);
    if (bulk.kind == BULK_FETCH && status == 0)
        origin_keep(node, bulk.window);
    if (bulk.kind == BULK_UPLOAD)
        transfer_upload_end(host_transfer(node), host_now_us(node), bulk.id, detail, status);
    else
        transfer_fetch_end(host_transfer(node), host_now_us(node), bulk.id, status, detail);
}

static uint32_t bytes_of(const struct world *world, const struct bulk *bulk)
{
    return piece_length(&world->layouts[bulk->blob], bulk->piece);
}

/* ---- uploads ---- */

/* The upload's session is as good as it looks: bytes are on their way. Else they go nowhere, and
 * the session's end will tell. */
static void send_bytes(struct sim_node *node, uint32_t index)
{
    struct world *world = node->world;
    struct bulk *bulk = at(world, index);
    struct session *mine = session_find(node, bulk->to);
    struct sim_node *other = &world->nodes[bulk->to];
    const struct session *theirs = session_find(other, node->index);
    ASSERT(mine != NULL && mine->state == SESSION_UP);
    bulk->state = BULK_STALLED;
    if (other->mesh == NULL || theirs == NULL || theirs->version != mine->version) {
        session_reset(node, bulk->to);
        return;
    }
    if (world__severed(world, node->index, bulk->to))
        return;
    if ((node->hostile & WORLD_STALLS) != 0)
        return;
    if (work_read_fails(node, bulk->blob, bulk->piece)) {
        keep_spoil(node, bulk->blob, bulk->piece);
        end(node, index, 0, E_IO);
        return;
    }
    bulk->state = BULK_COMING;
    uint64_t base_us = world__base_latency_us(world, node->index, bulk->to);
    struct tcp_burst burst = {.rate_bps =
                                  node->up_bps < other->down_bps ? node->up_bps : other->down_bps,
                              .round_us = 2 * base_us,
                              .bytes = bytes_of(world, bulk),
                              .now_us = world->now_us};
    uint64_t wait_us = work_serve_us(node, bulk->blob, bulk->piece);
    wait_us += tcp_delay_us(&world->config, &mine->out, &burst);
    (void)push(world, EVENT_START, index,
               wait_us + world__latency_us(world, node->index, bulk->to));
}

void bulk_upload(struct sim_node *node, const struct transfer_result *result)
{
    struct world *world = node->world;
    uint32_t peer = world__node_at(world, &result->peer_addr);
    uint32_t blob = pulls_blob_of(node, result->blob);
    if (peer == INDEX_NONE) {
        transfer_upload_end(host_transfer(node), host_now_us(node), result->id, 0, E_UNREACHABLE);
        return;
    }
    /* Nothing is given that was not verified; what a disk lost a moment ago, is not there. */
    ASSERT(blob != INDEX_NONE);
    if (!bitfield_get(&node->blobs[blob].have, result->piece)) {
        ASSERT(node->keep != NULL);
        transfer_upload_end(host_transfer(node), host_now_us(node), result->id, 0, E_NOT_FOUND);
        return;
    }
    bool pinned = keep_pin(node, blob, result->piece);
    struct bulk plan = {.kind = BULK_UPLOAD,
                        .state = BULK_WAITING,
                        .from = node->index,
                        .to = peer,
                        .blob = blob,
                        .piece = result->piece,
                        .pinned = pinned,
                        .id = result->id};
    uint32_t index = add(world, &plan);
    session_dial(node, peer);
    if (session_find(node, peer)->state == SESSION_UP)
        send_bytes(node, index);
}

/* First upload to `peer` in the list from `index` on. */
static uint32_t upload_to(struct world *world, uint32_t index, uint32_t peer)
{
    while (index != INDEX_NONE &&
           (at(world, index)->kind != BULK_UPLOAD || at(world, index)->to != peer))
        index = at(world, index)->next;
    return index;
}

void bulk_resume(struct sim_node *node, uint32_t peer)
{
    struct world *world = node->world;
    uint32_t index = upload_to(world, node->own.first, peer);
    while (index != INDEX_NONE) {
        uint32_t next = at(world, index)->next;
        if (at(world, index)->state == BULK_WAITING)
            send_bytes(node, index); /* which may end it */
        index = upload_to(world, next, peer);
    }
}

void bulk_end_session(struct sim_node *node, uint32_t peer)
{
    struct world *world = node->world;
    uint32_t index = upload_to(world, node->own.first, peer);
    while (index != INDEX_NONE) {
        uint32_t next = upload_to(world, at(world, index)->next, peer);
        end(node, index, 0, E_CLOSED);
        index = next;
    }
}

static void stall(struct world *world, struct bulk *bulk)
{
    stop_flow(world, bulk);
    if (bulk->state == BULK_FLOWING || bulk->state == BULK_COMING) {
        bulk->state = BULK_STALLED;
        bulk->version++; /* its events are void */
    }
}

void bulk_stall(struct world *world, uint32_t a, uint32_t b)
{
    for (unsigned side = 0; side < 2; side++) {
        uint32_t from = side == 0 ? a : b, to = side == 0 ? b : a;
        uint32_t index = upload_to(world, world->nodes[from].own.first, to);
        while (index != INDEX_NONE) {
            stall(world, at(world, index));
            index = upload_to(world, at(world, index)->next, to);
        }
    }
}

/* ---- fetches ---- */

/* A read has one owner at a time: does another of the node's bring some of these pieces? */
static uint32_t read_twice(struct sim_node *node, uint32_t blob, uint32_t first, uint32_t end)
{
    struct world *world = node->world;
    uint32_t count = 0;
    for (uint32_t i = node->own.first; i != INDEX_NONE; i = at(world, i)->next) {
        const struct bulk *bulk = at(world, i);
        if (bulk->kind != BULK_FETCH || bulk->blob != blob || bulk->pieces_left == 0)
            continue;
        uint32_t from = bulk->piece > first ? bulk->piece : first;
        uint32_t to = bulk->piece + bulk->pieces_left;
        to = to < end ? to : end;
        count += to > from ? to - from : 0;
    }
    return count;
}

void bulk_fetch(struct sim_node *node, const struct transfer_result *result)
{
    struct world *world = node->world;
    uint32_t blob = pulls_blob_of(node, result->blob);
    ASSERT(blob != INDEX_NONE && result->piece_count > 0);
    world->totals.double_reads +=
        read_twice(node, blob, result->piece, result->piece + result->piece_count);
    struct bulk plan = {.kind = BULK_FETCH,
                        .state = BULK_COMING,
                        .from = WORLD_ORIGIN,
                        .to = node->index,
                        .blob = blob,
                        .piece = result->piece,
                        .pieces_left = result->piece_count,
                        .id = result->id,
                        .reason = result->reason};
    const struct piece_layout *layout = &world->layouts[blob];
    uint64_t bytes = piece_offset(layout, result->piece + result->piece_count - 1) +
                     piece_length(layout, result->piece + result->piece_count - 1) -
                     piece_offset(layout, result->piece);
    uint64_t wait_us = origin_request_us(node, bytes, &plan.window);
    (void)push(world, EVENT_START, add(world, &plan), wait_us);
}

void bulk_cancel(struct sim_node *node, enum bulk_kind kind, uint64_t id)
{
    struct world *world = node->world;
    uint32_t index = node->own.first;
    while (index != INDEX_NONE && (at(world, index)->kind != kind || at(world, index)->id != id))
        index = at(world, index)->next;
    if (index == INDEX_NONE)
        return; /* its end was on the way */
    uint8_t state = at(world, index)->state;
    if (kind == BULK_UPLOAD && (state == BULK_FLOWING || state == BULK_STALLED))
        return; /* what has begun is finished, as on a real connection */
    end(node, index, 0, E_CANCELLED);
}

/* ---- bytes ---- */

static uint32_t rest_ms(const struct world *world)
{
    uint32_t rest_s = world->config.origin_retry_after_s;
    return rest_s == 0 ? ORIGIN_REST_MS : rest_s * 1000;
}

/* The origin answers, if it does. True if bytes follow. */
static bool origin_answers(struct world *world, uint32_t index)
{
    struct bulk *bulk = at(world, index);
    struct sim_node *node = &world->nodes[bulk->to];
    bool late = bulk->state == BULK_STALLED;
    bool busy = world->origin == WORLD_ORIGIN_BUSY;
    if (!late && world->origin == WORLD_ORIGIN_UP) {
        if (origin_admits(world))
            return true;
        world->totals.throttled++;
        busy = true;
    }
    if (!late && world->origin == WORLD_ORIGIN_SILENT) {
        bulk->state = BULK_STALLED;
        (void)push(world, EVENT_START, index, ORIGIN_TIMEOUT_US);
        return false;
    }
    if (late)
        end(node, index, 0, E_TIMEOUT);
    else if (busy)
        end(node, index, rest_ms(world), E_ORIGIN);
    else
        end(node, index, 0, E_UNREACHABLE);
    host_drain(node);
    return false;
}

/* The bytes of its present piece move. */
static void flow_bytes(struct world *world, uint32_t index)
{
    struct bulk *bulk = at(world, index);
    struct flow_plan plan;
    world__plan_flow(world, bulk->from, bulk->to, &plan);
    plan.user = index;
    plan.bytes = bytes_of(world, bulk);
    bulk->state = BULK_FLOWING;
    bulk->began_us = world->now_us;
    bulk->flow = flows_add(&world->flows, &plan, world->now_us);
    bulk->look = push(world, EVENT_PROGRESS, index, FIRST_US);
}

/* WORLD_PLANT_TWICE: it goes on, but its owner believes it ended. */
static void forget_read(struct world *world, struct bulk *bulk)
{
    struct sim_node *node = &world->nodes[bulk->to];
    uint64_t id = bulk->id;
    bulk->id = UINT64_MAX;
    transfer_fetch_end(host_transfer(node), host_now_us(node), id, E_IO, 0);
    host_drain(node);
}

void bulk_start(struct world *world, uint32_t index, uint64_t version)
{
    struct bulk *bulk = at(world, index);
    if (bulk->kind == BULK_FREE || bulk->version != version ||
        (bulk->kind == BULK_FETCH && !origin_answers(world, index)))
        return;
    ASSERT(bulk->state == BULK_COMING);
    flow_bytes(world, index);
    if (bulk->kind == BULK_FETCH) {
        if (world->config.plant == WORLD_PLANT_TWICE)
            forget_read(world, bulk);
        return;
    }
    struct sim_node *node = &world->nodes[bulk->to];
    const struct node_id *sender = &world->nodes[bulk->from].id;
    const struct blob_key *key = &world->blobs[bulk->blob].key;
    bulk->unwanted = node->blobs[bulk->blob].handle == 0 ||
                     !transfer_expects(host_transfer(node), key, bulk->piece, sender);
}

void bulk_cut_origin(struct world *world)
{
    for (uint32_t i = 0; i < world->config.node_count; i++) {
        struct sim_node *node = &world->nodes[i];
        uint32_t index = node->own.first;
        while (index != INDEX_NONE) {
            const struct bulk *bulk = at(world, index);
            uint32_t next = bulk->next;
            bool open = bulk->state == BULK_FLOWING || bulk->state == BULK_HELD;
            if (bulk->kind == BULK_FETCH && open)
                end(node, index, 0, E_IO);
            index = next;
        }
        host_drain(node);
    }
}

/* When to look again: sooner while nothing was reported. */
static uint64_t next_look_us(const struct world *world, const struct bulk *bulk, uint64_t here)
{
    uint64_t rate = flows_rate(&world->flows, bulk->flow);
    if (bulk->told_bytes > 0 || here >= PROGRESS_BYTES || rate == 0)
        return PROGRESS_US;
    uint64_t wait_us = (PROGRESS_BYTES - here) * 1000000 / rate + 1;
    wait_us = wait_us < FIRST_US ? FIRST_US : wait_us;
    return wait_us < PROGRESS_US ? wait_us : PROGRESS_US;
}

void bulk_progress_later(struct world *world, uint32_t index, uint32_t look)
{
    at(world, index)->look = look;
}

void bulk_progress(struct world *world, uint32_t index, uint64_t version)
{
    struct bulk *bulk = at(world, index);
    ASSERT(bulk->version == version && bulk->state == BULK_FLOWING); /* else it was taken back */
    bulk->look = EVENT_NONE;
    if (bulk->unwanted)
        return;
    struct sim_node *node = &world->nodes[bulk->to];
    uint64_t here = bytes_of(world, bulk) - flows_left(&world->flows, bulk->flow, world->now_us);
    uint64_t bytes = bulk->before_bytes + here;
    bulk->look = push(world, EVENT_PROGRESS, index, next_look_us(world, bulk, here));
    if (bytes < bulk->told_bytes + PROGRESS_BYTES)
        return;
    bulk->told_bytes = bytes;
    if (bulk->kind == BULK_FETCH)
        transfer_fetch_progress(host_transfer(node), host_now_us(node), bulk->id, bytes);
    else
        transfer_piece_progress(host_transfer(node), host_now_us(node),
                                node->blobs[bulk->blob].handle, bulk->piece,
                                &world->nodes[bulk->from].id, (uint32_t)bytes);
    host_drain(node);
}

static bool stays_in_zone(const struct world *world, uint32_t blob)
{
    enum transfer_copies copies = world->copies[blob];
    if (copies == 0)
        copies = world->config.mesh.transfer.copies;
    return copies == TRANSFER_COPIES_ZONE;
}

static void count_arrival(struct world *world, const struct bulk *bulk, uint32_t bytes)
{
    static const enum series_source sources[DISTANCE_COUNT] = {
        [DISTANCE_VSWITCH] = SERIES_VSWITCH,
        [DISTANCE_ZONE] = SERIES_ZONE,
        [DISTANCE_REGION] = SERIES_CROSS,
        [DISTANCE_ELSEWHERE] = SERIES_CROSS,
    };
    enum series_source source = SERIES_ORIGIN;
    if (bulk->from == WORLD_ORIGIN) {
        world->totals.origin_bytes += bytes;
        world->origin_bytes[bulk->blob] += bytes;
    } else {
        enum distance distance = world__distance(world, bulk->from, bulk->to);
        source = sources[distance];
        world->totals.peer_bytes[distance] += bytes;
        if (distance > DISTANCE_ZONE && stays_in_zone(world, bulk->blob))
            world->totals.crossed_bytes += bytes;
        world->nodes[bulk->from].uploaded_bytes += bytes;
    }
    world->nodes[bulk->to].bytes.received[source] += bytes;
    series_bytes(world, source, bulk->began_us, bytes);
}

/* A whole piece is here: it takes a while to open, hash and store it. */
static void verify(struct world *world, uint32_t index, bool last)
{
    struct bulk *bulk = at(world, index);
    struct sim_node *node = &world->nodes[bulk->to];
    uint32_t bytes = bytes_of(world, bulk);
    struct bulk plan = {.kind = BULK_VERIFY,
                        .state = BULK_DONE,
                        .from = bulk->from,
                        .to = bulk->to,
                        .blob = bulk->blob,
                        .piece = bulk->piece,
                        .id = bulk->id,
                        .parent = index,
                        .parent_version = bulk->version,
                        .last = last};
    plan.wrong = bulk->kind == BULK_UPLOAD && (world->nodes[bulk->from].hostile & WORLD_LIES) != 0;
    node->unverified_bytes += bytes;
    uint64_t took_us = work_arrived_us(node, bulk, bytes);
    (void)push(world, EVENT_VERIFIED, add(world, &plan), took_us);
}

static void upload_arrived(struct world *world, uint32_t index)
{
    struct bulk *bulk = at(world, index);
    struct sim_node *from = &world->nodes[bulk->from];
    uint32_t bytes = bytes_of(world, bulk);
    count_arrival(world, bulk, bytes);
    if (bulk->unwanted) {
        world->totals.wasted_bytes += bytes;
        work_dropped(&world->nodes[bulk->to], bytes);
    } else {
        struct sim_node *to = &world->nodes[bulk->to];
        transfer_piece_progress(host_transfer(to), host_now_us(to), to->blobs[bulk->blob].handle,
                                bulk->piece, &from->id, bytes);
        verify(world, index, false);
        host_drain(to);
    }
    end(from, index, bytes, 0);
    host_drain(from);
}

/* The connection is read no further until what arrived is verified. */
static void hold(struct world *world, struct bulk *bulk)
{
    stop_flow(world, bulk);
    bulk->state = BULK_HELD;
    bulk->version++;
    world->nodes[bulk->to].held_count++;
}

static void fetch_arrived(struct world *world, uint32_t index)
{
    struct bulk *bulk = at(world, index);
    uint32_t bytes = bytes_of(world, bulk);
    count_arrival(world, bulk, bytes);
    bool last = --bulk->pieces_left == 0;
    verify(world, index, last);
    bulk = at(world, index); /* the pool may have grown */
    bulk->before_bytes += bytes;
    bulk->began_us = world->now_us;
    if (last) {
        stop_flow(world, bulk);
        bulk->state = BULK_DONE;
        return;
    }
    bulk->piece++;
    if (world->nodes[bulk->to].unverified_bytes >= UNVERIFIED_BYTES_MAX)
        hold(world, bulk);
    else
        flows_more(&world->flows, bulk->flow, bytes_of(world, bulk), world->now_us);
}

/* Reads that were held go on where they were. */
static void release_held(struct sim_node *node)
{
    struct world *world = node->world;
    if (node->held_count == 0 || node->unverified_bytes >= UNVERIFIED_BYTES_MAX)
        return;
    for (uint32_t index = node->own.first; index != INDEX_NONE; index = at(world, index)->next) {
        struct bulk *bulk = at(world, index);
        if (bulk->state != BULK_HELD)
            continue;
        node->held_count--;
        flow_bytes(world, index);
    }
}

void bulk_flow(struct world *world, uint32_t flow)
{
    if (!flows_fired(&world->flows, flow, world->now_us))
        return;
    uint32_t index = world->flows.items[flow].user;
    const struct bulk *bulk = at(world, index);
    ASSERT(bulk->state == BULK_FLOWING && bulk->flow == flow);
    uint64_t thaw_us = world->nodes[bulk->to].frozen_until_us;
    if (bulk->kind == BULK_UPLOAD && world->nodes[bulk->from].frozen_until_us > thaw_us)
        thaw_us = world->nodes[bulk->from].frozen_until_us;
    if (thaw_us > world->now_us) {
        flows_later(&world->flows, flow, thaw_us);
    } else if (bulk->kind == BULK_UPLOAD) {
        upload_arrived(world, index);
    } else {
        fetch_arrived(world, index);
    }
}

static void count_piece(struct sim_node *node, uint32_t blob, uint32_t bytes)
{
    node->bytes.stored += bytes;
    if (node->blobs[blob].counted)
        node->got_bytes += bytes;
}

static void take_piece(struct sim_node *node, const struct bulk *bulk)
{
    struct world *world = node->world;
    struct sim_blob *mine = &node->blobs[bulk->blob];
    struct piece_source source = {.origin = PIECE_FROM_ORIGIN, .fetch_id = bulk->id};
    if (bulk->from != WORLD_ORIGIN)
        source =
            (struct piece_source){.origin = PIECE_FROM_PEER, .peer = world->nodes[bulk->from].id};
    bool wrong = bulk->wrong && world->config.plant != WORLD_PLANT_BELIEVE;
    bool had = bitfield_get(&mine->have, bulk->piece);
    if (wrong) { /* its hash tells: as the daemon, nothing more is asked of who sent it */
        world->totals.lies++;
        transfer_peer_lied(host_transfer(node), host_now_us(node), &source.peer);
    } else if (!bitfield_set(&mine->have, bulk->piece)) {
        world->totals.wasted_bytes += bytes_of(world, bulk);
    } else {
        count_piece(node, bulk->blob, bytes_of(world, bulk));
    }
    struct transfer *transfer = host_transfer(node);
    transfer_piece_done(transfer, host_now_us(node), mine->handle, bulk->piece, &source,
                        wrong ? E_DIGEST : 0);
    bool has = bitfield_get(transfer_blob_have(transfer, mine->handle), bulk->piece);
    if (has != bitfield_get(&mine->have, bulk->piece) || (bulk->wrong && has && !had))
        world->totals.wrong_bytes += bytes_of(world, bulk);
    if (!wrong)
        keep_piece(node, bulk->blob, bulk->piece);
}

void bulk_verified(struct world *world, uint32_t index, uint64_t version)
{
    struct bulk bulk = *at(world, index);
    if (bulk.kind == BULK_FREE || bulk.version != version)
        return;
    struct sim_node *node = &world->nodes[bulk.to];
    release(world, index);
    node->unverified_bytes -= bytes_of(world, &bulk);
    take_piece(node, &bulk);
    const struct bulk *parent = at(world, bulk.parent);
    bool fetch = parent->kind == BULK_FETCH && parent->version == bulk.parent_version;
    if (fetch && bulk.last)
        end(node, bulk.parent, 0, 0);
    release_held(node);
    host_drain(node);
}

/* ---- death ---- */

void bulk_drop(struct sim_node *node)
{
    struct world *world = node->world;
    while (node->own.first != INDEX_NONE)
        release(world, node->own.first);
    node->unverified_bytes = 0;
    ASSERT(node->held_count == 0);
    for (uint32_t i = node->incoming.first; i != INDEX_NONE; i = at(world, i)->next_in)
        stall(world, at(world, i));
}

void bulk_check(const struct world *world)
{
    for (uint32_t i = 0; i < world->bulk_count; i++) {
        const struct bulk *bulk = &world->bulks[i];
        if (bulk->kind == BULK_FREE)
            continue;
        ASSERT((bulk->flow != FLOW_NONE) == (bulk->state == BULK_FLOWING));
        ASSERT(bulk->look == EVENT_NONE || bulk->state == BULK_FLOWING);
        ASSERT(bulk->flow == FLOW_NONE || world->flows.items[bulk->flow].user == i);
        uint32_t owner = bulk->kind == BULK_UPLOAD ? bulk->from : bulk->to;
        ASSERT(world->nodes[owner].mesh != NULL);
    }
}
