/* SPDX-License-Identifier: Apache-2.0 */
/* Order of places by XOR distance (Kademlia §2.1) and short sorted lists of them. */
#include "place.h"

#include <string.h>

#include "log.h"

int dht__addr_compare(const struct peer_addr *a, const struct peer_addr *b)
{
    int order = memcmp(a->ip, b->ip, sizeof a->ip);
    return order != 0 ? order : (int)a->port - (int)b->port;
}

static bool nearer(uint64_t target, const struct dht_place *a, const struct dht_place *b)
{
    uint64_t to_a = a->pos ^ target, to_b = b->pos ^ target;
    return to_a != to_b ? to_a < to_b : dht__addr_compare(&a->addr, &b->addr) < 0;
}

void dht__place_insert(struct dht_place *out, size_t *count, size_t max, uint64_t target,
                       const struct dht_place *place)
{
    ASSERT(*count <= max);
    if (max == 0 || (*count == max && !nearer(target, place, &out[max - 1])))
        return;
    size_t at = *count;
    while (at > 0 && nearer(target, place, &out[at - 1]))
        at--;
    /* Equal addresses have equal places, so a twin can only stand right before. */
    if (at > 0 && peer_addr_equal(&out[at - 1].addr, &place->addr))
        return;
    size_t kept = *count == max ? max - 1 : *count;
    memmove(out + at + 1, out + at, (kept - at) * sizeof *out);
    out[at] = *place;
    *count = kept + 1;
}
