/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transfer object: creation, dispatch of messages, time, and the pump. Every public call notes
 * what happened and ends in the pump, which alone begins new things: so no handler re-enters
 * another, and the order of work does not depend on which event came first.
 */
#include "have.h"
#include "lease.h"

/* Request timeouts, HELLO and HAVE repetition: coarse is good enough for 150 ms and more. */
#define TICK_US      (50 * MS)
#define IDLE_TICK_US (250 * MS)
#define SWEEP_US     (1 * S)
/* Called so late, the process was stopped: deadlines move, so that nobody is thought dead (D-13).
 */
#define PAUSE_US (2 * S)
/* With two slots (ALGORITHMS §3.4) uplinks idle whenever two receivers are busy. Median / p99 of
 * the bound, simulated 100 nodes, 4 x 256 MiB at 1 Gbit/s: 1.11 / 1.18 with six, 1.07 / 1.12 with
 * eight, 1.04 / 1.07 with twelve, 1.07 / 1.11 with sixteen (docs/flash-crowd.md). */
#define UPLOAD_SLOTS 12
/* Who has to wait is better off with another holder, if there is one: with 24 half of what was in
 * flight lay in queues while other uplinks were idle. With 24, 12, 8, 4: 16 nodes, 100 Mbit/s cards
 * with queues, 64 MiB last 1.28, 1.24, 1.22, 1.22 times the bound; 1,000 nodes, 64 MiB p99 1.25,
 * 1.21, 1.19, 1.21; 4 MiB 3.51, 3.19, 3.14, 2.64, most / mean uploaded 3.0, 2.8, 2.6, 2.5. */
#define UPLOAD_QUEUE 8
#define INFLIGHT     16
/* Of few neighbours some happen to be busier than others all the time, and whoever has those ends
 * late: Kraken's image at 100 nodes 1.16 with sixteen, 1.15 with 24, 1.07 with 32. */
#define NEIGHBOURS          32
#define PUMP_ROUNDS_MAX     8
#define NEAR_WHOLES_AT_ONCE 4
#define RESULTS_FIRST       32
#define RESULTS_MAX         16384
#define LOOPBACK_MAX        1024
#define LIAR_US             (3600 * (uint64_t)S) /* INT-7 */

/* ---- memory ---- */

void *transfer__alloc(const struct transfer *transfer, void *old, size_t bytes)
{
    ASSERT(bytes > 0);
    return transfer->env->alloc(transfer->env->host, old, bytes);
}

void *transfer__zalloc(const struct transfer *transfer, size_t bytes)
{
    void *fresh = transfer__alloc(transfer, NULL, bytes);
    if (fresh != NULL)
        memset(fresh, 0, bytes);
    return fresh;
}

void transfer__release(const struct transfer *transfer, void *old)
{
    if (old != NULL)
        (void)transfer->env->alloc(transfer->env->host, old, 0);
}

int transfer__grow(const struct transfer *transfer, void **array, uint32_t *capacity,
                   uint32_t wanted, size_t each)
{
    if (wanted <= *capacity)
        return 0;
    uint32_t next = *capacity < 4 ? 4 : *capacity + *capacity / 2;
    if (next < wanted)
        next = wanted;
    size_t bytes;
    int err = size_mul(next, each, &bytes);
    if (err != 0)
        return E_NO_MEMORY;
    void *fresh = transfer__alloc(transfer, *array, bytes);
    if (fresh == NULL)
        return E_NO_MEMORY;
    *array = fresh;
    *capacity = next;
    return 0;
}

/* ---- results and messages ---- */

/* Makes a ring of `each`-sized elements larger, oldest first again. */
static int ring_grow(struct transfer *transfer, void **ring, uint32_t *capacity, uint32_t *first,
                     uint32_t wanted, size_t each)
{
    void *fresh = transfer__alloc(transfer, NULL, wanted * each);
    if (fresh == NULL)
        return E_NO_MEMORY;
    uint32_t tail = *capacity - *first;
    if (*ring != NULL) {
        memcpy(fresh, (char *)*ring + *first * each, tail * each);
        memcpy((char *)fresh + tail * each, *ring, *first * each);
    }
    transfer__release(transfer, *ring);
    *ring = fresh;
    *capacity = wanted;
    *first = 0;
    return 0;
}

