/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routing table of k-buckets (Kademlia §2.2, §2.4, §4.1). Only nodes that answered us are ever put
 * in (DHT-5); the caller sees to it by calling dht__table_answered from answers alone. A full
 * bucket keeps what it has: the newcomer waits in a replacement cache and the least recently seen
 * node is to be pinged; only its silence makes room.
 */
#ifndef SHOAL_DHT_TABLE_H
#define SHOAL_DHT_TABLE_H

#include "env.h"
#include "place.h"

/* Replacement cache per bucket (Kademlia §4.1); a guess: more are stale before they are needed. */
#define DHT_SPARES_MAX 8
/* Bucket i holds nodes that share exactly i leading bits with us. */
#define DHT_BUCKETS 64

struct dht_node {
    struct dht_place place;
    uint64_t seen_us; /* last answer */
    uint8_t failures; /* requests in a row that were not answered; above 0 it is not passed on */
};

struct dht_bucket {
    struct dht_node *nodes; /* least recently seen first; room for k nodes and the spares */
    uint8_t count;          /* in the bucket */
    uint8_t spare_count;    /* behind them, oldest first */
    uint64_t touched_us;    /* last lookup that started or refreshed in this range */
};

struct dht_table {
    const struct env *env; /* borrowed for the table's life */
    uint64_t self_pos;
    unsigned k;
    uint32_t count; /* nodes in buckets */
    struct dht_bucket buckets[DHT_BUCKETS];
};

/* Makes an empty table. Cannot fail; buckets are allocated with their first node. */
void dht__table_init(struct dht_table *table, const struct env *env, uint64_t self_pos, unsigned k);
/* Frees the buckets. */
void dht__table_close(struct dht_table *table);
/* Bucket a position falls into. */
unsigned dht__table_index(const struct dht_table *table, uint64_t pos);
/* The node at this place, borrowed until the table changes; NULL if it is not in a bucket. */
const struct dht_node *dht__table_find(const struct dht_table *table,
                                       const struct dht_place *place);
/* The node at this position; false if there is none. */
bool dht__table_at(const struct dht_table *table, uint64_t pos, struct dht_place *out);
/*
 * A node answered: it becomes the most recently seen of its bucket, or enters it, or waits in the
 * replacement cache. True if the bucket is full and its least recently seen node, copied to
 * *doubtful, has been silent for DHT_DOUBT_US or failed: ping it. Without memory nothing changes.
 */
bool dht__table_answered(struct dht_table *table, uint64_t now_us, const struct dht_place *place,
                         struct dht_place *doubtful);
/* A node answered longer ago than this is worth a ping before a newcomer is turned away. */
#define DHT_DOUBT_US (60 * 1000000ULL)
/*
 * A request to this node went unanswered, its repetition too. Evicts it if a spare can take its
 * place or it is the second time in a row.
 */
void dht__table_failed(struct dht_table *table, const struct dht_place *place);
/* Forgets a node in bucket and replacement cache; a spare takes its place. */
void dht__table_remove(struct dht_table *table, const struct dht_place *place);
/* True if an unknown node at this position would enter its bucket when it answered. */
bool dht__table_wants(const struct dht_table *table, uint64_t pos);
/* The `max` nodes without failures closest to `target`, nearest first; returns how many. */
size_t dht__table_closest(const struct dht_table *table, uint64_t target, struct dht_place *out,
                          size_t max);
/* Least recently seen node of a bucket; NULL if it is empty. Borrowed until the table changes. */
const struct dht_node *dht__table_oldest(const struct dht_table *table, unsigned bucket_index);
/* Aborts if counts, places or order are wrong. */
void dht__table_check(const struct dht_table *table);

#endif
