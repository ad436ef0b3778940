/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one-hop table: every member gossip knows, sorted by place, two bytes each: its
 * number in the directory. Answers "which k
 * members are closest to this key" without a message. Owns its array; knows no protocol.
 */
#ifndef SHOAL_DHT_MEMBERS_H
#define SHOAL_DHT_MEMBERS_H

#include "directory.h"
#include "env.h"
#include "err.h"
#include "place.h"

struct dht_contact;

struct dht_members {
    const struct env *env; /* borrowed for the table's life */
    struct directory *directory;
    uint16_t *entries; /* by position, then address */
    size_t count, capacity;
};

/* Makes an empty table with one reference of the directory. Cannot fail; nothing is allocated. */
void dht__members_init(struct dht_members *members, const struct env *env,
                       struct directory *directory);
/* Room for so many in all. 0 or E_NO_MEMORY. */
MUST_USE int dht__members_reserve(struct dht_members *members, size_t count);
/* Frees the array, lets go of the directory. Twice is fine. */
void dht__members_close(struct dht_members *members);
/* Adds a member; one that is there stays. 0, E_NO_MEMORY, E_FULL at MEMBERS_MAX, or E_INVALID: the
 * id stands at another address. */
MUST_USE int dht__members_add(struct dht_members *members, const struct dht_contact *contact);
/* Removes the member at this place; true if it was there. */
bool dht__members_remove(struct dht_members *members, const struct dht_place *place);
/* Finds by full position (the first match if places collide); false if there is none. */
bool dht__members_at(const struct dht_members *members, uint64_t pos, struct dht_place *out);
/* True if this very member is known. */
bool dht__members_has(const struct dht_members *members, const struct dht_place *place);
/* Number of members. */
size_t dht__members_count(const struct dht_members *members);
/*
 * The `max` members closest to `target`, nearest first, into out; returns how many. Descends the
 * sorted array as if it were a binary trie: O(max + log N) halvings by binary search.
 */
size_t dht__members_closest(const struct dht_members *members, uint64_t target,
                            struct dht_place *out, size_t max);
/* Aborts if order or counts are wrong; looks at no more than 64 pairs. */
void dht__members_check(const struct dht_members *members);

#endif
