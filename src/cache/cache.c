/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache's blobs: index by digest, references, pins and holds, recovery, figures, and the calls
 * that workers make. What goes when room is needed is evict.c's, what may be written admit.c's.
 *
 * All of it belongs to the loop but cache_write, cache_read, cache_open_fd and cache_seal, which
 * run on any thread and touch only what cache_internal.h says. Their caller holds a reference from
 * before the call until after it, so a blob is never removed from the store under a worker.
 */
#include "cache_internal.h"

#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"

/* Segments looked at for a blob that may go when the index itself is full. */
#define BLOB_ROOM_TRIES 64

void cache__heard(struct cache *cache, uint64_t now_us)
{
    if (now_us > cache->now_us)
        cache->now_us = now_us;
}

/* ---- life of a blob ---- */

static void *cache_alloc(struct cache *cache, size_t byte_count)
{
    return cache->env.alloc(cache->env.host, NULL, byte_count);
}

static void cache_release(struct cache *cache, void *memory)
{
    if (memory != NULL)
        (void)cache->env.alloc(cache->env.host, memory, 0);
}

static void free_blob(struct cache *cache, struct cache_blob *blob)
{
    bitfield_close(&blob->have, &cache->env);
    bitfield_close(&blob->writing, &cache->env);
    bitfield_close(&blob->doomed, &cache->env);
    cache_release(cache, blob->segments);
    cache_release(cache, blob);
}

static int init_blob(struct cache *cache, struct cache_blob *blob)
{
    uint32_t pieces = blob->layout.piece_count;
    size_t bytes = blob->layout.segment_count * sizeof blob->segments[0];
    int err = bitfield_init(&blob->have, &cache->env, pieces);
    if (err == 0)
        err = bitfield_init(&blob->writing, &cache->env, pieces);
    if (err == 0)
        err = bitfield_init(&blob->doomed, &cache->env, pieces);
    if (err != 0 || bytes == 0)
        return err;
    blob->segments = cache_alloc(cache, bytes);
    if (blob->segments == NULL)
        return E_NO_MEMORY;
    memset(blob->segments, 0, bytes);
    return 0;
}

static int index_blob(struct cache *cache, struct cache_blob *blob)
{
    HASH_ADD(hh, cache->blobs, key, sizeof blob->key, blob);
    if (blob->hh.tbl == NULL)
        return E_NO_MEMORY;
    cache->blob_count++;
    return 0;
}

/* A blob in the index, without references and unknown to the store. 0, E_NO_MEMORY, E_TOO_LARGE,
 * E_INVALID (no such cut). */
static int new_blob(struct cache *cache, const struct cache_key *key, uint64_t size_bytes,
                    struct cache_blob **out)
{
    struct piece_layout layout;
    int err = piece_layout_cut(size_bytes, (enum piece_cut)key->cut, &layout);
    if (err != 0)
        return err;
    ASSERT(layout.segment_pieces <= SEGMENT_PIECES_MAX);
    struct cache_blob *blob = cache_alloc(cache, sizeof *blob);
    if (blob == NULL)
        return E_NO_MEMORY;
    memset(blob, 0, sizeof *blob);
    blob->key = *key;
    blob->layout = layout;
    err = init_blob(cache, blob);
    if (err == 0)
        err = index_blob(cache, blob);
    if (err != 0) {
        free_blob(cache, blob);
        return err;
    }
    *out = blob;
    return 0;
}

static void unindex_blob(struct cache *cache, struct cache_blob *blob)
{
    cache__scrub_skip(cache, blob);
    HASH_DEL(cache->blobs, blob);
    cache->blob_count--;
}

void cache__settle_blob(struct cache *cache, struct cache_blob *blob)
{
    if (blob->refs > 0 || blob->live_segments > 0)
        return;
    ASSERT(blob->holds == 0);
    if (!blob->dead)
        unindex_blob(cache, blob);
    if (cache->store.remove(cache->store.self, blob->store_id) != 0)
        cache->stats.write_errors++;
    free_blob(cache, blob);
}

