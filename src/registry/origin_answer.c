/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine reports of an attempt, and what the caller sees of it. Blob bytes go through as
 * they come, each at a checked offset. Everything else (errors, manifests, documents, HEAD answers)
 * is held back until complete, so that a cut or passing failure can be retried unseen.
 */
#include "origin.h"

#include <string.h>

#include "log.h"

#define FIRST_BODY_BYTES 4096

void origin__answer_drop(struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;

    if (fetch->body != NULL) {
        ASSERT(origin->buffered_bytes >= fetch->body_capacity);
        origin->buffered_bytes -= fetch->body_capacity;
        (void)origin->env.alloc(origin->env.host, fetch->body, 0);
    }
    fetch->body = NULL;
    fetch->body_used = fetch->body_capacity = fetch->body_sent = 0;
    fetch->answer_held = false;
    headers__reset(&fetch->head);
}

/* Room for `more` bytes in the held-back body. 0, E_TOO_LARGE, E_NO_MEMORY. */
static int body_room(struct origin_fetch *fetch, size_t more)
{
    struct origin *origin = fetch->origin;
    size_t capacity = fetch->body_capacity == 0 ? FIRST_BODY_BYTES : fetch->body_capacity;
    uint8_t *body;

    if (more > fetch->body_max - fetch->body_used)
        return E_TOO_LARGE;
    if (fetch->body_used + more <= fetch->body_capacity)
        return 0;
    while (capacity < fetch->body_used + more)
        capacity *= 2;
    if (origin->buffered_bytes - fetch->body_capacity + capacity > ORIGIN_BUFFERED_BYTES_MAX) {
        origin->counters.buffers_refused++;
        return E_TOO_LARGE;
    }
    body = origin->env.alloc(origin->env.host, fetch->body, capacity);
    if (body == NULL)
        return E_NO_MEMORY;
    origin->buffered_bytes += capacity - fetch->body_capacity;
    fetch->body = body;
    fetch->body_capacity = capacity;
    return 0;
}

/* ---- delivery ---- */

/* What done says of a held-back answer. */
static int answer_error(const struct origin_fetch *fetch)
{
    if (fetch->last_status >= 400)
        return E_ORIGIN;
    if (fetch->request.kind == ORIGIN_BLOB && fetch->last_status != 304 &&
        !(fetch->head_only && fetch->last_status == 200))
        return E_ORIGIN;
    return 0;
}

void origin__deliver(struct origin_fetch *fetch)
{
    struct fetch_response response;

    if (!fetch->head_shown) {
        fetch->head_shown = true;
        headers__view(&fetch->head, &response);
        fetch->callbacks.head(fetch->arg, &response);
    }
    while (fetch->state == ORIGIN_DELIVERING && fetch->body_sent < fetch->body_used) {
        size_t bytes = fetch->body_used - fetch->body_sent;
        const uint8_t *from = fetch->body + fetch->body_sent;

        if (bytes > ORIGIN_DELIVER_BYTES)
            bytes = ORIGIN_DELIVER_BYTES;
        fetch->body_sent += bytes;
        if (!fetch->callbacks.body(fetch->arg, from, bytes)) {
            fetch->caller_paused = true;
            return; /* origin_resume asks for the turn that goes on here */
        }
    }
    if (fetch->state == ORIGIN_DELIVERING)
        origin__finish(fetch, answer_error(fetch));
}

/* The held-back answer is complete. */
static void answer_complete(struct origin_fetch *fetch)
{
    uint64_t length = fetch->head.content_length;

    if (!fetch->head_only && length != UINT64_MAX && length != fetch->body_used) {
        headers__drop(&fetch->head, "content-length");
        fetch->head.content_length = UINT64_MAX;
    }
    fetch->answer_held = true;
    /* After a head was shown the caller has part of a blob: nothing else may follow it. */
    if (fetch->head_shown || (fetch->last_status >= 400 &&
                              (origin__status_passing(fetch->last_status) || fetch->away))) {
        origin__attempt_ended(fetch, 0);
        return;
    }
    origin__state(fetch, ORIGIN_DELIVERING);
    origin__deliver(fetch);
}

/* ---- head ---- */

static void on_redirect(struct origin_fetch *fetch, const struct fetch_response *response)
{
    int err = origin__redirect_note(fetch, response);

    if (err == 0) {
        origin__state(fetch, ORIGIN_REDIRECTING);
        return;
    }
    fetch->origin->counters.redirects_refused += err == E_REFUSED ? 1 : 0;
    origin__attempt_ended(fetch, err);
}

