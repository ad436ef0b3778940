/* SPDX-License-Identifier: Apache-2.0 */
/* Invariants of the index, recounted from the blobs up. For tests and the simulator. Loop only. */
#include "cache_internal.h"

#include "log.h"

struct totals {
    uint64_t had_bytes, evictable_bytes, held_bytes;
    uint32_t pieces, listed, blobs;
};

static void check_segment(const struct segment *segment, struct totals *totals)
{
    const struct cache_blob *blob = segment->blob;
    uint32_t first = segment_first(&blob->layout, segment->index);
    uint32_t count = segment_length(&blob->layout, segment->index);
    uint32_t have = 0, writing = 0;
    uint64_t bytes = 0;
    for (uint32_t piece = first; piece < first + count; piece++) {
        bool had = bitfield_get(&blob->have, piece);
        bool written = bitfield_get(&blob->writing, piece);
        ASSERT(!(had && written));
        ASSERT(written || !bitfield_get(&blob->doomed, piece));
        have += had;
        writing += written;
        bytes += had ? piece_length(&blob->layout, piece) : 0;
    }
    ASSERT(segment->have_count == have);
    ASSERT(segment->writing_count == writing);
    ASSERT(segment->bytes == bytes);
    ASSERT(have > 0 || writing > 0 || segment->pins > 0);
    ASSERT(have == 0 || segment->notice != NULL);
    bool may_go = have > 0 && writing == 0 && segment->pins == 0 && blob->holds == 0;
    ASSERT(segment->listed == may_go);
    totals->had_bytes += bytes;
    totals->pieces += have;
    totals->evictable_bytes += segment->listed ? bytes : 0;
    totals->listed += segment->listed;
}

static void check_blob(const struct cache_blob *blob, struct totals *totals)
{
    uint32_t live = 0, have = 0;
    uint64_t pins = 0, writing = 0;
    ASSERT(!blob->dead);
    for (uint32_t i = 0; i < blob->layout.segment_count; i++) {
        const struct segment *segment = blob->segments[i];
        if (segment == NULL)
            continue;
        ASSERT(segment->blob == blob && segment->index == i);
        check_segment(segment, totals);
        live++;
        have += segment->have_count;
        pins += segment->pins;
        writing += segment->writing_count;
    }
    ASSERT(blob->live_segments == live);
    ASSERT(blob->have.set_count == have);
    ASSERT(blob->writing.set_count == writing);
    ASSERT(blob->refs >= pins + writing + blob->holds);
    ASSERT(blob->refs > 0 || live > 0);
    totals->held_bytes += blob->holds > 0 ? blob->layout.blob_bytes : 0;
    totals->blobs++;
}

static uint32_t check_list(const struct cache *cache)
{
    uint32_t count = 0;
    const struct segment *older = NULL;
    for (const struct segment *at = cache->oldest; at != NULL; at = at->newer) {
        ASSERT(at->listed && at->older == older);
        ASSERT(older == NULL || older->used_us <= at->used_us);
        older = at;
        count++;
    }
    ASSERT(cache->newest == older);
    return count;
}

void cache__check_invariants(const struct cache *cache)
{
    struct totals totals = {.blobs = 0};
    for (const struct cache_blob *blob = cache->blobs; blob != NULL; blob = blob->hh.next)
        check_blob(blob, &totals);
    ASSERT(totals.blobs == cache->blob_count);
    ASSERT(totals.pieces == cache->pieces);
    ASSERT(totals.had_bytes + cache->writing_bytes == cache->bytes);
    ASSERT(totals.evictable_bytes == cache->evictable_bytes);
    ASSERT(totals.listed == check_list(cache));
    ASSERT(totals.held_bytes <= cache->held_bytes); /* dropped blobs may be held, too */
    ASSERT(cache->blob_count <= cache->config.blobs_max);
    uint64_t capacity = cache->config.capacity_bytes;
    ASSERT(capacity == 0 || cache->bytes <= capacity || cache->notice_count >= NOTICES_MAX);
}
