/* SPDX-License-Identifier: Apache-2.0 */
/* k-buckets with ping-before-evict and a replacement cache. See table.h. */
#include "table.h"

#include <string.h>

#include "log.h"

/* Failures in a row after which a node goes even if nobody can replace it. */
#define FAILURES_MAX 2

void dht__table_init(struct dht_table *table, const struct env *env, uint64_t self_pos, unsigned k)
{
    ASSERT(k > 0 && k <= DHT_K_MAX);
    *table = (struct dht_table){.env = env, .self_pos = self_pos, .k = k};
}

void dht__table_close(struct dht_table *table)
{
    for (unsigned i = 0; i < DHT_BUCKETS; i++) {
        if (table->buckets[i].nodes != NULL)
            (void)table->env->alloc(table->env->host, table->buckets[i].nodes, 0);
    }
    dht__table_init(table, table->env, table->self_pos, table->k);
}

unsigned dht__table_index(const struct dht_table *table, uint64_t pos)
{
    uint64_t distance = pos ^ table->self_pos;
    return distance == 0 ? DHT_BUCKETS - 1 : (unsigned)__builtin_clzll(distance);
}

/* Index of the place among nodes[first..last), or last. */
static unsigned find(const struct dht_bucket *bucket, unsigned first, unsigned last,
                     const struct dht_place *place)
{
    unsigned at = first;
    while (at < last && !peer_addr_equal(&bucket->nodes[at].place.addr, &place->addr))
        at++;
    return at;
}

/* Takes nodes[at] out of nodes[0..last) by closing the gap. */
static void close_gap(struct dht_bucket *bucket, unsigned at, unsigned last)
{
    memmove(bucket->nodes + at, bucket->nodes + at + 1, (last - at - 1) * sizeof *bucket->nodes);
}

const struct dht_node *dht__table_find(const struct dht_table *table, const struct dht_place *place)
{
    const struct dht_bucket *bucket = &table->buckets[dht__table_index(table, place->pos)];
    unsigned at = find(bucket, 0, bucket->count, place);
    return at < bucket->count ? &bucket->nodes[at] : NULL;
}

bool dht__table_at(const struct dht_table *table, uint64_t pos, struct dht_place *out)
{
    const struct dht_bucket *bucket = &table->buckets[dht__table_index(table, pos)];
    for (unsigned i = 0; i < bucket->count; i++) {
        if (bucket->nodes[i].place.pos != pos)
            continue;
        *out = bucket->nodes[i].place;
        return true;
    }
    return false;
}

static bool bucket_open(struct dht_table *table, struct dht_bucket *bucket)
{
    if (bucket->nodes != NULL)
        return true;
    size_t bytes = (table->k + DHT_SPARES_MAX) * sizeof *bucket->nodes;
    bucket->nodes = table->env->alloc(table->env->host, NULL, bytes);
    return bucket->nodes != NULL;
}

/* Puts a node behind the bucket's last one, before the spares. */
static void enter(struct dht_table *table, struct dht_bucket *bucket, const struct dht_node *node)
{
    ASSERT(bucket->count < table->k);
    memmove(bucket->nodes + bucket->count + 1, bucket->nodes + bucket->count,
            bucket->spare_count * sizeof *bucket->nodes);
    bucket->nodes[bucket->count++] = *node;
    table->count++;
}

/* Puts a node behind the last spare; the oldest spare falls out (Kademlia §4.1). */
static void wait_as_spare(struct dht_bucket *bucket, const struct dht_node *node)
{
    unsigned last = bucket->count + bucket->spare_count;
    unsigned at = find(bucket, bucket->count, last, &node->place);
    if (at < last) {
        close_gap(bucket, at, last);
        last--;
    } else if (bucket->spare_count == DHT_SPARES_MAX) {
        close_gap(bucket, bucket->count, last);
        last--;
    } else {
        bucket->spare_count++;
    }
    bucket->nodes[last] = *node;
}