void cache__ref(struct cache_blob *blob)
{
    ASSERT(blob->refs < UINT32_MAX);
    blob->refs++;
}

void cache__unref(struct cache *cache, struct cache_blob *blob)
{
    ASSERT(blob->refs > 0);
    blob->refs--;
    cache__settle_blob(cache, blob);
}

/* Forgets the pieces of one segment; the store has been or will be told by the caller. */
static void kill_segment(struct cache *cache, struct segment *segment, bool notify)
{
    struct cache_blob *blob = segment->blob;
    uint32_t first = segment_first(&blob->layout, segment->index);
    uint32_t count = segment_length(&blob->layout, segment->index);
    if (segment->have_count > 0 && notify)
        cache__notify(cache, segment);
    for (uint32_t i = 0; i < count; i++) {
        if (!bitfield_get(&blob->have, first + i))
            continue;
        cache__piece_lost(cache, segment, first + i);
        if (cache->store.drop(cache->store.self, blob->store_id, first + i, 1) != 0)
            cache->stats.write_errors++;
    }
    (void)cache__settle_segment(cache, segment);
}

void cache__kill(struct cache *cache, struct cache_blob *blob, bool notify)
{
    ASSERT(blob->refs > 0);
    if (blob->dead)
        return;
    unindex_blob(cache, blob);
    blob->dead = true;
    blob->complete = false;
    for (uint32_t i = 0; i < blob->layout.segment_count; i++) {
        if (blob->segments[i] != NULL)
            kill_segment(cache, blob->segments[i], notify);
    }
    ASSERT(blob->have.set_count == 0);
}

/* ---- cache ---- */

int cache_new(const struct env *env, const struct cache_config *config, const struct store *store,
              struct cache **out)
{
    struct cache *cache = env->alloc(env->host, NULL, sizeof *cache);
    if (cache == NULL)
        return E_NO_MEMORY;
    memset(cache, 0, sizeof *cache);
    cache->env = *env;
    cache->config = *config;
    if (cache->config.blobs_max == 0)
        cache->config.blobs_max = BLOBS_MAX;
    cache->store = *store;
    *out = cache;
    return 0;
}

static void free_segments(struct cache *cache, struct cache_blob *blob)
{
    for (uint32_t i = 0; i < blob->layout.segment_count; i++) {
        if (blob->segments[i] == NULL)
            continue;
        cache_release(cache, blob->segments[i]->notice);
        cache_release(cache, blob->segments[i]);
    }
}

void cache_free(struct cache *cache)
{
    if (cache == NULL)
        return;
    struct cache_blob *blob, *next;
    HASH_ITER(hh, cache->blobs, blob, next)
    {
        HASH_DEL(cache->blobs, blob);
        free_segments(cache, blob);
        free_blob(cache, blob);
    }
    cache__forget_notices(cache);
    cache->store.close(cache->store.self);
    (void)cache->env.alloc(cache->env.host, cache, 0);
}

/* Makes room in the index: one blob that nobody refers to goes, oldest first. */
static int make_blob_room(struct cache *cache)
{
    struct segment *segment = cache->oldest;
    for (unsigned tries = 0; segment != NULL && tries < BLOB_ROOM_TRIES; tries++) {
        if (segment->blob->refs == 0)
            return cache__evict_blob(cache, segment->blob) ? 0 : E_FULL;
        segment = segment->newer;
    }
    return E_FULL;
}

static struct cache_key key_of(const struct digest *digest, enum piece_cut cut)
{
    return (struct cache_key){.digest = *digest, .cut = (uint32_t)cut};
}

static struct cache_blob *lookup(struct cache *cache, const struct cache_key *key)
{
    struct cache_blob *blob = NULL;
    HASH_FIND(hh, cache->blobs, key, sizeof *key, blob);
    return blob;
}

