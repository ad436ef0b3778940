/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading pieces from the origin: one ranged request for a leased run of pieces, with the
 * credentials of one of the blob's readers; each piece is handed on as it completes.
 */
#include "blob_internal.h"

#include <stdio.h>
#include <string.h>

#include "log.h"

/* Complete pieces of one fetch in worker hands at once; then the request is paused. Fine ones come
 * many at a time: as many as half a MiB holds. */
#define FETCH_JOBS_MIN   4u
#define FETCH_JOBS_BYTES (512u * 1024)

/* Nobody's response head hangs on one read of many: its turn among other reads may take a while. */
#define HEAD_MS 12000

struct blob_fetch {
    struct blob *blob; /* one reference */
    uint64_t id;       /* transfer's; 0: a repair */
    struct blob_caller *caller;
    struct origin_fetch *request; /* NULL when it has ended */
    uint32_t piece, end;          /* next piece to fill */
    struct buffer *buffer;        /* being filled */
    uint64_t bytes;
    uint8_t *rest; /* owned: what came before the pause and found no buffer */
    size_t rest_bytes;
    uint32_t jobs;
    int status;
    uint32_t retry_after_ms;
    bool paused, over;
    bool spare; /* of its registry, if that rests: another node may get the lease */
    struct buffer_waiter waiter;
    struct blob_fetch *next;
};

/* The newest one: its token lives longest. */
struct blob_caller *blob_fetch__caller(const struct blob *blob)
{
    for (uint32_t i = blob->caller_count; i > 0; i--) {
        if (!blob->callers[i - 1]->refused)
            return blob->callers[i - 1];
    }
    return NULL;
}

static void fetch_free(struct blob_fetch *fetch)
{
    struct blob *blob = fetch->blob;
    struct blob_fetch **link = &blob->fetches;
    while (*link != fetch)
        link = &(*link)->next;
    *link = fetch->next;
    buffer_unwait(blob->blobs->config.pool, &fetch->waiter);
    buffer_put(fetch->buffer);
    (void)loop_alloc(NULL, fetch->rest, 0);
    blob_caller_put(fetch->caller);
    blob->blobs->counters.fetches--;
    (void)loop_alloc(NULL, fetch, 0);
    blob__unref(blob);
}

/* When the request is over and the last piece is stored, transfer hears of it. */
static void fetch_finish(struct blob_fetch *fetch)
{
    if (!fetch->over || fetch->jobs > 0)
        return;
    struct blob *blob = fetch->blob;
    struct blobs *blobs = blob->blobs;
    if (fetch->status != 0 && fetch->status != E_CANCELLED)
        history_fetch_failed(blobs->history, &blob->info.digest, fetch->status);
    if (fetch->id != 0)
        transfer_fetch_end(node_transfer(blobs->config.node), loop_now_us(blobs->config.loop),
                           fetch->id, fetch->status, fetch->retry_after_ms);
    else if (fetch->status != 0) {
        blob->repairing = false;
        blob_blame_clear(&blob->blame);
        blob__fail(blob, fetch->status);
    }
    (void)blob__ref(blob);
    fetch_free(fetch);
    blob_refusal__check(blob);
    blob__unref(blob);
}

static void piece_full(struct blob_fetch *fetch);

static uint32_t jobs_max(const struct blob *blob)
{
    uint32_t jobs = FETCH_JOBS_BYTES / blob->layout.piece_bytes;
    return jobs > FETCH_JOBS_MIN ? jobs : FETCH_JOBS_MIN;
}

/* A buffer for the next piece; false: the request must pause. */
static bool have_buffer(struct blob_fetch *fetch)
{
    struct blob *blob = fetch->blob;
    if (fetch->buffer != NULL)
        return true;
    if (fetch->jobs >= jobs_max(blob))
        return false;
    uint32_t bytes = piece_length(&blob->layout, fetch->piece);
    fetch->buffer = blob_memory__buffer(blob->blobs, bytes);
    if (fetch->buffer == NULL && !fetch->waiter.waiting) {
        fetch->waiter.bytes = bytes;
        fetch->waiter.use = BUFFER_FOR_LOCAL;
        buffer_wait(blob->blobs->config.pool, &fetch->waiter);
    }
    return fetch->buffer != NULL;
}

/* Fills pieces; returns how much found room. What is behind the last piece is dropped. */
static size_t fill(struct blob_fetch *fetch, const uint8_t *bytes, size_t byte_count)
{
    size_t used = 0;
    while (used < byte_count && fetch->piece < fetch->end) {
        if (!have_buffer(fetch))
            return used;
        uint32_t room = piece_length(&fetch->blob->layout, fetch->piece) - fetch->buffer->used;
        size_t left = byte_count - used;
        uint32_t take = left < room ? (uint32_t)left : room;
        memcpy(fetch->buffer->bytes + fetch->buffer->used, bytes + used, take);
        fetch->buffer->used += take;
        fetch->bytes += take;
        used += take;
        if (take == room)
            piece_full(fetch);
    }
    return byte_count;
}

