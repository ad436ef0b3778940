/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of the mirror: a strict scan, then llhttp, then what the headers mean together (HTTP-1,
 * HTTP-2). A head is taken only if both parsers see the same target and the same number of headers.
 */
#include "http.h"

#include <string.h>
#include <strings.h>

#include "head_scan.h"
#include "log.h"

static_assert(HTTP__HEADERS_MAX == HTTP_HEADERS_MAX, "llhttp's spans hold every header");

static int refuse(int *status, int code, int err)
{
    *status = code;
    return err;
}

static bool span_is(const struct http__span *span, const char *text)
{
    return span->text_bytes == strlen(text) && memcmp(span->text, text, span->text_bytes) == 0;
}

static bool span_is_nocase(const struct http__span *span, const char *text)
{
    return span->text_bytes == strlen(text) && strncasecmp(span->text, text, span->text_bytes) == 0;
}

/* Methods are case-sensitive (RFC 9110 §9.1). CONNECT belongs to the others: we are no proxy
 * (ORG-1). 0, or E_UNSUPPORTED for a word that is no method we have heard of. */
static int method_of(const struct http__span *method, enum http_method *out)
{
    static const char *const others[] = {"POST",    "PUT",     "PATCH", "DELETE",
                                         "OPTIONS", "CONNECT", "TRACE"};
    *out = HTTP_OTHER;
    if (span_is(method, "GET"))
        *out = HTTP_GET;
    if (span_is(method, "HEAD"))
        *out = HTTP_HEAD;
    if (*out != HTTP_OTHER)
        return 0;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (span_is(method, others[i]))
            return 0;
    }
    return E_UNSUPPORTED;
}

/* Only origin-form (RFC 9112 §3.2.1): absolute-form and authority-form would make us a proxy
 * (ORG-1). */
static int check_request_line(const struct http__scan *scan, enum http_method *method, int *status)
{
    if (method_of(&scan->method, method) != 0)
        return refuse(status, 501, E_UNSUPPORTED);
    if (scan->target.text[0] == '/')
        return 0;
    if (*method == HTTP_OTHER)
        return refuse(status, 405, E_UNSUPPORTED);
    return refuse(status, 400, E_MALFORMED);
}

/* Index of the only header of this name; HTTP_HEADERS_MAX if there is none; E_MALFORMED if there
 * are several. */
static int find_single(const struct http__fields *fields, const char *name, unsigned *index)
{
    *index = HTTP_HEADERS_MAX;
    for (unsigned i = 0; i < fields->header_count; i++) {
        if (!span_is_nocase(&fields->names[i], name))
            continue;
        if (*index != HTTP_HEADERS_MAX)
            return E_MALFORMED;
        *index = i;
    }
    return 0;
}

static bool digits_only(const char *text, size_t text_bytes)
{
    for (size_t i = 0; i < text_bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
    }
    return text_bytes > 0;
}

/* uri-host [ ":" port ] (RFC 9110 §7.2), by its bytes: whatever name the client used for us is
 * fine, but no list, path, blank or userinfo. */
static bool host_value_valid(const struct http__span *value)
{
    static const char marks[] = ".-_~%!$&'()*+;=";
    const char *text = value->text;
    size_t at = 0;
    if (value->text_bytes == 0 || value->text_bytes > HOST_BYTES_MAX)
        return false;
    if (text[0] == '[') {
        at = strspn(text + 1, "0123456789abcdefABCDEF:.") + 1;
        if (at < 3 || at >= value->text_bytes || text[at++] != ']')
            return false;
    } else {
        for (; at < value->text_bytes && text[at] != ':'; at++) {
            uint8_t byte = (uint8_t)text[at];
            bool alnum =
                (byte >= '0' && byte <= '9') || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z');
            if (!alnum && (byte == 0 || strchr(marks, byte) == NULL))
                return false;
        }
        if (at == 0)
            return false;
    }
    if (at == value->text_bytes)
        return true;
    size_t port_bytes = value->text_bytes - at - 1;
    return text[at] == ':' && port_bytes <= 5 && digits_only(text + at + 1, port_bytes);
}

/* Exactly one valid Host; HTTP/1.0 may go without (RFC 9112 §3.2). */
static int check_host(const struct http__fields *fields, bool http_1_0)
{
    unsigned host;
    int err = find_single(fields, "host", &host);
    if (err != 0)
        return err;
    if (host == HTTP_HEADERS_MAX)
        return http_1_0 ? 0 : E_MALFORMED;
    return host_value_valid(&fields->values[host]) ? 0 : E_MALFORMED;
}

#define BODY_UNKNOWN UINT64_MAX

/* Digits only; too many of them are BODY_UNKNOWN. */
static uint64_t length_of(const struct http__span *value)
{
    uint64_t length = 0;
    for (size_t i = 0; i < value->text_bytes; i++) {
        if (length > UINT64_MAX / 16)
            return BODY_UNKNOWN;
        length = length * 10 + (uint64_t)(value->text[i] - '0');
    }
    return length;
}

/* *body_bytes: what follows the head; BODY_UNKNOWN with a transfer coding. E_MALFORMED for what two
 * parsers could frame differently (RFC 9112 §6.3, HTTP-1). */
