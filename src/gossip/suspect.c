/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Suspicion (SWIM §4.2) with a time that independent accusers shorten (Lifeguard §IV.B), and the
 * confirmation before death: whatever others say, we ping the suspect twice ourselves at the end,
 * so that no word alone makes a node DEAD here (DHT-6). A claim that somebody is dead is an
 * accusation like others; two from different senders bring our own confirmation forward.
 */
#include "core.h"

#define SUSPICIONS_FIRST 16
/* Entries handled in one call: the rest comes with the next, due at once. */
#define STEPS_MAX 256
/* Others asked whether they know better before a node is held dead. */
#define ASKED 2

/* 1,000 * (1 - log(C+1) / log(K+1)), Lifeguard §IV.B: share of the time beyond the shortest that is
 * left with C confirmations of K that count. */
static const uint16_t time_left[4][4] = {
    {0, 0, 0, 0},
    {1000, 0, 0, 0},
    {1000, 369, 0, 0},
    {1000, 500, 208, 0},
};

const struct suspicion *gossip__suspicion(const struct gossip *g, const struct node *node)
{
    ASSERT(node->suspicion < g->suspicion_capacity);
    return &g->suspicions[node->suspicion];
}

/* ---- heap by (due, order) ---- */

static bool earlier(const struct gossip *g, uint32_t a, uint32_t b)
{
    const struct suspicion *x = &g->suspicions[a], *y = &g->suspicions[b];
    return x->due_us != y->due_us ? x->due_us < y->due_us : x->order < y->order;
}

static void heap_put(struct gossip *g, uint32_t at, uint32_t entry)
{
    g->heap[at] = entry;
    g->suspicions[entry].heap_pos = at;
}

/* Moves the entry at `at` to where it belongs. */
static void heap_fix(struct gossip *g, uint32_t at)
{
    uint32_t entry = g->heap[at];
    while (at > 0 && earlier(g, entry, g->heap[(at - 1) / 2])) {
        heap_put(g, at, g->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= g->suspicion_count)
            break;
        if (child + 1 < g->suspicion_count && earlier(g, g->heap[child + 1], g->heap[child]))
            child++;
        if (!earlier(g, g->heap[child], entry))
            break;
        heap_put(g, at, g->heap[child]);
        at = child;
    }
    heap_put(g, at, entry);
}

static void set_due(struct gossip *g, uint32_t entry, uint64_t due_us)
{
    g->suspicions[entry].due_us = due_us;
    g->suspicions[entry].order = ++g->last_order;
    heap_fix(g, g->suspicions[entry].heap_pos);
}

/* ---- pool ---- */

static int grow(struct gossip *g)
{
    uint32_t old = g->suspicion_capacity;
    uint32_t capacity = old == 0 ? SUSPICIONS_FIRST : 2 * old;
    struct suspicion *pool = gossip__alloc(g, g->suspicions, capacity, sizeof *pool);
    if (pool == NULL)
        return E_NO_MEMORY;
    g->suspicions = pool;
    uint32_t *heap = gossip__alloc(g, g->heap, capacity, sizeof *heap);
    if (heap == NULL)
        return E_NO_MEMORY;
    g->heap = heap;
    for (uint32_t i = capacity; i-- > old;) {
        pool[i] = (struct suspicion){.node = NODE_NONE, .next_free = g->suspicion_free};
        g->suspicion_free = i;
    }
    g->suspicion_capacity = capacity;
    return 0;
}

/* A new entry of a node that is not suspected; NODE_NONE without memory. */
static uint32_t entry_new(struct gossip *g, uint32_t index)
{
    if (g->suspicion_free == NODE_NONE && grow(g) != 0)
        return NODE_NONE;
    uint32_t entry = g->suspicion_free;
    struct suspicion *suspicion = &g->suspicions[entry];
    g->suspicion_free = suspicion->next_free;
    *suspicion = (struct suspicion){
        .node = index,
        .next_free = NODE_NONE,
        .since_us = g->now_us,
        .due_us = UINT64_MAX,
        .order = ++g->last_order,
    };
    heap_put(g, g->suspicion_count++, entry);
    gossip__node(g, index)->suspicion = (uint16_t)entry;
    return entry;
}

