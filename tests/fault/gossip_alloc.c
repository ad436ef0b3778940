/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each single allocation of a scenario fails once, and from then on (SECURITY-RELIABILITY §6.2,
 * D-9): no crash, no leak, invariants kept, and with memory back the view is what it would have
 * been.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../unit/gossip_host.h"

#define MEMBERS 150

static void drain(void)
{
    struct gossip_event event;
    while (gossip_next_result(core, &event))
        continue;
}

/* Members come, one leaves, twenty are accused and die; then all of it is told again. */
static void scenario(void)
{
    const struct peer_addr seed = addr_of(1);
    gossip_join(core, now_us, &seed, 1);
    for (unsigned i = 1; i <= MEMBERS; i++)
        tell(i, i, 1, MEMBER_ALIVE);
    for (unsigned i = 10; i < 30; i++) {
        if (member(i) != NULL && member(1) != NULL && member(2) != NULL) {
            claim(1 + i % 2, i, 1, MEMBER_DEAD, 0);
            claim(2 - i % 2, i, 1, MEMBER_DEAD, 0);
        }
    }
    tell(3, 3, 2, MEMBER_LEFT);
    run_for(2 * SECOND);
    gossip__check_invariants(core);
    drain();
}

/* 0, or the error of gossip_new. */
static int run(void)
{
    const struct gossip_config config = host_config();
    int err = gossip_new(&host_env, &config, now_us, &core);
    if (err != 0)
        return err;
    scenario();
    host.fail_at = host.fail_from = 0;
    for (unsigned i = 1; i <= MEMBERS; i++)
        tell(i, i, 3, MEMBER_ALIVE);
    gossip__check_invariants(core);
    assert_int_equal(gossip_count(core), MEMBERS + 1);
    gossip_free(core);
    return 0;
}

static void start(uint64_t fail_at, uint64_t fail_from)
{
    const uint64_t seed = 1;
    memset(&host, 0, sizeof host);
    prng_seed(&host.prng, (const uint8_t *)&seed, sizeof seed);
    now_us = 1000 * SECOND;
    host.fail_at = fail_at;
    host.fail_from = fail_from;
}

static void test_each_allocation_fails_d9(void **state)
{
    (void)state;
    start(0, 0);
    assert_int_equal(run(), 0);
    uint64_t allocations = host.allocations;
    assert_true(allocations > 15);
    unsigned refused = 0;
    for (uint64_t n = 1; n <= allocations; n++) {
        for (unsigned on = 0; on < 2; on++) {
            start(on == 0 ? n : 0, on == 0 ? 0 : n);
            int err = run();
            assert_true(err == 0 || err == E_NO_MEMORY);
            refused += err != 0 ? 1 : 0;
            assert_int_equal(host.blocks, 0);
            assert_int_equal(host.bytes, 0);
        }
    }
    assert_true(refused >= 8); /* gossip_new's own are among them */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_allocation_fails_d9)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
