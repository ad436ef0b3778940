/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads of what others bring in. Where few nodes share a fast registry, and come one after the
 * other, there are not always enough uplinks for all: those who came first wait for pieces that are
 * at nodes busy with those who came last. Without a mesh each would have its full rate. So whoever
 * fell behind what its link can carry reads a little itself, and no more than it fell behind
 * (docs/flash-crowd.md has what that gives and costs).
 *
 * Only near peers are worth helping out so: far ones are late for another reason, and all would be
 * read from the origin. Only where the origin gives soon, or it is what everybody waits for.
 */
#include "lease.h"

/* Reads at a time, with those that are leased. */
#define SPARE_READS 4
/* Late by this, or by this part of the time since it began to ask, and by a segment: less is not
 * worth the origin's bytes (without the part: layers of 32 MiB at 100 Mbit/s 1.2 copies and not a
 * moment sooner). */
#define LATE_US   (7 * MS)
#define LATE_PART 50
/* Keepers answer within this where peers are near. */
#define NEAR_US (30 * MS)

/* Later than the link could be by more than what is here in part, or being read, will make good
 * for.
 */
static bool is_late(const struct transfer *transfer, const struct blob *blob)
{
    uint64_t rate = transfer__rate_guess(transfer);
    uint64_t since_us = transfer->now_us - transfer->rate.asked_us;
    uint64_t late_us = since_us / LATE_PART > LATE_US ? since_us / LATE_PART : LATE_US;
    uint64_t coming = rate * late_us / S + segment_bytes(blob);
    uint32_t reads = 0;
    if (rate == 0)
        return false;
    for (const struct lease *lease = transfer->leases; lease != NULL; lease = lease->next) {
        if (lease->state == LEASE_WAITING || lease->state > LEASE_FETCHING)
            continue;
        reads++;
        coming += lease->state < LEASE_FETCHING ? segment_bytes(lease->blob) : 0;
    }
    for (const struct fetch *fetch = transfer->fetches; fetch != NULL; fetch = fetch->next) {
        if (!fetch->ended && fetch->blob != NULL)
            coming += (uint64_t)fetch->count * fetch->blob->layout.piece_bytes;
    }
    for (uint32_t i = 0; i < transfer->request_count; i++)
        coming += transfer->requests[i].received ? 0 : transfer->requests[i].bytes;
    return reads < SPARE_READS && transfer__rate_lag(transfer) > coming;
}

/* What reading a piece is worth: nobody has it; it is not asked for yet; it waits at somebody busy.
 * 0: it is coming. */
static uint32_t worth(const struct transfer *transfer, const struct blob *blob, uint32_t piece)
{
    const struct swarm *swarm = blob->swarm;
    if (bitfield_get(&swarm->absent, piece))
        return 3;
    if (bitfield_get(&swarm->open, piece))
        return 2;
    if (swarm->asked[piece] == 0 || (swarm->flags[piece] & (PIECE_LEASED | PIECE_PASSED)) != 0)
        return 0;
    for (uint32_t i = 0; i < transfer->request_count; i++) {
        const struct request *request = &transfer->requests[i];
        if (request->blob == blob && request->piece == piece &&
            (request->started || request->received))
            return 0;
    }
    return 1;
}

/* The sum for what is missing of a segment; 0 if any of that is coming, or ranges alone touch it:
 * whoever reads those leaves the link idle anyway. */
static uint32_t worth_of(const struct transfer *transfer, const struct blob *blob, uint32_t segment)
{
    uint32_t sum = 0, first = segment_first(&blob->layout, segment);
    for (uint32_t i = 0; i < segment_length(&blob->layout, segment); i++) {
        if (bitfield_get(&blob->have, first + i))
            continue;
        uint32_t each = worth(transfer, blob, first + i);
        if (each == 0)
            return 0;
        sum += each;
    }
    bool taken = sum > 0 && (transfer__lease_find(transfer, blob, segment) != NULL ||
                             !transfer__is_read_whole(transfer, blob, segment));
    return taken ? 0 : sum;
}

static bool may_read(struct transfer *transfer, const struct blob *blob)
{
    const struct swarm *swarm = blob->swarm;
    uint64_t most = blob->info.size_bytes / transfer->nodes.live; /* one copy more, in all */
    return swarm->readers > 0 && swarm->spare_bytes + segment_bytes(blob) <= most &&
           transfer__origin_is_soon(blob) && transfer__can_fetch(transfer, blob) &&
           !transfer__is_behind(transfer, blob) && !transfer__is_solo(transfer, blob);
}

static bool read_one(struct transfer *transfer, struct blob *blob)
{
    uint32_t best = 0, best_worth = 0;
    for (uint32_t segment = 0; segment < blob->layout.segment_count; segment++) {
        uint32_t sum = worth_of(transfer, blob, segment);
        if (sum > best_worth) {
            best = segment;
            best_worth = sum;
        }
    }
    if (best_worth == 0)
        return false;
    uint32_t first = segment_first(&blob->layout, best);
    for (uint32_t i = 0; i < segment_length(&blob->layout, best); i++)
        transfer__requests_end(transfer, blob, first + i, NODE_NONE);
    if (!transfer__lease_take(transfer, blob, best, FETCH_SPARE))
        return false;
    blob->swarm->spare_bytes += segment_bytes(blob);
    return true;
}

void transfer__spare_read(struct transfer *transfer)
{
    if (!transfer__is_few(transfer) || transfer->answer_us > NEAR_US)
        return;
    for (struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active) {
        if (may_read(transfer, blob) && is_late(transfer, blob) && read_one(transfer, blob))
            return;
    }
}
