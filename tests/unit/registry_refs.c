/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/registry/refs.c: the OCI grammar of names and tags, and hosts (ORG-1, ORG-8). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <regex.h>
#include <string.h>

#include "registry.h"

static const char *const repositories[] = {
    "a",   "0",     "library/busybox", "a/b/c/d/e",    "a.b", "a_b",    "a__b",
    "a-b", "a---b", "a-----------b",   "a.b_c__d-e/f", "0/1", "lib/bb", "x86-64/img.v2",
};
static const char *const not_repositories[] = {
    "",      "/",      "a/",       "/a",  "a//b", "A",     "a/B",  "-a",   "a-",
    ".a",    "a.",     "_a",       "a_",  "a..b", "a___b", "a._b", "a-.b", "a_-b",
    "a/./b", "a/../b", "..",       ".",   "a b",  "a%2fb", "a\\b", "a:b",  "a@b",
    "a/-b",  "a/b-/c", "\xc3\xa9", "a\n", "a+b",  "a__",   "a/_b", "a._",  "a~b",
};

static void test_repositories_org8(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof repositories / sizeof repositories[0]; i++) {
        if (!ref_repository_valid(repositories[i], strlen(repositories[i])))
            fail_msg("refused \"%s\"", repositories[i]);
    }
    for (size_t i = 0; i < sizeof not_repositories / sizeof not_repositories[0]; i++) {
        if (ref_repository_valid(not_repositories[i], strlen(not_repositories[i])))
            fail_msg("accepted \"%s\"", not_repositories[i]);
    }
    assert_false(ref_repository_valid("a\0b", 3));
    assert_true(ref_repository_valid("a_", 1)); /* the length counts, not what follows */
}

static void test_repository_length_org8(void **state)
{
    (void)state;
    char text[REPOSITORY_BYTES_MAX + 1];
    memset(text, 'a', sizeof text);
    assert_true(ref_repository_valid(text, REPOSITORY_BYTES_MAX));
    assert_false(ref_repository_valid(text, REPOSITORY_BYTES_MAX + 1));
}

static void test_tags_org8(void **state)
{
    (void)state;
    static const char *const good[] = {"latest", "1",    "_",   "v1.2.3-rc.1_x",
                                       "A",      "a..b", "a--", "Z9"};
    static const char *const bad[] = {"",    ".a",       "-a",  "a/b",  "a b", "a:b", "a@b",
                                      "a+b", "\xc3\xa9", "a\n", "a%41", "..",  "a~"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(ref_tag_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (ref_tag_valid(bad[i], strlen(bad[i])))
            fail_msg("accepted \"%s\"", bad[i]);
    }
    char text[TAG_BYTES_MAX + 1];
    memset(text, 'a', sizeof text);
    assert_true(ref_tag_valid(text, TAG_BYTES_MAX));
    assert_false(ref_tag_valid(text, TAG_BYTES_MAX + 1));
    assert_false(ref_tag_valid("a\0b", 3));
}

static const char *const hosts[] = {
    "docker.io",
    "registry.test:5000",
    "localhost",
    "localhost:1",
    "10.0.0.1",
    "10.0.0.1:65535",
    "[::1]",
    "[fd00::1]:5000",
    "[::ffff:10.0.0.1]:80",
    "a-b.c-d",
    "xn--bcher-kva.example",
    "0.a",
    "registry-vpc.cn-hangzhou.aliyuncs.com",
};
static const char *const not_hosts[] = {
    "",          ":",
    ":5000",     "a:",
    "a:0",       "a:65536",
    "a:05000",   "a:+80",
    "a:123456",  "a:8x",
    "a:80:80",   "A",
    "Docker.io", "a.",
    ".a",        "a..b",
    "-a",        "a-",
    "a.-b",      "a-.b",
    "a_b",       "user@a",
    "a/b",       "a?b",
    "a#b",       "a b",
    "http://a",  "[::1",
    "::1",       "[]",
    "[::1]x",    "[::1]:",
    "[::1]:0",   "[10.0.0.1]",
    "[FD00::1]", "[fe80::1%eth0]",
    "[:::1]",    "[1]",
    "a\n",       "%61",
    "\xc3\xa9",  "a]",
    "[::1]]",    "[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb]",
};

static void test_hosts_org1(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        if (!ref_host_valid(hosts[i], strlen(hosts[i])))
            fail_msg("refused \"%s\"", hosts[i]);
    }
    for (size_t i = 0; i < sizeof not_hosts / sizeof not_hosts[0]; i++) {
        if (ref_host_valid(not_hosts[i], strlen(not_hosts[i])))
            fail_msg("accepted \"%s\"", not_hosts[i]);
    }
    assert_false(ref_host_valid("a\0b", 3));
}

static void test_host_lengths(void **state)
{
    (void)state;
    char text[300];
    memset(text, 'a', sizeof text);
    assert_true(ref_host_valid(text, 63));
    assert_false(ref_host_valid(text, 64));
    for (size_t i = 63; i < sizeof text; i += 64)
        text[i] = '.';
    assert_true(ref_host_valid(text, 253));
    assert_false(ref_host_valid(text, 254));
    assert_false(ref_host_valid(text, HOST_BYTES_MAX + 1));
    memcpy(text + 253, ":65535", 6);
    assert_true(ref_host_valid(text, 259));
}

/* The specification gives the grammar as a regular expression: the two must agree on every short
 * string over an alphabet of its interesting bytes. */
static void compare_with_regex(const char *pattern, bool (*valid)(const char *, size_t))
{
    static const char alphabet[] = "a0A._-/:";
    enum { LETTERS = sizeof alphabet - 1, LENGTH_MAX = 6 };
    regex_t regex;
    unsigned good = 0;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    for (unsigned length = 1, strings = LETTERS; length <= LENGTH_MAX;
         length++, strings *= LETTERS) {
        for (unsigned number = 0; number < strings; number++) {
            char text[LENGTH_MAX + 1] = "";
            unsigned rest = number;
            for (unsigned i = 0; i < length; i++, rest /= LETTERS)
                text[i] = alphabet[rest % LETTERS];
            bool expected = regexec(&regex, text, 0, NULL, 0) == 0;
            if (valid(text, length) != expected)
                fail_msg("\"%s\" should be %s", text, expected ? "valid" : "refused");
            good += expected;
        }
    }
    regfree(&regex);
    assert_true(good > 1000);
}

static void test_grammar_equals_the_specification_org8(void **state)
{
    (void)state;
    compare_with_regex("^[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*$",
                       ref_repository_valid);
    compare_with_regex("^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$", ref_tag_valid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repositories_org8),
        cmocka_unit_test(test_repository_length_org8),
        cmocka_unit_test(test_tags_org8),
        cmocka_unit_test(test_hosts_org1),
        cmocka_unit_test(test_host_lengths),
        cmocka_unit_test(test_grammar_equals_the_specification_org8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
