/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grants and links: per credentials, registry and repository (ACL-1..3), five minutes, extended
 * while a pull runs, ended by a refusal (ACL-2), stale use bounded (ACL-6), the oldest out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <stdio.h>

#include "registry_fake.h"

#define REG  "registry.test"
#define REPO "lib/bb"

struct world {
    struct fake fake;
    struct grants *grants;
    uint8_t who[32], other[32], anonymous[32];
};

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    fake_init(&world->fake, 3);
    assert_int_equal(grants_new(&world->fake.env, UINT64_MAX, &world->grants), 0);
    grants_credential_hash(world->grants, "Bearer a", world->who);
    grants_credential_hash(world->grants, "Bearer b", world->other);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;

    grants_free(world->grants);
    assert_int_equal(world->fake.allocations, 0);
    free(world);
    return 0;
}

static void put(struct world *world, uint64_t now_us)
{
    assert_int_equal(grants_put(world->grants, now_us, REG, REPO, world->who), 0);
}

static bool check(struct world *world, uint64_t now_us)
{
    return grants_check(world->grants, now_us, REG, REPO, world->who);
}

static void credential_hashes(void **state)
{
    struct world *world = *state;
    static const char *const none[] = {
        NULL, "", "  ", "Basic Og==", "basic Og==", "Basic  Og==", " Basic Og== "};
    static const char *const some[] = {
        "Basic Og", "Basic Og==x", "Bearer Og==", "Basic", "BasicOg==", "Basic YTpi"};
    uint8_t hash[32];

    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        grants_credential_hash(world->grants, none[i], hash);
        assert_memory_equal(hash, world->anonymous, 32);
    }
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        grants_credential_hash(world->grants, some[i], hash);
        assert_memory_not_equal(hash, world->anonymous, 32);
    }
    assert_memory_not_equal(world->who, world->other, 32);
    grants_credential_hash(world->grants, "Bearer a", hash);
    assert_memory_equal(hash, world->who, 32);
}

/* Another process, another key: a hash that leaks is worth nothing (ACL-2). */
static void hashes_are_keyed(void **state)
{
    struct world *world = *state;
    struct grants *grants;
    uint8_t hash[32];

    assert_int_equal(grants_new(&world->fake.env, GRANT_LIFE_US, &grants), 0);
    grants_credential_hash(grants, "Bearer a", hash);
    assert_memory_not_equal(hash, world->who, 32);
    grants_free(grants);
}

static void grant_is_for_one_triple(void **state)
{
    struct world *world = *state;

    assert_false(check(world, 0));
    put(world, 0);
    assert_true(check(world, 0));
    assert_false(grants_check(world->grants, 0, REG, REPO, world->other));
    assert_false(grants_check(world->grants, 0, REG, REPO, world->anonymous));
    assert_false(grants_check(world->grants, 0, REG, "lib/bc", world->who));
    assert_false(grants_check(world->grants, 0, "other.test", REPO, world->who));
    /* The border between the names counts. */
    assert_false(grants_check(world->grants, 0, REG "lib", "/bb", world->who));
    assert_false(grants_check(world->grants, 0, "", REG REPO, world->who));
}

static void grant_lives_five_minutes(void **state)
{
    struct world *world = *state;

    put(world, 1000);
    assert_true(check(world, 1000 + GRANT_LIFE_US - 1));
    assert_false(check(world, 1000 + GRANT_LIFE_US));
    put(world, 1000 + GRANT_LIFE_US);
    assert_true(check(world, 1000 + GRANT_LIFE_US));
}

/* As the daemon calls it (mirror__running): when a body begins, each second while it is under way,
 * and when it ends. One body may take many lives. */
