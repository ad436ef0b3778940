/* SPDX-License-Identifier: Apache-2.0 */
/* The index over a store that keeps no bytes but writes down what it is asked: references, sizes,
 * admission, order of eviction, pins, holds, drops, seals, degraded mode, scrub. */
#include "cache_support.h"

#define PIECE  ((uint32_t)PIECE_BYTES_MIN)
#define SECOND ((uint64_t)1000 * 1000)

/* ---- a store that keeps notes ---- */

struct notes {
    unsigned created, removed, dropped_pieces, drops, seals, closed;
    uint32_t last_first, last_count;
    int create_status, write_status, read_status, seal_status, drop_status;
    uint64_t free_bytes;
};

static int notes_create(void *self, const struct digest *digest, enum piece_cut cut, uint64_t size,
                        uint64_t *out)
{
    struct notes *notes = self;
    (void)digest, (void)cut, (void)size;
    if (notes->create_status == 0)
        *out = ++notes->created;
    return notes->create_status;
}

static int notes_write(void *self, uint64_t blob, uint32_t piece, const uint8_t *bytes,
                       uint32_t byte_count, const struct piece_record *record)
{
    (void)blob, (void)piece, (void)bytes, (void)byte_count, (void)record;
    return ((struct notes *)self)->write_status;
}

static int notes_read(void *self, uint64_t blob, uint32_t piece, uint8_t *out, uint32_t byte_count,
                      struct piece_record *record)
{
    (void)blob, (void)piece, (void)out, (void)byte_count, (void)record;
    return ((struct notes *)self)->read_status;
}

static int notes_open_fd(void *self, uint64_t blob, uint32_t piece, int *fd, uint64_t *offset)
{
    (void)self, (void)blob, (void)piece, (void)fd, (void)offset;
    return E_UNSUPPORTED;
}

static int notes_seal(void *self, uint64_t blob)
{
    (void)blob;
    ((struct notes *)self)->seals++;
    return ((struct notes *)self)->seal_status;
}

static int notes_drop(void *self, uint64_t blob, uint32_t first, uint32_t count)
{
    struct notes *notes = self;
    (void)blob;
    notes->drops++;
    notes->dropped_pieces += count;
    notes->last_first = first;
    notes->last_count = count;
    return notes->drop_status;
}

static int notes_remove(void *self, uint64_t blob)
{
    (void)blob;
    ((struct notes *)self)->removed++;
    return ((struct notes *)self)->drop_status;
}

static int notes_recover(void *self, store_found_fn found, void *arg)
{
    (void)self, (void)found, (void)arg;
    return 0;
}

static uint64_t notes_free_bytes(void *self)
{
    return ((struct notes *)self)->free_bytes;
}

static void notes_close(void *self)
{
    ((struct notes *)self)->closed++;
}

/* ---- fixture ---- */

struct rig {
    struct test_env env;
    struct notes notes;
    struct cache *cache;
};

static void rig_start(struct rig *rig, uint64_t capacity_bytes, uint32_t blobs_max)
{
    memset(rig, 0, sizeof *rig);
    test_env_init(&rig->env);
    rig->notes.free_bytes = UINT64_MAX;
    const struct store store = {.self = &rig->notes,
                                .create = notes_create,
                                .write = notes_write,
                                .read = notes_read,
                                .open_fd = notes_open_fd,
                                .seal = notes_seal,
                                .drop = notes_drop,
                                .remove = notes_remove,
                                .recover = notes_recover,
                                .free_bytes = notes_free_bytes,
                                .close = notes_close};
    const struct cache_config config = {
        .capacity_bytes = capacity_bytes, .reserve_bytes = 10 * PIECE, .blobs_max = blobs_max};
    assert_int_equal(cache_new(&rig->env.env, &config, &store, &rig->cache), 0);
}

static void rig_stop(struct rig *rig)
{
    cache__check_invariants(rig->cache);
    cache_free(rig->cache);
    assert_int_equal(rig->notes.closed, 1);
    assert_int_equal(rig->env.live, 0);
}

static struct cache_blob *get(struct rig *rig, uint32_t number, uint64_t size_bytes)
{
    struct digest digest = test_digest(number);
    struct cache_blob *blob = NULL;
    assert_int_equal(cache_get(rig->cache, &digest, size_bytes, &blob), 0);
    return blob;
}

static bool known(struct rig *rig, uint32_t number)
{
    struct digest digest = test_digest(number);
    struct cache_blob *blob = cache_find(rig->cache, &digest);
    if (blob != NULL)
        cache_put(rig->cache, blob);
    return blob != NULL;
}

