/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The swarm of one blob: neighbours inside the zone, how they are found, greeted and left. Owns
 * HELLO, HAVE, RESYNC, BYE and PEERS; what is in the first two is in have.c.
 */
#include "have.h"
#include "lease.h"

#define HELLO_RETRY_US  (150 * MS) /* doubling */
#define HELLO_TRIES_MAX 4
#define HELLO_FIRST     8 /* neighbours asked on joining, +2 per grow_us (ALGORITHMS §3.4) */
/* The same for a brief blob, which is here before there are more: half of those asked have not
 * begun to pull. Large ones are slowed by it (100 nodes at 100 Mbit/s: p50 1.10, then 1.14). */
#define HELLO_FIRST_BRIEF 16
/* And where as much is in flight as ever: with 8 a node at 10 Gbit/s has neither enough to ask nor
 * enough who ask it for the first tenth of its pull. */
#define HELLO_FIRST_MANY 16
#define GROW_US          (100 * MS)
#define GROW_LEAST_US    (25 * MS) /* at 10 Gbit/s; see grow_us */
/* In a small mesh the same few would be greeted again and again before they pull. */
#define GROW_SMALL_US (500 * MS)
/* After this without filling up, random members are asked less often. */
#define GROW_EAGER_US (5 * S)
#define GROW_CALM_US  (2 * S)
/* HAVE unchanged, as a sign of life. */
#define HAVE_REFRESH_US (1 * S)
#define RESYNC_US       (200 * MS)
/* Others are thought interested so long after the last sign of it. */
#define CROWD_US (3 * S)
/* The side that was greeted leaves the connecting to the one that greeted, for so long. */
#define CONNECT_COURTESY_US (300 * MS)

struct neighbour *transfer__neighbour(struct swarm *swarm, uint16_t node)
{
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        if (swarm->neighbour_nodes[i] == node)
            return &swarm->neighbours[i];
    }
    return NULL;
}

/* ---- neighbours come and go ---- */

static void send_note(struct transfer *transfer, const struct blob_key *key, uint16_t node,
                      unsigned type, uint8_t arg)
{
    struct wire_transfer message = {.type = type};
    message.of.note = (struct wire_note){.blob = *key, .arg = arg};
    transfer__send(transfer, node, &message);
}

static struct neighbour *neighbour_add(struct transfer *transfer, struct blob *blob, uint16_t node)
{
    struct swarm *swarm = blob->swarm;
    struct peer *peer = transfer__peer(transfer, node);
    if (peer == NULL || swarm->neighbour_count == NEIGHBOURS_MAX)
        return NULL;
    struct neighbour *neighbour = &swarm->neighbours[swarm->neighbour_count];
    *neighbour = (struct neighbour){
        .peer = peer,
        .node = node,
        .state = NEIGHBOUR_ASKED,
        .tx_sequence = (uint32_t)prng_next(&transfer->prng),
        .heard_us = transfer->now_us,
    };
    if (bitfield_init(&neighbour->known, transfer->env, blob->layout.piece_count) != 0)
        return NULL;
    swarm->neighbour_nodes[swarm->neighbour_count++] = node;
    peer->neighbours++;
    return neighbour;
}

void transfer__neighbour_remove(struct transfer *transfer, struct blob *blob, uint16_t node)
{
    struct swarm *swarm = blob->swarm;
    struct neighbour *neighbour = transfer__neighbour(swarm, node);
    if (neighbour == NULL)
        return;
    transfer__neighbour_useful(swarm, neighbour, false);
    bitfield_close(&neighbour->known, transfer->env);
    *neighbour = swarm->neighbours[--swarm->neighbour_count];
    swarm->neighbour_nodes[neighbour - swarm->neighbours] = neighbour->node;
    struct peer *peer = transfer->nodes.slots[node].peer;
    ASSERT(peer != NULL && peer->neighbours > 0);
    peer->neighbours--;
    transfer__touch(transfer);
}

