/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/http/route.c: endpoints (DESIGN §6), names and traversal (HTTP-3, ORG-8, ORG-1). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "digest.h"
#include "http.h"

#define HEX_256    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define DIGEST_256 "sha256:" HEX_256
#define DIGEST_512                                                                                 \
    "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"                      \
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
#define A16  "aaaaaaaaaaaaaaaa"
#define A128 A16 A16 A16 A16 A16 A16 A16 A16
#define A255 A128 A16 A16 A16 A16 A16 A16 A16 "aaaaaaaaaaaaaaa"

struct good_row {
    const char *target;
    enum http_route_kind kind;
    const char *repository, *reference, *ns, *query;
};

static const struct good_row good[] = {
    {"/v2/", HTTP_ROUTE_BASE, "", "", "", ""},
    {"/v2", HTTP_ROUTE_BASE, "", "", "", ""},
    {"/v2/?ns=docker.io", HTTP_ROUTE_BASE, "", "", "docker.io", ""},
    {"/%76%32/", HTTP_ROUTE_BASE, "", "", "", ""},
    {"/v2/lib/bb/manifests/1", HTTP_ROUTE_MANIFEST, "lib/bb", "1", "", ""},
    {"/v2/lib/bb/manifests/1?ns=registry.test%3A5000", HTTP_ROUTE_MANIFEST, "lib/bb", "1",
     "registry.test:5000", ""},
    {"/v2/lib/bb/manifests/1?ns=registry.test:5000", HTTP_ROUTE_MANIFEST, "lib/bb", "1",
     "registry.test:5000", ""},
    {"/v2/lib/bb/manifests/1?ns=Registry.TEST", HTTP_ROUTE_MANIFEST, "lib/bb", "1", "registry.test",
     ""},
    {"/v2/a/manifests/1?ns=%5B%3a%3A1%5d:80", HTTP_ROUTE_MANIFEST, "a", "1", "[::1]:80", ""},
    {"/v2/a/manifests/1?ns=", HTTP_ROUTE_MANIFEST, "a", "1", "", ""},
    {"/v2/a/manifests/1?", HTTP_ROUTE_MANIFEST, "a", "1", "", ""},
    {"/v2/a/manifests/" DIGEST_256, HTTP_ROUTE_MANIFEST, "a", DIGEST_256, "", ""},
    {"/v2/a/manifests/sha256%3A" HEX_256, HTTP_ROUTE_MANIFEST, "a", DIGEST_256, "", ""},
    {"/v2/a/manifests/" DIGEST_512, HTTP_ROUTE_MANIFEST, "a", DIGEST_512, "", ""},
    {"/v2/a/manifests/_v1.2-rc", HTTP_ROUTE_MANIFEST, "a", "_v1.2-rc", "", ""},
    {"/v2/a/manifests/" A128, HTTP_ROUTE_MANIFEST, "a", A128, "", ""},
    {"/v2/" A255 "/manifests/1", HTTP_ROUTE_MANIFEST, A255, "1", "", ""},
    {"/v2/manifests/manifests/manifests", HTTP_ROUTE_MANIFEST, "manifests", "manifests", "", ""},
    {"/v2/a/manifests/b/blobs/" DIGEST_256, HTTP_ROUTE_BLOB, "a/manifests/b", DIGEST_256, "", ""},
    {"/v2/tags/list/tags/list", HTTP_ROUTE_TAGS, "tags/list", "", "", ""},
    {"/v2/lib/bb/blobs/" DIGEST_256 "?ns=a", HTTP_ROUTE_BLOB, "lib/bb", DIGEST_256, "a", ""},
    {"/v2/%6cib/b%62/blobs/" DIGEST_512, HTTP_ROUTE_BLOB, "lib/bb", DIGEST_512, "", ""},
    {"/v2/a/referrers/" DIGEST_256 "?artifactType=a%2Fb&ns=x.y&n=1", HTTP_ROUTE_REFERRERS, "a",
     DIGEST_256, "x.y", "artifactType=a%2Fb&n=1"},
    {"/v2/a/tags/list?n=10&last=b", HTTP_ROUTE_TAGS, "a", "", "", "n=10&last=b"},
    {"/v2/a/tags/list?ns=x&n=10&last=b", HTTP_ROUTE_TAGS, "a", "", "x", "n=10&last=b"},
    {"/v2/a/tags/list?n=10&last=b&ns=x", HTTP_ROUTE_TAGS, "a", "", "x", "n=10&last=b"},
    {"/v2/a/tags/list?&&n=1&&", HTTP_ROUTE_TAGS, "a", "", "", "n=1"},
    {"/v2/a/tags/list?nsx=1&xns=2&ns&NS=3", HTTP_ROUTE_TAGS, "a", "", "", "nsx=1&xns=2&ns&NS=3"},
    {"/v2/a/tags/list?a=b?c=/d//../e", HTTP_ROUTE_TAGS, "a", "", "", "a=b?c=/d//../e"},
    {"/healthz", HTTP_ROUTE_HEALTH, "", "", "", ""},
    {"/healthz?verbose", HTTP_ROUTE_HEALTH, "", "", "", "verbose"},
    /* nothing of ours: 404 */
    {"/", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/favicon.ico", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v1/_ping", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v2x/", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/V2/", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/healthz/", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/healthzz", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/metrics", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/accelerator", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v2/a", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v2/_catalog", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v2/a/b", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v2/manifests/a", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v2/tags/list", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v2/a/tags/lists", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v2/a/Manifests/1", HTTP_ROUTE_NONE, "", "", "", ""},
    {"/v2/a/blobs/uploads/1-2", HTTP_ROUTE_NONE, "", "", "", ""},
    {"", HTTP_ROUTE_NONE, "", "", "", ""},
};

struct bad_row {
    const char *target, *oci_code;
};

static const struct bad_row bad[] = {
    /* traversal and odd slashes (HTTP-3) */
    {"/v2/../v2/", "NAME_INVALID"},
    {"/..", "NAME_INVALID"},
    {"/.", "NAME_INVALID"},
    {"/v2/./", "NAME_INVALID"},
    {"/v2/a/../b/manifests/1", "NAME_INVALID"},
    {"/v2/a/%2e%2e/b/manifests/1", "NAME_INVALID"},
    {"/v2/a/.%2E/b/manifests/1", "NAME_INVALID"},
    {"/v2/%2e/manifests/1", "NAME_INVALID"},
    {"/v2/a/manifests/..", "NAME_INVALID"},
    {"/v2/a/manifests/.", "NAME_INVALID"},
    {"//v2/", "NAME_INVALID"},
    {"/v2//", "NAME_INVALID"},
    {"//", "NAME_INVALID"},
    {"/v2//a/manifests/1", "NAME_INVALID"},
    {"/v2/a//manifests/1", "NAME_INVALID"},
    {"/v2/a/manifests//1", "NAME_INVALID"},
    {"/v2/a/manifests/", "NAME_INVALID"},
    {"/v2/a/manifests/1/", "NAME_INVALID"},
    {"/v2/a/tags/list/", "NAME_INVALID"},
    {"/v2/a/blobs/uploads/", "NAME_INVALID"},
    {"/v2/a%2fb/manifests/1", "NAME_INVALID"},
    {"/v2/a%2Fb/manifests/1", "NAME_INVALID"},
    {"/v2%2fa/manifests/1", "NAME_INVALID"},
    {"/v2/a%5cb/manifests/1", "NAME_INVALID"},
    {"/v2/a\\b/manifests/1", "NAME_INVALID"},
    {"v2/", "NAME_INVALID"},
    {"http://a/v2/", "NAME_INVALID"},
    {"*", "NAME_INVALID"},
    /* escapes: decoded once, and only whole ones */
    {"/v2/a%252fb/manifests/1", "NAME_INVALID"},
    {"/v2/a%252e%252e/manifests/1", "NAME_INVALID"},
    {"/v2/a%/manifests/1", "NAME_INVALID"},
    {"/v2/a%4/manifests/1", "NAME_INVALID"},
    {"/v2/a%zz/manifests/1", "NAME_INVALID"},
    {"/v2/a%4g/manifests/1", "NAME_INVALID"},
    {"/v2/a/manifests/1%", "NAME_INVALID"},
    {"/v2/a/manifests/1%4", "NAME_INVALID"},
    {"/v2/a%00/manifests/1", "NAME_INVALID"},
    {"/v2/a/manifests/1%00", "NAME_INVALID"},
    {"/v2/a%0d%0aX:b/manifests/1", "NAME_INVALID"},
    {"/v2/a%20b/manifests/1", "NAME_INVALID"},
    {"/v2/a%7f/manifests/1", "NAME_INVALID"},
    {"/v2/%c3%a9/manifests/1", "NAME_INVALID"},
    {"/v2/a b/manifests/1", "NAME_INVALID"},
    {"/v2/\xc3\xa9/manifests/1", "NAME_INVALID"},
    {"/%ff", "NAME_INVALID"},
    /* names (ORG-8) */
    {"/v2/A/manifests/1", "NAME_INVALID"},
    {"/v2/lib/Bb/manifests/1", "NAME_INVALID"},
    {"/v2/a..b/manifests/1", "NAME_INVALID"},
    {"/v2/-a/manifests/1", "NAME_INVALID"},
    {"/v2/a-/manifests/1", "NAME_INVALID"},
    {"/v2/a___b/manifests/1", "NAME_INVALID"},
    {"/v2/a:b/manifests/1", "NAME_INVALID"},
    {"/v2/a@b/manifests/1", "NAME_INVALID"},
    {"/v2/a%3fb/manifests/1", "NAME_INVALID"},
    {"/v2/_a/tags/list", "NAME_INVALID"},
    {"/v2/A/blobs/" DIGEST_256, "NAME_INVALID"},
    {"/v2/A/referrers/" DIGEST_256, "NAME_INVALID"},
    {"/v2/a" A255 "/manifests/1", "NAME_INVALID"},
    {"/v2/A/blobs/sha256:x", "NAME_INVALID"}, /* the name is judged first */
    /* digests (ORG-8) */
    {"/v2/a/blobs/1", "DIGEST_INVALID"},
    {"/v2/a/blobs/uploads", "DIGEST_INVALID"},
    {"/v2/a/blobs/sha256:", "DIGEST_INVALID"},
    {"/v2/a/blobs/sha256:" HEX_256 "0", "DIGEST_INVALID"},
    {"/v2/a/blobs/sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
     "DIGEST_INVALID"},
    {"/v2/a/blobs/sha384:" HEX_256, "DIGEST_INVALID"},
    {"/v2/a/blobs/" HEX_256, "DIGEST_INVALID"},
    {"/v2/a/blobs/SHA256:" HEX_256, "DIGEST_INVALID"},
    {"/v2/a/referrers/latest", "DIGEST_INVALID"},
    {"/v2/a/manifests/sha256:ab", "DIGEST_INVALID"},
    {"/v2/a/manifests/latest:1", "DIGEST_INVALID"},
    {"/v2/a/manifests/:", "DIGEST_INVALID"},
    {"/v2/a/manifests/latest@" DIGEST_256, "DIGEST_INVALID"},
    /* tags (ORG-8) */
    {"/v2/a/manifests/..a", "MANIFEST_INVALID"},
    {"/v2/a/manifests/.a", "MANIFEST_INVALID"},
    {"/v2/a/manifests/-a", "MANIFEST_INVALID"},
    {"/v2/a/manifests/a+b", "MANIFEST_INVALID"},
    {"/v2/a/manifests/a%25", "MANIFEST_INVALID"},
    {"/v2/a/manifests/a" A128, "MANIFEST_INVALID"},
    /* upstreams (ORG-1) */
    {"/v2/?ns=a/b", "NAME_INVALID"},
    {"/v2/?ns=http%3A%2F%2Fa", "NAME_INVALID"},
    {"/v2/?ns=a%2fb", "NAME_INVALID"},
    {"/v2/?ns=u@a", "NAME_INVALID"},
    {"/v2/?ns=a:0", "NAME_INVALID"},
    {"/v2/?ns=a:99999", "NAME_INVALID"},
    {"/v2/?ns=a..b", "NAME_INVALID"},
    {"/v2/?ns=a%00b", "NAME_INVALID"},
    {"/v2/?ns=a%0d%0ab", "NAME_INVALID"},
    {"/v2/?ns=a%", "NAME_INVALID"},
    {"/v2/?ns=a+b", "NAME_INVALID"},
    {"/v2/?ns=a%253A80", "NAME_INVALID"},
    {"/v2/?ns=a&ns=b", "NAME_INVALID"},
    {"/v2/?ns=a&ns=a", "NAME_INVALID"},
    {"/v2/?ns=&ns=a", "NAME_INVALID"},
    {"/v2/?ns=a=b", "NAME_INVALID"},
    {"/v2/?ns=" A255 A16, "NAME_INVALID"},
    {"/acceleratorx/http://a/", "NAME_INVALID"},
    /* accelerated URLs */
    {"/accelerator/", "UNSUPPORTED"},
    {"/accelerator/a", "UNSUPPORTED"},
    {"/accelerator/http:/a/b", "UNSUPPORTED"},
    {"/accelerator/http://", "UNSUPPORTED"},
    {"/accelerator/http:///b", "UNSUPPORTED"},
    {"/accelerator/https://?a", "UNSUPPORTED"},
    {"/accelerator//https://a/b", "UNSUPPORTED"},
    {"/accelerator/https%3A%2F%2Fa/b", "UNSUPPORTED"},
    {"/accelerator/HTTPS://a/b", "UNSUPPORTED"},
    {"/accelerator/ftp://a/b", "UNSUPPORTED"},
    {"/accelerator/file:///etc/passwd", "UNSUPPORTED"},
    {"/accelerator/https://u:p@a/b", "UNSUPPORTED"},
    {"/accelerator/https://a:0/b", "UNSUPPORTED"},
    {"/accelerator/https://a:99999/b", "UNSUPPORTED"},
    {"/accelerator/https://A.example/b", "UNSUPPORTED"},
    {"/accelerator/https://a%2eb/", "UNSUPPORTED"},
    {"/accelerator/https://a#b", "UNSUPPORTED"},
    {"/accelerator/https://a/b#c", "UNSUPPORTED"},
    {"/accelerator/https://a\\b/", "UNSUPPORTED"},
    {"/accelerator/https://a/b\\c", "UNSUPPORTED"},
    {"/accelerator/https://a/b c", "UNSUPPORTED"},
    {"/accelerator/https://a/\x7f", "UNSUPPORTED"},
    {"/accelerator/https://a/\xc3\xa9", "UNSUPPORTED"},
    {"/accelerator/https://a/../b", "UNSUPPORTED"},
    {"/accelerator/https://a/.", "UNSUPPORTED"},
    {"/accelerator/https://a/b/..?c", "UNSUPPORTED"},
    {"/accelerator/https://a/b/%2e%2E/c", "UNSUPPORTED"},
    {"/accelerator/https://a/b/.%2e", "UNSUPPORTED"},
};

static struct http_route route;

static void test_endpoints(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        const struct good_row *row = &good[i];
        const char *oci_code = "untouched";
        memset(&route, 0xee, sizeof route);
        if (http_route_parse(row->target, &route, &oci_code) != 0)
            fail_msg("\"%s\": refused with %s", row->target, oci_code);
        if (route.kind != row->kind)
            fail_msg("\"%s\": kind %d", row->target, (int)route.kind);
        assert_string_equal(oci_code, "untouched");
        assert_string_equal(route.repository, row->repository);
        assert_string_equal(route.reference, row->reference);
        assert_string_equal(route.ns, row->ns);
        assert_string_equal(route.query, row->query);
        assert_string_equal(route.url, "");
        assert_int_equal(route.by_digest, strchr(row->reference, ':') != NULL);
        if (route.by_digest) {
            char text[DIGEST_TEXT_BYTES];
            assert_string_equal(digest_text(&route.digest, text), row->reference);
        }
    }
}

