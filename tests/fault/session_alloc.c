/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation fails once, alone and together with all later ones: the host's in sessions and
 * datagrams, OpenSSL's in sessions. Nothing leaks, nothing asserts, and a datagram node works again
 * once there is memory (D-9).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/crypto.h>

#include "../../src/session/dgram_internal.h"
#include "../unit/session_net.h"

#define NOW       1000000ULL
#define SEC       1000000ULL
#define SWEEP_MAX 2000
#define CROWD     1200 /* peers, enough for the table to grow and the hash to rehash */

/* ---- sessions ------------------------------------------------------------------------------ */

/* Handshake and one record each way. 0 or the first error. */
static int session_scenario(struct world *world)
{
    static uint8_t wire[RECORD_WIRE_BYTES_MAX];
    struct side sides[2];
    world_sides(world, sides);
    int err = world_open(world, sides, NOW);
    if (err == 0)
        err = world_shake(sides, NOW);
    for (unsigned i = 0; err == 0 && i < 2; i++) {
        size_t wire_bytes = 0;
        err = session_seal(sides[i].session, NOW, (const uint8_t *)"hello", 5, NULL, 0, wire,
                           &wire_bytes);
        if (err == 0)
            err = world_hand(sides[1 - i].session, NOW, wire, wire_bytes);
    }
    world_close(sides);
    return err;
}

static void test_d9_session_allocations(void **state)
{
    (void)state;
    for (unsigned ever_after = 0; ever_after < 2; ever_after++) {
        unsigned failures = 0;
        for (uint64_t n = 1; n < SWEEP_MAX; n++) {
            struct world world;
            world_init(&world, 1);
            world.fail_at = n;
            world.fail_ever_after = ever_after == 1;
            int err = session_scenario(&world);
            assert_int_equal(world.live, 0);
            if (err == 0)
                break;
            assert_int_equal(err, E_NO_MEMORY);
            failures++;
        }
        assert_int_equal(failures, 2); /* one for each session */
    }
}

static uint64_t openssl_allocs;
static uint64_t openssl_fail_at;

static bool openssl_fails(void)
{
    return ++openssl_allocs == openssl_fail_at;
}

static void *openssl_malloc(size_t byte_count, const char *file, int line)
{
    (void)file;
    (void)line;
    return openssl_fails() ? NULL : malloc(byte_count);
}

static void *openssl_realloc(void *old, size_t byte_count, const char *file, int line)
{
    (void)file;
    (void)line;
    return openssl_fails() ? NULL : realloc(old, byte_count);
}

static void openssl_free(void *block, const char *file, int line)
{
    (void)file;
    (void)line;
    free(block);
}

static void test_d9_openssl_allocations(void **state)
{
    (void)state;
    struct world world;
    unsigned failures = 0;
    openssl_fail_at = 0;
    world_init(&world, 1);
    assert_int_equal(session_scenario(&world), 0); /* OpenSSL's own start-up, once */
    for (uint64_t n = 1; n < SWEEP_MAX; n++) {
        world_init(&world, 1);
        openssl_allocs = 0;
        openssl_fail_at = n;
        int err = session_scenario(&world);
        assert_int_equal(world.live, 0);
        if (openssl_allocs < n)
            break;
        assert_true(err == 0 || err == E_NO_MEMORY || err == E_INTERNAL);
        failures += err != 0 ? 1 : 0;
    }
    openssl_fail_at = 0;
    assert_true(failures >= 4); /* at least one for each cipher */
    world_init(&world, 1);
    assert_int_equal(session_scenario(&world), 0);
}

/* ---- datagrams ----------------------------------------------------------------------------- */

static struct node nodes[2];

static void settle(uint64_t now_us)
{
    (void)nodes_settle(&nodes[0], &nodes[1], now_us);
    for (unsigned i = 0; i < 2; i++)
        dgram__check_invariants(nodes[i].dgram);
}

static void try_send(unsigned from, uint64_t now_us)
{
    int err = node_send(&nodes[from], &nodes[1 - from], now_us, "hello", 5);
    assert_true(err == 0 || err == E_NO_MEMORY);
}

/* First contact, crossing hellos, a restart, renewal; whatever fails, it goes on. */
static uint64_t dgram_scenario(void)
{
    uint64_t now_us = NOW;
    try_send(0, now_us);
    settle(now_us);
    try_send(1, now_us);
    settle(now_us);
    for (unsigned i = 0; i < 2; i++) {
        int err = node_restart(&nodes[i], now_us);
        if (err != 0) /* the object itself could not be made: then with memory */
            err = dgram_new(&nodes[i].world.env, &nodes[i].config, now_us, &nodes[i].dgram);
        assert_int_equal(err, 0);
        try_send(0, now_us);
        try_send(1, now_us);
        settle(now_us);
    }
    now_us += 3601 * SEC;
    try_send(0, now_us);
    settle(now_us);
    for (unsigned i = 0; i < 40; i++) {
        now_us += SEC / 4;
        for (unsigned n = 0; n < 2; n++)
            dgram_advance(nodes[n].dgram, now_us);
        settle(now_us);
    }
    return now_us;
}

