/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a leased segment is to be brought in: all of it where somebody reads on through it, of
 * what ranges alone touch only that (DESIGN §3, range readers).
 */
#include "lease.h"

bool transfer__segment_missing(const struct blob *blob, uint32_t segment, uint32_t *first,
                               uint32_t *last)
{
    uint32_t begin = segment_first(&blob->layout, segment);
    uint32_t end = begin + segment_length(&blob->layout, segment);
    bool any = false;
    for (uint32_t piece = begin; piece < end; piece++) {
        if (bitfield_get(&blob->have, piece) ||
            (blob->swarm != NULL && (blob->swarm->flags[piece] & PIECE_PASSED) != 0))
            continue;
        if (!any)
            *first = piece;
        *last = piece;
        any = true;
    }
    return any;
}

/* Somebody reads on through this segment, so all of it is brought in. A read of a range alone asks
 * for what it touches: else a few KiB here and there would cost the origin a segment each. */
bool transfer__is_read_whole(const struct transfer *transfer, const struct blob *blob,
                             uint32_t segment)
{
    uint32_t begin = segment_first(&blob->layout, segment);
    uint32_t end = begin + segment_length(&blob->layout, segment);
    for (const struct reader *reader = transfer->readers; reader != NULL; reader = reader->next) {
        if (reader->blob == blob && reader->mode != TRANSFER_READ_RANGE && reader->at < end &&
            reader->end > begin)
            return true;
    }
    return false;
}

bool transfer__is_wanted(const struct blob *blob, uint32_t piece)
{
    uint8_t flags = blob->swarm->flags[piece];
    return (flags & PIECE_WANTED) != 0 && (flags & PIECE_PASSED) == 0 &&
           !bitfield_get(&blob->have, piece);
}

static bool segment_wanted(const struct transfer *transfer, const struct blob *blob,
                           uint32_t segment, uint32_t *first, uint32_t *last)
{
    if (transfer__is_read_whole(transfer, blob, segment))
        return transfer__segment_missing(blob, segment, first, last);
    uint32_t piece = segment_first(&blob->layout, segment);
    uint32_t end = piece + segment_length(&blob->layout, segment);
    while (piece < end && !transfer__is_wanted(blob, piece))
        piece++;
    if (piece == end)
        return false;
    *first = *last = piece;
    while (*last + 1 < end && transfer__is_wanted(blob, *last + 1))
        ++*last;
    return true;
}

bool transfer__segment_due(const struct transfer *transfer, const struct lease *lease,
                           uint32_t *first, uint32_t *last)
{
    const struct blob *blob = lease->blob;
    if (!segment_wanted(transfer, blob, lease->segment, first, last))
        return false;
    if (transfer__is_read_whole(transfer, blob, lease->segment) ||
        (lease->reason != FETCH_LEASE && lease->reason != FETCH_ALONE))
        return true;
    uint32_t end = segment_first(&blob->layout, lease->segment) +
                   segment_length(&blob->layout, lease->segment);
    while (*first < end && (!transfer__is_wanted(blob, *first) || blob->swarm->avail[*first] > 0))
        ++*first;
    if (*first == end)
        return false;
    *last = *first;
    while (*last + 1 < end && transfer__is_wanted(blob, *last + 1) &&
           blob->swarm->avail[*last + 1] == 0)
        ++*last;
    return true;
}

bool transfer__lease_missing(const struct transfer *transfer, const struct lease *lease,
                             uint32_t *first, uint32_t *last)
{
    const struct blob *blob = lease->blob;
    if (lease->state == LEASE_IMPORTING && lease->whole)
        return transfer__segment_missing(blob, lease->segment, first, last);
    if (lease->state != LEASE_FETCHING)
        return segment_wanted(transfer, blob, lease->segment, first, last);
    uint32_t piece = segment_first(&blob->layout, lease->segment);
    uint32_t end = piece + segment_length(&blob->layout, lease->segment);
    if (piece < lease->fetch->first)
        piece = lease->fetch->first;
    if (end > lease->fetch->first + lease->fetch->count)
        end = lease->fetch->first + lease->fetch->count;
    while (piece < end &&
           (bitfield_get(&blob->have, piece) || (blob->swarm->flags[piece] & PIECE_PASSED) != 0))
        piece++;
    *first = piece;
    *last = end - 1;
    return piece < end;
}
