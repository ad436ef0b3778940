/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scrubbing (D-5): hands out one piece after the other, in the order of the index, for the host to
 * read back, at a pace that passes over the whole cache well within a week. A scrub is no use of a
 * piece: it leaves ages and hit counts alone. Loop only.
 */
#include "cache_internal.h"

#include "log.h"

/* D-5 allows 7 days; 5 leave room for restarts and a slow host. */
#define SCRUB_PERIOD_US ((uint64_t)5 * 24 * 3600 * 1000 * 1000)
/* A host that comes late may catch up with this much, no more (D-13: no bursts). */
#define SCRUB_LATE_US ((uint64_t)10 * 1000 * 1000)
/* Blobs passed over in one call. */
#define SCRUB_BLOBS 64

void cache__scrub_skip(struct cache *cache, const struct cache_blob *blob)
{
    if (cache->scrub_blob != blob)
        return;
    cache->scrub_blob = blob->hh.next;
    cache->scrub_piece = 0;
}

uint64_t cache_scrub_deadline_us(const struct cache *cache)
{
    return cache->pieces > 0 ? cache->scrub_due_us : UINT64_MAX;
}

/* Moves the cursor to the next piece had. False if none was found within SCRUB_BLOBS blobs. */
static bool find_next(struct cache *cache)
{
    for (unsigned steps = 0; steps < SCRUB_BLOBS; steps++) {
        if (cache->scrub_blob == NULL) {
            cache->scrub_blob = cache->blobs;
            cache->scrub_piece = 0;
        }
        struct cache_blob *blob = cache->scrub_blob;
        if (blob == NULL)
            return false;
        uint32_t count = blob->layout.piece_count;
        if (cache->scrub_piece < count)
            cache->scrub_piece = bitfield_next_set(&blob->have, cache->scrub_piece);
        if (cache->scrub_piece < count)
            return true;
        cache__scrub_skip(cache, blob);
    }
    return false;
}

bool cache_next_scrub(struct cache *cache, uint64_t now_us, struct cache_blob **out,
                      uint32_t *piece)
{
    cache__heard(cache, now_us);
    if (cache->pieces == 0 || cache->now_us < cache->scrub_due_us)
        return false;
    uint64_t late_at_most = cache->now_us > SCRUB_LATE_US ? cache->now_us - SCRUB_LATE_US : 0;
    if (cache->scrub_due_us < late_at_most)
        cache->scrub_due_us = late_at_most;
    cache->scrub_due_us += SCRUB_PERIOD_US / cache->pieces;
    if (!find_next(cache))
        return false;

    struct cache_blob *blob = cache->scrub_blob;
    struct segment *segment = cache__find_segment(blob, cache->scrub_piece);
    ASSERT(segment != NULL);
    segment->pins++;
    bool freed = cache__settle_segment(cache, segment);
    ASSERT(!freed);
    cache__ref(blob);
    *out = blob;
    *piece = cache->scrub_piece++;
    return true;
}

void cache_scrub_done(struct cache *cache, struct cache_blob *blob, uint32_t piece)
{
    struct segment *segment = cache__find_segment(blob, piece);
    ASSERT(segment != NULL && segment->pins > 0);
    segment->pins--;
    (void)cache__settle_segment(cache, segment);
    cache__unref(cache, blob);
    cache__trim(cache);
}
