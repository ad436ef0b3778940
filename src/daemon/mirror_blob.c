/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs: the caller's right is proven first (ACL-1..3), then a reader is opened on the live blob
 * and its bytes stream as they may be released. No head is sent before the first byte is there
 * (HTTP-6); if the mesh gives none in time, the origin is read around it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "history.h"
#include "log.h"
#include "mirror_internal.h"

/* No first byte through the mesh for so long, and nothing of the blob came of late: the registry is
 * asked beside it. Early enough for one that takes 5 s to answer (O-3) before the head is due
 * (HTTP-6: 10 s). */
#define BESIDE_US (3500ull * 1000)
/* However long the registry took before; with that (8 s) and direct.c's least time (0.5 s) below
 * HTTP-6's 10 s. */
#define MESH_MIN_US (1000ull * 1000)
/* A read of the registry that runs already is as good as one around the mesh would be, and has a
 * head start: it gets so long (O-3: 5 s to the first byte), then another connection is tried. */
#define FETCH_PATIENCE_US (7ull * 1000000)
/* While bytes come, going there would only add to the crowd that it already serves. */
#define STILL_US (2ull * 1000000)
#define LOOK_US  (500ull * 1000)
/* A registry that answers us sooner than this is not slow: whoever reads it for the mesh is, or its
 * question was lost. */
#define QUICK_US (1ull * 1000000)

struct blob_answer {
    struct mirror_request *request;
    struct blob *blob;
    struct blob_reader reader;
    struct prefetch_image *image; /* told of this read; NULL: not */
    uv_timer_t timer;
    struct blob_span span;
    uint64_t opened;         /* progress when it began; a read that only started adds 1 */
    uint64_t progress;       /* when the timer last looked */
    uint64_t moved_us;       /* it grew, or began */
    uint64_t beside_us;      /* the registry is asked, at the earliest; then: was asked */
    struct direct *beside;   /* the question to it, or NULL */
    struct blob_chunk chunk; /* the first one, got before the head is sent */
    bool has_chunk;
    bool streaming; /* the exchange owns us now */
    bool over;      /* closed, waits for the timer's handle */
    bool failed;
};

static void timer_closed(uv_handle_t *handle)
{
    struct blob_answer *answer = handle->data;
    (void)loop_alloc(NULL, answer, 0);
}

static void ask_no_more(struct blob_answer *answer)
{
    if (answer->beside != NULL)
        mirror_direct_stop(answer->beside);
    answer->beside = NULL;
}

/* Gives everything back; the request stays with the caller. */
static void answer_close(struct blob_answer *answer)
{
    if (answer->over)
        return;
    answer->over = true;
    ask_no_more(answer);
    if (answer->has_chunk)
        blob_chunk_done(&answer->chunk);
    if (answer->image != NULL)
        mirror_prefetch__ended(answer->image);
    blob_read_stop(&answer->reader);
    blob_put(answer->blob);
    (void)uv_timer_stop(&answer->timer);
    uv_close((uv_handle_t *)&answer->timer, timer_closed);
}

/* ---- as the exchange's body source ---- */

static int source_next(void *arg, uint32_t max_bytes, struct blob_chunk *out)
{
    struct blob_answer *answer = arg;
    if (answer->has_chunk && answer->chunk.byte_count <= max_bytes) {
        *out = answer->chunk;
        answer->has_chunk = false;
        return 0;
    }
    return blob_read_next(&answer->reader, max_bytes, out);
}

static void source_tick(void *arg)
{
    const struct blob_answer *answer = arg;
    mirror__running(answer->request);
}

static void source_close(void *arg)
{
    struct blob_answer *answer = arg;
    struct mirror_request *request = answer->request;
    if (blob_read_position(&answer->reader) == answer->span.last + 1)
        mirror__pulled(request);
    else
        request->mirror->counters.blobs_cut++;
    mirror__running(request);
    answer_close(answer);
    mirror_request__free(request);
}

