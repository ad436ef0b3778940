/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place: the first 64 bits of a node id or key, and an address. The DHT orders nodes by these 64
 * bits of the XOR metric. Ids are SHA-256 outputs, so two of 10,000 nodes share a place with
 * probability 3e-12, and then only their order among each other is by address instead. The full id
 * follows from the address (PEER-4) and is made again where a result needs it: candidates, buckets
 * and requests keep 26 bytes per node instead of 50.
 */
#ifndef SHOAL_DHT_PLACE_H
#define SHOAL_DHT_PLACE_H

#include "bytes.h"
#include "types.h"

/* Largest k a host may configure; 20 is Kademlia's and our default. */
#define DHT_K_MAX 32

struct dht_place {
    uint64_t pos;
    struct peer_addr addr;
};

/* Position of a key or id in id space: its first 8 bytes as a number. */
static inline uint64_t dht__pos(const uint8_t bytes[32])
{
    return load_be64(bytes);
}

/* Order of two addresses, for ties only: <0, 0, >0. */
int dht__addr_compare(const struct peer_addr *a, const struct peer_addr *b);

/*
 * Puts `place` into out[0..*count), kept sorted by distance to `target`, nearest first, at most
 * `max` long; the farthest falls off. An address already in there is not put again.
 */
void dht__place_insert(struct dht_place *out, size_t *count, size_t max, uint64_t target,
                       const struct dht_place *place);

#endif
