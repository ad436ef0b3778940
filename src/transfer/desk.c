/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeper of segments for a zone: a lock and a referral desk, never a data proxy (ALGORITHMS §3.3).
 * Per segment: who brings it in now, or who has it; and who waits. Ranks 2 and 3 get copies of what
 * rank 1 decides. All of it may be lost: then a segment may come once more, nothing else.
 */
#include "lease.h"

#define DESKS_MAX     16384
#define HOLDERS_MAX   6
#define WAITERS_MAX   12
#define NOTIFY_MAX    4 /* told of the first holder; the others learn from neighbours */
#define REFERRALS_MAX 2 /* per holder and REFERRAL_US: a holder is not flooded */
#define REFERRAL_US   (1 * S)
#define PENDING_MS    300
/* Without RENEW for so long a lease is free (rule 6), without progress for so long, too (rule 7).
 */
#define LEASE_SILENT_US (1 * S)
#define LEASE_STUCK_US  (6 * S)
#define KEEP_US         (600 * (uint64_t)S)

enum desk_state {
    DESK_FREE = 1, /* nobody brings it in, nobody has it */
    DESK_LEASED,   /* lessee brings it in; ends by HOLD, RETURN or silence */
    DESK_HELD,     /* holders have it */
};

struct desk_key {
    struct blob_key blob;
    uint32_t segment;
    uint64_t zone; /* by its labels, of those who want a copy for it alone; else 0 */
};

struct holder {
    uint16_t node;
    uint8_t referrals;
    uint64_t since_us; /* referrals are counted since */
};

struct desk {
    UT_hash_handle hh;
    struct desk_key key;
    struct desk *older, *newer; /* by last use */
    enum desk_state state;
    enum transfer_copies copies; /* what the last to ask said */
    uint32_t epoch;
    uint16_t lessee;
    uint32_t bytes;
    uint64_t renewed_us, moved_us;
    uint64_t not_before_us; /* the origin asked for a pause */
    uint64_t touched_us;
    uint32_t holder_count, waiter_count;
    struct holder holders[HOLDERS_MAX];
    uint16_t waiters[WAITERS_MAX];
};

/* ---- table ---- */

static void unlink_desk(struct transfer *transfer, struct desk *desk)
{
    if (desk->older != NULL)
        desk->older->newer = desk->newer;
    else
        transfer->desks_oldest = desk->newer;
    if (desk->newer != NULL)
        desk->newer->older = desk->older;
    else
        transfer->desks_newest = desk->older;
}

static void link_newest(struct transfer *transfer, struct desk *desk)
{
    desk->newer = NULL;
    desk->older = transfer->desks_newest;
    if (transfer->desks_newest != NULL)
        transfer->desks_newest->newer = desk;
    else
        transfer->desks_oldest = desk;
    transfer->desks_newest = desk;
    desk->touched_us = transfer->now_us;
}

static void drop_desk(struct transfer *transfer, struct desk *desk)
{
    unlink_desk(transfer, desk);
    HASH_DEL(transfer->desks, desk);
    ASSERT(transfer->desk_count > 0);
    transfer->desk_count--;
    transfer__release(transfer, desk);
}

/* Which desk a message is for. */
static struct desk_key key_of(const struct transfer *transfer, const struct wire_lease *lease)
{
    struct desk_key key;
    memset(&key, 0, sizeof key); /* it is hashed whole */
    key.blob = lease->blob;
    key.segment = lease->segment;
    if (transfer__lease_is_apart(transfer, lease))
        key.zone = lease->zone;
    return key;
}

static struct desk *find_desk(struct transfer *transfer, const struct desk_key *key)
{
    struct desk *desk = NULL;
    HASH_FIND(hh, transfer->desks, key, sizeof *key, desk);
    if (desk != NULL) {
        unlink_desk(transfer, desk);
        link_newest(transfer, desk);
    }
    return desk;
}

static struct desk *make_desk(struct transfer *transfer, const struct desk_key *key)
{
    struct desk *desk = find_desk(transfer, key);
    if (desk != NULL)
        return desk;
    if (transfer->desk_count == DESKS_MAX)
        drop_desk(transfer, transfer->desks_oldest);
    desk = transfer__zalloc(transfer, sizeof *desk);
    if (desk == NULL)
        return NULL;
    desk->key = *key;
    desk->copies = transfer->config.copies;
    desk->state = DESK_FREE;
    desk->lessee = NODE_NONE;
    HASH_ADD(hh, transfer->desks, key, sizeof desk->key, desk);
    if (desk->hh.tbl == NULL) {
        transfer__release(transfer, desk);
        return NULL;
    }
    link_newest(transfer, desk);
    transfer->desk_count++;
    return desk;
}