/* Runs with the n-th allocation of node `victim` failing. False once there are fewer than n. */
static bool dgram_round(unsigned victim, uint64_t n)
{
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(node_start(&nodes[i], (uint8_t)(i + 1), i + 1, NOW), 0);
    struct world *world = &nodes[victim].world;
    world->fail_at = world->allocs + n;
    uint64_t now_us = dgram_scenario();
    bool failed = world->allocs >= world->fail_at;
    world->fail_at = 0;
    /* With memory, both reach each other; one message may be lost finding lost keys. */
    for (unsigned i = 0; i < 2; i++) {
        try_send(0, now_us);
        try_send(1, now_us);
        settle(now_us);
    }
    unsigned before[2] = {nodes[0].received, nodes[1].received};
    for (unsigned i = 0; i < 2; i++)
        try_send(i, now_us);
    settle(now_us);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(nodes[i].received, before[i] + 1);
        node_stop(&nodes[i]);
        assert_int_equal(nodes[i].world.live, 0);
    }
    return failed;
}

static void test_d9_dgram_allocations(void **state)
{
    (void)state;
    for (unsigned victim = 0; victim < 2; victim++) {
        uint64_t n = 1;
        while (n < SWEEP_MAX && dgram_round(victim, n))
            n++;
        assert_true(n > 10);
        assert_true(n < SWEEP_MAX);
    }
}

/* Adds a crowd of peers with the n-th allocation failing. True when it did. */
static bool table_round(uint64_t n)
{
    struct world world;
    struct dgram_table table;
    struct dgram_stats stats = {0};
    struct peer_addr addr = world_addr(9);
    unsigned failures = 0;
    world_init(&world, 1);
    world.fail_at = n;
    dgram__table_init(&table, &world.env, &stats);
    for (unsigned i = 0; i < CROWD; i++) {
        struct dgram_peer *peer = NULL;
        addr.port = (uint16_t)(1 + i);
        int err = dgram__peer_add(&table, &addr, true, NOW, &peer);
        if (err != 0) {
            assert_int_equal(err, E_NO_MEMORY);
            assert_null(dgram__peer_find(&table, &addr));
            failures++;
            dgram__table_check(&table);
            err = dgram__peer_add(&table, &addr, true, NOW, &peer);
        }
        assert_int_equal(err, 0);
        assert_ptr_equal(dgram__peer_find(&table, &addr), peer);
    }
    dgram__table_check(&table);
    dgram__table_close(&table);
    assert_int_equal(world.live, 0);
    assert_true(failures <= 1);
    return failures == 1;
}

static void test_d9_table_growth(void **state)
{
    (void)state;
    uint64_t n = 1;
    while (n < SWEEP_MAX && table_round(n))
        n++;
    assert_true(n > CROWD + 12); /* peers, three arrays four times, the hash */
    assert_true(n < SWEEP_MAX);
}

/* No memory at all after the object was made: every call says so or drops, none breaks. */
static void test_d9_no_memory_at_all(void **state)
{
    (void)state;
    for (unsigned victim = 0; victim < 2; victim++) {
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(node_start(&nodes[i], (uint8_t)(i + 1), i + 1, NOW), 0);
        nodes[victim].world.fail_at = 2;
        nodes[victim].world.fail_ever_after = true;
        for (unsigned i = 0; i < 20; i++) {
            uint64_t now_us = NOW + i * SEC / 4;
            try_send(0, now_us);
            try_send(1, now_us);
            settle(now_us);
            dgram_advance(nodes[0].dgram, now_us);
            dgram_advance(nodes[1].dgram, now_us);
        }
        assert_int_equal(nodes[0].received + nodes[1].received, 0);
        for (unsigned i = 0; i < 2; i++) {
            node_stop(&nodes[i]);
            assert_int_equal(nodes[i].world.live, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_d9_session_allocations),
        cmocka_unit_test(test_d9_openssl_allocations),
        cmocka_unit_test(test_d9_dgram_allocations),
        cmocka_unit_test(test_d9_table_growth),
        cmocka_unit_test(test_d9_no_memory_at_all),
    };
    if (CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) != 1)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
