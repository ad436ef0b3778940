/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/http/request.c: requests that are taken, as real clients send them (CLIENTS §6).
 * What is refused is in http_malformed.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "http.h"

static struct http_request request; /* 20 KiB: not for the stack of every test */

static size_t take(const char *text)
{
    size_t used = 0;
    int status = 0;
    memset(&request, 0xee, sizeof request);
    int err = http_request_parse((const uint8_t *)text, strlen(text), &request, &used, &status);
    if (err != 0)
        fail_msg("refused with status %d (error %d)", status, err);
    assert_int_equal(status, 0);
    return used;
}

static void test_containerd_head(void **state)
{
    (void)state;
    static const char text[] = "HEAD /v2/lib/bb/manifests/1?ns=registry.test%3A5000 HTTP/1.1\r\n"
                               "Host: mirror.test:6000\r\n"
                               "User-Agent: containerd/1.6.20~ds1\r\n"
                               "Accept: application/vnd.docker.distribution.manifest.v2+json, "
                               "application/vnd.oci.image.index.v1+json, */*\r\n"
                               "\r\n";
    assert_int_equal(take(text), sizeof text - 1);
    assert_int_equal(request.method, HTTP_HEAD);
    assert_string_equal(request.target, "/v2/lib/bb/manifests/1?ns=registry.test%3A5000");
    assert_true(request.keep_alive);
    assert_false(request.http_1_0);
    assert_int_equal(request.header_count, 3);
    assert_string_equal(request.headers[0].name, "host");
    assert_string_equal(request.headers[0].value, "mirror.test:6000");
    assert_string_equal(http_request_header(&request, "user-agent"), "containerd/1.6.20~ds1");
    assert_null(http_request_header(&request, "range"));
    assert_null(http_request_header(&request, "Host")); /* names are asked for in lower case */
}

static void test_repeated_accept_lines_stay_separate(void **state)
{
    (void)state;
    /* CLIENTS §1.7: containers/image sends six Accept lines. */
    take("GET /v2/lib/bb/manifests/1 HTTP/1.1\r\n"
         "Host: mirror.test:6000\r\n"
         "Accept: application/vnd.oci.image.manifest.v1+json\r\n"
         "ACCEPT: application/vnd.docker.distribution.manifest.v2+json\r\n"
         "accept: application/vnd.docker.distribution.manifest.v1+prettyjws\r\n"
         "Accept: application/vnd.docker.distribution.manifest.v1+json\r\n"
         "Accept: application/vnd.docker.distribution.manifest.list.v2+json\r\n"
         "Accept: application/vnd.oci.image.index.v1+json\r\n"
         "Accept-Encoding: gzip\r\n"
         "Connection: close\r\n\r\n");
    static const char *const types[] = {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    };
    assert_int_equal(request.header_count, 9);
    for (unsigned i = 0; i < 6; i++) {
        assert_string_equal(request.headers[1 + i].name, "accept");
        assert_string_equal(request.headers[1 + i].value, types[i]);
    }
    assert_string_equal(http_request_header(&request, "accept"), types[0]);
    assert_false(request.keep_alive);
}

static void test_values_are_trimmed_and_kept(void **state)
{
    (void)state;
    take("GET / HTTP/1.1\r\nhOsT:a\r\nX-One: \t a b\tc \t\r\nX-Two:\r\nX-Three:    \r\n"
         "X-Four: \"q, 'r'\": {}\r\n\r\n");
    assert_string_equal(http_request_header(&request, "host"), "a");
    assert_string_equal(http_request_header(&request, "x-one"), "a b\tc");
    assert_string_equal(http_request_header(&request, "x-two"), "");
    assert_string_equal(http_request_header(&request, "x-three"), "");
    assert_string_equal(http_request_header(&request, "x-four"), "\"q, 'r'\": {}");
}

static void test_keep_alive_follows_version_and_connection(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool keep_alive, http_1_0;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true, false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false, false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", false, false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: te, close\r\n\r\n", false, false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", true, false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", true, false},
        {"GET / HTTP/1.0\r\nHost: a\r\n\r\n", false, true},
        {"GET / HTTP/1.0\r\n\r\n", false, true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        take(rows[i].text);
        assert_int_equal(request.keep_alive, rows[i].keep_alive);
        assert_int_equal(request.http_1_0, rows[i].http_1_0);
    }
}