void gossip__suspicion_end(struct gossip *g, uint32_t index)
{
    struct node *node = gossip__node(g, index);
    uint32_t entry = node->suspicion;
    ASSERT(entry < g->suspicion_capacity && g->suspicions[entry].node == index);
    uint32_t at = g->suspicions[entry].heap_pos;
    uint32_t last = g->heap[--g->suspicion_count];
    if (last != entry) {
        heap_put(g, at, last);
        heap_fix(g, at);
    }
    g->suspicions[entry] = (struct suspicion){.node = NODE_NONE, .next_free = g->suspicion_free};
    g->suspicion_free = entry;
    node->suspicion = (uint16_t)NODE_NONE;
    gossip__unqueue(g, index); /* the claim is no longer true; whoever calls queues what is */
}

/* ---- time ---- */

/* How long the two pings at the end take. */
static uint64_t confirm_us(const struct gossip *g)
{
    return g->config.probe_timeout_us * (g->health + 1);
}

/* From the first accusation to DEAD. */
static uint64_t suspicion_us(const struct gossip *g, unsigned accuser_count)
{
    uint32_t members = (uint32_t)gossip_count(g);
    uint64_t period_us = g->config.period_us;
    uint64_t longest =
        period_us * g->config.suspicion_multiplier * gossip__milli_log10(members + 1) / 1000;
    if (longest < 2 * period_us)
        longest = 2 * period_us;
    /* A tenth: 1.5 s of 15 s at 1,000 members, time enough for a refutation to go round, which
     * takes as long as the accusations took to come. */
    uint64_t shortest = longest / 10;
    if (shortest < period_us * 3 / 2)
        shortest = period_us * 3 / 2;
    /* Besides the accused and the first accuser. */
    unsigned others = members < 2 ? 0 : members - 2 > 3 ? 3 : members - 2;
    unsigned confirmations = accuser_count - 1 > others ? others : accuser_count - 1;
    return shortest + (longest - shortest) * time_left[others][confirmations] / 1000;
}

/* When to begin with the pings, by who has accused so far. */
static uint64_t confirm_from(const struct gossip *g, const struct suspicion *suspicion)
{
    if (suspicion->confirmed_count >= 2)
        return g->now_us;
    uint64_t end = suspicion->since_us + suspicion_us(g, suspicion->accuser_count);
    uint64_t before = confirm_us(g);
    return end < g->now_us + before ? g->now_us : end - before;
}

/* ---- accusations ---- */

/* DHT-6: an accuser of more than 5 % of the members in a minute is ignored. */
static bool accuser_allowed(struct gossip *g, struct node *accuser)
{
    uint16_t minute = (uint16_t)(g->now_us / MINUTE_US + 1);
    if (accuser->of.accusations.minute != minute) {
        accuser->of.accusations.minute = minute;
        accuser->of.accusations.count = 0;
    }
    size_t allowed = gossip_count(g) / 20;
    if (accuser->of.accusations.count >= (allowed < ACCUSATIONS_MIN ? ACCUSATIONS_MIN : allowed)) {
        g->stats.rejected++;
        return false;
    }
    accuser->of.accusations.count++;
    return true;
}

static bool accused_by(const struct suspicion *suspicion, const struct peer_addr *accuser)
{
    for (unsigned i = 0; i < suspicion->accuser_count; i++) {
        if (peer_addr_equal(&suspicion->accusers[i], accuser))
            return true;
    }
    return false;
}

