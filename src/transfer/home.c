/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeper of segments for the mesh: which zone reads the origin, which zones have the segment, and
 * who imports from whom. A holder serves one importing zone at a time: zones get a segment in a
 * chain, not all from the first (ALGORITHMS §3.3 rule 2: 1.21 against 1.44-2.2).
 */
#include "lease.h"

#define HOMES_MAX  16384
#define CLAIMS_MAX 32
#define PENDING_MS 300
/* As at the desk. */
#define CLAIM_SILENT_US (1 * S)
#define CLAIM_STUCK_US  (6 * S)
#define KEEP_US         (600 * (uint64_t)S)

enum claim_state {
    CLAIM_NONE = 1,  /* the zone asked, nothing decided */
    CLAIM_READING,   /* its importer reads the origin */
    CLAIM_WAITING,   /* its importer waits for a holder */
    CLAIM_IMPORTING, /* from the holder of another zone */
    CLAIM_HELD,      /* the zone has it */
};

/* What one zone has to do with the segment. */
struct claim {
    uint64_t zone;
    uint16_t node;   /* importer, then holder; NODE_NONE in CLAIM_NONE */
    uint16_t source; /* IMPORTING: holder */
    enum claim_state state;
    uint32_t epoch, zone_epoch;
    uint32_t bytes;
    uint64_t renewed_us, moved_us;
};

struct home_key {
    struct blob_key blob;
    uint32_t segment;
};

struct home {
    UT_hash_handle hh;
    struct home_key key;
    struct home *older, *newer;
    uint32_t epoch;
    uint64_t not_before_us, touched_us;
    uint32_t claim_count;
    struct claim *claims; /* owned, CLAIMS_MAX at most */
    uint32_t claim_capacity;
};

/* ---- table ---- */

static void unlink_home(struct transfer *transfer, struct home *home)
{
    if (home->older != NULL)
        home->older->newer = home->newer;
    else
        transfer->homes_oldest = home->newer;
    if (home->newer != NULL)
        home->newer->older = home->older;
    else
        transfer->homes_newest = home->older;
}

static void link_newest(struct transfer *transfer, struct home *home)
{
    home->newer = NULL;
    home->older = transfer->homes_newest;
    if (transfer->homes_newest != NULL)
        transfer->homes_newest->newer = home;
    else
        transfer->homes_oldest = home;
    transfer->homes_newest = home;
    home->touched_us = transfer->now_us;
}

static void drop_home(struct transfer *transfer, struct home *home)
{
    unlink_home(transfer, home);
    HASH_DEL(transfer->homes, home);
    ASSERT(transfer->home_count > 0);
    transfer->home_count--;
    transfer__release(transfer, home->claims);
    transfer__release(transfer, home);
}

static struct home *find_home(struct transfer *transfer, const struct blob_key *blob,
                              uint32_t segment)
{
    struct home_key key;
    memset(&key, 0, sizeof key);
    key.blob = *blob;
    key.segment = segment;
    struct home *home = NULL;
    HASH_FIND(hh, transfer->homes, &key, sizeof key, home);
    if (home != NULL) {
        unlink_home(transfer, home);
        link_newest(transfer, home);
    }
    return home;
}

static struct home *make_home(struct transfer *transfer, const struct blob_key *blob,
                              uint32_t segment)
{
    struct home *home = find_home(transfer, blob, segment);
    if (home != NULL)
        return home;
    if (transfer->home_count == HOMES_MAX)
        drop_home(transfer, transfer->homes_oldest);
    home = transfer__zalloc(transfer, sizeof *home);
    if (home == NULL)
        return NULL;
    home->key.blob = *blob;
    home->key.segment = segment;
    HASH_ADD(hh, transfer->homes, key, sizeof home->key, home);
    if (home->hh.tbl == NULL) {
        transfer__release(transfer, home);
        return NULL;
    }
    link_newest(transfer, home);
    transfer->home_count++;
    return home;
}

static struct claim *find_claim(const struct home *home, uint64_t zone)
{
    for (uint32_t i = 0; i < home->claim_count; i++) {
        if (home->claims[i].zone == zone)
            return &home->claims[i];
    }
    return NULL;
}

