/* SPDX-License-Identifier: Apache-2.0 */
/* Who may be sent bundles: those whose introduction says so, while keys are there (C-3). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sodium.h>

#include "../../src/session/dgram_internal.h"
#include "session_net.h"

#define NOW 1000000ULL

static struct node a;
static struct node b;

static void bundles_are_for_who_has_keys_and_takes_them(void **state)
{
    (void)state;
    assert_int_equal(node_start(&a, 1, 1, NOW), 0);
    assert_int_equal(node_start(&b, 2, 2, NOW), 0);
    assert_false(dgram_takes_bundles(a.dgram, &b.config.self_addr));
    assert_int_equal(node_send(&a, &b, NOW, "one", 3), 0);
    assert_false(dgram_takes_bundles(a.dgram, &b.config.self_addr)); /* it waits behind a hello */
    (void)nodes_settle(&a, &b, NOW);
    assert_true(dgram_takes_bundles(a.dgram, &b.config.self_addr));
    assert_true(dgram_takes_bundles(b.dgram, &a.config.self_addr));
    assert_false(dgram_takes_bundles(a.dgram, &a.config.self_addr));
    node_stop(&a);
    node_stop(&b);
}

static void an_older_version_gets_none(void **state)
{
    (void)state;
    static const struct dgram_agreement agreement;
    struct dgram_hello hello = {.intro = {.features = FEATURE_CHACHA20_POLY1305}};
    struct dgram_keys keys = {.takes_bundles = true};
    dgram__keys_fill(&keys, &agreement, true, &hello, NOW);
    assert_false(keys.takes_bundles);
    hello.intro.features |= FEATURE_BUNDLES | 0x80000000U; /* and a later one does */
    dgram__keys_fill(&keys, &agreement, true, &hello, NOW);
    assert_true(keys.takes_bundles);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bundles_are_for_who_has_keys_and_takes_them),
        cmocka_unit_test(an_older_version_gets_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
