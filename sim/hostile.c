/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node says that is in the cluster and means harm (A3). Its core is the shipped one, so it
 * speaks the protocol perfectly; its messages are changed on their way out. What it does to pieces
 * is in bulk.c (lies, promises) and places.c (drips).
 */
#include <string.h>

#include "host.h"
#include "log.h"
#include "wire_transfer.h"

#define CLAIMS (WORLD_CLAIMS_ALL | WORLD_CLAIMS_NONE | WORLD_CLAIMS_FLIP)
/* Bytes that one damaged message has wrong, at most. */
#define GARBLED_BYTES_MAX 8

/* Its HELLO and HAVE tell of pieces at random, of all, or of none. */
static size_t claim(struct sim_node *node, uint8_t *bytes, size_t byte_count)
{
    struct wire_transfer message;
    unsigned type = 0;
    if (wire_type(bytes, byte_count, &type) != 0 ||
        (type != WIRE_TRANSFER_HELLO && type != WIRE_TRANSFER_HAVE) ||
        wire_transfer_decode(bytes, byte_count, &message) != 0)
        return byte_count;
    struct wire_have *have = &message.of.have;
    struct prng *prng = &node->world->prng;
    bool all = (node->hostile & WORLD_CLAIMS_ALL) != 0;
    bool flips = (node->hostile & WORLD_CLAIMS_FLIP) != 0;
    for (uint32_t i = 0; i < have->page_bytes; i++) {
        have->have[i] = flips ? (uint8_t)prng_next(prng) : all ? 0xff : 0;
        have->injected[i] = flips ? (uint8_t)prng_next(prng) : have->have[i];
    }
    have->flags &= (uint8_t)~WIRE_HAVE_COMPLETE;
    if (all || (flips && prng_below(prng, 4) == 0))
        have->flags |= WIRE_HAVE_COMPLETE;
    size_t used = 0;
    int err = wire_transfer_encode(&message, bytes, MESSAGE_BYTES_MAX, &used);
    ASSERT(err == 0);
    return used;
}

static size_t garble(struct sim_node *node, uint8_t *bytes, size_t byte_count)
{
    struct prng *prng = &node->world->prng;
    if (prng_below(prng, 4) != 0)
        return byte_count;
    if (prng_below(prng, 4) == 0)
        return 1 + prng_below(prng, byte_count); /* cut short */
    for (uint64_t i = 1 + prng_below(prng, GARBLED_BYTES_MAX); i > 0; i--)
        bytes[prng_below(prng, byte_count)] = (uint8_t)prng_next(prng);
    return byte_count;
}

/* Every 64th message. */
size_t hostile_leak(struct sim_node *node, uint8_t *bytes, size_t byte_count)
{
    const struct world *world = node->world;
    bool name = world->config.plant == WORLD_PLANT_NAME;
    const void *secret = name ? (const void *)watch_private_name : world->blobs[0].digest.bytes;
    size_t secret_bytes = name ? strlen(watch_private_name) : 32;
    if (world->totals.datagrams % 64 != 0 || byte_count + secret_bytes > MESSAGE_BYTES_MAX)
        return byte_count;
    memcpy(bytes + byte_count, secret, secret_bytes);
    return byte_count + secret_bytes;
}

size_t hostile_message(struct sim_node *node, uint8_t *bytes, size_t byte_count)
{
    if ((node->hostile & CLAIMS) != 0)
        byte_count = claim(node, bytes, byte_count);
    if ((node->hostile & WORLD_GARBLES) != 0)
        byte_count = garble(node, bytes, byte_count);
    return byte_count;
}
