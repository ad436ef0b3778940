/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: time, the host side of struct env, work for the pool, signals and orderly stop,
 * watchdog. See loop.h for the contract of stopping.
 */
#include "loop.h"

#include <inttypes.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOOP_MAGIC 0x10095a01U
/* How often parts are asked whether they are still busy while stopping. */
#define STOP_POLL_MS 50
/* What has not closed by then (a worker on a dead disk, a slow resolver) is left to the process's
 * end. */
#define CLOSE_MS_MAX 3000ULL

int loop_uv_error(int uv_error)
{
    switch (uv_error) {
    case 0:
        return 0;
    case UV_ENOMEM:
    case UV_ENOBUFS:
        return E_NO_MEMORY;
    case UV_EADDRINUSE:
        return E_IN_USE;
    case UV_EACCES:
    case UV_EPERM:
        return E_DENIED;
    case UV_ECANCELED:
        return E_CANCELLED;
    case UV_ETIMEDOUT:
        return E_TIMEOUT;
    case UV_ECONNREFUSED:
    case UV_EHOSTUNREACH:
    case UV_ENETUNREACH:
    case UV_ENETDOWN:
    case UV_EADDRNOTAVAIL:
        return E_UNREACHABLE;
    case UV_ECONNRESET:
    case UV_EPIPE:
    case UV_EOF:
    case UV_ENOTCONN:
        return E_CLOSED;
    case UV_EAGAIN:
        return E_AGAIN;
    case UV_EMFILE:
    case UV_ENFILE:
        return E_FULL;
    case UV_EINVAL:
        return E_INVALID;
    default:
        return E_IO;
    }
}

/* ---- struct env ---- */

void *loop_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

void loop_trim_heap(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

static int env_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    (void)host;
    (void)to;
    (void)msg;
    (void)msg_bytes;
    return E_UNREACHABLE;
}

static void env_random(void *host, uint8_t *out, size_t out_bytes)
{
    (void)host;
    randombytes_buf(out, out_bytes);
}

static void env_trace(void *host, enum log_level level, const char *line)
{
    struct loop *loop = host;
    ASSERT(loop->magic == LOOP_MAGIC);
    log_sink_write(&loop->log, level, line);
}

/* ---- time ---- */

uint64_t loop_now_us(struct loop *loop)
{
    if (loop->now_stale) {
        loop->now_us = uv_hrtime() / 1000;
        loop->now_stale = false;
    }
    return loop->now_us;
}

uint64_t loop_wall_s(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0 || now.tv_sec < 0)
        return 0;
    return (uint64_t)now.tv_sec;
}

/* Both run once per turn, before and after the wait for events: what callbacks see is one time per
 * batch of events. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct loop *loop = prepare->data;
    ASSERT(loop->magic == LOOP_MAGIC);
    loop->now_stale = true;
    atomic_fetch_add_explicit(&loop->beats, 1, memory_order_relaxed);
}

static void on_check(uv_check_t *check)
{
    struct loop *loop = check->data;
    ASSERT(loop->magic == LOOP_MAGIC);
    loop->now_stale = true;
}

/* ---- work ---- */

static void work_run(uv_work_t *request)
{
    struct loop_work *work = request->data;
    work->run(work);
}

static void work_done(uv_work_t *request, int status)
{
    struct loop_work *work = request->data;
    struct loop *loop = work->loop;
    ASSERT(loop->magic == LOOP_MAGIC);
    ASSERT(loop->works > 0);
    loop->works--;
    work->done(work, loop_uv_error(status));
}

int loop_submit(struct loop *loop, struct loop_work *work)
{
    ASSERT(work->run != NULL && work->done != NULL);
    if (loop->works >= LOOP_WORK_MAX) {
        loop->works_refused++;
        return E_FULL;
    }
    work->loop = loop;
    work->request.data = work;
    int uv_error = uv_queue_work(&loop->uv, &work->request, work_run, work_done);
    if (uv_error != 0)
        return E_FULL;
    loop->works++;
    return 0;
}

/* ---- stopping ---- */

void loop_add_part(struct loop *loop, struct loop_part *part)
{
    part->next = loop->parts;
    loop->parts = part;
}