static void have(struct rig *rig, struct cache_blob *blob, uint32_t piece, uint64_t now_us)
{
    assert_int_equal(test_write(rig->cache, blob, piece, now_us), 0);
    cache__check_invariants(rig->cache);
}

static bool has(const struct cache_blob *blob, uint32_t piece)
{
    return bitfield_get(cache_blob_have(blob), piece);
}

static struct cache_stats stats_of(const struct rig *rig)
{
    struct cache_stats stats;
    cache_stats(rig->cache, &stats);
    return stats;
}

/* ---- life ---- */

static void blob_lives_while_referenced_or_holding_pieces(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *blob = get(&rig, 1, 4 * PIECE), *same = get(&rig, 1, 4 * PIECE);
    assert_ptr_equal(blob, same);
    assert_int_equal(cache_blob_size(blob), 4 * PIECE);
    assert_int_equal(cache_blob_layout(blob)->piece_count, 4);
    assert_false(cache_blob_complete(blob));
    struct digest digest = test_digest(1);
    assert_true(digest_equal(cache_blob_digest(blob), &digest));
    cache_put(rig.cache, same);
    assert_true(known(&rig, 1));
    cache_put(rig.cache, blob); /* nothing in it: forgotten */
    assert_false(known(&rig, 1));
    assert_int_equal(rig.notes.removed, 1);

    blob = get(&rig, 1, 4 * PIECE);
    have(&rig, blob, 2, 1);
    cache_put(rig.cache, blob);
    assert_true(known(&rig, 1));
    assert_int_equal(stats_of(&rig).bytes, PIECE);
    assert_int_equal(stats_of(&rig).pieces, 1);
    assert_int_equal(stats_of(&rig).blobs, 1);
    rig_stop(&rig);
    assert_int_equal(rig.notes.removed, 1); /* closing is not forgetting */
}

static void sizes_that_disagree_are_refused(void **state) /* INT-8 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct digest digest = test_digest(1), none = {.algorithm = DIGEST_NONE};
    struct cache_blob *blob = get(&rig, 1, 4 * PIECE), *other;
    assert_int_equal(cache_get(rig.cache, &digest, 5 * PIECE, &other), E_INVALID);
    assert_int_equal(cache_get(rig.cache, &none, 5, &other), E_INVALID);
    digest = test_digest(2);
    assert_int_equal(cache_get(rig.cache, &digest, BLOB_BYTES_MAX + 1, &other), E_TOO_LARGE);
    have(&rig, blob, 0, 1);
    cache_put(rig.cache, blob);
    /* Nobody uses the old one and nothing proved its size: the new size gets its chance. */
    blob = get(&rig, 1, 5 * PIECE);
    assert_int_equal(cache_blob_size(blob), 5 * PIECE);
    assert_int_equal(test_drain(rig.cache), 1);
    have(&rig, blob, 0, 2);
    cache_seal_done(rig.cache, blob, 0);
    assert_true(cache_blob_complete(blob));
    cache_put(rig.cache, blob);
    digest = test_digest(1);
    assert_int_equal(cache_get(rig.cache, &digest, 4 * PIECE, &other), E_INVALID);
    rig_stop(&rig);
}

