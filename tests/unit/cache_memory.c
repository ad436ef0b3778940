/* SPDX-License-Identifier: Apache-2.0 */
/* The memory tier: bytes come back verified, the capacity is hard, buffers are reused, a sealed
 * blob takes no other bytes. */
#include "cache_support.h"

#define PIECE ((uint32_t)PIECE_BYTES_MIN)

static uint8_t content[PIECE_BYTES_MIN], got[PIECE_BYTES_MIN];

struct rig {
    struct test_env env;
    struct store store;
    uint64_t blob;
    struct digest digest;
};

static void rig_start(struct rig *rig, uint64_t capacity_bytes, uint64_t blob_bytes)
{
    memset(rig, 0, sizeof *rig);
    test_env_init(&rig->env);
    rig->digest = test_digest(1);
    assert_int_equal(store_memory__new(&rig->env.env, capacity_bytes, &rig->store), 0);
    assert_int_equal(
        rig->store.create(rig->store.self, &rig->digest, PIECE_CUT_PLAIN, blob_bytes, &rig->blob),
        0);
}

static void rig_stop(struct rig *rig)
{
    rig->store.close(rig->store.self);
    assert_int_equal(rig->env.live, 0);
}

static int put(struct rig *rig, uint32_t piece, uint32_t byte_count, uint32_t variant)
{
    test_fill(&rig->digest, piece, variant, content, byte_count);
    struct piece_record record = test_record(piece, content, byte_count);
    return rig->store.write(rig->store.self, rig->blob, piece, content, byte_count, &record);
}

static int check(struct rig *rig, uint32_t piece, uint32_t byte_count, uint32_t variant)
{
    struct piece_record record;
    int err = rig->store.read(rig->store.self, rig->blob, piece, got, byte_count, &record);
    if (err != 0)
        return err;
    test_fill(&rig->digest, piece, variant, content, byte_count);
    assert_memory_equal(got, content, byte_count);
    struct piece_record wanted = test_record(piece, content, byte_count);
    assert_memory_equal(&record, &wanted, sizeof record);
    return 0;
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct rig rig;
    int fd;
    uint64_t offset;
    rig_start(&rig, 10 * PIECE, 2 * PIECE + 100);
    assert_int_equal(check(&rig, 0, PIECE, 0), E_NOT_FOUND);
    assert_int_equal(put(&rig, 0, PIECE, 0), 0);
    assert_int_equal(put(&rig, 2, 100, 0), 0);
    assert_int_equal(check(&rig, 0, PIECE, 0), 0);
    assert_int_equal(check(&rig, 2, 100, 0), 0);
    assert_int_equal(check(&rig, 1, PIECE, 0), E_NOT_FOUND);
    assert_int_equal(check(&rig, 3, PIECE, 0), E_NOT_FOUND);
    assert_int_equal(put(&rig, 0, PIECE, 1), 0); /* repaired */
    assert_int_equal(check(&rig, 0, PIECE, 1), 0);
    assert_int_equal(put(&rig, 2, 99, 0), E_INVALID);
    assert_int_equal(put(&rig, 3, 100, 0), E_NOT_FOUND);
    struct piece_record record;
    assert_int_equal(rig.store.read(rig.store.self, rig.blob, 2, got, 99, &record), E_INVALID);
    assert_int_equal(rig.store.open_fd(rig.store.self, rig.blob, 0, &fd, &offset), E_UNSUPPORTED);
    assert_int_equal(rig.store.drop(rig.store.self, rig.blob, 0, 2), 0);
    assert_int_equal(check(&rig, 0, PIECE, 0), E_NOT_FOUND);
    assert_int_equal(rig.store.drop(rig.store.self, rig.blob, 2, 2), E_INVALID);
    assert_true(rig.store.free_bytes(rig.store.self) == UINT64_MAX);
    assert_int_equal(rig.store.recover(rig.store.self, NULL, NULL), 0);
    rig_stop(&rig);
}

static void wrong_hash_is_found_at_the_first_read(void **state) /* INT-5, DSK-1 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 10 * PIECE, PIECE);
    test_fill(&rig.digest, 0, 0, content, PIECE);
    struct piece_record record = test_record(0, content, PIECE);
    content[77] ^= 1; /* what arrives in the store is not what was hashed */
    assert_int_equal(rig.store.write(rig.store.self, rig.blob, 0, content, PIECE, &record), 0);
    assert_int_equal(check(&rig, 0, PIECE, 0), E_CORRUPT);
    assert_int_equal(check(&rig, 0, PIECE, 0), E_CORRUPT);
    rig_stop(&rig);
}