bool transfer__push(struct transfer *transfer, const struct transfer_result *result)
{
    struct results *results = &transfer->results;
    if (results->count == results->capacity &&
        (results->capacity >= RESULTS_MAX ||
         ring_grow(transfer, (void **)&results->ring, &results->capacity, &results->first,
                   2 * results->capacity, sizeof *results->ring) != 0))
        return false;
    results->ring[(results->first + results->count++) % results->capacity] = *result;
    return true;
}

bool transfer__push_peer(struct transfer *transfer, enum transfer_result_kind kind, uint16_t node)
{
    struct transfer_result result = {
        .kind = kind,
        .peer = transfer->nodes.slots[node].id,
        .peer_addr = transfer->nodes.slots[node].addr,
    };
    return transfer__push(transfer, &result);
}

bool transfer_next_result(struct transfer *transfer, struct transfer_result *out)
{
    struct results *results = &transfer->results;
    if (results->count == 0)
        return false;
    *out = results->ring[results->first];
    results->first = (results->first + 1) % results->capacity;
    results->count--;
    return true;
}

static void send_to_self(struct transfer *transfer, const struct wire_transfer *message)
{
    struct loopback *loopback = &transfer->loopback;
    uint32_t wanted = loopback->capacity == 0 ? 4 : 2 * loopback->capacity;
    if (loopback->count == loopback->capacity &&
        (wanted > LOOPBACK_MAX || ring_grow(transfer, (void **)&loopback->ring, &loopback->capacity,
                                            &loopback->first, wanted, sizeof *loopback->ring) != 0))
        return; /* lost, as any message may be */
    loopback->ring[(loopback->first + loopback->count++) % loopback->capacity] = *message;
}

void transfer__send(struct transfer *transfer, uint16_t node, const struct wire_transfer *message)
{
    uint8_t bytes[MESSAGE_BYTES_MAX];
    size_t used;
    ASSERT(node < transfer->nodes.slot_count && transfer->nodes.slots[node].used);
    if (transfer->closing)
        return;
    if (node == NODE_SELF) {
        send_to_self(transfer, message);
        return;
    }
    int err = wire_transfer_encode(message, bytes, sizeof bytes, &used);
    ASSERT(err == 0);
    transfer->stats.messages_sent++;
    transfer->stats.bytes_sent += used;
    (void)transfer->env->send(transfer->env->host, &transfer->nodes.slots[node].addr, bytes, used);
}

/* ---- creation ---- */

static void fill_defaults(struct transfer_config *config)
{
    if (config->copies == 0)
        config->copies = TRANSFER_COPIES_MESH;
    if (config->upload_slots == 0)
        config->upload_slots = UPLOAD_SLOTS;
    if (config->upload_queue == 0)
        config->upload_queue = UPLOAD_QUEUE;
    if (config->inflight == 0)
        config->inflight = INFLIGHT;
    if (config->inflight > REQUESTS_MAX / 4)
        config->inflight = REQUESTS_MAX / 4;
    if (config->neighbours == 0)
        config->neighbours = NEIGHBOURS;
    if (config->neighbours > NEIGHBOURS_ACCEPT)
        config->neighbours = NEIGHBOURS_ACCEPT;
    if (config->leases_max == 0)
        config->leases_max = 8;
    if (config->window_pieces == 0)
        config->window_pieces = 96;
    if (config->lease_timeout_us == 0)
        config->lease_timeout_us = 500 * MS;
    if (config->fallback_us == 0)
        config->fallback_us = 1500 * MS;
    if (config->fallbacks_max == 0)
        config->fallbacks_max = 2;
    if (config->zone_members_min == 0)
        config->zone_members_min = ZONE_MEMBERS_MIN;
}

