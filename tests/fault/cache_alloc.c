/* SPDX-License-Identifier: Apache-2.0 */
/* D-9: one story over each tier, failing the n-th allocation, once and from then on, until the
 * story runs without meeting the failure. No crash, no leak, no wrong byte, valid state throughout;
 * and when memory is back, the cache works. */
#include "../unit/cache_support.h"

#define PIECE ((uint64_t)PIECE_BYTES_MIN)

struct tale {
    struct test_env env;
    char directory[TEST_PATH_BYTES]; /* empty: memory tier */
    struct cache *cache;
    unsigned failed; /* calls that reported an error */
};

static bool fine(struct tale *tale, int err)
{
    if (err == 0 || err == E_EXISTS) /* had from before */
        return true;
    tale->failed++;
    return false;
}

static int open_store(struct tale *tale, struct store *store)
{
    const char *why;
    if (tale->directory[0] == '\0')
        return store_memory__new(&tale->env.env, 8 * PIECE, store);
    return store_disk__new(&tale->env.env, tale->directory, store, &why);
}

static bool open_cache(struct tale *tale)
{
    struct store store;
    const struct cache_config config = {.capacity_bytes = 4 * PIECE};
    if (!fine(tale, open_store(tale, &store)))
        return false;
    if (!fine(tale, cache_new(&tale->env.env, &config, &store, &tale->cache))) {
        store.close(store.self);
        return false;
    }
    int found = cache_recover(tale->cache, NULL, NULL);
    return fine(tale, found < 0 ? found : 0);
}

static void use_cut(struct tale *tale, uint32_t number, enum piece_cut cut, uint64_t size_bytes)
{
    struct digest digest = test_digest(number);
    struct cache_blob *blob;
    if (!fine(tale, cache_get_cut(tale->cache, &digest, cut, size_bytes, &blob)))
        return;
    uint32_t pieces = cache_blob_layout(blob)->piece_count;
    for (uint32_t piece = 0; piece < pieces; piece++) {
        (void)fine(tale, test_write(tale->cache, blob, piece, number));
        cache__check_invariants(tale->cache);
    }
    for (uint32_t piece = 0; piece < pieces; piece++)
        (void)fine(tale, test_read(tale->cache, blob, piece, number));
    int err = cache_seal(tale->cache, blob);
    cache_seal_done(tale->cache, blob, err);
    (void)fine(tale, err);
    cache_hold(tale->cache, blob);
    cache_drop_piece(tale->cache, blob, 0);
    (void)fine(tale, test_write(tale->cache, blob, 0, number));
    cache_unhold(tale->cache, blob);
    cache_put(tale->cache, blob);
    cache__check_invariants(tale->cache);
    (void)test_drain(tale->cache);
}

static void use_blob(struct tale *tale, uint32_t number, uint32_t pieces)
{
    use_cut(tale, number, PIECE_CUT_PLAIN, (pieces - 1) * PIECE + 100);
    use_cut(tale, number, PIECE_CUT_FINE, pieces * PIECE_BYTES_FINE - 100);
}

static void close_cache(struct tale *tale)
{
    if (tale->cache != NULL)
        cache_free(tale->cache);
    tale->cache = NULL;
}

/* Enough blobs to make the tables grow and to evict. */
static void tell(struct tale *tale)
{
    if (open_cache(tale)) {
        use_blob(tale, 1, 2);
        use_blob(tale, 2, 4);
        use_blob(tale, 3, 1);
    }
    close_cache(tale);
    if (tale->directory[0] != '\0' && open_cache(tale))
        use_blob(tale, 3, 1); /* found again, if it was kept */
    close_cache(tale);
}

/* True if the story met no failure. */
static bool run(bool disk, unsigned fail_at, bool fail_from)
{
    struct tale tale;
    memset(&tale, 0, sizeof tale);
    test_env_init(&tale.env);
    tale.env.fail_at = fail_at;
    tale.env.fail_from = fail_from;
    if (disk)
        test_make_directory(tale.directory);
    tell(&tale);
    assert_int_equal(tale.env.live, 0);
    bool met = tale.env.calls >= fail_at;
    if (!met)
        assert_int_equal(tale.failed, 0);

    tale.env.fail_at = 0; /* memory is back */
    tale.failed = 0;
    tell(&tale);
    assert_int_equal(tale.failed, 0);
    assert_int_equal(tale.env.live, 0);
    if (disk)
        test_remove_tree(tale.directory);
    return !met;
}

static void sweep(bool disk)
{
    for (unsigned from = 0; from < 2; from++) {
        unsigned n = 1;
        while (!run(disk, n, from != 0))
            assert_true(++n < 1000);
        assert_true(n > 20);
    }
}

static void any_allocation_may_fail_over_memory(void **state)
{
    (void)state;
    sweep(false);
}

static void any_allocation_may_fail_over_disk(void **state)
{
    (void)state;
    sweep(true);
}

int main(void)
{
    test_use_memory_disk();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_allocation_may_fail_over_memory),
        cmocka_unit_test(any_allocation_may_fail_over_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