static void cuts_of_a_blob_are_entries_of_their_own(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 4 * PIECE + 100, 0);
    struct digest digest = test_digest(1);
    struct cache_blob *plain = get(&rig, 1, 4 * PIECE), *fine, *same, *none;
    assert_int_equal(cache_get_cut(rig.cache, &digest, PIECE_CUT_FINE, 4 * PIECE, &fine), 0);
    assert_ptr_not_equal(plain, fine);
    assert_int_equal(cache_blob_layout(fine)->cut, PIECE_CUT_FINE);
    assert_int_equal(cache_blob_layout(fine)->piece_count, 4 * PIECE / PIECE_BYTES_FINE);
    assert_int_equal(cache_get_cut(rig.cache, &digest, PIECE_CUT_COUNT, 4 * PIECE, &none),
                     E_INVALID);
    assert_int_equal(cache_get_cut(rig.cache, &digest, PIECE_CUT_FINE, 5 * PIECE, &none),
                     E_INVALID);
    same = cache_find_cut(rig.cache, &digest, PIECE_CUT_FINE);
    assert_ptr_equal(same, fine);
    cache_put(rig.cache, same);
    assert_int_equal(stats_of(&rig).blobs, 2);

    /* Both count, and what is used longest ago goes, whichever it is of. */
    have(&rig, fine, 3, 1);
    have(&rig, fine, 31, 1);
    have(&rig, fine, 8, 1);
    have(&rig, fine, 9, 1);
    assert_int_equal(stats_of(&rig).bytes, 4 * PIECE_BYTES_FINE);
    assert_false(has(plain, 3));
    for (uint32_t piece = 0; piece < 4; piece++)
        have(&rig, plain, piece, 2 + piece);
    assert_int_equal(cache_blob_have(fine)->set_count, 0);
    struct cache_eviction eviction;
    const uint32_t runs[][2] = {{31, 1}, {3, 1}, {8, 2}}; /* of two segments */
    for (size_t i = 0; i < 3; i++) {
        assert_true(cache_next_eviction(rig.cache, &eviction));
        assert_true(digest_equal(&eviction.digest, &digest));
        assert_int_equal(eviction.cut, PIECE_CUT_FINE);
        assert_int_equal(eviction.first_piece, runs[i][0]);
        assert_int_equal(eviction.piece_count, runs[i][1]);
    }
    assert_false(cache_next_eviction(rig.cache, &eviction));
    cache_put(rig.cache, fine);
    assert_null(cache_find_cut(rig.cache, &digest, PIECE_CUT_FINE));
    assert_true(known(&rig, 1));
    cache_put(rig.cache, plain);
    rig_stop(&rig);
}

static void create_that_fails_leaves_nothing(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct digest digest = test_digest(1);
    struct cache_blob *blob;
    rig.notes.create_status = E_NO_SPACE;
    assert_int_equal(cache_get(rig.cache, &digest, 4 * PIECE, &blob), E_NO_SPACE);
    assert_false(known(&rig, 1));
    assert_int_equal(stats_of(&rig).blobs, 0);
    rig_stop(&rig);
}

static void full_index_forgets_the_blob_used_longest_ago(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 3);
    for (uint32_t i = 1; i <= 3; i++) {
        struct cache_blob *blob = get(&rig, i, 8 * PIECE);
        have(&rig, blob, 0, i);
        have(&rig, blob, 7, i);
        if (i != 1)
            cache_put(rig.cache, blob); /* 1 stays in use */
    }
    struct cache_blob *new_one = get(&rig, 4, PIECE);
    assert_true(known(&rig, 1));
    assert_false(known(&rig, 2));
    assert_true(known(&rig, 3));
    assert_int_equal(test_drain(rig.cache), 2);
    struct cache_blob *third = get(&rig, 3, 8 * PIECE), *none;
    struct digest digest = test_digest(5);
    assert_int_equal(cache_get(rig.cache, &digest, PIECE, &none), E_FULL);
    cache_put(rig.cache, third);
    cache_put(rig.cache, new_one);
    rig_stop(&rig);
}

/* ---- admission and eviction ---- */

static void reserve_says_why_not(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 2 * PIECE, 0);
    struct cache_blob *blob = get(&rig, 1, 4 * PIECE);
    assert_int_equal(cache_reserve(rig.cache, blob, 4, 1), E_INVALID);
    assert_int_equal(cache_reserve(rig.cache, blob, 0, 1), 0);
    assert_int_equal(cache_reserve(rig.cache, blob, 0, 1), E_EXISTS); /* being written */
    assert_int_equal(cache_reserve(rig.cache, blob, 1, 1), 0);
    assert_int_equal(cache_reserve(rig.cache, blob, 2, 1), E_FULL); /* writes are not evicted */
    cache_write_done(rig.cache, blob, 0, 2, 0);
    assert_int_equal(cache_reserve(rig.cache, blob, 0, 1), E_EXISTS); /* had */
    cache_write_done(rig.cache, blob, 1, 2, E_CANCELLED);
    assert_int_equal(stats_of(&rig).write_errors, 0);
    assert_int_equal(stats_of(&rig).bytes, PIECE);
    cache_drop_blob(rig.cache, blob);
    assert_int_equal(cache_reserve(rig.cache, blob, 2, 1), E_CLOSED);
    cache_put(rig.cache, blob);
    rig_stop(&rig);
}

static void piece_larger_than_the_capacity_is_not_kept(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, PIECE - 1, 0);
    struct cache_blob *blob = get(&rig, 1, 4 * PIECE), *small = get(&rig, 2, PIECE - 1);
    assert_int_equal(cache_reserve(rig.cache, blob, 0, 1), E_FULL);
    have(&rig, small, 0, 1);
    cache_put(rig.cache, blob);
    cache_put(rig.cache, small);
    rig_stop(&rig);
}