/* Leaves one neighbour; requests to it go elsewhere. */
static void part(struct transfer *transfer, struct blob *blob, uint16_t node,
                 enum wire_note_reason reason)
{
    send_note(transfer, &blob->info.key, node, WIRE_TRANSFER_BYE, (uint8_t)reason);
    transfer__requests_fail(transfer, blob, node);
    transfer__neighbour_remove(transfer, blob, node);
}

void transfer__swarm_leave(struct transfer *transfer, struct blob *blob,
                           enum wire_note_reason reason)
{
    while (blob->swarm->neighbour_count > 0)
        part(transfer, blob, blob->swarm->neighbours[0].node, reason);
    if (blob->swarm->announces > 0)
        transfer__announce(transfer, blob, true);
    blob->swarm->announces = 0;
}

bool transfer__is_distrusted(const struct swarm *swarm, uint16_t node)
{
    for (uint32_t i = 0; i < swarm->liar_count && i < LIARS_MAX; i++) {
        if (swarm->liars[i] == node)
            return true;
    }
    return false;
}

void transfer__neighbour_distrust(struct transfer *transfer, struct blob *blob, uint16_t node)
{
    struct swarm *swarm = blob->swarm;
    if (swarm == NULL)
        return;
    if (!transfer__is_distrusted(swarm, node))
        swarm->liars[swarm->liar_count++ % LIARS_MAX] = node;
    struct neighbour *neighbour = transfer__neighbour(swarm, node);
    if (neighbour != NULL) {
        transfer__neighbour_useful(swarm, neighbour, false);
        neighbour->barred = true;
    }
    transfer__remote_remove(swarm, node);
    transfer__requests_fail(transfer, blob, node);
}

/* It may ask us, but is not asked. */
static bool is_barred(const struct transfer *transfer, const struct blob *blob, uint16_t node)
{
    return transfer__is_distrusted(blob->swarm, node) || !transfer__in_reach(transfer, blob, node);
}

void transfer__reach_changed(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    for (uint32_t i = 0; swarm != NULL && i < swarm->neighbour_count; i++) {
        struct neighbour *neighbour = &swarm->neighbours[i];
        bool barred = is_barred(transfer, blob, neighbour->node);
        if (neighbour->state != NEIGHBOUR_UP || barred == neighbour->barred)
            continue;
        neighbour->barred = barred;
        transfer__neighbour_useful(swarm, neighbour,
                                   !barred && transfer__link_up(transfer, neighbour->node));
        if (barred)
            transfer__requests_fail(transfer, blob, neighbour->node);
    }
}

static void greet(struct transfer *transfer, struct blob *blob, uint16_t node, bool referred)
{
    struct neighbour *neighbour = neighbour_add(transfer, blob, node);
    if (neighbour == NULL)
        return;
    neighbour->initiated = true;
    neighbour->referred = referred;
    neighbour->greeted_us = neighbour->hello_us = transfer->now_us;
    neighbour->hello_tries = 1;
    transfer__have_send(transfer, blob, neighbour, referred ? WIRE_HAVE_REFERRED : 0, 0);
}

/* Neighbours asked on joining. */
static uint32_t hello_first(const struct transfer *transfer, const struct blob *blob)
{
    if (transfer__is_brief(transfer, blob))
        return HELLO_FIRST_BRIEF;
    return transfer__has_many_pieces(transfer) ? HELLO_FIRST_MANY : HELLO_FIRST;
}

static bool acceptable(struct transfer *transfer, struct blob *blob, uint16_t node)
{
    return transfer__node_usable(transfer, node) && !transfer__is_silent(transfer, node) &&
           transfer__neighbour(blob->swarm, node) == NULL && !is_barred(transfer, blob, node);
}

