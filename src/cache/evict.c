/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: their life, the order in which they may go, and what the host is told when they went.
 * The list holds exactly the segments that may be evicted (something had, nothing being written,
 * no pin, no hold on the blob), oldest use first; ties in order of listing. Loop only.
 */
#include "cache_internal.h"

#include "log.h"

static void *cache_alloc(struct cache *cache, size_t byte_count)
{
    return cache->env.alloc(cache->env.host, NULL, byte_count);
}

static void cache_release(struct cache *cache, void *memory)
{
    if (memory != NULL)
        (void)cache->env.alloc(cache->env.host, memory, 0);
}

/* ---- the list ---- */

static void unlist(struct cache *cache, struct segment *segment)
{
    ASSERT(segment->listed);
    if (segment->older != NULL)
        segment->older->newer = segment->newer;
    else
        cache->oldest = segment->newer;
    if (segment->newer != NULL)
        segment->newer->older = segment->older;
    else
        cache->newest = segment->older;
    segment->older = segment->newer = NULL;
    segment->listed = false;
    ASSERT(cache->evictable_bytes >= segment->bytes);
    cache->evictable_bytes -= segment->bytes;
}

/* One step from the newest end, but for a segment that was only scrubbed: that goes back to where
 * its last use puts it. */
static void list(struct cache *cache, struct segment *segment)
{
    ASSERT(!segment->listed);
    struct segment *after = cache->newest;
    while (after != NULL && after->used_us > segment->used_us)
        after = after->older;
    segment->older = after;
    segment->newer = after != NULL ? after->newer : cache->oldest;
    if (segment->newer != NULL)
        segment->newer->older = segment;
    else
        cache->newest = segment;
    if (after != NULL)
        after->newer = segment;
    else
        cache->oldest = segment;
    segment->listed = true;
    cache->evictable_bytes += segment->bytes;
}

static bool may_be_evicted(const struct segment *segment)
{
    return segment->have_count > 0 && segment->writing_count == 0 && segment->pins == 0 &&
           segment->blob->holds == 0;
}

/* ---- life ---- */

struct segment *cache__find_segment(const struct cache_blob *blob, uint32_t piece)
{
    return blob->segments[segment_of(&blob->layout, piece)];
}

static struct segment *new_segment(struct cache *cache, struct cache_blob *blob, uint32_t index)
{
    struct segment *segment = cache_alloc(cache, sizeof *segment);
    if (segment == NULL)
        return NULL;
    *segment = (struct segment){.blob = blob, .index = index, .used_us = cache->now_us};
    blob->segments[index] = segment;
    blob->live_segments++;
    return segment;
}

int cache__segment(struct cache *cache, struct cache_blob *blob, uint32_t piece,
                   struct segment **out)
{
    uint32_t index = segment_of(&blob->layout, piece);
    struct segment *segment = blob->segments[index];
    if (segment == NULL)
        segment = new_segment(cache, blob, index);
    if (segment == NULL)
        return E_NO_MEMORY;
    if (segment->notice == NULL)
        segment->notice = cache_alloc(cache, sizeof *segment->notice);
    if (segment->notice == NULL) {
        (void)cache__settle_segment(cache, segment);
        return E_NO_MEMORY;
    }
    *out = segment;
    return 0;
}

bool cache__settle_segment(struct cache *cache, struct segment *segment)
{
    bool wanted = may_be_evicted(segment);
    if (wanted && !segment->listed)
        list(cache, segment);
    if (!wanted && segment->listed)
        unlist(cache, segment);
    if (segment->have_count > 0 || segment->writing_count > 0 || segment->pins > 0)
        return false;
    struct cache_blob *blob = segment->blob;
    ASSERT(blob->segments[segment->index] == segment);
    blob->segments[segment->index] = NULL;
    blob->live_segments--;
    cache_release(cache, segment->notice);
    cache_release(cache, segment);
    return true;
}

void cache__piece_had(struct cache *cache, struct segment *segment, uint32_t piece)
{
    ASSERT(!segment->listed);
    struct cache_blob *blob = segment->blob;
    bool changed = bitfield_set(&blob->have, piece);
    ASSERT(changed);
    segment->have_count++;
    segment->bytes += piece_length(&blob->layout, piece);
    cache->pieces++;
}

void cache__piece_lost(struct cache *cache, struct segment *segment, uint32_t piece)
{
    struct cache_blob *blob = segment->blob;
    uint32_t bytes = piece_length(&blob->layout, piece);
    bool changed = bitfield_clear(&blob->have, piece);
    ASSERT(changed);
    ASSERT(segment->have_count > 0 && segment->bytes >= bytes);
    segment->have_count--;
    segment->bytes -= bytes;
    if (segment->listed)
        cache->evictable_bytes -= bytes;
    cache->bytes -= bytes;
    cache->pieces--;
}