/* A new blob, also in the store. */
static int create_blob(struct cache *cache, const struct cache_key *key, uint64_t size_bytes,
                       struct cache_blob **out)
{
    struct cache_blob *blob;
    int err = cache->blob_count < cache->config.blobs_max ? 0 : make_blob_room(cache);
    if (err == 0)
        err = new_blob(cache, key, size_bytes, &blob);
    if (err != 0)
        return err;
    err = cache->store.create(cache->store.self, &key->digest, (enum piece_cut)key->cut, size_bytes,
                              &blob->store_id);
    if (err != 0) {
        unindex_blob(cache, blob);
        free_blob(cache, blob);
        return err;
    }
    *out = blob;
    return 0;
}

int cache_get(struct cache *cache, const struct digest *digest, uint64_t size_bytes,
              struct cache_blob **out)
{
    return cache_get_cut(cache, digest, PIECE_CUT_PLAIN, size_bytes, out);
}

int cache_get_cut(struct cache *cache, const struct digest *digest, enum piece_cut cut,
                  uint64_t size_bytes, struct cache_blob **out)
{
    if (digest_bytes(digest->algorithm) == 0)
        return E_INVALID;
    const struct cache_key key = key_of(digest, cut);
    struct cache_blob *blob = lookup(cache, &key);
    if (blob != NULL && blob->layout.blob_bytes != size_bytes) {
        /* One of the two sizes is a lie (INT-8). A verified one stands; one that is in use is
         * somebody's pull, which the whole digest will judge. */
        if (blob->complete || blob->refs > 0)
            return E_INVALID;
        if (!cache__evict_blob(cache, blob))
            return E_FULL;
        blob = NULL;
    }
    if (blob == NULL) {
        int err = create_blob(cache, &key, size_bytes, &blob);
        if (err != 0)
            return err;
    }
    cache__ref(blob);
    *out = blob;
    return 0;
}

struct cache_blob *cache_find(struct cache *cache, const struct digest *digest)
{
    return cache_find_cut(cache, digest, PIECE_CUT_PLAIN);
}

struct cache_blob *cache_find_cut(struct cache *cache, const struct digest *digest,
                                  enum piece_cut cut)
{
    const struct cache_key key = key_of(digest, cut);
    struct cache_blob *blob = lookup(cache, &key);
    if (blob != NULL)
        cache__ref(blob);
    return blob;
}

void cache_put(struct cache *cache, struct cache_blob *blob)
{
    cache__unref(cache, blob);
}

const struct digest *cache_blob_digest(const struct cache_blob *blob)
{
    return &blob->key.digest;
}

uint64_t cache_blob_size(const struct cache_blob *blob)
{
    return blob->layout.blob_bytes;
}

const struct bitfield *cache_blob_have(const struct cache_blob *blob)
{
    return &blob->have;
}

bool cache_blob_complete(const struct cache_blob *blob)
{
    return blob->complete;
}

const struct piece_layout *cache_blob_layout(const struct cache_blob *blob)
{
    return &blob->layout;
}

/* ---- pins and holds ---- */

int cache_pin(struct cache *cache, struct cache_blob *blob, uint32_t piece, uint64_t now_us)
{
    cache__heard(cache, now_us);
    if (piece >= blob->layout.piece_count || !bitfield_get(&blob->have, piece)) {
        cache->stats.misses++;
        return E_NOT_FOUND;
    }
    struct segment *segment = cache__find_segment(blob, piece);
    ASSERT(segment != NULL && segment->pins < UINT32_MAX);
    cache__ref(blob);
    segment->pins++;
    segment->used_us = cache->now_us;
    (void)cache__settle_segment(cache, segment);
    cache->stats.hits++;
    return 0;
}

void cache_unpin(struct cache *cache, struct cache_blob *blob, uint32_t piece)
{
    ASSERT(piece < blob->layout.piece_count);
    struct segment *segment = cache__find_segment(blob, piece);
    ASSERT(segment != NULL && segment->pins > 0);
    segment->pins--;
    segment->used_us = cache->now_us;
    (void)cache__settle_segment(cache, segment);
    cache__unref(cache, blob);
    cache__trim(cache);
}