static void on_blob(struct origin_fetch *fetch, const struct fetch_response *response)
{
    int err = origin__range_check(fetch, response);

    if (err != 0) {
        fetch->origin->counters.ranges_wrong++;
        origin__attempt_ended(fetch, err);
        return;
    }
    origin__target_put(fetch);
    origin__state(fetch, ORIGIN_STREAMING);
    if (fetch->head_shown)
        return;
    fetch->head_shown = true;
    fetch->callbacks.head(fetch->arg, response);
}

/* A HEAD that the redirect target refuses: URLs signed for GET (ACR §7). */
static bool probe_wanted(const struct origin_fetch *fetch, int status)
{
    return fetch->head_only && fetch->request.kind == ORIGIN_BLOB && fetch->away &&
           !fetch->probing && (status == 403 || status == 405 || status == 501);
}

static void probe_start(struct origin_fetch *fetch)
{
    int err;

    origin__stop_attempt(fetch);
    fetch->probing = true;
    err = origin__at_registry(fetch);
    if (err == 0)
        err = origin__send(fetch);
    if (err != 0)
        origin__attempt_ended(fetch, E_UNREACHABLE);
}

static void on_probe(struct origin_fetch *fetch, const struct fetch_response *response)
{
    int err = origin__probe_answer(fetch, response);

    origin__stop_attempt(fetch);
    if (err != 0) {
        origin__attempt_ended(fetch, err);
        return;
    }
    fetch->last_status = 200;
    origin__state(fetch, ORIGIN_COLLECTING);
    answer_complete(fetch);
}

static void on_document(struct origin_fetch *fetch, const struct fetch_response *response)
{
    bool error = response->status >= 400;
    uint64_t length = response->content_length;
    int err = headers__copy(&fetch->head, response);

    fetch->body_max = error ? ORIGIN_ERROR_BYTES_MAX : ORIGIN_DOCUMENT_BYTES_MAX;
    if (err == 0 && !error && !fetch->head_only && length != UINT64_MAX && length > fetch->body_max)
        err = E_TOO_LARGE;
    if (err == 0 && fetch->head_only && fetch->request.kind == ORIGIN_BLOB &&
        response->status == 200 && length != UINT64_MAX && fetch->size_bytes != UINT64_MAX &&
        length != fetch->size_bytes)
        err = E_RANGE;
    if (err != 0) {
        origin__attempt_ended(fetch, err);
        return;
    }
    origin__state(fetch, ORIGIN_COLLECTING);
}

static void engine_head(void *arg, const struct fetch_response *response)
{
    struct origin_fetch *fetch = arg;
    int status = response->status;
    bool has_bytes = status == 200 || status == 206;

    if (fetch->state != ORIGIN_REQUESTING)
        return;
    origin__enter(fetch->origin);
    origin__breaker_good(fetch);
    fetch->last_status = status;
    if (status == 401 && origin__auth_challenged(fetch, response)) {
        origin__leave(fetch->origin);
        return;
    }
    fetch->retry_after_ms = status >= 400 ? origin__retry_after_ms(response) : 0;
    origin__trouble_note(fetch, status);
    if (origin__is_redirect(status))
        on_redirect(fetch, response);
    else if (probe_wanted(fetch, status))
        probe_start(fetch);
    else if (has_bytes && fetch->probing)
        on_probe(fetch, response);
    else if (has_bytes && fetch->request.kind == ORIGIN_BLOB && !fetch->head_only)
        on_blob(fetch, response);
    else
        on_document(fetch, response);
    origin__leave(fetch->origin);
}

/* ---- body ---- */

static void on_stream(struct origin_fetch *fetch, const uint8_t *bytes, size_t byte_count)
{
    uint64_t due = origin__bytes_due(fetch);
    uint64_t room = (due == UINT64_MAX ? BLOB_BYTES_MAX : due) - fetch->received_bytes;
    bool too_many;

    origin__breaker_good(fetch);
    if (fetch->skip_bytes > 0) {
        size_t skip = fetch->skip_bytes < byte_count ? (size_t)fetch->skip_bytes : byte_count;

        fetch->skip_bytes -= skip;
        bytes += skip;
        byte_count -= skip;
    }
    too_many = byte_count > room;
    if (too_many)
        byte_count = (size_t)room;
    fetch->received_bytes += byte_count;
    if (byte_count > 0 && !fetch->callbacks.body(fetch->arg, bytes, byte_count))
        fetch->caller_paused = true;
    if (!too_many || fetch->state != ORIGIN_STREAMING)
        return;
    /* INT-8: more than declared ends it at once. */
    origin__stop_attempt(fetch);
    origin__finish(fetch, E_TOO_LARGE);
}