void mirror_blob_head(const struct mirror_request *request, const struct blob_span *span,
                      enum blob_tier tier, struct response *out, char range[RANGE_TEXT_BYTES])
{
    *out = (struct response){.status = span->part ? 206 : 200};
    response_add(out, "Content-Type", "application/octet-stream");
    if (!request->opaque)
        response_add(out, "Docker-Content-Digest", request->route.reference);
    response_add(out, "Docker-Distribution-Api-Version", "registry/2.0");
    response_add(out, "Accept-Ranges", "bytes");
    if (span->part) {
        (void)snprintf(range, RANGE_TEXT_BYTES, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64,
                       span->first, span->last, span->size);
        response_add(out, "Content-Range", range);
    }
    if (tier != 0)
        response_add(out, "Shoal-Source", blob_tier_name(tier));
}

static void stream(struct blob_answer *answer)
{
    struct mirror_request *request = answer->request;
    struct body_source source = {
        .arg = answer, .next = source_next, .close = source_close, .tick = source_tick};
    struct response response;
    char range[RANGE_TEXT_BYTES];
    (void)uv_timer_stop(&answer->timer);
    ask_no_more(answer);
    mirror__first_byte(request);
    mirror_blob_head(request, &answer->span, answer->has_chunk ? answer->chunk.tier : 0, &response,
                     range);
    answer->streaming = true;
    exchange_stream(request->exchange, &response, answer->span.last - answer->span.first + 1,
                    &source);
}

static void note_around(const struct mirror_request *request, uint64_t size_bytes,
                        enum history_around why, int error)
{
    const struct history_subject subject = {
        .digest = &request->route.digest,
        .size_bytes = size_bytes,
        .registry = request->registry->name,
        .repository = request->route.repository,
    };
    if (!request->opaque) /* no digest names it */
        history_around(blobs_history(request->mirror->config.blobs), &subject, why, error);
}

/* `error`: why the mesh gave it up; 0: there was no first byte in time. */
static void note_direct(const struct blob_answer *answer, int error)
{
    const struct mirror_request *request = answer->request;
    char name[SHORT_HEX_BYTES];
    log_to(&request->mirror->config.loop->env, LOG_DEBUG,
           "mirror: around the mesh blob=%s ms=%" PRIu64 " fetching=%d",
           short_hex(request->route.digest.bytes, name),
           (mirror__now_us(request->mirror) - request->started_us) / 1000,
           !answer->reader.ended && blob_read_fetching(&answer->reader));
    note_around(request, answer->span.size, error == 0 ? AROUND_NO_FIRST_BYTE : AROUND_FAILED,
                error);
    request->mirror->counters.direct_fallback++;
}

static void go_direct(struct blob_answer *answer, int error)
{
    struct mirror_request *request = answer->request;
    struct blob_span span = answer->span;
    struct direct *beside = answer->beside;
    note_direct(answer, error);
    answer->beside = NULL;
    answer_close(answer);
    if (beside != NULL)
        mirror_direct_alone(beside);
    else
        mirror_direct(request, &span);
}

/* The registry begins to give the bytes to us (true: they are taken), which is also what the head
 * waited for. Who brings the blob in for the mesh gets them as well: where it does, or the registry
 * is only slow, theirs are the better ones, for everybody's would be as many copies. */
static bool answered_beside(void *arg)
{
    struct blob_answer *answer = arg;
    enum transfer_outlook outlook = blob_read_outlook(&answer->reader);
    bool quick = mirror__now_us(answer->request->mirror) - answer->beside_us < QUICK_US;
    if (outlook == TRANSFER_OUTLOOK_MOVES || (outlook == TRANSFER_OUTLOOK_ASKED && !quick)) {
        stream(answer);
        return false;
    }
    note_direct(answer, 0);
    answer->beside = NULL;
    answer_close(answer);
    return true;
}

/* Tries for the first span; then the head goes out. */
static void try_first(struct blob_answer *answer)
{
    if (answer->over || answer->streaming)
        return;
    int err = blob_read_next(&answer->reader, 256 * 1024, &answer->chunk);
    if (err == E_AGAIN)
        return;
    if (err != 0) {
        go_direct(answer, err);
        return;
    }
    answer->has_chunk = true;
    stream(answer);
}