static int allocate(struct transfer *transfer)
{
    transfer->requests = transfer__zalloc(transfer, REQUESTS_MAX * sizeof *transfer->requests);
    transfer->uploads =
        transfer__zalloc(transfer, transfer__uploads_max(transfer) * sizeof *transfer->uploads);
    transfer->results.ring =
        transfer__zalloc(transfer, RESULTS_FIRST * sizeof *transfer->results.ring);
    transfer->results.capacity = transfer->results.ring == NULL ? 0 : RESULTS_FIRST;
    if (transfer->requests == NULL || transfer->uploads == NULL || transfer->results.ring == NULL)
        return E_NO_MEMORY;
    return transfer__nodes_init(transfer);
}

int transfer_new(const struct env *env, const struct transfer_config *config, uint64_t now_us,
                 struct transfer **out)
{
    struct transfer *transfer = env->alloc(env->host, NULL, sizeof *transfer);
    if (transfer == NULL)
        return E_NO_MEMORY;
    *transfer = (struct transfer){
        .env = env,
        .config = *config,
        .ahead_bytes = config->ahead_bytes,
        .now_us = now_us,
        .deadline_us = UINT64_MAX,
        .connect_due_us = UINT64_MAX,
        .lease_budget = 1,
        .tick_due_us = now_us,
        .sweep_due_us = now_us + SWEEP_US,
    };
    fill_defaults(&transfer->config);
    uint8_t seed[32];
    env->random(env->host, seed, sizeof seed);
    prng_seed(&transfer->prng, seed, sizeof seed);
    int err = allocate(transfer);
    if (err != 0) {
        transfer_free(transfer);
        return err;
    }
    *out = transfer;
    return 0;
}

void transfer_free(struct transfer *transfer)
{
    if (transfer == NULL)
        return;
    transfer->closing = true; /* who leaves in order has drained and closed its blobs */
    transfer__blobs_close(transfer);
    transfer__fetches_close(transfer);
    transfer__desks_close(transfer);
    transfer__homes_close(transfer);
    transfer__boards_close(transfer);
    transfer__nodes_close(transfer);
    transfer__release(transfer, transfer->requests);
    transfer__release(transfer, transfer->uploads);
    transfer__release(transfer, transfer->results.ring);
    transfer__release(transfer, transfer->loopback.ring);
    (void)transfer->env->alloc(transfer->env->host, transfer, 0);
}

/* ---- dispatch ---- */

static void on_renew(struct transfer *transfer, uint16_t from, const struct wire_renew *renew)
{
    for (uint32_t i = 0; i < renew->count; i++) {
        if (renew->level == WIRE_LEVEL_ZONE)
            transfer__desk_renew(transfer, from, renew, &renew->renewals[i]);
        else
            transfer__home_renew(transfer, from, renew, &renew->renewals[i]);
    }
}

static void on_keeper_message(struct transfer *transfer, uint16_t from, unsigned type,
                              const struct wire_lease *lease)
{
    bool zone = lease->level == WIRE_LEVEL_ZONE;
    if (type == WIRE_TRANSFER_WANT && zone)
        transfer__desk_want(transfer, from, lease);
    else if (type == WIRE_TRANSFER_WANT)
        transfer__home_want(transfer, from, lease);
    else if (type == WIRE_TRANSFER_HOLD && zone)
        transfer__desk_hold(transfer, from, lease);
    else if (type == WIRE_TRANSFER_HOLD)
        transfer__home_hold(transfer, from, lease);
    else if (type == WIRE_TRANSFER_RETURN && zone)
        transfer__desk_return(transfer, from, lease);
    else if (type == WIRE_TRANSFER_RETURN)
        transfer__home_return(transfer, from, lease);
    else if (zone)
        transfer__desk_replica(transfer, from, lease);
    else
        transfer__home_replica(transfer, from, lease);
}