bool dht__table_answered(struct dht_table *table, uint64_t now_us, const struct dht_place *place,
                         struct dht_place *doubtful)
{
    struct dht_bucket *bucket = &table->buckets[dht__table_index(table, place->pos)];
    if (!bucket_open(table, bucket))
        return false;
    struct dht_node node = {.place = *place, .seen_us = now_us};
    unsigned at = find(bucket, 0, bucket->count, place);
    if (at < bucket->count) {
        close_gap(bucket, at, bucket->count);
        bucket->nodes[bucket->count - 1] = node;
        return false;
    }
    if (bucket->count < table->k) {
        enter(table, bucket, &node);
        return false;
    }
    wait_as_spare(bucket, &node);
    const struct dht_node *oldest = &bucket->nodes[0];
    if (oldest->failures == 0 && now_us - oldest->seen_us < DHT_DOUBT_US)
        return false;
    *doubtful = oldest->place;
    return true;
}

/* Takes nodes[at] out of the bucket; the youngest spare takes its place as the newest node. */
static void evict(struct dht_table *table, struct dht_bucket *bucket, unsigned at)
{
    close_gap(bucket, at, bucket->count + bucket->spare_count);
    bucket->count--;
    table->count--;
    if (bucket->spare_count == 0)
        return;
    struct dht_node youngest = bucket->nodes[bucket->count + bucket->spare_count - 1];
    bucket->spare_count--;
    enter(table, bucket, &youngest);
}

void dht__table_failed(struct dht_table *table, const struct dht_place *place)
{
    struct dht_bucket *bucket = &table->buckets[dht__table_index(table, place->pos)];
    unsigned last = bucket->count + bucket->spare_count;
    unsigned at = find(bucket, 0, last, place);
    if (at == last)
        return;
    if (at >= bucket->count) {
        close_gap(bucket, at, last);
        bucket->spare_count--;
        return;
    }
    bucket->nodes[at].failures++;
    if (bucket->nodes[at].failures >= FAILURES_MAX || bucket->spare_count > 0)
        evict(table, bucket, at);
}

void dht__table_remove(struct dht_table *table, const struct dht_place *place)
{
    struct dht_bucket *bucket = &table->buckets[dht__table_index(table, place->pos)];
    unsigned last = bucket->count + bucket->spare_count;
    unsigned at = find(bucket, 0, last, place);
    if (at < bucket->count) {
        evict(table, bucket, at);
    } else if (at < last) {
        close_gap(bucket, at, last);
        bucket->spare_count--;
    }
}

bool dht__table_wants(const struct dht_table *table, uint64_t pos)
{
    return table->buckets[dht__table_index(table, pos)].count < table->k;
}

size_t dht__table_closest(const struct dht_table *table, uint64_t target, struct dht_place *out,
                          size_t max)
{
    size_t count = 0;
    /* Some hundred nodes at most: looking at each costs less than walking buckets in XOR order. */
    for (unsigned i = 0; i < DHT_BUCKETS; i++) {
        const struct dht_bucket *bucket = &table->buckets[i];
        for (unsigned j = 0; j < bucket->count; j++) {
            if (bucket->nodes[j].failures == 0)
                dht__place_insert(out, &count, max, target, &bucket->nodes[j].place);
        }
    }
    return count;
}

const struct dht_node *dht__table_oldest(const struct dht_table *table, unsigned bucket_index)
{
    ASSERT(bucket_index < DHT_BUCKETS);
    const struct dht_bucket *bucket = &table->buckets[bucket_index];
    return bucket->count > 0 ? &bucket->nodes[0] : NULL;
}

void dht__table_check(const struct dht_table *table)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < DHT_BUCKETS; i++) {
        const struct dht_bucket *bucket = &table->buckets[i];
        ASSERT(bucket->count <= table->k);
        ASSERT(bucket->spare_count <= DHT_SPARES_MAX);
        ASSERT(bucket->spare_count == 0 || bucket->count == table->k);
        for (unsigned j = 0; j < (unsigned)bucket->count + bucket->spare_count; j++)
            ASSERT(dht__table_index(table, bucket->nodes[j].place.pos) == i);
        count += bucket->count;
    }
    ASSERT(count == table->count);
}
