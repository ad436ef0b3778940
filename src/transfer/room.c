/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the own link has room for more, where few nodes share a registry (docs/flash-crowd.md).
 *
 * How fast the link is shows only in time, and how fast each source is at once: what they will
 * bring in the next moments is compared with what the link has carried.
 */
#include "lease.h"

/* A new read gives its first bytes after 10-20 ms: asked for when that is left, it follows without
 * a gap. Twice as long: 3 nodes within 1 s last 1.32 s instead of 1.24. */
#define AHEAD_US (25 * MS)
/* Of what came in at best: that is a mean, and this is a guess. 60: no difference. */
#define FULL_PERCENT 90u
/* While the rate is unknown, as much is asked for: 16 ms at 1 Gbit/s. */
#define UNKNOWN_BYTES (2u * 1024 * 1024)

bool transfer__is_few(const struct transfer *transfer)
{
    return transfer->nodes.live > 1 && transfer->nodes.live <= MESH_FEW_MEMBERS;
}

/* What comes soon of `total` bytes, going on as it did: all that is left if nothing came yet. */
static uint64_t soon(uint64_t total, uint64_t bytes, uint64_t age_us)
{
    uint64_t left = total > bytes ? total - bytes : 0;
    uint64_t comes = bytes == 0 || age_us == 0 ? left : bytes * AHEAD_US / age_us;
    return comes < left ? comes : left;
}

static uint64_t coming(const struct transfer *transfer)
{
    uint64_t now_us = transfer->now_us, sum = 0;
    bool known = transfer__rate_best(transfer) > 0;
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        const struct request *request = &transfer->requests[i];
        /* What has not begun waits at somebody busy; at first nobody is known to be. */
        if (!request->received && (request->started || !known))
            sum += soon(piece_length(&request->blob->layout, request->piece), request->bytes,
                        now_us - request->started_us);
    }
    for (const struct fetch *fetch = transfer->fetches; fetch != NULL; fetch = fetch->next) {
        if (!fetch->ended && fetch->blob != NULL)
            sum += soon((uint64_t)fetch->count * fetch->blob->layout.piece_bytes, fetch->bytes,
                        now_us - fetch->started_us);
    }
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (lease->state <= LEASE_GRANTED && lease->state != LEASE_WAITING)
            sum += segment_bytes(lease->blob);
    }
    return sum;
}

bool transfer__has_room(const struct transfer *transfer)
{
    uint64_t rate = transfer__rate_best(transfer);
    uint64_t full = rate == 0 ? UNKNOWN_BYTES : rate * AHEAD_US / S / 100 * FULL_PERCENT;
    return coming(transfer) < full;
}

bool transfer__origin_is_soon(const struct blob *blob)
{
    uint64_t read_us = blob->swarm->read_us, piece_us = blob->swarm->piece_us;
    return piece_us == 0 || read_us * blob->layout.piece_bytes <= piece_us * segment_bytes(blob);
}