static bool anybody_busy(struct loop *loop)
{
    for (struct loop_part *part = loop->parts; part != NULL; part = part->next)
        if (part->busy != NULL && part->busy(part->arg))
            return true;
    return loop->works > 0;
}

/* A timer without work: it makes the loop turn so that an idle agent is not taken for a hung one.
 */
static void on_heart(uv_timer_t *timer)
{
    (void)timer;
}

static void close_handle(uv_handle_t *handle)
{
    if (uv_handle_get_type(handle) != UV_UNKNOWN_HANDLE && !uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* All but the heart, which only stops counting. */
static void close_own(struct loop *loop)
{
    close_handle((uv_handle_t *)&loop->signals[0]);
    close_handle((uv_handle_t *)&loop->signals[1]);
    close_handle((uv_handle_t *)&loop->check);
    close_handle((uv_handle_t *)&loop->stopper);
    if (uv_handle_get_type((uv_handle_t *)&loop->heart) == UV_UNKNOWN_HANDLE)
        return;
    uv_unref((uv_handle_t *)&loop->prepare);
    uv_unref((uv_handle_t *)&loop->heart);
    (void)uv_timer_start(&loop->heart, on_heart, STOP_POLL_MS, STOP_POLL_MS);
}

static void close_all(struct loop *loop)
{
    if (loop->closing)
        return;
    loop->closing = true;
    /* Parts stand last registered first: the order in which they must go. */
    struct loop_part *part = loop->parts;
    while (part != NULL) {
        struct loop_part *next = part->next;
        part->close(part->arg);
        part = next;
    }
    loop->parts = NULL;
    close_own(loop);
}

static void on_stopper(uv_timer_t *timer)
{
    struct loop *loop = timer->data;
    ASSERT(loop->magic == LOOP_MAGIC);
    if (!anybody_busy(loop) || loop_now_us(loop) >= loop->stop_deadline_us)
        close_all(loop);
}

static void drain_from(struct loop_part *part)
{
    /* The list is last first; drains go in the order of registration. */
    struct loop_part *order[64];
    size_t count = 0;
    for (; part != NULL && count < sizeof order / sizeof order[0]; part = part->next)
        order[count++] = part;
    ASSERT(part == NULL);
    while (count-- > 0)
        if (order[count]->drain != NULL)
            order[count]->drain(order[count]->arg);
}

void loop_stop(struct loop *loop)
{
    if (loop->stopping) {
        close_all(loop);
        return;
    }
    loop->stopping = true;
    loop->stop_deadline_us = loop_now_us(loop) + loop->stop_grace_us;
    drain_from(loop->parts);
    int uv_error = uv_timer_start(&loop->stopper, on_stopper, 1, STOP_POLL_MS);
    ASSERT(uv_error == 0);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct loop *loop = handle->data;
    ASSERT(loop->magic == LOOP_MAGIC);
    log_to(&loop->env, LOG_INFO, "agent: stopping signal=%d", number);
    loop_stop(loop);
}

/* ---- watchdog ---- */

/* One tick; true when the loop is closing. */
static bool watchdog_wait(struct loop *loop)
{
    struct timespec until;
    if (clock_gettime(CLOCK_MONOTONIC, &until) != 0)
        return true;
    until.tv_nsec += LOOP_WATCHDOG_TICK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    return sem_clockwait(&loop->watchdog_stop, CLOCK_MONOTONIC, &until) == 0;
}

static void *watchdog_main(void *arg)
{
    struct loop *loop = arg;
    uint64_t last = 0;
    unsigned silent = 0;
    while (!watchdog_wait(loop)) {
        uint64_t beats = atomic_load_explicit(&loop->beats, memory_order_relaxed);
        silent = beats == last ? silent + 1 : 0;
        last = beats;
        if (silent >= LOOP_WATCHDOG_TICKS)
            assert_failed("the event loop turns at least every 5 s", __FILE__, __LINE__);
    }
    return NULL;
}

static int watchdog_start(struct loop *loop)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    if (sem_init(&loop->watchdog_stop, 0, 0) != 0)
        return E_NO_MEMORY;
    /* Signals are the loop thread's. */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&loop->watchdog, NULL, watchdog_main, loop);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    loop->watchdog_on = code == 0;
    return code == 0 ? 0 : E_NO_MEMORY;
}

/* ---- life ---- */

