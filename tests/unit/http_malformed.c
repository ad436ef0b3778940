/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The corpus of malformed requests (HTTP-1, HTTP-2): each row is a head that must be refused with
 * its status, whole and at every way of cutting it into reads.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "http.h"

struct row {
    int status;
    const char *bytes;
    size_t byte_count;
};
#define RAW(status, text)                                                                          \
    {                                                                                              \
        status, text, sizeof(text) - 1                                                             \
    }
/* One request line, with a Host. */
#define LINE(status, text) RAW(status, text "\r\nHost: a\r\n\r\n")
/* All header lines of a request. */
#define FIELDS(status, text) RAW(status, "GET / HTTP/1.1\r\n" text "\r\n\r\n")
/* Header lines after a good Host. */
#define EXTRA(status, text) FIELDS(status, "Host: a\r\n" text)
#define A29                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define A261                A29 A29 A29 A29 A29 A29 A29 A29 A29

/* clang-format off: one row a line */
static const struct row rows[] = {
    /* other protocols on the port (CLIENTS §1.6) */
    RAW(400, "\026\003\001\002\000\001\000\001\374\003\003"),
    RAW(400, "\026\003\003\000\364\001"),
    RAW(400, "\026"),
    RAW(400, "\200.\001\003\001"),
    RAW(400, "SSH-2.0-OpenSSH_9.2\r\n"),
    RAW(400, "PROXY TCP4 10.0.0.1 10.0.0.2 5 6\r\n"),
    RAW(400, "\r\n\r\n\000\r\nQUIT\n!\021"),
    RAW(400, "*1\r\n$4\r\nPING\r\n"),
    RAW(400, "get key\r\n"),
    RAW(400, "EHLO a\r\n"),
    RAW(400, "\023BitTorrent protocol"),
    RAW(400, "\020\014\000\004MQTT"),
    RAW(400, "HTTP/1.1 200 OK\r\n\r\n"),
    RAW(400, "{\"a\":1}"),
    RAW(400, "<?xml"),
    RAW(400, "\000\000\000\010"),
    RAW(400, "\377\373\001"),
    RAW(400, "\033[2J"),
    RAW(400, "USER a\r\n"),
    RAW(400, "\222\001\002"),
    RAW(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    /* method */
    LINE(400, " GET / HTTP/1.1"),
    LINE(400, "\tGET / HTTP/1.1"),
    LINE(400, "G ET / HTTP/1.1"),
    LINE(400, "GET\t/ HTTP/1.1"),
    LINE(400, "GET  / HTTP/1.1"),
    LINE(400, "G(T / HTTP/1.1"),
    LINE(400, "G\"T / HTTP/1.1"),
    LINE(400, "G@T / HTTP/1.1"),
    LINE(400, "GET: / HTTP/1.1"),
    LINE(400, "G\000T / HTTP/1.1"),
    LINE(400, "G\303\211T / HTTP/1.1"),
    LINE(400, "GET,HEAD / HTTP/1.1"),
    LINE(400, "G[T / HTTP/1.1"),
    LINE(400, "/ HTTP/1.1"),
    LINE(400, "GET{} / HTTP/1.1"),
    LINE(400, "G=T / HTTP/1.1"),
    LINE(400, "G;T / HTTP/1.1"),
    LINE(400, "\177GET / HTTP/1.1"),
    LINE(400, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1"),
    LINE(501, "get / HTTP/1.1"),
    LINE(501, "Get / HTTP/1.1"),
    LINE(501, "HEAd / HTTP/1.1"),
    LINE(501, "GETT / HTTP/1.1"),
    LINE(501, "GE / HTTP/1.1"),
    LINE(501, "PROPFIND / HTTP/1.1"),
    LINE(501, "M-SEARCH / HTTP/1.1"),
    LINE(501, "QUERY / HTTP/1.1"),
    LINE(501, "SOURCE / HTTP/1.1"),
    LINE(501, "!#$%&'*+-.^_`|~ / HTTP/1.1"),
    LINE(501, "PRI / HTTP/1.1"),
    LINE(501, "post / HTTP/1.1"),
    /* target: only origin-form, only bytes of a URI (ORG-1) */
    LINE(400, "GET http://a/ HTTP/1.1"),
    LINE(400, "GET https://a/v2/ HTTP/1.1"),
    LINE(400, "GET HTTP://a/ HTTP/1.1"),
    LINE(400, "GET a:443 HTTP/1.1"),
    LINE(400, "GET * HTTP/1.1"),
    LINE(400, "GET v2/ HTTP/1.1"),
    LINE(400, "GET ?ns=a HTTP/1.1"),
    LINE(400, "HEAD . HTTP/1.1"),
    LINE(400, "GET %2fv2/ HTTP/1.1"),
    LINE(400, "GET /a b HTTP/1.1"),
    LINE(400, "GET /a\tb HTTP/1.1"),
    LINE(400, "GET /#f HTTP/1.1"),
    LINE(400, "GET /a#f HTTP/1.1"),
    LINE(400, "GET /a\\b HTTP/1.1"),
    LINE(400, "GET \\a HTTP/1.1"),
    LINE(400, "GET /\"a\" HTTP/1.1"),
    LINE(400, "GET /<a> HTTP/1.1"),
    LINE(400, "GET /\000 HTTP/1.1"),
    LINE(400, "GET /\001 HTTP/1.1"),
    LINE(400, "GET /\177 HTTP/1.1"),
    LINE(400, "GET /\303\251 HTTP/1.1"),
    LINE(400, "GET /\200 HTTP/1.1"),
    LINE(400, "GET /\377 HTTP/1.1"),
    LINE(400, "GET /a\013b HTTP/1.1"),
    LINE(400, "GET /a\014b HTTP/1.1"),
    LINE(400, "GET @a HTTP/1.1"),
    LINE(400, "GET ftp://a/ HTTP/1.1"),
    LINE(400, "GET file:///etc/passwd HTTP/1.1"),
    LINE(400, "GET javascript:0 HTTP/1.1"),
    LINE(400, "GET :80 HTTP/1.1"),
    LINE(405, "OPTIONS * HTTP/1.1"),
    LINE(405, "CONNECT a:443 HTTP/1.1"),
    LINE(405, "POST http://a/ HTTP/1.1"),
    LINE(405, "DELETE a HTTP/1.1"),
    /* version */
    LINE(400, "GET /"),
    LINE(400, "GET / "),
    LINE(400, "GET / HTTP"),
    LINE(400, "GET / HTTP/"),
    LINE(400, "GET / HTTP/1"),
    LINE(400, "GET / HTTP/1."),
    LINE(400, "GET / HTTP/1.1 "),
    LINE(400, "GET / HTTP/1.1\t"),
    LINE(400, "GET /  HTTP/1.1"),
    LINE(400, "GET / HTTP/1.10"),
    LINE(400, "GET / HTTP/11.1"),
    LINE(400, "GET / HTTP/01.1"),
    LINE(400, "GET / http/1.1"),
    LINE(400, "GET / Http/1.1"),
    LINE(400, "GET / HTTPS/1.1"),
    LINE(400, "GET / HTTP1.1"),
    LINE(400, "GET / HTTP /1.1"),
    LINE(400, "GET / HTTP/ 1.1"),
    LINE(400, "GET / HTTP/1. 1"),
    LINE(400, "GET / HTTP/-1.1"),
    LINE(400, "GET / HTTP/1,1"),
    LINE(400, "GET / HTTP/a.b"),
    LINE(400, "GET / HTTP/1.x"),
    LINE(400, "GET / ICE/1.0"),
    LINE(400, "GET / RTSP/1.0"),
    LINE(400, "GET / HTTP/1.1 HTTP/1.1"),
    LINE(400, "GET / HTTP/1.1;"),
    LINE(400, "GET / HTTP/1.1\000"),
    LINE(505, "GET / HTTP/2.0"),
    LINE(505, "GET / HTTP/0.9"),
    LINE(505, "GET / HTTP/3.0"),
    LINE(505, "GET / HTTP/1.2"),
    LINE(505, "GET / HTTP/1.9"),
    LINE(505, "GET / HTTP/9.9"),
    LINE(505, "GET / HTTP/0.0"),
    LINE(505, "POST / HTTP/2.0"),
    /* line ends: CR LF and nothing else */
    RAW(400, "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    RAW(400, "GET / HTTP/1.1\nHost: a\n\n"),
    RAW(400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
    RAW(400, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    FIELDS(400, "Host: a\r"),
    RAW(400, "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    FIELDS(400, "Host: a\rX: b"),
    RAW(400, "GET / HTTP/1.1\r\nHost: a\r\n\rX"),
    RAW(400, "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n"),
    LINE(400, "GET / HTTP/1.1\r"),
    RAW(400, "GET / HTTP/1.1\n\rHost: a\r\n\r\n"),
    LINE(400, "\r\nGET / HTTP/1.1"),
    LINE(400, "\nGET / HTTP/1.1"),
    FIELDS(400, "Host: a\nX: b"),
    FIELDS(400, "X: a\rb\r\nHost: a"),
    FIELDS(400, "X: a\nb\r\nHost: a"),
    LINE(400, "GET /\r\nHTTP/1.1"),
    LINE(400, "GET\r\n/ HTTP/1.1"),
    FIELDS(400, "X\r\n: b\r\nHost: a"),
    RAW(400, "GET / HTTP/1.1\r\nHost: a\r\n\000\r\n"),
    RAW(400, "GET / HTTP/1.1\013\nHost: a\r\n\r\n"),
    RAW(400, "GET / HTTP/1.1\342\200\250Host: a\r\n\r\n"),
    /* folded and misplaced lines */
    FIELDS(400, " \r\nHost: a"),
    FIELDS(400, " Host: a"),
    FIELDS(400, "\tHost: a"),
    EXTRA(400, " folded"),
    EXTRA(400, "\tfolded"),
    EXTRA(400, "X: a\r\n b"),
    EXTRA(400, "X: a\r\n\tb"),
    EXTRA(400, "X:\r\n a"),
    EXTRA(400, " "),
    EXTRA(400, "Transfer-Encoding:\r\n chunked"),
    EXTRA(400, "Content-Length:\r\n 5"),
    EXTRA(400, "GET / HTTP/1.1"),
    EXTRA(400, "no colon"),
    EXTRA(400, "nocolon"),
    FIELDS(400, "Host"),
    /* header names */
    EXTRA(400, "X : a"),
    EXTRA(400, "X\t: a"),
    EXTRA(400, "Host : b"),
    EXTRA(400, "Content-Length : 0"),
    EXTRA(400, "Transfer-Encoding : chunked"),
    EXTRA(400, ": a"),
    EXTRA(400, ":"),
    EXTRA(400, "X Y: a"),
    EXTRA(400, "X(: a"),
    EXTRA(400, "X): a"),
    EXTRA(400, "X,: a"),
    EXTRA(400, "X/: a"),
    EXTRA(400, "X;: a"),
    EXTRA(400, "X<: a"),
    EXTRA(400, "X=: a"),
    EXTRA(400, "X>: a"),
    EXTRA(400, "X?: a"),
    EXTRA(400, "X@: a"),
    EXTRA(400, "X[: a"),
    EXTRA(400, "X\\: a"),
    EXTRA(400, "X]: a"),
    EXTRA(400, "X{: a"),
    EXTRA(400, "X}: a"),
    EXTRA(400, "\"X\": a"),
    EXTRA(400, "X\000: a"),
    EXTRA(400, "X\001Y: a"),
    EXTRA(400, "X\177: a"),
    EXTRA(400, "X\200: a"),
    EXTRA(400, "\303\251: a"),
    EXTRA(400, "\357\273\277X: a"),
    EXTRA(400, "X\033Y: a"),
    /* header values */
    EXTRA(400, "X: a\000b"),
    EXTRA(400, "X: \000"),
    EXTRA(400, "X: a\001"),
    EXTRA(400, "X: a\010"),
    EXTRA(400, "X: a\013"),
    EXTRA(400, "X: a\014b"),
    EXTRA(400, "X: a\016"),
    EXTRA(400, "X: a\033[2J"),
    EXTRA(400, "X: a\037"),
    EXTRA(400, "X: a\177"),
    EXTRA(400, "Accept: \007"),
    EXTRA(400, "Authorization: Basic \000"),
    EXTRA(400, "Range: bytes=0-\001"),
    /* Host: exactly one, and one that is a host */
    RAW(400, "GET / HTTP/1.1\r\n\r\n"),
    RAW(400, "HEAD /v2/ HTTP/1.1\r\nAccept: */*\r\n\r\n"),
    RAW(400, "POST / HTTP/1.1\r\n\r\n"),
    FIELDS(400, "Hos: a"),
    FIELDS(400, "X-Host: a"),
    EXTRA(400, "Host: a"),
    EXTRA(400, "Host: b"),
    EXTRA(400, "host: a"),
    FIELDS(400, "HOST: a\r\nX: y\r\nHost: b"),
    FIELDS(400, "Host:"),
    FIELDS(400, "Host: "),
    FIELDS(400, "Host:\t"),
    FIELDS(400, "Host: a b"),
    FIELDS(400, "Host: a, b"),
    FIELDS(400, "Host: a,b"),
    FIELDS(400, "Host: http://a"),
    FIELDS(400, "Host: a/b"),
    FIELDS(400, "Host: a?b"),
    FIELDS(400, "Host: a#b"),
    FIELDS(400, "Host: u@a"),
    FIELDS(400, "Host: a:"),
    FIELDS(400, "Host: a:b"),
    FIELDS(400, "Host: a:80:80"),
    FIELDS(400, "Host: a:-1"),
    FIELDS(400, "Host: a:123456"),
    FIELDS(400, "Host: :80"),
    FIELDS(400, "Host: [::1"),
    FIELDS(400, "Host: [::1]80"),
    FIELDS(400, "Host: []"),
    FIELDS(400, "Host: [::1]:"),
    FIELDS(400, "Host: [::g]"),
    FIELDS(400, "Host: ::1"),
    FIELDS(400, "Host: a\\b"),
    FIELDS(400, "Host: \"a\""),
    FIELDS(400, "Host: <a>"),
    FIELDS(400, "Host: \303\251"),
    FIELDS(400, "Host: a]"),
    FIELDS(400, "Host: a^b"),
    FIELDS(400, "Host: " A261),
    LINE(400, "GET / HTTP/1.0\r\nHost: a"),
    RAW(400, "GET / HTTP/1.0\r\nHost: a b\r\n\r\n"),
    /* Content-Length and Transfer-Encoding (RFC 9112 §6.3) */
    EXTRA(400, "Content-Length:"),
    EXTRA(400, "Content-Length: "),
    EXTRA(400, "Content-Length: +0"),
    EXTRA(400, "Content-Length: -0"),
    EXTRA(400, "Content-Length: -1"),
    EXTRA(400, "Content-Length: +5"),
    EXTRA(400, "Content-Length: 0x0"),
    EXTRA(400, "Content-Length: 0x10"),
    EXTRA(400, "Content-Length: a"),
    EXTRA(400, "Content-Length: 5a"),
    EXTRA(400, "Content-Length: 1 2"),
    EXTRA(400, "Content-Length: 0 0"),
    EXTRA(400, "Content-Length: 0, 0"),
    EXTRA(400, "Content-Length: 5, 5"),
    EXTRA(400, "Content-Length: 5,6"),
    EXTRA(400, "Content-Length: 0;"),
    EXTRA(400, "Content-Length: \"0\""),
    EXTRA(400, "Content-Length: 0.0"),
    EXTRA(400, "Content-Length: 1e1"),
    EXTRA(400, "Content-Length: 1_0"),
    EXTRA(400, "Content-Length: 0\r\nContent-Length: 0"),
    EXTRA(400, "Content-Length: 5\r\nContent-Length: 5"),
    EXTRA(400, "Content-Length: 0\r\ncontent-length: 5"),
    EXTRA(400, "Content-Length: 5\r\nX: a\r\nCONTENT-LENGTH: 0"),
    EXTRA(400, "Content-Length: \331\240"),
    EXTRA(400, "Content-Length: 99999999999999999999999999"),
    EXTRA(400, "Content-Length: 18446744073709551616"),
    EXTRA(400, "Transfer-Encoding: chunked\r\nContent-Length: 0"),
    EXTRA(400, "Content-Length: 0\r\nTransfer-Encoding: chunked"),
    EXTRA(400, "Content-Length: 5\r\nTransfer-Encoding: chunked"),
    EXTRA(400, "Transfer-Encoding: identity\r\nContent-Length: 5"),
    EXTRA(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    EXTRA(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    EXTRA(400, "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
    EXTRA(400, "Transfer-Encoding: gzip, chunked"),
    EXTRA(400, "Transfer-Encoding: chunked, gzip"),
    EXTRA(400, "Transfer-Encoding: chunked, chunked"),
    EXTRA(400, "Transfer-Encoding: gzip"),
    EXTRA(400, "Transfer-Encoding: identity"),
    EXTRA(400, "Transfer-Encoding:"),
    EXTRA(400, "Transfer-Encoding: xchunked"),
    EXTRA(400, "Transfer-Encoding: chunkedx"),
    EXTRA(400, "Transfer-Encoding: \"chunked\""),
    EXTRA(400, "Transfer-Encoding: chunked;q=1"),
    EXTRA(400, "Transfer-Encoding: ,chunked"),
    EXTRA(400, "Transfer-Encoding: chunked,"),
    EXTRA(400, "Transfer-Encoding: cow"),
    /* bodies: well-formed, but never taken (HTTP-2) */
    EXTRA(413, "Content-Length: 5"),
    EXTRA(413, "Content-Length: 1"),
    EXTRA(413, "content-length: 0010"),
    EXTRA(413, "Content-Length: 18446744073709551615"),
    EXTRA(413, "Transfer-Encoding: chunked"),
    EXTRA(413, "TRANSFER-ENCODING: Chunked"),
    EXTRA(413, "Content-Length: 5\r\nExpect: 100-continue"),
    RAW(405, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
    RAW(405, "PUT /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
    RAW(405, "PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
    RAW(405, "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
    RAW(405, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    /* whose request is it (ACL-1) */
    EXTRA(400, "Authorization: Basic YTpi\r\nAuthorization: Bearer x"),
    EXTRA(400, "Authorization: Basic YTpi\r\nauthorization: Basic YTpi"),
    EXTRA(400, "authorization:\r\nAuthorization: Bearer x"),
};
/* clang-format on */
#define ROW_COUNT (sizeof rows / sizeof rows[0])

static int error_of(int status)
{
    switch (status) {
    case 413:
    case 414:
    case 431:
        return E_TOO_LARGE;
    case 405:
    case 501:
    case 505:
        return E_UNSUPPORTED;
    default:
        return E_MALFORMED;
    }
}

static struct http_request request; /* 20 KiB: not for the stack of every test */

/* Refused as a whole, and when read byte by byte: never taken, and refused for good. */
static void check_refused(const char *what, const uint8_t *bytes, size_t byte_count, int expected)
{
    bool refused = false;
    for (size_t length = 0; length <= byte_count; length++) {
        int status = 0;
        size_t used = 0;
        int err = http_request_parse(bytes, length, &request, &used, &status);
        if (err == 0 || used != 0)
            fail_msg("%s: taken at byte %zu", what, length);
        if (err == E_AGAIN && (refused || length == byte_count || status != 0))
            fail_msg("%s: still waiting at byte %zu", what, length);
        if (err != E_AGAIN && (err != error_of(expected) || status != expected))
            fail_msg("%s: status %d and error %d at byte %zu", what, status, err, length);
        refused = err != E_AGAIN;
    }
}

static void test_every_malformed_request_is_refused_http1(void **state)
{
    (void)state;
    assert_true(ROW_COUNT >= 200);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char what[32];
        (void)snprintf(what, sizeof what, "row %zu", i);
        check_refused(what, (const uint8_t *)rows[i].bytes, rows[i].byte_count, rows[i].status);
    }
}

/* The other way round: what differs from the rows by the fault alone is taken. */
static void test_the_frames_of_the_rows_are_good(void **state)
{
    (void)state;
    static const struct row good[] = {
        LINE(200, "GET / HTTP/1.1"),
        LINE(200, "GET /^`{|}~ HTTP/1.1"),
        FIELDS(200, "Host: a"),
        EXTRA(200, "X: a"),
        EXTRA(200, "X:"),
        EXTRA(200, "Content-Length: 0"),
        EXTRA(200, "Content-Length:\t000 "),
        EXTRA(200, "X: \200\377"),
        FIELDS(200, "Host: [::1]:80"),
        FIELDS(200, "host:a.b-c_d:65002"),
        FIELDS(200, "Host: 10.0.0.1"),
        FIELDS(200, "Host: [fd00::1]"),
        RAW(200, "GET / HTTP/1.0\r\n\r\n"),
        EXTRA(200, "!#$%&'*+-.^_`|~09aZ: a"),
        EXTRA(200, "Upgrade: h2c\r\nConnection: Upgrade"),
        EXTRA(200, "Expect: 100-continue"),
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int status = 0;
        size_t used = 0;
        int err = http_request_parse((const uint8_t *)good[i].bytes, good[i].byte_count, &request,
                                     &used, &status);
        if (err != 0)
            fail_msg("good row %zu: refused with %d", i, status);
        assert_int_equal(used, good[i].byte_count);
    }
}

/* Any control byte, in any place of a head but where a blank may stand. */
static void test_controls_are_refused_everywhere_http1(void **state)
{
    (void)state;
    static const char frame[] = "GET /v2/ HTTP/1.1\r\nHost: a\r\nAccept: b/c\r\n\r\n";
    static const size_t places[] = {0, 1, 6, 13, 19, 20, 24, 25, 28, 30, 36, 38};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        for (int byte = 0; byte < 256; byte++) {
            uint8_t bytes[sizeof frame];
            bool control = (byte < 0x20 && byte != '\t') || byte == 0x7f;
            if (!control)
                continue;
            memcpy(bytes, frame, sizeof frame);
            bytes[places[i]] = (uint8_t)byte;
            check_refused("control byte", bytes, sizeof frame - 1, 400);
        }
    }
}

/* Every place of a good head overwritten by CR or LF. */
static void test_line_ends_are_refused_everywhere_http1(void **state)
{
    (void)state;
    static const char frame[] = "GET /v2/ HTTP/1.1\r\nHost: a\r\nAccept: b/c\r\n\r\n";
    for (size_t at = 0; at < sizeof frame - 1; at++) {
        for (const char *end = "\r\n"; *end != '\0'; end++) {
            uint8_t bytes[sizeof frame];
            memcpy(bytes, frame, sizeof frame);
            if (bytes[at] == (uint8_t)*end)
                continue;
            bytes[at] = (uint8_t)*end;
            check_refused("line end", bytes, sizeof frame - 1, 400);
        }
    }
}

/* ---- limits ---- */

static uint8_t big[2 * HTTP_HEAD_BYTES_MAX];

static size_t put(size_t at, const char *text)
{
    memcpy(big + at, text, strlen(text));
    return at + strlen(text);
}

static void check_target_limit(const char *start, size_t limit)
{
    int status = 0;
    size_t used = 0, start_bytes = strlen(start);
    for (size_t target = limit; target <= limit + 1; target++) {
        status = 0;
        size_t at = put(put(0, "GET "), start);
        memset(big + at, 'a', target - start_bytes);
        at = put(at + target - start_bytes, " HTTP/1.1\r\nHost: a\r\n\r\n");
        int err = http_request_parse(big, at, &request, &used, &status);
        assert_int_equal(err, target > limit ? E_TOO_LARGE : 0);
        assert_int_equal(status, target > limit ? 414 : 0);
    }
    assert_int_equal(strlen(request.target), limit);
    /* No need to wait for the end of an endless target. */
    status = 0;
    assert_int_equal(http_request_parse(big, 4 + limit + 1, &request, &used, &status), E_TOO_LARGE);
    assert_int_equal(status, 414);
}

/* 2 KiB for all but the URLs that overlaybd hands over: these are signed, and have 8. */
static void test_target_limits_http1(void **state)
{
    (void)state;
    static const char *const plain[] = {"/",
                                        "/v2/a/tags/list?n=",
                                        "/accelerator",
                                        "/accelerates/",
                                        "/Accelerator/",
                                        "/v2/accelerator/"};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        check_target_limit(plain[i], HTTP_TARGET_BYTES_MAX);
    check_target_limit("/accelerator/https://a.test/b?c=", HTTP_URL_TARGET_BYTES_MAX);
    check_target_limit("/accelerate/", HTTP_URL_TARGET_BYTES_MAX);
}

static void test_header_count_limit_is_64_http1(void **state)
{
    (void)state;
    for (unsigned count = HTTP_HEADERS_MAX; count <= HTTP_HEADERS_MAX + 1; count++) {
        int status = 0;
        size_t used = 0;
        size_t at = put(0, "GET / HTTP/1.1\r\nHost: a\r\n");
        for (unsigned i = 1; i < count; i++)
            at = put(at, "X: y\r\n");
        at = put(at, "\r\n");
        int err = http_request_parse(big, at, &request, &used, &status);
        assert_int_equal(err, count > HTTP_HEADERS_MAX ? E_TOO_LARGE : 0);
        assert_int_equal(status, count > HTTP_HEADERS_MAX ? 431 : 0);
    }
    assert_int_equal(request.header_count, HTTP_HEADERS_MAX);
}

static void test_head_limit_is_16_kib_http1(void **state)
{
    (void)state;
    static const char start[] = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    for (size_t head = HTTP_HEAD_BYTES_MAX; head <= HTTP_HEAD_BYTES_MAX + 1; head++) {
        int status = 0;
        size_t used = 0;
        size_t value = head - strlen(start) - 4;
        size_t at = put(0, start);
        memset(big + at, 'v', value);
        at = put(at + value, "\r\n\r\n");
        assert_int_equal(at, head);
        int err = http_request_parse(big, at, &request, &used, &status);
        assert_int_equal(err, head > HTTP_HEAD_BYTES_MAX ? E_TOO_LARGE : 0);
        assert_int_equal(status, head > HTTP_HEAD_BYTES_MAX ? 431 : 0);
        if (err == 0)
            assert_int_equal(strlen(http_request_header(&request, "x")), value);
        /* A full buffer without an end is the end. */
        status = 0;
        assert_int_equal(http_request_parse(big, HTTP_HEAD_BYTES_MAX - 1, &request, &used, &status),
                         E_AGAIN);
    }
    int status = 0;
    size_t used = 0;
    memset(big + strlen(start), 'v', HTTP_HEAD_BYTES_MAX);
    assert_int_equal(http_request_parse(big, HTTP_HEAD_BYTES_MAX, &request, &used, &status),
                     E_TOO_LARGE);
    assert_int_equal(status, 431);
}

int main(void)
{
    printf("figure: %zu malformed requests\n", ROW_COUNT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_malformed_request_is_refused_http1),
        cmocka_unit_test(test_the_frames_of_the_rows_are_good),
        cmocka_unit_test(test_controls_are_refused_everywhere_http1),
        cmocka_unit_test(test_line_ends_are_refused_everywhere_http1),
        cmocka_unit_test(test_target_limits_http1),
        cmocka_unit_test(test_header_count_limit_is_64_http1),
        cmocka_unit_test(test_head_limit_is_16_kib_http1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