static int check_framing(const struct http__fields *fields, uint64_t *body_bytes)
{
    unsigned length, coding;
    *body_bytes = 0;
    if (find_single(fields, "content-length", &length) != 0 ||
        find_single(fields, "transfer-encoding", &coding) != 0)
        return E_MALFORMED;
    if (length != HTTP_HEADERS_MAX && coding != HTTP_HEADERS_MAX)
        return E_MALFORMED;
    if (coding != HTTP_HEADERS_MAX) {
        *body_bytes = BODY_UNKNOWN;
        return span_is_nocase(&fields->values[coding], "chunked") ? 0 : E_MALFORMED;
    }
    if (length == HTTP_HEADERS_MAX)
        return 0;
    const struct http__span *value = &fields->values[length];
    if (!digits_only(value->text, value->text_bytes))
        return E_MALFORMED;
    *body_bytes = length_of(value);
    return 0;
}

static int check_fields(const struct http__scan *scan, const struct http__fields *fields,
                        uint64_t *body_bytes, int *status)
{
    unsigned credentials;
    /* Two parsers, one request: anything else is an attack or a bug, and refused. */
    bool same_target = fields->target.text == scan->target.text &&
                       fields->target.text_bytes == scan->target.text_bytes;
    if (!same_target || fields->header_count != scan->header_count)
        return refuse(status, 400, E_MALFORMED);
    if (check_host(fields, scan->http_1_0) != 0 || check_framing(fields, body_bytes) != 0)
        return refuse(status, 400, E_MALFORMED);
    /* Whose request this is must not depend on which line a reader takes (ACL-1). */
    if (find_single(fields, "authorization", &credentials) != 0)
        return refuse(status, 400, E_MALFORMED);
    return 0;
}

static int check_body(enum http_method method, uint64_t body_bytes, size_t body_max, int *status)
{
    if (body_bytes > 0 && method == HTTP_OTHER)
        return refuse(status, 405, E_UNSUPPORTED);
    if (body_bytes > (method == HTTP_POST ? body_max : 0))
        return refuse(status, 413, E_TOO_LARGE);
    return 0;
}

/* Copies a span into storage, terminated. There is room: the head spends at least four more bytes
 * on each header (colon, CR LF of the line, CR LF of the end) than its two terminators here. */
static const char *store(struct http_request *out, size_t *used, const struct http__span *span,
                         bool lower)
{
    char *at = out->storage + *used;
    ASSERT(span->text_bytes < sizeof out->storage - *used);
    for (size_t i = 0; i < span->text_bytes; i++) {
        char c = span->text[i];
        at[i] = lower && c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    at[span->text_bytes] = '\0';
    *used += span->text_bytes + 1;
    return at;
}

static void fill(struct http_request *out, const struct http__scan *scan,
                 const struct http__fields *fields)
{
    size_t used = 0;
    ASSERT(scan->target.text_bytes < sizeof out->target);
    memcpy(out->target, scan->target.text, scan->target.text_bytes);
    out->target[scan->target.text_bytes] = '\0';
    out->keep_alive = fields->keep_alive;
    out->http_1_0 = scan->http_1_0;
    out->header_count = fields->header_count;
    for (unsigned i = 0; i < fields->header_count; i++) {
        out->headers[i].name = store(out, &used, &fields->names[i], true);
        out->headers[i].value = store(out, &used, &fields->values[i], false);
    }
}

/* Length of the head, or E_*. `body_max` NULL: POST is no method of ours. */
static int parse(const uint8_t *bytes, size_t byte_count, const size_t *body_max,
                 struct http_request *out, int *status)
{
    struct http__scan scan;
    struct http__fields fields;
    enum http_method method = HTTP_OTHER;
    uint64_t body_bytes = 0;
    int err = http__head_scan(bytes, byte_count, &scan, status);
    if (err != 0)
        return err;
    err = check_request_line(&scan, &method, status);
    if (err != 0)
        return err;
    if (body_max != NULL && span_is(&scan.method, "POST"))
        method = HTTP_POST;
    if (http__llhttp_run(bytes, scan.head_bytes, &fields) != 0)
        return refuse(status, 400, E_MALFORMED);
    err = check_fields(&scan, &fields, &body_bytes, status);
    if (err == 0)
        err = check_body(method, body_bytes, body_max == NULL ? 0 : *body_max, status);
    if (err != 0)
        return err;
    out->method = method;
    out->body_bytes = (size_t)body_bytes;
    fill(out, &scan, &fields);
    return (int)scan.head_bytes;
}

int http_request_parse(const uint8_t *bytes, size_t byte_count, struct http_request *out,
                       size_t *used, int *status)
{
    int got = parse(bytes, byte_count, NULL, out, status);
    if (got > 0)
        *used = (size_t)got;
    return got > 0 ? 0 : got;
}

int http_request_parse_order(const uint8_t *bytes, size_t byte_count, size_t body_max,
                             struct http_request *out, size_t *used, int *status)
{
    int got = parse(bytes, byte_count, &body_max, out, status);
    if (got > 0)
        *used = (size_t)got;
    return got > 0 ? 0 : got;
}

const char *http_request_header(const struct http_request *request, const char *name)
{
    for (unsigned i = 0; i < request->header_count; i++) {
        if (strcmp(request->headers[i].name, name) == 0)
            return request->headers[i].value;
    }
    return NULL;
}