static void write_with_a_foreign_voucher_is_refused(void **state) /* INT-8 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *blob = get(&rig, 1, 4 * PIECE);
    uint8_t *bytes = calloc(1, PIECE);
    struct piece_record record = test_record(1, bytes, PIECE);
    assert_int_equal(cache_reserve(rig.cache, blob, 0, 1), 0);
    assert_int_equal(cache_write(rig.cache, blob, 0, bytes, PIECE, &record), E_INVALID);
    record = test_record(0, bytes, PIECE - 1);
    assert_int_equal(cache_write(rig.cache, blob, 0, bytes, PIECE, &record), E_INVALID);
    assert_int_equal(cache_write(rig.cache, blob, 0, bytes, PIECE - 1, &record), E_INVALID);
    assert_int_equal(cache_write(rig.cache, blob, 4, bytes, PIECE, &record), E_INVALID);
    cache_write_done(rig.cache, blob, 0, 1, E_INVALID);
    assert_false(stats_of(&rig).degraded); /* the tier is not to blame */
    assert_int_equal(cache_read(rig.cache, blob, 0, bytes, PIECE - 1, &record), E_INVALID);
    assert_int_equal(cache_open_fd(rig.cache, blob, 4, NULL, NULL), E_INVALID);
    assert_int_equal(cache_open_fd(rig.cache, blob, 0, NULL, NULL), E_UNSUPPORTED);
    free(bytes);
    cache_put(rig.cache, blob);
    rig_stop(&rig);
}

static void segment_used_longest_ago_goes_first_and_whole(void **state)
{
    (void)state;
    struct rig rig;
    const uint32_t some = TEST_SEGMENT;
    rig_start(&rig, 2 * some * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 2 * some * PIECE), *b = get(&rig, 2, 2 * some * PIECE);
    assert_int_equal(cache_blob_layout(a)->segment_pieces, some);
    for (uint32_t piece = 0; piece < some; piece++) {
        have(&rig, a, piece, 1);
        have(&rig, b, piece, 2);
    }
    assert_int_equal(cache_pin(rig.cache, a, 1, 3), 0); /* a's first segment is now younger */
    cache_unpin(rig.cache, a, 1);
    have(&rig, a, some + 1, 4);
    assert_int_equal(cache_blob_have(b)->set_count, 0);
    assert_int_equal(cache_blob_have(a)->set_count, some + 1);
    struct cache_eviction eviction;
    assert_true(cache_next_eviction(rig.cache, &eviction));
    assert_true(digest_equal(&eviction.digest, cache_blob_digest(b)));
    assert_int_equal(eviction.first_piece, 0);
    assert_int_equal(eviction.piece_count, some);
    assert_false(cache_next_eviction(rig.cache, &eviction));
    assert_int_equal(rig.notes.drops, 1);
    assert_int_equal(rig.notes.last_count, some);
    assert_int_equal(stats_of(&rig).evictions, 1);
    assert_int_equal(stats_of(&rig).evicted_bytes, some * PIECE);
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    rig_stop(&rig);
}

static void evictions_tell_only_what_was_had(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 3 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 8 * PIECE), *b = get(&rig, 2, 8 * PIECE);
    have(&rig, a, 0, 1);
    have(&rig, a, 1, 1);
    have(&rig, a, 3, 1);
    have(&rig, b, 0, 2);
    struct cache_eviction eviction;
    assert_true(cache_next_eviction(rig.cache, &eviction));
    assert_int_equal(eviction.first_piece, 0);
    assert_int_equal(eviction.piece_count, 2);
    assert_true(cache_next_eviction(rig.cache, &eviction));
    assert_int_equal(eviction.first_piece, 3);
    assert_int_equal(eviction.piece_count, 1);
    assert_false(cache_next_eviction(rig.cache, &eviction));
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    rig_stop(&rig);
}

