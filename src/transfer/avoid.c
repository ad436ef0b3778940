/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holders that did not deliver. A keeper's referral is a hint: the holder may have lost the pieces,
 * have been started anew, or lie. What was found out is remembered here for a while, goes with
 * every WANT it concerns, and makes a second referral to the same node worth no round trip.
 */
#include "blob.h"

/* A node that lost a blob may have it again after this. */
#define AVOID_US (10 * S)

static bool is_fresh(const struct transfer *transfer, const struct avoid *avoid)
{
    return avoid->node != NODE_NONE && avoid->until_us > transfer->now_us;
}

static bool is_about(const struct avoid *avoid, uint32_t segment)
{
    return avoid->segment == segment || avoid->segment == AVOID_WHOLE;
}

void transfer__avoid(struct transfer *transfer, struct swarm *swarm, uint32_t segment,
                     uint16_t node)
{
    struct avoid *place = NULL;
    for (uint32_t i = 0; i < AVOIDS_MAX; i++) {
        struct avoid *avoid = &swarm->avoids[i];
        if (avoid->node == node && avoid->segment == segment)
            place = avoid;
    }
    if (place == NULL)
        place = &swarm->avoids[swarm->avoid_next++ % AVOIDS_MAX];
    *place =
        (struct avoid){.segment = segment, .node = node, .until_us = transfer->now_us + AVOID_US};
}

uint16_t transfer__avoided(const struct transfer *transfer, const struct swarm *swarm,
                           uint32_t segment)
{
    const struct avoid *best = NULL;
    for (uint32_t i = 0; i < AVOIDS_MAX; i++) {
        const struct avoid *avoid = &swarm->avoids[i];
        if (is_fresh(transfer, avoid) && is_about(avoid, segment) &&
            (best == NULL || avoid->until_us > best->until_us))
            best = avoid;
    }
    return best == NULL ? NODE_NONE : best->node;
}

bool transfer__avoids(const struct transfer *transfer, const struct swarm *swarm, uint32_t segment,
                      uint16_t node)
{
    if (!transfer__node_usable(transfer, node) || transfer__is_distrusted(swarm, node))
        return true;
    for (uint32_t i = 0; i < AVOIDS_MAX; i++) {
        const struct avoid *avoid = &swarm->avoids[i];
        if (avoid->node == node && is_fresh(transfer, avoid) && is_about(avoid, segment))
            return true;
    }
    return false;
}

void transfer__avoid_no_more(struct swarm *swarm, uint16_t node)
{
    for (uint32_t i = 0; i < AVOIDS_MAX; i++) {
        if (swarm->avoids[i].node == node)
            swarm->avoids[i].node = NODE_NONE;
    }
}
