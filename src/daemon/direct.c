/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of a blob from the origin to one client, around mesh and cache: for registries kept off the
 * mesh, for the kill switch (HRD-7), and when the mesh gave nothing in time. A whole body is hashed
 * on its way and its last part held back until the digest matched (INT-1).
 */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "mirror_internal.h"

/* Spans are collected into buffers of this size; so many may wait for a slow client. */
#define SPAN_BYTES (256 * 1024)
#define SPANS_MAX  4
static_assert(SPAN_BYTES >= HELD_BACK_BYTES, "the last span is what is held back");

struct direct {
    struct mirror_request *request;
    struct origin_fetch *fetch; /* NULL when it has ended */
    struct hasher *hasher;      /* whole bodies only */
    struct blob_span span;
    uint64_t got;
    struct buffer *spans[SPANS_MAX + 1]; /* oldest first; the last one is being filled */
    unsigned span_count;
    int err;
    bool streaming, over, paused;
};

static void direct_free(struct direct *direct)
{
    struct mirror_request *request = direct->request;
    if (direct->fetch != NULL)
        origin_cancel(request->mirror->config.origin, direct->fetch);
    for (unsigned i = 0; i < direct->span_count; i++)
        buffer_put(direct->spans[i]);
    hasher_free(direct->hasher);
    (void)loop_alloc(NULL, direct, 0);
    mirror_request__free(request);
}

/* ---- as the exchange's body source ---- */

static int source_next(void *arg, uint32_t max_bytes, struct blob_chunk *out)
{
    struct direct *direct = arg;
    bool ready = direct->span_count > 1 || (direct->over && direct->span_count == 1);
    if (direct->err != 0)
        return direct->err;
    if (!ready)
        return direct->over ? E_CLOSED : E_AGAIN;
    struct buffer *span = direct->spans[0];
    if (span->used > max_bytes)
        return E_INTERNAL; /* longer than the length we announced */
    for (unsigned i = 1; i < direct->span_count; i++)
        direct->spans[i - 1] = direct->spans[i];
    direct->span_count--;
    *out = (struct blob_chunk){.bytes = span->bytes,
                               .byte_count = span->used,
                               .fd = -1,
                               .tier = BLOB_FROM_ORIGIN,
                               .buffer = span};
    if (direct->paused && direct->fetch != NULL) {
        direct->paused = false;
        origin_resume(direct->request->mirror->config.origin, direct->fetch);
    }
    return 0;
}

static void source_close(void *arg)
{
    direct_free(arg);
}

static void stream(struct direct *direct)
{
    struct mirror_request *request = direct->request;
    struct body_source source = {.arg = direct, .next = source_next, .close = source_close};
    struct response response;
    char range[RANGE_TEXT_BYTES];
    direct->streaming = true;
    mirror__first_byte(request, BLOB_FROM_ORIGIN);
    mirror_blob_head(request, &direct->span, BLOB_FROM_ORIGIN, &response, range);
    exchange_stream(request->exchange, &response, direct->span.last - direct->span.first + 1,
                    &source);
}

/* ---- from the origin ---- */

static void on_head(void *arg, const struct fetch_response *response)
{
    struct direct *direct = arg;
    int status = response->status;
    if (status < 400)
        return;
    direct->err = E_ORIGIN;
    if (status == 401 || status == 403)
        mirror__grant(direct->request, false);
}

static bool append(struct direct *direct, const uint8_t *bytes, size_t byte_count)
{
    struct buffer_pool *pool = direct->request->mirror->config.pool;
    while (byte_count > 0) {
        struct buffer *span =
            direct->span_count == 0 ? NULL : direct->spans[direct->span_count - 1];
        if (span == NULL || span->used == SPAN_BYTES) {
            if (direct->span_count == SPANS_MAX + 1)
                return false;
            span = buffer_get(pool, SPAN_BYTES, BUFFER_FOR_LOCAL);
            if (span == NULL)
                return false;
            direct->spans[direct->span_count++] = span;
        }
        size_t room = SPAN_BYTES - span->used, take = byte_count < room ? byte_count : room;
        memcpy(span->bytes + span->used, bytes, take);
        span->used += (uint32_t)take;
        bytes += take;
        byte_count -= take;
    }
    return true;
}