/* The zone's claim, made if needed; NULL without memory or room. */
static struct claim *make_claim(struct transfer *transfer, struct home *home, uint64_t zone)
{
    struct claim *claim = find_claim(home, zone);
    if (claim != NULL)
        return claim;
    if (home->claim_count == CLAIMS_MAX ||
        transfer__grow(transfer, (void **)&home->claims, &home->claim_capacity,
                       home->claim_count + 1, sizeof *home->claims) != 0)
        return NULL;
    claim = &home->claims[home->claim_count++];
    *claim =
        (struct claim){.zone = zone, .node = NODE_NONE, .source = NODE_NONE, .state = CLAIM_NONE};
    return claim;
}

static void reset_claim(struct claim *claim)
{
    claim->state = CLAIM_NONE;
    claim->node = claim->source = NODE_NONE;
}

/* ---- deciding ---- */

static bool is_alive(const struct transfer *transfer, const struct claim *claim)
{
    return transfer->now_us - claim->renewed_us < CLAIM_SILENT_US &&
           transfer->now_us - claim->moved_us < CLAIM_STUCK_US &&
           (claim->node == NODE_NONE || !transfer__is_silent(transfer, claim->node));
}

static bool is_active(const struct transfer *transfer, const struct claim *claim,
                      enum claim_state state)
{
    return claim->state == state && is_alive(transfer, claim);
}

static bool is_serving(const struct transfer *transfer, const struct home *home, uint16_t holder)
{
    for (uint32_t i = 0; i < home->claim_count; i++) {
        if (home->claims[i].source == holder &&
            is_active(transfer, &home->claims[i], CLAIM_IMPORTING))
            return true;
    }
    return false;
}

static bool is_holder(struct transfer *transfer, const struct claim *claim)
{
    return claim->state == CLAIM_HELD &&
           (claim->node == NODE_SELF || (transfer__node_usable(transfer, claim->node) &&
                                         !transfer__is_silent(transfer, claim->node)));
}

/* A holder that serves no other zone now. `any`: whether there is a holder at all. */
static uint16_t free_holder(struct transfer *transfer, const struct home *home, bool *any)
{
    *any = false;
    uint16_t found = NODE_NONE;
    for (uint32_t i = 0; i < home->claim_count; i++) {
        if (!is_holder(transfer, &home->claims[i]))
            continue;
        *any = true;
        if (found == NODE_NONE && !is_serving(transfer, home, home->claims[i].node))
            found = home->claims[i].node;
    }
    return found;
}

/* Does what `claim` gets come, over however many zones, from this node? */
static bool depends_on(const struct home *home, const struct claim *claim, uint16_t node)
{
    for (uint32_t hops = 0; hops <= home->claim_count && claim != NULL; hops++) {
        if (claim->node == node || claim->source == node)
            return true;
        const struct claim *next = NULL;
        for (uint32_t i = 0; i < home->claim_count && claim->source != NODE_NONE; i++) {
            if (home->claims[i].node == claim->source)
                next = &home->claims[i];
        }
        claim = next;
    }
    return false;
}

/* A node that is bringing the segment in and serves no other zone: its pieces can be had as they
 * come, so that a zone need not wait for whole segments. */
static uint16_t free_bringer(struct transfer *transfer, const struct home *home,
                             const struct claim *asking, uint16_t asker, uint16_t avoid)
{
    for (uint32_t i = 0; i < home->claim_count; i++) {
        const struct claim *claim = &home->claims[i];
        bool brings = is_active(transfer, claim, CLAIM_READING) ||
                      is_active(transfer, claim, CLAIM_IMPORTING);
        if (claim != asking && brings && claim->node != avoid &&
            !is_serving(transfer, home, claim->node) && !depends_on(home, claim, asker) &&
            transfer__node_usable(transfer, claim->node) &&
            !transfer__is_silent(transfer, claim->node))
            return claim->node;
    }
    return NODE_NONE;
}

static struct wire_lease about(const struct home *home, const struct claim *claim)
{
    return (struct wire_lease){
        .blob = home->key.blob,
        .segment = home->key.segment,
        .level = WIRE_LEVEL_HOME,
        .zone = claim->zone,
        .epoch = claim->epoch,
        .zone_epoch = claim->zone_epoch,
    };
}

static void replicate(struct transfer *transfer, const struct home *home, const struct claim *claim,
                      uint16_t node, enum wire_lease_state state)
{
    struct wire_lease replica = about(home, claim);
    replica.arg = state;
    replica.flags = WIRE_LEASE_CONTACT;
    replica.contact = transfer__node_contact(transfer, node);
    uint8_t key[32];
    segment_key_of(&home->key.blob, home->key.segment, key);
    transfer__replicate(transfer, transfer__home_zone(transfer, key), &replica);
}