static int signals_start(struct loop *loop)
{
    static const int numbers[2] = {SIGTERM, SIGINT};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL);
    for (size_t i = 0; i < 2; i++) {
        int uv_error = uv_signal_init(&loop->uv, &loop->signals[i]);
        if (uv_error != 0)
            return uv_error;
        loop->signals[i].data = loop;
        uv_error = uv_signal_start(&loop->signals[i], on_signal, numbers[i]);
        if (uv_error != 0)
            return uv_error;
        uv_unref((uv_handle_t *)&loop->signals[i]);
    }
    return 0;
}

static int handles_start(struct loop *loop)
{
    int uv_error = uv_prepare_init(&loop->uv, &loop->prepare);
    if (uv_error == 0)
        uv_error = uv_check_init(&loop->uv, &loop->check);
    if (uv_error == 0)
        uv_error = uv_timer_init(&loop->uv, &loop->heart);
    if (uv_error == 0)
        uv_error = uv_timer_init(&loop->uv, &loop->stopper);
    if (uv_error != 0)
        return uv_error;
    loop->prepare.data = loop->check.data = loop->heart.data = loop->stopper.data = loop;
    uv_error = uv_prepare_start(&loop->prepare, on_prepare);
    if (uv_error == 0)
        uv_error = uv_check_start(&loop->check, on_check);
    if (uv_error == 0)
        uv_error = uv_timer_start(&loop->heart, on_heart, LOOP_WATCHDOG_TICK_MS,
                                  LOOP_WATCHDOG_TICK_MS * 2);
    return uv_error;
}

int loop_init(struct loop *loop, const struct loop_options *options)
{
    memset(loop, 0, sizeof *loop);
    if (sodium_init() < 0)
        return E_INTERNAL;
    loop->magic = LOOP_MAGIC;
    loop->now_stale = true;
    loop->stop_grace_us = options->stop_grace_us;
    log_sink_init(&loop->log, options->log_fd, options->log_json, options->log_level);
    loop->env = (struct env){.host = loop,
                             .send = env_send,
                             .random = env_random,
                             .alloc = loop_alloc,
                             .trace = env_trace};
    int uv_error = uv_loop_init(&loop->uv);
    if (uv_error != 0) {
        log_sink_close(&loop->log);
        return loop_uv_error(uv_error);
    }
    uv_error = handles_start(loop);
    if (uv_error == 0 && options->signals)
        uv_error = signals_start(loop);
    int err = loop_uv_error(uv_error);
    if (err == 0 && options->watchdog)
        err = watchdog_start(loop);
    if (err != 0) {
        log_to(&loop->env, LOG_ERROR, "loop: cannot start error=%s", err_name(err));
        close_own(loop);
        loop_close(loop);
    }
    return err;
}

/* Turns until every handle but our heart is closed. The heart keeps beating meanwhile: a worker
 * that hangs on a slow disk must end in E_TIMEOUT here, not in the watchdog. */
static int run_out(struct loop *loop)
{
    uint64_t limit_ns = uv_hrtime() + CLOSE_MS_MAX * 1000000ULL;
    while (uv_loop_alive(&loop->uv) != 0) {
        if (uv_hrtime() >= limit_ns)
            return E_TIMEOUT;
        (void)uv_run(&loop->uv, UV_RUN_ONCE);
    }
    return 0;
}

int loop_run(struct loop *loop)
{
    while (!loop->closing && uv_run(&loop->uv, UV_RUN_ONCE) != 0) {
    }
    close_all(loop); /* nothing was left to wait for */
    return run_out(loop);
}

void loop_close(struct loop *loop)
{
    if (loop->watchdog_on) {
        (void)sem_post(&loop->watchdog_stop);
        (void)pthread_join(loop->watchdog, NULL);
        (void)sem_destroy(&loop->watchdog_stop);
        loop->watchdog_on = false;
    }
    close_handle((uv_handle_t *)&loop->prepare);
    close_handle((uv_handle_t *)&loop->heart);
    (void)uv_run(&loop->uv, UV_RUN_NOWAIT);
    int uv_error = uv_loop_close(&loop->uv);
    if (uv_error != 0)
        log_to(&loop->env, LOG_WARN, "loop: handles left open error=%s", uv_strerror(uv_error));
    log_sink_close(&loop->log);
}
