/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of a blob from the origin to one client, around mesh and cache: for registries kept off the
 * mesh, for the kill switch (HRD-7), and when the mesh gave nothing in time. Small bodies leave
 * when they are verified (INT-2); of large ones the last part is held back until the digest matched
 * (INT-1). What the registry refuses is refused with its own words (ACL-4).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "direct_body.h"
#include "history.h"
#include "log.h"
#include "mirror_internal.h"

/* Memory of all bodies that are kept whole; who finds none left waits for its turn. */
#define WHOLE_BYTES_MAX (32ull * 1024 * 1024)
static_assert(WHOLE_BYTES_MAX >= VERIFY_WHOLE_BYTES_MAX, "the largest one has its turn, too");

/* However late it is, the registry gets a chance. */
#define HEAD_MIN_US (500ull * 1000)
/* A question without an answer is asked once more beside the first when half of its time is over,
 * and no earlier than this before its end: what a registry's front end lost once it answers at the
 * second try, and a client in mid-pull has nobody else to ask. Of 9 s that is after 5.5 s, so that
 * one that takes 5 s to answer (O-3) is not read twice. */
#define REPEAT_US (3500ull * 1000)

struct direct;

/* One of the questions. */
struct leg {
    struct direct *direct;
    struct origin_fetch *fetch; /* NULL before it starts and when it has ended */
};

struct direct {
    struct mirror_request *request;
    /* Asked by the caller before the answer is given away, while it has the request and hopes for
       the mesh; NULL: the request is ours. */
    direct_answered_fn answered_fn;
    void *answered_arg;
    uv_timer_t timer; /* it is time to repeat; the head's time is up (HTTP-6) */
    uint64_t head_due_us;
    struct leg legs[2];
    struct leg *answered;  /* whose head came first: the other one is gone; NULL: none yet */
    struct hasher *hasher; /* whole bodies only */
    struct blob_span span;
    struct direct_body body;
    uint64_t whole_bytes; /* taken of WHOLE_BYTES_MAX */
    int err;
    int status;      /* of the registry's refusal; 0: none */
    char *challenge; /* owned: its WWW-Authenticate, or NULL */
    char retry[32];  /* its Retry-After, or "" */
    bool streaming, over, paused;
    bool queued;   /* waits for memory */
    bool repeated; /* or it is too late for that */
    bool *in_body; /* set while on_body runs: tells it that we are gone */
    struct direct *next;
};

static bool is_whole(const struct direct *direct)
{
    return direct->span.first == 0 && direct->span.last + 1 == direct->span.size;
}

static bool is_kept(const struct direct *direct)
{
    return is_whole(direct) && direct->span.size <= VERIFY_WHOLE_BYTES_MAX &&
           !direct->request->opaque;
}

static void unqueue(struct direct *direct)
{
    struct direct **link = &direct->request->mirror->direct_queue;
    while (*link != direct)
        link = &(*link)->next;
    *link = direct->next;
    direct->queued = false;
}

static void leg_stop(struct leg *leg)
{
    if (leg->fetch != NULL)
        origin_cancel(leg->direct->request->mirror->config.origin, leg->fetch);
    leg->fetch = NULL;
}

static bool is_asking(const struct direct *direct)
{
    return direct->legs[0].fetch != NULL || direct->legs[1].fetch != NULL;
}

static void timer_closed(uv_handle_t *handle)
{
    (void)loop_alloc(NULL, handle->data, 0);
}

static void direct_free(struct direct *direct)
{
    struct mirror *mirror = direct->request->mirror;
    if (direct->in_body != NULL)
        *direct->in_body = true;
    if (direct->queued)
        unqueue(direct);
    leg_stop(&direct->legs[0]);
    leg_stop(&direct->legs[1]);
    direct_body_close(&direct->body);
    mirror->direct_whole_bytes -= direct->whole_bytes;
    hasher_free(direct->hasher);
    (void)loop_alloc(NULL, direct->challenge, 0);
    (void)uv_timer_stop(&direct->timer);
    uv_close((uv_handle_t *)&direct->timer, timer_closed);
}

static void admit(struct mirror *mirror);

/* Everything is over for this request; another one may have its turn. */
static void finish(struct direct *direct)
{
    struct mirror_request *request = direct->request;
    struct mirror *mirror = request->mirror;
    direct_free(direct);
    mirror_request__free(request);
    admit(mirror);
}

/* ---- to the client ---- */