static void test_refused_targets_http3_org8(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *oci_code = "none";
        memset(&route, 0xee, sizeof route);
        int err = http_route_parse(bad[i].target, &route, &oci_code);
        if (err != E_MALFORMED || strcmp(oci_code, bad[i].oci_code) != 0)
            fail_msg("\"%s\": error %d, code %s", bad[i].target, err, oci_code);
        assert_int_equal(route.kind, HTTP_ROUTE_NONE);
    }
}

static void test_accelerated_urls_stay_raw(void **state)
{
    (void)state;
    static const char *const urls[] = {
        "https://registry.test/v2/a/blobs/" DIGEST_256,
        "http://registry.test:5000/",
        "https://registry.test",
        "https://[::1]:5000/a",
        "https://oss.test/a%2Fb//c?Expires=1&Signature=a%2Bb%3D&x=../y|z",
        "https://oss.test?x",
        "https://oss.test/...",
        "https://oss.test/..a/.b/%2e%2ea",
    };
    static const char *const prefixes[] = {"/accelerator/", "/accelerate/"};
    for (size_t i = 0; i < 2 * sizeof urls / sizeof urls[0]; i++) {
        char target[512] = "";
        const char *oci_code = "untouched", *prefix = prefixes[i % 2], *url = urls[i / 2];
        memcpy(target, prefix, strlen(prefix));
        memcpy(target + strlen(prefix), url, strlen(url) + 1);
        if (http_route_parse(target, &route, &oci_code) != 0)
            fail_msg("\"%s\": refused with %s", target, oci_code);
        assert_int_equal(route.kind, HTTP_ROUTE_ACCELERATE);
        assert_string_equal(route.url, url);
        assert_true(route.ns[0] != '\0' && strstr(url, route.ns) != NULL);
        assert_string_equal(route.query, "");
    }
}

