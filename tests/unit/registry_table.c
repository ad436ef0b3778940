/* SPDX-License-Identifier: Apache-2.0 */
/* Registries by pattern: which names one stands for, which wins, and the bounded table of entries
 * made from them (ORG-1, ORG-2, ORG-6). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "registry_fake.h"

static struct registry_entry entries[] = {
    {.name = "docker.io", .endpoint = "https://registry-1.docker.io", .is_default = true},
    {.name = "*", .p2p = true},
    {.name = "*.example.com",
     .ca_file = "/wide",
     .allow_private = {.block = {{.ip = {[10] = 0xff, 0xff, 10}, .bits = 104}}, .count = 1}},
    {.name = "*.eu.example.com", .ca_file = "/near"},
    {.name = "own.eu.example.com", .endpoint = "https://elsewhere.test", .ca_file = "/own"},
    {.name = "*.lab.test:5000", .ca_file = "/port"},
};
static const struct registries configured = {.entries = entries,
                                             .entry_count = sizeof entries / sizeof entries[0]};

static struct fake fake;

static int set_up(void **state)
{
    struct registry_table *table;

    fake_init(&fake, 3);
    assert_int_equal(registry_table_new(&fake.env, &configured, &table), 0);
    *state = table;
    return 0;
}

static int tear_down(void **state)
{
    registry_table_free(*state);
    assert_int_equal(fake.allocations, 0);
    return 0;
}

static void patterns_have_one_form(void **state)
{
    static const char *const good[] = {"*", "*.com", "*.example.com", "*.example.com:5000"};
    static const char *const bad[] = {"",         "**",       "*.",        "*example.com", "a.*",
                                      "*.*.com",  "*.EX.com", "*.com:0",   "*:5000",       "*.com/",
                                      "*.[::1]",  "*.0.0.1",  "x",         "*.a b",        "*.7",
                                      "*.1:5000", "*..com",   "*.com:5a00"};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(registry_pattern_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(registry_pattern_valid(bad[i]));
}

static void a_pattern_stands_for_names_below_it(void **state)
{
    static const struct {
        const char *pattern, *name;
        bool fits;
    } rows[] = {
        {"*.example.com", "a.example.com", true},
        {"*.example.com", "a.b.example.com", true},
        {"*.example.com", "example.com", false},
        {"*.example.com", ".example.com", false},
        {"*.example.com", "aexample.com", false},
        {"*.example.com", "a.example.com:443", false},
        {"*.example.com", "a.example.com.evil.test", false},
        {"*.example.com:5000", "a.example.com:5000", true},
        {"*.example.com:5000", "a.example.com", false},
        {"*", "a.example.com", true},
        {"*", "a.example.com:5000", true},
        {"*", "localhost", false},
        {"*", "localhost:80", false},
        {"*", "8.8.8.8", false},
        {"*", "8.8.8.8:443", false},
        {"*", "0x7f.1", false},
        {"*", "127.0.0.0x1", false},
        {"*", "0xa9.0xfe.0xa9.0xfe:80", false},
        {"*", "a.0xffg", true},
        {"*", "[2001:db8::1]", false},
        {"*", "a_b.example.com", false},
        {"*", "user@a.example.com", false},
        {"*", "a.example.com/x", false},
        {"*", "*", false},
        {"*", "*.example.com", false},
        {"*", "", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(registry_pattern_fits(rows[i].pattern, rows[i].name), rows[i].fits);
}

/* What the table answers for a name, given back at once. NULL: not found. */
static const struct registry_entry *look(struct registry_table *table, const char *ns)
{
    const struct registry_entry *entry = NULL;
    int err = registry_table_get(table, ns, &entry);

    assert_true(err == 0 || err == E_NOT_FOUND);
    registry_entry_put(entry);
    return entry;
}

