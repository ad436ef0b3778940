/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our leases: asking keepers for the right to bring a segment in, and what their answers lead to.
 * Everything is repeated until answered; every answer may come twice, late or never. A keeper that
 * does not answer in lease_timeout is passed over for the next (rule 5 of ALGORITHMS §3.3); when
 * none of them answers in fallback_us the origin is read without a lease (rule 8).
 */
#include "lease.h"

#define RETRY_US       (100 * MS) /* then 150 ms */
#define RENEW_US       (250 * MS)
#define HOLD_TRIES_MAX 6
/* Useless referrals of one keeper in a row before the next is asked. */
#define REFUSALS_MAX 8
/* A segment another is at is not asked for again before the keeper said; at least: */
#define PENDING_MIN_MS 50
#define PENDING_MAX_MS 5000
/* An import that does not move is given up. */
#define IMPORT_STALL_US (3 * S)
#define IMPORT_WAIT_US  (8 * S)
/* Nor do others wait longer for this node to hash and store what came: with a disk that takes
 * seconds it is not the one to bring segments in (D-14: 16 nodes took 6-9 s, 1.2-1.5 now). */
#define IMPORT_STORE_US (1 * S)
/* A holder with too much to do is asked again after this, at least. */
#define IMPORT_AGAIN_US     (50 * MS)
#define IMPORT_AGAIN_MAX_US (1 * S)
/* With a silent mesh, asking is a formality. */
#define QUIET_WAIT_US (5 * MS)
/* What was asked before it was thought silent: it may only be far away. With round trips of 300 ms
 * and no such grace 8 nodes read 1.38 copies instead of 1.19. */
#define QUIET_GRACE_US (120 * MS)
/* Origin failures of a segment before readers are told, if no peer has it. */
#define ORIGIN_FAILS_MAX    3
#define FAIL_RETRY_MS       500
#define ORIGIN_PAUSE_MAX_MS 60000u

/* ---- states ---- */

bool transfer__lease_move_allowed(enum lease_state from, enum lease_state to)
{
    static const uint16_t allowed[LEASE_STATE_COUNT] = {
        [LEASE_ASKING] = 1u << LEASE_HOME | 1u << LEASE_WAITING | 1u << LEASE_GRANTED |
                         1u << LEASE_IMPORTING | 1u << LEASE_HELD,
        [LEASE_HOME] =
            1u << LEASE_WAITING | 1u << LEASE_GRANTED | 1u << LEASE_IMPORTING | 1u << LEASE_HELD,
        [LEASE_WAITING] =
            1u << LEASE_HOME | 1u << LEASE_GRANTED | 1u << LEASE_IMPORTING | 1u << LEASE_HELD,
        [LEASE_GRANTED] = 1u << LEASE_FETCHING | 1u << LEASE_IMPORTING | 1u << LEASE_HELD,
        [LEASE_FETCHING] = 1u << LEASE_HELD,
        [LEASE_IMPORTING] = 1u << LEASE_HOME | 1u << LEASE_GRANTED | 1u << LEASE_HELD,
    };
    if (from < LEASE_ASKING || from >= LEASE_STATE_COUNT)
        return false;
    return (allowed[from] & (1u << to)) != 0;
}

void transfer__lease_move(struct lease *lease, enum lease_state state)
{
    ASSERT(transfer__lease_move_allowed(lease->state, state));
    lease->state = state;
    lease->tries = 0;
}

struct lease *transfer__lease_find(const struct transfer *transfer, const struct blob *blob,
                                   uint32_t segment)
{
    for (struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (lease->segment == segment && lease->blob == blob)
            return lease;
    }
    return NULL;
}

static struct lease *lease_add(struct transfer *transfer, struct blob *blob, uint32_t segment,
                               enum lease_state state)
{
    if (transfer->lease_count == LEASES_MAX)
        return NULL;
    struct lease *lease = transfer__zalloc(transfer, sizeof *lease);
    if (lease == NULL)
        return NULL;
    lease->blob = blob;
    lease->segment = segment;
    lease->state = state;
    lease->reason = FETCH_LEASE;
    lease->copies = blob->copies;
    lease->zone_keeper = lease->home_keeper = lease->holder = NODE_NONE;
    lease->asked_us = lease->rank_us = lease->granted_us = lease->renewed_us = transfer->now_us;
    lease->prev = transfer->leases_last;
    if (transfer->leases_last != NULL)
        transfer->leases_last->next = lease;
    else
        transfer->leases = lease;
    transfer->leases_last = lease;
    transfer->lease_count++;
    blob->swarm->leases++;
    return lease;
}

