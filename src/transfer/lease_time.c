/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases as time passes: everything is repeated until answered. A keeper that does not answer in
 * lease_timeout is passed over for the next (rule 5 of ALGORITHMS §3.3); when none of them answers
 * in fallback_us the origin is read without a lease (rule 8). What is being read is renewed with
 * who granted it.
 */
#include "lease.h"

#define RENEW_US       (250 * MS)
#define HOLD_TRIES_MAX 6
/* An import that does not move is given up. */
#define IMPORT_STALL_US (3 * S)
#define IMPORT_WAIT_US  (8 * S)
/* Nor do others wait longer for this node to hash and store what came: with a disk that takes
 * seconds it is not the one to bring segments in (D-14: 16 nodes took 6-9 s, 1.2-1.5 now). */
#define IMPORT_STORE_US (1 * S)
/* With a silent mesh, asking is a formality. */
#define QUIET_WAIT_US (5 * MS)
/* What was asked before it was thought silent: it may only be far away. With round trips of 300 ms
 * and no such grace 8 nodes read 1.38 copies instead of 1.19. */
#define QUIET_GRACE_US (120 * MS)

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
        end_us = quiet_us + transfer__mesh_rto_us(transfer, QUIET_GRACE_US);
    return end_us < lease->give_up_us ? end_us : lease->give_up_us;
}

/* So long one keeper is asked: three times and more, and two round trips where one is handed on. */
static uint64_t rank_patience_us(const struct transfer *transfer, const struct lease *lease)
{
    uint16_t keeper = lease->state == LEASE_ASKING ? lease->zone_keeper : lease->home_keeper;
    uint64_t rto_us = transfer__rto_us(transfer, keeper, 0);
    uint64_t least_us = transfer->config.lease_timeout_us;
    return 3 * rto_us > least_us ? 3 * rto_us : least_us;
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
    } else if (now_us - lease->rank_us >= rank_patience_us(transfer, lease)) {
        next_rank(transfer, lease);
    }
    transfer__lease_want(transfer, lease);
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
        transfer__lease_remove(transfer, lease);
        return;
    }
    if (lease->tries == HOLD_TRIES_MAX / 2) {
        /* Those who granted it do not answer: tell who stands in for them. */
        if (!lease->zone_told && lease->zone_keeper != NODE_NONE)
            transfer__silent(transfer, lease->zone_keeper);
        if (!lease->home_told && lease->home_keeper != NODE_NONE)
            transfer__silent(transfer, lease->home_keeper);
        lease->zone_keeper = transfer__lease_keeper(transfer, lease, WIRE_LEVEL_ZONE, 0);
        lease->home_keeper = transfer__lease_keeper(transfer, lease, WIRE_LEVEL_HOME, 0);
    }
    transfer__lease_hold(transfer, lease);
}

static void lease_tick(struct transfer *transfer, struct lease *lease)
{
    bool patience_over =
        lease_is_asked(lease) && transfer->now_us >= patience_end_us(transfer, lease);
    if (lease->due_us > transfer->now_us && !patience_over)
        return;
    if (lease_is_asked(lease))
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
    renew->zone = transfer__lease_zone_id(transfer, lease);
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
        lease->zone_keeper = transfer__lease_keeper(transfer, lease, WIRE_LEVEL_ZONE, 0);
    if (lease->home_epoch != 0 && lease->home_keeper == NODE_NONE && lease->state >= LEASE_GRANTED)
        lease->home_keeper = transfer__lease_keeper(transfer, lease, WIRE_LEVEL_HOME, 0);
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
        bool timed = lease_is_asked(lease) || lease->state >= LEASE_IMPORTING;
        if (timed && lease->due_us < deadline_us)
            deadline_us = lease->due_us;
        if (lease_is_asked(lease) && patience_end_us(transfer, lease) < deadline_us)
            deadline_us = patience_end_us(transfer, lease);
    }
    return deadline_us;
}
