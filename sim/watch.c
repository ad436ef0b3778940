/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the messages of a world tell somebody who reads them all: who keeps leases and who has them,
 * so that a fault can be aimed; and whether any of them holds what the mesh must never carry
 * (ACL-9): names of registries, repositories and tags, credentials, digests. Told by what nodes say
 * to each other, not by looking into cores.
 */
#include <string.h>

#include "host.h"
#include "wire_transfer.h"

/* A lease that was granted longer ago tells nothing of now. */
#define LATELY_US 3000000

/* What stands for everything that names an image: cores are given no names, so whatever looks like
 * one in a message came there by a new way. */
const char *const watch_private_name = "registry.private.test/team/payments:v7-internal";
static const char *const private_words[] = {
    "registry.", "team/payments", "v7-internal", "sha256:", "sha512:", "Bearer ", "Basic ", "/v2/"};

/* Either half of a digest, in bytes or as text. */
static bool has_digest(const struct digest *digest, const uint8_t *msg, size_t msg_bytes)
{
    static const char hex[] = "0123456789abcdef";
    for (unsigned half = 0; half < 2; half++) {
        const uint8_t *bytes = digest->bytes + 16ULL * half;
        char text[16];
        for (unsigned i = 0; i < sizeof text; i++)
            text[i] = hex[i % 2 == 0 ? bytes[i / 2] >> 4 : bytes[i / 2] & 15];
        if (memmem(msg, msg_bytes, bytes, 16) != NULL ||
            memmem(msg, msg_bytes, text, sizeof text) != NULL)
            return true;
    }
    return false;
}

static bool leaks(const struct world *world, const uint8_t *msg, size_t msg_bytes)
{
    for (size_t i = 0; i < sizeof private_words / sizeof private_words[0]; i++)
        if (memmem(msg, msg_bytes, private_words[i], strlen(private_words[i])) != NULL)
            return true;
    for (uint32_t i = 0; i < world->blob_count; i++)
        if (has_digest(&world->blobs[i].digest, msg, msg_bytes))
            return true;
    return false;
}

void watch_message(struct world *world, uint32_t from, uint32_t to, const uint8_t *msg,
                   size_t msg_bytes)
{
    world->totals.leaks += leaks(world, msg, msg_bytes);
    struct wire_transfer message;
    unsigned type = 0;
    if (wire_type(msg, msg_bytes, &type) != 0 || type != WIRE_TRANSFER_GRANT ||
        wire_transfer_decode(msg, msg_bytes, &message) != 0)
        return;
    const struct wire_lease *lease = &message.of.lease;
    bool other = (lease->flags & WIRE_LEASE_CONTACT) != 0;
    uint32_t lessee = other ? world__node_at(world, &lease->contact.addr) : to;
    world->nodes[from].granted_us = world->now_us;
    if (lessee != INDEX_NONE)
        world->nodes[lessee].leased_us = world->now_us;
}

static bool reads_origin(const struct world *world, const struct sim_node *node)
{
    for (uint32_t i = node->own.first; i != INDEX_NONE; i = world->bulks[i].next)
        if (world->bulks[i].kind == BULK_FETCH)
            return true;
    return false;
}

/* When it was last true of a node; 0: not lately. */
static uint64_t true_us(const struct world *world, const struct sim_node *node, enum world_aim aim)
{
    uint64_t at_us = aim == WORLD_AIM_KEEPERS ? node->granted_us : node->leased_us;
    if (node->mesh == NULL)
        return 0;
    if (aim == WORLD_AIM_LESSEES && reads_origin(world, node))
        return world->now_us + 1;
    return at_us > 0 && at_us + LATELY_US > world->now_us ? at_us : 0;
}

/* Latest first, equal ones by index. */
static void insert(const struct world *world, enum world_aim aim, uint32_t *nodes, uint32_t count,
                   uint32_t node)
{
    uint64_t at_us = true_us(world, &world->nodes[node], aim);
    while (count > 0 && true_us(world, &world->nodes[nodes[count - 1]], aim) < at_us) {
        nodes[count] = nodes[count - 1];
        count--;
    }
    nodes[count] = node;
}

uint32_t world_aim(const struct world *world, enum world_aim aim, uint32_t *nodes, uint32_t max)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->config.node_count && max > 0; i++) {
        uint64_t at_us = true_us(world, &world->nodes[i], aim);
        if (at_us == 0)
            continue;
        if (count == max) { /* the earliest of those found gives way */
            if (true_us(world, &world->nodes[nodes[max - 1]], aim) >= at_us)
                continue;
            count--;
        }
        insert(world, aim, nodes, count++, i);
    }
    return count;
}
