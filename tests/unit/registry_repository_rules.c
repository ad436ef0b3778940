/* SPDX-License-Identifier: Apache-2.0 */
/* ACL-10: which repositories go through the mesh, and what is made of tags (INT-9), by rules of
 * which the first that fits wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "registry.h"

static struct registry_entry entry;

static void rule(const char *pattern, bool on)
{
    struct registry_p2p_rule *made = &entry.p2p_rules[entry.p2p_rule_count++];

    (void)snprintf(made->pattern, sizeof made->pattern, "%s", pattern);
    made->on = on;
}

static void without_rules_the_entry_decides_acl_10(void **state)
{
    (void)state;
    entry = (struct registry_entry){.p2p = true};
    assert_true(registry_p2p(&entry, "lib/app"));
    entry.p2p = false;
    assert_false(registry_p2p(&entry, "lib/app"));
}

static void the_first_fit_wins_acl_10(void **state)
{
    (void)state;
    entry = (struct registry_entry){.p2p = true};
    rule("secret/open", true);
    rule("secret/*", false);
    rule("*/private", false);
    assert_true(registry_p2p(&entry, "secret/open"));
    assert_false(registry_p2p(&entry, "secret/open/x"));
    assert_false(registry_p2p(&entry, "secret/a/b"));
    assert_false(registry_p2p(&entry, "a/b/private"));
    assert_true(registry_p2p(&entry, "secret"));
    assert_true(registry_p2p(&entry, "lib/app"));
    rule("*", false);
    assert_false(registry_p2p(&entry, "lib/app"));
}

static void patterns_fit_whole_names(void **state)
{
    static const struct {
        const char *pattern, *name;
        bool fits;
    } rows[] = {
        {"a", "a", true},        {"a", "aa", false},
        {"a", "b", false},       {"*", "", true},
        {"", "a", false},        {"a*", "a", true},
        {"*a", "ba", true},      {"*a", "ab", false},
        {"a*b*c", "abc", true},  {"a*b*c", "axbxbc", true},
        {"a*b*c", "acb", false}, {"*ab", "aab", true},
        {"**", "x/y", true},     {"a/*/c", "a/b/c", true},
        {"a/*/c", "a/c", false}, {"*aaaaaaab", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        entry = (struct registry_entry){.p2p = false};
        rule(rows[i].pattern, true);
        assert_int_equal(registry_p2p(&entry, rows[i].name), rows[i].fits);
    }
}

static void tag_rule(const char *repositories, const char *tags, enum registry_resolve resolve)
{
    struct registry_tag_rule *made = &entry.tag_rules[entry.tag_rule_count++];

    (void)snprintf(made->repositories, sizeof made->repositories, "%s", repositories);
    (void)snprintf(made->tags, sizeof made->tags, "%s", tags);
    made->resolve = resolve;
}

static void tags_have_rules_of_both_names_int_9(void **state)
{
    (void)state;
    entry = (struct registry_entry){.p2p = true};
    assert_null(registry_tag_rule(&entry, "lib/app", "1"));
    tag_rule("base/*", "*", REGISTRY_RESOLVE_FIXED);
    tag_rule("*", "latest", REGISTRY_RESOLVE_OFF);
    tag_rule("lib/*", "v*", REGISTRY_RESOLVE_TTL);
    assert_int_equal(registry_tag_rule(&entry, "base/os", "latest")->resolve,
                     REGISTRY_RESOLVE_FIXED);
    assert_int_equal(registry_tag_rule(&entry, "x", "latest")->resolve, REGISTRY_RESOLVE_OFF);
    assert_int_equal(registry_tag_rule(&entry, "lib/app", "v1")->resolve, REGISTRY_RESOLVE_TTL);
    assert_null(registry_tag_rule(&entry, "lib/app", "1"));
    assert_null(registry_tag_rule(&entry, "app", "v1"));
    assert_null(registry_tag_rule(&entry, "x", "LATEST")); /* tags have case */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_rules_the_entry_decides_acl_10),
        cmocka_unit_test(the_first_fit_wins_acl_10),
        cmocka_unit_test(patterns_fit_whole_names),
        cmocka_unit_test(tags_have_rules_of_both_names_int_9),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
