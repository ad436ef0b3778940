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
    const struct registries all = {.entries = entries, .entry_count = 3};

    (void)state;
    assert_ptr_equal(registries_find(&all, "docker.io"), &entries[0]);
    assert_ptr_equal(registries_find(&all, "Docker.IO"), &entries[0]);
    assert_ptr_equal(registries_find(&all, "registry.test"), &entries[2]);
    assert_ptr_equal(registries_find(&all, "registry.test:5000"), &entries[1]);
}

static void default_answers_without_a_name(void **state)
{
    const struct registries all = {.entries = entries, .entry_count = 3},
                            first = {.entries = entries, .entry_count = 1},
                            none = {.entries = NULL, .entry_count = 0};

    (void)state;
    assert_ptr_equal(registries_find(&all, ""), &entries[1]);
    assert_ptr_equal(registries_find(&all, NULL), &entries[1]);
    assert_null(registries_find(&first, ""));
    assert_null(registries_find(&none, ""));
}

static void everything_else_does_not_exist(void **state)
{
    const struct registries all = {.entries = entries, .entry_count = 3};
    static const char *const names[] = {"docker.i",         "docker.io.",         "docker.iox",
                                        "docker.io:443",    "registry.test:500",  "registry.test/",
                                        "http://docker.io", "x@docker.io",        " docker.io",
                                        "docker\xc5\xbfio", "registry.test:50000"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_null(registries_find(&all, names[i]));
}

static void expect_asked(const struct registries *all, const char *ns, const char *host,
                         const char *wanted)
{
    char name[HOST_BYTES_MAX + 1];

    assert_string_equal(registries_asked(all, ns, host, name), wanted);
}

static void the_host_asked_is_a_name_too(void **state)
{
    const struct registries all = {.entries = entries, .entry_count = 3};

    (void)state;
    expect_asked(&all, "", "registry.test", "registry.test");
    expect_asked(&all, "", "Docker.IO", "Docker.IO");
    expect_asked(&all, NULL, "docker.io:65001", "docker.io");
    expect_asked(&all, "", "registry.test:5000", "registry.test:5000");
    expect_asked(&all, "docker.io", "registry.test", "docker.io");
    expect_asked(&all, "docker.io:443", "registry.test", "docker.io:443");
    expect_asked(&all, "unknown.test", "registry.test", "unknown.test");
}

static void an_address_means_the_default(void **state)
{
    static struct registry_entry open[2] = {{.name = "*"}, {.name = "*.test"}};
    const struct registries all = {.entries = entries, .entry_count = 3},
                            patterns = {.entries = open, .entry_count = 2};
    static const char *const hosts[] = {"127.0.0.1:65001", "[::1]:65001", "[::1]", "localhost",
                                        "node-7.test:443", ":65001",      "",      NULL};

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        expect_asked(&all, "", hosts[i], "");
        expect_asked(&patterns, "", hosts[i], ""); /* no pattern lets in the node itself */
    }
}

/* ACR.md §6: the way back from "distributed". Whether the name is known is the table's business. */
static void distributed_names_lead_back(void **state)
{
    static struct registry_entry own = {.name = "own.distributed.test:5000"};
    const struct registries all = {.entries = entries, .entry_count = 3},
                            odd = {.entries = &own, .entry_count = 1};
    static const char *const names[][2] = {
        {"a-vpc.distributed.cn.example.com:65001", "a-vpc.cn.example.com"},
        {"a-vpc.distributed.cn.example.com:443", "a-vpc.cn.example.com"},
        {"a-vpc.distributed.cn.example.com", "a-vpc.cn.example.com"},
        {"A-VPC.Distributed.cn.example.com", "A-VPC.cn.example.com"},
        {"a.distributed.distributed.example.com", "a.distributed.example.com"},
        {"a.distributed.", "a."},
        {".distributed.", "."},
    };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        expect_asked(&all, "", names[i][0], names[i][1]);
        expect_asked(&all, names[i][0], "registry.test", names[i][1]);
    }
    expect_asked(&odd, "", "own.distributed.test:5000", "own.distributed.test:5000");
    expect_asked(&all, "distributed.example.com", "", "distributed.example.com");
    expect_asked(&all, "a.distributedx.com", "", "a.distributedx.com");
}

static void a_name_too_long_is_none(void **state)
{
    char name[2 * HOST_BYTES_MAX];
    const struct registries all = {.entries = entries, .entry_count = 3};

    (void)state;
    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = '\0';
    expect_asked(&all, name, "docker.io", name);
    expect_asked(&all, "", name, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_by_name),
        cmocka_unit_test(default_answers_without_a_name),
        cmocka_unit_test(everything_else_does_not_exist),
        cmocka_unit_test(the_host_asked_is_a_name_too),
        cmocka_unit_test(an_address_means_the_default),
        cmocka_unit_test(distributed_names_lead_back),
        cmocka_unit_test(a_name_too_long_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
