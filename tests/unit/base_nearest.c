/* SPDX-License-Identifier: Apache-2.0 */
/* Proposals for mistyped names: near ones are found, far ones are not proposed. */
#include "nearest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static const char *const names[] = {"nodes", "zones", "nic.up", "origin.rate", "origin.requests"};

static const char *known(const void *arg, size_t index)
{
    return ((const char *const *)arg)[index];
}

static const char *nearest(const char *name)
{
    return nearest_name(name, known, names, sizeof names / sizeof names[0]);
}

static void slips_are_mended(void **state)
{
    (void)state;
    assert_string_equal(nearest("node"), "nodes");
    assert_string_equal(nearest("zone"), "zones");
    assert_string_equal(nearest("nic_up"), "nic.up");
    assert_string_equal(nearest("orgin.rate"), "origin.rate");
    assert_string_equal(nearest("origin.request"), "origin.requests");
}

static void far_names_are_not_proposed(void **state)
{
    (void)state;
    assert_null(nearest("x"));
    assert_null(nearest("bandwidth"));
    assert_null(nearest(""));
    assert_null(nearest("a-name-so-long-that-nobody-can-have-meant-any-of-them-by-it"));
    assert_null(nearest_name("nodes", known, names, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slips_are_mended),
        cmocka_unit_test(far_names_are_not_proposed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
