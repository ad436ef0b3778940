/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gone, looked at now and then: a random one so that a healed partition is found again from
 * either side (N-1), and those whom somebody else still holds alive. A PING tells the dead node how
 * we hold it; if it lives, its ACK refutes. Those gone for long are forgotten here.
 */
#include "core.h"

/* Rounds of the revive list: ten a second, so many pings each. A heal between halves of a mesh of
 * 1,000 is gone through in 3 s by one node alone, for 12 KB/s; all nodes share the work. */
#define REVIVE_ROUND_US 100000
#define REVIVE_PINGS    20
#define REVIVE_FIRST    64
/* Gone nodes looked at for age in one tick. */
#define SWEEP_MAX 64

uint64_t gossip__dead_probe_interval(const struct gossip *g)
{
    /* Ten probes of the dead a second from the whole mesh, but each node at least once in a minute
     * and at most once in ten periods. */
    uint64_t periods = gossip_count(g) / 10;
    periods = periods < 10 ? 10 : periods > 60 ? 60 : periods;
    return periods * g->config.period_us;
}

static bool grow_revive(struct gossip *g)
{
    uint32_t capacity = g->revive_capacity == 0 ? REVIVE_FIRST : 2 * g->revive_capacity;
    uint16_t *grown = gossip__alloc(g, g->revive, capacity, sizeof *grown);
    if (grown == NULL)
        return false;
    g->revive = grown;
    g->revive_capacity = capacity;
    return true;
}

void gossip__revive_later(struct gossip *g, uint32_t index)
{
    struct node *node = gossip__node(g, index);
    if (node->to_revive)
        return;
    if (g->revive_count == g->revive_capacity && !grow_revive(g)) {
        g->stats.dropped++;
        return; /* the random probe of the dead comes to it */
    }
    node->to_revive = 1;
    g->revive[g->revive_count++] = (uint16_t)index;
    if (g->revive_us == UINT64_MAX)
        g->revive_us = g->now_us;
}

void gossip__revive_cancel(struct gossip *g, uint32_t index)
{
    struct node *node = gossip__node(g, index);
    for (uint32_t i = 0; node->to_revive; i++) {
        ASSERT(i < g->revive_count);
        if (g->revive[i] != index)
            continue;
        g->revive[i] = g->revive[--g->revive_count];
        node->to_revive = 0;
    }
}

/* In random order, so that nodes with the same list do not all ask the same first. */
static void revive_round(struct gossip *g)
{
    for (unsigned sent = 0; sent < REVIVE_PINGS && g->revive_count > 0;) {
        uint32_t at = (uint32_t)prng_below(&g->prng, g->revive_count);
        uint32_t index = g->revive[at];
        g->revive[at] = g->revive[--g->revive_count];
        gossip__node(g, index)->to_revive = 0;
        if (gossip__live(g, index))
            continue; /* came back meanwhile */
        gossip__ping(g, index, false, false);
        sent++;
    }
    g->revive_us = g->revive_count == 0 ? UINT64_MAX : g->now_us + REVIVE_ROUND_US;
}

static void sweep(struct gossip *g)
{
    for (unsigned i = 0; i < SWEEP_MAX && g->gone_count > 0; i++) {
        if (g->dead_sweep >= g->gone_count)
            g->dead_sweep = 0;
        uint32_t index = gossip__gone(g, g->dead_sweep);
        const struct node *node = gossip__node(g, index);
        uint64_t periods = node->state == MEMBER_DEAD ? DEAD_KEEP_PERIODS : LEFT_KEEP_PERIODS;
        /* Gone by the end of its unit at the latest. */
        uint64_t gone_us = ((uint64_t)node->of.gone_at + 1) * GONE_UNIT_US;
        bool old = g->now_us > gone_us + periods * g->config.period_us;
        if (old && !node->dirty)
            gossip__forget(g, index); /* another takes its place in gone[] */
        else
            g->dead_sweep++;
    }
}

static void dead_tick(struct gossip *g)
{
    uint64_t interval = gossip__dead_probe_interval(g);
    g->dead_probe_us = g->now_us + gossip__between(g, interval * 3 / 4, interval * 5 / 4);
    sweep(g);
    if (g->gone_count == 0)
        return;
    /* Also of those that left: a new process there may not have found anybody yet. */
    gossip__revive_later(g, gossip__gone(g, (uint32_t)prng_below(&g->prng, g->gone_count)));
}

void gossip__revive_advance(struct gossip *g)
{
    if (g->gone_count > 0 && g->dead_probe_us <= g->now_us)
        dead_tick(g);
    if (g->revive_us <= g->now_us)
        revive_round(g);
}

uint64_t gossip__revive_deadline(const struct gossip *g)
{
    uint64_t dead = g->gone_count > 0 ? g->dead_probe_us : UINT64_MAX;
    return dead < g->revive_us ? dead : g->revive_us;
}