static void pinned_and_held_are_never_evicted(void **state) /* DSK-4 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 2 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 4 * PIECE), *b = get(&rig, 2, 4 * PIECE);
    struct cache_blob *c = get(&rig, 3, 4 * PIECE);
    have(&rig, a, 0, 1);
    have(&rig, b, 0, 2);
    assert_int_equal(cache_pin(rig.cache, a, 0, 3), 0);
    assert_int_equal(cache_pin(rig.cache, a, 0, 3), 0);
    cache_hold(rig.cache, b);
    cache_hold(rig.cache, b);
    assert_int_equal(test_write(rig.cache, c, 0, 4), E_FULL);
    cache_unpin(rig.cache, a, 0);
    cache_unhold(rig.cache, b);
    assert_int_equal(test_write(rig.cache, c, 0, 5), E_FULL); /* both are counted */
    assert_int_equal(stats_of(&rig).evictions, 0);
    cache_unhold(rig.cache, b);
    have(&rig, c, 0, 6);
    assert_true(has(a, 0));
    assert_false(has(b, 0));
    cache_unpin(rig.cache, a, 0);
    have(&rig, c, 1, 7);
    assert_false(has(a, 0));
    assert_int_equal(cache_pin(rig.cache, a, 0, 8), E_NOT_FOUND);
    assert_int_equal(cache_pin(rig.cache, a, 4, 8), E_NOT_FOUND);
    assert_int_equal(stats_of(&rig).hits, 2);
    assert_int_equal(stats_of(&rig).misses, 2);
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    cache_put(rig.cache, c);
    rig_stop(&rig);
}

static void pins_keep_a_blob_after_the_last_put(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 2 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 4 * PIECE);
    have(&rig, a, 0, 1);
    assert_int_equal(cache_pin(rig.cache, a, 0, 2), 0);
    cache_put(rig.cache, a);
    cache_drop_piece(rig.cache, a, 0);
    assert_true(known(&rig, 1));
    cache_unpin(rig.cache, a, 0);
    assert_false(known(&rig, 1));
    rig_stop(&rig);
}

static void capacity_zero_keeps_running_swarms_only(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 0, 0);
    struct cache_blob *a = get(&rig, 1, 4 * PIECE);
    assert_int_equal(test_write(rig.cache, a, 0, 1), E_FULL);
    cache_hold(rig.cache, a);
    have(&rig, a, 0, 2);
    have(&rig, a, 3, 2);
    cache_unhold(rig.cache, a);
    assert_int_equal(stats_of(&rig).bytes, 0);
    assert_int_equal(test_drain(rig.cache), 2);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void readers_hold_half_of_the_capacity_together(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 10 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 4 * PIECE), *b = get(&rig, 2, 4 * PIECE);
    struct cache_blob *large = get(&rig, 3, 6 * PIECE);
    assert_false(cache_hold_if_fits(rig.cache, large));
    assert_true(cache_hold_if_fits(rig.cache, a));
    assert_false(cache_hold_if_fits(rig.cache, b));
    assert_true(cache_hold_if_fits(rig.cache, a)); /* its bytes count once */
    have(&rig, a, 0, 1);
    for (uint32_t piece = 0; piece < 4; piece++)
        have(&rig, b, piece, 2);
    for (uint32_t piece = 0; piece < 6; piece++)
        have(&rig, large, piece, 3);
    assert_true(bitfield_get(cache_blob_have(a), 0)); /* the oldest, and yet there */
    assert_false(bitfield_full(cache_blob_have(b)));
    cache_unhold(rig.cache, a);
    assert_false(cache_hold_if_fits(rig.cache, b));
    cache_unhold(rig.cache, a);
    assert_true(cache_hold_if_fits(rig.cache, b));
    cache_unhold(rig.cache, b);
    (void)test_drain(rig.cache);
    assert_int_equal(cache_ahead_bytes(10 * PIECE), 5 * PIECE);
    assert_int_equal(cache_ahead_bytes(0), 0);
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    cache_put(rig.cache, large);
    rig_stop(&rig);
}

static void evictions_wait_for_a_host_that_does_not_drain(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 10, 0);
    struct cache_blob *a = get(&rig, 1, 10), *b = get(&rig, 2, 10);
    for (unsigned i = 0; i <= 4096; i++)
        assert_int_equal(test_write(rig.cache, i % 2 == 0 ? a : b, 0, i + 1), 0);
    assert_int_equal(test_write(rig.cache, b, 0, 5000), E_FULL);
    assert_int_equal(test_drain(rig.cache), 4096);
    have(&rig, b, 0, 5001);
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    rig_stop(&rig);
}

/* ---- the device ---- */