static void wake_request(struct blob_fetch *fetch)
{
    if (!fetch->paused || fetch->request == NULL)
        return;
    size_t used = fill(fetch, fetch->rest, fetch->rest_bytes);
    if (used < fetch->rest_bytes) {
        memmove(fetch->rest, fetch->rest + used, fetch->rest_bytes - used);
        fetch->rest_bytes -= used;
        return;
    }
    fetch->rest = loop_alloc(NULL, fetch->rest, 0);
    fetch->rest_bytes = 0;
    fetch->paused = false;
    origin_resume(fetch->blob->blobs->config.origin, fetch->request);
}

static void stored(void *arg, int status)
{
    struct blob_fetch *fetch = arg;
    fetch->jobs--;
    if (status != 0 && fetch->status == 0)
        fetch->status = status;
    wake_request(fetch);
    fetch_finish(fetch);
}

static void piece_full(struct blob_fetch *fetch)
{
    struct piece_arrival arrival = {
        .blob = fetch->blob,
        .piece = fetch->piece++,
        .source = {.origin = PIECE_FROM_ORIGIN, .fetch_id = fetch->id},
        .done = stored,
        .arg = fetch,
    };
    struct buffer *buffer = fetch->buffer;
    fetch->buffer = NULL;
    fetch->jobs++;
    blob_piece__arrived(&arrival, buffer);
}

static void on_head(void *arg, const struct fetch_response *response)
{
    struct blob_fetch *fetch = arg;
    if (response->status == 401 || response->status == 403) {
        fetch->status = E_DENIED;
    } else if (response->status == 404) {
        fetch->status = E_NOT_FOUND;
    } else if (response->status >= 400) {
        fetch->status = E_ORIGIN;
    }
}

static void buffers_ready(void *arg)
{
    wake_request(arg);
}

static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct blob_fetch *fetch = arg;
    struct blob *blob = fetch->blob;
    if (fetch->status != 0)
        return true; /* an error's body, or nothing of it is wanted any more */
    size_t used = fill(fetch, bytes, byte_count);
    if (fetch->id != 0)
        transfer_fetch_progress(node_transfer(blob->blobs->config.node),
                                loop_now_us(blob->blobs->config.loop), fetch->id, fetch->bytes);
    if (used == byte_count)
        return true;
    fetch->rest_bytes = byte_count - used;
    fetch->rest = loop_alloc(NULL, NULL, fetch->rest_bytes);
    if (fetch->rest == NULL) {
        fetch->status = E_NO_MEMORY;
        return true;
    }
    memcpy(fetch->rest, bytes + used, fetch->rest_bytes);
    fetch->paused = true;
    return false;
}

static int start_request(struct blob_fetch *fetch);

/* The registry refused these credentials; another reader's may do. Each is tried once. */
static bool next_caller(struct blob_fetch *fetch)
{
    struct blob_caller *caller = blob_fetch__caller(fetch->blob);
    if (caller == NULL)
        return false;
    blob_caller_put(fetch->caller);
    fetch->caller = blob_caller_ref(caller);
    if (fetch->buffer != NULL) {
        fetch->bytes -= fetch->buffer->used;
        fetch->buffer->used = 0;
    }
    fetch->status = 0;
    int err = start_request(fetch);
    if (err != 0)
        fetch->status = err;
    return err == 0;
}

static void on_done(void *arg, int err)
{
    struct blob_fetch *fetch = arg;
    if (fetch->status == 0)
        fetch->status = err;
    if (fetch->status == 0 && fetch->piece < fetch->end)
        fetch->status = E_CLOSED;
    int last = origin_last_status(fetch->request);
    if (err != 0 && (last == 401 || last == 403)) /* met by a resumed body (ACL-2) */
        fetch->status = E_DENIED;
    fetch->blob->lease_spared = fetch->spare && fetch->status == E_UNREACHABLE;
    if (fetch->status == E_DENIED) {
        blob_refusal__note(fetch->blob, fetch->caller);
        if (next_caller(fetch))
            return;
    }
    if (fetch->status != 0)
        fetch->retry_after_ms = origin_retry_after_ms(fetch->request);
    fetch->request = NULL;
    fetch->over = true;
    fetch_finish(fetch);
}

static const struct fetch_callbacks callbacks = {.head = on_head, .body = on_body, .done = on_done};