/* Pieces of a lease are not asked of others, but for those read for want of an answer: whoever
 * brings them first is welcome. */
static void mark_pieces(struct lease *lease, bool leased)
{
    struct blob *blob = lease->blob;
    leased = leased && lease->reason != FETCH_NO_KEEPER && lease->reason != FETCH_NO_PROGRESS;
    uint32_t first = segment_first(&blob->layout, lease->segment);
    uint32_t end = first + segment_length(&blob->layout, lease->segment);
    for (uint32_t piece = first; piece < end; piece++) {
        uint8_t *flags = &blob->swarm->flags[piece];
        *flags = leased ? *flags | PIECE_LEASED : *flags & (uint8_t)~PIECE_LEASED;
        transfer__piece_settle(blob, piece);
    }
}

static void lease_remove(struct transfer *transfer, struct lease *lease)
{
    mark_pieces(lease, false);
    if (lease->prev != NULL)
        lease->prev->next = lease->next;
    else
        transfer->leases = lease->next;
    if (lease->next != NULL)
        lease->next->prev = lease->prev;
    else
        transfer->leases_last = lease->prev;
    ASSERT(transfer->lease_count > 0 && lease->blob->swarm->leases > 0);
    transfer->lease_count--;
    lease->blob->swarm->leases--;
    transfer__release(transfer, lease);
    transfer__touch(transfer);
}

/* ---- messages ---- */

void transfer__send_lease(struct transfer *transfer, uint16_t to, unsigned type,
                          const struct wire_lease *lease)
{
    if (to == NODE_NONE)
        return;
    struct wire_transfer message;
    message.type = type;
    message.of.lease = *lease;
    transfer__send(transfer, to, &message);
}

enum transfer_copies transfer__lease_copies(const struct transfer *transfer,
                                            const struct wire_lease *lease)
{
    unsigned said = lease->flags & WIRE_LEASE_COPIES;
    if (said == WIRE_LEASE_COPIES_ZONE)
        return TRANSFER_COPIES_ZONE;
    return said == WIRE_LEASE_COPIES_MESH ? TRANSFER_COPIES_MESH : transfer->config.copies;
}

bool transfer__lease_is_apart(const struct transfer *transfer, const struct wire_lease *lease)
{
    return transfer->config.copies == TRANSFER_COPIES_MESH &&
           transfer__lease_copies(transfer, lease) == TRANSFER_COPIES_ZONE;
}

/* Said only where it differs from what keepers take for granted. */
static uint8_t copies_flags(const struct transfer *transfer, const struct lease *lease)
{
    if (lease->copies == transfer->config.copies)
        return 0;
    return lease->copies == TRANSFER_COPIES_ZONE ? WIRE_LEASE_COPIES_ZONE : WIRE_LEASE_COPIES_MESH;
}

/* The zone that a lease is for. */
static uint64_t zone_id_of(struct transfer *transfer, const struct lease *lease)
{
    if ((copies_flags(transfer, lease) & WIRE_LEASE_COPIES_ZONE) != 0)
        return transfer__label_zone_id(transfer);
    return transfer__zone_id(transfer, transfer__zone_of(transfer, NODE_SELF));
}

static struct wire_lease about(struct transfer *transfer, const struct lease *lease, uint8_t level)
{
    return (struct wire_lease){
        .blob = lease->blob->info.key,
        .segment = lease->segment,
        .level = level,
        .flags = copies_flags(transfer, lease),
        .zone = zone_id_of(transfer, lease),
        .epoch = level == WIRE_LEVEL_ZONE ? lease->zone_epoch : lease->home_epoch,
        .zone_epoch = lease->zone_epoch,
    };
}

/* Keeper of `rank` for a lease at a level; NODE_NONE if there are none at all. */
static uint16_t keeper_of(struct transfer *transfer, const struct lease *lease, uint8_t level,
                          uint8_t rank)
{
    uint8_t key[32];
    uint16_t keepers[KEEPERS];
    segment_key_of(&lease->blob->info.key, lease->segment, key);
    uint32_t zone = level == WIRE_LEVEL_ZONE ? transfer__zone_of(transfer, NODE_SELF)
                                             : transfer__home_zone(transfer, key);
    uint32_t count = transfer__keepers(transfer, zone, key, keepers);
    return count == 0 ? NODE_NONE : keepers[rank % count];
}

