/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What keeps the table true (Kademlia §2.3): joining by a lookup of our own id, refreshing buckets
 * that no lookup touched, pinging the node of each bucket that was silent longest, and removing
 * records whose time is over. All in bounded steps; a late call does not make up for missed ones.
 */
#include "core.h"

#include <string.h>

#include "log.h"

/* Joining is tried again after a second, doubling to half a minute (N-6). */
#define BACKOFF_MIN_US (1 * DHT_S)
#define BACKOFF_MAX_US (30 * DHT_S)
/* One ping per bucket and round: a node of a full bucket is heard of within ten minutes. */
#define TICK_US (30 * DHT_S)
/* Kademlia refreshes hourly for nodes that stay for hours; pods come and go faster. */
#define STALE_US (15 * 60 * DHT_S)
/* Refresh lookups at a time: a joining node spreads its ten or so over some round trips. */
#define REFRESHING_MAX 2
/* Expiry only frees memory (readers skip what is over), so it can take its time. */
#define SWEEP_US   (5 * DHT_S)
#define SWEEP_KEYS 4096

void dht__maintenance_init(struct dht_maintenance *maintenance)
{
    *maintenance = (struct dht_maintenance){.bootstrap_us = UINT64_MAX,
                                            .backoff_us = BACKOFF_MIN_US,
                                            .tick_us = UINT64_MAX,
                                            .sweep_us = UINT64_MAX};
}

/* ---- joining ---- */

static void add_seed(struct dht *dht, const struct peer_addr *addr)
{
    struct dht_maintenance *maintenance = &dht->maintenance;
    if (addr->port == 0 || dht__is_self(dht, addr) || maintenance->seed_count == DHT_SEEDS_MAX)
        return;
    for (size_t i = 0; i < maintenance->seed_count; i++) {
        if (peer_addr_equal(&maintenance->seeds[i], addr))
            return;
    }
    maintenance->seeds[maintenance->seed_count++] = *addr;
}

static void join(struct dht *dht, uint64_t now_us)
{
    struct dht_maintenance *maintenance = &dht->maintenance;
    struct dht_lookup_plan plan = {
        .key = dht->config.self.id.bytes,
        .purpose = DHT_FOR_BOOTSTRAP,
        .seeds = maintenance->seeds,
        .seed_count = maintenance->seed_count,
    };
    uint64_t lookup_id;
    maintenance->bootstrapping = true; /* before: the lookup may be over at once */
    maintenance->bootstrap_us = UINT64_MAX;
    if (dht__lookup_start(dht, now_us, &plan, &lookup_id) == 0)
        return;
    maintenance->bootstrapping = false;
    maintenance->bootstrap_us = now_us + BACKOFF_MIN_US;
}

void dht__bootstrap(struct dht *dht, uint64_t now_us, const struct peer_addr *addrs,
                    size_t addr_count)
{
    struct dht_maintenance *maintenance = &dht->maintenance;
    for (size_t i = 0; i < addr_count; i++)
        add_seed(dht, &addrs[i]);
    maintenance->backoff_us = BACKOFF_MIN_US;
    if (!maintenance->bootstrapping && maintenance->seed_count > 0)
        join(dht, now_us);
}

/* Refreshes are due for all buckets farther away than the nearest neighbour (Kademlia §2.3). */
static void joined(struct dht *dht)
{
    unsigned deepest = 0;
    for (unsigned i = 0; i < DHT_BUCKETS; i++) {
        if (dht->table.buckets[i].count > 0)
            deepest = i;
    }
    dht->maintenance.refresh_bits |= (1ULL << deepest) - 1;
}

void dht__maintenance_done(struct dht *dht, uint64_t now_us, const struct dht_lookup *lookup)
{
    struct dht_maintenance *maintenance = &dht->maintenance;
    if (lookup->purpose == DHT_FOR_REFRESH) {
        ASSERT(maintenance->refreshing > 0);
        maintenance->refreshing--;
        return;
    }
    maintenance->bootstrapping = false;
    if (dht->table.count > 0) {
        maintenance->backoff_us = BACKOFF_MIN_US;
        joined(dht);
        return;
    }
    maintenance->bootstrap_us = now_us + dht__jitter(dht, maintenance->backoff_us);
    maintenance->backoff_us *= 2;
    if (maintenance->backoff_us > BACKOFF_MAX_US)
        maintenance->backoff_us = BACKOFF_MAX_US;
}

/* ---- the table ---- */