/* ---- holders and waiters ---- */

static void add_holder(struct transfer *transfer, struct desk *desk, uint16_t node)
{
    for (uint32_t i = 0; i < desk->holder_count; i++) {
        if (desk->holders[i].node == node)
            return;
    }
    uint32_t at = desk->holder_count;
    if (at == HOLDERS_MAX)
        at = (uint32_t)prng_below(&transfer->prng, HOLDERS_MAX);
    else
        desk->holder_count++;
    desk->holders[at] = (struct holder){.node = node};
}

static void remove_holder(struct desk *desk, uint16_t node)
{
    for (uint32_t i = 0; i < desk->holder_count; i++) {
        if (desk->holders[i].node == node) {
            desk->holders[i] = desk->holders[--desk->holder_count];
            break;
        }
    }
    if (desk->holder_count == 0 && desk->state == DESK_HELD)
        desk->state = DESK_FREE;
}

static void remove_waiter(struct desk *desk, uint16_t node)
{
    for (uint32_t i = 0; i < desk->waiter_count; i++) {
        if (desk->waiters[i] == node) {
            desk->waiters[i] = desk->waiters[--desk->waiter_count];
            return;
        }
    }
}

static void add_waiter(struct desk *desk, uint16_t node)
{
    remove_waiter(desk, node);
    if (desk->waiter_count < WAITERS_MAX)
        desk->waiters[desk->waiter_count++] = node;
}

/* A holder that may be referred to once more; NODE_NONE if all had enough for now. */
static uint16_t use_holder(struct transfer *transfer, struct desk *desk, uint16_t asker)
{
    struct holder *best = NULL;
    for (uint32_t i = 0; i < desk->holder_count; i++) {
        struct holder *holder = &desk->holders[i];
        bool usable = holder->node == NODE_SELF || (transfer__node_usable(transfer, holder->node) &&
                                                    !transfer__is_silent(transfer, holder->node));
        if (!usable || holder->node == asker)
            continue;
        if (transfer->now_us - holder->since_us > REFERRAL_US) {
            holder->since_us = transfer->now_us;
            holder->referrals = 0;
        }
        if (best == NULL || holder->referrals < best->referrals)
            best = holder;
    }
    if (best == NULL || best->referrals >= REFERRALS_MAX)
        return NODE_NONE;
    best->referrals++;
    transfer->stats.leases_referred++;
    return best->node;
}

uint16_t transfer__known_holder(struct transfer *transfer, const struct blob_key *key,
                                uint32_t segment, uint16_t asker, uint16_t avoid)
{
    struct blob *blob = transfer__blob_by_key(transfer, key);
    if (blob == NULL || segment >= blob->layout.segment_count)
        return NODE_NONE;
    if (asker != NODE_SELF && avoid != NODE_SELF && !transfer->draining &&
        transfer__segment_had(blob, segment))
        return NODE_SELF;
    const struct swarm *swarm = blob->swarm;
    uint32_t first = segment_first(&blob->layout, segment);
    uint32_t end = first + segment_length(&blob->layout, segment);
    for (uint32_t i = 0; swarm != NULL && i < swarm->neighbour_count; i++) {
        const struct neighbour *neighbour = &swarm->neighbours[i];
        if (neighbour->node != asker && neighbour->node != avoid && neighbour->useful &&
            transfer__node_usable(transfer, neighbour->node) &&
            bitfield_next_clear(&neighbour->known, first) >= end)
            return neighbour->node;
    }
    return NODE_NONE;
}

/* ---- answers ---- */

static struct wire_lease about(const struct desk *desk)
{
    return (struct wire_lease){
        .blob = desk->key.blob,
        .segment = desk->key.segment,
        .level = WIRE_LEVEL_ZONE,
        .flags = desk->key.zone != 0 ? WIRE_LEASE_COPIES_ZONE : 0,
        .zone = desk->key.zone,
        .epoch = desk->epoch,
        .zone_epoch = desk->epoch,
    };
}

static void set_contact(const struct transfer *transfer, struct wire_lease *lease, uint16_t node)
{
    lease->flags |= WIRE_LEASE_CONTACT;
    lease->contact = transfer__node_contact(transfer, node);
}

static void refer(struct transfer *transfer, const struct desk *desk, uint16_t to, uint16_t holder)
{
    struct wire_lease answer = about(desk);
    set_contact(transfer, &answer, holder);
    transfer__send_lease(transfer, to, WIRE_TRANSFER_REFER, &answer);
}