static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct direct *direct = arg;
    if (direct->err != 0)
        return true;
    if (direct->hasher != NULL)
        hasher_update(direct->hasher, bytes, byte_count);
    direct->got += byte_count;
    if (!append(direct, bytes, byte_count)) {
        direct->err = E_NO_MEMORY;
        return true;
    }
    if (direct->span_count >= SPANS_MAX) { /* the client is slower: source_next resumes */
        direct->paused = true;
        return false;
    }
    /* Either may find the client gone and free `direct`: nothing is touched after. */
    if (direct->streaming)
        exchange_wake(direct->request->exchange);
    else if (direct->span_count > 1)
        stream(direct);
    return true;
}

static void on_done(void *arg, int err)
{
    struct direct *direct = arg;
    struct mirror_request *request = direct->request;
    direct->fetch = NULL;
    direct->over = true;
    if (direct->err == 0)
        direct->err = err;
    if (direct->err == 0 && direct->got != direct->span.last - direct->span.first + 1)
        direct->err = E_CLOSED;
    if (direct->err == 0 && direct->hasher != NULL) {
        struct digest digest;
        hasher_final(direct->hasher, &digest);
        if (!digest_equal(&digest, &request->route.digest))
            direct->err = E_DIGEST;
    }
    if (direct->streaming) {
        exchange_wake(request->exchange);
    } else if (direct->err == 0) {
        stream(direct);
    } else {
        char message[HOST_BYTES_MAX + 128];
        (void)snprintf(message, sizeof message, "registry %s: %s", request->registry->name,
                       err_text(direct->err));
        request->mirror->counters.unavailable++;
        exchange_error(request->exchange, direct->err == E_DIGEST ? 502 : 503, "UNAVAILABLE",
                       message);
        direct_free(direct);
    }
}

static void client_gone(void *arg)
{
    direct_free(arg);
}

static int start(struct direct *direct)
{
    static const struct fetch_callbacks callbacks = {on_head, on_body, on_done};
    struct mirror_request *request = direct->request;
    struct mirror *mirror = request->mirror;
    char path[REPOSITORY_BYTES_MAX + DIGEST_TEXT_BYTES + 16];
    (void)snprintf(path, sizeof path, "/v2/%s/blobs/%s", request->route.repository,
                   request->route.reference);
    struct origin_request ask = {
        .registry = request->registry,
        .kind = ORIGIN_BLOB,
        .method = "GET",
        .path_and_query = path,
        .authorization = request->authorization,
        .size_bytes = direct->span.size,
        .first = direct->span.first,
        .last = direct->span.last,
        .whole = direct->hasher != NULL,
    };
    memcpy(ask.credential_hash, request->credential_hash, sizeof ask.credential_hash);
    return origin_start(mirror->config.origin, mirror__now_us(mirror), &ask, &callbacks, direct,
                        &direct->fetch);
}

void mirror_direct(struct mirror_request *request, const struct blob_span *span)
{
    struct direct *direct = loop_alloc(NULL, NULL, sizeof *direct);
    if (direct == NULL) {
        mirror__unavailable(request, E_NO_MEMORY);
        return;
    }
    *direct = (struct direct){.request = request, .span = *span};
    int err = 0;
    if (span->first == 0 && span->last + 1 == span->size)
        err = hasher_new(request->route.digest.algorithm, &direct->hasher);
    if (err == 0)
        err = start(direct);
    if (err != 0) {
        hasher_free(direct->hasher);
        (void)loop_alloc(NULL, direct, 0);
        mirror__unavailable(request, err);
        return;
    }
    exchange_on_gone(request->exchange, client_gone, direct);
}
