/* SPDX-License-Identifier: Apache-2.0 */
/* Budgets of the mesh port (PEER-7, limits.uploadMbit), and splitting of bootstrap names. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "bytes.h"
#include "../../src/daemon/bootstrap.h"
#include "../../src/daemon/budget.h"

static struct peer_addr addr_of(unsigned number)
{
    struct peer_addr addr = {{[10] = 0xff, [11] = 0xff, [12] = 10}, 5};
    store_be32(addr.ip + 12, 0x0a000000U + number);
    return addr;
}

static void twenty_handshakes_a_second_per_address(void **state) /* PEER-7 */
{
    (void)state;
    static struct handshake_budget budget;
    memset(&budget, 0, sizeof budget);
    struct peer_addr one = addr_of(1);
    struct peer_addr two = addr_of(2);
    for (unsigned i = 0; i < BUDGET_PER_SECOND; i++) {
        one.port = (uint16_t)(1000 + i); /* ports do not matter */
        assert_true(handshake_budget_take(&budget, 100, &one));
    }
    assert_false(handshake_budget_take(&budget, 200, &one));
    assert_true(handshake_budget_take(&budget, 200, &two));
    assert_false(handshake_budget_take(&budget, 999999, &one));
    assert_true(handshake_budget_take(&budget, 1000000, &one));
}

static void the_address_seen_longest_ago_makes_room(void **state)
{
    (void)state;
    static struct handshake_budget budget;
    memset(&budget, 0, sizeof budget);
    for (unsigned i = 0; i < BUDGET_ADDRESSES; i++) {
        struct peer_addr addr = addr_of(i);
        assert_true(handshake_budget_take(&budget, 10 + i, &addr));
    }
    struct peer_addr busy = addr_of(0);
    for (unsigned i = 1; i < BUDGET_PER_SECOND; i++)
        assert_true(handshake_budget_take(&budget, 1000, &busy));
    struct peer_addr fresh = addr_of(BUDGET_ADDRESSES);
    assert_true(handshake_budget_take(&budget, 1001, &fresh));
    assert_false(handshake_budget_take(&budget, 1002, &busy)); /* not forgotten */
    struct peer_addr gone = addr_of(1);
    for (unsigned i = 0; i < BUDGET_PER_SECOND; i++) /* forgotten: a fresh count */
        assert_true(handshake_budget_take(&budget, 1003, &gone));
    assert_false(handshake_budget_take(&budget, 1003, &gone));
}

static void no_rate_means_no_waiting(void **state)
{
    (void)state;
    struct rate_budget budget;
    rate_budget_init(&budget, 0, 0);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(rate_budget_wait_us(&budget, 0), 0);
        rate_budget_spend(&budget, 1 << 20);
    }
}

/* Sends batches whenever allowed for 10 s of virtual time; the total must be the rate. */
static void the_rate_is_kept(void **state)
{
    (void)state;
    static const uint64_t rates_mbit[] = {1, 8, 100, 1000, 100000};
    for (size_t i = 0; i < sizeof rates_mbit / sizeof rates_mbit[0]; i++) {
        struct rate_budget budget;
        uint64_t now_us = 1;
        uint64_t sent = 0;
        const uint64_t batch = 196608;
        rate_budget_init(&budget, rates_mbit[i], now_us);
        uint64_t burst = budget.burst_bytes;
        while (now_us < 10000000) {
            uint64_t wait_us = rate_budget_wait_us(&budget, now_us);
            now_us += wait_us;
            if (wait_us == 0) {
                rate_budget_spend(&budget, batch);
                sent += batch;
            }
        }
        uint64_t due = rates_mbit[i] * 125000 * 10;
        assert_true(sent <= due + burst + 2 * batch);
        assert_true(sent + batch >= due);
    }
}

static void a_long_pause_fills_one_burst_only(void **state)
{
    (void)state;
    struct rate_budget budget;
    rate_budget_init(&budget, 100, 0);
    rate_budget_spend(&budget, budget.burst_bytes);
    assert_true(rate_budget_wait_us(&budget, 0) > 0);
    assert_int_equal(rate_budget_wait_us(&budget, UINT64_MAX / 2), 0);
    assert_int_equal(budget.left_bytes, budget.burst_bytes);
}

static void bootstrap_names_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {
        {"node-1", "node-1", 65002},     {"a.b.c:7", "a.b.c", 7},
        {"10.0.0.1", "10.0.0.1", 65002}, {"10.0.0.1:9", "10.0.0.1", 9},
        {"fd00::1", "fd00::1", 65002},   {"[fd00::1]", "fd00::1", 65002},
        {"[fd00::1]:9", "fd00::1", 9},   {"a:65535", "a", 65535},
    };
    static const char *const bad[] = {"",        ":7",         "a:",         "a:0",
                                      "a:65536", "a:x",        "a:7x",       "[fd00::1",
                                      "[]",      "[fd00::1]x", "[fd00::1]:", "a:99999999999"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char host[64];
        uint16_t port = 0;
        assert_int_equal(bootstrap_split(good[i].text, 65002, host, sizeof host, &port), 0);
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char host[64];
        uint16_t port = 1234;
        assert_int_equal(bootstrap_split(bad[i], 65002, host, sizeof host, &port), E_MALFORMED);
        assert_int_equal(port, 1234);
    }
    char tiny[4];
    uint16_t port = 0;
    assert_int_equal(bootstrap_split("toolong", 65002, tiny, sizeof tiny, &port), E_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_handshakes_a_second_per_address),
        cmocka_unit_test(the_address_seen_longest_ago_makes_room),
        cmocka_unit_test(no_rate_means_no_waiting),
        cmocka_unit_test(the_rate_is_kept),
        cmocka_unit_test(a_long_pause_fills_one_burst_only),
        cmocka_unit_test(bootstrap_names_are_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
