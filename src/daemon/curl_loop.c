/* SPDX-License-Identifier: Apache-2.0 */
/* libuv polls and timers for src/registry; see curl_loop.h. */
#include "curl_loop.h"

#include <string.h>

#include "log.h"

struct watched {
    struct curl_loop *owner;
    uv_poll_t poll;
    int fd;
    struct watched *next;
};

struct curl_loop {
    struct loop *loop;
    struct loop_part part;
    struct fetch_engine engine;
    struct fetch_curl *curl;
    struct origin *origin;
    struct watched *watched;
    uv_timer_t curl_timer, origin_timer;
    bool closed;
};

static void watched_closed(uv_handle_t *handle)
{
    (void)loop_alloc(NULL, handle->data, 0);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    const struct watched *watched = poll->data;
    unsigned ready = 0;
    if (status < 0 || (events & UV_READABLE) != 0)
        ready |= FETCH_POLL_READ;
    if (status < 0 || (events & UV_WRITABLE) != 0)
        ready |= FETCH_POLL_WRITE;
    fetch_curl_ready(watched->owner->curl, watched->fd, ready);
}

static struct watched *find(struct curl_loop *curl, int fd)
{
    struct watched *watched = curl->watched;
    while (watched != NULL && watched->fd != fd)
        watched = watched->next;
    return watched;
}

static void forget(struct curl_loop *curl, struct watched *gone)
{
    struct watched **link = &curl->watched;
    while (*link != gone)
        link = &(*link)->next;
    *link = gone->next;
    (void)uv_poll_stop(&gone->poll);
    uv_close((uv_handle_t *)&gone->poll, watched_closed);
}

static struct watched *watched_new(struct curl_loop *curl, int fd)
{
    struct watched *watched = loop_alloc(NULL, NULL, sizeof *watched);
    if (watched == NULL)
        return NULL;
    *watched = (struct watched){.owner = curl, .fd = fd, .next = curl->watched};
    if (uv_poll_init(&curl->loop->uv, &watched->poll, fd) != 0) {
        (void)loop_alloc(NULL, watched, 0);
        return NULL;
    }
    watched->poll.data = watched;
    curl->watched = watched;
    return watched;
}

/* A socket that cannot be watched stalls its request; the request's own time-outs end it. */
static void watch(void *host, int fd, unsigned events)
{
    struct curl_loop *curl = host;
    if (curl->closed)
        return;
    struct watched *watched = find(curl, fd);
    if (events == 0) {
        if (watched != NULL)
            forget(curl, watched);
        return;
    }
    if (watched == NULL)
        watched = watched_new(curl, fd);
    int want = ((events & FETCH_POLL_READ) != 0 ? UV_READABLE : 0) |
               ((events & FETCH_POLL_WRITE) != 0 ? UV_WRITABLE : 0);
    if (watched == NULL || uv_poll_start(&watched->poll, want, on_poll) != 0)
        log_to(&curl->loop->env, LOG_WARN, "origin: a socket cannot be watched fd=%d", fd);
}

static void on_curl_timer(uv_timer_t *timer)
{
    struct curl_loop *curl = timer->data;
    fetch_curl_timeout(curl->curl);
}

static void set_timer(void *host, long timeout_ms)
{
    struct curl_loop *curl = host;
    if (curl->closed)
        return;
    if (timeout_ms < 0)
        (void)uv_timer_stop(&curl->curl_timer);
    else
        (void)uv_timer_start(&curl->curl_timer, on_curl_timer, (uint64_t)timeout_ms, 0);
}

static void on_origin_timer(uv_timer_t *timer)
{
    struct curl_loop *curl = timer->data;
    origin_advance(curl->origin, loop_now_us(curl->loop));
}

static void start_origin_timer(void *host, uint64_t delay_us)
{
    struct curl_loop *curl = host;
    if (!curl->closed)
        (void)uv_timer_start(&curl->origin_timer, on_origin_timer, (delay_us + 999) / 1000, 0);
}

static void part_close(void *arg)
{
    struct curl_loop *curl = arg;
    origin_free(curl->origin);
    curl->origin = NULL;
    curl->engine.close(curl->engine.self);
    curl->closed = true;
    while (curl->watched != NULL)
        forget(curl, curl->watched);
    uv_close((uv_handle_t *)&curl->curl_timer, NULL);
    uv_close((uv_handle_t *)&curl->origin_timer, NULL);
}

int curl_loop_new(struct loop *loop, const struct env *env, uint16_t mesh_port,
                  struct curl_loop **out)
{
    struct curl_loop *curl = loop_alloc(NULL, NULL, sizeof *curl);
    if (curl == NULL)
        return E_NO_MEMORY;
    *curl = (struct curl_loop){.loop = loop};
    struct fetch_loop host = {.host = curl, .watch = watch, .timer = set_timer};
    struct origin_timer timer = {.host = curl, .start = start_origin_timer};
    int err = fetch_curl_new(&host, 0, &curl->engine, &curl->curl);
    if (err != 0) {
        (void)loop_alloc(NULL, curl, 0);
        return err;
    }
    fetch_curl_refuse_port(curl->curl, mesh_port);
    (void)uv_timer_init(&loop->uv, &curl->curl_timer);
    (void)uv_timer_init(&loop->uv, &curl->origin_timer);
    curl->curl_timer.data = curl->origin_timer.data = curl;
    curl->part = (struct loop_part){.name = "origin", .arg = curl, .close = part_close};
    loop_add_part(loop, &curl->part);
    err = origin_new(env, &curl->engine, &timer, &curl->origin);
    if (err != 0)
        return err; /* the loop's close phase releases the rest */
    *out = curl;
    return 0;
}

struct origin *curl_loop_origin(struct curl_loop *curl)
{
    return curl->origin;
}

const struct fetch_engine *curl_loop_engine(const struct curl_loop *curl)
{
    return &curl->engine;
}

void curl_loop_free(struct curl_loop *curl)
{
    (void)loop_alloc(NULL, curl, 0);
}