static void dispatch(struct transfer *transfer, uint16_t from, const struct wire_transfer *message)
{
    switch (message->type) {
    case WIRE_TRANSFER_ANNOUNCE:
        transfer__on_announce(transfer, from, &message->of.announce);
        break;
    case WIRE_TRANSFER_PEERS:
        transfer__on_peers(transfer, from, &message->of.peers);
        break;
    case WIRE_TRANSFER_HELLO:
        transfer__on_hello(transfer, from, &message->of.have);
        break;
    case WIRE_TRANSFER_HAVE:
        transfer__on_have(transfer, from, &message->of.have);
        break;
    case WIRE_TRANSFER_RESYNC:
        transfer__on_resync(transfer, from, &message->of.note);
        break;
    case WIRE_TRANSFER_BYE:
        transfer__on_bye(transfer, from, &message->of.note);
        break;
    case WIRE_TRANSFER_REQUEST:
        transfer__on_request(transfer, from, &message->of.piece);
        break;
    case WIRE_TRANSFER_QUEUED:
        transfer__on_queued(transfer, from, &message->of.piece);
        break;
    case WIRE_TRANSFER_BUSY:
        transfer__on_busy(transfer, from, &message->of.piece);
        break;
    case WIRE_TRANSFER_CANCEL:
        transfer__on_cancel(transfer, from, &message->of.piece);
        break;
    case WIRE_TRANSFER_GRANT:
        transfer__on_grant(transfer, from, &message->of.lease);
        break;
    case WIRE_TRANSFER_PENDING:
        transfer__on_pending(transfer, from, &message->of.lease);
        break;
    case WIRE_TRANSFER_REFER:
        transfer__on_refer(transfer, from, &message->of.lease);
        break;
    case WIRE_TRANSFER_HELD:
        transfer__on_held(transfer, from, &message->of.lease);
        break;
    case WIRE_TRANSFER_RENEW:
        on_renew(transfer, from, &message->of.renew);
        break;
    default:
        on_keeper_message(transfer, from, message->type, &message->of.lease);
        break;
    }
}

int transfer_receive(struct transfer *transfer, uint64_t now_us, const struct node_id *from_id,
                     const struct peer_addr *from, const uint8_t *msg, size_t msg_bytes)
{
    transfer__enter(transfer, now_us);
    struct wire_transfer message;
    int err = wire_transfer_decode(msg, msg_bytes, &message);
    if (err == 0 && node_id_equal(from_id, &transfer->config.self_id))
        err = E_PROTOCOL;
    uint16_t node = NODE_NONE;
    if (err == 0) {
        node = transfer__node_meet(transfer, from_id, from);
        err = node == NODE_NONE ? E_FULL : 0;
    }
    if (err == 0) {
        transfer__heard(transfer, node);
        dispatch(transfer, node, &message);
    } else {
        transfer->stats.rejected++;
    }
    transfer__leave(transfer);
    return err;
}

/* ---- members, sessions, providers ---- */

static void forget_in_swarm(struct transfer *transfer, struct blob *blob, uint16_t node)
{
    struct swarm *swarm = blob->swarm;
    transfer__neighbour_remove(transfer, blob, node);
    transfer__remote_remove(swarm, node);
    for (uint32_t i = 0; i < LIARS_MAX && i < swarm->liar_count; i++) {
        if (swarm->liars[i] == node)
            swarm->liars[i] = NODE_NONE; /* the slot may get another owner */
    }
    for (uint32_t i = 0; i < swarm->candidate_count; i++) {
        if (swarm->candidates[i] == node) {
            swarm->candidates[i] = swarm->candidates[--swarm->candidate_count];
            break;
        }
    }
}

void transfer__node_gone(struct transfer *transfer, uint16_t node)
{
    transfer__requests_lost(transfer, node);
    transfer__requests_end(transfer, NULL, 0, node);
    transfer__uploads_end(transfer, NULL, 0, node);
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active)
        forget_in_swarm(transfer, blob, node);
    transfer__leases_forget(transfer, node);
    transfer__desks_forget(transfer, node);
    transfer__homes_forget(transfer, node);
    transfer__boards_forget(transfer, node);
    transfer__node_remove(transfer, node);
    transfer__touch(transfer);
}

/* It has given its leases back, serves nobody any more and keeps nothing. Datagrams get lost, so
 * its own word is not waited for. */
static void node_leaves(struct transfer *transfer, uint16_t node)
{
    transfer__desks_forget(transfer, node);
    transfer__homes_forget(transfer, node);
    transfer__leases_keeper_gone(transfer, node);
}