/* Room was made: what waits is settled, then the origin goes on. */
static void go_on(struct direct *direct)
{
    if (!direct->paused || direct->answered->fetch == NULL ||
        direct_body_settle(&direct->body) != 0)
        return;
    direct->paused = false;
    if (direct->in_body == NULL) /* else it returns true, which is the same */
        origin_resume(direct->request->mirror->config.origin, direct->answered->fetch);
}

static void count_given(const struct direct *direct, uint32_t bytes)
{
    const struct mirror_request *request = direct->request;
    request->mirror->counters.direct_bytes += bytes;
    if (!request->opaque) /* no digest names it */
        history_around_given(blobs_history(request->mirror->config.blobs), &request->route.digest,
                             bytes);
}

static int source_next(void *arg, uint32_t max_bytes, struct blob_chunk *out)
{
    struct direct *direct = arg;
    if (direct->err != 0)
        return direct->err;
    int err = direct_body_next(&direct->body, direct->over, max_bytes, out);
    if (err != 0)
        return err;
    count_given(direct, out->byte_count);
    go_on(direct);
    return 0;
}

static void source_tick(void *arg)
{
    const struct direct *direct = arg;
    mirror__running(direct->request);
}

static void source_close(void *arg)
{
    source_tick(arg);
    finish(arg);
}

static void stream(struct direct *direct)
{
    struct mirror_request *request = direct->request;
    struct body_source source = {
        .arg = direct, .next = source_next, .close = source_close, .tick = source_tick};
    struct response response;
    char range[RANGE_TEXT_BYTES];
    direct->streaming = true;
    (void)uv_timer_stop(&direct->timer);
    mirror__first_byte(request);
    mirror_blob_head(request, &direct->span, BLOB_FROM_ORIGIN, &response, range);
    exchange_stream(request->exchange, &response, direct->span.last - direct->span.first + 1,
                    &source);
}

/* Gives the client what there is. It may find the client gone and free `direct`: touch nothing
 * after. */
static void offer(struct direct *direct)
{
    if (direct->streaming)
        exchange_wake(direct->request->exchange);
    else if (direct->err == 0 && direct_body_ready(&direct->body, direct->over))
        stream(direct);
}

static void room(void *arg)
{
    struct direct *direct = arg;
    go_on(direct);
    offer(direct);
}

/* The registry's own status, or 502 for bytes that are not the blob, or 503. */
static void refuse(struct direct *direct)
{
    if (direct->answered_fn != NULL)
        return; /* until mirror_direct_alone */
    struct mirror_request *request = direct->request;
    char body[HOST_BYTES_MAX + 256], message[HOST_BYTES_MAX + 128];
    size_t body_bytes = 0;
    bool wrong = direct->err == E_DIGEST;
    struct response response = {.status = wrong ? 502 : 503};
    const char *code = "UNAVAILABLE";
    mirror__why(request, direct->err, message, sizeof message);
    if (direct->err == E_ORIGIN && direct->status != 0) {
        response.status = direct->status;
        code = mirror__oci_code(request, direct->status);
    }
    response_add(&response, "Content-Type", "application/json");
    response_add(&response, "WWW-Authenticate", direct->challenge);
    response_add(&response, "Retry-After", direct->retry[0] == '\0' ? NULL : direct->retry);
    if (http_oci_error(body, sizeof body, code, message, &body_bytes) != 0)
        body_bytes = 0;
    request->mirror->counters.unavailable++;
    exchange_respond(request->exchange, &response, body, body_bytes);
    finish(direct);
}

static int ask(struct leg *leg);

/* RES-5: paid for like any other repeated request. */
static void repeat(struct direct *direct)
{
    struct mirror_request *request = direct->request;
    struct mirror *mirror = request->mirror;
    direct->repeated = true;
    if (direct->answered != NULL || !is_asking(direct) ||
        !origin_pay_repeat(mirror->config.origin, request->registry))
        return;
    mirror->counters.direct_repeated += ask(&direct->legs[1]) == 0;
}

/* A small body that is still on its way has its head sent now and its bytes when they are verified
 * (INT-2); where nothing came, the client is told so. */
static void on_timer(uv_timer_t *timer)
{
    struct direct *direct = timer->data;
    uint64_t now_us = mirror__now_us(direct->request->mirror);
    if (direct->streaming || direct->answered_fn != NULL)
        return; /* whoever hopes for the mesh keeps the time */
    if (!direct->repeated && now_us < direct->head_due_us) {
        repeat(direct);
        (void)uv_timer_start(timer, on_timer, (direct->head_due_us - now_us) / 1000, 0);
        return;
    }
    if (direct->body.filled > 0) {
        stream(direct);
        return;
    }
    direct->err = E_TIMEOUT;
    refuse(direct);
}

