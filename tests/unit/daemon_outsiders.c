/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes without the secret: a line a minute, and when it goes on. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "../../src/daemon/outsiders.h"

static void a_line_a_minute(void **state)
{
    (void)state;
    struct outsiders outsiders = {.any = false};
    struct peer_addr from = {.port = 1}, other = {.port = 2};
    uint64_t unsaid = 99, now_us = 5;
    assert_true(outsiders_note(&outsiders, now_us, &from, &unsaid));
    assert_int_equal(unsaid, 0);
    for (unsigned i = 0; i < 1000; i++)
        assert_false(outsiders_note(&outsiders, now_us += 10000, &from, &unsaid));
    assert_false(outsiders_note(&outsiders, 5 + OUTSIDERS_LINE_US - 1, &from, &unsaid));
    assert_true(outsiders_note(&outsiders, 5 + OUTSIDERS_LINE_US, &other, &unsaid));
    assert_int_equal(unsaid, 1001);
    assert_int_equal(outsiders.addr.port, 2);
    assert_true(outsiders_note(&outsiders, 5 + 2 * OUTSIDERS_LINE_US, &from, &unsaid));
    assert_int_equal(unsaid, 0);
}

static void going_on_begins_and_ends(void **state)
{
    (void)state;
    struct outsiders outsiders = {.any = false};
    struct peer_addr from = {.port = 1};
    uint64_t unsaid;
    assert_false(outsiders_go_on(&outsiders, 0));
    (void)outsiders_note(&outsiders, 1000, &from, &unsaid);
    assert_false(outsiders_go_on(&outsiders, 1000 + OUTSIDERS_LAST_US)); /* but one */
    (void)outsiders_note(&outsiders, 1000 + OUTSIDERS_LAST_US, &from, &unsaid);
    assert_true(outsiders_go_on(&outsiders, 1000 + OUTSIDERS_LAST_US));
    uint64_t end_us = 1000 + OUTSIDERS_LAST_US + OUTSIDERS_PAUSE_US;
    assert_true(outsiders_go_on(&outsiders, end_us - 1));
    assert_false(outsiders_go_on(&outsiders, end_us));
    (void)outsiders_note(&outsiders, end_us, &from, &unsaid); /* anew */
    assert_false(outsiders_go_on(&outsiders, end_us));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_a_minute),
        cmocka_unit_test(going_on_begins_and_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
