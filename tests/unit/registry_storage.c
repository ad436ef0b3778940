/* SPDX-License-Identifier: Apache-2.0 */
/* URLs that clients hand over: whose storage they lie in, which blob they name; anything that could
 * lead elsewhere is nobody's (ORG-1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "registry.h"

#define HEX   "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define PLACE "https://bucket.oss.test/docker/registry/v2/blobs/"
#define OTHER "http://127.0.0.1:9000/"

static struct registry_entry entries[] = {
    {.name = "plain.test", .endpoint = "https://plain.test"},
    {.name = "a.test", .endpoint = "https://a.test", .storage = {PLACE, OTHER}},
};

static void *test_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes > 0)
        return realloc(old, new_bytes);
    free(old);
    return NULL;
}

static const struct registry_entry *owner(const char *url)
{
    struct env env = {.alloc = test_alloc};
    struct registries configured = {.entries = entries, .entry_count = 2};
    struct registry_table *table;
    const struct registry_entry *out = NULL;

    assert_int_equal(registry_table_new(&env, &configured, &table), 0);
    int err = registry_table_storage(table, url, &out);
    assert_int_equal(err, out == NULL ? E_NOT_FOUND : 0);
    registry_entry_put(out);
    registry_table_free(table);
    return out;
}

static void urls_have_an_owner_or_none_org1(void **state)
{
    (void)state;
    static const char *const ours[] = {
        PLACE "sha256/2c/" HEX "/data?Expires=1&Signature=x",
        PLACE "anything?a=../b",
        PLACE "...",
        PLACE "a%2fb..%2f...%2e/%2",
        PLACE,
        OTHER "b",
    };
    static const char *const not_ours[] = {
        "https://bucket.oss.test/docker/registry/v2/blobs",
        "https://bucket.oss.test/docker/registry/v2/other/sha256/2c/" HEX "/data",
        "http://bucket.oss.test/docker/registry/v2/blobs/x",
        "https://bucket.oss.test.evil/docker/registry/v2/blobs/x",
        "https://bucket.oss.test:444/docker/registry/v2/blobs/x",
        "https://bucket.oss.test:443/docker/registry/v2/blobs/x",
        "https://evil.test/?" PLACE "x",
        PLACE "../other/x",
        PLACE "a/../../x",
        PLACE "%2e%2E/x",
        PLACE ".%2e",
        PLACE "./x",
        PLACE "a/.?b",
        PLACE "..%2fother/x",
        PLACE "a%2F..%2f%2e%2E/x",
        PLACE "a%5c..%5Cx",
        PLACE "%2f.?a",
        "http://127.0.0.1:90000/",
        "http://127.0.0.1:900/",
        "https://plain.test/x",
        "",
    };
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        assert_ptr_equal(owner(ours[i]), &entries[1]);
    for (size_t i = 0; i < sizeof not_ours / sizeof not_ours[0]; i++) {
        if (owner(not_ours[i]) != NULL)
            fail_msg("\"%s\" is let in", not_ours[i]);
    }
}

/* ---- off the mesh (ACL-10) ---- */

static struct registry_entry instance[] = {
    {.name = "i-vpc.test", .endpoint = "https://i-vpc.test", .storage = {PLACE}, .p2p = true},
    {.name = "i.test", .endpoint = "https://i-vpc.test", .storage = {PLACE}, .p2p = true},
};

static const struct registry_entry *find_more(const void *arg, const char *url,
                                              const struct registry_entry *after)
{
    (void)arg;
    if (strncmp(url, PLACE, strlen(PLACE)) != 0 || after == &instance[1])
        return NULL;
    return after == NULL ? &instance[0] : &instance[1];
}

static void expect_owner(struct registry_entry *own, unsigned own_count,
                         const struct registry_entry *wanted)
{
    struct env env = {.alloc = test_alloc};
    struct registries configured = {
        .entries = own, .entry_count = own_count, .more_storage = find_more};
    struct registry_table *table;
    const struct registry_entry *out = NULL;

    assert_int_equal(registry_table_new(&env, &configured, &table), 0);
    assert_int_equal(registry_table_storage(table, PLACE "x", &out), 0);
    assert_ptr_equal(out, wanted);
    registry_entry_put(out);
    registry_table_free(table);
}

/* An entry in place of one of an instance's names cannot name its bucket's place, but what it says
 * of the mesh holds there; of two entries with one place the stricter one decides. */