static void on_ready(void *arg)
{
    struct blob_answer *answer = arg;
    if (answer->streaming)
        exchange_wake(answer->request->exchange);
    else
        try_first(answer);
}

static void on_failed(void *arg, int status)
{
    struct blob_answer *answer = arg;
    char name[SHORT_HEX_BYTES];
    log_to(&answer->request->mirror->config.loop->env, LOG_INFO,
           "mirror: blob not to be had through the mesh blob=%s: %s",
           short_hex(answer->request->route.digest.bytes, name), err_text(status));
    if (answer->streaming)
        exchange_wake(answer->request->exchange); /* its next span is the error: a short end */
    else
        go_direct(answer, status);
}

/* It is time to ask the registry beside the mesh. */
static bool is_still(const struct blob_answer *answer, uint64_t now_us)
{
    bool patient = now_us - answer->request->started_us < FETCH_PATIENCE_US &&
                   blob_read_fetching(&answer->reader);
    return !patient && now_us >= answer->beside_us && now_us - answer->moved_us >= STILL_US;
}

static void ask_beside(struct blob_answer *answer, uint64_t now_us)
{
    struct mirror_request *request = answer->request;
    answer->beside_us = now_us;
    answer->beside = mirror_direct_beside(request, &answer->span, answered_beside, answer);
    request->mirror->counters.direct_beside += answer->beside != NULL;
}

static void on_timer(uv_timer_t *timer)
{
    struct blob_answer *answer = timer->data;
    if (answer->streaming || answer->over)
        return;
    uint64_t now_us = mirror__now_us(answer->request->mirror);
    uint64_t due_us = answer->request->started_us + MIRROR_HEAD_US;
    uint64_t progress = blob_read_progress(&answer->reader);
    bool moves = blob_read_outlook(&answer->reader) == TRANSFER_OUTLOOK_MOVES;
    if (progress > answer->progress || moves)
        answer->moved_us = now_us;
    answer->progress = progress;
    if (moves)
        ask_no_more(answer);
    if (now_us + LOOK_US / 2 > due_us && (progress > answer->opened + 1 || moves)) {
        stream(answer); /* bytes come, and it is too late for another look */
        return;
    }
    if (now_us >= due_us && now_us >= answer->beside_us) {
        go_direct(answer, 0);
        return;
    }
    if (answer->beside == NULL && is_still(answer, now_us))
        ask_beside(answer, now_us);
    uint64_t wait_us = now_us + LOOK_US < due_us || now_us >= due_us ? LOOK_US : due_us - now_us;
    (void)uv_timer_start(timer, on_timer, (wait_us + 999) / 1000, 0);
}

static void client_gone(void *arg)
{
    struct blob_answer *answer = arg;
    struct mirror_request *request = answer->request;
    answer_close(answer);
    mirror_request__free(request);
}

/* When the mesh has had its time for the first byte; what the registry took to authorise is part of
 * it. */
static uint64_t beside_due_us(const struct mirror_request *request)
{
    uint64_t least_us = mirror__now_us(request->mirror) + MESH_MIN_US;
    uint64_t due_us = request->started_us + BESIDE_US;
    return due_us < least_us ? least_us : due_us;
}