/* A blob of a registry is known as such; anything near it stays a URL. */
static void test_accelerated_blobs(void **state)
{
    (void)state;
    static const struct {
        const char *url, *ns, *repository, *reference;
    } rows[] = {
        {"https://registry.test/v2/a/blobs/" DIGEST_256, "registry.test", "a", DIGEST_256},
        {"https://registry.test:443/v2/a/b/blobs/" DIGEST_512, "registry.test", "a/b", DIGEST_512},
        {"http://registry.test:80/v2/a/blobs/" DIGEST_256, "registry.test", "a", DIGEST_256},
        {"http://registry.test:443/v2/a/blobs/" DIGEST_256, "registry.test:443", "a", DIGEST_256},
        {"http://[::1]:5000/v2/a/blobs/" DIGEST_256, "[::1]:5000", "a", DIGEST_256},
        {"https://r.test/v2/a/blobs/" DIGEST_256 "?ns=b.test", "r.test", "", ""},
        {"https://r.test/v2/a/manifests/" DIGEST_256, "r.test", "", ""},
        {"https://r.test/v2/a/blobs/sha256:12", "r.test", "", ""},
        {"https://r.test/v2/A/blobs/" DIGEST_256, "r.test", "", ""},
        {"https://r.test/v2//blobs/" DIGEST_256, "r.test", "", ""},
        {"https://r.test/v2/blobs/" DIGEST_256, "r.test", "", ""},
        {"https://r.test//v2/a/blobs/" DIGEST_256, "r.test", "", ""},
        {"https://r.test/v2/a/blobs/sha256%3A" HEX_256, "r.test", "", ""},
        {"https://r.test/x/v2/a/blobs/" DIGEST_256, "r.test", "", ""},
        {"https://r.test/v2/a/blobs/" DIGEST_256 "/", "r.test", "", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char target[512] = "/accelerator/";
        const char *oci_code = "untouched";
        memcpy(target + strlen(target), rows[i].url, strlen(rows[i].url) + 1);
        assert_int_equal(http_route_parse(target, &route, &oci_code), 0);
        assert_int_equal(route.kind, HTTP_ROUTE_ACCELERATE);
        assert_string_equal(route.ns, rows[i].ns);
        assert_int_equal(route.by_digest, rows[i].reference[0] != '\0');
        assert_string_equal(route.repository, rows[i].repository);
        if (route.by_digest)
            assert_string_equal(route.reference, rows[i].reference);
    }
}

/* The request parser bounds targets; a longer one given here directly is refused, not cut. */
static void test_long_targets_are_refused(void **state)
{
    (void)state;
    static char target[2 * HTTP_URL_TARGET_BYTES_MAX];
    static const char *const starts[] = {"/", "/v2/?a=", "/accelerator/https://a/"};
    for (size_t i = 0; i < 3; i++) {
        const char *oci_code = "none";
        memset(target, 'a', sizeof target - 1);
        memcpy(target, starts[i], strlen(starts[i]));
        assert_int_equal(http_route_parse(target, &route, &oci_code), E_MALFORMED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_refused_targets_http3_org8),
        cmocka_unit_test(test_accelerated_urls_stay_raw),
        cmocka_unit_test(test_accelerated_blobs),
        cmocka_unit_test(test_long_targets_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