void dht__node_answered(struct dht *dht, uint64_t now_us, const struct dht_place *node)
{
    struct dht_place doubtful;
    if (dht__is_self(dht, &node->addr))
        return;
    if (dht__table_answered(&dht->table, now_us, node, &doubtful))
        dht__request_ping(dht, now_us, &doubtful, false);
    if (dht->maintenance.tick_us == UINT64_MAX)
        dht->maintenance.tick_us = now_us + dht__jitter(dht, TICK_US);
}

/* A random key that falls into this bucket. */
static void key_in_bucket(struct dht *dht, unsigned bucket_index, uint8_t key[BLOB_KEY_BYTES])
{
    uint64_t bit = 1ULL << (DHT_BUCKETS - 1 - bucket_index);
    uint64_t pos = dht->self_pos ^ bit ^ (prng_next(&dht->prng) & (bit - 1));
    memset(key, 0, BLOB_KEY_BYTES);
    store_be64(key, pos);
    ASSERT(dht__table_index(&dht->table, pos) == bucket_index);
}

static void refresh(struct dht *dht, uint64_t now_us)
{
    struct dht_maintenance *maintenance = &dht->maintenance;
    while (maintenance->refresh_bits != 0 && maintenance->refreshing < REFRESHING_MAX) {
        unsigned index = (unsigned)__builtin_ctzll(maintenance->refresh_bits);
        uint8_t key[BLOB_KEY_BYTES];
        struct dht_lookup_plan plan = {.key = key, .purpose = DHT_FOR_REFRESH};
        uint64_t lookup_id;
        maintenance->refresh_bits &= maintenance->refresh_bits - 1;
        key_in_bucket(dht, index, key);
        maintenance->refreshing++;
        if (dht__lookup_start(dht, now_us, &plan, &lookup_id) != 0)
            maintenance->refreshing--; /* the next round comes to it again */
    }
}

/* Gossip probes its members by itself; asking them again would be noise. */
static bool watched_by_gossip(struct dht *dht, const struct dht_place *place)
{
    return dht__one_hop(dht) && dht__members_has(&dht->members, place);
}

static void tick(struct dht *dht, uint64_t now_us)
{
    struct dht_maintenance *maintenance = &dht->maintenance;
    maintenance->tick_us = now_us + dht__jitter(dht, TICK_US);
    for (unsigned i = 0; i < DHT_BUCKETS; i++) {
        const struct dht_node *oldest = dht__table_oldest(&dht->table, i);
        if (oldest == NULL)
            continue;
        if (now_us - dht->table.buckets[i].touched_us > STALE_US)
            maintenance->refresh_bits |= 1ULL << i;
        if (now_us - oldest->seen_us > DHT_DOUBT_US && !watched_by_gossip(dht, &oldest->place))
            dht__request_ping(dht, now_us, &oldest->place, false);
    }
    /* Alone again: those who let us in once may do so again. */
    if (dht->table.count == 0 && maintenance->seed_count > 0 && !maintenance->bootstrapping &&
        maintenance->bootstrap_us == UINT64_MAX)
        maintenance->bootstrap_us = now_us;
}

void dht__maintenance_advance(struct dht *dht, uint64_t now_us)
{
    struct dht_maintenance *maintenance = &dht->maintenance;
    if (maintenance->bootstrap_us <= now_us)
        join(dht, now_us);
    if (maintenance->tick_us <= now_us)
        tick(dht, now_us);
    refresh(dht, now_us);
    if (maintenance->sweep_us <= now_us) {
        dht__store_sweep(&dht->store, now_us, SWEEP_KEYS);
        maintenance->sweep_us = now_us + SWEEP_US;
    }
    if (dht->store.record_count == 0)
        maintenance->sweep_us = UINT64_MAX;
    else if (maintenance->sweep_us == UINT64_MAX)
        maintenance->sweep_us = now_us + SWEEP_US;
}

uint64_t dht__maintenance_deadline_us(const struct dht *dht)
{
    const struct dht_maintenance *maintenance = &dht->maintenance;
    if (maintenance->refresh_bits != 0 && maintenance->refreshing < REFRESHING_MAX)
        return 0;
    /* The first record starts the sweep, with the next call of advance. */
    bool sweep_starts = maintenance->sweep_us == UINT64_MAX && dht->store.record_count > 0;
    uint64_t deadline_us = sweep_starts ? 0 : maintenance->sweep_us;
    if (maintenance->tick_us < deadline_us)
        deadline_us = maintenance->tick_us;
    if (maintenance->bootstrap_us < deadline_us)
        deadline_us = maintenance->bootstrap_us;
    return deadline_us;
}