int transfer_member_up(struct transfer *transfer, uint64_t now_us, const struct member *member)
{
    transfer__enter(transfer, now_us);
    int err = 0;
    uint16_t node = transfer__node_find(transfer, &member->id);
    bool known = node != NODE_NONE && node != NODE_SELF;
    bool leaves = known && member->state == MEMBER_LEAVING &&
                  transfer->nodes.slots[node].state != MEMBER_LEAVING;
    if (member->state != MEMBER_DEAD && member->state != MEMBER_LEFT)
        err = transfer__node_member(transfer, member);
    if (leaves)
        node_leaves(transfer, node);
    transfer__touch(transfer);
    transfer__leave(transfer);
    return err;
}

void transfer_member_down(struct transfer *transfer, uint64_t now_us, const struct node_id *id)
{
    transfer__enter(transfer, now_us);
    transfer__node_down(transfer, id);
    transfer__leave(transfer);
}

void transfer_session_up(struct transfer *transfer, uint64_t now_us, const struct node_id *peer)
{
    transfer__enter(transfer, now_us);
    uint16_t node = transfer__node_meet(transfer, peer, NULL);
    if (node != NODE_NONE && node != NODE_SELF) {
        transfer__link_set(transfer, node, true);
        transfer__neighbours_linked(transfer, node, true);
        transfer__requests_linked(transfer, node);
    }
    transfer__leave(transfer);
}

void transfer_session_down(struct transfer *transfer, uint64_t now_us, const struct node_id *peer,
                           int status)
{
    transfer__enter(transfer, now_us);
    uint16_t node = transfer__node_find(transfer, peer);
    if (node != NODE_NONE && node != NODE_SELF) {
        transfer__link_set(transfer, node, false);
        transfer__requests_lost(transfer, node);
        transfer__served_forget(transfer, node);
        if (status == E_TIMEOUT || status == E_UNREACHABLE || status == E_REFUSED)
            transfer__silent(transfer, node);
        transfer__neighbours_linked(transfer, node, false);
        transfer__touch(transfer);
    }
    transfer__leave(transfer);
}

static void take_provider(struct transfer *transfer, struct blob *blob,
                          const struct transfer_provider *provider, size_t index)
{
    struct swarm *swarm = blob->swarm;
    uint16_t node = transfer__node_meet(transfer, &provider->id, &provider->addr);
    if (node == NODE_NONE || !transfer__node_usable(transfer, node))
        return;
    transfer__node_place(transfer, node, &provider->topology);
    bool whole = provider->completeness == UINT8_MAX;
    if (transfer__zone_of(transfer, node) == transfer__zone_of(transfer, NODE_SELF) &&
        transfer__in_reach(transfer, blob, node)) {
        swarm->near_whole = swarm->near_whole || whole;
        swarm->grow_due_us = transfer->now_us;
        /* A few whole copies are greeted at once: grants wait for them. */
        transfer__candidate(transfer, blob, node, whole && index < NEAR_WHOLES_AT_ONCE);
    } else if (whole && swarm->remote_count < REMOTES_MAX) {
        transfer__remote_remove(swarm, node);
        swarm->remotes[swarm->remote_count++] = node;
    }
}

void transfer_providers(struct transfer *transfer, uint64_t now_us, const struct blob_key *key,
                        const struct transfer_provider *providers, size_t provider_count)
{
    transfer__enter(transfer, now_us);
    struct blob *blob = transfer__blob_by_key(transfer, key);
    if (blob != NULL && blob->swarm != NULL && blob->swarm->readers > 0) {
        blob->swarm->locating = false;
        for (size_t i = 0; i < provider_count; i++)
            take_provider(transfer, blob, &providers[i], i);
        transfer__touch(transfer);
    }
    transfer__leave(transfer);
}

