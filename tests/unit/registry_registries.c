/* SPDX-License-Identifier: Apache-2.0 */
/* ORG-1: an upstream is found by its exact name after lower-casing, or as the default; else not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "registry.h"

static struct registry_entry entries[3] = {
    {.name = "docker.io"},
    {.name = "registry.test:5000", .is_default = true},
    {.name = "registry.test"},
};

static void found_by_name(void **state)
{
    const struct registries all = {entries, 3};

    (void)state;
    assert_ptr_equal(registries_find(&all, "docker.io"), &entries[0]);
    assert_ptr_equal(registries_find(&all, "Docker.IO"), &entries[0]);
    assert_ptr_equal(registries_find(&all, "registry.test"), &entries[2]);
    assert_ptr_equal(registries_find(&all, "registry.test:5000"), &entries[1]);
}

static void default_answers_without_a_name(void **state)
{
    const struct registries all = {entries, 3}, first = {entries, 1}, none = {NULL, 0};

    (void)state;
    assert_ptr_equal(registries_find(&all, ""), &entries[1]);
    assert_ptr_equal(registries_find(&all, NULL), &entries[1]);
    assert_null(registries_find(&first, ""));
    assert_null(registries_find(&none, ""));
}

static void everything_else_does_not_exist(void **state)
{
    const struct registries all = {entries, 3};
    static const char *const names[] = {"docker.i",         "docker.io.",         "docker.iox",
                                        "docker.io:443",    "registry.test:500",  "registry.test/",
                                        "http://docker.io", "x@docker.io",        " docker.io",
                                        "docker\xc5\xbfio", "registry.test:50000"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_null(registries_find(&all, names[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_by_name),
        cmocka_unit_test(default_answers_without_a_name),
        cmocka_unit_test(everything_else_does_not_exist),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
