/* SPDX-License-Identifier: Apache-2.0 */
/* Collecting response headers: what is kept, dropped, joined, and where it ends (ORG-7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <stdio.h>

#include "../../src/registry/headers.h"

static unsigned fail_after;

static void *test_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    if (fail_after > 0 && --fail_after == 0)
        return NULL;
    return realloc(old, new_bytes);
}

static int feed(struct headers *headers, const char *text)
{
    int err = 0;

    while (*text != '\0' && err == 0) {
        const char *end = strchr(text, '\n');
        size_t bytes = end == NULL ? strlen(text) : (size_t)(end - text) + 1;

        err = headers__line(headers, text, bytes);
        text += bytes;
    }
    return err;
}

static void check(const char *wire, int status, uint64_t content_length, const char *shown)
{
    struct headers headers;
    struct fetch_response response;
    char text[2048] = "";
    size_t used = 0;

    headers__init(&headers, test_alloc, NULL);
    assert_int_equal(feed(&headers, wire), 0);
    headers__view(&headers, &response);
    for (unsigned i = 0; i < response.header_count; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s=%s;",
                                 response.headers[i].name, response.headers[i].value);
    assert_string_equal(text, shown);
    assert_int_equal(response.status, status);
    assert_true(response.content_length == content_length);
    headers__close(&headers);
}

static void lines_are_understood(void **state)
{
    (void)state;
    check("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 200, UINT64_MAX, "a=b;");
    check("HTTP/2 404\nA:b\n\n", 404, UINT64_MAX, "a=b;");
    check("HTTP/1.1 200 OK\r\nContent-LENGTH: 12\r\n\r\n", 200, 12, "content-length=12;");
    check("HTTP/1.1 200 OK\r\nA:  \t b c\t \r\nB:\r\n\r\n", 200, UINT64_MAX, "a=b c;b=;");
    check("HTTP/1.1 103 x\r\nA: 1\r\n\r\nHTTP/1.1 200 y\r\nB: 2\r\n\r\nC: trailer\r\n", 200,
          UINT64_MAX, "b=2;");
    check("HTTP/1.1 200 OK\r\nA: one\r\n  two\r\n\tthree\r\nB: x\r\n\r\n", 200, UINT64_MAX,
          "a=one two three;b=x;");
}

static void odd_lines_are_dropped(void **state)
{
    (void)state;
    check("HTTP/1.1 200 OK\r\nno colon\r\nA B: c\r\nD : e\r\n: f\r\nG: h\x01i\r\nJ: k\r\n\r\n", 200,
          UINT64_MAX, "j=k;");
    check("HTTP/1.1 200 OK\r\nbad line\r\n fold of it\r\nJ: k\r\n\r\n", 200, UINT64_MAX, "j=k;");
    check("HTTP/1.1 2x0 OK\r\nJ: k\r\n\r\n", 0, UINT64_MAX, "j=k;");
    check("HTTP/1.1\r\nJ: k\r\n\r\n", 0, UINT64_MAX, "j=k;");
}

static void lengths_that_cannot_be_trusted_are_unknown(void **state)
{
    (void)state;
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 200, 5,
          "content-length=5;content-length=5;");
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 200, UINT64_MAX,
          "content-length=5;content-length=6;");
    check("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", 200, UINT64_MAX,
          "content-length=5, 5;");
    check("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", 200, UINT64_MAX, "content-length=-5;");
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n 6\r\n\r\n", 200, UINT64_MAX,
          "content-length=5 6;");
    check("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", 200, UINT64_MAX,
          "content-length=99999999999999999999;");
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 200,
          UINT64_MAX, "content-length=5;transfer-encoding=chunked;");
}

static void bytes_are_bounded(void **state)
{
    struct headers headers;
    char line[1024];
    unsigned count = 0;

    (void)state;
    memset(line, 'a', sizeof line);
    memcpy(line, "X: ", 3);
    headers__init(&headers, test_alloc, NULL);
    while (headers__line(&headers, line, sizeof line) == 0)
        count++;
    assert_int_equal(count, 64);
    assert_int_equal(headers__line(&headers, line, 1), E_TOO_LARGE);
    headers__close(&headers);
}

static void interim_answers_and_trailers_count(void **state)
{
    struct headers headers;
    int err = 0;
    unsigned rounds = 0;

    (void)state;
    headers__init(&headers, test_alloc, NULL);
    for (; err == 0; rounds++)
        err = feed(&headers, "HTTP/1.1 103 x\r\nLink: </x>\r\n\r\n");
    assert_int_equal(err, E_TOO_LARGE);
    assert_in_range(rounds, 1000, 3000);
    headers__close(&headers);
    assert_int_equal(feed(&headers, "HTTP/1.1 200 OK\r\n\r\n"), 0);
    for (err = 0; err == 0;)
        err = feed(&headers, "Trailer: x\r\n");
    assert_int_equal(err, E_TOO_LARGE);
    headers__close(&headers);
}

static void lines_are_bounded(void **state)
{
    struct headers headers;

    (void)state;
    headers__init(&headers, test_alloc, NULL);
    for (unsigned i = 0; i < HEADERS_COUNT_MAX; i++)
        assert_int_equal(feed(&headers, "A: b\r\n"), 0);
    assert_int_equal(feed(&headers, "A: b\r\n"), E_TOO_LARGE);
    headers__close(&headers);
}

static void many_empty_lines_fit_the_growth_limit(void **state)
{
    struct headers headers;
    char line[600];

    (void)state;
    headers__init(&headers, test_alloc, NULL);
    memset(line, 'a', sizeof line);
    line[500] = ':';
    line[501] = '\n';
    for (unsigned i = 0; i < HEADERS_COUNT_MAX; i++)
        assert_int_equal(headers__line(&headers, line, 502), 0);
    headers__close(&headers);
}

static void copies_are_complete(void **state)
{
    struct fetch_header list[] = {{"a", "1"}, {"content-length", "7"}, {"a", "2"}};
    struct fetch_response in = {404, list, 3, 7}, out;
    struct headers headers;

    (void)state;
    headers__init(&headers, test_alloc, NULL);
    assert_int_equal(headers__copy(&headers, &in), 0);
    headers__view(&headers, &out);
    assert_int_equal(out.status, 404);
    assert_int_equal(out.content_length, 7);
    assert_string_equal(fetch_response_header(&out, "a"), "1");
    assert_string_equal(out.headers[2].value, "2");
    assert_null(fetch_response_header(&out, "b"));
    headers__drop(&headers, "a");
    headers__view(&headers, &out);
    assert_int_equal(out.header_count, 1);
    assert_string_equal(out.headers[0].name, "content-length");
    headers__close(&headers);
}

static void copies_are_bounded(void **state)
{
    static char value[HEADERS_BYTES_MAX + 1];
    struct fetch_header list[] = {{"a", value}};
    struct fetch_response in = {200, list, 1, 7}, out;
    struct headers headers;

    (void)state;
    memset(value, 'v', sizeof value - 1);
    headers__init(&headers, test_alloc, NULL);
    assert_int_equal(headers__copy(&headers, &in), E_TOO_LARGE);
    headers__view(&headers, &out);
    assert_int_equal(out.header_count, 0);
    headers__close(&headers);
}

static void memory_may_fail(void **state)
{
    struct headers headers;

    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        int err = 0;

        headers__init(&headers, test_alloc, NULL);
        fail_after = n;
        for (unsigned i = 0; i < 100 && err == 0; i++)
            err = feed(&headers, "Name: a value of some length, so that it grows beyond 2 KiB\r\n");
        assert_int_equal(err, E_NO_MEMORY);
        fail_after = 0;
        headers__close(&headers);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_understood),
        cmocka_unit_test(odd_lines_are_dropped),
        cmocka_unit_test(lengths_that_cannot_be_trusted_are_unknown),
        cmocka_unit_test(bytes_are_bounded),
        cmocka_unit_test(interim_answers_and_trailers_count),
        cmocka_unit_test(lines_are_bounded),
        cmocka_unit_test(many_empty_lines_fit_the_growth_limit),
        cmocka_unit_test(copies_are_complete),
        cmocka_unit_test(copies_are_bounded),
        cmocka_unit_test(memory_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
