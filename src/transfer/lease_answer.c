/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What keepers answer to our questions, and what referrals lead to: imports from holders in other
 * zones. Every answer may come twice, late or never (ALGORITHMS §3.3).
 */
#include "have.h"
#include "lease.h"

/* Useless referrals of one keeper in a row before the next is asked. */
#define REFUSALS_MAX   8
#define PENDING_MAX_MS 5000
/* A holder with too much to do is asked again after this, at least. */
#define IMPORT_AGAIN_US     (50 * MS)
#define IMPORT_AGAIN_MAX_US (1 * S)

/* ---- answers ---- */

static void granted(struct transfer *transfer, struct lease *lease)
{
    transfer__lease_move(lease, LEASE_GRANTED);
    lease->granted_us = transfer->now_us;
    transfer__lease_mark(lease, true);
    transfer->lease_pending_runs = 0;
    transfer__touch(transfer);
}

/* The lease an answer is about; NULL if there is none that still waits. */
static struct lease *lease_of(const struct transfer *transfer, const struct wire_lease *answer,
                              struct blob **blob)
{
    *blob = transfer__blob_by_key(transfer, &answer->blob);
    if (*blob == NULL || (*blob)->swarm == NULL || answer->segment >= (*blob)->layout.segment_count)
        return NULL;
    return transfer__lease_find(transfer, *blob, answer->segment);
}

/* A grant nobody waits for is given back at once, so that it need not run out. */
static void refuse_grant(struct transfer *transfer, uint16_t from, const struct wire_lease *answer)
{
    struct wire_lease back = *answer;
    back.flags = answer->flags & WIRE_LEASE_COPIES;
    back.arg = 0;
    if ((back.flags & WIRE_LEASE_COPIES_ZONE) == 0)
        back.zone = transfer__zone_id(transfer, transfer__zone_of(transfer, NODE_SELF));
    transfer__send_lease(transfer, from, WIRE_TRANSFER_RETURN, &back);
}

/* The zone keeper's first word to the first question is a round trip; what the home keeper says may
 * have come by way of it. */
static void note_answer(struct transfer *transfer, const struct lease *lease, uint16_t from,
                        const struct wire_lease *answer)
{
    if (lease->state == LEASE_ASKING && answer->level == WIRE_LEVEL_ZONE &&
        from == lease->zone_keeper)
        transfer__rtt_note(transfer, from, lease->rank_us, lease->tries == 1);
}

void transfer__on_grant(struct transfer *transfer, uint16_t from, const struct wire_lease *answer)
{
    struct blob *blob;
    struct lease *lease = lease_of(transfer, answer, &blob);
    if (lease == NULL) {
        refuse_grant(transfer, from, answer);
        return;
    }
    note_answer(transfer, lease, from, answer);
    if (answer->level == WIRE_LEVEL_ZONE) {
        lease->zone_keeper = from;
        lease->zone_epoch = answer->epoch;
        if (lease->state != LEASE_ASKING)
            return;
        if (lease->copies == TRANSFER_COPIES_ZONE) {
            granted(transfer, lease); /* by a keeper that asks for more than we need */
            return;
        }
        transfer__lease_move(lease, LEASE_HOME);
        lease->rank_us = transfer->now_us;
        /* The zone keeper has asked for us. */
        lease->due_us = transfer->now_us + transfer__rto_us(transfer, from, RETRY_US);
        return;
    }
    if (!lease_is_asked(lease))
        return;
    lease->home_keeper = from;
    lease->home_epoch = answer->epoch;
    if (answer->zone_epoch != 0)
        lease->zone_epoch = answer->zone_epoch;
    lease->holder = NODE_NONE;
    granted(transfer, lease);
}