static void test_other_methods_are_named_for_405_http2(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PATCH / HTTP/1.1\r\nHost: a\r\n\r\n",
        "DELETE /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        take(texts[i]);
        assert_int_equal(request.method, HTTP_OTHER);
        assert_true(request.keep_alive);
    }
    take("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(request.method, HTTP_GET);
}

static void test_incomplete_heads_wait(void **state)
{
    (void)state;
    static const char text[] = "GET /v2/?ns=a HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n";
    for (size_t length = 0; length < sizeof text - 1; length++) {
        size_t used = 77;
        int status = 77;
        assert_int_equal(
            http_request_parse((const uint8_t *)text, length, &request, &used, &status), E_AGAIN);
        assert_int_equal(used, 77);
        assert_int_equal(status, 77);
    }
    assert_int_equal(take(text), sizeof text - 1);
    assert_int_equal(http_request_parse(NULL, 0, &request, &(size_t){0}, &(int){0}), E_AGAIN);
}

static void test_pipelined_requests_come_one_by_one(void **state)
{
    (void)state;
    static const char text[] =
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\nHEAD /b HTTP/1.1\r\nHost: b\r\n\r\n"
        "\x16\x03";
    size_t first = take(text);
    assert_string_equal(request.target, "/a");
    size_t second = take(text + first);
    assert_string_equal(request.target, "/b");
    assert_string_equal(http_request_header(&request, "host"), "b");
    assert_int_equal(first + second, sizeof text - 1 - 2);
}

static int order(const char *text, size_t body_max, int *status)
{
    size_t used = 0;
    int err = http_request_parse_order((const uint8_t *)text, strlen(text), body_max, &request,
                                       &used, status);
    if (err == 0)
        assert_int_equal(used, strstr(text, "\r\n\r\n") + 4 - text);
    return err;
}

/* Only where orders are taken, and never more than is allowed (HTTP-2). */
static void test_orders_have_bodies(void **state)
{
    (void)state;
    static const char post[] = "POST /prefetch HTTP/1.1\r\nHost: a\r\nContent-Length: 0012\r\n\r\n"
                               "{\"image\":1}x";
    static const struct {
        const char *text;
        int err, status;
    } bad[] = {
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n", E_TOO_LARGE, 413},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1844674407370955162\r\n\r\n", E_TOO_LARGE,
         413},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", E_TOO_LARGE,
         413},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         E_MALFORMED, 400},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", E_MALFORMED, 400},
        {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", E_UNSUPPORTED, 405},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", E_TOO_LARGE, 413},
    };
    int status = 0;
    assert_int_equal(order(post, 12, &status), 0);
    assert_int_equal(request.method, HTTP_POST);
    assert_int_equal(request.body_bytes, 12);
    assert_int_equal(order("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 12, &status), 0);
    assert_int_equal(request.method, HTTP_POST);
    assert_int_equal(request.body_bytes, 0);
    assert_int_equal(order("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 12, &status), 0);
    assert_int_equal(request.method, HTTP_OTHER);
    assert_int_equal(order("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 12, &status), 0);
    assert_int_equal(request.method, HTTP_GET);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(order(bad[i].text, 12, &status), bad[i].err);
        assert_int_equal(status, bad[i].status);
    }
    size_t used = 0;
    assert_int_equal(
        http_request_parse((const uint8_t *)post, strlen(post), &request, &used, &status),
        E_UNSUPPORTED);
    assert_int_equal(status, 405);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_containerd_head),
        cmocka_unit_test(test_repeated_accept_lines_stay_separate),
        cmocka_unit_test(test_values_are_trimmed_and_kept),
        cmocka_unit_test(test_keep_alive_follows_version_and_connection),
        cmocka_unit_test(test_other_methods_are_named_for_405_http2),
        cmocka_unit_test(test_incomplete_heads_wait),
        cmocka_unit_test(test_pipelined_requests_come_one_by_one),
        cmocka_unit_test(test_orders_have_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