void transfer__candidate(struct transfer *transfer, struct blob *blob, uint16_t node, bool referred)
{
    struct swarm *swarm = blob->swarm;
    if (!acceptable(transfer, blob, node))
        return;
    if (referred && swarm->neighbour_count < NEIGHBOURS_MAX) {
        greet(transfer, blob, node, true);
        return;
    }
    for (uint32_t i = 0; i < swarm->candidate_count; i++) {
        if (swarm->candidates[i] == node)
            return;
    }
    if (swarm->candidate_count < CANDIDATES_MAX)
        swarm->candidates[swarm->candidate_count++] = node;
    if (swarm->neighbour_count < hello_first(transfer, blob))
        swarm->grow_due_us = transfer->now_us;
}

/* A random candidate that is still of use; NODE_NONE if there is none. */
static uint16_t take_candidate(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    while (swarm->candidate_count > 0) {
        uint32_t at = (uint32_t)prng_below(&transfer->prng, swarm->candidate_count);
        uint16_t node = swarm->candidates[at];
        swarm->candidates[at] = swarm->candidates[--swarm->candidate_count];
        if (acceptable(transfer, blob, node))
            return node;
    }
    return NODE_NONE;
}

/* Time between two steps of growing. Where pieces come soon a pull is over soon, too. */
static uint64_t grow_us(const struct transfer *transfer, const struct swarm *swarm)
{
    if (transfer->nodes.live < MESH_SMALL_MEMBERS)
        return GROW_SMALL_US;
    if (swarm->piece_us == 0 || swarm->piece_us > GROW_US)
        return GROW_US;
    return swarm->piece_us < GROW_LEAST_US ? GROW_LEAST_US : swarm->piece_us;
}

/* Half of the new neighbours come from the list, half are random members: the list alone mixes
 * badly, members alone find nobody in a sparse swarm (ALGORITHMS §3.4). */
static void grow(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    uint64_t age_us = transfer->now_us - swarm->started_us;
    uint32_t first = hello_first(transfer, blob);
    uint64_t target = first + 2 * (age_us / grow_us(transfer, swarm));
    if (target > transfer->config.neighbours)
        target = transfer->config.neighbours;
    uint32_t zone = transfer__zone_of(transfer, NODE_SELF);
    for (unsigned tries = 0; swarm->neighbour_count < target && tries < 3 * first; tries++) {
        uint16_t node = NODE_NONE;
        if (tries % 2 == 0)
            node = take_candidate(transfer, blob);
        if (node == NODE_NONE)
            node = transfer__random_member(transfer, zone);
        if (node != NODE_NONE && acceptable(transfer, blob, node))
            greet(transfer, blob, node, false);
    }
    swarm->grow_due_us =
        transfer->now_us + (age_us < GROW_EAGER_US ? grow_us(transfer, swarm) : GROW_CALM_US);
}

/* A HELLO without an answer: again, or given up. True if the neighbour is gone. */
static bool hello_tick(struct transfer *transfer, struct blob *blob, struct neighbour *neighbour)
{
    uint64_t wait_us = transfer__rto_us(transfer, neighbour->node, HELLO_RETRY_US)
                       << (neighbour->hello_tries - 1);
    if (transfer->now_us - neighbour->hello_us < wait_us)
        return false;
    if (neighbour->hello_tries == HELLO_TRIES_MAX) {
        uint16_t node = neighbour->node;
        transfer__silent(transfer, node);
        transfer__neighbour_remove(transfer, blob, node);
        return true;
    }
    neighbour->hello_tries++;
    neighbour->hello_us = transfer->now_us;
    transfer__have_send(transfer, blob, neighbour, neighbour->referred ? WIRE_HAVE_REFERRED : 0, 0);
    return false;
}

static bool nothing_to_exchange(const struct blob *blob, const struct neighbour *neighbour)
{
    const struct swarm *swarm = blob->swarm;
    bool we_want = swarm->readers > 0 && !bitfield_full(&blob->have);
    bool they_want = neighbour->wants && blob->have.set_count > 0;
    return !(we_want || they_want);
}

void transfer__neighbours_linked(struct transfer *transfer, uint16_t node, bool up)
{
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        struct neighbour *neighbour = transfer__neighbour(blob->swarm, node);
        if (neighbour == NULL || neighbour->state != NEIGHBOUR_UP)
            continue;
        transfer__neighbour_useful(blob->swarm, neighbour, up && !neighbour->barred);
    }
}