static void reserve_of_the_device_is_kept(void **state) /* DSK-4 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 4 * PIECE), *b = get(&rig, 2, 4 * PIECE);
    rig.notes.free_bytes = 11 * PIECE;
    assert_int_equal(cache_reserve(rig.cache, a, 0, 1), 0);
    /* The first is not written yet, so the device does not show it. */
    assert_int_equal(cache_reserve(rig.cache, a, 1, 1), E_NO_SPACE);
    assert_true(stats_of(&rig).degraded);
    cache_write_done(rig.cache, a, 0, 1, 0);
    rig.notes.free_bytes = 10 * PIECE;
    have(&rig, b, 0, 2); /* paid for by the oldest of ours */
    assert_false(has(a, 0));
    assert_false(stats_of(&rig).degraded);
    rig.notes.free_bytes = 8 * PIECE; /* somebody else needs more than we can give */
    assert_int_equal(test_write(rig.cache, a, 0, 3), E_NO_SPACE);
    assert_true(has(b, 0));
    rig.notes.free_bytes = 12 * PIECE;
    have(&rig, a, 0, 4);
    assert_false(stats_of(&rig).degraded);
    cache_put(rig.cache, a);
    cache_put(rig.cache, b);
    rig_stop(&rig);
}

static void refused_writes_degrade_and_caching_resumes(void **state) /* D-1, D-3, D-4 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 8 * PIECE);
    uint64_t now_us = 100 * SECOND;
    rig.notes.write_status = E_NO_SPACE;
    assert_int_equal(test_write(rig.cache, a, 0, now_us), E_NO_SPACE);
    assert_false(has(a, 0));
    assert_int_equal(stats_of(&rig).bytes, 0);
    assert_int_equal(rig.notes.dropped_pieces, 1); /* half a piece may lie there */
    assert_true(stats_of(&rig).degraded);
    unsigned tried = 0;
    for (unsigned s = 1; s <= 300; s++) {
        int err = cache_reserve(rig.cache, a, 0, now_us + s * SECOND);
        if (err != 0) {
            assert_int_equal(err, E_NO_SPACE);
            continue;
        }
        tried++;
        /* One probe at a time. */
        assert_int_equal(cache_reserve(rig.cache, a, 1, now_us + s * SECOND), E_NO_SPACE);
        cache_write_done(rig.cache, a, 0, now_us + s * SECOND, s % 2 == 0 ? E_NO_SPACE : E_IO);
    }
    assert_in_range(tried, 10, 16);       /* 1, 2, 4, 8, 16, then every 30 s */
    assert_in_range(rig.env.lines, 4, 6); /* D-4: one line per minute */
    rig.notes.write_status = 0;
    int err = E_NO_SPACE;
    unsigned waited = 300;
    for (; err != 0 && waited < 360; waited++)
        err = test_write(rig.cache, a, 0, now_us + waited * SECOND);
    assert_int_equal(err, 0); /* D-1: within 60 s */
    assert_false(stats_of(&rig).degraded);
    have(&rig, a, 1, now_us + waited * SECOND);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void writes_that_fail_together_count_as_one_refusal(void **state) /* D-1 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 8 * PIECE);
    for (uint32_t piece = 0; piece < 6; piece++)
        assert_int_equal(cache_reserve(rig.cache, a, piece, SECOND), 0);
    for (uint32_t piece = 0; piece < 6; piece++)
        cache_write_done(rig.cache, a, piece, SECOND, E_NO_SPACE);
    assert_int_equal(stats_of(&rig).write_errors, 6);
    assert_int_equal(rig.env.lines, 1);
    have(&rig, a, 0, 2 * SECOND); /* and not after 32 s */
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void cancelled_probe_leaves_the_tier_to_the_next(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 8 * PIECE);
    rig.notes.write_status = E_IO;
    assert_int_equal(test_write(rig.cache, a, 0, SECOND), E_IO);
    rig.notes.write_status = 0;
    assert_int_equal(cache_reserve(rig.cache, a, 0, 5 * SECOND), 0);
    cache_write_done(rig.cache, a, 0, 5 * SECOND, E_CANCELLED);
    assert_true(stats_of(&rig).degraded);
    have(&rig, a, 0, 5 * SECOND);
    assert_false(stats_of(&rig).degraded);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

/* ---- dropping and sealing ---- */