static void pending(struct transfer *transfer, struct desk *desk, uint16_t to, uint16_t lessee)
{
    struct wire_lease answer = about(desk);
    answer.arg = PENDING_MS;
    if (desk->not_before_us > transfer->now_us)
        answer.arg = (uint32_t)((desk->not_before_us - transfer->now_us) / MS) + PENDING_MS;
    if (lessee != NODE_NONE) {
        set_contact(transfer, &answer, lessee);
        answer.flags |= desk->bytes > 0 ? WIRE_LEASE_MOVES : 0;
    }
    add_waiter(desk, to);
    transfer->stats.leases_pending++;
    transfer__send_lease(transfer, to, WIRE_TRANSFER_PENDING, &answer);
}

void transfer__replicate(struct transfer *transfer, uint32_t zone, struct wire_lease *replica)
{
    uint8_t key[32];
    uint16_t keepers[KEEPERS];
    segment_key_of(&replica->blob, replica->segment, key);
    uint32_t count = transfer__closest(transfer, zone, key, KEEPERS, keepers);
    for (uint32_t i = 0; i < count; i++) {
        if (keepers[i] != NODE_SELF)
            transfer__send_lease(transfer, keepers[i], WIRE_TRANSFER_REPLICA, replica);
    }
}

static void replicate(struct transfer *transfer, const struct desk *desk, uint16_t node,
                      enum wire_lease_state state)
{
    struct wire_lease replica = about(desk);
    uint32_t zone = transfer__zone_of(transfer, NODE_SELF);
    if (desk->key.zone == 0)
        replica.zone = transfer__zone_id(transfer, zone);
    replica.arg = state;
    set_contact(transfer, &replica, node);
    transfer__replicate(transfer, zone, &replica);
}

static bool is_leased(const struct transfer *transfer, const struct desk *desk)
{
    return desk->state == DESK_LEASED && transfer->now_us - desk->renewed_us < LEASE_SILENT_US &&
           transfer->now_us - desk->moved_us < LEASE_STUCK_US &&
           (desk->lessee == NODE_NONE || !transfer__is_silent(transfer, desk->lessee));
}

/* Hands the WANT on to the home keeper, whose answer goes to the asker. If that is us, the grant of
 * the zone rides on its answer. */
static void ask_home(struct transfer *transfer, const struct desk *desk, uint16_t asker)
{
    struct wire_lease want = about(desk);
    if (desk->copies == TRANSFER_COPIES_ZONE) {
        want.level = WIRE_LEVEL_HOME;
        transfer__send_lease(transfer, asker, WIRE_TRANSFER_GRANT, &want);
        return;
    }
    uint8_t key[32];
    uint16_t keepers[KEEPERS];
    segment_key_of(&desk->key.blob, desk->key.segment, key);
    uint32_t home = transfer__home_zone(transfer, key);
    uint32_t count = transfer__keepers(transfer, home, key, keepers);
    uint16_t keeper = count == 0 ? NODE_SELF : keepers[0];
    struct wire_lease grant = about(desk);
    grant.arg = LEASE_SILENT_US / MS;
    if (keeper != NODE_SELF)
        transfer__send_lease(transfer, asker, WIRE_TRANSFER_GRANT, &grant);
    want.level = WIRE_LEVEL_HOME;
    want.zone = transfer__zone_id(transfer, transfer__zone_of(transfer, NODE_SELF));
    want.flags = WIRE_LEASE_FORWARDED;
    set_contact(transfer, &want, asker);
    transfer__send_lease(transfer, keeper, WIRE_TRANSFER_WANT, &want);
}

static void grant(struct transfer *transfer, struct desk *desk, uint16_t asker)
{
    bool again = desk->state == DESK_LEASED && desk->lessee == asker;
    remove_waiter(desk, asker);
    if (!again) {
        desk->state = DESK_LEASED;
        desk->lessee = asker;
        desk->epoch++;
        desk->bytes = 0;
        transfer->stats.leases_granted++;
        replicate(transfer, desk, asker, WIRE_LEASE_TAKEN);
    }
    desk->renewed_us = desk->moved_us = transfer->now_us;
    ask_home(transfer, desk, asker);
}

