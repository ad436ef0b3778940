/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fetch engine on libcurl's multi interface and the host's loop.
 *
 * Re-entrancy: libcurl refuses to add, remove or close handles inside its callbacks, and unpausing
 * may call the write callback at once. So start, resume and cancel only mark the request and ask
 * for the timer; turn(), from the loop, does the work. That is also why no callback of ours ever
 * runs inside start (registry.h).
 *
 * Time: libcurl has a timeout for connecting only. Ours for the queue, the first byte and idleness
 * are looked at ten times a second, which costs no timer and no clock per packet.
 */
#include "fetch_curl.h"

#include <stdlib.h>
#include <time.h>

#include "log.h"

#define FETCH_MAGIC 0x46455443u /* "FETC" */
#define SWEEP_MS    100
/* Rounds of one turn: a done callback may start the next request, which is then added at once. */
#define ROUNDS_MAX 4

/* realloc-shaped; the one place in this module that takes memory from the process and not from an
 * env: libcurl's own memory comes from there too. */
void *fetch_curl__heap(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

uint64_t fetch_curl__clock_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void list_add(struct fetch_curl *curl, struct fetch *fetch)
{
    fetch->prev = curl->tail;
    fetch->next = NULL;
    if (curl->tail != NULL)
        curl->tail->next = fetch;
    else
        curl->head = fetch;
    curl->tail = fetch;
    curl->fetch_count++;
}

static void list_remove(struct fetch_curl *curl, struct fetch *fetch)
{
    if (fetch->prev != NULL)
        fetch->prev->next = fetch->next;
    else
        curl->head = fetch->next;
    if (fetch->next != NULL)
        fetch->next->prev = fetch->prev;
    else
        curl->tail = fetch->prev;
    curl->fetch_count--;
}

/* Out of its multi, if it is in one. */
static void fetch_detach(struct fetch *fetch)
{
    struct pool *pool = fetch->pool;

    if (pool == NULL)
        return;
    fetch->pool = NULL;
    (void)curl_multi_remove_handle(pool->multi, fetch->easy);
    ASSERT(pool->fetch_count > 0);
    if (--pool->fetch_count == 0)
        pool->idle_since_ms = fetch_curl__clock_ms();
}

static void fetch_free(struct fetch *fetch)
{
    fetch_detach(fetch);
    fetch_curl__easy_close(fetch);
    fetch->magic = 0;
    (void)fetch_curl__heap(NULL, fetch, 0);
}

/* Asks for a turn. Inside one, the next round or the end of the turn sees to it. */
static void mark(struct fetch_curl *curl)
{
    curl->marked = true;
    if (curl->in_turn || curl->armed_ms == 0)
        return;
    curl->armed_ms = 0;
    curl->loop.timer(curl->loop.host, 0);
}

/*
 * libcurl reported that a multi is out of memory. It may then have forgotten a socket half-way
 * (7.88 divides by zero when the same descriptor comes again), so nothing in it is trusted any
 * more: its requests end and it is closed.
 */
static void pool_fail(struct fetch_curl *curl, struct pool *pool)
{
    for (struct fetch *fetch = curl->head; fetch != NULL; fetch = fetch->next) {
        if (fetch->pool != pool)
            continue;
        fetch_detach(fetch);
        fetch->err = E_NO_MEMORY;
        if (fetch->state != FETCH_CANCELLED)
            fetch->state = FETCH_DONE;
    }
    curl->marked = true;
    fetch_curl__pool_close(pool);
}

/* ---- the turn ---- */

static void fetch_add(struct fetch_curl *curl, struct fetch *fetch)
{
    struct pool *pool = fetch_curl__pool_get(curl, fetch);

    fetch->state = FETCH_QUEUED;
    fetch->since_ms = fetch_curl__clock_ms();
    if (pool != NULL && pool->spare &&
        (curl_easy_setopt(fetch->easy, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK ||
         curl_easy_setopt(fetch->easy, CURLOPT_FORBID_REUSE, 1L) != CURLE_OK))
        pool = NULL;
    if (pool != NULL && curl_multi_add_handle(pool->multi, fetch->easy) == CURLM_OK) {
        fetch->pool = pool;
        pool->fetch_count++;
        return;
    }
    fetch->err = E_NO_MEMORY;
    fetch->state = FETCH_DONE;
}

static void fetch_unpause(struct fetch_curl *curl, struct fetch *fetch)
{
    fetch->resume_due = false;
    fetch->paused = false;
    fetch->moved = true;
    if (fetch->state == FETCH_BODY &&
        curl_easy_pause(fetch->easy, CURLPAUSE_CONT) == CURLE_OUT_OF_MEMORY)
        pool_fail(curl, fetch->pool);
}

/* The request is forgotten first: inside done it is already gone. */
static void fetch_done(struct fetch_curl *curl, struct fetch *fetch)
{
    struct fetch_callbacks callbacks = fetch->callbacks;
    void *arg = fetch->arg;
    int err = fetch->err;

    list_remove(curl, fetch);
    fetch_free(fetch);
    callbacks.done(arg, err);
}

static void messages_read(struct pool *pool)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(pool->multi, &left)) != NULL) {
        CURLcode code = message->data.result;
        struct fetch *fetch = NULL;

        if (message->msg != CURLMSG_DONE ||
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&fetch) != CURLE_OK)
            continue;
        ASSERT(fetch != NULL && fetch->magic == FETCH_MAGIC);
        fetch->err = fetch_curl__error_of(fetch, code);
        if (fetch->err == 0 && fetch->state != FETCH_BODY)
            fetch->err = E_CLOSED; /* an end without a head */
        fetch_detach(fetch);
        if (fetch->state != FETCH_CANCELLED)
            fetch->state = FETCH_DONE;
    }
}