static void running_pull_keeps_its_grant(void **state)
{
    struct world *world = *state;
    uint64_t now_us = 0, second_us = 1000ull * 1000;

    put(world, 0);
    for (; now_us < 3 * GRANT_LIFE_US; now_us += second_us) {
        assert_true(check(world, now_us));
        grants_extend(world->grants, now_us, REG, REPO, world->who);
    }
    assert_true(check(world, now_us - second_us + GRANT_LIFE_US - 1));
    assert_false(check(world, now_us - second_us + GRANT_LIFE_US));
    /* What has ended is not revived: beginning and end of a body are not enough. */
    grants_extend(world->grants, now_us + GRANT_LIFE_US, REG, REPO, world->who);
    assert_false(check(world, now_us + GRANT_LIFE_US));
    /* And nothing is made from nothing. */
    grants_extend(world->grants, 0, REG, REPO, world->other);
    assert_false(grants_check(world->grants, 0, REG, REPO, world->other));
}

/* ACL-5: that everybody may read ends ten minutes after the registry said so, however busy the
 * repository is; for each repository by itself; at once after a refusal. */
static void anonymous_fact_is_learnt_anew(void **state)
{
    struct world *world = *state;
    uint64_t end_us = 10ull * 60 * 1000 * 1000, now_us = 0;
    const uint8_t *all = world->anonymous;

    assert_int_equal(grants_put(world->grants, 0, REG, REPO, all), 0);
    for (; now_us < end_us; now_us += 1000ull * 1000) {
        assert_true(grants_check(world->grants, now_us, REG, REPO, all));
        assert_false(grants_check(world->grants, now_us, REG, "lib/bc", all));
        grants_extend(world->grants, now_us, REG, REPO, all);
    }
    assert_false(grants_check(world->grants, end_us, REG, REPO, all));
    grants_extend(world->grants, end_us, REG, REPO, all);
    assert_false(grants_check(world->grants, end_us, REG, REPO, all));
    /* The registry's word begins it anew; its refusal ends it, here and nowhere else. */
    assert_int_equal(grants_put(world->grants, end_us, REG, REPO, all), 0);
    assert_int_equal(grants_put(world->grants, end_us, REG, "lib/bc", all), 0);
    assert_true(grants_check(world->grants, end_us + GRANT_LIFE_US - 1, REG, REPO, all));
    grants_revoke(world->grants, REG, REPO, all);
    assert_false(grants_check(world->grants, end_us, REG, REPO, all));
    assert_false(grants_check_stale(world->grants, end_us, REG, REPO, all, GRANT_STALE_US));
    assert_true(grants_check(world->grants, end_us, REG, "lib/bc", all));
}

/* access.grants: shorter than the most, which it is cut to. */
static void a_life_may_be_shorter(void **state)
{
    struct world *world = *state;
    struct grants *grants;
    uint64_t life_us = 3ull * 1000 * 1000;

    put(world, 0); /* made with UINT64_MAX */
    assert_true(check(world, GRANT_LIFE_US - 1));
    assert_false(check(world, GRANT_LIFE_US));
    assert_int_equal(grants_new(&world->fake.env, life_us, &grants), 0);
    assert_int_equal(grants_put(grants, 0, REG, REPO, world->who), 0);
    assert_true(grants_check(grants, life_us - 1, REG, REPO, world->who));
    assert_false(grants_check(grants, life_us, REG, REPO, world->who));
    grants_extend(grants, life_us - 1, REG, REPO, world->who);
    assert_true(grants_check(grants, 2 * life_us - 2, REG, REPO, world->who));
    assert_false(grants_check(grants, 2 * life_us - 1, REG, REPO, world->who));
    grants_free(grants);
}

static void refusal_ends_it(void **state)
{
    struct world *world = *state;

    put(world, 0);
    assert_int_equal(grants_put(world->grants, 0, REG, REPO, world->other), 0);
    grants_revoke(world->grants, REG, REPO, world->who);
    grants_revoke(world->grants, REG, REPO, world->who);
    assert_false(check(world, 0));
    assert_false(grants_check_stale(world->grants, 0, REG, REPO, world->who, GRANT_STALE_US));
    grants_extend(world->grants, 0, REG, REPO, world->who);
    assert_false(check(world, 0));
    assert_true(grants_check(world->grants, 0, REG, REPO, world->other));
}