/* 0, or E_*: nothing was opened and the request is still the caller's. */
static int open_answer(struct mirror_request *request, const struct blob_span *span,
                       enum piece_cut cut)
{
    struct mirror *mirror = request->mirror;
    struct blob_caller *caller =
        blob_caller_new(request->registry, request->route.repository, request->authorization,
                        request->credential_hash, request->url);
    struct blob_answer *answer = loop_alloc(NULL, NULL, sizeof *answer);
    int err = caller == NULL || answer == NULL ? E_NO_MEMORY : 0;
    struct blob *blob = NULL;
    if (err == 0)
        err = blobs_get_cut(mirror->config.blobs, &request->route.digest, cut, span->size, &blob);
    bool whole = span->first == 0 && span->last + 1 == span->size;
    /* Of a range nobody ever sees the whole digest match (INT-3). */
    if (err == 0 && !whole && mirror->config.config->trust != CONFIG_TRUST_MEMBER &&
        !blob_verified(blob))
        err = E_DIGEST;
    if (err == 0) {
        *answer = (struct blob_answer){
            .request = request, .blob = blob, .span = *span, .chunk = {.fd = -1}};
        answer->reader =
            (struct blob_reader){.ready = on_ready, .failed = on_failed, .arg = answer};
        err = blob_read_start(blob, &answer->reader, span->first, span->last + 1,
                              whole ? TRANSFER_READ_STREAM : TRANSFER_READ_RANGE, caller);
    }
    blob_caller_put(caller);
    if (err != 0) {
        blob_put(blob);
        (void)loop_alloc(NULL, answer, 0);
        return err;
    }
    answer->opened = answer->progress = blob_read_progress(&answer->reader);
    (void)uv_timer_init(&mirror->config.loop->uv, &answer->timer);
    answer->timer.data = answer;
    answer->moved_us = mirror__now_us(mirror);
    answer->beside_us = beside_due_us(request);
    (void)uv_timer_start(&answer->timer, on_timer, LOOK_US / 1000, 0);
    exchange_on_gone(request->exchange, client_gone, answer);
    if (http_request_header(exchange_request(request->exchange), "range") == NULL)
        answer->image = mirror_prefetch__began(request);
    if (!whole)
        mirror_rest__asked(request, blob, span->size);
    try_first(answer);
    return 0;
}

/* HEAD, and blobs without bytes. */
static void answer_empty(struct mirror_request *request, uint64_t size)
{
    struct response response;
    char range[RANGE_TEXT_BYTES];
    struct blob_span all = {.size = size, .last = size - 1};
    struct body_source none = {0};
    mirror_blob_head(request, &all, 0, &response, range);
    response.status = 200;
    if (size == 0)
        exchange_respond(request->exchange, &response, "", 0);
    else
        exchange_stream(request->exchange, &response, size, &none);
    mirror_request__free(request);
}

static void answer_unsatisfiable(struct mirror_request *request, uint64_t size)
{
    char range[RANGE_TEXT_BYTES];
    struct response response = {.status = 416};
    (void)snprintf(range, sizeof range, "bytes */%" PRIu64, size);
    response_add(&response, "Content-Range", range);
    exchange_respond(request->exchange, &response, "", 0);
    mirror_request__free(request);
}

/* May it go to the mesh (ACL-10)? */
static bool is_shared(const struct mirror_request *request)
{
    const struct registry_entry *registry = request->registry;
    if (request->opaque)
        return false;
    if (request->url != NULL)
        return registry_p2p_storage(registry);
    return registry_p2p(registry, request->route.repository);
}

/* What keeps it off the mesh from the start; 0: nothing. */
static enum history_around around_of(const struct mirror_request *request, uint64_t size)
{
    if (request->mirror->config.config->mode == CONFIG_MODE_PASSTHROUGH)
        return AROUND_PASSTHROUGH;
    if (!is_shared(request))
        return AROUND_PRIVATE;
    return size > BLOB_BYTES_MAX ? AROUND_TOO_LARGE : (enum history_around)0;
}

/* Around the mesh from the start. */
static void around_mesh(struct mirror_request *request, const struct blob_span *span,
                        enum history_around why, int err)
{
    note_around(request, span->size, why, err);
    request->mirror->counters.direct++;
    mirror_direct(request, span);
}

static void open_span(struct mirror_request *request, enum piece_cut cut)
{
    const struct blob_span span = request->span;
    int err = open_answer(request, &span, cut);
    if (err != 0)
        around_mesh(request, &span, AROUND_NOT_OPENED, err);
}

static void cut_known(void *arg, enum piece_cut cut)
{
    open_span(arg, cut);
}

static void gone_before_cut(void *arg)
{
    struct mirror_request *request = arg;
    blobs_cut_unwait(request->mirror->config.blobs, &request->cut);
    mirror_request__free(request);
}

