/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Absolute http and https URLs, as origins and redirects use them, and the resolution of a Location
 * header (RFC 3986 §5, RFC 9110 §10.2.2). Strict on purpose: what this parser does not understand
 * is refused, and what it accepts is written anew from its parts, so libcurl's parser sees only the
 * plain form and the two cannot disagree about the host (ORG-2, ORG-3).
 */
#ifndef SHOAL_REGISTRY_URL_H
#define SHOAL_REGISTRY_URL_H

#include "err.h"
#include "types.h"

/* Signed URLs carry a security token of a KiB or two (ACR §7); 8 KiB is what servers accept. */
#define URL_BYTES_MAX 8192

struct url_parts {
    bool https;
    uint16_t port;                 /* effective: 80 or 443 when the text names none */
    char host[HOST_BYTES_MAX + 1]; /* lower case; an IPv6 literal keeps its brackets */
    const char *target;            /* path and query, borrowed from the text; may be empty */
    size_t target_bytes;           /* the fragment is not part of it */
};

/*
 * Splits an absolute URL. Refuses other schemes, userinfo, an empty or odd host, port 0, control
 * bytes, spaces, backslashes and bytes over 0x7e. 0, E_MALFORMED, E_TOO_LARGE (URL_BYTES_MAX).
 */
MUST_USE int url__parse(const char *text, size_t text_bytes, struct url_parts *out);

/* Writes "scheme://host[:port]/target", zero-terminated; default ports are left out. 0, or
 * E_TOO_LARGE. `out` must not overlap the parts. */
MUST_USE int url__build(const struct url_parts *parts, char *out, size_t out_bytes);

/*
 * Resolves a Location value against the URL that answered: absolute, "//host/x", "/x", "x" and "?x"
 * forms. Writes an absolute URL, zero-terminated. 0, E_MALFORMED (empty or not accepted by
 * url__parse), E_TOO_LARGE.
 */
MUST_USE int url__resolve(const struct url_parts *base, const char *location, char *out,
                          size_t out_bytes);

/* True for a host whose last label is a number, decimal or 0x..., which is an address in one of the
 * spellings that resolvers read (2130706433, 0x7f.1); one dot at its end does not matter. */
bool url__is_number(const char *host, size_t host_bytes);

/* Same scheme, host and port: the only condition under which credentials travel on (ORG-3). */
bool url__same_origin(const struct url_parts *a, const struct url_parts *b);

#endif