static void on_collect(struct origin_fetch *fetch, const uint8_t *bytes, size_t byte_count)
{
    bool error = fetch->last_status >= 400;
    size_t room = fetch->body_max - fetch->body_used;
    size_t take = error && byte_count > room ? room : byte_count;
    int err = body_room(fetch, take);

    if (err != 0 && !error) {
        origin__attempt_ended(fetch, err);
        return;
    }
    if (err == 0 && take > 0) {
        memcpy(fetch->body + fetch->body_used, bytes, take);
        fetch->body_used += take;
    }
    if (err == 0 && take == byte_count)
        return;
    /* An error's text is cut rather than refused: its status is what matters. */
    origin__stop_attempt(fetch);
    answer_complete(fetch);
}

/* The redirect was understood; whatever became of its body, the next hop follows. */
static void redirect_go(struct origin_fetch *fetch)
{
    int err;

    origin__stop_attempt(fetch);
    origin__state(fetch, ORIGIN_REQUESTING);
    err = origin__redirect_follow(fetch);
    if (err != 0)
        origin__attempt_ended(fetch, err == E_NO_MEMORY ? err : E_UNREACHABLE);
}

static bool engine_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct origin_fetch *fetch = arg;
    struct origin *origin = fetch->origin;
    bool go_on;

    origin__enter(origin);
    switch (fetch->state) {
    case ORIGIN_REDIRECTING:
        fetch->ignored_bytes += byte_count;
        if (fetch->ignored_bytes > ORIGIN_ERROR_BYTES_MAX)
            redirect_go(fetch);
        break;
    case ORIGIN_COLLECTING:
        on_collect(fetch, bytes, byte_count);
        break;
    case ORIGIN_STREAMING:
        on_stream(fetch, bytes, byte_count);
        break;
    case ORIGIN_REQUESTING:
    case ORIGIN_QUEUED:
    case ORIGIN_AUTHORISING:
    case ORIGIN_DECIDING:
    case ORIGIN_WAITING:
    case ORIGIN_DELIVERING:
    case ORIGIN_ENDED:
        break; /* of an attempt given up in this very callback */
    }
    origin__flow_spend(fetch, byte_count);
    go_on = !fetch->caller_paused && !fetch->throttled;
    origin__leave(origin);
    return go_on;
}

/* ---- done ---- */

static void on_stream_end(struct origin_fetch *fetch, int err)
{
    uint64_t due = origin__bytes_due(fetch);

    if (fetch->received_bytes == due || (due == UINT64_MAX && err == 0)) {
        origin__finish(fetch, 0);
        return;
    }
    fetch->origin->counters.bodies_cut++;
    origin__attempt_ended(fetch, err == 0 ? E_CLOSED : err);
}

static void engine_done(void *arg, int err)
{
    struct origin_fetch *fetch = arg;
    struct origin *origin = fetch->origin;

    origin__enter(origin);
    fetch->running = NULL;
    origin__place_give(fetch);
    switch (fetch->state) {
    case ORIGIN_REQUESTING:
        fetch->silent = true;
        origin__attempt_ended(fetch, err == 0 ? E_CLOSED : err);
        break;
    case ORIGIN_REDIRECTING:
        redirect_go(fetch);
        break;
    case ORIGIN_COLLECTING:
        /* distribution's 416 announces more bytes than it sends, then closes (CLIENTS §4). */
        if (err == 0 || fetch->last_status >= 400)
            answer_complete(fetch);
        else
            origin__attempt_ended(fetch, err);
        break;
    case ORIGIN_STREAMING:
        on_stream_end(fetch, err);
        break;
    case ORIGIN_QUEUED:
    case ORIGIN_AUTHORISING:
    case ORIGIN_DECIDING:
    case ORIGIN_WAITING:
    case ORIGIN_DELIVERING:
    case ORIGIN_ENDED:
        break;
    }
    origin__leave(origin);
}

const struct fetch_callbacks origin__engine_callbacks = {
    .head = engine_head,
    .body = engine_body,
    .done = engine_done,
};
