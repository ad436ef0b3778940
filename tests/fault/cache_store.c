/* SPDX-License-Identifier: Apache-2.0 */
/* A tier that fails: the n-th call of the store table answers with an error, once or from then on,
 * for each n and each error. A piece whose write failed is not had, no wrong byte is read, the
 * state stays valid, and the cache works again afterwards (D-1, D-2, D-3, DSK-3). */
#include "../unit/cache_support.h"

#define PIECE  ((uint64_t)PIECE_BYTES_MIN)
#define SECOND ((uint64_t)1000 * 1000)

struct failing {
    struct store inner;
    unsigned calls, fail_at;
    bool fail_from;
    int error;
};

static bool fails(struct failing *store)
{
    unsigned call = ++store->calls;
    return store->fail_at != 0 &&
           (call == store->fail_at || (store->fail_from && call > store->fail_at));
}

static int failing_create(void *self, const struct digest *digest, enum piece_cut cut,
                          uint64_t size, uint64_t *out)
{
    struct failing *store = self;
    return fails(store) ? store->error
                        : store->inner.create(store->inner.self, digest, cut, size, out);
}

static int failing_write(void *self, uint64_t blob, uint32_t piece, const uint8_t *bytes,
                         uint32_t byte_count, const struct piece_record *record)
{
    struct failing *store = self;
    if (fails(store))
        return store->error;
    return store->inner.write(store->inner.self, blob, piece, bytes, byte_count, record);
}

static int failing_read(void *self, uint64_t blob, uint32_t piece, uint8_t *out,
                        uint32_t byte_count, struct piece_record *record)
{
    struct failing *store = self;
    if (fails(store))
        return store->error == E_NO_SPACE ? E_CORRUPT : store->error;
    return store->inner.read(store->inner.self, blob, piece, out, byte_count, record);
}

static int failing_open_fd(void *self, uint64_t blob, uint32_t piece, int *fd, uint64_t *offset)
{
    struct failing *store = self;
    return store->inner.open_fd(store->inner.self, blob, piece, fd, offset);
}

static int failing_seal(void *self, uint64_t blob)
{
    struct failing *store = self;
    return fails(store) ? store->error : store->inner.seal(store->inner.self, blob);
}

/* A failing drop or remove has done its work or not; it must not matter. */
static int failing_drop(void *self, uint64_t blob, uint32_t first, uint32_t count)
{
    struct failing *store = self;
    int err = store->inner.drop(store->inner.self, blob, first, count);
    return fails(store) ? store->error : err;
}

static int failing_remove(void *self, uint64_t blob)
{
    struct failing *store = self;
    int err = store->inner.remove(store->inner.self, blob);
    return fails(store) ? store->error : err;
}

static int failing_recover(void *self, store_found_fn found, void *arg)
{
    struct failing *store = self;
    return fails(store) ? store->error : store->inner.recover(store->inner.self, found, arg);
}

static uint64_t failing_free_bytes(void *self)
{
    struct failing *store = self;
    return fails(store) ? 0 : store->inner.free_bytes(store->inner.self);
}

static void failing_close(void *self)
{
    struct failing *store = self;
    store->inner.close(store->inner.self);
}

static struct store failing_table(struct failing *failing)
{
    return (struct store){.self = failing,
                          .create = failing_create,
                          .write = failing_write,
                          .read = failing_read,
                          .open_fd = failing_open_fd,
                          .seal = failing_seal,
                          .drop = failing_drop,
                          .remove = failing_remove,
                          .recover = failing_recover,
                          .free_bytes = failing_free_bytes,
                          .close = failing_close};
}

/* ---- the story ---- */

static uint64_t now_us;

static void write_and_read(struct cache *cache, struct cache_blob *blob, uint32_t piece)
{
    int err = test_write(cache, blob, piece, now_us += SECOND);
    cache__check_invariants(cache);
    assert_int_equal(bitfield_get(cache_blob_have(blob), piece), err == 0);
    err = test_read(cache, blob, piece, now_us);
    if (err == E_CORRUPT || err == E_IO) /* as the host does */
        cache_drop_piece(cache, blob, piece);
}

static unsigned tell(struct cache *cache, uint32_t number)
{
    struct digest digest = test_digest(number);
    struct cache_blob *blob;
    uint32_t pieces = number == 1 ? 3 : 2;
    if (cache_get(cache, &digest, (pieces - 1) * PIECE + 50, &blob) != 0)
        return 0;
    for (uint32_t piece = 0; piece < pieces; piece++)
        write_and_read(cache, blob, piece);
    unsigned had = cache_blob_have(blob)->set_count;
    cache_drop_piece(cache, blob, 1);
    write_and_read(cache, blob, 1);
    cache_seal_done(cache, blob, cache_seal(cache, blob));
    cache__check_invariants(cache);
    if (number % 2 == 0)
        cache_drop_blob(cache, blob);
    cache_put(cache, blob);
    cache__check_invariants(cache);
    (void)test_drain(cache);
    return had;
}

/* True if the story met no failure. */
static bool run(unsigned fail_at, bool fail_from, int error)
{
    struct test_env env;
    struct failing failing = {.fail_at = fail_at, .fail_from = fail_from, .error = error};
    struct cache *cache;
    const struct cache_config config = {.capacity_bytes = 3 * PIECE, .reserve_bytes = PIECE};
    test_env_init(&env);
    now_us = 0;
    assert_int_equal(store_memory__new(&env.env, 3 * PIECE, &failing.inner), 0);
    const struct store table = failing_table(&failing);
    assert_int_equal(cache_new(&env.env, &config, &table, &cache), 0);
    int found = cache_recover(cache, NULL, NULL);
    assert_true(found == 0 || found == error);
    for (uint32_t number = 1; number <= 3; number++)
        (void)tell(cache, number);
    bool met = failing.calls >= fail_at;

    failing.fail_at = 0; /* the tier is well again: within 60 s it is used (D-1) */
    now_us += 60 * SECOND;
    assert_int_equal(tell(cache, 5), 2);
    struct cache_stats stats;
    cache_stats(cache, &stats);
    assert_false(stats.degraded);
    assert_true(stats.bytes <= 3 * PIECE);
    cache_free(cache);
    assert_int_equal(env.live, 0);
    return !met;
}

static void any_call_of_the_store_may_fail(void **state)
{
    (void)state;
    static const int errors[] = {E_IO, E_NO_SPACE, E_NO_MEMORY};
    for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++) {
        for (unsigned from = 0; from < 2; from++) {
            unsigned n = 1;
            while (!run(n, from != 0, errors[e]))
                assert_true(++n < 500);
            assert_true(n > 30);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_call_of_the_store_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
