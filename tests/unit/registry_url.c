/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs: what is accepted, what is refused, how a Location is resolved (RFC 3986 §5.4), and when two
 * URLs have one origin (ORG-3).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/registry/url.h"

static int parse(const char *text, struct url_parts *out)
{
    return url__parse(text, strlen(text), out);
}

static void accepted_forms_are_rebuilt(void **state)
{
    static const char *const cases[][2] = {
        {"https://registry.test", "https://registry.test/"},
        {"HTTPS://Registry.TEST/V2/", "https://registry.test/V2/"},
        {"http://registry.test:80/a?b=c", "http://registry.test/a?b=c"},
        {"http://registry.test:5000/", "http://registry.test:5000/"},
        {"https://registry.test:443?x", "https://registry.test/?x"},
        {"https://registry.test:/x", "https://registry.test/x"},
        {"https://registry.test/a#fragment?no", "https://registry.test/a"},
        {"http://127.0.0.1:65535/", "http://127.0.0.1:65535/"},
        {"http://[::1]:5000/a", "http://[::1]:5000/a"},
        {"http://[FD00::A]/a", "http://[fd00::a]/a"},
        {"https://a_b-c.d./", "https://a_b-c.d./"},
        {"https://h/a/../b%2f?q=1/../2", "https://h/a/../b%2f?q=1/../2"},
        {"https://h/a@b:c", "https://h/a@b:c"},
    };
    char out[256];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct url_parts parts;

        assert_int_equal(parse(cases[i][0], &parts), 0);
        assert_int_equal(url__build(&parts, out, sizeof out), 0);
        assert_string_equal(out, cases[i][1]);
    }
}

static void odd_forms_are_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "registry.test",
        "/v2/",
        "//registry.test/",
        "ftp://registry.test/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:/registry.test/",
        "https://",
        "https:///path",
        "https://:443/",
        "https://user@registry.test/",
        "https://user:pw@registry.test/",
        "https://registry.test@evil.test/",
        "https://registry.test\\@evil.test/",
        "https://registry.test /",
        "https://registry.test/a b",
        "https://registry.test/\t",
        "https://registry.test/a\r\nX: y",
        "https://registry.test/\x7f",
        "https://registry.test/\xc3\xa4",
        "https://registr\xc3\xa4.test/",
        "https://registry.test:0/",
        "https://registry.test:65536/",
        "https://registry.test:+80/",
        "https://registry.test:80x/",
        "https://registry.test:080808/",
        "https://.registry.test/",
        "https://registry..test/",
        "https://regis%74ry.test/",
        "https://[::1/",
        "https://[::1]x/",
        "https://[fe80::1%25eth0]/",
        "https://[registry.test]/",
        "https://[]/",
        "https://registry.test,evil.test/",
    };
    struct url_parts parts;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(parse(cases[i], &parts), E_MALFORMED);
}

static void lengths_are_bounded(void **state)
{
    char *text = malloc(URL_BYTES_MAX + 2);
    char host[300] = "https://";
    struct url_parts parts;
    char small[20];

    (void)state;
    memset(text, 'a', URL_BYTES_MAX + 1);
    memcpy(text, "https://h/", 10);
    text[URL_BYTES_MAX + 1] = '\0';
    assert_int_equal(parse(text, &parts), E_TOO_LARGE);
    text[URL_BYTES_MAX] = '\0';
    assert_int_equal(parse(text, &parts), 0);
    assert_int_equal(url__build(&parts, small, sizeof small), E_TOO_LARGE);
    assert_int_equal(parse("https://h/12345678", &parts), 0);
    assert_int_equal(url__build(&parts, small, 18), E_TOO_LARGE);
    assert_int_equal(url__build(&parts, small, 19), 0);
    memset(host + 8, 'a', 254);
    assert_int_equal(parse(host, &parts), E_MALFORMED);
    host[8 + 253] = '\0';
    assert_int_equal(parse(host, &parts), 0);
    free(text);
}

static void text_with_a_zero_inside_is_refused(void **state)
{
    static const char text[] = "https://registry.test\0.evil.test/";
    struct url_parts parts;

    (void)state;
    assert_int_equal(url__parse(text, sizeof text - 1, &parts), E_MALFORMED);
}

