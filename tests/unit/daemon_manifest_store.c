/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests in memory: what comes back, what is used last stays, and the bound (RES-1). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/manifest_store.h"
#include "bytes.h"

#define TYPE "application/vnd.oci.image.manifest.v1+json"

static struct manifest_store *store;

static int setup(void **state)
{
    (void)state;
    return manifest_store_new(&store);
}

static int teardown(void **state)
{
    (void)state;
    manifest_store_free(store);
    return 0;
}

static struct manifest_key key_in(const char *repository, const struct digest *digest)
{
    return (struct manifest_key){"registry.test", repository, digest};
}

static struct digest digest_no(uint32_t number)
{
    struct digest digest = {.algorithm = DIGEST_SHA256};
    store_be32(digest.bytes, number);
    return digest;
}

static void put(uint32_t number, const char *bytes, size_t byte_count, const char *type)
{
    struct digest digest = digest_no(number);
    struct manifest manifest = {bytes, byte_count, type};
    struct manifest_key key = key_in("lib/a", &digest);
    manifest_store_put(store, &key, &manifest);
}

static bool has(uint32_t number)
{
    struct digest digest = digest_no(number);
    struct manifest manifest;
    struct manifest_key key = key_in("lib/a", &digest);
    bool there = manifest_store_get(store, &key, &manifest);
    assert_true(manifest_store_has(store, &key) == there);
    return there;
}

static void bytes_and_type_come_back_as_they_were(void **state)
{
    (void)state;
    struct digest digest = digest_no(1);
    struct manifest_key key = key_in("lib/a", &digest);
    struct manifest manifest;
    assert_false(has(1));
    put(1, "{}", 2, TYPE);
    assert_true(manifest_store_get(store, &key, &manifest));
    assert_int_equal(manifest.byte_count, 2);
    assert_memory_equal(manifest.bytes, "{}", 2);
    assert_string_equal(manifest.media_type, TYPE);
    digest.algorithm = DIGEST_SHA512; /* the same bytes of another algorithm are another name */
    assert_false(manifest_store_get(store, &key, &manifest));
}

static void the_latest_put_of_a_digest_counts(void **state)
{
    (void)state;
    struct digest digest = digest_no(1);
    struct manifest_key key = key_in("lib/a", &digest);
    struct manifest manifest;
    put(1, "{}", 2, "a/b");
    put(1, "{}", 2, TYPE);
    assert_true(manifest_store_get(store, &key, &manifest));
    assert_string_equal(manifest.media_type, TYPE);
}

/* The same bytes go under the type that their own registry and repository gave them. */
static void types_are_kept_apart(void **state)
{
    (void)state;
    static const struct {
        const char *registry, *repository, *type;
    } places[] = {{"registry.test", "lib/a", TYPE},
                  {"registry.test", "lib/b", "a/b"},
                  {"other.test", "lib/a", "c/d"},
                  {"registry.test", "lib", "e/f"}};
    struct digest digest = digest_no(1);
    struct manifest found;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct manifest_key key = {places[i].registry, places[i].repository, &digest};
        struct manifest manifest = {"{}", 2, places[i].type};
        assert_false(manifest_store_get(store, &key, &found)); /* not another's */
        manifest_store_put(store, &key, &manifest);
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct manifest_key key = {places[i].registry, places[i].repository, &digest};
        assert_true(manifest_store_get(store, &key, &found));
        assert_string_equal(found.media_type, places[i].type);
    }
}

static void an_overlong_type_is_not_kept(void **state)
{
    (void)state;
    char type[MANIFEST_TYPE_BYTES + 1];
    memset(type, 'x', sizeof type - 1);
    type[sizeof type - 1] = '\0';
    put(1, "{}", 2, type);
    assert_false(has(1));
}

static void the_least_recently_used_makes_room(void **state)
{
    (void)state;
    enum { QUARTER = MANIFEST_STORE_BYTES_MAX / 4 };
    char *bytes = calloc(1, QUARTER);
    assert_non_null(bytes);
    for (uint32_t i = 1; i <= 3; i++)
        put(i, bytes, QUARTER, TYPE);
    assert_true(has(1)); /* used: 2 is the oldest now */
    put(4, bytes, QUARTER, TYPE);
    assert_true(has(1));
    assert_false(has(2));
    assert_true(has(3));
    assert_true(has(4));
    free(bytes);
}

static void tiny_manifests_count_with_what_they_cost(void **state)
{
    (void)state;
    enum { MANY = 300000 };
    uint32_t kept = 0;
    for (uint32_t i = 0; i < MANY; i++)
        put(i, "{}", 2, TYPE);
    for (uint32_t i = 0; i < MANY; i++)
        kept += has(i);
    assert_true(has(MANY - 1));
    assert_true(kept * (uint64_t)MANIFEST_TYPE_BYTES < MANIFEST_STORE_BYTES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes_and_type_come_back_as_they_were, setup, teardown),
        cmocka_unit_test_setup_teardown(the_latest_put_of_a_digest_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(types_are_kept_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(an_overlong_type_is_not_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(the_least_recently_used_makes_room, setup, teardown),
        cmocka_unit_test_setup_teardown(tiny_manifests_count_with_what_they_cost, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