static void new_epoch(struct transfer *transfer, struct home *home, struct claim *claim,
                      uint16_t node)
{
    if (claim->node != node || claim->epoch == 0) {
        claim->epoch = ++home->epoch;
        claim->bytes = 0;
    }
    claim->node = node;
    claim->renewed_us = claim->moved_us = transfer->now_us;
}

static void send_grant(struct transfer *transfer, struct home *home, struct claim *claim,
                       uint16_t node)
{
    bool again = claim->state == CLAIM_READING && claim->node == node;
    new_epoch(transfer, home, claim, node);
    claim->state = CLAIM_READING;
    claim->source = NODE_NONE;
    struct wire_lease answer = about(home, claim);
    answer.arg = CLAIM_SILENT_US / MS;
    transfer__send_lease(transfer, node, WIRE_TRANSFER_GRANT, &answer);
    if (!again)
        replicate(transfer, home, claim, node, WIRE_LEASE_TAKEN);
}

static void send_refer(struct transfer *transfer, struct home *home, struct claim *claim,
                       uint16_t node, uint16_t holder)
{
    new_epoch(transfer, home, claim, node);
    claim->state = CLAIM_IMPORTING;
    claim->source = holder;
    transfer->stats.leases_referred++;
    struct wire_lease answer = about(home, claim);
    answer.flags = WIRE_LEASE_CONTACT;
    answer.contact = transfer__node_contact(transfer, holder);
    transfer__send_lease(transfer, node, WIRE_TRANSFER_REFER, &answer);
}

/* Bytes come to a zone that brings it in. */
static bool is_moving(const struct transfer *transfer, const struct home *home)
{
    for (uint32_t i = 0; i < home->claim_count; i++) {
        const struct claim *claim = &home->claims[i];
        if (claim->bytes > 0 && is_active(transfer, claim, CLAIM_READING))
            return true;
    }
    return false;
}

static void send_pending(struct transfer *transfer, struct home *home, struct claim *claim,
                         uint16_t node)
{
    struct wire_lease answer = about(home, claim);
    answer.flags |= is_moving(transfer, home) ? WIRE_LEASE_MOVES : 0;
    answer.arg = PENDING_MS;
    if (home->not_before_us > transfer->now_us)
        answer.arg = (uint32_t)((home->not_before_us - transfer->now_us) / MS) + PENDING_MS;
    answer.epoch = 0;
    transfer->stats.leases_pending++;
    transfer__send_lease(transfer, node, WIRE_TRANSFER_PENDING, &answer);
}

static void let_wait(struct transfer *transfer, struct home *home, struct claim *claim,
                     uint16_t node)
{
    claim->state = CLAIM_WAITING;
    claim->node = node;
    claim->source = NODE_NONE;
    claim->renewed_us = claim->moved_us = transfer->now_us;
    send_pending(transfer, home, claim, node);
}

/* What this node's own swarm knows stands in for a claim it never saw. */
static void learn(struct transfer *transfer, struct home *home, uint16_t asker, uint16_t avoid)
{
    uint16_t known =
        transfer__known_holder(transfer, &home->key.blob, home->key.segment, asker, avoid);
    if (known == NODE_NONE)
        return;
    uint64_t zone = transfer__zone_id(transfer, transfer__zone_of(transfer, NODE_SELF));
    struct claim *claim = make_claim(transfer, home, zone);
    if (claim == NULL || claim->state == CLAIM_HELD)
        return;
    claim->state = CLAIM_HELD;
    claim->node = known;
    claim->source = NODE_NONE;
}

static bool someone_reads(const struct transfer *transfer, const struct home *home,
                          const struct claim *except)
{
    for (uint32_t i = 0; i < home->claim_count; i++) {
        const struct claim *claim = &home->claims[i];
        if (claim != except && is_active(transfer, claim, CLAIM_READING))
            return true;
    }
    return false;
}