static int start_request(struct blob_fetch *fetch)
{
    struct blob *blob = fetch->blob;
    struct blobs *blobs = blob->blobs;
    char text[DIGEST_TEXT_BYTES], path[REPOSITORY_BYTES_MAX + DIGEST_TEXT_BYTES + 16];
    int bytes = snprintf(path, sizeof path, "/v2/%s/blobs/%s", fetch->caller->repository,
                         digest_text(&blob->info.digest, text));
    if (bytes < 0 || (size_t)bytes >= sizeof path)
        return E_TOO_LARGE;
    uint32_t last = fetch->end - 1;
    struct origin_request request = {
        .registry = fetch->caller->registry,
        .kind = ORIGIN_BLOB,
        .method = "GET",
        .path_and_query = path,
        .url = fetch->caller->url,
        .authorization = fetch->caller->authorization,
        .as_node = fetch->caller->as_node,
        .head_ms = HEAD_MS,
        .spare = fetch->spare,
        .size_bytes = blob->info.size_bytes,
        .first = piece_offset(&blob->layout, fetch->piece),
        .last = piece_offset(&blob->layout, last) + piece_length(&blob->layout, last) - 1,
    };
    request.whole = request.first == 0 && request.last + 1 == blob->info.size_bytes;
    memcpy(request.credential_hash, fetch->caller->credential_hash, 32);
    return origin_start(blobs->config.origin, loop_now_us(blobs->config.loop), &request, &callbacks,
                        fetch, &fetch->request);
}

/* 0, or E_*: nothing was started. `spare`: another node may read it, if the registry rests. */
static int fetch_new(struct blob *blob, uint64_t id, uint32_t piece, uint32_t count, bool spare)
{
    struct blob_caller *caller = blob_fetch__caller(blob);
    if (caller == NULL)
        return E_DENIED;
    struct blob_fetch *fetch = loop_alloc(NULL, NULL, sizeof *fetch);
    if (fetch == NULL)
        return E_NO_MEMORY;
    *fetch = (struct blob_fetch){.blob = blob__ref(blob),
                                 .id = id,
                                 .caller = blob_caller_ref(caller),
                                 .piece = piece,
                                 .end = piece + count,
                                 .spare = spare,
                                 .waiter = {.ready = buffers_ready},
                                 .next = blob->fetches};
    fetch->waiter.arg = fetch;
    blob->fetches = fetch;
    blob->blobs->counters.fetches++;
    int err = start_request(fetch);
    if (err != 0)
        fetch_free(fetch);
    return err;
}

void blob_fetch__start(struct blob *blob, const struct transfer_result *result)
{
    struct blobs *blobs = blob->blobs;
    int err = E_INVALID;
    history_fetch(blobs->history, &blob->info.digest, result->reason);
    if (result->piece_count > 0 && result->piece_count <= blob->layout.piece_count &&
        result->piece <= blob->layout.piece_count - result->piece_count)
        err = fetch_new(blob, result->id, result->piece, result->piece_count,
                        result->reason == FETCH_LEASE && !blob->lease_spared);
    if (err == 0)
        return;
    history_fetch_failed(blobs->history, &blob->info.digest, err);
    transfer_fetch_end(node_transfer(blobs->config.node), loop_now_us(blobs->config.loop),
                       result->id, err, 0);
}

uint64_t blob_fetch__bytes(const struct blob *blob, uint32_t piece)
{
    for (const struct blob_fetch *fetch = blob->fetches; fetch != NULL; fetch = fetch->next) {
        if (!fetch->over && fetch->status == 0 && fetch->piece <= piece && piece < fetch->end)
            return fetch->bytes + 1;
    }
    return 0;
}

uint32_t blob_fetch__count(const struct blob *blob)
{
    uint32_t count = 0;
    for (const struct blob_fetch *fetch = blob->fetches; fetch != NULL; fetch = fetch->next)
        count += !fetch->over;
    return count;
}

bool blob_fetch__repair(struct blob *blob)
{
    history_fetch(blob->blobs->history, &blob->info.digest, FETCH_REPAIR);
    return fetch_new(blob, 0, 0, blob->layout.piece_count, false) == 0;
}

void blob_fetch__cancel(struct blob *blob, uint64_t fetch_id)
{
    for (struct blob_fetch *fetch = blob->fetches; fetch != NULL; fetch = fetch->next) {
        if (fetch->id != fetch_id || fetch->over)
            continue;
        origin_cancel(blob->blobs->config.origin, fetch->request);
        fetch->request = NULL;
        fetch->over = true;
        fetch->status = E_CANCELLED;
        fetch_finish(fetch);
        return;
    }
}