static void decide(struct transfer *transfer, struct desk *desk, uint16_t asker, uint16_t avoid)
{
    if (desk->state == DESK_HELD) {
        uint16_t holder = use_holder(transfer, desk, asker);
        if (holder != NODE_NONE) {
            refer(transfer, desk, asker, holder);
            return;
        }
    }
    bool mine = desk->state == DESK_LEASED && desk->lessee == asker;
    if (is_leased(transfer, desk) && !mine) {
        pending(transfer, desk, asker, desk->lessee);
        return;
    }
    uint16_t known =
        mine ? NODE_NONE
             : transfer__known_holder(transfer, &desk->key.blob, desk->key.segment, asker, avoid);
    bool border = known != NODE_NONE && desk->copies == TRANSFER_COPIES_ZONE &&
                  !transfer__nodes_same_zone(transfer, known, asker);
    if (known != NODE_NONE && !border) {
        add_holder(transfer, desk, known);
        desk->state = DESK_HELD;
        desk->lessee = NODE_NONE;
        known = use_holder(transfer, desk, asker);
        if (known != NODE_NONE) {
            refer(transfer, desk, asker, known);
            return;
        }
    }
    bool busy_holders = false;
    for (uint32_t i = 0; desk->state == DESK_HELD && i < desk->holder_count; i++)
        busy_holders = busy_holders || desk->holders[i].referrals >= REFERRALS_MAX;
    if (busy_holders || desk->not_before_us > transfer->now_us)
        pending(transfer, desk, asker, NODE_NONE);
    else
        grant(transfer, desk, asker);
}

/* True if we believe to be one of the keepers. */
static bool is_keeper(struct transfer *transfer, const struct wire_lease *want, uint16_t *first)
{
    uint8_t key[32];
    uint16_t keepers[KEEPERS];
    segment_key_of(&want->blob, want->segment, key);
    uint32_t zone = transfer__zone_of(transfer, NODE_SELF);
    uint32_t count = transfer__keepers(transfer, zone, key, keepers);
    *first = count == 0 ? NODE_SELF : keepers[0];
    for (uint32_t i = 0; i < count; i++) {
        if (keepers[i] == NODE_SELF)
            return true;
    }
    return count == 0;
}

void transfer__desk_want(struct transfer *transfer, uint16_t from, const struct wire_lease *want)
{
    uint16_t asker = from, first;
    bool forwarded = (want->flags & WIRE_LEASE_FORWARDED) != 0;
    bool contact = (want->flags & WIRE_LEASE_CONTACT) != 0;
    if (forwarded && contact)
        asker = transfer__node_meet(transfer, &want->contact.id, &want->contact.addr);
    if (asker == NODE_NONE)
        return;
    /* Asked by one whose view differs: whoever is closest in ours decides (rule 4). */
    if (!forwarded && want->arg == 0 && (want->flags & WIRE_LEASE_AVOID) == 0 &&
        !is_keeper(transfer, want, &first) && first != from) {
        struct wire_lease passed = *want;
        passed.flags = (want->flags & WIRE_LEASE_COPIES) | WIRE_LEASE_FORWARDED;
        set_contact(transfer, &passed, asker);
        transfer__send_lease(transfer, first, WIRE_TRANSFER_WANT, &passed);
        return;
    }
    struct desk_key key = key_of(transfer, want);
    struct desk *desk = make_desk(transfer, &key);
    if (desk == NULL)
        return;
    desk->copies = transfer__lease_copies(transfer, want);
    uint16_t bad = NODE_NONE;
    if ((want->flags & WIRE_LEASE_AVOID) != 0 && contact)
        bad = transfer__node_find(transfer, &want->contact.id);
    if (bad != NODE_NONE)
        remove_holder(desk, bad);
    remove_holder(desk, asker); /* who asks has it no more */
    decide(transfer, desk, asker, bad);
}

void transfer__desk_hold(struct transfer *transfer, uint16_t from, const struct wire_lease *hold)
{
    struct desk_key key = key_of(transfer, hold);
    struct desk *desk = make_desk(transfer, &key);
    struct wire_lease answer = *hold;
    answer.flags = 0;
    transfer__send_lease(transfer, from, WIRE_TRANSFER_HELD, &answer);
    if (desk == NULL)
        return;
    add_holder(transfer, desk, from);
    desk->lessee = NODE_NONE;
    if (desk->state != DESK_HELD)
        replicate(transfer, desk, from, WIRE_LEASE_HELD);
    desk->state = DESK_HELD;
    remove_waiter(desk, from);
    for (unsigned i = 0; i < NOTIFY_MAX && desk->waiter_count > 0; i++) {
        uint16_t waiter = desk->waiters[0];
        remove_waiter(desk, waiter);
        refer(transfer, desk, waiter, from);
    }
    desk->waiter_count = 0;
}