/* ACL-6: an hour after the registry last agreed, however often it was extended. */
static void stale_use_is_bounded(void **state)
{
    struct world *world = *state;
    uint64_t later = 2 * GRANT_LIFE_US;

    put(world, 0);
    assert_false(check(world, later));
    assert_true(grants_check_stale(world->grants, later, REG, REPO, world->who, GRANT_STALE_US));
    assert_false(grants_check_stale(world->grants, later, REG, REPO, world->who, later));
    assert_false(grants_check_stale(world->grants, later, REG, REPO, world->who, 0));
    assert_true(grants_check_stale(world->grants, 0, REG, REPO, world->who, 0));
    assert_false(
        grants_check_stale(world->grants, GRANT_STALE_US, REG, REPO, world->who, UINT64_MAX));
    assert_false(grants_check_stale(world->grants, 0, REG, REPO, world->other, GRANT_STALE_US));
}

static void oldest_grant_makes_room(void **state)
{
    struct world *world = *state;
    char repository[32];
    size_t after_full;

    put(world, 0);
    for (unsigned i = 0; i < 4095; i++) {
        (void)snprintf(repository, sizeof repository, "r%u", i);
        assert_int_equal(grants_put(world->grants, 0, REG, repository, world->who), 0);
    }
    assert_true(check(world, 0));
    put(world, 0); /* again: now the youngest */
    after_full = world->fake.allocations;
    assert_int_equal(grants_put(world->grants, 0, REG, "new", world->who), 0);
    assert_true(check(world, 0));
    assert_false(grants_check(world->grants, 0, REG, "r0", world->who));
    assert_true(grants_check(world->grants, 0, REG, "r1", world->who));
    assert_int_equal(world->fake.allocations, after_full);
}

static struct digest digest_number(unsigned n)
{
    struct digest digest = {.algorithm = DIGEST_SHA256};

    store_be32(digest.bytes, n);
    return digest;
}

/* ACL-3 */
static void links_are_per_repository(void **state)
{
    struct world *world = *state;
    struct digest blob = digest_number(1), same_bytes = blob;
    uint64_t size = 99;

    same_bytes.algorithm = DIGEST_SHA512;
    assert_int_equal(grants_link(world->grants, REG, REPO, &blob, 1234), 0);
    assert_true(grants_linked(world->grants, REG, REPO, &blob, &size));
    assert_int_equal(size, 1234);
    size = 99;
    assert_false(grants_linked(world->grants, REG, "lib/other", &blob, &size));
    assert_false(grants_linked(world->grants, "other.test", REPO, &blob, &size));
    assert_false(grants_linked(world->grants, REG, REPO, &same_bytes, &size));
    assert_int_equal(size, 99);
    assert_int_equal(grants_link(world->grants, REG, REPO, &blob, 77), 0);
    assert_true(grants_linked(world->grants, REG, REPO, &blob, &size));
    assert_int_equal(size, 77);
}

static void oldest_link_makes_room(void **state)
{
    struct world *world = *state;
    uint64_t size;
    struct digest first = digest_number(0), second = digest_number(1);

    for (unsigned i = 0; i < 65536; i++) {
        struct digest blob = digest_number(i);

        assert_int_equal(grants_link(world->grants, REG, REPO, &blob, i), 0);
    }
    assert_true(grants_linked(world->grants, REG, REPO, &first, &size));
    first = digest_number(65536);
    assert_int_equal(grants_link(world->grants, REG, REPO, &first, 1), 0);
    first = digest_number(0);
    assert_false(grants_linked(world->grants, REG, REPO, &first, &size));
    assert_true(grants_linked(world->grants, REG, REPO, &second, &size));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(credential_hashes),
        TEST(hashes_are_keyed),
        TEST(grant_is_for_one_triple),
        TEST(grant_lives_five_minutes),
        TEST(running_pull_keeps_its_grant),
        TEST(a_life_may_be_shorter),
        TEST(anonymous_fact_is_learnt_anew),
        TEST(refusal_ends_it),
        TEST(stale_use_is_bounded),
        TEST(oldest_grant_makes_room),
        TEST(links_are_per_repository),
        TEST(oldest_link_makes_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
