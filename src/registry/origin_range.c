/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which bytes an attempt asks for, and whether the answer holds them (O-8). OSS answers an invalid
 * range, or one past the end, with 200 and the whole object (ACR §7); some proxies ignore ranges or
 * answer with the wrong part. None of that may put a byte at a wrong offset.
 */
#include "origin.h"

#include <string.h>

#include "log.h"

/* Decimal of at most 18 digits. False if there is none. */
static bool number_parse(const char **at, uint64_t *out)
{
    uint64_t value = 0;
    unsigned digits = 0;

    for (; **at >= '0' && **at <= '9'; (*at)++) {
        if (++digits > 18)
            return false;
        value = value * 10 + (uint64_t)(**at - '0');
    }
    *out = value;
    return digits > 0;
}

static bool literal_parse(const char **at, const char *literal)
{
    size_t bytes = strlen(literal);

    if (strncmp(*at, literal, bytes) != 0)
        return false;
    *at += bytes;
    return true;
}

bool origin__content_range_parse(const char *text, uint64_t *first, uint64_t *last, uint64_t *size)
{
    uint64_t a, b, total = UINT64_MAX;

    if (!literal_parse(&text, "bytes ") || !number_parse(&text, &a) || !literal_parse(&text, "-") ||
        !number_parse(&text, &b) || !literal_parse(&text, "/"))
        return false;
    if (!literal_parse(&text, "*") && !number_parse(&text, &total))
        return false;
    if (*text != '\0' || a > b || (total != UINT64_MAX && b >= total))
        return false;
    *first = a;
    *last = b;
    *size = total;
    return true;
}

uint64_t origin__bytes_due(const struct origin_fetch *fetch)
{
    if (fetch->request.whole)
        return fetch->size_bytes;
    return fetch->last - fetch->first + 1;
}

void origin__range_choose(struct origin_fetch *fetch)
{
    bool blob_body = fetch->request.kind == ORIGIN_BLOB && !fetch->head_only;

    fetch->ranged = fetch->probing;
    fetch->from_byte = fetch->to_byte = 0;
    if (!blob_body || (fetch->request.whole && fetch->received_bytes == 0))
        return;
    fetch->ranged = true;
    fetch->from_byte = fetch->first + fetch->received_bytes;
    fetch->to_byte = fetch->last;
    if (fetch->request.whole)
        fetch->to_byte = fetch->size_bytes == UINT64_MAX ? UINT64_MAX : fetch->size_bytes - 1;
}

/* Sizes that must agree (INT-8): what the caller knows and what the answer says. */
static int size_check(const struct origin_fetch *fetch, uint64_t total)
{
    if (total == UINT64_MAX)
        return 0;
    if (total > BLOB_BYTES_MAX)
        return E_TOO_LARGE;
    return fetch->size_bytes == UINT64_MAX || fetch->size_bytes == total ? 0 : E_RANGE;
}

/* A 206. Writes the size it tells, UINT64_MAX if none. */
static int part_check(struct origin_fetch *fetch, const struct fetch_response *response,
                      uint64_t *total)
{
    const char *text = fetch_response_header(response, "content-range");
    uint64_t first, last;
    int err;

    if (!fetch->ranged || text == NULL || !origin__content_range_parse(text, &first, &last, total))
        return E_RANGE;
    if (first != fetch->from_byte)
        return E_RANGE;
    if (response->content_length != UINT64_MAX && response->content_length != last - first + 1)
        return E_RANGE;
    err = size_check(fetch, *total);
    if (err != 0)
        return err;
    if (fetch->to_byte == UINT64_MAX) /* asked to the end of a blob of unknown size */
        return *total != UINT64_MAX && last == *total - 1 ? 0 : E_RANGE;
    if (last == fetch->to_byte)
        return 0;
    /* A range beyond the end of a blob whose size the caller did not know is cut at the end. */
    if (*total == UINT64_MAX || last != *total - 1 || last > fetch->to_byte)
        return E_RANGE;
    fetch->last = last;
    return 0;
}

/* A 200. A range asked for was ignored: the whole blob can stand for its tail, if its size is
 * right. */
static int whole_check(struct origin_fetch *fetch, const struct fetch_response *response,
                       uint64_t *total)
{
    bool to_the_end;
    int err;

    *total = response->content_length;
    err = size_check(fetch, *total);
    if (err != 0 || !fetch->ranged)
        return err;
    if (*total == UINT64_MAX || fetch->from_byte >= *total)
        return E_RANGE;
    to_the_end = fetch->to_byte == UINT64_MAX || fetch->to_byte == *total - 1;
    if (!to_the_end)
        return E_RANGE;
    if (!fetch->request.whole && fetch->from_byte > ORIGIN_SKIP_BYTES_MAX)
        return E_RANGE;
    fetch->skip_bytes = fetch->from_byte;
    return 0;
}

int origin__range_check(struct origin_fetch *fetch, const struct fetch_response *response)
{
    uint64_t total = UINT64_MAX;
    int err;

    ASSERT(response->status == 200 || response->status == 206);
    fetch->skip_bytes = 0;
    err = response->status == 206 ? part_check(fetch, response, &total)
                                  : whole_check(fetch, response, &total);
    /* Learnt only from an answer that is used: a lie must not condemn the next, honest one. */
    if (err == 0 && total != UINT64_MAX)
        fetch->size_bytes = total;
    return err;
}

int origin__probe_answer(struct origin_fetch *fetch, const struct fetch_response *response)
{
    struct fetch_response as_head = *response;
    uint64_t first, last, total = response->content_length;
    const char *text = fetch_response_header(response, "content-range");
    int err;

    if (response->status == 206 &&
        (text == NULL || !origin__content_range_parse(text, &first, &last, &total) || first != 0))
        return E_RANGE;
    if (total == UINT64_MAX || total > BLOB_BYTES_MAX)
        return E_RANGE;
    as_head.status = 200;
    err = headers__copy(&fetch->head, &as_head);
    if (err != 0)
        return err;
    headers__drop(&fetch->head, "content-range");
    headers__drop(&fetch->head, "content-length");
    fetch->head.content_length = total;
    return 0;
}
