/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop of the agent: libuv, the time (sampled once per turn), the host side of struct env
 * except sending, signals and the order of stopping, work for the thread pool, and the watchdog
 * that aborts a hung process (RES-4). Everything here belongs to the loop thread except work.run.
 */
#ifndef SHOAL_DAEMON_LOOP_H
#define SHOAL_DAEMON_LOOP_H

#include <semaphore.h>
#include <stdatomic.h>
#include <uv.h>

#include "env.h"
#include "err.h"
#include "log.h"
#include "log_sink.h"

/* Work items waiting or running at once; at the limit loop_submit refuses. */
#define LOOP_WORK_MAX 1024
/* Silence after which the watchdog aborts, in ticks of LOOP_WATCHDOG_TICK_MS. Ticks, not time: a
 * process stopped and continued (D-13) must not be killed. */
#define LOOP_WATCHDOG_TICK_MS 500
#define LOOP_WATCHDOG_TICKS   10

struct loop;

/*
 * A part of the agent that must be stopped in order. Embedded in its owner's struct. On SIGTERM or
 * SIGINT every `drain` is called in the order of registration; when no part is busy, or after the
 * grace period, or at a second signal, every `close` is called in reverse order; then the loop runs
 * until the handles are closed.
 */
struct loop_part {
    const char *name;
    void *arg;
    void (*drain)(void *arg); /* stop taking new work; NULL: nothing to do */
    bool (*busy)(void *arg);  /* still finishing; NULL: never. Polled every 50 ms */
    void (*close)(void *arg); /* uv_close every handle; memory goes in close callbacks; NULL ok */
    struct loop_part *next;   /* the loop's */
};

/* One piece of work for a worker thread; embedded in its owner's struct, which must live until
 * `done`. */
struct loop_work {
    void (*run)(struct loop_work *work); /* worker thread: touch only what the item owns */
    /* Loop thread, exactly once: 0, or E_CANCELLED when the loop stopped before `run`. */
    void (*done)(struct loop_work *work, int status);
    uv_work_t request; /* the loop's */
    struct loop *loop; /* the loop's */
};

struct loop {
    uint32_t magic;
    uv_loop_t uv;
    struct env env; /* host is this loop; send refuses with E_UNREACHABLE (the node has its own) */
    struct log_sink log;
    uint64_t now_us;
    bool now_stale;
    bool stopping;  /* drain was called */
    bool closing;   /* close was called */
    uint32_t works; /* submitted, not done */
    uint64_t works_refused;
    uint64_t stop_grace_us;
    uint64_t stop_deadline_us;
    struct loop_part *parts; /* last registered first */
    uv_signal_t signals[2];
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t heart; /* keeps the loop turning for the watchdog */
    uv_timer_t stopper;
    pthread_t watchdog;
    bool watchdog_on;
    _Atomic uint64_t beats;
    sem_t watchdog_stop;
};

struct loop_options {
    bool log_json;
    enum log_level log_level;
    int log_fd;             /* 2 usually */
    uint64_t stop_grace_us; /* longest time between drain and close */
    bool watchdog;
    bool signals; /* handle SIGTERM and SIGINT, ignore SIGPIPE */
};

/* Sets the loop up; it must not move afterwards. 0, E_NO_MEMORY, E_INTERNAL (logged). */
MUST_USE int loop_init(struct loop *loop, const struct loop_options *options);
/* Runs until loop_stop or a signal, and every part is closed. 0, or E_TIMEOUT when after 3 s
 * handles or work were still there: a worker may be using memory then, so free nothing and _exit.
 */
MUST_USE int loop_run(struct loop *loop);
/* Begins an orderly stop, as SIGTERM does; a second call ends the grace period. Loop thread. */
void loop_stop(struct loop *loop);
/* Releases what loop_init took; after loop_run. */
void loop_close(struct loop *loop);
/* Registers a part; `part` is borrowed until its close was called. */
void loop_add_part(struct loop *loop, struct loop_part *part);

/* Monotonic microseconds, one value per loop turn (STYLE "The sans-IO rule" 1). */
uint64_t loop_now_us(struct loop *loop);
/* Wall clock in seconds since 1970, for token expiry and HTTP dates only. */
uint64_t loop_wall_s(void);

/* Gives work to the thread pool. 0 (done will be called), or E_FULL: nothing happens. */
MUST_USE int loop_submit(struct loop *loop, struct loop_work *work);

/* realloc-shaped allocation, as struct env wants it; any thread. The one wrapper in the daemon. */
void *loop_alloc(void *host, void *old, size_t new_bytes);
/* Gives memory that is freed but kept back to the system, where libc can: some milliseconds. */
void loop_trim_heap(void);
/* Translates a libuv error (negative errno) to E_*. */
int loop_uv_error(int uv_error);

#endif