/* True if the neighbour is gone. */
static bool neighbour_tick(struct transfer *transfer, struct blob *blob,
                           struct neighbour *neighbour)
{
    uint64_t now_us = transfer->now_us;
    if (neighbour->state == NEIGHBOUR_ASKED)
        return hello_tick(transfer, blob, neighbour);
    if (now_us - neighbour->heard_us > NEIGHBOUR_QUIET_US) {
        uint16_t node = neighbour->node;
        transfer__silent(transfer, node);
        part(transfer, blob, node, WIRE_BYE_DONE);
        return true;
    }
    if (nothing_to_exchange(blob, neighbour) && now_us - neighbour->heard_us < HAVE_REFRESH_US &&
        now_us - neighbour->hello_us > 2 * (uint64_t)HAVE_REFRESH_US) {
        part(transfer, blob, neighbour->node, WIRE_BYE_DONE);
        return true;
    }
    if (now_us - neighbour->sent_us > HAVE_REFRESH_US)
        transfer__have_send(transfer, blob, neighbour, 0,
                            blob->swarm->tick % transfer__have_pages(blob));
    return false;
}

static void announce_tick(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    if (swarm->readers == 0 || swarm->announce_due_us > transfer->now_us)
        return;
    transfer__announce(transfer, blob, false);
    uint32_t shift = swarm->announces < 6 ? swarm->announces : 6;
    swarm->announces++;
    uint64_t wait_us = (uint64_t)(250 * MS) << shift;
    swarm->announce_due_us = transfer->now_us + (wait_us > 10 * S ? 10 * S : wait_us);
}

void transfer__swarm_tick(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    swarm->tick++;
    transfer__far_update(transfer, swarm);
    announce_tick(transfer, blob);
    for (uint32_t i = 0; i < swarm->neighbour_count;) {
        if (!neighbour_tick(transfer, blob, &swarm->neighbours[i]))
            i++;
    }
    bool wants = swarm->readers > 0 && !bitfield_full(&blob->have);
    if (wants && swarm->grow_due_us <= transfer->now_us && !transfer->draining)
        grow(transfer, blob);
}

/* ---- what the swarm is like ---- */

bool transfer__crowd(struct transfer *transfer, const struct blob *blob)
{
    const struct swarm *swarm = blob->swarm;
    if (transfer__live(transfer) <= 1)
        return false;
    if (swarm->crowd_us != 0 && transfer->now_us - swarm->crowd_us < CROWD_US)
        return true;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        if (swarm->neighbours[i].state == NEIGHBOUR_UP && swarm->neighbours[i].wants)
            return true;
    }
    return false;
}

static uint32_t mean_of(uint64_t sum, uint32_t count)
{
    return count == 0 ? 0 : (uint32_t)(sum / count);
}

uint32_t transfer__mesh_lease_us(const struct swarm *swarm)
{
    uint64_t sum = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        sum += swarm->neighbours[i].lease_us;
        count += swarm->neighbours[i].lease_us != 0;
    }
    return mean_of(sum, count);
}

uint32_t transfer__mesh_took_us(const struct swarm *swarm)
{
    uint64_t sum = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        sum += swarm->neighbours[i].took_us;
        count += swarm->neighbours[i].took_us != 0;
    }
    return mean_of(sum, count);
}

uint32_t transfer__mesh_fallbacks(const struct swarm *swarm)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++)
        sum += swarm->neighbours[i].fallbacks;
    return sum;
}

/* ---- messages ---- */

/* Two nodes that greet each other at once: the smaller id connects. */
static uint64_t connect_delay_us(const struct transfer *transfer, const struct neighbour *neighbour,
                                 bool they_initiated)
{
    if (!neighbour->initiated)
        return CONNECT_COURTESY_US;
    if (!they_initiated)
        return 0;
    const struct node_id *theirs = &transfer->nodes.slots[neighbour->node].id;
    return node_id_compare(&transfer->config.self_id, theirs) < 0 ? 0 : CONNECT_COURTESY_US;
}