void transfer_peer_lied(struct transfer *transfer, uint64_t now_us, const struct node_id *peer)
{
    transfer__enter(transfer, now_us);
    size_t places = sizeof transfer->liars / sizeof transfer->liars[0];
    transfer->liars[transfer->liar_next % places].id = *peer;
    transfer->liars[transfer->liar_next % places].until_us = transfer->now_us + LIAR_US;
    transfer->liar_next++;
    uint16_t node = transfer__node_find(transfer, peer);
    if (node != NODE_NONE && node != NODE_SELF) {
        transfer__requests_lost(transfer, node);
        transfer__requests_end(transfer, NULL, 0, node);
        transfer__uploads_end(transfer, NULL, 0, node);
        for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active)
            forget_in_swarm(transfer, blob, node);
    }
    transfer__leave(transfer);
}

void transfer_drain(struct transfer *transfer, uint64_t now_us)
{
    transfer__enter(transfer, now_us);
    transfer->draining = true;
    transfer->nodes.stale = true;
    transfer__leases_hand_back(transfer);
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        for (uint32_t i = 0; i < blob->swarm->neighbour_count; i++)
            blob->swarm->neighbours[i].sent_us = 0; /* tell them that we have nothing to give */
    }
    for (uint32_t i = transfer->upload_count; i > 0; i--) {
        if (!transfer->uploads[i - 1].running)
            transfer__upload_refuse(transfer, &transfer->uploads[i - 1]);
    }
    transfer__touch(transfer);
    transfer__leave(transfer);
}

/* ---- the pump ---- */

void transfer__touch(struct transfer *transfer)
{
    transfer->pump_again = true;
}

/* The process was stopped: what was due meanwhile gets its time again. */
static void after_pause(struct transfer *transfer, uint64_t late_us)
{
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        transfer->requests[i].sent_us += late_us;
        transfer->requests[i].heard_us += late_us;
        transfer->requests[i].resend_us += late_us;
        transfer->requests[i].started_us += late_us;
    }
    for (struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        lease->rank_us += late_us;
        lease->give_up_us += late_us;
        lease->moved_us += late_us;
        lease->granted_us += late_us;
    }
    for (struct fetch *fetch = transfer->fetches; fetch != NULL; fetch = fetch->next)
        fetch->progress_us += late_us;
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        blob->swarm->progress_us += late_us;
        for (uint32_t i = 0; i < blob->swarm->neighbour_count; i++)
            blob->swarm->neighbours[i].heard_us += late_us;
    }
}

void transfer__enter(struct transfer *transfer, uint64_t now_us)
{
    uint64_t due_us = transfer->deadline_us;
    if (now_us > transfer->now_us)
        transfer->now_us = now_us;
    if (due_us == UINT64_MAX || transfer->now_us < due_us || transfer->now_us - due_us < PAUSE_US)
        return;
    after_pause(transfer, transfer->now_us - due_us);
    transfer->deadline_us = transfer->now_us;
}

static void drain_loopback(struct transfer *transfer)
{
    struct loopback *loopback = &transfer->loopback;
    /* Answers to ourselves are taken up in the same go; none of them asks anew. */
    for (uint32_t i = 0; loopback->count > 0 && i < 4 * LOOPBACK_MAX; i++) {
        struct wire_transfer message = loopback->ring[loopback->first];
        loopback->first = (loopback->first + 1) % loopback->capacity;
        loopback->count--;
        dispatch(transfer, NODE_SELF, &message);
    }
}

static void pump(struct transfer *transfer)
{
    for (unsigned round = 0; round < PUMP_ROUNDS_MAX; round++) {
        drain_loopback(transfer);
        if (!transfer->pump_again)
            break;
        transfer->pump_again = false;
        transfer__leases_pump(transfer);
        transfer__requests_fill(transfer);
        transfer__uploads_start(transfer);
    }
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool is_busy(const struct transfer *transfer)
{
    return transfer->readers != NULL || transfer->request_count > 0 || transfer->leases != NULL ||
           transfer->fetches != NULL || transfer->upload_count > 0;
}

static bool keeps_something(const struct transfer *transfer)
{
    return transfer->peer_count > 0 || transfer->desk_count > 0 || transfer->home_count > 0 ||
           transfer->board_count > 0;
}

static uint64_t next_deadline(struct transfer *transfer)
{
    uint64_t deadline_us = transfer->connect_due_us;
    deadline_us = least(deadline_us, transfer__leases_deadline(transfer));
    deadline_us = least(deadline_us, transfer__runs_deadline(transfer));
    /* Provider records are no part of it: the tick, which runs while a blob is active, has them. */
    for (const struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active)
        deadline_us = least(deadline_us, blob->swarm->have_due_us);
    if (is_busy(transfer) || transfer->active != NULL)
        deadline_us = least(deadline_us, transfer->tick_due_us);
    if (keeps_something(transfer))
        deadline_us = least(deadline_us, transfer->sweep_due_us);
    return deadline_us;
}

/* News of all blobs that are due, and where there is any, of those that are due before long. */
static void have_flush(struct transfer *transfer)
{
    bool sent = false;
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active)
        sent = transfer__have_flush(transfer, blob) || sent;
    for (struct blob *blob = transfer->active; sent && blob != NULL; blob = blob->next_active)
        transfer__have_along(transfer, blob);
}

