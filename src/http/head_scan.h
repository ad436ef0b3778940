/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internal to src/http: the two looks at a request head. Kept apart from include/http.h because
 * llhttp.h claims the same names (HTTP_GET, HTTP_HEAD).
 */
#ifndef SHOAL_HTTP_HEAD_SCAN_H
#define SHOAL_HTTP_HEAD_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define HTTP__METHOD_BYTES_MAX 32 /* longer tokens are no method anybody has registered */
#define HTTP__HEADERS_MAX      64 /* = HTTP_HEADERS_MAX, asserted in request.c */

/* Bytes inside the caller's buffer: borrowed, not terminated. */
struct http__span {
    const char *text;
    size_t text_bytes;
};

/* What the strict scan found. */
struct http__scan {
    size_t head_bytes; /* with the empty line */
    struct http__span method;
    struct http__span target;
    bool http_1_0;
    unsigned header_count;
};

/*
 * Walks a head byte by byte and refuses everything RFC 9112 does not allow, at the first byte that
 * shows it, so that a TLS ClientHello or another protocol is answered at once (CLIENTS §1.6). 0;
 * E_AGAIN: good so far, not complete; E_MALFORMED (400); E_TOO_LARGE with *status 414 or 431;
 * E_UNSUPPORTED with *status 505. `out` borrows from `bytes`, valid only for 0.
 */
MUST_USE int http__head_scan(const uint8_t *bytes, size_t byte_count, struct http__scan *out,
                             int *status);

/* Bytes of the prefix behind which a target holds a URL; 0 if it does not begin with one. */
size_t http__url_prefix(const char *target, size_t target_bytes);

/* True for the bytes of a token (RFC 9110 §5.6.2). */
bool http__is_token_byte(uint8_t byte);

/* What llhttp makes of the same head. */
struct http__fields {
    struct http__span target;
    bool keep_alive;
    unsigned header_count;
    struct http__span names[HTTP__HEADERS_MAX];
    struct http__span values[HTTP__HEADERS_MAX]; /* surrounding blanks removed */
};

/* Runs llhttp, strict, over one complete head. 0, or E_MALFORMED for whatever it dislikes. `out`
 * borrows from `bytes`. */
MUST_USE int http__llhttp_run(const uint8_t *bytes, size_t byte_count, struct http__fields *out);

#endif