/* ---- from the origin ---- */

static void keep_challenge(struct direct *direct, const struct fetch_response *response)
{
    const char *challenge = fetch_response_header(response, "www-authenticate");
    const char *retry = fetch_response_header(response, "retry-after");
    if (retry != NULL && text_copy(direct->retry, sizeof direct->retry, retry) != 0)
        direct->retry[0] = '\0';
    if (challenge == NULL || direct->challenge != NULL)
        return;
    size_t bytes = strlen(challenge) + 1;
    direct->challenge = loop_alloc(NULL, NULL, bytes);
    if (direct->challenge != NULL)
        memcpy(direct->challenge, challenge, bytes);
}

static void client_gone(void *arg)
{
    finish(arg);
}

/* From now on nobody else answers it, and nobody else keeps the time. */
static void take_request(struct direct *direct)
{
    uint64_t now_us = mirror__now_us(direct->request->mirror);
    uint64_t left_us = direct->head_due_us > now_us ? direct->head_due_us - now_us : 0;
    direct->answered_fn = NULL;
    exchange_on_gone(direct->request->exchange, client_gone, direct);
    (void)uv_timer_start(&direct->timer, on_timer, left_us / 1000, 0);
}

static void on_head(void *arg, const struct fetch_response *response)
{
    struct leg *leg = arg;
    struct direct *direct = leg->direct;
    int status = response->status;
    direct->answered = leg;
    leg_stop(leg == direct->legs ? &direct->legs[1] : &direct->legs[0]);
    if (status < 400 && direct->answered_fn != NULL) {
        if (!direct->answered_fn(direct->answered_arg)) /* it is gone */
            return;
        take_request(direct);
    }
    if (status < 400)
        return;
    direct->err = E_ORIGIN;
    direct->status = status;
    keep_challenge(direct, response);
    if (status == 401 || status == 403)
        mirror__grant(direct->request, false);
    if (status == 401 && direct->challenge != NULL)
        mirror__challenge(direct->request, direct->challenge);
}

static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct direct *direct = ((struct leg *)arg)->direct;
    if (direct->err != 0)
        return true;
    if (direct->hasher != NULL)
        hasher_update(direct->hasher, bytes, byte_count);
    int err = direct_body_put(&direct->body, bytes, byte_count);
    direct->paused = err == E_AGAIN; /* the client or the pool is slower: go_on resumes */
    if (err != 0 && err != E_AGAIN)
        direct->err = err;
    bool gone = false;
    direct->in_body = &gone;
    offer(direct);
    if (gone)
        return true;
    direct->in_body = NULL;
    return !direct->paused;
}

static void on_done(void *arg, int err)
{
    struct leg *leg = arg;
    struct direct *direct = leg->direct;
    struct mirror_request *request = direct->request;
    int last = origin_last_status(leg->fetch);
    uint32_t retry_ms = origin_retry_after_ms(leg->fetch);
    leg->fetch = NULL;
    if (is_asking(direct))
        return; /* the other one may still be answered */
    if (direct->err == 0)
        direct->err = err;
    if (direct->err == E_ORIGIN && direct->status == 0 && (last == 429 || last >= 500)) {
        direct->status = last; /* O-5: of earlier tries; it was not asked again */
        if (retry_ms > 0)
            (void)snprintf(direct->retry, sizeof direct->retry, "%" PRIu32,
                           (retry_ms + 999) / 1000);
    }
    if (direct->err == 0 && direct->body.filled != direct->body.size)
        direct->err = E_CLOSED;
    if (direct->err == 0 && direct->hasher != NULL) {
        struct digest digest;
        hasher_final(direct->hasher, &digest);
        if (!digest_equal(&digest, &request->route.digest))
            direct->err = E_DIGEST;
    }
    direct->over = direct->err == 0;
    if (direct->err == 0 || direct->streaming)
        offer(direct);
    else
        refuse(direct);
}

static int ask(struct leg *leg)
{
    static const struct fetch_callbacks callbacks = {on_head, on_body, on_done};
    struct direct *direct = leg->direct;
    struct mirror_request *request = direct->request;
    struct mirror *mirror = request->mirror;
    const struct blob_span *span = &direct->span;
    char path[REPOSITORY_BYTES_MAX + DIGEST_TEXT_BYTES + 16];
    (void)snprintf(path, sizeof path, "/v2/%s/blobs/%s", request->route.repository,
                   request->route.reference);
    struct origin_request question = {
        .registry = request->registry,
        .kind = ORIGIN_BLOB,
        .method = "GET",
        .path_and_query = path,
        .url = request->url,
        .authorization = request->authorization,
        .head_ms = mirror__head_ms(request),
        .size_bytes = span->size,
        .first = span->first,
        .last = span->last,
        .whole = direct->hasher != NULL,
    };
    memcpy(question.credential_hash, request->credential_hash, sizeof question.credential_hash);
    return origin_start(mirror->config.origin, mirror__now_us(mirror), &question, &callbacks, leg,
                        &leg->fetch);
}