static void send_want(struct transfer *transfer, struct lease *lease)
{
    uint8_t level = lease->state == LEASE_ASKING ? WIRE_LEVEL_ZONE : WIRE_LEVEL_HOME;
    uint16_t *keeper = level == WIRE_LEVEL_ZONE ? &lease->zone_keeper : &lease->home_keeper;
    uint8_t rank = level == WIRE_LEVEL_ZONE ? lease->zone_rank : lease->home_rank;
    if (lease->tries == 0)
        *keeper = keeper_of(transfer, lease, level, rank);
    struct wire_lease want = about(transfer, lease, level);
    want.epoch = 0;
    want.arg = rank;
    uint16_t avoid = transfer__avoided(transfer, lease->blob->swarm, lease->segment);
    if (avoid != NODE_NONE) {
        want.flags |= WIRE_LEASE_AVOID | WIRE_LEASE_CONTACT;
        want.contact = transfer__node_contact(transfer, avoid);
    }
    lease->due_us = transfer->now_us + RETRY_US + (lease->tries > 0 ? RETRY_US / 2 : 0);
    lease->tries++;
    transfer__send_lease(transfer, *keeper, WIRE_TRANSFER_WANT, &want);
}

static void send_hold(struct transfer *transfer, struct lease *lease)
{
    struct wire_lease zone = about(transfer, lease, WIRE_LEVEL_ZONE);
    struct wire_lease home = about(transfer, lease, WIRE_LEVEL_HOME);
    lease->zone_told = lease->zone_told || lease->zone_keeper == NODE_NONE;
    lease->home_told = lease->home_told || lease->home_keeper == NODE_NONE;
    if (!lease->zone_told)
        transfer__send_lease(transfer, lease->zone_keeper, WIRE_TRANSFER_HOLD, &zone);
    if (!lease->home_told)
        transfer__send_lease(transfer, lease->home_keeper, WIRE_TRANSFER_HOLD, &home);
    lease->due_us = transfer->now_us + (RETRY_US << lease->tries);
    lease->tries++;
}

/* ---- asking ---- */

bool transfer__lease_take(struct transfer *transfer, struct blob *blob, uint32_t segment,
                          enum fetch_reason reason)
{
    struct lease *lease = transfer__lease_find(transfer, blob, segment);
    if (lease != NULL && lease->state == LEASE_HELD) {
        lease_remove(transfer, lease); /* held no more, if it is to be read */
        lease = NULL;
    }
    if (lease != NULL && lease->state > LEASE_WAITING)
        return false;
    if (lease != NULL) {
        transfer__lease_move(lease, LEASE_GRANTED);
    } else {
        lease = lease_add(transfer, blob, segment, LEASE_GRANTED);
        if (lease == NULL)
            return false;
        lease->keeperless = true;
    }
    lease->reason = reason;
    lease->holder = NODE_NONE;
    lease->by_record = false;
    lease->granted_us = transfer->now_us;
    mark_pieces(lease, true);
    transfer__touch(transfer);
    return true;
}

bool transfer__lease_ask(struct transfer *transfer, struct blob *blob, uint32_t segment)
{
    if (transfer->draining || transfer__live(transfer) <= 1)
        return transfer__lease_take(transfer, blob, segment, FETCH_ALONE);
    struct lease *lease = lease_add(transfer, blob, segment, LEASE_ASKING);
    if (lease == NULL)
        return false;
    uint64_t jitter_us = prng_below(&transfer->prng, transfer->config.fallback_us / 4 + 1);
    lease->give_up_us = transfer->now_us + transfer->config.fallback_us + jitter_us;
    send_want(transfer, lease);
    return true;
}

/* ---- the end of a lease ---- */

/* Tells those who granted it and do not know better yet. */
static void return_to_keepers(struct transfer *transfer, const struct lease *lease,
                              uint32_t pause_ms)
{
    struct wire_lease zone = about(transfer, lease, WIRE_LEVEL_ZONE);
    struct wire_lease home = about(transfer, lease, WIRE_LEVEL_HOME);
    zone.arg = home.arg = pause_ms;
    if (lease->home_epoch != 0 && !lease->home_told)
        transfer__send_lease(transfer, lease->home_keeper, WIRE_TRANSFER_RETURN, &home);
    if (lease->zone_epoch != 0 && !lease->zone_told)
        transfer__send_lease(transfer, lease->zone_keeper, WIRE_TRANSFER_RETURN, &zone);
}

