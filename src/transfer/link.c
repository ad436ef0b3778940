/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links: what this node knows of the nodes it deals with: is there a session, do they answer. Asks
 * the host for sessions and lets them go. Also measures how fast this node gets its bytes.
 */
#include "lease.h"

/* The host gives up a handshake after 3 s; without any answer we do after this. */
#define CONNECT_TIMEOUT_US (5 * S)
#define CONNECT_RETRY_US   (200 * MS) /* doubling per failure ... */
#define CONNECT_FAILS_MAX  5          /* ... up to 6.4 s */
/* A node that did not answer is asked last for so long, unless it is heard. */
#define SILENT_US (10 * S)
/* A session nobody used for so long is released. */
#define RELEASE_US (20 * S)
/* A record nobody used for so long is forgotten. */
#define FORGET_US (60 * S)

struct peer *transfer__peer(struct transfer *transfer, uint16_t slot)
{
    struct node *node = &transfer->nodes.slots[slot];
    ASSERT(slot < transfer->nodes.slot_count && node->used);
    if (node->peer != NULL)
        return node->peer;
    struct peer *peer = transfer__zalloc(transfer, sizeof *peer);
    if (peer == NULL)
        return NULL;
    peer->node = slot;
    peer->distance = (uint8_t)transfer__node_distance(transfer, slot);
    peer->link = LINK_NONE;
    peer->connect_due_us = UINT64_MAX;
    peer->used_us = transfer->now_us;
    peer->prev = transfer->peers_last;
    if (transfer->peers_last != NULL)
        transfer->peers_last->next = peer;
    else
        transfer->peers = peer;
    transfer->peers_last = peer;
    transfer->peer_count++;
    node->peer = peer;
    return peer;
}

void transfer__peer_drop(struct transfer *transfer, uint16_t slot)
{
    struct node *node = &transfer->nodes.slots[slot];
    struct peer *peer = node->peer;
    if (peer == NULL)
        return;
    if (peer->prev != NULL)
        peer->prev->next = peer->next;
    else
        transfer->peers = peer->next;
    if (peer->next != NULL)
        peer->next->prev = peer->prev;
    else
        transfer->peers_last = peer->prev;
    ASSERT(transfer->peer_count > 0);
    transfer->peer_count--;
    node->peer = NULL;
    transfer__release(transfer, peer);
}

bool transfer__link_up(const struct transfer *transfer, uint16_t slot)
{
    const struct peer *peer = transfer->nodes.slots[slot].peer;
    return peer != NULL && peer->link == LINK_UP;
}

void transfer__link_want(struct transfer *transfer, uint16_t slot, uint64_t delay_us)
{
    struct peer *peer = transfer__peer(transfer, slot);
    if (peer == NULL)
        return;
    peer->used_us = transfer->now_us;
    if (peer->released) {
        /* The host may be closing it: say that it is wanted again. */
        peer->released = false;
        (void)transfer__push_peer(transfer, TRANSFER_CONNECT, slot);
    }
    if (peer->link != LINK_NONE)
        return;
    uint64_t due_us = transfer->now_us + delay_us;
    if (due_us < peer->retry_us)
        due_us = peer->retry_us;
    if (due_us < peer->connect_due_us)
        peer->connect_due_us = due_us;
    if (due_us < transfer->connect_due_us)
        transfer->connect_due_us = due_us;
}

static uint64_t retry_delay_us(uint8_t fails)
{
    return (uint64_t)CONNECT_RETRY_US << fails;
}

static void connect_failed(struct transfer *transfer, struct peer *peer)
{
    peer->link = LINK_NONE;
    peer->retry_us = transfer->now_us + retry_delay_us(peer->connect_fails);
    if (peer->connect_fails < CONNECT_FAILS_MAX)
        peer->connect_fails++;
    peer->connect_due_us = UINT64_MAX;
    if (peer->neighbours > 0)
        transfer__link_want(transfer, peer->node, 0);
}

void transfer__link_set(struct transfer *transfer, uint16_t slot, bool up)
{
    struct peer *peer = transfer__peer(transfer, slot);
    if (peer == NULL)
        return;
    peer->released = false;
    if (!up) {
        connect_failed(transfer, peer);
        return;
    }
    peer->link = LINK_UP;
    peer->connect_fails = 0;
    peer->connect_due_us = UINT64_MAX;
    peer->used_us = transfer->now_us;
    transfer__heard(transfer, slot);
    transfer__touch(transfer);
}

/* Asks the host for a session with `peer` if that is due; when it will be. */
static uint64_t connect_if_due(struct transfer *transfer, struct peer *peer)
{
    if (peer->link != LINK_NONE)
        return UINT64_MAX;
    if (peer->connect_due_us > transfer->now_us)
        return peer->connect_due_us;
    if (!transfer__push_peer(transfer, TRANSFER_CONNECT, peer->node)) {
        peer->connect_due_us = transfer->now_us + CONNECT_RETRY_US;
        return peer->connect_due_us;
    }
    peer->connect_due_us = UINT64_MAX;
    peer->link = LINK_CONNECTING;
    peer->connect_us = transfer->now_us;
    return UINT64_MAX;
}

void transfer__links_due(struct transfer *transfer)
{
    if (transfer->connect_due_us > transfer->now_us)
        return;
    uint64_t next_us = UINT64_MAX;
    for (struct peer *peer = transfer->peers; peer != NULL; peer = peer->next) {
        uint64_t due_us = connect_if_due(transfer, peer);
        if (due_us < next_us)
            next_us = due_us;
    }
    transfer->connect_due_us = next_us;
}