static void dropped_piece_is_not_had(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 4 * PIECE);
    have(&rig, a, 0, 1);
    have(&rig, a, 1, 1);
    cache_drop_piece(rig.cache, a, 0);
    cache_drop_piece(rig.cache, a, 0);
    cache_drop_piece(rig.cache, a, 2);
    cache_drop_piece(rig.cache, a, 9);
    assert_false(has(a, 0));
    assert_true(has(a, 1));
    assert_int_equal(rig.notes.dropped_pieces, 1);
    assert_int_equal(test_drain(rig.cache), 0);
    have(&rig, a, 0, 2); /* repaired */
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void piece_dropped_while_being_written_is_not_kept(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 4 * PIECE);
    assert_int_equal(cache_reserve(rig.cache, a, 0, 1), 0);
    cache_drop_piece(rig.cache, a, 0);
    assert_int_equal(rig.notes.drops, 0); /* not under the worker's hands */
    cache_write_done(rig.cache, a, 0, 2, 0);
    assert_false(has(a, 0));
    assert_int_equal(rig.notes.dropped_pieces, 1);
    assert_int_equal(stats_of(&rig).bytes, 0);
    have(&rig, a, 0, 3);
    cache_put(rig.cache, a);
    rig_stop(&rig);
}

static void dropped_blob_goes_with_its_last_user(void **state) /* INT-5 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 4 * PIECE);
    have(&rig, a, 0, 1);
    assert_int_equal(cache_reserve(rig.cache, a, 1, 1), 0);
    assert_int_equal(cache_pin(rig.cache, a, 0, 1), 0);
    cache_seal_done(rig.cache, a, 0);
    cache_drop_blob(rig.cache, a);
    cache_drop_blob(rig.cache, a);
    cache__check_invariants(rig.cache);
    assert_false(cache_blob_complete(a));
    assert_false(known(&rig, 1));
    assert_int_equal(cache_pin(rig.cache, a, 0, 1), E_NOT_FOUND);
    struct cache_blob *again = get(&rig, 1, 4 * PIECE);
    assert_ptr_not_equal(again, a);
    have(&rig, again, 1, 2);
    cache_seal_done(rig.cache, a, 0); /* a late answer about the old one */
    assert_false(cache_blob_complete(a));
    assert_int_equal(rig.notes.removed, 0);
    cache_write_done(rig.cache, a, 1, 3, 0);
    assert_false(has(a, 1));
    cache_put(rig.cache, a);
    assert_int_equal(rig.notes.removed, 0);
    cache_unpin(rig.cache, a, 0);
    assert_int_equal(rig.notes.removed, 1);
    cache__check_invariants(rig.cache);
    assert_true(has(again, 1));
    cache_put(rig.cache, again);
    rig_stop(&rig);
}

static void seal_makes_complete_or_loses_all(void **state) /* DSK-3, D-3 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 2 * PIECE);
    have(&rig, a, 0, 1);
    have(&rig, a, 1, 1);
    rig.notes.seal_status = E_NOT_FOUND;
    cache_seal_done(rig.cache, a, cache_seal(rig.cache, a));
    assert_false(cache_blob_complete(a));
    assert_true(has(a, 0));
    rig.notes.seal_status = 0;
    cache_seal_done(rig.cache, a, cache_seal(rig.cache, a));
    assert_true(cache_blob_complete(a));
    rig.notes.seal_status = E_IO;
    cache_seal_done(rig.cache, a, cache_seal(rig.cache, a));
    assert_false(cache_blob_complete(a));
    assert_int_equal(cache_blob_have(a)->set_count, 0);
    assert_int_equal(test_drain(rig.cache), 2); /* transfer hears of it */
    assert_int_equal(stats_of(&rig).write_errors, 1);
    assert_false(known(&rig, 1));
    cache_put(rig.cache, a);
    assert_int_equal(rig.notes.removed, 1);
    rig_stop(&rig);
}

static void corrupt_reads_are_counted(void **state) /* DSK-1 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 100 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, PIECE);
    have(&rig, a, 0, 1);
    rig.notes.read_status = E_CORRUPT;
    assert_int_equal(test_read(rig.cache, a, 0, 2), E_CORRUPT);
    rig.notes.read_status = E_IO;
    assert_int_equal(test_read(rig.cache, a, 0, 2), E_IO);
    assert_int_equal(stats_of(&rig).corrupt, 1);
    rig.notes.drop_status = E_NOT_FOUND;
    cache_drop_piece(rig.cache, a, 0);
    cache_put(rig.cache, a);
    assert_int_equal(stats_of(&rig).write_errors, 2); /* what the store refuses is counted */
    rig_stop(&rig);
}

/* ---- scrub ---- */