static void settle_segments(struct cache *cache, struct cache_blob *blob, bool touch)
{
    for (uint32_t i = 0; i < blob->layout.segment_count; i++) {
        struct segment *segment = blob->segments[i];
        if (segment == NULL)
            continue;
        if (touch)
            segment->used_us = cache->now_us;
        (void)cache__settle_segment(cache, segment);
    }
}

void cache_hold(struct cache *cache, struct cache_blob *blob)
{
    cache__ref(blob);
    if (blob->holds++ > 0)
        return;
    cache->held_bytes += blob->layout.blob_bytes;
    settle_segments(cache, blob, false);
}

bool cache_hold_if_fits(struct cache *cache, struct cache_blob *blob)
{
    uint64_t more = blob->holds > 0 ? 0 : blob->layout.blob_bytes;
    uint64_t limit = cache->config.capacity_bytes / 2;
    if (cache->held_bytes > limit || more > limit - cache->held_bytes)
        return false;
    cache_hold(cache, blob);
    return true;
}

uint64_t cache_ahead_bytes(uint64_t capacity_bytes)
{
    return capacity_bytes / 2;
}

void cache_unhold(struct cache *cache, struct cache_blob *blob)
{
    ASSERT(blob->holds > 0);
    if (--blob->holds == 0) {
        ASSERT(cache->held_bytes >= blob->layout.blob_bytes);
        cache->held_bytes -= blob->layout.blob_bytes;
        settle_segments(cache, blob, true); /* its swarm used all of it until now */
    }
    cache__unref(cache, blob);
    cache__trim(cache);
}

/* ---- forgetting ---- */

void cache_drop_piece(struct cache *cache, struct cache_blob *blob, uint32_t piece)
{
    if (piece >= blob->layout.piece_count || blob->dead)
        return;
    if (bitfield_get(&blob->writing, piece)) {
        (void)bitfield_set(&blob->doomed, piece);
        return;
    }
    if (!bitfield_get(&blob->have, piece))
        return;
    struct segment *segment = cache__find_segment(blob, piece);
    ASSERT(segment != NULL);
    cache__piece_lost(cache, segment, piece);
    if (cache->store.drop(cache->store.self, blob->store_id, piece, 1) != 0)
        cache->stats.write_errors++;
    cache__ref(blob); /* callers may work on a blob that cache_recover lent them */
    (void)cache__settle_segment(cache, segment);
    cache__unref(cache, blob);
}

void cache_drop_blob(struct cache *cache, struct cache_blob *blob)
{
    cache__ref(blob);
    cache__kill(cache, blob, false);
    cache__unref(cache, blob);
}

/* ---- workers ---- */

static bool whole_piece(const struct cache_blob *blob, uint32_t piece, uint32_t byte_count)
{
    return piece < blob->layout.piece_count && byte_count == piece_length(&blob->layout, piece);
}

int cache_write(struct cache *cache, struct cache_blob *blob, uint32_t piece, const uint8_t *bytes,
                uint32_t byte_count, const struct piece_record *record)
{
    if (!whole_piece(blob, piece, byte_count) || record->voucher.piece_index != piece ||
        record->voucher.piece_bytes != byte_count)
        return E_INVALID;
    return cache->store.write(cache->store.self, blob->store_id, piece, bytes, byte_count, record);
}

int cache_read(struct cache *cache, struct cache_blob *blob, uint32_t piece, uint8_t *out,
               uint32_t byte_count, struct piece_record *record)
{
    if (!whole_piece(blob, piece, byte_count))
        return E_INVALID;
    int err = cache->store.read(cache->store.self, blob->store_id, piece, out, byte_count, record);
    if (err == E_CORRUPT)
        atomic_fetch_add_explicit(&cache->corrupt, 1, memory_order_relaxed);
    return err;
}