/* One pass over all requests. `next` stays valid: callbacks only mark and append. */
static void round_run(struct fetch_curl *curl)
{
    struct pool *pool;
    struct fetch *next;

    curl->marked = false;
    for (unsigned i = 0; (pool = fetch_curl__pool_at(curl, i)) != NULL; i++)
        if (pool->multi != NULL)
            messages_read(pool);
    for (struct fetch *fetch = curl->head; fetch != NULL; fetch = next) {
        if (fetch->state == FETCH_NEW)
            fetch_add(curl, fetch);
        if (fetch->resume_due && fetch->state != FETCH_CANCELLED)
            fetch_unpause(curl, fetch);
        next = fetch->next;
        if (fetch->state == FETCH_CANCELLED) {
            list_remove(curl, fetch);
            fetch_free(fetch);
        } else if (fetch->state == FETCH_DONE && !fetch->paused) {
            fetch_done(curl, fetch);
        }
    }
}

/* True if the timeout that runs now has passed. */
static bool fetch_late(struct fetch *fetch, uint64_t now_ms)
{
    uint64_t limit_ms;

    switch (fetch->state) {
    case FETCH_QUEUED: /* libcurl times the connecting itself, but not the wait for a place */
        limit_ms = (uint64_t)fetch->connect_ms + fetch->first_byte_ms;
        break;
    case FETCH_ASKED: /* until the whole head is there: dripping headers do not count as life */
        limit_ms = fetch->first_byte_ms;
        break;
    case FETCH_BODY:
        if (fetch->moved || fetch->paused)
            fetch->since_ms = now_ms;
        fetch->moved = false;
        limit_ms = fetch->idle_ms;
        break;
    case FETCH_NEW:
    case FETCH_DONE:
    case FETCH_CANCELLED:
    default:
        return false;
    }
    return now_ms >= fetch->since_ms + limit_ms;
}

static void sweep(struct fetch_curl *curl, uint64_t now_ms)
{
    if (now_ms < curl->sweep_ms)
        return;
    curl->sweep_ms = now_ms + SWEEP_MS;
    for (struct fetch *fetch = curl->head; fetch != NULL; fetch = fetch->next) {
        if (!fetch_late(fetch, now_ms))
            continue;
        fetch_detach(fetch);
        fetch->err = E_TIMEOUT;
        fetch->state = FETCH_DONE;
        curl->marked = true;
    }
    fetch_curl__pools_expire(curl, now_ms);
}

/* Sets the host's timer to the nearest of all deadlines. */
static void arm(struct fetch_curl *curl, uint64_t now_ms)
{
    uint64_t next_ms = NEVER_MS;
    struct pool *pool;

    if (curl->fetch_count > 0)
        next_ms = curl->sweep_ms;
    for (unsigned i = 0; (pool = fetch_curl__pool_at(curl, i)) != NULL; i++) {
        uint64_t idle_end_ms = pool->idle_since_ms + POOL_IDLE_MS;

        if (pool->multi == NULL)
            continue;
        if (pool->deadline_ms < next_ms)
            next_ms = pool->deadline_ms;
        if (pool->fetch_count == 0 && idle_end_ms < next_ms)
            next_ms = idle_end_ms;
    }
    if (curl->marked)
        next_ms = 0;
    if (next_ms == curl->armed_ms)
        return;
    curl->armed_ms = next_ms;
    if (next_ms == NEVER_MS)
        curl->loop.timer(curl->loop.host, -1);
    else
        curl->loop.timer(curl->loop.host, next_ms > now_ms ? (long)(next_ms - now_ms) : 0);
}