/* The zone's importer asks. */
static void decide(struct transfer *transfer, struct home *home, struct claim *claim,
                   uint16_t asker, uint16_t avoid)
{
    bool any;
    uint16_t holder = free_holder(transfer, home, &any);
    if (!any)
        holder = free_bringer(transfer, home, claim, asker, avoid);
    bool reads = claim->state == CLAIM_READING && claim->node == asker;
    if (holder != NODE_NONE && holder != asker && !reads)
        send_refer(transfer, home, claim, asker, holder);
    else if (claim->state == CLAIM_IMPORTING && claim->node == asker && claim->source != NODE_NONE)
        send_refer(transfer, home, claim, asker, claim->source);
    else if (!reads && (any || someone_reads(transfer, home, claim) ||
                        home->not_before_us > transfer->now_us))
        let_wait(transfer, home, claim, asker);
    else
        send_grant(transfer, home, claim, asker);
}

void transfer__home_want(struct transfer *transfer, uint16_t from, const struct wire_lease *want)
{
    uint16_t asker = from;
    bool contact = (want->flags & WIRE_LEASE_CONTACT) != 0;
    if ((want->flags & WIRE_LEASE_FORWARDED) != 0 && contact)
        asker = transfer__node_meet(transfer, &want->contact.id, &want->contact.addr);
    struct home *home = make_home(transfer, &want->blob, want->segment);
    if (asker == NODE_NONE || home == NULL)
        return;
    uint16_t bad = NODE_NONE;
    if ((want->flags & WIRE_LEASE_AVOID) != 0 && contact) {
        bad = transfer__node_find(transfer, &want->contact.id);
        for (uint32_t i = 0; i < home->claim_count; i++) {
            if (bad != NODE_NONE && home->claims[i].node == bad &&
                home->claims[i].state == CLAIM_HELD)
                reset_claim(&home->claims[i]);
        }
    }
    learn(transfer, home, asker, bad);
    struct claim *claim = make_claim(transfer, home, want->zone);
    if (claim == NULL)
        return;
    bool same = claim->node == asker;
    if (want->zone_epoch != 0)
        claim->zone_epoch = want->zone_epoch;
    if (claim->state == CLAIM_HELD && (same || !is_holder(transfer, claim)))
        reset_claim(claim); /* it asks, so it has lost it */
    if ((claim->state == CLAIM_IMPORTING && same && (want->flags & WIRE_LEASE_AVOID) != 0))
        reset_claim(claim);
    bool other_at_it = !same && (is_active(transfer, claim, CLAIM_READING) ||
                                 is_active(transfer, claim, CLAIM_IMPORTING));
    if (other_at_it)
        send_pending(transfer, home, claim, asker);
    else
        decide(transfer, home, claim, asker, bad);
}

/* Gives waiting zones the holders that are free now. */
static void serve_waiting(struct transfer *transfer, struct home *home)
{
    for (uint32_t i = 0; i < home->claim_count; i++) {
        struct claim *claim = &home->claims[i];
        bool any;
        if (!is_active(transfer, claim, CLAIM_WAITING))
            continue;
        uint16_t holder = free_holder(transfer, home, &any);
        if (!any)
            holder = free_bringer(transfer, home, claim, claim->node, NODE_NONE);
        if (holder != NODE_NONE && claim->node != holder)
            send_refer(transfer, home, claim, claim->node, holder);
    }
}

void transfer__home_hold(struct transfer *transfer, uint16_t from, const struct wire_lease *hold)
{
    struct wire_lease answer = *hold;
    answer.flags = 0;
    transfer__send_lease(transfer, from, WIRE_TRANSFER_HELD, &answer);
    struct home *home = make_home(transfer, &hold->blob, hold->segment);
    if (home == NULL)
        return;
    struct claim *claim = make_claim(transfer, home, hold->zone);
    if (claim == NULL || (claim->state == CLAIM_HELD && claim->node == from))
        return;
    claim->state = CLAIM_HELD;
    claim->node = from;
    claim->source = NODE_NONE;
    replicate(transfer, home, claim, from, WIRE_LEASE_HELD);
    serve_waiting(transfer, home);
}

void transfer__home_return(struct transfer *transfer, uint16_t from, const struct wire_lease *lease)
{
    struct home *home = find_home(transfer, &lease->blob, lease->segment);
    struct claim *claim = home == NULL ? NULL : find_claim(home, lease->zone);
    if (claim == NULL || claim->node != from || claim->state == CLAIM_HELD)
        return;
    /* A RENEW that is on its way must not bring the claim back: nobody would read the segment until
     * that is thought dead (3 nodes within 1 s, 128 MiB: one in six pulls 0.3 s late). */
    claim->epoch = ++home->epoch;
    replicate(transfer, home, claim, from, WIRE_LEASE_RETURNED);
    reset_claim(claim);
    uint32_t pause_ms = lease->arg > 60000 ? 60000 : lease->arg;
    home->not_before_us = transfer->now_us + pause_ms * (uint64_t)MS;
    for (uint32_t i = 0; i < home->claim_count && pause_ms == 0; i++) {
        struct claim *other = &home->claims[i];
        if (!is_active(transfer, other, CLAIM_WAITING))
            continue;
        decide(transfer, home, other, other->node, NODE_NONE);
        return;
    }
}