int cache_open_fd(struct cache *cache, struct cache_blob *blob, uint32_t piece, int *fd,
                  uint64_t *offset)
{
    if (piece >= blob->layout.piece_count)
        return E_INVALID;
    return cache->store.open_fd(cache->store.self, blob->store_id, piece, fd, offset);
}

int cache_seal(struct cache *cache, struct cache_blob *blob)
{
    return cache->store.seal(cache->store.self, blob->store_id);
}

void cache_seal_done(struct cache *cache, struct cache_blob *blob, int status)
{
    if (status == 0) {
        blob->complete = !blob->dead;
        return;
    }
    /* Some pieces were never stored, or it was not tried: the parts stay parts. */
    if (status == E_NOT_FOUND || status == E_CANCELLED || status == E_AGAIN ||
        status == E_NO_MEMORY)
        return;
    /* What could not be made safe counts as lost (DSK-3, D-3). */
    cache->stats.write_errors++;
    cache__ref(blob);
    cache__kill(cache, blob, true);
    cache__unref(cache, blob);
}

/* ---- recovery ---- */

static int adopt_pieces(struct cache *cache, struct cache_blob *blob, const struct bitfield *have)
{
    uint32_t piece = bitfield_next_set(have, 0);
    while (piece < have->bit_count) {
        struct segment *segment;
        int err = cache__segment(cache, blob, piece, &segment);
        if (err != 0)
            return err;
        if (segment->listed) {
            segment->pins++; /* off the list while its bytes change */
            (void)cache__settle_segment(cache, segment);
            segment->pins--;
        }
        cache__piece_had(cache, segment, piece);
        cache->bytes += piece_length(&blob->layout, piece);
        (void)cache__settle_segment(cache, segment);
        piece = bitfield_next_set(have, piece + 1);
    }
    return 0;
}

/* Takes in one blob that the store found. What cannot be kept is removed: a cache may lose. */
static void adopt(void *arg, const struct store_blob *found, uint64_t store_id)
{
    struct cache *cache = arg;
    struct cache_blob *blob = NULL;
    const struct cache_key key = key_of(&found->digest, found->cut);
    bool usable = digest_bytes(found->digest.algorithm) > 0 && found->have->set_count > 0 &&
                  cache->blob_count < cache->config.blobs_max && lookup(cache, &key) == NULL;
    if (!usable || new_blob(cache, &key, found->size_bytes, &blob) != 0) {
        if (cache->store.remove(cache->store.self, store_id) != 0)
            cache->stats.write_errors++;
        return;
    }
    blob->store_id = store_id;
    blob->complete = found->complete;
    cache__ref(blob);
    if (found->have->bit_count != blob->layout.piece_count ||
        adopt_pieces(cache, blob, found->have) != 0)
        cache__kill(cache, blob, false);
    cache__unref(cache, blob);
}

int cache_recover(struct cache *cache, void (*found)(void *arg, struct cache_blob *blob), void *arg)
{
    int err = cache->store.recover(cache->store.self, adopt, cache);
    if (err != 0)
        return err;
    /* The capacity may be smaller than it was. Nobody knows these blobs yet, so nobody is told. */
    while (cache->bytes > cache->config.capacity_bytes && cache__evict_oldest(cache))
        cache__forget_notices(cache);
    ASSERT(cache->blob_count <= INT32_MAX);
    int count = (int)cache->blob_count;
    struct cache_blob *blob, *next;
    HASH_ITER(hh, cache->blobs, blob, next)
    {
        if (found != NULL)
            found(arg, blob);
    }
    return count;
}

/* ---- figures and invariants ---- */

void cache_stats(const struct cache *cache, struct cache_stats *out)
{
    *out = cache->stats;
    out->bytes = cache->bytes;
    out->capacity_bytes = cache->config.capacity_bytes;
    out->corrupt = atomic_load_explicit(&cache->corrupt, memory_order_relaxed);
    out->blobs = cache->blob_count;
    out->pieces = cache->pieces;
    out->degraded = cache->tier.refused || cache->tier.short_of_room;
}