static void scrub_visits_every_piece_in_a_week_without_touching_ages(void **state) /* D-5 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 12 * PIECE, 0);
    assert_true(cache_scrub_deadline_us(rig.cache) == UINT64_MAX);
    struct cache_blob *blobs[3], *found;
    uint32_t piece;
    assert_false(cache_next_scrub(rig.cache, 1, &found, &piece));
    for (uint32_t i = 0; i < 3; i++) {
        blobs[i] = get(&rig, i + 1, 4 * PIECE);
        for (uint32_t p = 0; p < 4; p++)
            have(&rig, blobs[i], p, i + 1);
    }
    unsigned seen[3][4] = {{0}};
    uint64_t now_us = SECOND;
    for (unsigned visits = 0; visits < 12; visits++) {
        now_us = cache_scrub_deadline_us(rig.cache) > now_us ? cache_scrub_deadline_us(rig.cache)
                                                             : now_us;
        assert_true(cache_next_scrub(rig.cache, now_us, &found, &piece));
        for (unsigned i = 0; i < 3; i++)
            seen[i][piece] += found == blobs[i];
        cache__check_invariants(rig.cache);
        cache_scrub_done(rig.cache, found, piece);
        cache__check_invariants(rig.cache);
    }
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(seen[i / 4][i % 4], 1);
    assert_in_range(now_us / SECOND, 3 * 24 * 3600, 7 * 24 * 3600);
    assert_int_equal(stats_of(&rig).hits, 0);
    struct cache_blob *next = get(&rig, 9, PIECE);
    have(&rig, next, 0, now_us); /* the first blob is still the oldest */
    assert_int_equal(cache_blob_have(blobs[0])->set_count, 0);
    for (unsigned i = 0; i < 3; i++)
        cache_put(rig.cache, blobs[i]);
    cache_put(rig.cache, next);
    rig_stop(&rig);
}

static void scrub_survives_what_happens_to_its_blob(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 12 * PIECE, 0);
    struct cache_blob *a = get(&rig, 1, 4 * PIECE), *b = get(&rig, 2, 4 * PIECE), *found;
    uint32_t piece;
    have(&rig, a, 0, 1);
    have(&rig, a, 1, 1);
    have(&rig, b, 3, 1);
    assert_true(cache_next_scrub(rig.cache, SECOND, &found, &piece));
    assert_ptr_equal(found, a);
    cache_drop_blob(rig.cache, a);
    cache_put(rig.cache, a);
    cache_scrub_done(rig.cache, found, piece);
    assert_false(cache_next_scrub(rig.cache, SECOND, &found, &piece)); /* not due */
    assert_true(cache_next_scrub(rig.cache, cache_scrub_deadline_us(rig.cache), &found, &piece));
    assert_ptr_equal(found, b);
    assert_int_equal(piece, 3);
    cache_scrub_done(rig.cache, found, piece);
    cache_put(rig.cache, b);
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blob_lives_while_referenced_or_holding_pieces),
        cmocka_unit_test(sizes_that_disagree_are_refused),
        cmocka_unit_test(cuts_of_a_blob_are_entries_of_their_own),
        cmocka_unit_test(create_that_fails_leaves_nothing),
        cmocka_unit_test(full_index_forgets_the_blob_used_longest_ago),
        cmocka_unit_test(reserve_says_why_not),
        cmocka_unit_test(piece_larger_than_the_capacity_is_not_kept),
        cmocka_unit_test(write_with_a_foreign_voucher_is_refused),
        cmocka_unit_test(segment_used_longest_ago_goes_first_and_whole),
        cmocka_unit_test(evictions_tell_only_what_was_had),
        cmocka_unit_test(pinned_and_held_are_never_evicted),
        cmocka_unit_test(pins_keep_a_blob_after_the_last_put),
        cmocka_unit_test(capacity_zero_keeps_running_swarms_only),
        cmocka_unit_test(readers_hold_half_of_the_capacity_together),
        cmocka_unit_test(evictions_wait_for_a_host_that_does_not_drain),
        cmocka_unit_test(reserve_of_the_device_is_kept),
        cmocka_unit_test(refused_writes_degrade_and_caching_resumes),
        cmocka_unit_test(writes_that_fail_together_count_as_one_refusal),
        cmocka_unit_test(cancelled_probe_leaves_the_tier_to_the_next),
        cmocka_unit_test(dropped_piece_is_not_had),
        cmocka_unit_test(piece_dropped_while_being_written_is_not_kept),
        cmocka_unit_test(dropped_blob_goes_with_its_last_user),
        cmocka_unit_test(seal_makes_complete_or_loses_all),
        cmocka_unit_test(corrupt_reads_are_counted),
        cmocka_unit_test(scrub_visits_every_piece_in_a_week_without_touching_ages),
        cmocka_unit_test(scrub_survives_what_happens_to_its_blob),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