void transfer__leave(struct transfer *transfer)
{
    for (struct blob *blob = transfer->active; transfer->reach_stale && blob != NULL;
         blob = blob->next_active)
        transfer__reach_changed(transfer, blob);
    transfer->reach_stale = false;
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        const struct swarm *swarm = blob->swarm;
        if (swarm->readers > 0 &&
            (swarm->announce_due_us <= transfer->now_us || swarm->grow_due_us <= transfer->now_us))
            transfer__swarm_tick(transfer, blob);
    }
    pump(transfer);
    transfer__links_due(transfer);
    have_flush(transfer);
    struct blob *blob = transfer->active;
    while (blob != NULL) {
        struct blob *next = blob->next_active;
        transfer__swarm_retire(transfer, blob);
        blob = next;
    }
    uint64_t next_us = next_deadline(transfer);
    transfer->deadline_us = next_us > transfer->now_us ? next_us : transfer->now_us;
}

static void tick(struct transfer *transfer)
{
    if (transfer->tick_due_us > transfer->now_us)
        return;
    uint64_t due_us = transfer->now_us + (is_busy(transfer) ? TICK_US : IDLE_TICK_US);
    transfer->tick_due_us = least(due_us, transfer__fallback_deadline(transfer));
    transfer__requests_tick(transfer);
    transfer__uploads_tick(transfer);
    transfer__fetches_tick(transfer);
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        transfer__swarm_tick(transfer, blob);
        transfer__blob_tick(transfer, blob);
        transfer__fallback_tick(transfer, blob);
    }
    transfer__touch(transfer);
}

static void sweep(struct transfer *transfer)
{
    if (transfer->sweep_due_us > transfer->now_us)
        return;
    transfer->sweep_due_us = transfer->now_us + SWEEP_US;
    transfer__links_sweep(transfer);
    transfer__desks_sweep(transfer);
    transfer__homes_sweep(transfer);
    transfer__boards_sweep(transfer);
    transfer->rate.best -= transfer->rate.best / 32;
}

void transfer_advance(struct transfer *transfer, uint64_t now_us)
{
    transfer__enter(transfer, now_us);
    transfer__leases_tick(transfer);
    tick(transfer);
    sweep(transfer);
    if (transfer->deadline_us <= transfer->now_us)
        transfer__touch(transfer);
    transfer__leave(transfer);
}

uint64_t transfer_deadline_us(const struct transfer *transfer)
{
    return transfer->deadline_us;
}

/* ---- reports ---- */

const char *fetch_reason_name(enum fetch_reason reason)
{
    switch (reason) {
    case FETCH_LEASE:
        return "lease";
    case FETCH_ALONE:
        return "alone";
    case FETCH_NO_KEEPER:
        return "no-keeper";
    case FETCH_NO_PROGRESS:
        return "no-progress";
    case FETCH_REPAIR:
        return "repair";
    case FETCH_REASON_COUNT:
        break;
    }
    return "unknown";
}

void transfer_stats(const struct transfer *transfer, struct transfer_stats *out)
{
    *out = transfer->stats;
    out->blobs = transfer->blob_count;
    out->inflight = transfer->inflight;
    out->neighbours = 0;
    for (const struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active)
        out->neighbours += blob->swarm->neighbour_count;
}
