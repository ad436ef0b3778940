/* SPDX-License-Identifier: Apache-2.0 */
/* Remembered challenges: per registry and repository, bounded, for a day (ACL-4, ACL-6). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "registry_fake.h"

#define BASIC  "Basic realm=\"registry\""
#define BEARER "Bearer realm=\"https://auth.test/token\",scope=\"repository:lib/a:pull\""

static struct fake fake;

static int set_up(void **state)
{
    struct challenges *challenges;

    fake_init(&fake, 3);
    assert_int_equal(challenges_new(&fake.env, &challenges), 0);
    *state = challenges;
    return 0;
}

static int tear_down(void **state)
{
    challenges_free(*state);
    assert_int_equal(fake.allocations, 0);
    return 0;
}

static void is_known_per_registry_and_repository(void **state)
{
    struct challenges *challenges = *state;

    assert_null(challenges_find(challenges, 1, "r.test", "lib/a"));
    challenges_put(challenges, 1, "r.test", "lib/a", BEARER);
    assert_string_equal(challenges_find(challenges, 2, "r.test", "lib/a"), BEARER);
    assert_null(challenges_find(challenges, 2, "r.test", "lib/b"));
    assert_null(challenges_find(challenges, 2, "r.test", "lib"));
    assert_null(challenges_find(challenges, 2, "r.test", ""));
    assert_null(challenges_find(challenges, 2, "other.test", "lib/a"));
    challenges_put(challenges, 3, "r.test", "lib/a", BASIC);
    assert_string_equal(challenges_find(challenges, 3, "r.test", "lib/a"), BASIC);
    challenges_forget(challenges, "r.test", "lib/b");
    assert_non_null(challenges_find(challenges, 3, "r.test", "lib/a"));
    challenges_forget(challenges, "r.test", "lib/a");
    assert_null(challenges_find(challenges, 3, "r.test", "lib/a"));
}

/* A scope is a repository's own, a Basic realm is the registry's. */
static void base_stands_for_all_if_basic(void **state)
{
    struct challenges *challenges = *state;

    challenges_put(challenges, 1, "r.test", "", BEARER);
    assert_string_equal(challenges_find(challenges, 1, "r.test", ""), BEARER);
    assert_null(challenges_find(challenges, 1, "r.test", "lib/a"));
    challenges_put(challenges, 1, "r.test", "", BASIC);
    assert_string_equal(challenges_find(challenges, 1, "r.test", "lib/a"), BASIC);
    assert_null(challenges_find(challenges, 1, "other.test", "lib/a"));
}

static void ends_with_its_life(void **state)
{
    struct challenges *challenges = *state;

    challenges_put(challenges, 5, "r.test", "lib/a", BASIC);
    assert_non_null(challenges_find(challenges, 4 + CHALLENGE_LIFE_US, "r.test", "lib/a"));
    assert_null(challenges_find(challenges, 5 + CHALLENGE_LIFE_US, "r.test", "lib/a"));
}

static void overlong_values_are_not_kept(void **state)
{
    struct challenges *challenges = *state;
    char value[CHALLENGE_VALUE_MAX + 2];

    memset(value, 'x', sizeof value);
    value[CHALLENGE_VALUE_MAX + 1] = '\0';
    challenges_put(challenges, 1, "r.test", "lib/a", BASIC);
    challenges_put(challenges, 1, "r.test", "lib/a", value);
    assert_null(challenges_find(challenges, 1, "r.test", "lib/a")); /* nor is the old one true */
    value[CHALLENGE_VALUE_MAX] = '\0';
    challenges_put(challenges, 1, "r.test", "lib/a", value);
    assert_non_null(challenges_find(challenges, 1, "r.test", "lib/a"));
    challenges_put(challenges, 1, "r.test", "lib/a", "");
    assert_null(challenges_find(challenges, 1, "r.test", "lib/a"));
}

static void oldest_goes_when_full(void **state)
{
    struct challenges *challenges = *state;
    char name[32];

    for (unsigned i = 0; i < CHALLENGES_MAX + 10; i++) {
        (void)snprintf(name, sizeof name, "lib/%u", i);
        challenges_put(challenges, i, "r.test", name, BASIC);
    }
    assert_null(challenges_find(challenges, 2000, "r.test", "lib/9"));
    assert_non_null(challenges_find(challenges, 2000, "r.test", "lib/10"));
    assert_non_null(challenges_find(challenges, 2000, "r.test", name));
}

static void memory_failures_lose_an_entry_only(void **state)
{
    struct challenges *challenges = *state;

    fake.alloc_fail_at = 1;
    fake.alloc_count = 0;
    assert_int_equal(challenges_new(&fake.env, &challenges), E_NO_MEMORY);
    challenges = *state;
    for (unsigned i = 1; i < 6; i++) {
        fake.alloc_count = 0;
        fake.alloc_fail_at = i;
        challenges_put(challenges, 1, "r.test", "lib/a", BASIC);
        fake.alloc_fail_at = 0;
        challenges_put(challenges, 1, "r.test", "lib/b", BASIC);
        assert_non_null(challenges_find(challenges, 1, "r.test", "lib/b"));
        challenges_forget(challenges, "r.test", "lib/b");
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(is_known_per_registry_and_repository),
        TEST(base_stands_for_all_if_basic),
        TEST(ends_with_its_life),
        TEST(overlong_values_are_not_kept),
        TEST(oldest_goes_when_full),
        TEST(memory_failures_lose_an_entry_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