static void the_most_specific_wins_org_1(void **state)
{
    struct registry_table *table = *state;

    assert_ptr_equal(look(table, ""), &entries[0]);
    assert_ptr_equal(look(table, NULL), &entries[0]);
    assert_ptr_equal(look(table, "Docker.IO"), &entries[0]);
    assert_ptr_equal(look(table, "own.eu.example.com"), &entries[4]);
    assert_string_equal(look(table, "a.eu.example.com")->ca_file, "/near");
    assert_string_equal(look(table, "a.b.eu.example.com")->ca_file, "/near");
    assert_string_equal(look(table, "eu.example.com")->ca_file, "/wide");
    assert_string_equal(look(table, "a.lab.test:5000")->ca_file, "/port");
    assert_string_equal(look(table, "a.lab.test")->ca_file, "");
    assert_null(look(table, "*"));
    assert_null(look(table, "*.example.com"));
    assert_null(look(table, "localhost"));
    assert_null(look(table, "10.0.0.1"));
}

/* The name asked for, never the pattern: grants are kept by it. https and the pattern's address
 * rule, whatever was asked (ORG-2, ORG-6). */
static void an_entry_made_is_the_registrys_own(void **state)
{
    struct registry_table *table = *state;
    const struct registry_entry *wide, *near, *any;

    assert_int_equal(registry_table_get(table, "A.Example.com", &wide), 0);
    assert_int_equal(registry_table_get(table, "a.eu.example.com", &near), 0);
    assert_int_equal(registry_table_get(table, "quay.test:8443", &any), 0);
    assert_string_equal(wide->name, "a.example.com");
    assert_string_equal(wide->endpoint, "https://a.example.com");
    assert_true(wide->by_pattern && near->by_pattern && any->by_pattern);
    assert_int_equal(wide->allow_private.count, 1);
    assert_int_equal(near->allow_private.count, 0);
    assert_string_equal(any->endpoint, "https://quay.test:8443");
    assert_true(any->p2p && any->allow_private.count == 0 && !any->is_default);
    assert_ptr_equal(look(table, "a.EXAMPLE.com"), wide);
    registry_entry_put(wide);
    registry_entry_put(near);
    registry_entry_put(any);
}

static void the_table_is_bounded_and_keeps_what_is_in_use(void **state)
{
    struct registry_table *table = *state;
    const struct registry_entry *held[REGISTRY_MADE_MAX], *one;
    char name[64];

    for (unsigned i = 0; i < REGISTRY_MADE_MAX; i++) {
        (void)snprintf(name, sizeof name, "r%u.test", i);
        assert_int_equal(registry_table_get(table, name, &held[i]), 0);
    }
    assert_int_equal(registry_table_get(table, "more.test", &one), E_FULL);
    assert_int_equal(registry_table_get(table, "docker.io", &one), 0);
    assert_int_equal(registry_table_get(table, "r7.test", &one), 0);
    assert_ptr_equal(one, held[7]);
    (void)registry_entry_ref(one);
    registry_entry_put(one);
    registry_entry_put(one);
    assert_int_equal(registry_table_get(table, "more.test", &one), E_FULL);

    registry_entry_put(held[9]); /* used later than 3: so 3 makes room first */
    registry_entry_put(held[3]);
    assert_int_equal(registry_table_get(table, "more.test", &one), 0);
    registry_entry_put(one);
    assert_string_equal(held[9]->name, "r9.test");
    for (unsigned i = 0; i < REGISTRY_MADE_MAX; i++)
        if (i != 9 && i != 3)
            registry_entry_put(held[i]);
}

static void without_memory_it_says_so(void **state)
{
    struct registry_table *table = *state;
    const struct registry_entry *one;

    fake.alloc_fail_at = fake.alloc_count + 1;
    assert_int_equal(registry_table_get(table, "a.example.com", &one), E_NO_MEMORY);
    assert_int_equal(registry_table_get(table, "a.example.com", &one), 0);
    registry_entry_put(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_have_one_form),
        cmocka_unit_test(a_pattern_stands_for_names_below_it),
        cmocka_unit_test_setup_teardown(the_most_specific_wins_org_1, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_entry_made_is_the_registrys_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_table_is_bounded_and_keeps_what_is_in_use, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(without_memory_it_says_so, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
