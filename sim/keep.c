/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's piece cache when it has a capacity: the agent's own index (src/cache), over a store that
 * keeps nothing. What does not fit stays in memory for a while, as in the agent, and is lost then.
 * Nodes without a capacity have none of this.
 */
#include <stdlib.h>

#include "cache.h"
#include "digest.h"
#include "host.h"
#include "log.h"

/* The agent's limits of memory: config.memory_bytes 0. */
#define LOOSE_BYTES (64ULL << 20)
#define LOOSE_MAX   256

struct loose_piece {
    uint32_t blob, piece;
};

struct keep {
    struct cache *cache;
    struct cache_blob *blobs[WORLD_BLOBS_MAX]; /* a reference each */
    struct loose_piece loose[LOOSE_MAX];       /* had, but not in the cache; a ring */
    uint32_t loose_first, loose_count;
    uint64_t loose_bytes;
};

/* ---- the store ---- */

static int store_create(void *self, const struct digest *digest, enum piece_cut cut,
                        uint64_t size_bytes, uint64_t *out)
{
    (void)self;
    (void)digest;
    (void)cut;
    (void)size_bytes;
    *out = 1;
    return 0;
}

static int store_drop(void *self, uint64_t blob, uint32_t first_piece, uint32_t piece_count)
{
    (void)self;
    (void)blob;
    (void)first_piece;
    (void)piece_count;
    return 0;
}

static int store_remove(void *self, uint64_t blob)
{
    (void)self;
    (void)blob;
    return 0;
}

static uint64_t store_free_bytes(void *self)
{
    (void)self;
    return UINT64_MAX;
}

static void store_close(void *self)
{
    (void)self;
}

/* ---- life ---- */

void keep_init(struct sim_node *node)
{
    const struct world_config *config = &node->world->config;
    if (config->cache_bytes == 0)
        return;
    static const struct store store = {.create = store_create,
                                       .drop = store_drop,
                                       .remove = store_remove,
                                       .free_bytes = store_free_bytes,
                                       .close = store_close};
    struct cache_config cache = {.capacity_bytes = config->cache_bytes};
    node->keep = calloc(1, sizeof *node->keep);
    ASSERT(node->keep != NULL);
    int err = cache_new(&node->env, &cache, &store, &node->keep->cache);
    ASSERT(err == 0);
}

void keep_close(struct sim_node *node)
{
    struct keep *keep = node->keep;
    if (keep == NULL)
        return;
    for (uint32_t i = 0; i < WORLD_BLOBS_MAX; i++) {
        if (keep->blobs[i] != NULL)
            cache_put(keep->cache, keep->blobs[i]);
    }
    cache_free(keep->cache);
    free(keep);
    node->keep = NULL;
}

void keep_open(struct sim_node *node, uint32_t blob)
{
    struct keep *keep = node->keep;
    const struct blob_info *info = &node->world->blobs[blob];
    if (keep == NULL || keep->blobs[blob] != NULL)
        return;
    int err = cache_get(keep->cache, &info->digest, info->size_bytes, &keep->blobs[blob]);
    ASSERT(err == 0);
}

/* ---- pieces ---- */

static void lose(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    struct sim_blob *mine = &node->blobs[blob];
    if (!bitfield_clear(&mine->have, piece))
        return;
    node->bytes.evicted += piece_length(&node->world->layouts[blob], piece);
    if (mine->handle != 0)
        transfer_piece_lost(host_transfer(node), host_now_us(node), mine->handle, piece);
}

static uint32_t blob_with(const struct world *world, const struct digest *digest)
{
    uint32_t blob = 0;
    while (blob < world->blob_count && !digest_equal(&world->blobs[blob].digest, digest))
        blob++;
    ASSERT(blob < world->blob_count);
    return blob;
}

static void drop_loose(struct sim_node *node)
{
    struct keep *keep = node->keep;
    struct loose_piece old = keep->loose[keep->loose_first];
    keep->loose_first = (keep->loose_first + 1) % LOOSE_MAX;
    keep->loose_count--;
    keep->loose_bytes -= piece_length(&node->world->layouts[old.blob], old.piece);
    if (keep->blobs[old.blob] == NULL ||
        !bitfield_get(cache_blob_have(keep->blobs[old.blob]), old.piece))
        lose(node, old.blob, old.piece);
}