void transfer__on_pending(struct transfer *transfer, uint16_t from, const struct wire_lease *answer)
{
    struct blob *blob;
    struct lease *lease = lease_of(transfer, answer, &blob);
    if (lease == NULL || !lease_is_asked(lease))
        return;
    note_answer(transfer, lease, from, answer);
    uint32_t wait_ms = answer->arg < PENDING_MIN_MS ? PENDING_MIN_MS : answer->arg;
    wait_ms = wait_ms > PENDING_MAX_MS ? PENDING_MAX_MS : wait_ms;
    blob->swarm->crowd_us = blob->swarm->pending_us = transfer->now_us;
    if ((answer->flags & WIRE_LEASE_MOVES) != 0)
        blob->swarm->moves_us = transfer->now_us;
    if (answer->level == WIRE_LEVEL_HOME) {
        if (answer->zone_epoch != 0)
            lease->zone_epoch = answer->zone_epoch;
        if (lease->copies == TRANSFER_COPIES_ZONE) {
            granted(transfer, lease); /* as in on_grant: what other zones do is nothing to us */
            return;
        }
        lease->home_keeper = from;
        if (lease->state != LEASE_WAITING)
            transfer__lease_move(lease, LEASE_WAITING);
        lease->due_us = transfer->now_us + wait_ms * MS;
        return;
    }
    if (lease->state != LEASE_ASKING)
        return;
    blob->swarm->retry_ms[lease->segment] =
        transfer__lease_retry_ms(transfer, blob->swarm, wait_ms);
    if ((answer->flags & WIRE_LEASE_CONTACT) != 0) {
        uint16_t node = transfer__node_meet(transfer, &answer->contact.id, &answer->contact.addr);
        if (node != NODE_NONE)
            transfer__candidate(transfer, blob, node, blob->layout.segment_count <= 4);
    }
    transfer__lease_remove(transfer, lease);
    transfer__lease_contended(transfer, blob);
}

/* A keeper says who has a segment. Inside the zone it becomes a neighbour, and is asked directly
 * for what nobody else here has. */
static void referred(struct transfer *transfer, struct blob *blob, uint32_t segment,
                     uint16_t holder)
{
    struct swarm *swarm = blob->swarm;
    uint32_t first = segment_first(&blob->layout, segment);
    uint32_t end = first + segment_length(&blob->layout, segment);
    bool unseen = false;
    for (uint32_t piece = first; piece < end; piece++) {
        (void)bitfield_set(&swarm->injected, piece);
        transfer__neighbour_has(swarm, holder, piece);
        unseen = unseen || (bitfield_get(&swarm->open, piece) && swarm->avail[piece] == 0);
    }
    swarm->crowd_us = transfer->now_us;
    swarm->retry_ms[segment] = transfer__lease_retry_ms(transfer, swarm, 1000);
    transfer__candidate(transfer, blob, holder, true);
    /* What a neighbour would refuse waits until it takes it: refused, it would be left alone for a
     * while. */
    const struct peer *peer = transfer->nodes.slots[holder].peer;
    bool takes = transfer__neighbour(swarm, holder) == NULL || peer == NULL ||
                 peer->requests + (end - first) <= UPLOADS_PER_PEER;
    if (unseen && takes && swarm->readers > 0)
        (void)transfer__import(transfer, blob, segment, holder, 0);
}

/* The keeper names one that is known not to deliver: it is told so and asked again. One that goes
 * on naming such is no better: another keeper, then. */
static void refuse_referral(struct transfer *transfer, struct lease *lease,
                            const struct wire_lease *answer, uint16_t from, uint16_t holder)
{
    transfer__avoid(transfer, lease->blob->swarm, lease->segment, holder);
    if (answer->level == WIRE_LEVEL_HOME) {
        lease->home_keeper = from;
        if (answer->zone_epoch != 0)
            lease->zone_epoch = answer->zone_epoch;
        if (lease->state != LEASE_HOME)
            transfer__lease_move(lease, LEASE_HOME);
    } else if (lease->state != LEASE_ASKING) {
        return; /* a late answer: the zone's lease is ours by now */
    }
    lease->refusals++;
    if (lease->refusals % REFUSALS_MAX == 0) {
        uint8_t *rank = lease->state == LEASE_ASKING ? &lease->zone_rank : &lease->home_rank;
        *rank = (uint8_t)((*rank + 1) % KEEPERS);
        lease->tries = 0;
        lease->due_us = transfer->now_us + RETRY_US;
        return;
    }
    transfer__lease_want(transfer, lease);
}