/* The normal and abnormal examples of RFC 3986 §5.4 that concern http. */
static void locations_are_resolved(void **state)
{
    static const char *const cases[][2] = {
        {"g", "http://a/b/c/g"},
        {"./g", "http://a/b/c/g"},
        {"g/", "http://a/b/c/g/"},
        {"/g", "http://a/g"},
        {"//g", "http://g/"},
        {"?y", "http://a/b/c/d;p?y"},
        {"g?y", "http://a/b/c/g?y"},
        {"g#s", "http://a/b/c/g"},
        {";x", "http://a/b/c/;x"},
        {".", "http://a/b/c/"},
        {"./", "http://a/b/c/"},
        {"..", "http://a/b/"},
        {"../", "http://a/b/"},
        {"../g", "http://a/b/g"},
        {"../..", "http://a/"},
        {"../../g", "http://a/g"},
        {"../../../g", "http://a/g"},
        {"../../../../g", "http://a/g"},
        {"g.", "http://a/b/c/g."},
        {"..g", "http://a/b/c/..g"},
        {"./../g", "http://a/b/g"},
        {"./g/.", "http://a/b/c/g/"},
        {"g/./h", "http://a/b/c/g/h"},
        {"g/../h", "http://a/b/c/h"},
        {"g?y/../x", "http://a/b/c/g?y/../x"},
        {"https://x:8443/y?z", "https://x:8443/y?z"},
        {"HTTP://X/y", "http://x/y"},
        {"//user-less.test:81/p", "http://user-less.test:81/p"},
    };
    static const char *const bad[] = {"",         "#only", "g h",       "mailto:a@b", "g:h",
                                      "http:g",   "//",    "///x",      "//u@h/",     "http://",
                                      "\\\\h\\x", "x\ny",  "//[::1%1]", "data:,hello"};
    struct url_parts base;
    char out[URL_BYTES_MAX + 1];

    (void)state;
    assert_int_equal(parse("http://a/b/c/d;p?q", &base), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(url__resolve(&base, cases[i][0], out, sizeof out), 0);
        assert_string_equal(out, cases[i][1]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(url__resolve(&base, bad[i], out, sizeof out), E_MALFORMED);
}

static void base_without_path(void **state)
{
    struct url_parts base;
    char out[256];

    (void)state;
    assert_int_equal(parse("https://h:1", &base), 0);
    assert_int_equal(url__resolve(&base, "x", out, sizeof out), 0);
    assert_string_equal(out, "https://h:1/x");
    assert_int_equal(url__resolve(&base, "?x", out, sizeof out), 0);
    assert_string_equal(out, "https://h:1/?x");
}

static void resolved_lengths_are_bounded(void **state)
{
    char *base_text = malloc(URL_BYTES_MAX + 1), *out = malloc(URL_BYTES_MAX + 1);
    char *location = malloc(URL_BYTES_MAX + 10);
    struct url_parts base;

    (void)state;
    memset(base_text, 'a', URL_BYTES_MAX);
    memcpy(base_text, "https://h/", 10);
    base_text[URL_BYTES_MAX - 1] = '/';
    base_text[URL_BYTES_MAX] = '\0';
    assert_int_equal(parse(base_text, &base), 0);
    assert_int_equal(url__resolve(&base, "0123456789", out, URL_BYTES_MAX + 1), E_TOO_LARGE);
    memset(location, 'b', URL_BYTES_MAX + 9);
    location[URL_BYTES_MAX + 9] = '\0';
    assert_int_equal(url__resolve(&base, location, out, URL_BYTES_MAX + 1), E_TOO_LARGE);
    location[0] = location[1] = '/';
    location[URL_BYTES_MAX] = '\0';
    assert_int_equal(url__resolve(&base, location, out, URL_BYTES_MAX + 1), E_TOO_LARGE);
    free(base_text);
    free(out);
    free(location);
}

static bool same(const char *a, const char *b)
{
    struct url_parts x, y;

    assert_int_equal(parse(a, &x), 0);
    assert_int_equal(parse(b, &y), 0);
    return url__same_origin(&x, &y);
}

/* ORG-3 */
static void origins_compare_by_scheme_host_and_port(void **state)
{
    (void)state;
    assert_true(same("https://h/a", "https://H:443/b?c"));
    assert_true(same("http://h:80/", "http://h"));
    assert_false(same("https://h/", "http://h/"));
    assert_false(same("https://h/", "https://h:444/"));
    assert_false(same("http://h:443/", "https://h/"));
    assert_false(same("https://h/", "https://h.x/"));
    assert_false(same("https://h/", "https://h./"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted_forms_are_rebuilt),
        cmocka_unit_test(odd_forms_are_refused),
        cmocka_unit_test(lengths_are_bounded),
        cmocka_unit_test(text_with_a_zero_inside_is_refused),
        cmocka_unit_test(locations_are_resolved),
        cmocka_unit_test(base_without_path),
        cmocka_unit_test(resolved_lengths_are_bounded),
        cmocka_unit_test(origins_compare_by_scheme_host_and_port),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
