/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one-hop table: every member gossip knows, sorted by place, 16 bytes each. Answers "which k
 * members are closest to this key" without a message. Owns its array; knows no protocol.
 */
#ifndef SHOAL_DHT_MEMBERS_H
#define SHOAL_DHT_MEMBERS_H

#include "env.h"
#include "err.h"
#include "place.h"

struct dht_member {
    uint64_t pos;
    uint32_t ip; /* IPv4 address, or index into wide[] */
    uint16_t port;
    uint16_t is_wide;
};

struct dht_members {
    const struct env *env; /* borrowed for the table's life */
    /* [0, sorted) is in order without twins; [sorted, count) waits for the next question, so that
       a mesh's worth of news costs one merge and not one memmove each. */
    struct dht_member *entries;
    size_t sorted, count, capacity;
    uint8_t (
        *wide)[16]; /* addresses that are not IPv4; free ones are chained by their first word */
    uint32_t wide_count, wide_capacity, wide_free;
};

/* Makes an empty table. Cannot fail; nothing is allocated yet. */
void dht__members_init(struct dht_members *members, const struct env *env);
/* Frees the array. */
void dht__members_close(struct dht_members *members);
/* Adds a member; one that is there stays. 0, E_NO_MEMORY, or E_FULL at MEMBERS_MAX. */
MUST_USE int dht__members_add(struct dht_members *members, const struct dht_place *place);
/* Removes the member at this place; true if it was there. */
bool dht__members_remove(struct dht_members *members, const struct dht_place *place);
/* Finds by full position (the first match if places collide); false if there is none. */
bool dht__members_at(struct dht_members *members, uint64_t pos, struct dht_place *out);
/* True if this very member is known. Does not sort, so it may stand before every add. */
bool dht__members_has(const struct dht_members *members, const struct dht_place *place);
/* Number of members. */
size_t dht__members_count(struct dht_members *members);
/*
 * The `max` members closest to `target`, nearest first, into out; returns how many. Descends the
 * sorted array as if it were a binary trie: O(max + log N) halvings by binary search.
 */
size_t dht__members_closest(struct dht_members *members, uint64_t target, struct dht_place *out,
                            size_t max);
/* Aborts if order or counts are wrong; looks at no more than 64 pairs. */
void dht__members_check(const struct dht_members *members);

#endif
