/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our leases, from the question to the end: their states, what keepers are asked and told, and what
 * becomes of a lease when its pieces come, fail, or are not wanted any more. What keepers answer is
 * in lease_answer.c, repetition and patience in lease_time.c.
 */
#include "have.h"
#include "lease.h"

/* Origin failures of a segment before readers are told, if no peer has it. */
#define ORIGIN_FAILS_MAX 3
#define FAIL_RETRY_MS    500

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
void transfer__lease_mark(struct lease *lease, bool leased)
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

void transfer__lease_remove(struct transfer *transfer, struct lease *lease)
{
    transfer__lease_mark(lease, false);
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
uint64_t transfer__lease_zone_id(struct transfer *transfer, const struct lease *lease)
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
        .zone = transfer__lease_zone_id(transfer, lease),
        .epoch = level == WIRE_LEVEL_ZONE ? lease->zone_epoch : lease->home_epoch,
        .zone_epoch = lease->zone_epoch,
    };
}

/* Keeper of `rank` for a lease at a level; NODE_NONE if there are none at all. */
uint16_t transfer__lease_keeper(struct transfer *transfer, const struct lease *lease, uint8_t level,
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

void transfer__lease_want(struct transfer *transfer, struct lease *lease)
{
    uint8_t level = lease->state == LEASE_ASKING ? WIRE_LEVEL_ZONE : WIRE_LEVEL_HOME;
    uint16_t *keeper = level == WIRE_LEVEL_ZONE ? &lease->zone_keeper : &lease->home_keeper;
    uint8_t rank = level == WIRE_LEVEL_ZONE ? lease->zone_rank : lease->home_rank;
    if (lease->tries == 0)
        *keeper = transfer__lease_keeper(transfer, lease, level, rank);
    struct wire_lease want = about(transfer, lease, level);
    want.epoch = 0;
    want.arg = rank;
    uint16_t avoid = transfer__avoided(transfer, lease->blob->swarm, lease->segment);
    if (avoid != NODE_NONE) {
        want.flags |= WIRE_LEASE_AVOID | WIRE_LEASE_CONTACT;
        want.contact = transfer__node_contact(transfer, avoid);
    }
    uint64_t retry_us = transfer__rto_us(transfer, *keeper, RETRY_US);
    lease->due_us = transfer->now_us + retry_us + (lease->tries > 0 ? retry_us / 2 : 0);
    lease->tries++;
    transfer__send_lease(transfer, *keeper, WIRE_TRANSFER_WANT, &want);
}

void transfer__lease_hold(struct transfer *transfer, struct lease *lease)
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
        transfer__lease_remove(transfer, lease); /* held no more, if it is to be read */
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
    transfer__lease_mark(lease, true);
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
    transfer__lease_want(transfer, lease);
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
    transfer__lease_remove(transfer, lease);
}

uint32_t transfer__lease_retry_ms(const struct transfer *transfer, const struct swarm *swarm,
                                  uint64_t ms)
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
        swarm->retry_ms[segment] = transfer__lease_retry_ms(transfer, swarm, PENDING_MIN_MS);
        return;
    }
    swarm->origin_status = status;
    if (swarm->fails[segment] < UINT8_MAX)
        swarm->fails[segment]++;
    swarm->retry_ms[segment] =
        transfer__lease_retry_ms(transfer, swarm, (uint64_t)FAIL_RETRY_MS * swarm->fails[segment]);
    if (swarm->fails[segment] >= ORIGIN_FAILS_MAX)
        give_up_segment(transfer, blob, segment);
    if (status == E_DENIED || status == E_AUTH)
        denied(transfer, blob);
}

static void held(struct transfer *transfer, struct lease *lease)
{
    if (lease->keeperless) {
        transfer__lease_remove(transfer, lease);
        return;
    }
    transfer__lease_move(lease, LEASE_HELD);
    lease->fetch = NULL;
    transfer__lease_mark(lease, false);
    transfer__lease_hold(transfer, lease);
}

/* Keepers know of whole segments only. Who may read the rest of this one next must know from us
 * what is here already, or brings it in once more (1.18 x the pieces read without, 8 nodes). */
static void tell_neighbours(struct transfer *transfer, struct blob *blob)
{
    blob->swarm->have_sent_us = 0;
    (void)transfer__have_flush(transfer, blob);
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
            transfer__lease_remove(transfer, lease);
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
        if (!lease_is_asked(lease))
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