static void capacity_is_hard_and_buffers_are_reused(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 2 * PIECE, 8 * PIECE + 10);
    assert_int_equal(put(&rig, 0, PIECE, 0), 0);
    assert_int_equal(put(&rig, 1, PIECE, 0), 0);
    assert_int_equal(put(&rig, 2, PIECE, 0), E_NO_SPACE);
    assert_int_equal(put(&rig, 8, 10, 0), E_NO_SPACE);
    assert_int_equal(rig.store.drop(rig.store.self, rig.blob, 0, 1), 0);
    unsigned calls = rig.env.calls;
    assert_int_equal(put(&rig, 2, PIECE, 0), 0);
    assert_int_equal(rig.env.calls, calls); /* hot path does not allocate */
    assert_int_equal(check(&rig, 2, PIECE, 0), 0);
    assert_int_equal(rig.store.drop(rig.store.self, rig.blob, 1, 1), 0);
    int live = rig.env.live;
    assert_int_equal(put(&rig, 8, 10, 0), 0); /* idle buffer + 10 bytes would be too much */
    assert_int_equal(rig.env.live, live);     /* one buffer more, the idle one less */
    assert_int_equal(check(&rig, 8, 10, 0), 0);
    rig_stop(&rig);
}

static void sealed_blob_takes_only_the_bytes_it_had(void **state) /* INT-5 */
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 10 * PIECE, 2 * PIECE);
    assert_int_equal(put(&rig, 0, PIECE, 0), 0);
    assert_int_equal(rig.store.seal(rig.store.self, rig.blob), E_NOT_FOUND);
    assert_int_equal(put(&rig, 1, PIECE, 0), 0);
    assert_int_equal(rig.store.drop(rig.store.self, rig.blob, 0, 1), 0);
    assert_int_equal(rig.store.seal(rig.store.self, rig.blob), 0);
    assert_int_equal(put(&rig, 0, PIECE, 1), E_DIGEST);
    assert_int_equal(check(&rig, 0, PIECE, 0), E_NOT_FOUND);
    assert_int_equal(put(&rig, 0, PIECE, 0), 0);
    assert_int_equal(check(&rig, 0, PIECE, 0), 0);
    rig_stop(&rig);
}

static void removed_blob_is_not_found_under_its_old_id(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 10 * PIECE, 2 * PIECE);
    uint64_t other;
    assert_int_equal(put(&rig, 0, PIECE, 0), 0);
    assert_int_equal(rig.store.remove(rig.store.self, rig.blob), 0);
    struct digest digest = test_digest(2);
    assert_int_equal(rig.store.create(rig.store.self, &digest, PIECE_CUT_PLAIN, PIECE, &other), 0);
    assert_true(other != rig.blob);
    assert_int_equal(put(&rig, 0, PIECE, 0), E_NOT_FOUND);
    assert_int_equal(check(&rig, 0, PIECE, 0), E_NOT_FOUND);
    assert_int_equal(rig.store.remove(rig.store.self, rig.blob), E_NOT_FOUND);
    assert_int_equal(rig.store.drop(rig.store.self, rig.blob, 0, 1), E_NOT_FOUND);
    assert_int_equal(rig.store.seal(rig.store.self, rig.blob), E_NOT_FOUND);
    assert_int_equal(
        rig.store.create(rig.store.self, &digest, PIECE_CUT_PLAIN, BLOB_BYTES_MAX + 1, &other),
        E_TOO_LARGE);
    rig_stop(&rig);
}

static void empty_blob_can_be_sealed(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 10 * PIECE, 0);
    assert_int_equal(rig.store.seal(rig.store.self, rig.blob), 0);
    assert_int_equal(rig.store.drop(rig.store.self, rig.blob, 0, 0), 0);
    rig_stop(&rig);
}

static void many_blobs_come_and_go(void **state)
{
    (void)state;
    struct store store;
    static uint64_t ids[500];
    assert_int_equal(store_memory_new(PIECE, &store), 0);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 500; i++) {
            struct digest digest = test_digest(i);
            assert_int_equal(store.create(store.self, &digest, PIECE_CUT_PLAIN, i, &ids[i]), 0);
        }
        for (unsigned i = 0; i < 500; i++)
            assert_int_equal(store.remove(store.self, ids[(i * 7) % 500]), 0);
    }
    store.close(store.self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(wrong_hash_is_found_at_the_first_read),
        cmocka_unit_test(capacity_is_hard_and_buffers_are_reused),
        cmocka_unit_test(sealed_blob_takes_only_the_bytes_it_had),
        cmocka_unit_test(removed_blob_is_not_found_under_its_old_id),
        cmocka_unit_test(empty_blob_can_be_sealed),
        cmocka_unit_test(many_blobs_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