void transfer__on_refer(struct transfer *transfer, uint16_t from, const struct wire_lease *answer)
{
    struct blob *blob;
    struct lease *lease = lease_of(transfer, answer, &blob);
    if (blob == NULL || blob->swarm == NULL || answer->segment >= blob->layout.segment_count ||
        (answer->flags & WIRE_LEASE_CONTACT) == 0)
        return;
    uint16_t holder = transfer__node_meet(transfer, &answer->contact.id, &answer->contact.addr);
    if (holder == NODE_NONE || holder == NODE_SELF)
        return;
    bool in_reach = transfer__in_reach(transfer, blob, holder);
    if (lease != NULL && lease_is_asked(lease) && answer->level == WIRE_LEVEL_HOME && !in_reach) {
        granted(transfer, lease); /* as in on_grant */
        return;
    }
    if (!in_reach || transfer__avoids(transfer, blob->swarm, answer->segment, holder)) {
        if (lease != NULL && lease_is_asked(lease))
            refuse_referral(transfer, lease, answer, from, holder);
        return;
    }
    if (answer->level == WIRE_LEVEL_ZONE) {
        if (lease != NULL && lease->state != LEASE_ASKING)
            return;
        if (lease != NULL)
            transfer__lease_remove(transfer, lease);
        referred(transfer, blob, answer->segment, holder);
        return;
    }
    if (lease == NULL || !lease_is_asked(lease))
        return;
    blob->swarm->crowd_us = transfer->now_us;
    lease->home_keeper = from;
    lease->home_epoch = answer->epoch;
    if (answer->zone_epoch != 0)
        lease->zone_epoch = answer->zone_epoch;
    granted(transfer, lease);
    lease->holder = holder;
}

void transfer__on_held(struct transfer *transfer, uint16_t from, const struct wire_lease *answer)
{
    (void)from;
    struct blob *blob;
    struct lease *lease = lease_of(transfer, answer, &blob);
    if (lease == NULL || lease->state != LEASE_HELD)
        return;
    if (answer->level == WIRE_LEVEL_ZONE)
        lease->zone_told = true;
    else
        lease->home_told = true;
    if (lease->zone_told && lease->home_told)
        transfer__lease_remove(transfer, lease);
}

/* ---- imports ---- */

void transfer__import_failed(struct transfer *transfer, struct blob *blob, uint32_t piece,
                             uint16_t node)
{
    struct swarm *swarm = blob->swarm;
    if (swarm == NULL)
        return;
    uint32_t segment = segment_of(&blob->layout, piece);
    struct lease *lease = transfer__lease_find(transfer, blob, segment);
    if (lease == NULL || lease->state != LEASE_IMPORTING || lease->holder != node) {
        /* A referral inside the zone came to nothing: the keeper hears of it with the next WANT. */
        if (lease == NULL && swarm->avail[piece] == 0 && !bitfield_get(&blob->have, piece)) {
            transfer__avoid(transfer, swarm, segment, node);
            (void)bitfield_clear(&swarm->injected, piece);
            swarm->retry_ms[segment] = transfer__lease_retry_ms(transfer, swarm, 0);
        }
        return;
    }
    if (lease->by_record) {
        /* A provider record named it, not the home keeper: another one, or the origin. */
        transfer__remote_remove(blob->swarm, node);
        lease->by_record = false;
        lease->holder = NODE_NONE;
        transfer__lease_move(lease, LEASE_GRANTED);
        transfer__touch(transfer);
        return;
    }
    transfer__lease_mark(lease, false);
    transfer__lease_move(lease, LEASE_HOME);
    if (node != NODE_NONE)
        transfer__avoid(transfer, swarm, segment, node);
    lease->home_rank = 0;
    lease->rank_us = transfer->now_us;
    transfer__lease_want(transfer, lease);
}

void transfer__import_later(struct transfer *transfer, struct blob *blob, uint32_t piece,
                            uint32_t wait_us)
{
    uint32_t segment = segment_of(&blob->layout, piece);
    struct lease *lease = transfer__lease_find(transfer, blob, segment);
    wait_us = wait_us < IMPORT_AGAIN_US ? IMPORT_AGAIN_US : wait_us;
    wait_us = wait_us > IMPORT_AGAIN_MAX_US ? IMPORT_AGAIN_MAX_US : wait_us;
    if (lease == NULL && blob->swarm->avail[piece] == 0)
        blob->swarm->retry_ms[segment] =
            transfer__lease_retry_ms(transfer, blob->swarm, wait_us / MS);
    else if (lease != NULL && lease->state == LEASE_IMPORTING)
        lease->due_us = transfer->now_us + wait_us;
}