static void turn(struct fetch_curl *curl)
{
    uint64_t now_ms = fetch_curl__clock_ms();

    sweep(curl, now_ms);
    for (unsigned i = 0; i == 0 || (curl->marked && i < ROUNDS_MAX); i++)
        round_run(curl);
    curl->in_turn = false;
    arm(curl, now_ms);
}

void fetch_curl_ready(struct fetch_curl *curl, int fd, unsigned events)
{
    struct pool *pool = NULL;
    int mask = 0, running;

    if (fd >= 0 && (size_t)fd < curl->watched_count)
        pool = curl->watched[fd];
    if (pool == NULL)
        return;
    mask |= (events & FETCH_POLL_READ) != 0 ? CURL_CSELECT_IN : 0;
    mask |= (events & FETCH_POLL_WRITE) != 0 ? CURL_CSELECT_OUT : 0;
    curl->in_turn = true;
    if (curl_multi_socket_action(pool->multi, fd, mask == 0 ? CURL_CSELECT_ERR : mask, &running) !=
        CURLM_OK)
        pool_fail(curl, pool);
    turn(curl);
}

void fetch_curl_timeout(struct fetch_curl *curl)
{
    uint64_t now_ms = fetch_curl__clock_ms();
    struct pool *pool;
    int running;

    curl->armed_ms = NEVER_MS;
    curl->in_turn = true;
    for (unsigned i = 0; (pool = fetch_curl__pool_at(curl, i)) != NULL; i++) {
        if (pool->multi == NULL || pool->deadline_ms > now_ms)
            continue;
        pool->deadline_ms = NEVER_MS; /* libcurl tells the next one */
        if (curl_multi_socket_action(pool->multi, CURL_SOCKET_TIMEOUT, 0, &running) != CURLM_OK)
            pool_fail(curl, pool);
    }
    turn(curl);
}

/* ---- the engine's calls ---- */

static int engine_start(void *self, const struct fetch_request *request,
                        const struct fetch_callbacks *callbacks, void *arg, struct fetch **out)
{
    struct fetch_curl *curl = self;
    struct fetch *fetch;
    int err;

    if (curl->fetch_count >= FETCHES_MAX)
        return E_FULL;
    fetch = fetch_curl__heap(NULL, NULL, sizeof *fetch);
    if (fetch == NULL)
        return E_NO_MEMORY;
    *fetch = (struct fetch){.magic = FETCH_MAGIC,
                            .curl = curl,
                            .state = FETCH_NEW,
                            .callbacks = *callbacks,
                            .arg = arg};
    headers__init(&fetch->headers, fetch_curl__heap, NULL);
    err = fetch_curl__easy_open(fetch, request);
    if (err != 0) {
        fetch_free(fetch);
        return err;
    }
    list_add(curl, fetch);
    *out = fetch;
    mark(curl);
    return 0;
}

static void engine_resume(void *self, struct fetch *fetch)
{
    ASSERT(fetch->magic == FETCH_MAGIC);
    if (!fetch->paused || fetch->state == FETCH_CANCELLED)
        return;
    fetch->resume_due = true;
    mark(self);
}

static void engine_cancel(void *self, struct fetch *fetch)
{
    ASSERT(fetch->magic == FETCH_MAGIC);
    fetch->state = FETCH_CANCELLED;
    mark(self);
}

static void engine_close(void *self)
{
    struct fetch_curl *curl = self;
    struct pool *pool;

    ASSERT(!curl->in_turn);
    while (curl->head != NULL) {
        struct fetch *fetch = curl->head;

        list_remove(curl, fetch);
        fetch_free(fetch);
    }
    for (unsigned i = 0; (pool = fetch_curl__pool_at(curl, i)) != NULL; i++)
        fetch_curl__pool_close(pool);
    curl->loop.timer(curl->loop.host, -1);
    (void)fetch_curl__heap(NULL, curl->watched, 0);
    (void)fetch_curl__heap(NULL, curl, 0);
    curl_global_cleanup();
}

int fetch_curl_new(const struct fetch_loop *loop, unsigned connections_max,
                   struct fetch_engine *out, struct fetch_curl **curl)
{
    struct fetch_curl *made;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return E_INTERNAL;
    made = fetch_curl__heap(NULL, NULL, sizeof *made);
    if (made == NULL) {
        curl_global_cleanup();
        return E_NO_MEMORY;
    }
    *made = (struct fetch_curl){.loop = *loop, .armed_ms = NEVER_MS};
    made->connections_max = connections_max != 0 ? connections_max : CONNECTIONS_DEFAULT;
    *out = (struct fetch_engine){.self = made,
                                 .start = engine_start,
                                 .resume = engine_resume,
                                 .cancel = engine_cancel,
                                 .close = engine_close};
    *curl = made;
    return 0;
}

void fetch_curl_refuse_port(struct fetch_curl *curl, uint16_t port)
{
    curl->port_refused = port;
}