void transfer__lease_drop(struct transfer *transfer, struct lease *lease, uint32_t pause_ms)
{
    if (lease->state != LEASE_HELD)
        return_to_keepers(transfer, lease, pause_ms);
    lease_remove(transfer, lease);
}

static uint32_t retry_ms(const struct transfer *transfer, const struct swarm *swarm, uint64_t ms)
{
    uint64_t at_ms = (transfer->now_us - swarm->started_us) / MS + ms;
    return at_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)at_ms;
}

/* Readers learn of a segment that neither origin nor peers give. */
static void give_up_segment(struct transfer *transfer, struct blob *blob, uint32_t segment)
{
    uint32_t first = segment_first(&blob->layout, segment);
    uint32_t end = first + segment_length(&blob->layout, segment);
    for (uint32_t piece = first; piece < end; piece++) {
        if (bitfield_get(&blob->swarm->open, piece) && blob->swarm->avail[piece] == 0)
            transfer__piece_give_up(transfer, blob, piece, blob->swarm->origin_status);
    }
}

/* These credentials are refused: whoever else can read may have the leases (requirement ACL-4: we
 * still take pieces from peers). */
static void denied(struct transfer *transfer, struct blob *blob)
{
    blob->swarm->origin_denied = true;
    struct lease *lease = transfer->leases;
    while (lease != NULL) {
        struct lease *next = lease->next;
        if (lease->blob == blob && lease->state <= LEASE_GRANTED)
            transfer__lease_drop(transfer, lease, 0);
        lease = next;
    }
}

void transfer__lease_fail(struct transfer *transfer, struct lease *lease, int status)
{
    struct blob *blob = lease->blob;
    struct swarm *swarm = blob->swarm;
    uint32_t segment = lease->segment;
    uint64_t pause_us = 0;
    if (swarm->origin_pause_us > transfer->now_us)
        pause_us = swarm->origin_pause_us - transfer->now_us;
    transfer__lease_drop(transfer, lease, (uint32_t)(pause_us / MS));
    if (status == 0) {
        swarm->retry_ms[segment] = retry_ms(transfer, swarm, PENDING_MIN_MS);
        return;
    }
    swarm->origin_status = status;
    if (swarm->fails[segment] < UINT8_MAX)
        swarm->fails[segment]++;
    swarm->retry_ms[segment] =
        retry_ms(transfer, swarm, (uint64_t)FAIL_RETRY_MS * swarm->fails[segment]);
    if (swarm->fails[segment] >= ORIGIN_FAILS_MAX)
        give_up_segment(transfer, blob, segment);
    if (status == E_DENIED || status == E_AUTH)
        denied(transfer, blob);
}

static void held(struct transfer *transfer, struct lease *lease)
{
    if (lease->keeperless) {
        lease_remove(transfer, lease);
        return;
    }
    transfer__lease_move(lease, LEASE_HELD);
    lease->fetch = NULL;
    mark_pieces(lease, false);
    send_hold(transfer, lease);
}

/* Keepers know of whole segments only. Who may read the rest of this one next must know from us
 * what is here already, or brings it in once more (1.18 x the pieces read without, 8 nodes). */
static void tell_neighbours(struct transfer *transfer, struct blob *blob)
{
    blob->swarm->have_sent_us = 0;
    transfer__have_flush(transfer, blob);
}

void transfer__lease_piece(struct transfer *transfer, struct blob *blob, uint32_t piece,
                           const struct piece_source *source, int status)
{
    if (blob->swarm == NULL || blob->swarm->leases == 0)
        return;
    struct lease *lease = transfer__lease_find(transfer, blob, segment_of(&blob->layout, piece));
    if (lease == NULL || lease->state == LEASE_HELD)
        return;
    if (status != 0) {
        lease->failed = lease->failed || source->origin == PIECE_FROM_ORIGIN;
        return;
    }
    lease->moved_us = transfer->now_us;
    uint32_t first, last;
    if (transfer__lease_missing(transfer, lease, &first, &last))
        return;
    bool whole = !transfer__segment_missing(blob, lease->segment, &first, &last);
    if (!whole)
        tell_neighbours(transfer, blob);
    if (whole && (lease->state == LEASE_FETCHING || lease->state == LEASE_IMPORTING))
        transfer__lease_done(transfer, lease);
    struct fetch *fetch = lease->state == LEASE_FETCHING ? lease->fetch : NULL;
    if (lease->zone_epoch == 0 || !transfer__segment_had(blob, lease->segment))
        transfer__lease_drop(transfer, lease, 0);
    else
        held(transfer, lease);
    if (fetch != NULL && source->origin != PIECE_FROM_ORIGIN)
        transfer__fetch_superfluous(transfer, fetch);
}