static void neighbour_up(struct transfer *transfer, struct blob *blob, struct neighbour *neighbour,
                         bool they_initiated)
{
    if (neighbour->state == NEIGHBOUR_UP)
        return;
    neighbour->state = NEIGHBOUR_UP;
    transfer__avoid_no_more(blob->swarm, neighbour->node);
    neighbour->hello_us = transfer->now_us;
    neighbour->barred = is_barred(transfer, blob, neighbour->node);
    transfer__neighbour_useful(blob->swarm, neighbour, !neighbour->barred);
    transfer__link_want(transfer, neighbour->node,
                        connect_delay_us(transfer, neighbour, they_initiated));
}

/* Why a HELLO is refused; 0: it is not. */
static uint8_t refuse(struct transfer *transfer, uint16_t from, struct blob *blob,
                      const struct wire_have *have)
{
    if (blob == NULL)
        return WIRE_BYE_UNKNOWN_BLOB;
    uint8_t proof[DIGEST_PROOF_BYTES];
    digest_proof(&blob->info.digest, &transfer->nodes.slots[from].id, &transfer->config.self_id,
                 proof);
    if (memcmp(proof, have->proof, sizeof proof) != 0) { /* ACL-9 */
        transfer->stats.rejected++;
        return WIRE_BYE_REFUSED;
    }
    if (transfer__node_lied(transfer, &transfer->nodes.slots[from].id))
        return WIRE_BYE_REFUSED;
    if (transfer->draining)
        return WIRE_BYE_LEAVING;
    bool idle = blob->swarm == NULL || blob->swarm->readers == 0;
    return idle && blob->have.set_count == 0 ? WIRE_BYE_UNKNOWN_BLOB : 0;
}

/* The neighbour record for a HELLO; NULL if there are enough. */
static struct neighbour *welcome(struct transfer *transfer, struct blob *blob, uint16_t from,
                                 const struct wire_have *have)
{
    struct swarm *swarm = transfer__swarm(transfer, blob);
    if (swarm == NULL)
        return NULL;
    struct neighbour *neighbour = transfer__neighbour(swarm, from);
    bool referred = (have->flags & WIRE_HAVE_REFERRED) != 0;
    bool unasked_reply = (have->flags & WIRE_HAVE_REPLY) != 0 && neighbour == NULL;
    if (unasked_reply)
        return NULL;
    if (neighbour != NULL)
        return neighbour;
    if (swarm->neighbour_count >= (referred ? NEIGHBOURS_MAX : NEIGHBOURS_ACCEPT))
        return NULL;
    return neighbour_add(transfer, blob, from);
}

void transfer__on_hello(struct transfer *transfer, uint16_t from, const struct wire_have *have)
{
    struct blob *blob = transfer__blob_by_key(transfer, &have->blob);
    uint8_t reason = refuse(transfer, from, blob, have);
    struct neighbour *neighbour = NULL;
    if (reason == 0)
        neighbour = welcome(transfer, blob, from, have);
    if (neighbour == NULL) {
        if (reason != 0 && blob != NULL && blob->swarm != NULL &&
            transfer__neighbour(blob->swarm, from) != NULL)
            part(transfer, blob, from, reason);
        else
            send_note(transfer, &have->blob, from, WIRE_TRANSFER_BYE,
                      reason == 0 ? WIRE_BYE_FULL : reason);
        if (blob != NULL)
            transfer__swarm_retire(transfer, blob);
        return;
    }
    bool reply = (have->flags & WIRE_HAVE_REPLY) != 0;
    bool known = neighbour->state == NEIGHBOUR_UP;
    int32_t newer = (int32_t)(have->sequence - neighbour->rx_sequence);
    if (reply && !known)
        transfer__rtt_note(transfer, from, neighbour->greeted_us, neighbour->hello_tries == 1);
    neighbour_up(transfer, blob, neighbour, !reply);
    /* A repeat that comes after later news must not undo it. */
    if (!known || newer > 0 || newer < -64) {
        transfer__have_take(transfer, blob, neighbour, have);
    }
    if (!reply)
        transfer__have_send(transfer, blob, neighbour, WIRE_HAVE_REPLY, 0);
    if (!known)
        transfer__have_send_pages(transfer, blob, neighbour, 1);
    transfer__lease_neighbour(transfer, blob);
    transfer__touch(transfer);
}