/* Small ranges may be read in fine pieces; not where the whole comes behind them anyway, nor where
 * nothing counts but the whole digest. */
static void choose_cut(struct mirror_request *request)
{
    const struct config *config = request->mirror->config.config;
    const struct blob_span *span = &request->span;
    enum piece_cut cut = PIECE_CUT_PLAIN;
    request->cut = (struct cut_waiter){.range = {.digest = request->route.digest,
                                                 .size_bytes = span->size,
                                                 .first = span->first,
                                                 .end = span->last + 1},
                                       .known = cut_known,
                                       .arg = request};
    if (span->part && !config->prefetch_ranges && config->trust == CONFIG_TRUST_MEMBER &&
        !blobs_cut_of(request->mirror->config.blobs, &request->cut, &cut)) {
        exchange_on_gone(request->exchange, gone_before_cut, request);
        return;
    }
    open_span(request, cut);
}

/* The caller may read this blob of this size. */
static void serve(struct mirror_request *request, uint64_t size)
{
    const struct http_request *http = exchange_request(request->exchange);
    struct blob_span span = {.size = size};
    if (size == 0 || http->method == HTTP_HEAD) {
        answer_empty(request, size);
        return;
    }
    switch (http_range_resolve(http_request_header(http, "range"), size, &span.first, &span.last)) {
    case HTTP_RANGE_UNSATISFIABLE:
        answer_unsatisfiable(request, size);
        return;
    case HTTP_RANGE_WHOLE:
        span.first = 0;
        span.last = size - 1;
        break;
    case HTTP_RANGE_PART:
        span.part = true;
        break;
    }
    enum history_around around = around_of(request, size);
    if (around != 0) {
        around_mesh(request, &span, around, 0);
        return;
    }
    blobs_content_seen(request->mirror->config.blobs, &request->route.digest);
    request->span = span;
    choose_cut(request);
}

static bool is_linked(const struct mirror_request *request, uint64_t *size)
{
    return grants_linked(request->mirror->config.grants, request->registry->name,
                         request->route.repository, &request->route.digest, size);
}

/* The registry's word on whether these credentials may read this blob (ACL-1, ACL-3). */
static void authorised(void *arg, int err)
{
    struct mirror_request *request = arg;
    uint64_t size;
    int status = err == 0 ? relay_status(request->relay) : 0;
    mirror_silence__heard(request, err, status);
    if (mirror__registry_down(err, status) && mirror__granted_stale(request) &&
        is_linked(request, &size)) {
        relay_free(request->relay);
        request->relay = NULL;
        serve(request, size);
        return;
    }
    if (err != 0) {
        mirror__unavailable(request, err);
        return;
    }
    mirror__heed(request);
    if (status != 200) {
        relay_answer(request);
        return;
    }
    size = relay_content_length(request->relay);
    if (size == UINT64_MAX) {
        exchange_error(request->exchange, 502, "BLOB_UNKNOWN", "the registry did not tell a size");
        mirror_request__free(request);
        return;
    }
    mirror__link(request, &request->route.digest, size);
    relay_free(request->relay);
    request->relay = NULL;
    serve(request, size);
}

void mirror_blob(struct mirror_request *request)
{
    uint64_t size;
    char path[REPOSITORY_BYTES_MAX + DIGEST_TEXT_BYTES + 16];
    (void)snprintf(path, sizeof path, "/v2/%s/blobs/%s", request->route.repository,
                   request->route.reference);
    request->mirror->counters.blobs++;
    origin_asked_anew(request->mirror->config.origin, request->registry, path);
    bool linked = is_linked(request, &size);
    if (linked && mirror__granted(request)) {
        mirror__running(request);
        serve(request, size);
        return;
    }
    request->hurry = linked && mirror__granted_stale(request);
    if (request->hurry && mirror_silence__known(request)) {
        request->mirror->counters.unasked++;
        serve(request, size);
        return;
    }
    int err = relay_start(request, ORIGIN_BLOB, "HEAD", path, authorised, request);
    if (err != 0)
        mirror__unavailable(request, err);
}