static void storage_is_off_the_mesh_if_any_of_its_names_is_acl10(void **state)
{
    struct registry_entry own = {.name = "i.test", .p2p = true};
    struct registry_entry two[] = {{.name = "a.test", .storage = {PLACE}, .p2p = true},
                                   {.name = "b.test", .storage = {PLACE}, .p2p = true}};

    (void)state;
    expect_owner(&own, 0, &instance[0]);
    expect_owner(&own, 1, &instance[0]);
    own.p2p = false;
    expect_owner(&own, 1, &own);
    own.p2p = true;
    own.p2p_rules[0] = (struct registry_p2p_rule){.pattern = "secret/*"};
    own.p2p_rule_count = 1;
    expect_owner(&own, 1, &own);
    expect_owner(two, 2, &two[0]);
    two[1].p2p = false;
    expect_owner(two, 2, &two[1]);
}

static void digests_are_read_from_the_path(void **state)
{
    (void)state;
    static const char *const good[] = {
        PLACE "sha256/2c/" HEX "/data",
        PLACE "sha256/2c/" HEX "/data?Signature=x/y",
        OTHER "sha256/2c/" HEX "/data",
    };
    static const char *const bad[] = {
        PLACE "sha256/2d/" HEX "/data",
        PLACE "sha256/2c/" HEX "/data/",
        PLACE "sha256/2c/" HEX "/datax",
        PLACE "sha256/2c/" HEX "/data%3F",
        PLACE "sha256/2c/" HEX "0/data",
        PLACE "sha256/2c/2cf2/data",
        PLACE "sha256/2c/2CF24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824/data",
        PLACE "sha256//" HEX "/data",
        PLACE "sha256/" HEX "/data",
        PLACE "x/sha256/2c/" HEX "/data",
        PLACE "sha512/2c/" HEX "/data",
        PLACE "sha1/2c/" HEX "/data",
        PLACE "?sha256/2c/" HEX "/data",
        PLACE,
        "https://evil.test/sha256/2c/" HEX "/data",
        "https://evil.test/docker/registry/v2/blobs/sha256/2c/" HEX "/data",
    };
    struct digest digest, wanted;

    assert_int_equal(digest_parse("sha256:" HEX, 71, &wanted), 0);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(registry_storage_digest(&entries[1], good[i], &digest));
        assert_true(digest_equal(&digest, &wanted));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (registry_storage_digest(&entries[1], bad[i], &digest))
            fail_msg("\"%s\" is taken for a blob", bad[i]);
    }
}

static void places_are_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "/",
        "bucket.test/",
        "ftp://bucket.test/",
        "https:///",
        "https://bucket.test",
        "https://bucket.test/a",
        "https://Bucket.test/",
        "https://u@bucket.test/",
        "https://bucket.test/a?b/",
        "https://bucket.test/#/",
        "https://bucket.test/a b/",
        "https://bucket.test/../",
        "https://bucket.test/%2e/",
        "https://bucket.test\\x/",
        "https://*.test/",
    };
    char longest[REGISTRY_STORAGE_BYTES_MAX + 2] = "https://bucket.test/";

    assert_true(registry_storage_valid(PLACE));
    assert_true(registry_storage_valid(OTHER));
    assert_true(registry_storage_valid("https://bucket.test:8443/a//b/"));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (registry_storage_valid(bad[i]))
            fail_msg("\"%s\" is valid", bad[i]);
    }
    memset(longest + strlen(longest), 'a', REGISTRY_STORAGE_BYTES_MAX - strlen(longest));
    longest[REGISTRY_STORAGE_BYTES_MAX - 1] = '/';
    longest[REGISTRY_STORAGE_BYTES_MAX] = '\0';
    assert_true(registry_storage_valid(longest));
    longest[REGISTRY_STORAGE_BYTES_MAX - 1] = 'a';
    longest[REGISTRY_STORAGE_BYTES_MAX] = '/';
    longest[REGISTRY_STORAGE_BYTES_MAX + 1] = '\0';
    assert_false(registry_storage_valid(longest));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_have_an_owner_or_none_org1),
        cmocka_unit_test(storage_is_off_the_mesh_if_any_of_its_names_is_acl10),
        cmocka_unit_test(digests_are_read_from_the_path),
        cmocka_unit_test(places_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
