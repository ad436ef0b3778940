/* SPDX-License-Identifier: Apache-2.0 */
/* Platforms of an index: what is one, which child fits, what people are told of the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "limits.h"
#include "registry.h"

#define HEX "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define CHILD(byte, platform)                                                                      \
    "{\"digest\":\"sha256:" HEX byte "\",\"size\":1" byte ",\"platform\":" platform "}"
#define INDEX(children) "{\"schemaVersion\":2,\"manifests\":[" children "]}"
#define AMD64           CHILD("01", "{\"os\":\"linux\",\"architecture\":\"amd64\"}")
#define ARMV6           CHILD("02", "{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v6\"}")
#define ARMV7           CHILD("03", "{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v7\"}")
#define ATTEST          CHILD("04", "{\"os\":\"unknown\",\"architecture\":\"unknown\"}")

static const char several[] = INDEX(AMD64 "," ARMV6 "," ARMV7 "," ATTEST);

static struct manifest_descriptor out[4];
static size_t count;

static int choose(const char *json, const char *platform)
{
    struct platform wanted;
    count = 99;
    if (platform == NULL)
        return index_choose(json, strlen(json), NULL, out, 4, &count);
    assert_int_equal(platform_parse(platform, &wanted), 0);
    return index_choose(json, strlen(json), &wanted, out, 4, &count);
}

static void names_of_platforms(void **state)
{
    static const char *const bad[] = {"",
                                      "linux",
                                      "linux/",
                                      "/amd64",
                                      "linux//v7",
                                      "a/b/c/d",
                                      "linux/a b",
                                      "a/b/",
                                      "a/b\n",
                                      "a/\xc3\xa9",
                                      "linux/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    struct platform platform;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (platform_parse(bad[i], &platform) != E_MALFORMED)
            fail_msg("%s", bad[i]);
    assert_int_equal(platform_parse("linux/arm/v7", &platform), 0);
    assert_string_equal(platform.os, "linux");
    assert_string_equal(platform.architecture, "arm");
    assert_string_equal(platform.variant, "v7");
    assert_int_equal(platform_parse("windows/amd64", &platform), 0);
    assert_string_equal(platform.variant, "");
}

static void the_first_that_fits(void **state)
{
    (void)state;
    assert_int_equal(choose(several, "linux/amd64"), 0);
    assert_int_equal(count, 1);
    assert_int_equal(out[0].digest.bytes[31], 0x01);
    assert_true(out[0].is_manifest && out[0].size_bytes == 101);
    assert_int_equal(choose(several, "linux/arm"), 0);
    assert_int_equal(out[0].digest.bytes[31], 0x02);
    assert_int_equal(choose(several, "linux/arm/v7"), 0);
    assert_int_equal(out[0].digest.bytes[31], 0x03);
    assert_int_equal(choose(several, "linux/arm/v5"), E_NOT_FOUND);
    assert_int_equal(choose(several, "windows/amd64"), E_NOT_FOUND);
}

static void all_of_them_without_attestations(void **state)
{
    (void)state;
    assert_int_equal(choose(several, NULL), 0);
    assert_int_equal(count, 3);
    assert_int_equal(index_choose(several, strlen(several), NULL, out, 2, &count), E_TOO_LARGE);
    assert_int_equal(choose(INDEX("{\"digest\":\"sha256:" HEX "09\",\"size\":1}"), NULL), 0);
    assert_int_equal(count, 1); /* no platform is any */
    assert_int_equal(choose(INDEX(""), NULL), E_NOT_FOUND);
}

static void what_is_no_index(void **state)
{
    (void)state;
    assert_int_equal(choose("{\"schemaVersion\":2,\"config\":{}}", NULL), E_UNSUPPORTED);
    assert_int_equal(choose("{\"manifests\":{}}", NULL), E_UNSUPPORTED);
    assert_int_equal(choose("{", NULL), E_MALFORMED);
    assert_int_equal(choose(INDEX("7"), NULL), E_MALFORMED);
    assert_int_equal(choose(INDEX("{\"digest\":\"sha256:00\",\"size\":1}"), NULL), E_MALFORMED);
    assert_int_equal(choose(INDEX("{\"digest\":\"sha256:" HEX "09\",\"size\":-1}"), NULL),
                     E_MALFORMED);
    assert_int_equal(index_choose("{}", MANIFEST_BYTES_MAX + 1, NULL, out, 4, &count), E_TOO_LARGE);
}

static void platforms_for_people(void **state)
{
    char text[64];
    (void)state;
    index_platforms(several, strlen(several), text, sizeof text);
    assert_string_equal(text, "linux/amd64, linux/arm/v6, linux/arm/v7");
    index_platforms(several, strlen(several), text, 26);
    assert_string_equal(text, "linux/amd64, linux/arm/v6");
    index_platforms(several, strlen(several), text, 25);
    assert_string_equal(text, "linux/amd64");
    index_platforms("x", 1, text, sizeof text);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_platforms),
        cmocka_unit_test(the_first_that_fits),
        cmocka_unit_test(all_of_them_without_attestations),
        cmocka_unit_test(what_is_no_index),
        cmocka_unit_test(platforms_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