/* Is a sender that holds it dead one more than those who do? Two are enough. */
static bool confirms(const struct suspicion *suspicion, const struct peer_addr *by)
{
    return suspicion->confirmed_count == 0 ||
           (suspicion->confirmed_count == 1 && !peer_addr_equal(&suspicion->confirmed_by, by));
}

bool gossip__accuse(struct gossip *g, uint32_t index, const struct peer_addr *accuser,
                    bool confirmed)
{
    struct node *node = gossip__node(g, index);
    ASSERT(index != g->self && gossip__live(g, index));
    bool suspected = node->state == MEMBER_SUSPECT, adds = true;
    if (suspected) {
        const struct suspicion *held = &g->suspicions[node->suspicion];
        confirmed = confirmed && confirms(held, accuser);
        adds = held->accuser_count < WIRE_GOSSIP_ACCUSERS_MAX && !accused_by(held, accuser);
    }
    if (!adds && !confirmed)
        return false;
    uint32_t by = gossip__by_addr(g, accuser);
    if (by == NODE_NONE || by == index || !gossip__live(g, by))
        return false;
    /* Own probes are not words of others: local health is what checks those. */
    if (adds && by != g->self && !accuser_allowed(g, gossip__node(g, by)))
        return false;
    if (!suspected) {
        if (entry_new(g, index) == NODE_NONE)
            return false;
        gossip__set_state(g, index, MEMBER_SUSPECT);
        g->stats.suspicions++;
    }
    struct suspicion *suspicion = &g->suspicions[node->suspicion];
    if (confirmed) {
        suspicion->confirmed_by = *accuser;
        suspicion->confirmed_count++;
    }
    if (adds) {
        suspicion->accusers[suspicion->accuser_count++] = *accuser;
        gossip__enqueue(g, index); /* Lifeguard §IV.B: the first K confirmations are passed on */
    }
    if (suspicion->stage == SUSPICION_WAIT)
        set_due(g, node->suspicion, confirm_from(g, suspicion));
    return true;
}

/* ---- the end ---- */

static void declare_dead(struct gossip *g, uint32_t index)
{
    gossip__set_state(g, index, MEMBER_DEAD);
    g->stats.deaths++;
    gossip__enqueue(g, index);
}

/* Tells a few others of the suspicion, for their corrections (merge.c): where the suspect cannot be
 * heard by us and its refutation was lost on the way, they know better. */
static void ask_around(struct gossip *g, uint32_t suspect)
{
    for (unsigned i = 0; i < ASKED; i++) {
        uint32_t index = gossip__random_live(g);
        if (index == suspect) /* there is at least that one */
            continue;
        const struct peer_addr *to = gossip__addr(g, index);
        gossip__begin(g, WIRE_GOSSIP_NEWS, 0, to);
        (void)gossip__add_claim(g, suspect);
        gossip__send(g, to, 0);
    }
}

static void step(struct gossip *g, uint32_t entry)
{
    struct suspicion *suspicion = &g->suspicions[entry];
    uint32_t index = suspicion->node;
    if (suspicion->stage == SUSPICION_SECOND) {
        declare_dead(g, index);
        return;
    }
    bool first = suspicion->stage == SUSPICION_WAIT;
    bool again = !first || gossip__ping_awaited(g, index);
    suspicion->stage = first ? SUSPICION_FIRST : SUSPICION_SECOND;
    set_due(g, entry, g->now_us + confirm_us(g) / 2);
    gossip__ping(g, index, again, false);
    if (first)
        ask_around(g, index);
}

void gossip__suspect_advance(struct gossip *g)
{
    for (unsigned i = 0; i < STEPS_MAX && g->suspicion_count > 0; i++) {
        uint32_t entry = g->heap[0];
        if (g->suspicions[entry].due_us > g->now_us)
            return;
        step(g, entry);
    }
}

uint64_t gossip__suspect_deadline(const struct gossip *g)
{
    return g->suspicion_count == 0 ? UINT64_MAX : g->suspicions[g->heap[0]].due_us;
}