/* ---- answers ---- */

static void granted(struct transfer *transfer, struct lease *lease)
{
    transfer__lease_move(lease, LEASE_GRANTED);
    lease->granted_us = transfer->now_us;
    mark_pieces(lease, true);
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

static bool is_asked(const struct lease *lease)
{
    return lease->state <= LEASE_WAITING;
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

void transfer__on_grant(struct transfer *transfer, uint16_t from, const struct wire_lease *answer)
{
    struct blob *blob;
    struct lease *lease = lease_of(transfer, answer, &blob);
    if (lease == NULL) {
        refuse_grant(transfer, from, answer);
        return;
    }
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
        lease->due_us = transfer->now_us + RETRY_US; /* the zone keeper has asked for us */
        return;
    }
    if (!is_asked(lease))
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
    if (lease == NULL || !is_asked(lease))
        return;
    uint32_t wait_ms = answer->arg < PENDING_MIN_MS ? PENDING_MIN_MS : answer->arg;
    wait_ms = wait_ms > PENDING_MAX_MS ? PENDING_MAX_MS : wait_ms;
    blob->swarm->crowd_us = blob->swarm->pending_us = transfer->now_us;
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
    blob->swarm->retry_ms[lease->segment] = retry_ms(transfer, blob->swarm, wait_ms);
    if ((answer->flags & WIRE_LEASE_CONTACT) != 0) {
        uint16_t node = transfer__node_meet(transfer, &answer->contact.id, &answer->contact.addr);
        if (node != NODE_NONE)
            transfer__candidate(transfer, blob, node, blob->layout.segment_count <= 4);
    }
    lease_remove(transfer, lease);
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
    swarm->retry_ms[segment] = retry_ms(transfer, swarm, 1000);
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
    send_want(transfer, lease);
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
    if (lease != NULL && is_asked(lease) && answer->level == WIRE_LEVEL_HOME && !in_reach) {
        granted(transfer, lease); /* as in on_grant */
        return;
    }
    if (!in_reach || transfer__avoids(transfer, blob->swarm, answer->segment, holder)) {
        if (lease != NULL && is_asked(lease))
            refuse_referral(transfer, lease, answer, from, holder);
        return;
    }
    if (answer->level == WIRE_LEVEL_ZONE) {
        if (lease != NULL && lease->state != LEASE_ASKING)
            return;
        if (lease != NULL)
            lease_remove(transfer, lease);
        referred(transfer, blob, answer->segment, holder);
        return;
    }
    if (lease == NULL || !is_asked(lease))
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
        lease_remove(transfer, lease);
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
            swarm->retry_ms[segment] = retry_ms(transfer, swarm, 0);
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
    mark_pieces(lease, false);
    transfer__lease_move(lease, LEASE_HOME);
    if (node != NODE_NONE)
        transfer__avoid(transfer, swarm, segment, node);
    lease->home_rank = 0;
    lease->rank_us = transfer->now_us;
    send_want(transfer, lease);
}

void transfer__import_later(struct transfer *transfer, struct blob *blob, uint32_t piece,
                            uint32_t wait_us)
{
    uint32_t segment = segment_of(&blob->layout, piece);
    struct lease *lease = transfer__lease_find(transfer, blob, segment);
    wait_us = wait_us < IMPORT_AGAIN_US ? IMPORT_AGAIN_US : wait_us;
    wait_us = wait_us > IMPORT_AGAIN_MAX_US ? IMPORT_AGAIN_MAX_US : wait_us;
    if (lease == NULL && blob->swarm->avail[piece] == 0)
        blob->swarm->retry_ms[segment] = retry_ms(transfer, blob->swarm, wait_us / MS);
    else if (lease != NULL && lease->state == LEASE_IMPORTING)
        lease->due_us = transfer->now_us + wait_us;
}

/* ---- endings for outside reasons ---- */

void transfer__leases_end(struct transfer *transfer, struct blob *blob)
{
    struct lease *lease = transfer->leases;
    while (lease != NULL) {
        struct lease *next = lease->next;
        if (lease->blob == blob)
            transfer__lease_drop(transfer, lease, 0);
        lease = next;
    }
    for (struct fetch *fetch = transfer->fetches; fetch != NULL; fetch = fetch->next) {
        if (fetch->blob != blob)
            continue;
        transfer__fetch_cancel(transfer, fetch);
        fetch->blob = NULL;
    }
}

void transfer__leases_unwanted(struct transfer *transfer, struct blob *blob)
{
    struct lease *lease = transfer->leases;
    while (lease != NULL) {
        struct lease *next = lease->next;
        if (lease->blob == blob && lease->state <= LEASE_GRANTED)
            transfer__lease_drop(transfer, lease, 0);
        lease = next;
    }
}

void transfer__leases_hand_back(struct transfer *transfer)
{
    struct lease *lease = transfer->leases;
    while (lease != NULL) {
        struct lease *next = lease->next;
        return_to_keepers(transfer, lease, 0);
        lease->keeperless = true;
        lease->zone_epoch = lease->home_epoch = 0;
        if (lease->state != LEASE_FETCHING)
            lease_remove(transfer, lease);
        else if (lease->blob->swarm->readers == 0)
            transfer__fetch_cancel(transfer, lease->fetch);
        lease = next;
    }
}

void transfer__leases_keeper_gone(struct transfer *transfer, uint16_t node)
{
    for (struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        bool zone = lease->zone_keeper == node, home = lease->home_keeper == node;
        if (zone)
            lease->zone_keeper = NODE_NONE;
        if (home)
            lease->home_keeper = NODE_NONE;
        if (!zone && !home)
            continue;
        transfer->renew_due_us = transfer->now_us;
        if (!is_asked(lease))
            continue;
        /* Whoever answers in its place is asked at once. */
        lease->tries = 0;
        lease->rank_us = lease->due_us = transfer->now_us;
    }
}

void transfer__leases_forget(struct transfer *transfer, uint16_t node)
{
    transfer__leases_keeper_gone(transfer, node);
    for (struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (lease->holder == node)
            lease->holder = NODE_NONE;
    }
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        transfer__avoid_no_more(blob->swarm, node);
    }
}

