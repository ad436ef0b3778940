/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: whether one more piece may be written, what goes to make room for it, and what a
 * failed write means for the tier. Capacity counts our own bytes and is never exceeded; the
 * reserve counts the device's (DSK-4). A tier that refuses writes is left alone and tried again
 * with one piece now and then, so that caching resumes within a minute (D-1, D-4). Loop only.
 */
#include "cache_internal.h"

#include <inttypes.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"

/* First pause after a refused write, doubled up to the last: D-1 wants caching back within 60 s of
 * space returning, and a full disk should not be hammered meanwhile. */
#define RETRY_FIRST_US ((uint64_t)1000 * 1000)
#define RETRY_LAST_US  ((uint64_t)30 * 1000 * 1000)
/* D-4: one log line per minute. */
#define LOG_EVERY_US ((uint64_t)60 * 1000 * 1000)

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* ---- room ---- */

/* Evicts until `bytes` less are had. False if that cannot be; then nothing went, unless the host
 * does not drain its notices. */
static bool evict_bytes(struct cache *cache, uint64_t bytes)
{
    if (bytes > cache->evictable_bytes)
        return false;
    uint64_t goal = cache->bytes - bytes;
    while (cache->bytes > goal) {
        if (!cache__evict_oldest(cache))
            return false;
    }
    return true;
}

static int make_room(struct cache *cache, const struct cache_blob *blob, uint32_t bytes)
{
    uint64_t capacity = cache->config.capacity_bytes;
    if (capacity == 0)
        return blob->holds > 0 ? 0 : E_FULL; /* nothing is kept beyond running swarms */
    uint64_t wanted = add_capped(cache->bytes, bytes);
    if (wanted <= capacity)
        return 0;
    return evict_bytes(cache, wanted - capacity) ? 0 : E_FULL;
}

/*
 * The device must keep its reserve after this write and those under way. When it is short, our
 * oldest segments pay for the new piece: others' need for room makes the cache smaller, not stale.
 */
static int keep_reserve(struct cache *cache, uint32_t bytes)
{
    uint64_t free_bytes = cache->store.free_bytes(cache->store.self);
    uint64_t wanted = add_capped(cache->config.reserve_bytes, cache->writing_bytes);
    wanted = add_capped(wanted, bytes);
    cache->tier.short_of_room = free_bytes < wanted && !evict_bytes(cache, wanted - free_bytes);
    return cache->tier.short_of_room ? E_NO_SPACE : 0;
}

static bool tier_accepts(const struct cache *cache)
{
    const struct tier_state *tier = &cache->tier;
    return !tier->refused || (!tier->probing && cache->now_us >= tier->retry_us);
}

/* Makes room with the segment itself off the list. */
static int admit(struct cache *cache, struct segment *segment, uint32_t bytes)
{
    segment->writing_count++;
    bool freed = cache__settle_segment(cache, segment);
    ASSERT(!freed);
    int err = make_room(cache, segment->blob, bytes);
    if (err == 0)
        err = keep_reserve(cache, bytes);
    if (err != 0) {
        segment->writing_count--;
        (void)cache__settle_segment(cache, segment);
    }
    return err;
}

int cache_reserve(struct cache *cache, struct cache_blob *blob, uint32_t piece, uint64_t now_us)
{
    cache__heard(cache, now_us);
    if (piece >= blob->layout.piece_count)
        return E_INVALID;
    if (blob->dead)
        return E_CLOSED;
    if (bitfield_get(&blob->have, piece) || bitfield_get(&blob->writing, piece))
        return E_EXISTS;
    if (!tier_accepts(cache))
        return E_NO_SPACE;

    uint32_t bytes = piece_length(&blob->layout, piece);
    struct segment *segment;
    cache__ref(blob);
    int err = cache__segment(cache, blob, piece, &segment);
    if (err == 0)
        err = admit(cache, segment, bytes);
    if (err != 0) {
        cache__unref(cache, blob);
        return err;
    }
    segment->used_us = cache->now_us;
    (void)bitfield_set(&blob->writing, piece);
    cache->bytes += bytes;
    cache->writing_bytes += bytes;
    cache->tier.probing = cache->tier.refused;
    return 0;
}

/* ---- what became of it ---- */

static void tier_failed(struct cache *cache, int status)
{
    struct tier_state *tier = &cache->tier;
    if (tier->refused && !tier->probing)
        return; /* one of several that were under way when the first failed */
    tier->backoff_us = tier->refused ? 2 * tier->backoff_us : RETRY_FIRST_US;
    if (tier->backoff_us > RETRY_LAST_US)
        tier->backoff_us = RETRY_LAST_US;
    tier->refused = true;
    tier->probing = false;
    tier->retry_us = add_capped(cache->now_us, tier->backoff_us);
    if (tier->logged_us != 0 && cache->now_us - tier->logged_us < LOG_EVERY_US)
        return;
    tier->logged_us = cache->now_us != 0 ? cache->now_us : 1;
    log_to(&cache->env, LOG_WARN,
           "cache: store refuses writes err=%s retry_ms=%" PRIu64 " bytes=%" PRIu64,
           err_name(status), tier->backoff_us / 1000, cache->bytes);
}

static void tier_heard(struct cache *cache, int status)
{
    struct tier_state *tier = &cache->tier;
    if (status == E_NO_SPACE || status == E_IO) {
        tier_failed(cache, status);
        return;
    }
    tier->probing = false;
    if (status == 0)
        tier->refused = false;
}

/* The write ended without a piece to keep: whatever part of it is stored goes. */
static void discard(struct cache *cache, struct cache_blob *blob, uint32_t piece)
{
    cache->bytes -= piece_length(&blob->layout, piece);
    if (!blob->dead && cache->store.drop(cache->store.self, blob->store_id, piece, 1) != 0)
        cache->stats.write_errors++;
}

void cache_write_done(struct cache *cache, struct cache_blob *blob, uint32_t piece, uint64_t now_us,
                      int status)
{
    cache__heard(cache, now_us);
    ASSERT(piece < blob->layout.piece_count);
    bool was_writing = bitfield_clear(&blob->writing, piece);
    ASSERT(was_writing);
    struct segment *segment = cache__find_segment(blob, piece);
    ASSERT(segment != NULL && segment->writing_count > 0);
    segment->writing_count--;
    cache->writing_bytes -= piece_length(&blob->layout, piece);

    bool doomed = bitfield_clear(&blob->doomed, piece);
    if (status == 0 && !doomed && !blob->dead)
        cache__piece_had(cache, segment, piece);
    else
        discard(cache, blob, piece);
    if (status != 0 && status != E_CANCELLED)
        cache->stats.write_errors++;
    tier_heard(cache, status);
    segment->used_us = cache->now_us;
    (void)cache__settle_segment(cache, segment);
    cache__unref(cache, blob);
    cache__trim(cache);
}
