/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bootstrap: addresses that may be members. Each is asked by SYNC_CHECK, which introduces us and
 * begins the first push-pull; those that do not answer are asked again, ever more rarely, for as
 * long as nobody is known, and for some minutes after that, so that two groups that began apart
 * with each other's addresses find together.
 */
#include "core.h"

#include <string.h>

/* Asked at once; the others follow so far apart (256 take 13 s). */
#define AT_ONCE      4
#define APART_US     50000
#define BACKOFF_MAX  30000000ULL
#define SENDS_A_CALL 8
/* With members known, an address is given up after so many tries: ten minutes of them, for a few
 * nodes that began together in a partition know nobody else on the other side (N-1). */
#define TRIES_MAX 24

static void drop(struct gossip *g, unsigned at)
{
    g->seeds[at] = g->seeds[--g->seed_count];
}

static bool listed(const struct gossip *g, const struct peer_addr *addr)
{
    for (unsigned i = 0; i < g->seed_count; i++) {
        if (peer_addr_equal(&g->seeds[i].addr, addr))
            return true;
    }
    return false;
}

static void add(struct gossip *g, const struct peer_addr *addr)
{
    if (addr->port == 0 || listed(g, addr) || gossip__by_addr(g, addr) != NODE_NONE)
        return;
    if (g->seed_count == SEEDS_MAX) {
        g->stats.dropped++;
        return;
    }
    unsigned behind = g->seed_count < AT_ONCE ? 0 : g->seed_count - AT_ONCE + 1;
    g->seeds[g->seed_count++] =
        (struct seed){.addr = *addr, .due_us = g->now_us + (uint64_t)behind * APART_US};
}

void gossip__join_add(struct gossip *g, const struct peer_addr *addrs, size_t addr_count)
{
    for (size_t i = 0; i < addr_count; i++)
        add(g, &addrs[i]);
}

bool gossip__seed_answered(struct gossip *g, const struct peer_addr *from, uint32_t seq)
{
    for (unsigned i = 0; i < g->seed_count; i++) {
        if (g->seeds[i].seq == seq && seq != 0 && peer_addr_equal(&g->seeds[i].addr, from)) {
            drop(g, i);
            return true;
        }
    }
    return false;
}

static void ask(struct gossip *g, struct seed *seed)
{
    seed->seq = gossip__seq(g);
    uint64_t backoff = seed->tries < 16 ? g->config.period_us / 2 << seed->tries : BACKOFF_MAX;
    if (backoff > BACKOFF_MAX)
        backoff = BACKOFF_MAX;
    seed->due_us = g->now_us + gossip__between(g, backoff * 3 / 4, backoff * 5 / 4);
    if (seed->tries < UINT8_MAX)
        seed->tries++;
    gossip__begin(g, WIRE_GOSSIP_SYNC_CHECK, seed->seq, &seed->addr);
    g->out.view_hash = g->view_hash;
    g->out.view_count = (uint32_t)gossip_count(g);
    (void)gossip__add_record(g, g->self);
    gossip__send(g, &seed->addr, 0);
}

void gossip__join_advance(struct gossip *g)
{
    unsigned sends = 0;
    for (unsigned i = g->seed_count; i-- > 0 && sends < SENDS_A_CALL;) {
        struct seed *seed = &g->seeds[i];
        if (seed->due_us > g->now_us)
            continue;
        bool tired = g->live_count > 0 && seed->tries >= TRIES_MAX;
        if (tired || gossip__by_addr(g, &seed->addr) != NODE_NONE) {
            drop(g, i);
            continue;
        }
        ask(g, seed);
        sends++;
    }
}

uint64_t gossip__join_deadline(const struct gossip *g)
{
    uint64_t deadline = UINT64_MAX;
    for (unsigned i = 0; i < g->seed_count && !g->left; i++) {
        if (g->seeds[i].due_us < deadline)
            deadline = g->seeds[i].due_us;
    }
    return deadline;
}
