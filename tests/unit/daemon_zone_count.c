/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of zones: bounded, whatever members call theirs, and each name once, as /metrics needs it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "../../src/daemon/zone_count.h"
#include "topology.h"

static struct zone_counts counts;

static int make(void **state)
{
    (void)state;
    memset(&counts, 0, sizeof counts);
    return 0;
}

static void add(const char *zone, enum member_state state)
{
    struct member member = {.state = state};
    assert_int_equal(label_set(&member.topology.zone, zone, strlen(zone)), 0);
    zone_counts_add(&counts, &member);
}

static const struct zone_row *row(const char *zone)
{
    const struct zone_row *found = NULL;
    for (uint32_t i = 0; i < counts.count; i++) {
        if (strcmp(counts.rows[i].zone.text, zone) != 0)
            continue;
        assert_null(found); /* twice would be two lines of the same name */
        found = &counts.rows[i];
    }
    return found;
}

static void states_count_apart_and_the_gone_not_at_all(void **state)
{
    (void)state;
    add("a", MEMBER_ALIVE);
    add("b", MEMBER_SUSPECT);
    add("a", MEMBER_ALIVE);
    add("a", MEMBER_LEAVING);
    add("", MEMBER_ALIVE);
    add("c", MEMBER_DEAD);
    add("c", MEMBER_LEFT);
    add("c", MEMBER_UNKNOWN);
    assert_int_equal(counts.count, 3);
    assert_int_equal(row("a")->alive, 2);
    assert_int_equal(row("a")->leaving, 1);
    assert_int_equal(row("a")->suspect, 0);
    assert_int_equal(row("b")->suspect, 1);
    assert_int_equal(row("")->alive, 1);
    assert_null(row("c"));
}

static void add_many(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char zone[24];
        (void)snprintf(zone, sizeof zone, "zone-%u", i);
        add(zone, MEMBER_ALIVE);
    }
}

static void zones_beyond_the_limit_share_a_row(void **state)
{
    (void)state;
    add_many(ZONE_COUNT_MAX);
    assert_int_equal(counts.count, ZONE_COUNT_MAX);
    assert_null(row(ZONE_COUNT_REST));
    add_many(ZONE_COUNT_MAX + 1000);
    assert_int_equal(counts.count, ZONE_COUNT_MAX + 1);
    assert_int_equal(row(ZONE_COUNT_REST)->alive, 1000);
    assert_int_equal(row("zone-63")->alive, 2);
}

/* Somebody's zone may be called like the rest, before or after there is a rest. */
static void a_zone_called_like_the_rest_is_the_rest(void **state)
{
    (void)state;
    add(ZONE_COUNT_REST, MEMBER_ALIVE);
    add_many(ZONE_COUNT_MAX + 5);
    add(ZONE_COUNT_REST, MEMBER_SUSPECT);
    assert_int_equal(counts.count, ZONE_COUNT_MAX + 1);
    assert_int_equal(row(ZONE_COUNT_REST)->alive, 6);
    assert_int_equal(row(ZONE_COUNT_REST)->suspect, 1);
    assert_int_equal(row("zone-63")->alive, 1);
}

/* What would need an escape in /metrics never becomes a label. */
static void hostile_labels_are_no_labels(void **state)
{
    (void)state;
    static const char *const hostile[] = {"a\"b", "a\\", "a\nshoal_up 1", "a}b", "a{b", "\xc3\xa4"};
    struct label label;
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++)
        assert_int_not_equal(label_set(&label, hostile[i], strlen(hostile[i])), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(states_count_apart_and_the_gone_not_at_all, make),
        cmocka_unit_test_setup(zones_beyond_the_limit_share_a_row, make),
        cmocka_unit_test_setup(a_zone_called_like_the_rest_is_the_rest, make),
        cmocka_unit_test_setup(hostile_labels_are_no_labels, make),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