void transfer__leases_silent(struct transfer *transfer, uint16_t node)
{
    for (struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        bool asked = (lease->state == LEASE_ASKING && lease->zone_keeper == node) ||
                     (lease->state == LEASE_HOME && lease->home_keeper == node);
        if (!asked)
            continue;
        if (transfer->now_us >= transfer->config.lease_timeout_us)
            lease->rank_us = transfer->now_us - transfer->config.lease_timeout_us;
        lease->due_us = transfer->now_us;
    }
}

/* ---- time ---- */

static void next_rank(struct transfer *transfer, struct lease *lease)
{
    bool zone = lease->state == LEASE_ASKING;
    uint16_t keeper = zone ? lease->zone_keeper : lease->home_keeper;
    uint8_t *rank = zone ? &lease->zone_rank : &lease->home_rank;
    if (keeper != NODE_NONE && keeper != NODE_SELF) {
        if (transfer->heard_us <= lease->rank_us && transfer->mesh_quiet_us == 0)
            transfer->mesh_quiet_us = transfer->now_us;
        /* Silent ones are asked last, so the next in order now has this rank. */
        transfer__silent(transfer, keeper);
    } else {
        *rank = (uint8_t)((*rank + 1) % KEEPERS);
    }
    lease->rank_us = transfer->now_us;
    lease->tries = 0;
}

/* Until when an answer is waited for. Judged anew each time: what was asked before the mesh fell
 * silent need not wait long either, and a word from anybody gives the usual patience back. */
static uint64_t patience_end_us(const struct transfer *transfer, const struct lease *lease)
{
    if (lease->state == LEASE_WAITING)
        return UINT64_MAX;
    uint64_t quiet_us = transfer->mesh_quiet_us;
    if (quiet_us == 0)
        return lease->give_up_us;
    uint64_t end_us = lease->asked_us + QUIET_WAIT_US;
    if (lease->asked_us < quiet_us)
        end_us = quiet_us + QUIET_GRACE_US;
    return end_us < lease->give_up_us ? end_us : lease->give_up_us;
}