static bool in_use(const struct peer *peer)
{
    return peer->neighbours > 0 || peer->requests > 0 || peer->uploads > 0;
}

/* True if the record is gone. */
static bool sweep_peer(struct transfer *transfer, struct peer *peer)
{
    uint64_t now_us = transfer->now_us;
    if (peer->link == LINK_CONNECTING && now_us - peer->connect_us > CONNECT_TIMEOUT_US)
        connect_failed(transfer, peer);
    if (in_use(peer)) {
        peer->used_us = now_us;
        return false;
    }
    uint64_t idle_us = now_us - peer->used_us;
    if (peer->link == LINK_UP && !peer->released && idle_us > RELEASE_US)
        peer->released = transfer__push_peer(transfer, TRANSFER_RELEASE, peer->node);
    if (idle_us <= FORGET_US || peer->link != LINK_NONE)
        return false;
    uint16_t slot = peer->node;
    if (transfer->nodes.slots[slot].state == MEMBER_UNKNOWN)
        transfer__node_gone(transfer, slot);
    else
        transfer__peer_drop(transfer, slot);
    return true;
}

void transfer__links_sweep(struct transfer *transfer)
{
    struct peer *peer = transfer->peers;
    while (peer != NULL) {
        struct peer *next = peer->next;
        (void)sweep_peer(transfer, peer);
        peer = next;
    }
}

void transfer__heard(struct transfer *transfer, uint16_t slot)
{
    bool stranger = transfer->nodes.slots[slot].state == MEMBER_UNKNOWN;
    /* Most senders only ask us as keeper: they need no record. */
    struct peer *peer =
        stranger ? transfer__peer(transfer, slot) : transfer->nodes.slots[slot].peer;
    transfer->heard_us = transfer->now_us;
    transfer->mesh_quiet_us = 0;
    if (peer == NULL)
        return;
    peer->heard_us = transfer->now_us;
    peer->silent_until_us = 0;
    if (stranger)
        peer->used_us = transfer->now_us;
}

void transfer__silent(struct transfer *transfer, uint16_t slot)
{
    struct peer *peer = transfer__peer(transfer, slot);
    if (slot == NODE_SELF || peer == NULL)
        return;
    bool news = peer->silent_until_us <= transfer->now_us;
    peer->silent_until_us = transfer->now_us + SILENT_US;
    if (!news)
        return;
    (void)transfer__push_peer(transfer, TRANSFER_PEER_SILENT, slot);
    transfer__leases_silent(transfer, slot);
}

bool transfer__is_silent(const struct transfer *transfer, uint16_t slot)
{
    const struct peer *peer = transfer->nodes.slots[slot].peer;
    if (slot == NODE_SELF)
        return false;
    if (transfer->liar_next > 0 && transfer__node_lied(transfer, &transfer->nodes.slots[slot].id))
        return true;
    return peer != NULL && peer->silent_until_us > transfer->now_us;
}

/* ---- rate ---- */

static void rate_turn(struct transfer *transfer)
{
    struct rate *rate = &transfer->rate;
    uint64_t slot = transfer->now_us / RATE_SLOT_US;
    uint64_t passed = slot - rate->slot;
    for (uint64_t i = 0; i < passed && i < RATE_SLOTS; i++)
        rate->bytes[(rate->slot + 1 + i) % RATE_SLOTS] = 0;
    rate->slot = slot;
}

uint64_t transfer__rate_bytes(const struct transfer *transfer)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < RATE_SLOTS; i++)
        sum += transfer->rate.bytes[i];
    return sum;
}

uint64_t transfer__rate(struct transfer *transfer)
{
    rate_turn(transfer);
    const struct rate *rate = &transfer->rate;
    uint64_t sum = transfer__rate_bytes(transfer);
    uint64_t span_us = transfer->now_us - rate->started_us;
    if (span_us > RATE_SLOTS * RATE_SLOT_US)
        span_us = RATE_SLOTS * RATE_SLOT_US;
    return span_us == 0 ? 0 : sum * S / span_us;
}

void transfer__rate_asked(struct transfer *transfer)
{
    if (transfer->inflight == 0 && transfer->fetch_count == 0)
        transfer->rate.asked_us = transfer->now_us;
}

void transfer__rate_add(struct transfer *transfer, uint64_t bytes)
{
    struct rate *rate = &transfer->rate;
    rate_turn(transfer);
    uint64_t before = transfer__rate(transfer);
    if (before == 0)
        rate->started_us = rate->asked_us; /* idle until then */
    rate->bytes[rate->slot % RATE_SLOTS] += bytes;
    uint64_t now = transfer__rate(transfer);
    /* A burst after a pause is no rate. */
    bool settled = transfer->now_us - rate->started_us > RATE_SETTLED_US;
    if (settled && now > rate->best)
        rate->best = now;
}

uint64_t transfer__rate_best(const struct transfer *transfer)
{
    return transfer->rate.best;
}

uint32_t transfer__mean(uint32_t mean, uint64_t value)
{
    uint64_t capped = value > UINT32_MAX / 2 ? UINT32_MAX / 2 : value;
    if (mean == 0)
        return (uint32_t)(capped == 0 ? 1 : capped);
    uint64_t next = ((uint64_t)mean * 7 + capped) / 8;
    return (uint32_t)(next == 0 ? 1 : next);
}