void transfer__desk_return(struct transfer *transfer, uint16_t from, const struct wire_lease *lease)
{
    struct desk_key key = key_of(transfer, lease);
    struct desk *desk = find_desk(transfer, &key);
    if (desk == NULL || desk->state != DESK_LEASED || desk->lessee != from)
        return;
    desk->state = desk->holder_count > 0 ? DESK_HELD : DESK_FREE;
    desk->lessee = NODE_NONE;
    desk->epoch++; /* a RENEW that is on its way must not bring the lease back */
    uint32_t pause_ms = lease->arg > 60000 ? 60000 : lease->arg;
    desk->not_before_us = transfer->now_us + pause_ms * (uint64_t)MS;
    replicate(transfer, desk, from, WIRE_LEASE_RETURNED);
}

/* A zone's own desk is known by the name of the zone, which no other message of a mesh's desk
 * bears. One that is lost is not made again: the zone may get the segment once more. */
void transfer__desk_renew(struct transfer *transfer, uint16_t from, const struct wire_renew *renew,
                          const struct wire_renewal *renewal)
{
    struct desk_key key;
    memset(&key, 0, sizeof key);
    key.blob = renew->blob;
    key.segment = renewal->segment;
    key.zone = renew->zone;
    struct desk *desk = find_desk(transfer, &key);
    key.zone = 0;
    if (desk == NULL)
        desk = make_desk(transfer, &key);
    if (desk == NULL)
        return;
    if (desk->state == DESK_FREE && desk->epoch <= renewal->epoch) {
        /* Granted by a keeper that is no more, or whose replica got lost. */
        desk->state = DESK_LEASED;
        desk->lessee = from;
        desk->epoch = renewal->epoch;
        desk->bytes = 0;
        desk->moved_us = transfer->now_us;
    }
    if (desk->state != DESK_LEASED || desk->lessee != from)
        return;
    desk->renewed_us = transfer->now_us;
    if (renewal->bytes != desk->bytes)
        desk->moved_us = transfer->now_us;
    desk->bytes = renewal->bytes;
}

void transfer__desk_replica(struct transfer *transfer, uint16_t from,
                            const struct wire_lease *replica)
{
    (void)from;
    struct desk_key key = key_of(transfer, replica);
    struct desk *desk = make_desk(transfer, &key);
    if (desk == NULL || (replica->flags & WIRE_LEASE_CONTACT) == 0 || replica->epoch < desk->epoch)
        return;
    uint16_t node = transfer__node_meet(transfer, &replica->contact.id, &replica->contact.addr);
    if (node == NODE_NONE)
        return;
    desk->epoch = replica->epoch;
    if (replica->arg == WIRE_LEASE_HELD) {
        add_holder(transfer, desk, node);
        desk->state = DESK_HELD;
        desk->lessee = NODE_NONE;
    } else if (replica->arg == WIRE_LEASE_TAKEN && desk->state != DESK_HELD) {
        desk->state = DESK_LEASED;
        desk->lessee = node;
        desk->renewed_us = desk->moved_us = transfer->now_us;
    } else if (replica->arg == WIRE_LEASE_RETURNED && desk->lessee == node) {
        desk->state = desk->holder_count > 0 ? DESK_HELD : DESK_FREE;
        desk->lessee = NODE_NONE;
    }
}

/* ---- housekeeping ---- */

void transfer__desks_forget(struct transfer *transfer, uint16_t node)
{
    for (struct desk *desk = transfer->desks_oldest; desk != NULL; desk = desk->newer) {
        remove_holder(desk, node);
        remove_waiter(desk, node);
        if (desk->lessee == node) {
            desk->lessee = NODE_NONE;
            desk->state = desk->holder_count > 0 ? DESK_HELD : DESK_FREE;
        }
    }
}

void transfer__desks_sweep(struct transfer *transfer)
{
    while (transfer->desks_oldest != NULL &&
           transfer->now_us - transfer->desks_oldest->touched_us > KEEP_US)
        drop_desk(transfer, transfer->desks_oldest);
}

void transfer__desks_close(struct transfer *transfer)
{
    while (transfer->desks_oldest != NULL)
        drop_desk(transfer, transfer->desks_oldest);
}

void transfer__desks_check(const struct transfer *transfer)
{
    uint32_t count = 0;
    for (const struct desk *desk = transfer->desks_oldest; desk != NULL; desk = desk->newer) {
        count++;
        ASSERT(desk->holder_count <= HOLDERS_MAX && desk->waiter_count <= WAITERS_MAX);
        ASSERT(desk->state != DESK_HELD || desk->holder_count > 0);
        ASSERT((desk->state == DESK_LEASED) == (desk->lessee != NODE_NONE));
        for (uint32_t i = 0; i < desk->holder_count; i++)
            ASSERT(transfer->nodes.slots[desk->holders[i].node].used);
    }
    ASSERT(count == transfer->desk_count && count <= DESKS_MAX);
}
