/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Range requests (RFC 9110 §14.1.2, HTTP-5) on a body of known size. One range is answered; several
 * are not worth a multipart body: the whole is sent, which RFC 9110 §14.2 allows. Where the RFC
 * calls `500-0` invalid (to be ignored), the OCI conformance suite wants 416 (CLIENTS §11.6).
 */
#include "http.h"

#include <string.h>
#include <strings.h>

/* Digits at *text, which moves behind them; a number over 64 bits is UINT64_MAX, larger than any
 * body. False: no digit there. */
static bool take_number(const char **text, uint64_t *out)
{
    const char *at = *text;
    uint64_t value = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (UINT64_MAX - digit) / 10)
            value = UINT64_MAX;
        else
            value = value * 10 + digit;
    }
    bool found = at != *text;
    *text = at;
    *out = value;
    return found;
}

/* "-n": the last n bytes. */
static enum http_range_kind resolve_suffix(const char *text, uint64_t size_bytes, uint64_t *first,
                                           uint64_t *last)
{
    uint64_t wanted;
    if (!take_number(&text, &wanted) || *text != '\0')
        return HTTP_RANGE_WHOLE;
    if (wanted == 0)
        return HTTP_RANGE_UNSATISFIABLE;
    if (size_bytes == 0) /* satisfiable, but there is no Content-Range for it */
        return HTTP_RANGE_WHOLE;
    *first = wanted < size_bytes ? size_bytes - wanted : 0;
    *last = size_bytes - 1;
    return HTTP_RANGE_PART;
}

/* "a-" or "a-b". */
static enum http_range_kind resolve_positions(const char *text, uint64_t size_bytes,
                                              uint64_t *first, uint64_t *last)
{
    uint64_t from, to = UINT64_MAX;
    if (!take_number(&text, &from) || *text++ != '-')
        return HTTP_RANGE_WHOLE;
    if (*text != '\0' && (!take_number(&text, &to) || *text != '\0'))
        return HTTP_RANGE_WHOLE;
    if (from >= size_bytes || to < from)
        return HTTP_RANGE_UNSATISFIABLE;
    *first = from;
    *last = to < size_bytes ? to : size_bytes - 1;
    return HTTP_RANGE_PART;
}

enum http_range_kind http_range_resolve(const char *range, uint64_t size_bytes, uint64_t *first,
                                        uint64_t *last)
{
    static const char unit[] = "bytes=";
    if (range == NULL || strncasecmp(range, unit, sizeof unit - 1) != 0)
        return HTTP_RANGE_WHOLE;
    const char *spec = range + sizeof unit - 1;
    if (*spec == '-')
        return resolve_suffix(spec + 1, size_bytes, first, last);
    return resolve_positions(spec, size_bytes, first, last);
}