static void asked_tick(struct transfer *transfer, struct lease *lease)
{
    uint64_t now_us = transfer->now_us;
    if (now_us >= patience_end_us(transfer, lease)) {
        (void)transfer__lease_take(transfer, lease->blob, lease->segment, FETCH_NO_KEEPER);
        return;
    }
    if (lease->state == LEASE_WAITING) {
        transfer__lease_move(lease, LEASE_HOME);
        lease->give_up_us = now_us + transfer->config.fallback_us;
        lease->rank_us = now_us;
    } else if (now_us - lease->rank_us >= transfer->config.lease_timeout_us) {
        next_rank(transfer, lease);
    }
    send_want(transfer, lease);
}

static void importing_tick(struct transfer *transfer, struct lease *lease)
{
    struct blob *blob = lease->blob;
    uint32_t first, last;
    lease->due_us = transfer->now_us + RETRY_US;
    if (!transfer__lease_missing(transfer, lease, &first, &last)) {
        transfer__lease_drop(transfer, lease, 0); /* whoever read this range went away */
        return;
    }
    const struct request *request =
        lease->holder == NODE_NONE ? NULL
                                   : transfer__request_find(transfer, blob, first, lease->holder);
    if (request != NULL && request->received && transfer__wanting(blob->swarm) > 0 &&
        transfer->now_us - lease->moved_us > IMPORT_STORE_US) {
        transfer__leases_pause(transfer);
        transfer__lease_fail(transfer, lease, 0);
        return;
    }
    /* It may be waiting for the piece itself, and says so when it is asked again. */
    uint64_t patience_us = request != NULL && request->answered ? IMPORT_WAIT_US : IMPORT_STALL_US;
    bool stalled = transfer->now_us - lease->moved_us > patience_us;
    if (lease->holder == NODE_NONE) {
        transfer__import_failed(transfer, blob, first, NODE_NONE);
        return;
    }
    if (!stalled && request != NULL)
        return;
    if (!stalled &&
        transfer__import(transfer, blob, lease->segment, lease->holder, WIRE_PIECE_LEASE))
        return;
    transfer__requests_end(transfer, blob, first, lease->holder);
    transfer__import_failed(transfer, blob, first, lease->holder);
}

static void held_tick(struct transfer *transfer, struct lease *lease)
{
    if (lease->tries >= HOLD_TRIES_MAX) {
        lease_remove(transfer, lease);
        return;
    }
    if (lease->tries == HOLD_TRIES_MAX / 2) {
        /* Those who granted it do not answer: tell who stands in for them. */
        if (!lease->zone_told && lease->zone_keeper != NODE_NONE)
            transfer__silent(transfer, lease->zone_keeper);
        if (!lease->home_told && lease->home_keeper != NODE_NONE)
            transfer__silent(transfer, lease->home_keeper);
        lease->zone_keeper = keeper_of(transfer, lease, WIRE_LEVEL_ZONE, 0);
        lease->home_keeper = keeper_of(transfer, lease, WIRE_LEVEL_HOME, 0);
    }
    send_hold(transfer, lease);
}

static void lease_tick(struct transfer *transfer, struct lease *lease)
{
    bool patience_over = is_asked(lease) && transfer->now_us >= patience_end_us(transfer, lease);
    if (lease->due_us > transfer->now_us && !patience_over)
        return;
    if (is_asked(lease))
        asked_tick(transfer, lease);
    else if (lease->state == LEASE_IMPORTING)
        importing_tick(transfer, lease);
    else if (lease->state == LEASE_HELD)
        held_tick(transfer, lease);
}

/* What tells a keeper by its change that an import moves: when the last piece came, counted from
 * the first question. The clock itself would be at its limit, and still, after 50 days (D-11). */
static uint64_t moved_ms(const struct lease *lease)
{
    return lease->moved_us > lease->asked_us ? (lease->moved_us - lease->asked_us) / MS + 1 : 0;
}

static uint32_t renewal_bytes(const struct lease *lease)
{
    uint64_t bytes = lease->fetch != NULL ? lease->fetch->bytes : moved_ms(lease);
    return bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes;
}

