/* SPDX-License-Identifier: Apache-2.0 */
/* k-buckets: order, ping-before-evict, replacement cache, failures (Kademlia §2.2, §4.1). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "../../src/dht/table.h"

#define K 4

static bool no_memory;

static void *host_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return no_memory ? NULL : realloc(old, new_bytes);
}

static const struct env env = {.alloc = host_alloc};

/* Node `number` of bucket 0 when our own position is 0. */
static struct dht_place far(unsigned number)
{
    struct dht_place place = {.pos = 1ULL << 63 | number, .addr = {.port = 1}};
    store_be32(place.addr.ip + 12, number);
    return place;
}

static void answer(struct dht_table *table, uint64_t now_us, unsigned number)
{
    struct dht_place place = far(number), doubtful;
    (void)dht__table_answered(table, now_us, &place, &doubtful);
}

static bool has(const struct dht_table *table, unsigned number)
{
    struct dht_place place = far(number);
    return dht__table_find(table, &place) != NULL;
}

static void fail_node(struct dht_table *table, unsigned number)
{
    struct dht_place place = far(number);
    dht__table_failed(table, &place);
}

static void buckets_are_by_common_bits(void **state)
{
    (void)state;
    struct dht_table table;
    dht__table_init(&table, &env, 0, K);
    assert_int_equal(dht__table_index(&table, 1ULL << 63), 0);
    assert_int_equal(dht__table_index(&table, 1ULL << 62), 1);
    assert_int_equal(dht__table_index(&table, 1), 63);
    assert_int_equal(dht__table_index(&table, 0), 63);
    dht__table_close(&table);
}

static void a_full_bucket_keeps_its_nodes_and_doubts_the_oldest(void **state)
{
    (void)state;
    struct dht_table table;
    struct dht_place newcomer = far(9), doubtful;
    dht__table_init(&table, &env, 0, K);
    for (unsigned i = 0; i < K; i++)
        answer(&table, i, i);
    assert_false(dht__table_wants(&table, newcomer.pos));
    assert_false(dht__table_answered(&table, K, &newcomer, &doubtful)); /* all are fresh */
    assert_false(has(&table, 9));
    answer(&table, 10, 0); /* seen again: 1 is the oldest now */
    assert_true(dht__table_answered(&table, DHT_DOUBT_US + 1, &newcomer, &doubtful));
    assert_int_equal(doubtful.pos, far(1).pos);
    assert_int_equal(dht__table_oldest(&table, 0)->place.pos, far(1).pos);
    assert_false(has(&table, 9));
    fail_node(&table, 1); /* it did not answer the ping: the newcomer takes its place */
    assert_false(has(&table, 1));
    assert_true(has(&table, 9));
    assert_int_equal(table.count, K);
    dht__table_check(&table);
    dht__table_close(&table);
}

static void without_a_spare_a_node_goes_at_the_second_failure(void **state)
{
    (void)state;
    struct dht_table table;
    struct dht_place out[K];
    dht__table_init(&table, &env, 0, K);
    answer(&table, 1, 1);
    answer(&table, 1, 2);
    fail_node(&table, 1);
    assert_true(has(&table, 1));
    assert_int_equal(dht__table_closest(&table, 0, out, K), 1); /* not passed on meanwhile */
    answer(&table, 2, 1);
    assert_int_equal(dht__table_closest(&table, 0, out, K), 2); /* forgiven */
    fail_node(&table, 1);
    fail_node(&table, 1);
    assert_false(has(&table, 1));
    fail_node(&table, 77); /* unknown: nothing happens */
    assert_int_equal(table.count, 1);
    dht__table_close(&table);
}

static void the_youngest_spare_replaces_and_the_oldest_falls_out(void **state)
{
    (void)state;
    struct dht_table table;
    dht__table_init(&table, &env, 0, K);
    for (unsigned i = 0; i < K + DHT_SPARES_MAX + 3; i++)
        answer(&table, i, i);
    struct dht_place first = far(0);
    dht__table_remove(&table, &first);
    assert_true(has(&table, K + DHT_SPARES_MAX + 2));
    struct dht_place spare = far(K + 4);
    dht__table_remove(&table, &spare); /* a spare can be removed too */
    for (unsigned i = 0; i < 2 * DHT_SPARES_MAX; i++) {
        const struct dht_node *oldest = dht__table_oldest(&table, 0);
        struct dht_place place = oldest->place;
        dht__table_remove(&table, &place);
        dht__table_check(&table);
        if (table.count == 0)
            break;
    }
    assert_int_equal(table.count, 0); /* 4 nodes and 7 spares, not more */
    assert_null(dht__table_oldest(&table, 0));
    dht__table_close(&table);
}

static void a_failing_spare_is_forgotten(void **state)
{
    (void)state;
    struct dht_table table;
    dht__table_init(&table, &env, 0, K);
    for (unsigned i = 0; i < K + 1; i++)
        answer(&table, i, i);
    fail_node(&table, K);
    struct dht_place first = far(0);
    dht__table_remove(&table, &first);
    assert_int_equal(table.count, K - 1);
    dht__table_close(&table);
}

static void closest_is_by_xor(void **state)
{
    (void)state;
    struct dht_table table;
    struct dht_place out[3], place;
    dht__table_init(&table, &env, 0, K);
    const uint64_t positions[] = {0x8000000000000000u, 0xc000000000000000u, 0x4000000000000000u,
                                  0x2000000000000000u, 0x1000000000000000u};
    for (unsigned i = 0; i < 5; i++) {
        struct dht_place node = {.pos = positions[i], .addr = {.port = (uint16_t)(i + 1)}}, doubt;
        (void)dht__table_answered(&table, 1, &node, &doubt);
    }
    assert_int_equal(dht__table_closest(&table, 0x5000000000000000u, out, 3), 3);
    assert_true(out[0].pos == 0x4000000000000000u); /* distance 1 */
    assert_true(out[1].pos == 0x1000000000000000u); /* distance 4 */
    assert_true(out[2].pos == 0x2000000000000000u); /* distance 7 */
    assert_true(dht__table_at(&table, 0xc000000000000000u, &place));
    assert_int_equal(place.addr.port, 2);
    assert_false(dht__table_at(&table, 0xe000000000000000u, &place));
    dht__table_close(&table);
}

static void without_memory_nothing_changes(void **state)
{
    (void)state;
    struct dht_table table;
    dht__table_init(&table, &env, 0, K);
    no_memory = true;
    answer(&table, 1, 1);
    no_memory = false;
    assert_int_equal(table.count, 0);
    answer(&table, 1, 1);
    assert_int_equal(table.count, 1);
    dht__table_close(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_by_common_bits),
        cmocka_unit_test(a_full_bucket_keeps_its_nodes_and_doubts_the_oldest),
        cmocka_unit_test(without_a_spare_a_node_goes_at_the_second_failure),
        cmocka_unit_test(the_youngest_spare_replaces_and_the_oldest_falls_out),
        cmocka_unit_test(a_failing_spare_is_forgotten),
        cmocka_unit_test(closest_is_by_xor),
        cmocka_unit_test(without_memory_nothing_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