/* ---- eviction ---- */

void cache__notify(struct cache *cache, struct segment *segment)
{
    const struct cache_blob *blob = segment->blob;
    struct notice *notice = segment->notice;
    ASSERT(notice != NULL);
    uint32_t first = segment_first(&blob->layout, segment->index);
    uint32_t count = segment_length(&blob->layout, segment->index);
    *notice = (struct notice){.key = blob->key, .first_piece = first};
    for (uint32_t i = 0; i < count; i++) {
        if (bitfield_get(&blob->have, first + i))
            notice->pieces |= UINT32_C(1) << i;
    }
    ASSERT(notice->pieces != 0);
    if (cache->last_notice != NULL)
        cache->last_notice->next = notice;
    else
        cache->first_notice = notice;
    cache->last_notice = notice;
    cache->notice_count++;
    segment->notice = NULL;
}

/* Takes a listed segment; the store is told by the caller. */
static void take_segment(struct cache *cache, struct segment *segment)
{
    struct cache_blob *blob = segment->blob;
    ASSERT(segment->listed);
    cache__notify(cache, segment);
    cache->stats.evictions++;
    cache->stats.evicted_bytes += segment->bytes;
    uint32_t first = segment_first(&blob->layout, segment->index);
    uint32_t count = segment_length(&blob->layout, segment->index);
    for (uint32_t i = 0; i < count; i++) {
        if (bitfield_get(&blob->have, first + i))
            cache__piece_lost(cache, segment, first + i);
    }
    bool freed = cache__settle_segment(cache, segment);
    ASSERT(freed);
}

static bool evict_segment(struct cache *cache, struct segment *segment)
{
    if (cache->notice_count >= NOTICES_MAX)
        return false;
    struct cache_blob *blob = segment->blob;
    uint32_t first = segment_first(&blob->layout, segment->index);
    uint32_t count = segment_length(&blob->layout, segment->index);
    take_segment(cache, segment);
    bool goes = blob->refs == 0 && blob->live_segments == 0;
    /* A blob that goes as a whole is given back as a whole. */
    if (!goes && cache->store.drop(cache->store.self, blob->store_id, first, count) != 0)
        cache->stats.write_errors++;
    cache__settle_blob(cache, blob);
    return true;
}

bool cache__evict_oldest(struct cache *cache)
{
    return cache->oldest != NULL && evict_segment(cache, cache->oldest);
}

bool cache__evict_blob(struct cache *cache, struct cache_blob *blob)
{
    ASSERT(blob->refs == 0);
    uint32_t left = blob->live_segments; /* the blob goes with its last segment */
    for (uint32_t i = 0; left > 0; i++) {
        ASSERT(i < blob->layout.segment_count);
        if (blob->segments[i] == NULL)
            continue;
        left--;
        if (!evict_segment(cache, blob->segments[i]))
            return false;
    }
    return true;
}

void cache__trim(struct cache *cache)
{
    while (cache->bytes > cache->config.capacity_bytes) {
        if (!cache__evict_oldest(cache))
            return;
    }
}

/* ---- notices ---- */

static void free_first_notice(struct cache *cache)
{
    struct notice *notice = cache->first_notice;
    cache->first_notice = notice->next;
    if (cache->first_notice == NULL)
        cache->last_notice = NULL;
    cache->notice_count--;
    cache_release(cache, notice);
}

void cache__forget_notices(struct cache *cache)
{
    while (cache->first_notice != NULL)
        free_first_notice(cache);
}

bool cache_next_eviction(struct cache *cache, struct cache_eviction *out)
{
    struct notice *notice = cache->first_notice;
    if (notice == NULL)
        return false;
    ASSERT(notice->pieces != 0);
    uint32_t skip = (uint32_t)__builtin_ctz(notice->pieces);
    uint32_t count = 0;
    while (skip + count < SEGMENT_PIECES_MAX &&
           (notice->pieces & (UINT32_C(1) << (skip + count))) != 0) {
        notice->pieces &= ~(UINT32_C(1) << (skip + count));
        count++;
    }
    *out = (struct cache_eviction){.digest = notice->key.digest,
                                   .cut = (enum piece_cut)notice->key.cut,
                                   .first_piece = notice->first_piece + skip,
                                   .piece_count = count};
    if (notice->pieces == 0)
        free_first_notice(cache);
    return true;
}