static bool renews(const struct lease *lease, uint8_t level)
{
    if (lease->keeperless || lease->state == LEASE_HELD)
        return false;
    if (level == WIRE_LEVEL_ZONE)
        return lease->zone_epoch != 0 && lease->zone_keeper != NODE_NONE;
    return lease->home_epoch != 0 && lease->home_keeper != NODE_NONE &&
           lease->state >= LEASE_GRANTED;
}

/* One message for all leases of the blob that the same keeper granted. Those before `lease` in the
 * list went with an earlier one. */
static void renew_with(struct transfer *transfer, const struct lease *lease, uint8_t level)
{
    uint16_t keeper = level == WIRE_LEVEL_ZONE ? lease->zone_keeper : lease->home_keeper;
    struct wire_transfer message = {.type = WIRE_TRANSFER_RENEW};
    struct wire_renew *renew = &message.of.renew;
    renew->blob = lease->blob->info.key;
    renew->level = level;
    renew->zone = zone_id_of(transfer, lease);
    for (const struct lease *other = lease; other != NULL; other = other->next) {
        uint16_t theirs = level == WIRE_LEVEL_ZONE ? other->zone_keeper : other->home_keeper;
        if (other->blob != lease->blob || theirs != keeper || !renews(other, level))
            continue;
        if (renew->count == WIRE_RENEWALS_MAX)
            break;
        renew->renewals[renew->count++] = (struct wire_renewal){
            .segment = other->segment,
            .epoch = level == WIRE_LEVEL_ZONE ? other->zone_epoch : other->home_epoch,
            .bytes = renewal_bytes(other),
        };
    }
    transfer__send(transfer, keeper, &message);
}

/* True if a lease earlier in the list took this one along in its message. */
static bool taken_along(const struct lease *lease, uint8_t level)
{
    uint16_t keeper = level == WIRE_LEVEL_ZONE ? lease->zone_keeper : lease->home_keeper;
    unsigned between = 0;
    for (const struct lease *other = lease->prev; other != NULL; other = other->prev) {
        uint16_t theirs = level == WIRE_LEVEL_ZONE ? other->zone_keeper : other->home_keeper;
        if (other->blob == lease->blob && theirs == keeper && renews(other, level))
            between++;
    }
    return between % WIRE_RENEWALS_MAX != 0;
}

/* A keeper that is no more is succeeded by the next in order, which has its replicas: it must hear
 * that the lease lives, or grants it once more. */
static void find_successors(struct transfer *transfer, struct lease *lease)
{
    if (lease->keeperless || lease->state == LEASE_HELD)
        return;
    if (lease->zone_epoch != 0 && lease->zone_keeper == NODE_NONE)
        lease->zone_keeper = keeper_of(transfer, lease, WIRE_LEVEL_ZONE, 0);
    if (lease->home_epoch != 0 && lease->home_keeper == NODE_NONE && lease->state >= LEASE_GRANTED)
        lease->home_keeper = keeper_of(transfer, lease, WIRE_LEVEL_HOME, 0);
}

static void renew_all(struct transfer *transfer)
{
    for (struct lease *lease = transfer->leases; lease != NULL; lease = lease->next)
        find_successors(transfer, lease);
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        for (uint8_t level = WIRE_LEVEL_ZONE; level <= WIRE_LEVEL_HOME; level++) {
            if (renews(lease, level) && !taken_along(lease, level))
                renew_with(transfer, lease, level);
        }
    }
}

void transfer__leases_tick(struct transfer *transfer)
{
    struct lease *lease = transfer->leases;
    while (lease != NULL) {
        struct lease *next = lease->next;
        lease_tick(transfer, lease);
        lease = next;
    }
    if (transfer->leases != NULL && transfer->now_us >= transfer->renew_due_us) {
        transfer->renew_due_us = transfer->now_us + RENEW_US;
        renew_all(transfer);
    }
}

uint64_t transfer__leases_deadline(const struct transfer *transfer)
{
    uint64_t deadline_us = transfer->leases == NULL ? UINT64_MAX : transfer->renew_due_us;
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        bool timed = is_asked(lease) || lease->state >= LEASE_IMPORTING;
        if (timed && lease->due_us < deadline_us)
            deadline_us = lease->due_us;
        if (is_asked(lease) && patience_end_us(transfer, lease) < deadline_us)
            deadline_us = patience_end_us(transfer, lease);
    }
    return deadline_us;
}