static int start(struct direct *direct)
{
    const struct blob_span *span = &direct->span;
    int err = direct_body_init(&direct->body, direct->request->mirror->config.pool,
                               span->last - span->first + 1, is_kept(direct), room, direct);
    return err != 0 ? err : ask(&direct->legs[0]);
}

/* ---- turns of bodies that are kept whole ---- */

static bool has_turn(const struct direct *direct)
{
    const struct mirror *mirror = direct->request->mirror;
    return mirror->direct_whole_bytes + direct->span.size <= WHOLE_BYTES_MAX;
}

static void begin(struct direct *direct)
{
    if (is_kept(direct)) {
        direct->whole_bytes = direct->span.size;
        direct->request->mirror->direct_whole_bytes += direct->whole_bytes;
    }
    direct->err = start(direct);
    if (direct->err != 0)
        refuse(direct);
}

static void admit(struct mirror *mirror)
{
    struct direct *first;
    while ((first = mirror->direct_queue) != NULL && has_turn(first)) {
        unqueue(first);
        begin(first);
    }
}

static void queue(struct direct *direct)
{
    struct direct **link = &direct->request->mirror->direct_queue;
    while (*link != NULL)
        link = &(*link)->next;
    *link = direct;
    direct->queued = true;
}

/* NULL without memory. */
static struct direct *make(struct mirror_request *request, const struct blob_span *span)
{
    struct direct *direct = loop_alloc(NULL, NULL, sizeof *direct);
    if (direct == NULL)
        return NULL;
    *direct = (struct direct){.request = request, .span = *span};
    direct->legs[0].direct = direct->legs[1].direct = direct;
    uint64_t took_us = mirror__now_us(request->mirror) - request->started_us;
    uint64_t left_us = took_us < MIRROR_HEAD_US ? MIRROR_HEAD_US - took_us : 0;
    left_us = left_us < HEAD_MIN_US ? HEAD_MIN_US : left_us;
    (void)uv_timer_init(&request->mirror->config.loop->uv, &direct->timer);
    direct->timer.data = direct;
    direct->head_due_us = mirror__now_us(request->mirror) + left_us;
    request->hurry = false; /* that was for the question before */
    if (is_whole(direct) && !request->opaque &&
        hasher_new(request->route.digest.algorithm, &direct->hasher) != 0) {
        direct_free(direct);
        return NULL;
    }
    return direct;
}

/* Asks, or waits for its turn. It may be over and gone after this. */
static void go(struct direct *direct)
{
    if (!is_kept(direct)) {
        begin(direct);
        return;
    }
    struct mirror *mirror = direct->request->mirror;
    queue(direct);
    admit(mirror);
}

void mirror_direct(struct mirror_request *request, const struct blob_span *span)
{
    struct direct *direct = make(request, span);
    if (direct == NULL) {
        mirror__unavailable(request, E_NO_MEMORY);
        return;
    }
    uint64_t left_us = direct->head_due_us - mirror__now_us(request->mirror);
    uint64_t wait_us = left_us / 2 < REPEAT_US ? left_us / 2 : left_us - REPEAT_US;
    (void)uv_timer_start(&direct->timer, on_timer, wait_us / 1000, 0);
    exchange_on_gone(request->exchange, client_gone, direct);
    go(direct);
}

struct direct *mirror_direct_beside(struct mirror_request *request, const struct blob_span *span,
                                    direct_answered_fn answered, void *arg)
{
    struct direct *direct = make(request, span);
    if (direct == NULL)
        return NULL;
    direct->answered_fn = answered;
    direct->answered_arg = arg;
    direct->repeated = true; /* it is a second question itself, of this node or of the mesh */
    go(direct);
    return direct;
}

void mirror_direct_alone(struct direct *direct)
{
    take_request(direct);
    if (direct->err != 0)
        refuse(direct);
}

void mirror_direct_stop(struct direct *direct)
{
    struct mirror *mirror = direct->request->mirror;
    direct_free(direct);
    admit(mirror);
}
