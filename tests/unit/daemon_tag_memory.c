/* SPDX-License-Identifier: Apache-2.0 */
/* What tags stood for: apart for each registry and repository, bounded (INT-9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/tag_memory.h"

static unsigned live, fail_at, count;

static void *test_memory(void *host, void *old, size_t bytes)
{
    (void)host;
    if (bytes == 0) {
        live--;
        free(old);
        return NULL;
    }
    if (++count == fail_at)
        return NULL;
    live++;
    return realloc(old, bytes);
}

static void test_random(void *host, uint8_t *out, size_t bytes)
{
    (void)host;
    memset(out, 7, bytes);
}

static const struct env env = {.alloc = test_memory, .random = test_random};

static int set_up(void **state)
{
    struct tag_memory *memory;

    assert_int_equal(tag_memory_new(&env, &memory), 0);
    *state = memory;
    return 0;
}

static int tear_down(void **state)
{
    tag_memory_free(*state);
    assert_int_equal(live, 0);
    return 0;
}

static void put(struct tag_memory *memory, const char *registry, const char *repository,
                const char *tag, uint8_t mark)
{
    const struct tag_name name = {registry, repository, tag};
    struct tag_fact fact = {.digest = {.algorithm = DIGEST_SHA256}, .confirmed_us = mark};

    fact.digest.bytes[0] = mark;
    tag_memory_put(memory, &name, &fact);
}

/* 0: not known. */
static unsigned get(struct tag_memory *memory, const char *registry, const char *repository,
                    const char *tag)
{
    const struct tag_name name = {registry, repository, tag};
    struct tag_fact fact;

    if (!tag_memory_find(memory, &name, &fact))
        return 0;
    assert_int_equal(fact.confirmed_us, fact.digest.bytes[0]);
    return fact.digest.bytes[0];
}

static void names_are_apart(void **state)
{
    struct tag_memory *memory = *state;
    const struct tag_name other = {"r.test", "lib/b", "1"};

    put(memory, "r.test", "lib/a", "1", 1);
    put(memory, "r.test", "lib/a", "2", 2);
    put(memory, "s.test", "lib/a", "1", 3);
    put(memory, "r.test", "lib/b", "1", 4);
    assert_int_equal(get(memory, "r.test", "lib/a", "1"), 1);
    assert_int_equal(get(memory, "r.test", "lib/a", "2"), 2);
    assert_int_equal(get(memory, "s.test", "lib/a", "1"), 3);
    assert_int_equal(get(memory, "r.test", "lib/a1", ""), 0);
    assert_int_equal(get(memory, "r.testlib/a", "", "1"), 0);
    put(memory, "r.test", "lib/a", "1", 5);
    assert_int_equal(get(memory, "r.test", "lib/a", "1"), 5);
    tag_memory_forget(memory, &other);
    tag_memory_forget(memory, &other);
    assert_int_equal(get(memory, "r.test", "lib/b", "1"), 0);
    assert_int_equal(get(memory, "r.test", "lib/a", "1"), 5);
}

static void the_longest_unused_makes_room(void **state)
{
    struct tag_memory *memory = *state;
    char tag[16];

    for (unsigned i = 0; i < TAG_MEMORY_MAX; i++) {
        (void)snprintf(tag, sizeof tag, "%u", i);
        put(memory, "r", "a", tag, 1);
    }
    assert_int_equal(get(memory, "r", "a", "0"), 1);
    put(memory, "r", "a", "more", 1);
    assert_int_equal(get(memory, "r", "a", "0"), 1);
    assert_int_equal(get(memory, "r", "a", "1"), 0);
    assert_int_equal(get(memory, "r", "a", "2"), 1);
}

static void without_memory_it_says_so(void **state)
{
    struct tag_memory *memory;

    (void)state;
    fail_at = count + 1;
    assert_int_equal(tag_memory_new(&env, &memory), E_NO_MEMORY);
    tag_memory_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_are_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_longest_unused_makes_room, set_up, tear_down),
        cmocka_unit_test(without_memory_it_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