static void keep_loose(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    struct keep *keep = node->keep;
    uint64_t limit = node->world->config.memory_bytes;
    limit = limit == 0 ? LOOSE_BYTES : limit;
    if (keep->loose_count == LOOSE_MAX)
        drop_loose(node);
    keep->loose[(keep->loose_first + keep->loose_count++) % LOOSE_MAX] =
        (struct loose_piece){blob, piece};
    keep->loose_bytes += piece_length(&node->world->layouts[blob], piece);
    while (keep->loose_bytes > limit && keep->loose_count > 1)
        drop_loose(node);
}

/* What is still in memory stays a while. */
static void evicted(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    if (node->blobs[blob].touched != NULL && work_in_memory(node, blob, piece))
        keep_loose(node, blob, piece);
    else
        lose(node, blob, piece);
}

static void tell_evictions(struct sim_node *node)
{
    struct cache_eviction gone;
    while (cache_next_eviction(node->keep->cache, &gone)) {
        uint32_t blob = blob_with(node->world, &gone.digest);
        for (uint32_t i = 0; i < gone.piece_count; i++)
            evicted(node, blob, gone.first_piece + i);
    }
}

bool keep_hold(struct sim_node *node, uint32_t blob)
{
    struct keep *keep = node->keep;
    return keep != NULL && cache_hold_if_fits(keep->cache, keep->blobs[blob]);
}

void keep_unhold(struct sim_node *node, uint32_t blob)
{
    cache_unhold(node->keep->cache, node->keep->blobs[blob]);
    tell_evictions(node);
}

void keep_crash(struct sim_node *node)
{
    while (node->keep != NULL && node->keep->loose_count > 0)
        drop_loose(node);
}

bool keep_is_loose(const struct sim_node *node, uint32_t blob, uint32_t piece)
{
    const struct keep *keep = node->keep;
    for (uint32_t i = 0; keep != NULL && i < keep->loose_count; i++) {
        const struct loose_piece *loose = &keep->loose[(keep->loose_first + i) % LOOSE_MAX];
        if (loose->blob == blob && loose->piece == piece)
            return true;
    }
    return false;
}

void keep_piece(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    struct keep *keep = node->keep;
    if (keep == NULL)
        return;
    uint64_t now_us = host_now_us(node);
    if (node->disk == WORLD_DISK_FULL || node->disk == WORLD_DISK_WRITE_ERRORS) {
        const struct bitfield *have = cache_blob_have(keep->blobs[blob]);
        if (bitfield_get(have, piece) || keep_is_loose(node, blob, piece))
            return;
        node->world->totals.unwritten++;
        keep_loose(node, blob, piece);
        return;
    }
    int err = cache_reserve(keep->cache, keep->blobs[blob], piece, now_us);
    if (err == 0)
        cache_write_done(keep->cache, keep->blobs[blob], piece, now_us, 0);
    else if (err != E_EXISTS)
        keep_loose(node, blob, piece);
    tell_evictions(node);
}

void keep_spoil(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    node->world->totals.spoiled++;
    cache_drop_piece(node->keep->cache, node->keep->blobs[blob], piece);
    lose(node, blob, piece);
}

bool keep_pin(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    struct keep *keep = node->keep;
    return keep != NULL && cache_pin(keep->cache, keep->blobs[blob], piece, host_now_us(node)) == 0;
}

void keep_unpin(struct sim_node *node, uint32_t blob, uint32_t piece)
{
    cache_unpin(node->keep->cache, node->keep->blobs[blob], piece);
    tell_evictions(node);
}

void keep_check(const struct sim_node *node)
{
    if (node->keep == NULL)
        return;
    struct cache_stats stats;
    cache__check_invariants(node->keep->cache);
    cache_stats(node->keep->cache, &stats);
    ASSERT(stats.bytes <= stats.capacity_bytes);
}
