/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes between origin and client; see direct_body.h. */
#include "direct_body.h"

#include <string.h>

#include "log.h"
#include "loop.h"

int direct_body_init(struct direct_body *body, struct buffer_pool *pool, uint64_t size, bool whole,
                     void (*room)(void *arg), void *arg)
{
    *body = (struct direct_body){.pool = pool, .size = size};
    body->waiter = (struct buffer_waiter){
        .ready = room, .arg = arg, .bytes = DIRECT_SPAN_BYTES, .use = BUFFER_FOR_LOCAL};
    if (!whole || size == 0)
        return 0;
    ASSERT(size <= VERIFY_WHOLE_BYTES_MAX);
    body->whole = loop_alloc(NULL, NULL, (size_t)size);
    return body->whole == NULL ? E_NO_MEMORY : 0;
}

void direct_body_close(struct direct_body *body)
{
    for (unsigned i = 0; i < body->span_count; i++)
        buffer_put(body->spans[i]);
    body->span_count = 0;
    if (body->pool != NULL)
        buffer_unwait(body->pool, &body->waiter);
    body->whole = loop_alloc(NULL, body->whole, 0);
    body->rest = loop_alloc(NULL, body->rest, 0);
    body->rest_bytes = 0;
}

/* The span to fill, or NULL: four are full, or the pool has none. */
static struct buffer *open_span(struct direct_body *body)
{
    struct buffer *last = body->span_count == 0 ? NULL : body->spans[body->span_count - 1];
    if (last != NULL && last->used < DIRECT_SPAN_BYTES)
        return last;
    if (body->span_count == DIRECT_SPANS_MAX)
        return NULL;
    struct buffer *fresh = buffer_get(body->pool, DIRECT_SPAN_BYTES, BUFFER_FOR_LOCAL);
    if (fresh != NULL)
        body->spans[body->span_count++] = fresh;
    else if (!body->waiter.waiting)
        buffer_wait(body->pool, &body->waiter);
    return fresh;
}

/* Returns how many bytes found room. */
static size_t fill(struct direct_body *body, const uint8_t *bytes, size_t byte_count)
{
    size_t used = 0;
    while (used < byte_count) {
        struct buffer *span = open_span(body);
        if (span == NULL)
            break;
        size_t room = DIRECT_SPAN_BYTES - span->used, left = byte_count - used;
        size_t take = left < room ? left : room;
        memcpy(span->bytes + span->used, bytes + used, take);
        span->used += (uint32_t)take;
        used += take;
    }
    return used;
}

int direct_body_put(struct direct_body *body, const uint8_t *bytes, size_t byte_count)
{
    ASSERT(body->rest_bytes == 0);
    if (byte_count > body->size - body->filled)
        return E_TOO_LARGE;
    if (body->whole != NULL) {
        memcpy(body->whole + body->filled, bytes, byte_count);
        body->filled += byte_count;
        return 0;
    }
    body->filled += byte_count;
    size_t used = fill(body, bytes, byte_count);
    if (used == byte_count)
        return 0;
    body->rest = loop_alloc(NULL, NULL, byte_count - used);
    if (body->rest == NULL)
        return E_NO_MEMORY;
    body->rest_bytes = byte_count - used;
    memcpy(body->rest, bytes + used, body->rest_bytes);
    return E_AGAIN;
}

int direct_body_settle(struct direct_body *body)
{
    if (body->rest_bytes == 0)
        return 0;
    size_t used = fill(body, body->rest, body->rest_bytes);
    if (used < body->rest_bytes) {
        memmove(body->rest, body->rest + used, body->rest_bytes - used);
        body->rest_bytes -= used;
        return E_AGAIN;
    }
    body->rest = loop_alloc(NULL, body->rest, 0);
    body->rest_bytes = 0;
    return 0;
}

/* A span may go when it is certain that it is not the end: one follows it, or bytes do that wait
 * for a buffer. The latter keeps those who wait for buffers from waiting for each other. */
bool direct_body_ready(const struct direct_body *body, bool over)
{
    if (body->whole != NULL)
        return over && body->given < body->filled;
    return body->span_count > 1 || (body->span_count == 1 && (over || body->rest_bytes > 0));
}

static void next_of_whole(struct direct_body *body, uint32_t max_bytes, struct blob_chunk *out)
{
    uint64_t left = body->filled - body->given;
    out->bytes = body->whole + body->given;
    out->byte_count = left < max_bytes ? (uint32_t)left : max_bytes;
    body->given += out->byte_count;
}

int direct_body_next(struct direct_body *body, bool over, uint32_t max_bytes,
                     struct blob_chunk *out)
{
    if (!direct_body_ready(body, over))
        return over ? E_CLOSED : E_AGAIN;
    *out = (struct blob_chunk){.fd = -1, .tier = BLOB_FROM_ORIGIN};
    if (body->whole != NULL) {
        next_of_whole(body, max_bytes, out);
        return 0;
    }
    struct buffer *span = body->spans[0];
    if (span->used > max_bytes)
        return E_INTERNAL;
    body->span_count--;
    memmove(body->spans, body->spans + 1, body->span_count * sizeof body->spans[0]);
    out->bytes = span->bytes;
    out->byte_count = span->used;
    out->buffer = span;
    body->given += span->used;
    return 0;
}