void transfer__on_have(struct transfer *transfer, uint16_t from, const struct wire_have *have)
{
    struct blob *blob = transfer__blob_by_key(transfer, &have->blob);
    struct neighbour *neighbour = NULL;
    if (blob != NULL && blob->swarm != NULL)
        neighbour = transfer__neighbour(blob->swarm, from);
    if (neighbour == NULL || neighbour->state != NEIGHBOUR_UP) {
        /* We forgot it (restart, long silence): let it greet anew. */
        if (neighbour == NULL)
            send_note(transfer, &have->blob, from, WIRE_TRANSFER_BYE, WIRE_BYE_UNKNOWN_BLOB);
        return;
    }
    int32_t newer = (int32_t)(have->sequence - neighbour->rx_sequence);
    if (newer <= 0)
        return;
    bool gap = newer > 1 && transfer__have_pages(blob) > 1;
    if (gap && transfer->now_us - neighbour->resync_us > RESYNC_US) {
        neighbour->resync_us = transfer->now_us;
        send_note(transfer, &blob->info.key, from, WIRE_TRANSFER_RESYNC, 0);
    }
    transfer__have_take(transfer, blob, neighbour, have);
    transfer__touch(transfer);
}

void transfer__on_resync(struct transfer *transfer, uint16_t from, const struct wire_note *note)
{
    struct blob *blob = transfer__blob_by_key(transfer, &note->blob);
    if (blob == NULL || blob->swarm == NULL)
        return;
    struct neighbour *neighbour = transfer__neighbour(blob->swarm, from);
    if (neighbour == NULL || neighbour->state != NEIGHBOUR_UP ||
        transfer->now_us - neighbour->sent_us < HAVE_MIN_US)
        return;
    transfer__have_send_pages(transfer, blob, neighbour, 0);
}

void transfer__on_bye(struct transfer *transfer, uint16_t from, const struct wire_note *note)
{
    struct blob *blob = transfer__blob_by_key(transfer, &note->blob);
    if (blob == NULL || blob->swarm == NULL)
        return;
    const struct neighbour *neighbour = transfer__neighbour(blob->swarm, from);
    if (neighbour == NULL)
        return;
    /* Of a member that was greeted at random it says nothing: most have not begun to pull yet. */
    if (neighbour->state == NEIGHBOUR_ASKED && neighbour->referred &&
        note->arg == WIRE_BYE_UNKNOWN_BLOB)
        transfer__avoid(transfer, blob->swarm, AVOID_WHOLE, from);
    transfer__requests_fail(transfer, blob, from);
    transfer__neighbour_remove(transfer, blob, from);
    transfer__lease_neighbour(transfer, blob);
    transfer__swarm_retire(transfer, blob);
}

void transfer__on_peers(struct transfer *transfer, uint16_t from, const struct wire_peers *peers)
{
    (void)from;
    struct blob *blob = transfer__blob_by_key(transfer, &peers->blob);
    if (blob == NULL || blob->swarm == NULL || blob->swarm->readers == 0)
        return;
    blob->swarm->peers_known = true;
    if (peers->others > 0)
        blob->swarm->crowd_us = transfer->now_us;
    for (uint32_t i = 0; i < peers->contact_count; i++) {
        const struct wire_contact *contact = &peers->contacts[i];
        uint16_t node = transfer__node_meet(transfer, &contact->id, &contact->addr);
        if (node != NODE_NONE)
            transfer__candidate(transfer, blob, node, false);
    }
    transfer__touch(transfer);
}