void transfer__home_renew(struct transfer *transfer, uint16_t from, const struct wire_renew *renew,
                          const struct wire_renewal *renewal)
{
    struct home *home = make_home(transfer, &renew->blob, renewal->segment);
    struct claim *claim = home == NULL ? NULL : make_claim(transfer, home, renew->zone);
    if (claim == NULL)
        return;
    if (claim->state == CLAIM_NONE && renewal->epoch >= claim->epoch) {
        claim->state = CLAIM_READING;
        claim->node = from;
        claim->epoch = renewal->epoch;
        home->epoch = home->epoch > renewal->epoch ? home->epoch : renewal->epoch;
        claim->moved_us = transfer->now_us;
    }
    if (claim->node != from)
        return;
    claim->renewed_us = transfer->now_us;
    if (renewal->bytes != claim->bytes)
        claim->moved_us = transfer->now_us;
    claim->bytes = renewal->bytes;
}

void transfer__home_replica(struct transfer *transfer, uint16_t from,
                            const struct wire_lease *replica)
{
    (void)from;
    struct home *home = make_home(transfer, &replica->blob, replica->segment);
    struct claim *claim = home == NULL ? NULL : make_claim(transfer, home, replica->zone);
    if (claim == NULL || (replica->flags & WIRE_LEASE_CONTACT) == 0)
        return;
    uint16_t node = transfer__node_meet(transfer, &replica->contact.id, &replica->contact.addr);
    if (node == NODE_NONE)
        return;
    home->epoch = home->epoch > replica->epoch ? home->epoch : replica->epoch;
    if (replica->arg == WIRE_LEASE_RETURNED) {
        if (claim->node == node && claim->state != CLAIM_HELD)
            reset_claim(claim);
        if (claim->state == CLAIM_NONE && replica->epoch > claim->epoch)
            claim->epoch = replica->epoch;
        return;
    }
    if (replica->arg != WIRE_LEASE_HELD && claim->state == CLAIM_HELD)
        return;
    claim->state = replica->arg == WIRE_LEASE_HELD ? CLAIM_HELD : CLAIM_READING;
    claim->node = node;
    claim->source = NODE_NONE;
    claim->epoch = replica->epoch;
    claim->renewed_us = claim->moved_us = transfer->now_us;
}

/* ---- housekeeping ---- */

void transfer__homes_forget(struct transfer *transfer, uint16_t node)
{
    for (struct home *home = transfer->homes_oldest; home != NULL; home = home->newer) {
        for (uint32_t i = 0; i < home->claim_count; i++) {
            struct claim *claim = &home->claims[i];
            if (claim->node == node || claim->source == node)
                reset_claim(claim);
        }
    }
}

void transfer__homes_sweep(struct transfer *transfer)
{
    while (transfer->homes_oldest != NULL &&
           transfer->now_us - transfer->homes_oldest->touched_us > KEEP_US)
        drop_home(transfer, transfer->homes_oldest);
}

void transfer__homes_close(struct transfer *transfer)
{
    while (transfer->homes_oldest != NULL)
        drop_home(transfer, transfer->homes_oldest);
}

void transfer__homes_check(const struct transfer *transfer)
{
    uint32_t count = 0;
    for (const struct home *home = transfer->homes_oldest; home != NULL; home = home->newer) {
        count++;
        ASSERT(home->claim_count <= home->claim_capacity && home->claim_count <= CLAIMS_MAX);
        for (uint32_t i = 0; i < home->claim_count; i++) {
            const struct claim *claim = &home->claims[i];
            ASSERT((claim->state == CLAIM_NONE) == (claim->node == NODE_NONE));
            ASSERT(claim->node == NODE_NONE || transfer->nodes.slots[claim->node].used);
            ASSERT(claim->source == NODE_NONE || claim->state == CLAIM_IMPORTING);
        }
    }
    ASSERT(count == transfer->home_count && count <= HOMES_MAX);
}
